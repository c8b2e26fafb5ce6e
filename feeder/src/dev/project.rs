//! What a task project is: a folder named as its module, with an executable `build` that makes
//! NAME.wasm or NAME.wat in it. Beside it may be params.json, and data/ with files that the task
//! reads.

use crate::trouble::Trouble;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;
use taskmaster_protocol::{FilePath, Json, ModuleName};

/// Folders in which tools keep what they made.
const MADE: &[&str] = &[
    "out",
    "target",
    "node_modules",
    "zig-cache",
    "zig-out",
    "__pycache__",
];

/// A task project.
pub(super) struct Project {
    folder: PathBuf,
    name: ModuleName,
}

/// The files of a project as they were: length and time of change. Others than these are not looked
/// at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// What is built.
    pub(super) code: BTreeMap<PathBuf, (u64, Option<SystemTime>)>,
    /// What it is run with: params.json and data/.
    pub(super) data: BTreeMap<PathBuf, (u64, Option<SystemTime>)>,
}

impl Project {
    /// Looks whether `folder` is one.
    pub(super) fn open(folder: &Path) -> Result<Project, Trouble> {
        let named = |why: String| Trouble::Local(format!("{}: {why}", folder.display()));
        let folder = folder
            .canonicalize()
            .map_err(|error| named(error.to_string()))?;
        let name = folder
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let name = ModuleName::new(&name)
            .map_err(|error| named(format!("its name is to be the module's: {error}")))?;
        if !folder.join("build").is_file() {
            return Err(named(
                "it has no `build`, so it is no task project; `taskmaster new` makes one".into(),
            ));
        }
        Ok(Project { folder, name })
    }

    /// Its folder, absolute.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of its module.
    pub(super) fn name(&self) -> &ModuleName {
        &self.name
    }

    /// The command that builds it; the binary that runs is the first `taskmaster` that it finds.
    pub(super) fn build_command(&self) -> Command {
        let mut command = Command::new(self.folder.join("build"));
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(std::io::stderr());
        let own = std::env::current_exe()
            .ok()
            .and_then(|path| path.parent().map(Path::to_owned));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = own.into_iter().chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        command
    }

    /// The module's file, as the last build left it.
    pub(super) fn module(&self) -> Result<PathBuf, Trouble> {
        let files = ["wasm", "wat"].map(|end| self.folder.join(format!("{}.{end}", self.name)));
        files
            .into_iter()
            .find(|file| file.is_file())
            .ok_or_else(|| {
                Trouble::Local(format!(
                    "./build made neither {0}.wasm nor {0}.wat in {1}",
                    self.name,
                    self.folder.display()
                ))
            })
    }

    /// The params in params.json, where there is one.
    pub(super) fn params(&self) -> Result<Option<Json>, Trouble> {
        let file = self.folder.join("params.json");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Trouble::Local(format!("{}: {error}", file.display()))),
        };
        Json::parse(text.trim())
            .map(Some)
            .map_err(|error| Trouble::Local(format!("{}: it is not JSON: {error}", file.display())))
    }

    /// What the task finds in its folder.
    pub(super) fn inputs(&self) -> Vec<(FilePath, PathBuf)> {
        let data = self.folder.join("data");
        let path = FilePath::new("data").ok().filter(|_| data.is_dir());
        path.into_iter().map(|path| (path, data.clone())).collect()
    }

    /// Its files as they are now.
    pub(super) fn sources(&self) -> Sources {
        let mut sources = Sources::default();
        look(
            &self.folder,
            &self.folder,
            &self.module_files(),
            &mut sources,
        );
        sources
    }

    fn module_files(&self) -> [PathBuf; 2] {
        ["wasm", "wat"].map(|end| self.folder.join(format!("{}.{end}", self.name)))
    }
}

fn look(base: &Path, folder: &Path, modules: &[PathBuf], sources: &mut Sources) {
    // What vanishes or cannot be read while we look is seen at the next look.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let lock = name.ends_with(".lock") || name == "package-lock.json";
        if name.starts_with('.') || name.ends_with('~') || lock || modules.contains(&path) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() {
            if !MADE.contains(&name.as_str()) {
                look(base, &path, modules, sources);
            }
            continue;
        }
        let is_data = path == base.join("params.json") || path.starts_with(base.join("data"));
        let to = if is_data {
            &mut sources.data
        } else {
            &mut sources.code
        };
        to.insert(path, (metadata.len(), metadata.modified().ok()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_and_what_it_is_run_with_are_told_apart() {
        let folder = std::env::temp_dir().join(format!("dev-{}", uuid::Uuid::now_v7().simple()));
        for inner in ["src", "data", "out", "node_modules/x"] {
            std::fs::create_dir_all(folder.join(inner)).unwrap();
        }
        assert!(
            Project::open(&folder)
                .err()
                .unwrap()
                .to_string()
                .contains("no `build`")
        );
        std::fs::write(folder.join("build"), "").unwrap();
        let project = Project::open(&folder).unwrap();
        let name = project.name().to_string();
        let write = |path: &str| std::fs::write(folder.join(path), "1").unwrap();
        let before = project.sources();
        for path in [
            "out/x.c",
            "node_modules/x/y.js",
            &format!("{name}.wasm"),
            ".hidden",
            "Cargo.lock",
        ] {
            write(path);
        }
        assert_eq!(project.sources(), before);
        write("params.json");
        write("data/a.csv");
        assert_eq!(
            (&project.sources().code, project.sources().data.len()),
            (&before.code, 2)
        );
        write("src/task.c");
        assert_eq!(project.sources().code.len(), before.code.len() + 1);
        assert!(project.module().unwrap().ends_with(format!("{name}.wasm")));
        assert_eq!(project.params().unwrap().unwrap().get(), "1");
        std::fs::write(folder.join("params.json"), "{").unwrap();
        assert!(
            project
                .params()
                .err()
                .unwrap()
                .to_string()
                .contains("params.json: it is not JSON")
        );
        assert_eq!(project.inputs().len(), 1);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
