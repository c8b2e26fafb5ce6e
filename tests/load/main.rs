//! Overload: what the master does when more comes than it can take. Memory stays bounded, one
//! urgent task is hardly later than on an idle master, and nobody is dropped without a word.
//!
//! The tests run one by one: each wants the machine for itself. `LOAD=full` plays longer and with
//! larger crowds.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

mod crowds;
mod probe;
mod sizes;

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The machine, for one test.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_full() -> bool {
    std::env::var("LOAD").is_ok_and(|text| text == "full")
}

/// How long a load lasts.
fn lasting() -> Duration {
    Duration::from_secs(if is_full() { 30 } else { 5 })
}

/// A thousand connections need as many open files, here and in the master, which inherits this.
fn may_open_many_files() {
    let pid = std::process::id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--nofile=16384:"])
        .output();
    assert!(
        raised.is_ok_and(|raised| raised.status.success()),
        "the limit of open files cannot be raised to 16384"
    );
}

/// Ends a load when its test ends, however that is: its threads are waited for.
struct Ends<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// A number of MiB from `/proc/PID/status`.
fn mib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    line.trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap()
        >> 10
}

/// The most memory that a process had, MiB.
fn peak_mib(pid: u32) -> u64 {
    mib(pid, "VmHWM")
}
