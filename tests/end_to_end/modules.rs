//! The hot folder: whatever happens to its files, tasks run on whole, good versions.

use serde_json::{Value, json};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use taskmaster_harness::wat::{FOREIGN, constant, echo};
use taskmaster_harness::{Master, until};

fn result(master: &Master, module: &str) -> String {
    master.run(&["call", module]).with(0).out.trim().to_owned()
}

fn error_of(master: &Master, module: &str) -> String {
    master.module(module)["error"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// What `/health` says.
fn health(master: &Master) -> String {
    use std::io::{Read, Write};
    let address = master.url.trim_start_matches("ws://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!("GET /health HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_task_folder_that_is_gone_is_told_until_it_is_back() {
    let master = Master::up(1);
    master.drop_module("m.wat", constant("v1"));
    assert_eq!(result(&master, "m"), "v1");
    assert!(health(&master).ends_with("\r\n\r\nok\n"));
    fs::remove_dir_all(master.tasks()).unwrap();
    until("health to tell of it", || {
        health(&master).contains("ok, but changes in the task folder")
    });
    let doctor = master.run(&["doctor"]).with(1);
    assert!(doctor.out.contains("cannot be read"), "{}", doctor.out);
    assert!(master.process.said().contains("cannot be read"));
    assert_eq!(
        result(&master, "m"),
        "v1",
        "a module that was known stays in use"
    );
    fs::create_dir(master.tasks()).unwrap();
    master.drop_module("n.wat", constant("v2"));
    assert_eq!(result(&master, "n"), "v2");
    until("all to be well", || {
        health(&master).ends_with("\r\n\r\nok\n")
    });
}

#[test]
fn who_has_compiled_a_module_is_a_runner_that_is_here() {
    let master = Master::with("master", &[]);
    let mut runner = master.runner("mill", &["--slots", "1"]);
    master.drop_module("m.wat", constant("v1"));
    assert_eq!(result(&master, "m"), "v1");
    let runners = || master.json(&["modules", "show", "m"])["versions"][0]["runners"].clone();
    until("the runner to be named", || runners() == json!(["mill"]));
    runner.kill();
    until("the runner to be gone", || runners() == json!([]));
}

#[test]
fn replaced_renamed_and_deleted() {
    let master = Master::up(1);
    master.drop_module("m.wat", constant("v1"));
    assert_eq!(result(&master, "m"), "v1");
    let start = Instant::now();
    fs::write(master.tasks().join("m.wat"), constant("v2")).unwrap();
    until("the new version", || result(&master, "m") == "v2");
    // Half a second is the promise; the rest is for a busy machine and the clients that ask.
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    fs::rename(master.tasks().join("m.wat"), master.tasks().join("n.wat")).unwrap();
    assert_eq!(result(&master, "n"), "v2");
    until("the old name to be gone", || {
        master.module("m")["state"] == "removed"
    });
    master.run(&["add", "m"]).with(1).says(&["`m`"]);
    // A task that is open when its module goes waits, and says so.
    master
        .run(&["add", "n", "--id", "waits", "--delay", "1500ms"])
        .with(0);
    fs::remove_file(master.tasks().join("n.wat")).unwrap();
    until("the module to be gone", || {
        master.module("n")["state"] == "removed"
    });
    master.wait_state("waits", "ready");
    assert!(
        master.why("waits").contains("gone from the task folder"),
        "{}",
        master.why("waits")
    );
    fs::write(master.tasks().join("n.wat"), constant("v3")).unwrap();
    assert_eq!(master.wait_state("waits", "done")["result"], "v3");
}

#[test]
fn what_is_no_module_is_rejected_and_never_replaces_one() {
    let master = Master::up(1);
    master.drop_module("good.wat", constant("good"));
    let version = master.module("good")["version"].clone();
    let binary = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tasks/stocks.wasm")).unwrap();
    for (file, bytes) in [
        ("good.wat", b"(module garbage".as_slice()),
        ("good.wat", b""),
        ("good.wat", constant("half").as_bytes().split_at(200).0),
        ("good.wat", FOREIGN.as_bytes()),
        ("good.wat", b"\xff\xfe\x00"),
    ] {
        fs::write(master.tasks().join(file), bytes).unwrap();
        let before = error_of(&master, "good");
        until("the rejection", || {
            let now = error_of(&master, "good");
            !now.is_empty() && (now != before || before.is_empty())
        });
        assert_eq!(master.module("good")["version"], version);
        assert_eq!(result(&master, "good"), "good");
    }
    for (name, bytes) in [
        ("empty", b"".as_slice()),
        ("text", b"hello"),
        ("cut", &binary[..binary.len() / 2]),
        ("foreign", FOREIGN.as_bytes()),
    ] {
        let extension = if name == "foreign" { "wat" } else { "wasm" };
        fs::write(master.tasks().join(format!("{name}.{extension}")), bytes).unwrap();
        until("the rejection", || {
            master.module(name)["state"] == "rejected"
        });
        assert!(
            error_of(&master, name).len() > 10,
            "{}",
            error_of(&master, name)
        );
        master.run(&["add", name]).with(1).says(&[name]);
    }
    assert!(
        error_of(&master, "foreign").contains("somewhere"),
        "{}",
        error_of(&master, "foreign")
    );
    // A good file under the same name heals it.
    fs::write(master.tasks().join("good.wat"), constant("better")).unwrap();
    until("the better version", || result(&master, "good") == "better");
    assert_eq!(error_of(&master, "good"), "");
}

#[test]
fn a_file_that_is_written_slowly_is_taken_when_it_is_whole() {
    use std::io::Write;
    let master = Master::up(1);
    let text = constant("whole");
    let mut file = fs::File::create(master.tasks().join("slow.wat")).unwrap();
    for part in text.as_bytes().chunks(text.len() / 8 + 1) {
        file.write_all(part).unwrap();
        file.sync_data().unwrap();
        std::thread::sleep(Duration::from_millis(60));
        assert!(
            master.module("slow")["version"].is_null()
                || file.metadata().unwrap().len() == text.len() as u64
        );
    }
    drop(file);
    assert_eq!(result(&master, "slow"), "whole");
}

#[test]
fn links_twins_and_hidden_files() {
    let master = Master::up(1);
    let outside = master.folder.join("outside.wat");
    fs::write(&outside, constant("linked")).unwrap();
    std::os::unix::fs::symlink(&outside, master.tasks().join("link.wat")).unwrap();
    assert_eq!(result(&master, "link"), "linked");
    fs::write(&outside, constant("relinked")).unwrap();
    until("what the link leads to", || {
        result(&master, "link") == "relinked"
    });
    std::os::unix::fs::symlink("nowhere", master.tasks().join("dead.wat")).unwrap();
    // Two names for the same bytes are two modules.
    for name in ["one", "two"] {
        master.drop_module(&format!("{name}.wat"), constant("same"));
        assert_eq!(result(&master, name), "same");
    }
    assert_eq!(
        master.module("one")["version"],
        master.module("two")["version"]
    );
    fs::write(master.tasks().join("two.wat"), constant("other")).unwrap();
    until("the second to differ", || result(&master, "two") == "other");
    assert_eq!(result(&master, "one"), "same");
    fs::create_dir(master.tasks().join("folder.wat")).unwrap();
    fs::write(
        master.tasks().join("folder.wat/inner.wat"),
        constant("inner"),
    )
    .unwrap();
    fs::write(master.tasks().join(".hidden.wat"), constant("hidden")).unwrap();
    fs::write(master.tasks().join("not a name.wat"), constant("blank")).unwrap();
    fs::write(master.tasks().join("notes.txt"), "notes").unwrap();
    master.drop_module("last.wat", constant("last"));
    let names: Vec<String> = master
        .run(&["modules", "list", "-o", "quiet"])
        .with(0)
        .out
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(names, ["last", "link", "one", "two"]);
}

#[test]
fn of_x_wasm_and_x_wat_the_first_counts() {
    let master = Master::up(1);
    let binary = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tasks/stocks.wasm")).unwrap();
    master.drop_module("x.wasm", binary);
    let version = master.module("x")["version"].clone();
    fs::write(master.tasks().join("x.wat"), constant("text")).unwrap();
    until("the complaint", || {
        let watch = master.folder.join("events");
        fs::write(&watch, "").unwrap();
        let mut events =
            master.spawn(&["watch", "--since", "0", "--filter", "event=module:rejected"]);
        let mut looks = 0;
        until("events", || {
            looks += 1;
            !events.printed().is_empty() || looks > 20
        });
        events.kill();
        events.printed().contains("x.wat") && events.printed().contains("x.wasm")
    });
    assert_eq!(master.module("x")["version"], version);
    fs::remove_file(master.tasks().join("x.wasm")).unwrap();
    until("the other kind", || {
        master.module("x")["version"] != version && result(&master, "x") == "text"
    });
}

#[test]
fn a_version_that_was_rolled_back_stays_back() {
    let mut master = Master::up(1);
    master.drop_module("m.wat", constant("v1"));
    let first = master.module("m")["version"].as_str().unwrap().to_owned();
    fs::write(master.tasks().join("m.wat"), constant("v2")).unwrap();
    until("the second version", || {
        master.module("m")["version"] != first.as_str()
    });
    let second = master.module("m")["version"].as_str().unwrap().to_owned();
    // Pinned, each is to be had.
    assert_eq!(result(&master, &format!("m@sha256:{}", &first[..12])), "v1");
    assert_eq!(result(&master, &format!("m@sha256:{second}")), "v2");
    master
        .run(&["call", "m@sha256:00000000"])
        .with(1)
        .says(&["00000000", "modules show m"]);
    master.run(&["modules", "rollback", "m"]).with(0);
    assert_eq!(result(&master, "m"), "v1");
    let shown = master.json(&["modules", "show", "m"]);
    assert!(
        shown["versions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|v| v["version"] == second.as_str() && v["held"] == true),
        "{shown}"
    );
    assert_eq!(shown["state"], "ready", "{shown}");
    assert_eq!(shown["waiting"]["version"], second.as_str(), "{shown}");
    // Over a restart, with the held file still in the folder; also when it is written again.
    master.process.kill();
    master.start_again();
    assert_eq!(result(&master, "m"), "v1");
    fs::write(master.tasks().join("m.wat"), constant("v2")).unwrap();
    master.drop_module("other.wat", constant("seen after it"));
    assert_eq!(result(&master, "m"), "v1");
    master.run(&["modules", "approve", "m"]).with(0);
    until("the approved version", || result(&master, "m") == "v2");
    master
        .run(&["modules", "approve", "m"])
        .with(1)
        .says(&["held"]);
}

#[test]
fn push_puts_a_file_into_the_folder() {
    let master = Master::up(1);
    let file = master.folder.write("pushed.wat", constant("pushed"));
    master.run(&["modules", "push", &file]).with(0);
    assert_eq!(result(&master, "pushed"), "pushed");
    assert!(master.tasks().join("pushed.wat").is_file());
    let bad = master.folder.write("bad.wat", "(module garbage");
    master
        .run(&["modules", "push", &bad])
        .with(1)
        .says(&["bad"]);
    assert!(!master.tasks().join("bad.wat").exists());
}

#[test]
fn a_file_rewritten_ten_times_a_second_does_not_keep_others_waiting() {
    let master = Master::up(1);
    master.drop_module("busy.wat", constant("busy 0"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                fs::write(
                    master.tasks().join("busy.wat"),
                    constant(&format!("busy {n}")),
                )
                .unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        for n in 0..5 {
            let start = Instant::now();
            fs::write(master.tasks().join(format!("calm{n}.wat")), echo()).unwrap();
            until("the calm module", || {
                !master.module(&format!("calm{n}"))["version"].is_null()
            });
            assert!(
                start.elapsed() < Duration::from_secs(3),
                "{:?}",
                start.elapsed()
            );
            assert!(result(&master, "busy").starts_with("busy "));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn fifty_replacements_under_load_lose_no_task() {
    let master = Master::up(2);
    master.drop_module("m.wat", constant("v0"));
    let versions: usize = 50;
    let stop = AtomicBool::new(false);
    let mut seen = std::collections::BTreeSet::new();
    let mut tasks = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=versions {
                let text = constant(&format!("v{n}"));
                // By turns: a copy onto it, and a rename into its place.
                if n % 2 == 0 {
                    fs::write(master.tasks().join("m.wat"), text).unwrap();
                } else {
                    fs::write(master.folder.join("m.new"), text).unwrap();
                    fs::rename(master.folder.join("m.new"), master.tasks().join("m.wat")).unwrap();
                }
                std::thread::sleep(Duration::from_millis(120));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let lines: String = (0..50)
            .map(|n| format!("{}\n", json!({"module": "m", "params": n})))
            .collect();
        while !stop.load(Ordering::Relaxed) {
            let ran = master.run_with(&["feed", "--follow"], &lines).with(0);
            for task in ran.lines() {
                assert_eq!(task["state"], "done", "{task}");
                let Value::String(result) = &task["result"] else {
                    panic!("{task}")
                };
                let n: usize = result.trim_start_matches('v').parse().unwrap();
                assert!(n <= versions, "{task}");
                seen.insert(n);
                tasks += 1;
            }
        }
    });
    until("the last version", || {
        result(&master, "m") == format!("v{versions}")
    });
    assert!(
        seen.len() >= 10,
        "{tasks} tasks saw only the versions {seen:?}"
    );
}
