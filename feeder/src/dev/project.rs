//! A task project: a folder named as its module, with an executable `build` that makes NAME.wasm or
//! NAME.wat in it. Beside it may be params.json, and data/ with files that the task reads.

use crate::error::CommandError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use taskmaster_protocol::{FilePath, Json, ModuleName};
use tokio::process::Command;

/// Folders in which tools keep what they make.
const TOOL_FOLDERS: &[&str] = &[
    "out",
    "target",
    "node_modules",
    "zig-cache",
    "zig-out",
    "__pycache__",
];

/// A task project.
pub(super) struct Project {
    /// Absolute.
    folder: PathBuf,
    name: ModuleName,
}

/// The files of a project that its author writes, as they were at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ProjectFiles {
    /// What is built.
    pub(super) code: BTreeMap<PathBuf, ProjectFileStamp>,
    /// What it is run with: params.json and data/.
    pub(super) data: BTreeMap<PathBuf, ProjectFileStamp>,
}

/// By what a changed file is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProjectFileStamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Project {
    /// Opens `folder`, if it is a project.
    pub(super) fn open(folder: &Path) -> Result<Project, CommandError> {
        let failed =
            |reason: String| CommandError::Local(format!("{}: {reason}", folder.display()));
        let folder = folder
            .canonicalize()
            .map_err(|error| failed(error.to_string()))?;
        let name = folder
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let name = ModuleName::new(&name)
            .map_err(|error| failed(format!("its name is to be the module's: {error}")))?;
        if !folder.join("build").is_file() {
            return Err(failed(
                "it has no `build`, so it is no task project; `taskmaster new` makes one".into(),
            ));
        }
        Ok(Project { folder, name })
    }

    /// The folder of the project, absolute.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of the module.
    pub(super) fn name(&self) -> &ModuleName {
        &self.name
    }

    /// The command that builds the project. This binary is the first `taskmaster` that it finds.
    pub(super) fn build_command(&self) -> Command {
        let mut command = Command::new(self.folder.join("build"));
        command.current_dir(&self.folder).stdout(std::io::stderr());
        let own_folder = std::env::current_exe()
            .ok()
            .and_then(|path| path.parent().map(Path::to_owned));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = own_folder.into_iter().chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        command
    }

    /// The module's file, as the last build left it.
    pub(super) fn module(&self) -> Result<PathBuf, CommandError> {
        let found = self.module_files().into_iter().find(|file| file.is_file());
        found.ok_or_else(|| {
            CommandError::Local(format!(
                "./build made neither {0}.wasm nor {0}.wat in {1}",
                self.name,
                self.folder.display()
            ))
        })
    }

    /// The params in params.json, where there is one.
    pub(super) fn params(&self) -> Result<Option<Json>, CommandError> {
        let file = self.folder.join("params.json");
        let failed = |reason: String| CommandError::Local(format!("{}: {reason}", file.display()));
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        match Json::from_bytes(&bytes) {
            Ok(json) => Ok(Some(json)),
            Err(error) => Err(failed(format!("it {error}"))),
        }
    }

    /// What the task finds in its folder: data/, where the project has one.
    pub(super) fn inputs(&self) -> Vec<(FilePath, PathBuf)> {
        let data = self.folder.join("data");
        let path = FilePath::new("data").ok().filter(|_| data.is_dir());
        path.into_iter().map(|path| (path, data.clone())).collect()
    }

    /// The author's files as they are now.
    pub(super) fn files(&self) -> ProjectFiles {
        let mut files = ProjectFiles::default();
        self.add_files(&self.folder, &self.module_files(), &mut files);
        files
    }

    fn module_files(&self) -> [PathBuf; 2] {
        ["wasm", "wat"].map(|extension| self.folder.join(format!("{}.{extension}", self.name)))
    }

    fn add_files(&self, folder: &Path, modules: &[PathBuf], files: &mut ProjectFiles) {
        // What vanishes meanwhile or cannot be read is seen the next time.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_of_a_tool(&name) || modules.contains(&path) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                if !TOOL_FOLDERS.contains(&name.as_str()) {
                    self.add_files(&path, modules, files);
                }
                continue;
            }
            let is_data = path == self.folder.join("params.json")
                || path.starts_with(self.folder.join("data"));
            let kind = if is_data {
                &mut files.data
            } else {
                &mut files.code
            };
            let stamp = ProjectFileStamp {
                bytes: metadata.len(),
                modified: metadata.modified().ok(),
            };
            kind.insert(path, stamp);
        }
    }
}

/// Whether a tool or an editor writes a file of this name.
fn is_of_a_tool(name: &str) -> bool {
    name.starts_with('.')
        || name.ends_with('~')
        || name.ends_with(".lock")
        || name == "package-lock.json"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_and_what_it_is_run_with_are_told_apart() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("hello");
        for inner in ["src", "data", "out", "node_modules/x"] {
            std::fs::create_dir_all(folder.join(inner)).unwrap();
        }
        let error = Project::open(&folder).err().unwrap();
        assert!(error.to_string().contains("no `build`"), "{error}");

        std::fs::write(folder.join("build"), "").unwrap();
        let project = Project::open(&folder).unwrap();
        assert_eq!(project.name().as_str(), "hello");
        let write = |path: &str| std::fs::write(folder.join(path), "1").unwrap();
        let before = project.files();
        for path in [
            "out/x.c",
            "node_modules/x/y.js",
            "hello.wasm",
            ".hidden",
            "Cargo.lock",
        ] {
            write(path);
        }
        assert_eq!(project.files(), before);

        write("params.json");
        write("data/a.csv");
        let files = project.files();
        assert_eq!(files.code, before.code);
        assert_eq!(files.data.len(), 2);
        write("src/task.c");
        assert_eq!(project.files().code.len(), before.code.len() + 1);
        assert!(project.module().unwrap().ends_with("hello.wasm"));

        assert_eq!(project.params().unwrap().unwrap().get(), "1");
        std::fs::write(folder.join("params.json"), "{").unwrap();
        let error = project.params().err().unwrap();
        let words = "params.json: it is not JSON";
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(project.inputs().len(), 1);
    }
}
