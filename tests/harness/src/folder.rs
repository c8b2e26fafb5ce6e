//! Folders that tests work in.

use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder that is gone when the value is dropped.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(
            tempfile::Builder::new()
                .prefix("taskmaster-test-")
                .tempdir()
                .unwrap(),
        )
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file and gives its path back as text.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Default for Folder {
    fn default() -> Folder {
        Folder::new()
    }
}
