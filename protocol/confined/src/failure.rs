//! Why a piece of work gave no result.

use std::fmt;

/// Why a piece of work gave no result. Whose fault it is decides what follows: the input is told
/// that it cannot be used, or the machine is told of and the work is tried again later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The work itself says what is wrong with the input, as a sentence.
    #[error("{0}")]
    Refused(String),
    /// The input took more than a limit.
    #[error("it took more {0}")]
    Exceeded(Excess),
    /// The program that does the work failed on the input, which is a fault of the program.
    #[error("the program failed on it: {0}")]
    Broken(String),
    /// The process was ended by a signal that it was sent from outside.
    #[error(
        "the process that did it was ended from outside, by signal {0}, as systems do that are \
         short of memory"
    )]
    Killed(i32),
    /// No process could be started.
    #[error("no process could be started for it: {0}")]
    NotStarted(String),
}

/// The limit that was exceeded. It is shown as the end of a sentence: "compiling it took more …".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// Memory; the limit in bytes.
    Memory(u64),
    /// Processor time; the limit in seconds.
    Processor(u64),
    /// Time by the clock; the limit in seconds.
    Clock(u64),
    /// Stack, because the input is nested too deep.
    Stack,
    /// Bytes of the result; the limit.
    Output(usize),
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excess::Memory(bytes) => write!(f, "than {} MiB of memory", bytes >> 20),
            Excess::Processor(seconds) => write!(f, "than {seconds} s of processor time"),
            Excess::Clock(seconds) => write!(f, "than {seconds} s"),
            Excess::Stack => f.write_str("stack than there is, because it is nested too deep"),
            Excess::Output(bytes) => write!(f, "than {} MiB of result", bytes >> 20),
        }
    }
}
