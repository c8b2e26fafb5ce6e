//! Lines for people: nobody who reads them, or does not, ends a process or holds it up; and nothing
//! that a guest wrote speaks to a terminal.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};
use taskmaster_harness::wat::{SLEEP, TRAP, echo, says};
use taskmaster_harness::{Folder, Master, binary, command, on_terminal, run, until, wait_for};

/// An `up` whose stderr is a pipe, and the reader of that.
struct Piped {
    folder: Folder,
    child: Child,
    url: String,
    /// `None` when the reader has left.
    reader: Option<BufReader<ChildStderr>>,
}

impl Piped {
    /// Starts it, and reads until it is ready.
    fn up() -> Piped {
        let folder = Folder::new();
        std::fs::create_dir(folder.join("tasks")).unwrap();
        std::fs::write(folder.join("tasks/sleep.wat"), SLEEP).unwrap();
        let mut child = command(&folder, &[])
            .args(["up", "--listen", "127.0.0.1:0", "--data", "data"])
            .args(["--tasks", "tasks", "--slots", "1"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut reader = BufReader::new(child.stderr.take().unwrap());
        let url = loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "it has ended");
            if let Some(url) = line.trim_end().strip_prefix("listening on ") {
                break url.to_owned();
            }
        };
        Piped {
            folder,
            child,
            url,
            reader: Some(reader),
        }
    }

    fn run(&self, args: &[&str]) -> taskmaster_harness::Ran {
        run(&self.folder, args, &[("TASKMASTER_URL", &self.url)], "")
    }

    /// Drops `count` files whose names can be no module's. Each is a warning.
    fn warn(&self, count: usize) {
        for n in 0..count {
            let name = format!("tasks/no name {n:04}.wat");
            std::fs::write(self.folder.join(&name), "").unwrap();
        }
    }

