//! Starts the binary, talks to it, waits for things, and cleans up after itself.

use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up. Generous: machines are busy, and a test
/// that passes is quick.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_taskmaster");

/// A folder that is gone when the value is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "taskmaster-e2e-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and gives its path back as text.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder in the temporary directory: what is left of it harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits until `probe` gives something.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "waited {} s for {what}",
            PATIENCE.as_secs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `probe` holds.
pub fn until(what: &str, mut probe: impl FnMut() -> bool) {
    wait_for(what, || probe().then_some(()));
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

    fn spawn(folder: &Folder, mut command: Command, args: &[&str]) -> Process {
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
    settled(Command::new(BINARY), folder, settings)
}

fn settled(mut command: Command, folder: &Folder, settings: &[(&str, &str)]) -> Command {
    for name in [
        "TASKMASTER_CONFIG",
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

    /// The same, after it has ended with this code.
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

/// A master (`up` or `master`) in a folder of its own.
pub struct Master {
    pub folder: Folder,
    pub url: String,
    role: &'static str,
    more: Vec<String>,
    settings: Vec<(String, String)>,
    pub process: Process,
}

impl Master {
    /// `up` with this many slots.
    pub fn up(slots: u32) -> Master {
        Master::with("up", &["--slots", &slots.to_string()])
    }

    /// `up` or `master` with more arguments.
    pub fn with(role: &'static str, more: &[&str]) -> Master {
        let folder = Folder::new();
        fs::create_dir(folder.join("tasks")).unwrap();
        let more: Vec<String> = more.iter().map(|text| (*text).to_owned()).collect();
        let process = Master::launch(&folder, role, &more, "127.0.0.1:0", &[]);
        let url = Master::ready(&process);
        Master {
            folder,
            url,
            role,
            more,
            process,
            settings: Vec::new(),
        }
    }

    /// The same with variables; the one named `data` is set to the data folder.
    pub fn with_settings(
        role: &'static str,
        more: &[&str],
        settings: &[(&str, &str)],
        data: &str,
    ) -> Master {
        let folder = Folder::new();
        fs::create_dir(folder.join("tasks")).unwrap();
        let more: Vec<String> = more.iter().map(|text| (*text).to_owned()).collect();
        let mut settings: Vec<(String, String)> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        settings.push((
            data.to_owned(),
            folder.join("data").to_str().unwrap().to_owned(),
        ));
        let process = Master::launch(&folder, role, &more, "127.0.0.1:0", &settings);
        let url = Master::ready(&process);
        Master {
            folder,
            url,
            role,
            more,
            process,
            settings,
        }
    }

    fn launch(
        folder: &Folder,
        role: &str,
        more: &[String],
        listen: &str,
        settings: &[(String, String)],
    ) -> Process {
        let mut args = vec![
            role, "--listen", listen, "--data", "data", "--tasks", "tasks",
        ];
        args.extend(more.iter().map(String::as_str));
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Process::start(folder, &args, &settings)
    }

    /// A master whose data folder is a disk of its own, of so many MiB: a tmpfs in a name space
    /// that ends with the process. `None` where the system lets this user have none.
    pub fn on_small_disk(mib: u32) -> Option<Master> {
        let may = Command::new("unshare")
            .args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"])
            .output();
        if !may.is_ok_and(|tried| tried.status.success()) {
            return None;
        }
        let folder = Folder::new();
        fs::create_dir(folder.join("tasks")).unwrap();
        fs::create_dir(folder.join("data")).unwrap();
        let mount =
            format!("mount -t tmpfs -o size={mib}m none data && cd . && exec \"$0\" \"$@\"");
        let mut unshare = Command::new("unshare");
        unshare.args(["-rm", "sh", "-c", &mount, BINARY]);
        let args = [
            "master",
            "--listen",
            "127.0.0.1:0",
            "--data",
            "data",
            "--tasks",
            "tasks",
        ];
        let process = Process::spawn(&folder, settled(unshare, &folder, &[]), &args);
        let url = Master::ready(&process);
        Some(Master {
            folder,
            url,
            role: "master",
            more: Vec::new(),
            process,
            settings: Vec::new(),
        })
    }

    /// The data folder of a master on a small disk, seen from here.
    pub fn small_disk(&self) -> PathBuf {
        let inside = self.folder.join("data");
        PathBuf::from(format!("/proc/{}/root", self.process.id()))
            .join(inside.strip_prefix("/").unwrap())
    }

    /// The address in the line that says it is ready.
    pub fn ready(process: &Process) -> String {
        wait_for("`listening on`", || {
            let said = process.said();
            // A line that is being written has no end yet, and half an address is one, too.
            let whole =
                |line: &&str| line.starts_with("listening on ws://") && line.ends_with('\n');
            let line = said.split_inclusive('\n').find(whole)?;
            Some(
                line.trim_start_matches("listening on ")
                    .trim_end()
                    .to_owned(),
            )
        })
    }

    /// Starts it again on the port it had.
    pub fn start_again(&mut self) {
        self.process = self.launch_again();
        assert_eq!(Master::ready(&self.process), self.url);
    }

    /// The same without waiting until it is ready: it may refuse to start.
    pub fn launch_again(&self) -> Process {
        let listen = self.url.trim_start_matches("ws://");
        Master::launch(&self.folder, self.role, &self.more, listen, &self.settings)
    }

    /// A runner that connects to it; ready when the master lists it.
    pub fn runner(&self, name: &str, more: &[&str]) -> Process {
        let mut args = vec!["runner", "--name", name, "--cache", "runner-cache"];
        args.extend(more);
        let runner = Process::start(&self.folder, &args, &[("TASKMASTER_URL", &self.url)]);
        until("the runner's name in the list", || {
            let ran = self.run(&["runners", "list", "-o", "json"]);
            ran.code == 0
                && ran
                    .json()
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|r| r["runner"] == name && r["state"] == "connected")
        });
        runner
    }

    /// A client's command in the background.
    pub fn spawn(&self, args: &[&str]) -> Process {
        Process::start(&self.folder, args, &[("TASKMASTER_URL", &self.url)])
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "")
    }

    pub fn run_with(&self, args: &[&str], input: &str) -> Ran {
        run(&self.folder, args, &[("TASKMASTER_URL", &self.url)], input)
    }

    /// A command that must end with 0, and its stdout as JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        self.run(&all).with(0).json()
    }

    /// Writes a module's file, in one go, and waits until its name is usable.
    pub fn drop_module(&self, file: &str, text: impl AsRef<[u8]>) {
        fs::write(self.tasks().join(file), text).unwrap();
        let name = file.rsplit_once('.').unwrap().0;
        until("the module in the list", || {
            !self.module(name)["version"].is_null()
        });
    }

    pub fn tasks(&self) -> PathBuf {
        self.folder.join("tasks")
    }

    /// A module as it is listed; `null` if it is not.
    pub fn module(&self, name: &str) -> Value {
        let list = self.json(&["modules", "list"]);
        list.as_array()
            .unwrap()
            .iter()
            .find(|module| module["name"] == name)
            .cloned()
            .unwrap_or(Value::Null)
    }

    pub fn task(&self, id: &str) -> Value {
        self.json(&["tasks", "show", id])
    }

    pub fn job(&self, name: &str) -> Value {
        self.json(&["jobs", "show", name])
    }

    pub fn wait_state(&self, id: &str, state: &str) -> Value {
        wait_for(&format!("task {id} to be {state}"), || {
            Some(self.task(id)).filter(|task| task["state"] == state)
        })
    }

    pub fn why(&self, id: &str) -> String {
        self.run(&["tasks", "why", id]).with(0).out
    }

    /// That it still takes and runs tasks: after whatever was done to it.
    #[track_caller]
    pub fn still_works(&self) {
        assert_eq!(
            self.run(&["call", "echo", "--params", "[1]"]).with(0).out,
            "[1]\n"
        );
    }
}

/// Microseconds since midnight of a time as it is printed, `2026-01-31T12:00:00.123456Z`; its form
/// is checked too.
#[track_caller]
pub fn micros(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is no time"));
    let form: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(form, "0000-00-00T00:00:00.000000Z", "{text}");
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    ((number(11, 13) * 60 + number(14, 16)) * 60 + number(17, 19)) * 1_000_000 + number(20, 26)
}

/// Microseconds from one printed time to a later one, less than a day apart.
#[track_caller]
pub fn micros_between(from: &Value, to: &Value) -> i64 {
    (micros(to) - micros(from)).rem_euclid(86_400_000_000)
}
