//! The files of the project, read once, and places in them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The project's own folder.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A Rust source.
pub struct Source {
    /// From the project's folder on, with `/` between its parts.
    pub path: String,
    pub text: String,
}

/// A line that breaks a rule.
#[derive(Debug)]
pub struct Finding {
    pub path: String,
    /// From 1.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl Source {
    /// `index`: of the line, from 0.
    pub fn finding(&self, index: usize, what: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line: index + 1,
            what: what.into(),
        }
    }

    /// The lines before the file's own tests.
    pub fn product_lines(&self) -> impl Iterator<Item = &str> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {");
        self.text[..tests.unwrap_or(self.text.len())].lines()
    }

    /// Whether it is part of what users run or build upon.
    fn is_product(&self) -> bool {
        let mut folders = self.path.split('/').collect::<Vec<_>>();
        let name = folders.pop().unwrap_or_default();
        !matches!(name, "tests.rs" | "test.rs" | "scratch.rs")
            && !folders
                .iter()
                .any(|folder| matches!(*folder, "tests" | "test" | "fuzz" | "examples" | "benches"))
    }
}

/// Every file of the project, without what is built, fetched or git's own; paths from its folder
/// on.
pub fn files() -> &'static [PathBuf] {
    static FILES: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::from(ROOT)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let foreign = ["target", ".git", "taskmaster-data", "node_modules"];
                if path.is_dir() && !foreign.contains(&name.as_str()) {
                    folders.push(path);
                } else if path.is_file() {
                    found.push(path.strip_prefix(ROOT).unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    })
}

/// Every Rust source.
pub fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let is_rust = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "rs");
        let sources: Vec<Source> = files()
            .iter()
            .filter(is_rust)
            .map(|path| Source {
                path: path.to_string_lossy().into_owned(),
                text: fs::read_to_string(Path::new(ROOT).join(path)).unwrap(),
            })
            .collect();
        assert!(
            sources.len() > 100,
            "only {} sources were found: is this test looking in the right place?",
            sources.len()
        );
        sources
    })
}

/// The sources of the product: no tests, examples, fuzz targets.
pub fn product() -> impl Iterator<Item = &'static Source> {
    sources().iter().filter(|source| source.is_product())
}

/// The text of a file that must be there.
pub fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Fails where there is anything, and names each.
#[track_caller]
pub fn none(findings: &[Finding], rule: &str) {
    assert!(findings.is_empty(), "{rule}\n{}", lines(findings));
}

/// One finding a line.
pub fn lines(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|finding| format!("  {finding}\n"))
        .collect()
}
