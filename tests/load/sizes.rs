//! Large things among small ones: params, and a log.

use crate::probe::{PROMISE, Probe};
use crate::{alone, is_full, peak_mib};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use taskmaster_harness::Master;

/// Returns its params, of whatever length.
const ECHO: &str = include_str!("../../tasks/echo.wat");

/// Writes 100 MB to stderr.
const LOUD: &str = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start") (local $n i32)
    (memory.fill (i32.const 1024) (i32.const 120) (i32.const 65536))
    (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 65536))
    (loop $again
      (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $n) (i32.const 1600))))))"#;

fn times() -> usize {
    if is_full() { 30 } else { 5 }
}

/// Does `work` so many times beside urgent tasks.
fn beside(probe: &mut Probe, what: &str, work: impl Fn() + Sync) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                (0..times()).for_each(|_| work())
            }));
            over.store(true, SeqCst);
            done.unwrap();
        });
        while !over.load(SeqCst) {
            probe.under_load(what, PROMISE);
        }
    });
}

#[test]
fn ten_megabytes_of_params_among_small_ones() {
    let _machine = alone();
    let master = Master::with("master", &[]);
    master.drop_module("echo.wat", ECHO);
    let runner = master.runner("a", &["--slots", "2"]);
    let mut probe = Probe::idle(&master);
    let before = (peak_mib(master.process.id()), peak_mib(runner.id()));
    let large = json!("x".repeat(10_000_000)).to_string();
    beside(&mut probe, "10 MB of params", || {
        let ran = master
            .run_with(&["call", "echo", "--params", "-"], &large)
            .with(0);
        assert!(ran.out.len() >= 10_000_000, "{}", ran.out.len());
    });
    let after = (peak_mib(master.process.id()), peak_mib(runner.id()));
    println!("master and runner had {before:?} MiB, and {after:?} at most");
    assert!(
        after.0 < before.0 + 100 && after.1 < before.1 + 400,
        "{before:?} MiB before, {after:?} at most"
    );
}

#[test]
fn a_hundred_megabytes_of_stderr() {
    let _machine = alone();
    let master = Master::with("master", &[]);
    master.drop_module("echo.wat", ECHO);
    master.drop_module("loud.wat", LOUD);
    let runner = master.runner("a", &["--slots", "2"]);
    let mut probe = Probe::idle(&master);
    let before = (peak_mib(master.process.id()), peak_mib(runner.id()));
    beside(&mut probe, "100 MB of stderr", || {
        let task = master
            .run(&["add", "loud", "--wait", "-o", "json"])
            .with(0)
            .json();
        assert_eq!(task["stats"]["log_bytes"], 1_600 * 65_536, "{task}");
    });
    let after = (peak_mib(master.process.id()), peak_mib(runner.id()));
    println!("master and runner had {before:?} MiB, and {after:?} at most");
    assert!(
        after.0 < before.0 + 100 && after.1 < before.1 + 100,
        "{before:?} MiB before, {after:?} at most"
    );
}