    /// Drops a module, and calls it.
    fn a_new_module_is_live(&self, name: &str) {
        std::fs::write(self.folder.join(&format!("tasks/{name}.wat")), echo()).unwrap();
        until("the new module", || {
            self.run(&["call", name, "--params", "1"]).code == 0
        });
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(signal: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

fn exit_code(child: &mut Child) -> Option<i32> {
    wait_for("the end of a process", || child.try_wait().unwrap()).code()
}

#[test]
fn a_master_outlasts_the_reader_of_its_log() {
    let mut up = Piped::up();
    up.reader = None;
    up.warn(3);
    up.a_new_module_is_live("late");
    up.run(&["add", "sleep", "--id", "slow", "--params", "700"])
        .with(0);
    until("the task to run", || {
        up.run(&["tasks", "list", "--state", "assigned", "-o", "quiet"])
            .out
            == "slow\n"
    });
    send("TERM", up.child.id());
    assert_eq!(exit_code(&mut up.child), Some(0));
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let mut up = Piped::up();
    // More than a pipe of 64 KiB holds.
    up.warn(1_200);
    up.a_new_module_is_live("late");
    let asked = Instant::now();
    send("TERM", up.child.id());
    assert_eq!(exit_code(&mut up.child), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(20));
    let mut rest = String::new();
    let reader = up.reader.as_mut().unwrap();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("no name 0000"), "{rest}");
}

#[test]
fn a_runner_outlasts_the_reader_of_its_log_and_says_when_it_is_back() {
    let mut master = Master::with("master", &["--grace", "0s"]);
    master.drop_module("echo.wat", echo());
    let settings = [("TASKMASTER_URL", master.url.as_str())];
    let mut deaf = command(&master.folder, &settings)
        .args([
            "runner", "--name", "deaf", "--slots", "1", "--cache", "deaf",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(deaf.stderr.take());
    let heard = master.runner("heard", &["--slots", "1"]);
    master.process.terminate();
    until("the loss in the log", || {
        heard
            .said()
            .contains("the connection to the master is gone")
    });
    master.start_again();
    until("the return in the log", || {
        heard.said().contains("connected to") && heard.said().contains("again as `heard`")
    });
    until("both runners", || {
        let runners = master.json(&["runners", "list"]);
        let connected = |name: &str| {
            let mut all = runners.as_array().unwrap().iter();
            all.any(|runner| runner["runner"] == name && runner["state"] == "connected")
        };
        connected("deaf") && connected("heard")
    });
    assert!(deaf.try_wait().unwrap().is_none(), "it lives");
    send("TERM", deaf.id());
    assert_eq!(exit_code(&mut deaf), Some(0));
}

#[test]
fn a_hangup_stops_in_order_unless_it_was_ignored_from_the_beginning() {
    let mut up = Piped::up();
    send("HUP", up.child.id());
    assert_eq!(exit_code(&mut up.child), Some(0));

    // As `nohup` starts it.
    let folder = Folder::new();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(binary())
        .args(["up", "--listen", "127.0.0.1:0", "--slots", "0"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = |line: std::io::Result<String>| line.unwrap().starts_with("listening on");
    assert!(lines.any(ready));
    send("HUP", child.id());
    send("TERM", child.id());
    assert_eq!(exit_code(&mut child), Some(0));
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(rest.iter().any(|line| line.starts_with("stopping:")));
    assert!(!rest.iter().any(|line| line.contains("second signal ended")));
}

#[test]
fn a_reader_that_leaves_ends_no_command_with_a_panic() {
    let master = Master::up(1);
    master.drop_module("echo.wat", echo());
    let feed = "{\"module\":\"echo\"}\n".repeat(50);
    master.run_with(&["feed", "--wait"], &feed).with(0);
    for args in [
        &["completions", "bash"][..],
        &["tasks", "list", "-o", "json"],
        &["modules", "list"],
        &["watch", "--since", "0"],
        &["modules", "check", "tasks/echo.wat"],
        &["run", "tasks/echo.wat", "--params", "1"],
    ] {
        let mut child = command(&master.folder, &[("TASKMASTER_URL", &master.url)])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        let mut stderr = child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(exit_code(&mut child), Some(141), "{args:?}: {said}");
        assert_eq!(said, "", "{args:?}");
    }
}

#[test]
fn a_feed_whose_reader_leaves_says_what_it_has_added() {
    let master = Master::up(1);
    master.drop_module("echo.wat", echo());
    let file = master
        .folder
        .write("many.jsonl", "{\"module\":\"echo\"}\n".repeat(20_000));
    let mut child = command(&master.folder, &[("TASKMASTER_URL", &master.url)])
        .args(["feed", &file, "--job", "many", "--follow"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(exit_code(&mut child), Some(141), "{said}");
    for words in [
        "the reader of stdout has gone",
        "to job many",
        "jobs wait many",
    ] {
        assert!(said.contains(words), "`{words}` is not in: {said}");
    }
}

#[test]
fn an_interrupted_wait_says_what_goes_on_and_how_to_come_back() {
    let master = Master::up(1);
    master.drop_module("sleep.wat", SLEEP);
    let long = "{\"id\":\"fed\",\"module\":\"sleep\",\"params\":600000}";
    let file = master.folder.write("long.jsonl", long);
    let call = [
        "call", "sleep", "--id", "called", "--job", "calls", "--params", "600000",
    ];
    for (args, id, words) in [
        (
            &call[..],
            "called",
            &[
                "task called goes on",
                "tasks result called",
                "tasks cancel called",
            ][..],
        ),
        (
            &["feed", &file, "--job", "feeds", "--wait"],
            "fed",
            &[
                "1 task added to job feeds",
                "jobs wait feeds",
                "jobs cancel feeds",
            ],
        ),
        (
            &["jobs", "wait", "feeds"],
            "fed",
            &["job feeds goes on", "jobs wait feeds", "jobs cancel feeds"],
        ),
    ] {
        for (signal, code) in [("INT", 130), ("TERM", 143)] {
            let mut waiting = master.spawn(args);
            until("the task", || master.run(&["tasks", "show", id]).code == 0);
            // The answer to what was sent last is on its way.
            std::thread::sleep(Duration::from_millis(200));
            waiting.signal(signal);
            assert_eq!(waiting.exit_code(), Some(code), "{args:?}");
            let said = waiting.said();
            let is_known_task = args[0] == "feed" && signal == "TERM";
            for words in words.iter().filter(|_| !is_known_task) {
                assert!(
                    said.contains(words),
                    "{args:?}: `{words}` is not in: {said}"
                );
            }
        }
    }
    let passed = master.run(&["jobs", "wait", "feeds", "--wait-timeout", "1ms"]);
    passed
        .with(5)
        .says(&["job feeds goes on", "jobs cancel feeds"]);
}

/// What a terminal would obey: it renames the window, clears the screen in C1, and turns text round.
const OBEYED: &str = "\u{1b}]0;title\u{7}\u{9b}2Jabc\u{202e}cba";

#[test]
fn what_guests_write_does_not_speak_to_a_terminal() {
    let master = Master::up(1);
    master.drop_module("out.wat", says(OBEYED, "", 0));
    master.drop_module("err.wat", says("1", &format!("{OBEYED}\n"), 0));
    master.drop_module("bad.wat", says("", &format!("{OBEYED}\n"), 65));
    master
        .run(&["call", "out", "--id", "out", "--job", "j"])
        .with(0);
    master.run(&["add", "err", "--id", "err", "--wait"]).with(0);
    master.run(&["add", "bad", "--id", "bad", "--wait"]).with(3);
    let _runner = master.runner(OBEYED, &["--slots", "1"]);

    let settings = [("TASKMASTER_URL", master.url.as_str())];
    let again = master
        .folder
        .write("again.jsonl", "{\"id\":\"again\",\"module\":\"out\"}");
    for args in [
        &["call", "out"][..],
        &["call", "bad"],
        &["tasks", "result", "out"],
        &["tasks", "result", "out", "-o", "json"],
        &["tasks", "show", "out"],
        &["tasks", "show", "out", "-o", "json"],
        &["tasks", "show", "bad"],
        &["tasks", "list"],
        &["tasks", "list", "-o", "jsonl"],
        &["tasks", "logs", "err"],
        &["tasks", "logs", "err", "-o", "json"],
        &["tasks", "why", "bad"],
        &["runners", "list"],
        &["runners", "list", "-o", "quiet"],
        &["runners", "list", "-o", "json"],
        &["run", "tasks/out.wat", "--params", "1"],
        &["run", "tasks/err.wat", "--params", "1"],
        &["run", "tasks/bad.wat", "--params", "1"],
        &["feed", &again, "--follow"],
        &["feed", &again, "--follow", "-o", "json"],
    ] {
        let shown = on_terminal(&master.folder, args, &settings);
        assert!(!shown.trim().is_empty(), "{args:?}");
        for obeyed in ["\u{1b}]", "\u{7}", "\u{9b}", "\u{202e}"] {
            assert!(!shown.contains(obeyed), "{args:?}: {shown:?}");
        }
    }

    // Raw into a pipe.
    let raw = master.run(&["tasks", "result", "out"]).with(0).out;
    assert_eq!(raw, format!("{OBEYED}\n"));
    let ran = run(
        &master.folder,
        &["run", "tasks/err.wat", "--params", "1"],
        &[],
        "",
    );
    assert!(ran.with(0).err.contains(OBEYED));
    let logs = master.run(&["tasks", "logs", "err"]).with(0).out;
    assert_eq!(logs, format!("{OBEYED}\n"));
}

#[test]
fn a_followed_feed_on_a_terminal_has_a_line_for_each_task() {
    let master = Master::up(1);
    master.drop_module("echo.wat", echo());
    master.drop_module("trap.wat", TRAP);
    let file = master.folder.write(
        "two.jsonl",
        "{\"id\":\"one\",\"module\":\"echo\",\"params\":1.50}\n{\"id\":\"two\",\"module\":\"trap\"}",
    );
    let settings = [("TASKMASTER_URL", master.url.as_str())];
    let shown = on_terminal(&master.folder, &["feed", &file, "--follow"], &settings);
    assert!(shown.contains("done       one  1.50\r\n"), "{shown:?}");
    assert!(shown.contains("failed     two  trap: "), "{shown:?}");
    assert!(!shown.contains("{\"id\""), "{shown:?}");
    let quiet = ["feed", &file, "--follow", "-o", "quiet"];
    let shown = on_terminal(&master.folder, &quiet, &settings);
    assert!(
        shown.contains("one\r\n") && !shown.contains("1.50"),
        "{shown:?}"
    );
    // Into a pipe it is JSON lines, as ever.
    let piped = master.run(&["feed", &file, "--follow"]).with(3);
    assert_eq!(piped.lines().len(), 2);
}
