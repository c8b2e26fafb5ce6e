//! What there is in the repository: files, words of sources, packages, tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Folders that are built, fetched, git's own or a master's.
const NOT_OURS: &[&str] = &["target", ".git", "taskmaster-data", "node_modules"];

/// Endings of files whose words count. Documents do not count: they would prove themselves.
const SOURCES: &[&str] = &[
    "rs", "toml", "c", "h", "txt", "wit", "wat", "py", "js", "ts", "go", "zig", "",
];

/// All that is asked of the repository.
pub struct Repository {
    /// Files and folders, by their path with a `/` in front.
    paths: Vec<String>,
    words: BTreeSet<String>,
    text: String,
}

impl Repository {
    pub fn read(root: &str) -> Repository {
        let mut repository = Repository {
            paths: Vec::new(),
            words: BTreeSet::new(),
            text: String::new(),
        };
        repository.walk(Path::new(root), "");
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        repository.words = repository
            .text
            .split(|c| !is_word(c))
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        repository
    }

    fn walk(&mut self, folder: &Path, inside: &str) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let inside = format!("{inside}/{name}");
            if NOT_OURS.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                self.walk(&path, &inside);
            } else if is_source(&name) && !inside.starts_with("/tests/documents") {
                // This test's own list names what does not exist.
                self.text
                    .push_str(&fs::read_to_string(&path).unwrap_or_default());
                self.text.push('\n');
            }
            self.paths.push(inside);
        }
    }

    /// Whether a file or folder has this path, or one that ends with it; `*` stands for any part.
    pub fn has_file(&self, name: &str) -> bool {
        let name = name.trim_start_matches("./").trim_end_matches('/');
        match name.split_once('*') {
            None => {
                let end = format!("/{name}");
                self.paths.iter().any(|path| path.ends_with(&end))
            }
            Some((before, after)) => self
                .paths
                .iter()
                .any(|path| path.contains(before) && path.ends_with(after.trim_matches('*'))),
        }
    }

    /// Whether a source has this word, or its variant of an enum where serde makes `snake_case` of
    /// `SnakeCase`.
    pub fn has_word(&self, word: &str) -> bool {
        self.words.contains(word) || self.words.contains(&variant(word))
    }

    pub fn has_word_from(&self, beginning: &str) -> bool {
        let next = self.words.range(beginning.to_owned()..).next();
        next.is_some_and(|word| word.starts_with(beginning))
    }

    pub fn has_text(&self, text: &str) -> bool {
        self.text.contains(text)
    }

    pub fn has_package(&self, name: &str) -> bool {
        self.has_text(&format!("name = \"{name}\""))
    }

    /// Whether a test, an example or a module of tests has this name.
    pub fn has_target(&self, name: &str) -> bool {
        self.has_file(&format!("{name}.rs"))
            || self.has_file(&format!("tests/{name}/main.rs"))
            || self.has_file(&format!("examples/{name}.rs"))
    }
}

/// `snake_case` as `SnakeCase`.
fn variant(word: &str) -> String {
    word.split('_')
        .map(|part| {
            let (first, rest) = part.split_at_checked(1).unwrap_or((part, ""));
            first.to_uppercase() + rest
        })
        .collect()
}

fn is_source(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    SOURCES.contains(&ending)
}
