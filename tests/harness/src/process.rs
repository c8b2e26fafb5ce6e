//! Processes of the binary under test, in the background or run to their end.

use crate::folder::Folder;
use crate::waiting::wait_for;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The binary under test. Cargo names it to the integration tests that it runs; a test that is
/// started by hand finds the binary beside the folder of its own file.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("CARGO_BIN_EXE_taskmaster") {
            return PathBuf::from(path);
        }
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        profile.join("taskmaster")
    })
}

/// A process of ours; killed by its id when it is dropped.
pub struct Process {
    child: Child,
    pub stderr: PathBuf,
    pub stdout: PathBuf,
}

impl Process {
    /// Starts the binary with its output in files of `folder`.
    pub fn start(folder: &Folder, args: &[&str], settings: &[(&str, &str)]) -> Process {
        Process::spawn(folder, command(folder, settings), args)
    }

    pub(crate) fn spawn(folder: &Folder, mut command: Command, args: &[&str]) -> Process {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "{}-{}",
            args.first().unwrap_or(&"none"),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let (stdout, stderr) = (
            folder.join(&format!("{name}.out")),
            folder.join(&format!("{name}.err")),
        );
        let child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Process {
            child,
            stderr,
            stdout,
        }
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    pub fn printed(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.exit_code()
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end; the exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        wait_for("the end of a process", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary with nothing of the caller's settings, its caches in `folder`.
pub fn command(folder: &Folder, settings: &[(&str, &str)]) -> Command {
    isolate(Command::new(binary()), folder, settings)
}

/// Takes the caller's settings away from a command and runs it in `folder`.
pub(crate) fn isolate(mut command: Command, folder: &Folder, settings: &[(&str, &str)]) -> Command {
    for name in [
        "TASKMASTER_URL",
        "TASKMASTER_TOKEN",
        "TASKMASTER_LOG",
        "TASKMASTER_BLOBS",
    ] {
        command.env_remove(name);
    }
    command
        .env("NO_COLOR", "1")
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .current_dir(folder.path());
    command.envs(settings.iter().copied());
    command
}

/// What a command said and how it ended.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub bytes: Vec<u8>,
}

impl Ran {
    fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            bytes: output.stdout,
        }
    }

    /// Ends the test where the command did not end with this code.
    #[track_caller]
    pub fn with(self, code: i32) -> Ran {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.out, self.err
        );
        self
    }

    /// stdout as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }

    /// stdout as JSON lines.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        json_lines(&self.out)
    }

    /// That all of these words are on stderr.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Ran {
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not in: {}", self.err);
        }
        self
    }
}

#[track_caller]
pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Runs the binary to its end, with `input` on stdin.
pub fn run(folder: &Folder, args: &[&str], settings: &[(&str, &str)], input: &str) -> Ran {
    let mut command = command(folder, settings);
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A command that fails early reads no further: then there is nobody to write to.
    let writing = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    Ran::of(output)
}
