//! Projects: written by `new`, built by their own `./build` with the toolchains that are installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use taskmaster_harness::{Folder, binary, run};

/// The toolchains that this run uses, by the names that the script `toolchains` has for them:
/// those in the variable `TOOLCHAINS`, or all.
pub fn chosen() -> Vec<String> {
    let names =
        std::env::var("TOOLCHAINS").unwrap_or_else(|_| "rust zig go python javascript".to_owned());
    names.split_whitespace().map(str::to_owned).collect()
}

/// The folder of the toolchains, which the first call installs.
pub fn toolchains() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/languages/toolchains");
        let installed = Command::new(script).args(chosen()).output().unwrap();
        eprint!("{}", String::from_utf8_lossy(&installed.stdout));
        assert!(
            installed.status.success(),
            "{}",
            String::from_utf8_lossy(&installed.stderr)
        );
        let folder = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let base = || {
            folder("XDG_CACHE_HOME")
                .unwrap_or_else(|| folder("HOME").unwrap().join(".cache"))
                .join("taskmaster")
        };
        folder("TASKMASTER_CACHE")
            .unwrap_or_else(base)
            .join("languages")
    })
}

/// The PATH of builds: the toolchains, the binary under test, and the rest.
fn path(tools: &Path) -> std::ffi::OsString {
    let own = binary().parent().unwrap().to_owned();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(
        [tools.join("bin"), own]
            .into_iter()
            .chain(std::env::split_paths(&rest)),
    )
    .unwrap()
}

/// A command with the toolchains on its PATH and their caches where they are.
pub fn with_tools(tools: &Path, mut command: Command) -> Command {
    for name in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
    ] {
        command.env_remove(name);
    }
    command
        .env("PATH", path(tools))
        .env("ZIG_GLOBAL_CACHE_DIR", tools.join("zig-cache"));
    command
        .env("GOCACHE", tools.join("go-cache"))
        .envs([("GOTOOLCHAIN", "local"), ("GOPROXY", "off")]);
    command
}

/// A project as `new` writes it, with what npm would install.
pub struct Project {
    pub name: String,
    pub folder: PathBuf,
    tools: &'static Path,
}

impl Project {
    pub fn new(tools: &'static Path, folder: &Folder, name: &str, lang: &str) -> Project {
        let path = path(tools).into_string().unwrap();
        let written = run(
            folder,
            &["new", name, "--lang", lang, "-o", "json"],
            &[("PATH", &path)],
            "",
        )
        .with(0)
        .json();
        assert_eq!(
            written["missing"],
            serde_json::json!([]),
            "{lang}: a toolchain is missing"
        );
        assert_eq!(written["next"].as_array().unwrap().len(), 3);
        let project = Project {
            name: name.into(),
            folder: folder.join(name),
            tools,
        };
        if project.folder.join("package.json").exists() {
            std::os::unix::fs::symlink(
                tools.join("npm/node_modules"),
                project.folder.join("node_modules"),
            )
            .unwrap();
        }
        project
    }

    /// Writes one of its files.
    pub fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.folder.join(file), text).unwrap();
    }

    /// A command in its folder, with the tools.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder);
        with_tools(self.tools, command)
    }

    /// `./build KIND`: how long it took, and the module that it made.
    #[track_caller]
    pub fn build(&self, kind: &str) -> (Duration, Vec<u8>) {
        let began = Instant::now();
        let built = self
            .command(self.folder.join("build"))
            .arg(kind)
            .output()
            .unwrap();
        let took = began.elapsed();
        assert!(
            built.status.success(),
            "{} {kind}: {}",
            self.name,
            said(&built)
        );
        (took, std::fs::read(self.module()).unwrap())
    }

    /// The file that a build leaves.
    pub fn module(&self) -> PathBuf {
        let files = ["wasm", "wat"].map(|end| self.folder.join(format!("{}.{end}", self.name)));
        files.into_iter().find(|file| file.is_file()).unwrap()
    }

    /// Where a task of it finds its files.
    pub fn data(&self) -> Option<PathBuf> {
        Some(self.folder.join("data")).filter(|data| data.is_dir())
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
