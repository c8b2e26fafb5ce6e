//! What is in a document: tokens between backticks, links, headings.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A document, by its path in the repository.
pub struct Document {
    pub name: String,
    text: String,
}

/// Folders whose documents are no documents of ours: what is built, git's own, and what `new`
/// copies into projects of others.
const NOT_OURS: &[&str] = &["target", ".git", "node_modules", "sdk", "templates"];

/// Every document in the repository.
pub fn documents(root: &str) -> Vec<Document> {
    let mut found = Vec::new();
    walk(Path::new(root), "", &mut found);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn walk(folder: &Path, inside: &str, found: &mut Vec<Document>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let name = format!("{inside}{file}");
        if path.is_dir() {
            if !NOT_OURS.contains(&file.as_str()) {
                walk(&path, &format!("{name}/"), found);
            }
        } else if name.ends_with(".md") {
            let text = fs::read_to_string(&path).unwrap();
            found.push(Document { name, text });
        }
    }
}

impl Document {
    /// Lines of prose with their numbers: what stands in fences and in blocks that are indented by
    /// four is an example.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.text
            .lines()
            .enumerate()
            .filter_map(move |(index, line)| {
                if line.trim_start().starts_with("```") {
                    fenced = !fenced;
                    return None;
                }
                (!fenced && !line.starts_with("    ")).then_some((index + 1, line))
            })
    }

    /// What stands between backticks, and the commands of shell blocks, with the number of the line.
    pub fn tokens(&self) -> Vec<(usize, String)> {
        let inline = self.prose().flat_map(|(number, line)| {
            let parts = line.split('`').skip(1).step_by(2);
            parts.map(move |token| (number, token.trim().replace("\\|", "|")))
        });
        inline.chain(self.commands()).collect()
    }

    /// `taskmaster …` and `cargo …` in blocks that are marked as `bash`.
    fn commands(&self) -> impl Iterator<Item = (usize, String)> {
        let mut in_shell = false;
        self.text
            .lines()
            .enumerate()
            .filter_map(move |(index, line)| {
                if line.starts_with("```") {
                    in_shell = line == "```bash";
                    return None;
                }
                let command = line.split(" #").next().unwrap_or_default().trim();
                let is_ours = command.starts_with("taskmaster ") || command.contains("cargo ");
                (in_shell && is_ours).then(|| (index + 1, command.to_owned()))
            })
    }

    /// Where links lead, with the number of the line.
    pub fn links(&self) -> Vec<(usize, String)> {
        self.prose()
            .flat_map(|(number, line)| {
                let targets = line.split("](").skip(1);
                targets
                    .filter_map(|rest| rest.split_once(')'))
                    .map(move |(target, _)| (number, target.to_owned()))
            })
            .collect()
    }

    /// The names under which headings can be linked to, as GitHub makes them.
    pub fn anchors(&self) -> BTreeSet<String> {
        self.prose()
            .filter(|(_, line)| line.starts_with('#'))
            .map(|(_, line)| {
                line.trim_start_matches('#')
                    .trim()
                    .to_lowercase()
                    .chars()
                    .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                    .map(|c| if c == ' ' { '-' } else { c })
                    .collect()
            })
            .collect()
    }

    /// The path in the repository of a file that is named relative to this document.
    pub fn beside(&self, file: &str) -> String {
        let mut parts: Vec<&str> = self.name.split('/').collect();
        parts.pop();
        for part in file.trim_end_matches('/').split('/') {
            match part {
                "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    }
}
