//! Work on bytes that strangers have made, in a process of its own: validation and compilation of
//! modules. Whatever the bytes are, they can exhaust a stack, a core or memory of that process only.
//!
//! [`run`] starts the program's own file anew, with a hidden command, passes the bytes to the new
//! process over a pipe and takes the answer from another one. Each piece of work has a fresh
//! process. The process ends with its parent, cannot be looked into by others, has no environment,
//! and takes up limits of memory, processor time and output before it reads anything. What exceeds
//! a limit is told as an [`Excess`], which names it.
//!
//! **The seam.** A program takes part by calling [`answer`] first in its `main`. In a program that
//! does not (the tests of a library), and on systems without processes as Unix has them, the work is
//! done on a thread of the process itself, without limits. Limits of memory hold on Linux only.

#[cfg(unix)]
mod child;
mod failure;
mod inspect;
mod limits;
#[cfg(unix)]
mod parent;

pub use failure::{Excess, Failure};
pub use inspect::{INSPECT, NotInspected, inspect};
pub use limits::ProcessLimits;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// The hidden command, in the place of the first argument.
const COMMAND: &str = "confined";

/// Bytes of stack of the thread that does the work. What nests is counted before it is read, so
/// that no sound input comes near this.
const STACK_BYTES: usize = 16 << 20;

/// Does a piece of work on some bytes, with arguments. The error says what is wrong with the bytes,
/// as a sentence.
pub type WorkFunction = fn(&[String], &[u8]) -> Result<Vec<u8>, String>;

/// A piece of work that can be done in a process of its own.
#[derive(Debug)]
pub struct Work {
    /// The name by which the new process finds the work.
    pub name: &'static str,
    /// What the new process does with its input.
    pub run: WorkFunction,
}

/// Whether this program begins with [`answer`].
static IS_HOST: AtomicBool = AtomicBool::new(false);

/// Does the work for which this process was started, if it was started for one of `works`. Must be
/// called at the beginning of `main`, before there are threads. `None`: the program goes on.
pub fn answer(works: &[&Work]) -> Option<ExitCode> {
    #[cfg(unix)]
    {
        let mut arguments = std::env::args().skip(1);
        if arguments.next().as_deref() == Some(COMMAND) {
            return Some(child::work(works, arguments));
        }
        IS_HOST.store(true, Ordering::Relaxed);
    }
    let _ = works;
    None
}

/// Does `work` on `input`. Blocks the calling thread until the end, and the process that does the
/// work ends with that thread.
pub fn run(
    work: &Work,
    arguments: &[String],
    input: &[u8],
    limits: &ProcessLimits,
) -> Result<Vec<u8>, Failure> {
    #[cfg(unix)]
    if IS_HOST.load(Ordering::Relaxed) {
        return parent::run(work, arguments, input, limits);
    }
    let _ = limits;
    here(work, arguments, input)
}

/// Does the work on a thread of this process.
fn here(work: &Work, arguments: &[String], input: &[u8]) -> Result<Vec<u8>, Failure> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || (work.run)(arguments, input))
            .map_err(|error| Failure::NotStarted(error.to_string()))?
            .join()
            .map_err(|_| Failure::Broken("it panicked".into()))?
            .map_err(Failure::Refused)
    })
}

#[cfg(test)]
mod tests;
