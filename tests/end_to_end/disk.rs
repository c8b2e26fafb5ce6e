//! The disk fills, has room again, or fails: what was acknowledged is there.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;
use taskmaster_harness::wat::{echo, large};
use taskmaster_harness::{Master, PATIENCE, run, until};

/// A command that writes 64 KiB into a file, and fails where it cannot.
const WRITES: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2) (data (i32.const 0) "f")
  (func (export "_start")
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1) (i64.const 64) (i64.const 64)
      (i32.const 0) (i32.const 16)) (then (call $exit (i32.const 64))))
    (i32.store (i32.const 32) (i32.const 64)) (i32.store (i32.const 36) (i32.const 65536))
    (if (call $write (i32.load (i32.const 16)) (i32.const 32) (i32.const 1) (i32.const 40)) (then (call $exit (i32.const 64))))))"#;

/// Enough that their results, of 60,000 bytes each, are several times what the store keeps in
/// reserve.
const TASKS: usize = 2_500;

/// Takes what the disk still has.
fn fill(path: &Path) {
    let mut filler = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    let block = vec![7; 64 << 10];
    while filler.write(&block).is_ok_and(|written| written > 0) {}
}

fn feed_file(master: &Master, name: &str, count: usize) -> String {
    let line =
        |n: usize| format!("{{\"id\":\"{name}-{n}\",\"module\":\"large\",\"params\":{n}}}\n");
    master.folder.write(
        &format!("{name}.jsonl"),
        (0..count).map(line).collect::<String>(),
    )
}

fn health(master: &Master) -> String {
    let address = master.url.trim_start_matches("ws://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// While nothing can be written, whoever asks is told at once: what is durable, or why that is not
/// told.
fn questions_are_answered(master: &Master, filler: &Path) {
    let ask = |args: &[&str]| {
        fill(filler);
        let mut asking = master.spawn(args);
        let code = asking.exit_code();
        (code, asking.printed(), asking.said())
    };
    let (mut told, mut refused) = (0, 0);
    for n in (0..TASKS).step_by(TASKS / 10) {
        match ask(&["tasks", "show", &format!("first-{n}"), "-o", "json"]) {
            (Some(0), ..) => told += 1,
            (code, _, said) => {
                refused += 1;
                assert!(
                    code == Some(1) && said.contains("unavailable") && said.contains("is full"),
                    "{said}"
                );
            }
        }
    }
    assert!(
        told > 0,
        "{refused} questions are refused, none is answered"
    );
    let (code, job, said) = ask(&["jobs", "show", "first", "-o", "json"]);
    let job: serde_json::Value =
        serde_json::from_str(&job).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!((code, job["total"].as_u64()), (Some(0), Some(TASKS as u64)));
    let (code, _, said) = ask(&["tasks", "list", "--job", "first"]);
    assert_eq!(code, Some(0), "{said}");
    eprintln!("{told} tasks are told, {refused} are not");
}

#[test]
#[ignore = "needs the right to mount a tmpfs in a name space of its own: unshare -rm"]
fn a_full_disk_is_a_state_and_loses_nothing() {
    let mut master = Master::on_small_disk(900);
    master.drop_module("echo.wat", echo());
    master.drop_module("large.wat", large());
    let file = feed_file(&master, "first", TASKS);
    master.run(&["feed", &file, "--job", "first"]).with(0);
    let filler = master.small_disk().join("filler");
    fill(&filler);

    // Adds are refused, with the reason; everybody who looks is told.
    until("the master to notice", || {
        health(&master).contains("ok, but adds are refused: the disk that holds")
    });
    let refused = master.run(&["add", "echo", "-o", "json"]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    refused.says(&["unavailable", "the disk that holds", "is full"]);
    let doctor = master.run(&["doctor"]).with(1);
    assert!(doctor.out.contains("adds are refused"), "{}", doctor.out);

    // A feed waits for better times, and says so.
    let later = feed_file(&master, "later", 100);
    let mut feed = master.spawn(&["feed", &later, "--job", "later", "--wait"]);
    until("the feed to say why it waits", || {
        feed.said().contains("is full")
    });

    // Tasks that were taken run; when not even their results find room, their runner keeps them.
    let runner = master.runner("r", &["--slots", "2"]);
    let job = |name: &str, state: &str| master.job(name)[state].as_u64().unwrap();
    let began = Instant::now();
    until("results to wait for room", || {
        // Another process may take what the store lets go of.
        fill(&filler);
        master.process.said().contains("nothing can be written")
    });
    let status = master.run(&["doctor", "-o", "json"]);
    assert!(
        status.out.contains("nothing can be written"),
        "{}",
        status.out
    );
    let refused = master.run(&["add", "echo"]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    questions_are_answered(&master, &filler);
    eprintln!("full after {:?}", began.elapsed());

    // With room, all goes on by itself.
    fs::remove_file(&filler).unwrap();
    until("the first job", || job("first", "done") == TASKS as u64);
    assert_eq!(feed.exit_code(), Some(0), "{}", feed.said());
    assert_eq!(
        (
            job("later", "done"),
            job("later", "total"),
            job("first", "total")
        ),
        (100, 100, TASKS as u64)
    );
    assert_eq!(
        master.task("first-7")["result"].as_str().map(str::len),
        Some(60_000)
    );
    assert!(began.elapsed() < PATIENCE);
    master.still_works();
    drop(runner);
    assert_eq!(master.process.terminate(), Some(0));
}

#[test]
#[ignore = "needs the right to mount a tmpfs in a name space of its own: unshare -rm"]
fn a_master_is_not_started_on_a_full_disk() {
    let master = Master::on_small_disk(80);
    fill(&master.small_disk().join("filler"));
    let data = master.small_disk().join("other");
    fs::create_dir(&data).unwrap();
    let args = [
        "master",
        "--listen",
        "127.0.0.1:0",
        "--tasks",
        "tasks",
        "--data",
        data.to_str().unwrap(),
    ];
    let ran = run(&master.folder, &args, &[], "");
    assert_eq!(ran.code, 1, "{}", ran.err);
    ran.says(&["is full", "make room and start it again"]);
}

#[test]
#[ignore = "needs the right to mount a tmpfs in a name space of its own: unshare -rm"]
fn a_runner_with_a_full_disk_is_sick_and_fails_nobody() {
    let master = Master::with("master", &[]);
    master.drop_module("writes.wat", WRITES);
    let runner = master.runner_on_small_disk("r", 8);
    master.run(&["call", "writes"]).with(0);

    let filler = runner.disk.join("filler");
    fill(&filler);
    let feed: String = (0..10)
        .map(|n| format!("{{\"id\":\"t{n}\",\"module\":\"writes\",\"outputs\":[]}}\n"))
        .collect();
    master
        .run_with(&["feed", "-", "--job", "work"], &feed)
        .with(0);
    until("the runner to be sick", || {
        let list = master.json(&["runners", "list"]);
        list[0]["state"] == "sick"
    });
    let job = |state: &str| master.job("work")[state].as_u64().unwrap();
    assert_eq!(job("failed"), 0);
    fs::remove_file(&filler).unwrap();
    until("all tasks to be done", || job("done") == 10);
}
