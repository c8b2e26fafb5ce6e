//! Threads and tasks that live as long as their process. One that ended by a panic would leave a
//! process behind that looks well and does half of its work, so its panic ends the process, with
//! the name of the thread and exit code 1.

use crate::lines::{exit, say};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::future::Future;
use std::io;
use std::thread::{self, JoinHandle};
use tokio::task;

/// The exit code of a process that is at fault.
const FAULT: i32 = 1;

/// While this lives, a panic of its thread or task ends the process.
#[derive(Debug)]
pub struct LongLived {
    name: String,
}

impl LongLived {
    /// `name` is what people are told.
    pub fn named(name: &str) -> LongLived {
        LongLived {
            name: name.to_owned(),
        }
    }
}

impl Drop for LongLived {
    fn drop(&mut self) {
        if thread::panicking() {
            say(format_args!(
                "error: `{}` ended by a panic, which is a fault of taskmaster; the process ends, \
                 and what was acknowledged is kept",
                self.name
            ));
            exit(FAULT);
        }
    }
}

/// Starts a thread that lives as long as the process, or until what it works for is gone.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let life = LongLived::named(name);
    thread::Builder::new().name(name.into()).spawn(move || {
        let _life = life;
        run();
    })
}

/// Starts a task of the present runtime that lives as long as the process, or until what it works
/// for is gone.
pub fn spawn_task<F>(name: &str, future: F) -> task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let life = LongLived::named(name);
    tokio::spawn(async move {
        let _life = life;
        future.await
    })
}

/// Has panics told among the other lines, so that a panic does not wait for the reader of stderr.
pub fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name");
        say(format_args!("thread `{name}`: {panic}"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            say(backtrace);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Output};

    /// Says to the process of a test that it is the one that panics, and how.
    const PANICS: &str = "TASKMASTER_CONSOLE_PANICS";

    /// Runs the test of this name again, in a process of its own that panics.
    fn in_a_process_that_panics(test: &str) -> Output {
        let own = std::env::current_exe().unwrap();
        Command::new(own)
            .args(["--exact", test, "--nocapture"])
            .env(PANICS, "1")
            .output()
            .unwrap()
    }

    fn must_panic() -> bool {
        std::env::var_os(PANICS).is_some()
    }

    fn check(output: &Output, name: &str) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(FAULT), "{said}");
        let words = format!("`{name}` ended by a panic");
        assert!(said.contains(&words) && said.contains("planted"), "{said}");
    }

    #[test]
    fn a_thread_that_panics_ends_the_process_with_its_name() {
        if must_panic() {
            tell_panics();
            let thread = spawn("engine", || panic!("planted")).unwrap();
            let _ = thread.join();
            return;
        }
        let test = "long_lived::tests::a_thread_that_panics_ends_the_process_with_its_name";
        check(&in_a_process_that_panics(test), "engine");
    }

    #[test]
    fn a_task_that_panics_ends_the_process_with_its_name() {
        if must_panic() {
            tell_panics();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let task = async { spawn_task("gateway", async { panic!("planted") }).await };
            let _: Result<(), _> = runtime.block_on(task);
            return;
        }
        let test = "long_lived::tests::a_task_that_panics_ends_the_process_with_its_name";
        check(&in_a_process_that_panics(test), "gateway");
    }

    #[test]
    fn a_thread_that_ends_ends_nobody() {
        assert!(spawn("short", || {}).unwrap().join().is_ok());
    }
}
