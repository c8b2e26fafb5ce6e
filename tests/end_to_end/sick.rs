//! A runner whose machine is sick: what is its fault is no task's, it says so, and it comes back.

use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use taskmaster_harness::wat::says;
use taskmaster_harness::{Master, Process, until};

/// A command that has a folder, because it imports a function of files, and looks for its input.
pub const LOOKS: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_filestat_get" (func $stat (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1) (data (i32.const 0) "in")
  (func (export "_start")
    (if (call $stat (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 2) (i32.const 128))
      (then (call $exit (i32.const 65))))))"#;

fn with_looks() -> Master {
    let master = Master::with("master", &[]);
    master.drop_module("looks.wat", LOOKS);
    master.drop_module("plain.wat", says("1", "", 0));
    master.folder.write("in.txt", "shared");
    master
}

pub fn runner(master: &Master, name: &str) -> Value {
    let list = master.json(&["runners", "list"]);
    let listed = list.as_array().unwrap();
    let found = listed.iter().find(|runner| runner["runner"] == name);
    found.cloned().unwrap_or(Value::Null)
}

fn health(master: &Master) -> String {
    let address = master.url.trim_start_matches("ws://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_runner_whose_cache_is_cleaned_away_makes_it_anew_and_fails_nobody() {
    let master = with_looks();
    let runner = master.runner("r", &["--slots", "2"]);
    let call = ["call", "looks", "--input", "in=in.txt"];
    master.run(&call).with(0);
    for _ in 0..3 {
        fs::remove_dir_all(master.folder.join("runner-cache")).unwrap();
        master.run(&call).with(0);
    }
    let tasks = master.json(&["tasks", "list", "--module", "looks"]);
    for task in tasks.as_array().unwrap() {
        let shown = master.task(task["id"].as_str().unwrap());
        assert_eq!(shown["state"], "done", "{shown}");
        assert!(shown["error"].is_null(), "{shown}");
    }
    drop(runner);
}

#[test]
fn a_runner_with_a_broken_disk_takes_nothing_says_so_and_comes_back() {
    let master = with_looks();
    let sick = master.runner("sick", &["--slots", "2"]);
    master
        .run(&["call", "looks", "--input", "in=in.txt"])
        .with(0);
    let mut watch = master.spawn(&["watch", "--filter", "event=runner"]);
    // As where a disk is taken away under the runner: no folder can be made there any more.
    let cache = master.folder.join("runner-cache");
    fs::rename(&cache, master.folder.join("away")).unwrap();
    fs::write(&cache, "no folder").unwrap();

    let feed: String = (0..20)
        .map(|n| {
            format!("{{\"id\":\"t{n}\",\"module\":\"looks\",\"inputs\":{{\"in\":\"in.txt\"}}}}\n")
        })
        .collect();
    master.folder.write("feed.jsonl", &feed);
    master.run(&["feed", "feed.jsonl", "--job", "work"]).with(0);
    until("the runner to say that it is sick", || {
        runner(&master, "sick")["state"] == "sick"
    });

    // Whoever looks is told.
    let listed = runner(&master, "sick");
    let fault = listed["fault"].as_str().unwrap();
    assert!(fault.contains("could not be made"), "{fault}");
    let shown = master
        .run(&["runners", "show", "sick", "-o", "table"])
        .with(0);
    assert!(shown.out.contains("could not be made"), "{}", shown.out);
    let doctor = master.run(&["doctor"]).with(1);
    assert!(doctor.out.contains("`sick` is sick"), "{}", doctor.out);
    assert!(health(&master).contains("ok, but 1 runner is sick"));
    until("the log of the master", || {
        master.process.said().contains("a runner is sick")
    });
    assert!(sick.said().contains("this machine cannot run tasks"));
    until("the event", || watch.printed().contains("runner:sick"));
    let why = master.why("t7");
    assert!(why.contains("`sick` is sick and takes nothing"), "{why}");
    // No attempt has counted against a task.
    let waiting = master.task("t7");
    assert_eq!(waiting["state"], "ready", "{waiting}");
    assert!(waiting["error"].is_null(), "{waiting}");

    // Another runner is well, and does all of it.
    let args = ["runner", "--name", "well", "--cache", "other-cache"];
    let settings = [("TASKMASTER_URL", master.url.as_str())];
    let well = Process::start(&master.folder, &args, &settings);
    until("all tasks to be done elsewhere", || {
        master.job("work")["done"].as_u64() == Some(20)
    });
    drop(well);
    assert_eq!(runner(&master, "sick")["state"], "sick");

    // The disk is back: the runner finds out by itself.
    fs::remove_file(&cache).unwrap();
    fs::rename(master.folder.join("away"), &cache).unwrap();
    until("the runner to be well", || {
        runner(&master, "sick")["state"] == "connected"
    });
    assert!(!health(&master).contains("sick"));
    master
        .run(&["call", "looks", "--input", "in=in.txt"])
        .with(0);
    until("the event", || watch.printed().contains("runner:well"));
    watch.kill();
}

#[test]
fn a_granted_folder_that_is_gone_makes_the_runner_sick_and_not_its_tasks_fail() {
    let master = with_looks();
    fs::write(
        master.tasks().join("looks.toml"),
        "capabilities.folders = ['data']\n",
    )
    .unwrap();
    fs::create_dir(master.folder.join("srv")).unwrap();
    let runner_process = master.runner("r", &["--slots", "1", "--folder", "data=srv"]);
    until("the module to wait", || {
        master.module("looks")["state"] == "waiting" || !master.module("looks")["waiting"].is_null()
    });
    master.run(&["modules", "approve", "looks"]).with(0);
    fs::rename(master.folder.join("srv"), master.folder.join("gone")).unwrap();
    master
        .run(&["add", "looks", "--id", "t", "--input", "in=in.txt"])
        .with(0);
    until("the runner to be sick", || {
        runner(&master, "r")["state"] == "sick"
    });
    assert_eq!(master.task("t")["state"], "ready");
    fs::rename(master.folder.join("gone"), master.folder.join("srv")).unwrap();
    master.wait_state("t", "done");
    drop(runner_process);
}
