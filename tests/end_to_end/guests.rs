//! What guests do to the process that runs them: it lives, has what it needs, and ends when it is
//! told to.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use taskmaster_harness::{Master, until};

/// Imports of commands that use files.
const FILES: &str = r#"
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_filestat_set_times" (func $touch (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))"#;

/// Makes `depth` folders inside each other, and a file in the innermost.
fn deep(depth: u32) -> String {
    format!(
        r#"(module {FILES}
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1) (data (i32.const 0) "d")
  (func (export "_start") (local $fd i32) (local $i i32)
    (local.set $fd (i32.const 3)) (local.set $i (i32.const {depth}))
    (loop $next
      (if (call $mkdir (local.get $fd) (i32.const 0) (i32.const 1)) (then (call $exit (i32.const 65))))
      (if (call $open (local.get $fd) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 2) (i64.const 0x4002)
        (i64.const 0x1fffffff) (i32.const 0) (i32.const 64)) (then (call $exit (i32.const 64))))
      (if (i32.ne (local.get $fd) (i32.const 3)) (then (drop (call $close (local.get $fd)))))
      (local.set $fd (i32.load (i32.const 64)))
      (local.set $i (i32.sub (local.get $i) (i32.const 1)))
      (br_if $next (local.get $i)))
    (drop (call $open (local.get $fd) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1) (i64.const 64)
      (i64.const 64) (i32.const 0) (i32.const 64)))))"#
    )
}

/// The folders of tasks below the runner of `up`.
fn task_folders(master: &Master) -> Vec<PathBuf> {
    let below = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    };
    below(&master.folder.join("data/runner/work"))
        .iter()
        .flat_map(|base| below(base))
        .collect()
}

#[test]
fn folders_of_any_depth_are_removed_and_harm_nobody() {
    let master = Master::up(1);
    master.drop_module("deep.wat", deep(12_000));
    master.drop_module("echo.wat", taskmaster_harness::wat::echo());
    let feed = "{\"module\":\"deep\",\"id\":\"none\",\"outputs\":[]}\n{\"module\":\"deep\",\"id\":\"all\"}\n";
    master.run_with(&["feed", "-"], feed).with(0);
    master.wait_state("none", "done");
    // A path that is longer than any file may have is told, and is no fault of the machine.
    let all = master.wait_state("all", "failed");
    let message = all["error"]["message"].as_str().unwrap();
    assert_eq!(all["error"]["kind"], "output", "{all}");
    assert!(message.contains("cannot be given back"), "{message}");
    until("the folders to be removed", || {
        task_folders(&master).is_empty()
    });
    master.still_works();
}

#[test]
fn what_a_killed_runner_left_is_removed_however_deep() {
    let mut master = Master::up(1);
    let spin = deep(3_000).replace(
        "(drop (call $open (local.get $fd)",
        "(loop $on (br $on)) (drop (call $open (local.get $fd)",
    );
    master.drop_module("deep.wat", spin);
    master.drop_module("echo.wat", taskmaster_harness::wat::echo());
    master.run(&["add", "deep", "--id", "t"]).with(0);
    master.wait_state("t", "assigned");
    until("the folders of the task", || {
        task_folders(&master)
            .first()
            .is_some_and(|folder| folder.join("own").join("d/".repeat(1_000)).exists())
    });
    master.process.kill();
    let left = task_folders(&master);
    assert_eq!(left.len(), 1);
    master.start_again();
    master.run(&["tasks", "cancel", "t"]).with(0);
    until("what was left to be removed", || !left[0].exists());
    master.still_works();
}

/// A named pipe that nobody else opens.
fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// Opens `pipe` in the granted folder, and prints the number of the error.
fn opens_pipe() -> String {
    format!(
        r#"(module {FILES}
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 0) "pipe")
  (func (export "_start") (local $error i32)
    (local.set $error (call $open (i32.const 6) (i32.const 1) (i32.const 0) (i32.const 4) (i32.const 0) (i64.const 2)
      (i64.const 2) (i32.const 0) (i32.const 64)))
    (i32.store8 (i32.const 32) (i32.add (i32.const 48) (i32.div_u (local.get $error) (i32.const 10))))
    (i32.store8 (i32.const 33) (i32.add (i32.const 48) (i32.rem_u (local.get $error) (i32.const 10))))
    (i32.store (i32.const 16) (i32.const 32)) (i32.store (i32.const 20) (i32.const 2))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))))"#
    )
}

