//! A master with everything that it has in a folder of its own.

use crate::folder::Folder;
use crate::process::{Process, Ran, binary, isolate, run};
use crate::waiting::{until, wait_for};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A master (`up` or `master`) in a folder of its own.
pub struct Master {
    pub folder: Folder,
    pub url: String,
    pub process: Process,
    role: &'static str,
    /// Arguments beside those that every master here has.
    more: Vec<String>,
    settings: Vec<(String, String)>,
}

/// A runner, and its disk as it is seen from here.
pub struct RunnerOnSmallDisk {
    pub process: Process,
    pub disk: PathBuf,
}

impl Master {
    /// `up` with this many slots.
    pub fn up(slots: u32) -> Master {
        Master::with("up", &["--slots", &slots.to_string()])
    }

    /// `up` or `master` with more arguments.
    pub fn with(role: &'static str, more: &[&str]) -> Master {
        Master::begin(Folder::new(), role, more, Vec::new())
    }

    /// `up` or `master` with more arguments and variables. The variable that `data` names is set to
    /// the data folder.
    pub fn with_settings(
        role: &'static str,
        more: &[&str],
        settings: &[(&str, &str)],
        data: &str,
    ) -> Master {
        let folder = Folder::new();
        let path = folder.join("data").to_str().unwrap().to_owned();
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .chain([(data.to_owned(), path)])
            .collect();
        Master::begin(folder, role, more, settings)
    }

    fn begin(
        folder: Folder,
        role: &'static str,
        more: &[&str],
        settings: Vec<(String, String)>,
    ) -> Master {
        fs::create_dir(folder.join("tasks")).unwrap();
        let more: Vec<String> = more.iter().map(|text| (*text).to_owned()).collect();
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

    /// `up` whose processes may use `kib` KiB of addresses each, as batch systems limit them.
    pub fn up_in_address_space(kib: u64) -> Master {
        let folder = Folder::new();
        fs::create_dir(folder.join("tasks")).unwrap();
        let mut shell = Command::new("sh");
        let limited = format!("ulimit -v {kib} && exec \"$0\" \"$@\"");
        shell.args(["-c", &limited]).arg(binary());
        let more = ["--slots".to_owned(), "2".to_owned()];
        let mut args = vec![
            "up",
            "--listen",
            "127.0.0.1:0",
            "--data",
            "data",
            "--tasks",
            "tasks",
        ];
        args.extend(more.iter().map(String::as_str));
        let process = Process::spawn(&folder, isolate(shell, &folder, &[]), &args);
        let url = Master::ready(&process);
        Master {
            folder,
            url,
            role: "up",
            more: more.into(),
            process,
            settings: Vec::new(),
        }
    }

    /// A master whose data folder is a disk of its own with `mib` MiB: a tmpfs in a name space that
    /// ends with the process. The test fails where the system lets this user have none.
    pub fn on_small_disk(mib: u32) -> Master {
        let tried = Command::new("unshare")
            .args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"])
            .output();
        assert!(
            tried.is_ok_and(|tried| tried.status.success()),
            "this user may not mount a tmpfs in a name space of its own (unshare -rm)"
        );
        let folder = Folder::new();
        fs::create_dir(folder.join("tasks")).unwrap();
        fs::create_dir(folder.join("data")).unwrap();
        let mount =
            format!("mount -t tmpfs -o size={mib}m none data && cd . && exec \"$0\" \"$@\"");
        let mut unshare = Command::new("unshare");
        unshare.args(["-rm", "sh", "-c", &mount]).arg(binary());
        let args = [
            "master",
            "--listen",
            "127.0.0.1:0",
            "--data",
            "data",
            "--tasks",
            "tasks",
        ];
        let process = Process::spawn(&folder, isolate(unshare, &folder, &[]), &args);
        let url = Master::ready(&process);
        Master {
            folder,
            url,
            role: "master",
            more: Vec::new(),
            process,
            settings: Vec::new(),
        }
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

    /// Starts it again on the port it had, without waiting until it is ready: it may refuse to
    /// start.
    pub fn launch_again(&self) -> Process {
        let listen = self.url.trim_start_matches("ws://");
        Master::launch(&self.folder, self.role, &self.more, listen, &self.settings)
    }

    /// A runner that connects to it; ready when the master lists it.
    pub fn runner(&self, name: &str, more: &[&str]) -> Process {
        let mut args = vec!["runner", "--name", name, "--cache", "runner-cache"];
        args.extend(more);
        let runner = Process::start(&self.folder, &args, &[("TASKMASTER_URL", &self.url)]);
        self.wait_for_runner(name);
        runner
    }

    fn wait_for_runner(&self, name: &str) {
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
    }

    /// A runner whose cache is a disk of its own with `mib` MiB, as the data of
    /// [`Master::on_small_disk`].
    pub fn runner_on_small_disk(&self, name: &str, mib: u32) -> RunnerOnSmallDisk {
        fs::create_dir(self.folder.join("small")).unwrap();
        let mount =
            format!("mount -t tmpfs -o size={mib}m none small && cd . && exec \"$0\" \"$@\"");
        let mut unshare = Command::new("unshare");
        unshare.args(["-rm", "sh", "-c", &mount]).arg(binary());
        let args = [
            "runner", "--name", name, "--cache", "small", "--url", &self.url,
        ];
        let process = Process::spawn(&self.folder, isolate(unshare, &self.folder, &[]), &args);
        self.wait_for_runner(name);
        let inside = self.folder.join("small");
        let disk = PathBuf::from(format!("/proc/{}/root", process.id()))
            .join(inside.strip_prefix("/").unwrap());
        RunnerOnSmallDisk { process, disk }
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