#[test]
fn a_pipe_in_a_granted_folder_is_not_opened_and_the_runner_ends_when_it_is_told_to() {
    let master = Master::with("master", &[]);
    fs::create_dir(master.folder.join("srv")).unwrap();
    make_pipe(&master.folder.join("srv/pipe"));
    fs::write(
        master.tasks().join("pipe.toml"),
        "capabilities.folders = ['data']\n",
    )
    .unwrap();
    fs::write(master.tasks().join("pipe.wat"), opens_pipe()).unwrap();
    let mut runner = master.runner("r", &["--slots", "1", "--folder", "data=srv"]);
    until("the module to be there", || {
        master.run(&["modules", "approve", "pipe"]).code == 0
    });
    let ran = master
        .run(&["call", "pipe", "--task-timeout", "5s"])
        .with(0);
    assert_eq!(ran.out.trim(), "63", "not permitted");
    let began = Instant::now();
    assert_eq!(runner.terminate(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Touches the input `in` and opens `pipe`, as `run` of a component; the two errors are its result.
fn component_core() -> String {
    format!(
        r#"(module {FILES}
  (memory (export "memory") 2) (data (i32.const 0) "in") (data (i32.const 8) "pipe")
  (global $heap (mut i32) (i32.const 8192))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -8)))))
  (func $digits (param $at i32) (param $error i32)
    (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.div_u (local.get $error) (i32.const 10))))
    (i32.store8 (i32.add (local.get $at) (i32.const 1)) (i32.add (i32.const 48) (i32.rem_u (local.get $error) (i32.const 10)))))
  (func (export "run") (param i32 i32) (result i32)
    (i64.store (i32.const 32) (i64.const 0x2020202020202020))
    (call $digits (i32.const 32) (call $touch (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 2)
      (i64.const 1000000000) (i64.const 1000000000) (i32.const 5)))
    (call $digits (i32.const 36) (call $open (i32.const 6) (i32.const 1) (i32.const 8) (i32.const 4) (i32.const 0)
      (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 64)))
    (i32.store (i32.const 128) (i32.const 0))
    (i32.store (i32.const 132) (i32.const 32)) (i32.store (i32.const 136) (i32.const 6))
    (i32.const 128)))"#
    )
}

#[test]
fn a_component_neither_opens_a_pipe_nor_sets_the_times_of_a_shared_input() {
    let master = Master::with("master", &[]);
    master.folder.write("core.wat", component_core());
    master.folder.write("in.txt", "shared");
    fs::create_dir(master.folder.join("srv")).unwrap();
    make_pipe(&master.folder.join("srv/pipe"));
    fs::write(
        master.tasks().join("both.toml"),
        "capabilities.folders = ['data']\n",
    )
    .unwrap();
    master
        .run(&["modules", "wrap", "core.wat", "tasks/both.wasm"])
        .with(0);
    let runner = master.runner("r", &["--slots", "1", "--folder", "data=srv"]);
    until("the module to be there", || {
        master.run(&["modules", "approve", "both"]).code == 0
    });
    let call = [
        "call",
        "both",
        "--input",
        "in=in.txt",
        "--task-timeout",
        "5s",
    ];
    assert_eq!(master.run(&call).with(0).out.trim(), "63  63");
    drop(runner);
}

#[test]
fn a_runner_may_have_as_many_open_files_as_the_system_allows() {
    let master = Master::up(1);
    let limits = fs::read_to_string(format!("/proc/{}/limits", master.process.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "the soft limit is the hard one: {line}");
}

#[test]
fn a_runner_in_a_small_address_space_runs_tasks() {
    let master = Master::up_in_address_space(4_000_000);
    master.drop_module("echo.wat", taskmaster_harness::wat::echo());
    master.drop_module("hoard.wat", taskmaster_harness::wat::HOARD);
    master.still_works();
    let hoard = master.run(&["call", "hoard", "--memory-mb", "64", "-o", "json"]);
    let task: Value = serde_json::from_str(&hoard.out).unwrap_or_default();
    assert!(
        hoard.err.contains("memory") || task["error"]["kind"] == "memory",
        "{} {}",
        hoard.out,
        hoard.err
    );
    master.still_works();
}

#[test]
fn memory_that_the_machine_does_not_have_is_named_as_memory_and_not_as_a_trap() {
    // The task may have more than the runner has addresses for.
    let master = Master::up_in_address_space(1_500_000);
    master.drop_module("hoard.wat", taskmaster_harness::wat::HOARD);
    let wanted = [
        "add",
        "hoard",
        "--memory-mb",
        "2048",
        "--wait",
        "-o",
        "json",
    ];
    let task = master.run(&wanted).with(3).json();
    assert_eq!(task["error"]["kind"], "memory", "{task}");
    let message = task["error"]["message"].as_str().unwrap();
    assert!(message.contains("`ulimit -v`"), "{message}");
}
