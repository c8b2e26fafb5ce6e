//! How an attempt ended: the kind of a failure, which decides what comes next, and what the attempt
//! cost.

use serde::{Deserialize, Serialize};

/// Why an attempt failed. Each kind has a cause of its own and is noticed by a mechanism of its
/// own.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The program ended with an exit code other than 0.
    Exit,
    /// The module trapped: it reached unreachable code, accessed memory out of bounds, or
    /// overflowed its stack.
    Trap,
    /// The attempt ran longer than its `timeout_ms`.
    Timeout,
    /// The module asked for more memory than its `memory_mb`.
    Memory,
    /// Somebody cancelled the task.
    Cancelled,
    /// Runners were lost while they held attempts of the task,
    /// [`RUNNER_LOST_MAX`](crate::limits::RUNNER_LOST_MAX) times, so that the task is the likely
    /// cause.
    RunnerLost,
    /// The module could not be fetched, compiled or instantiated.
    Module,
    /// An input could not be had: a result, a blob or params.
    Input,
    /// The result or an output file could not be kept.
    Output,
}

impl ErrorKind {
    /// The kind as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Exit => "exit",
            ErrorKind::Trap => "trap",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Memory => "memory",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::RunnerLost => "runner_lost",
            ErrorKind::Module => "module",
            ErrorKind::Input => "input",
            ErrorKind::Output => "output",
        }
    }
}

/// The failure of an attempt, as scripts see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TaskError {
    /// The kind of failure, which decides whether the task is tried again.
    pub kind: ErrorKind,
    /// One sentence for people.
    pub message: String,
    /// The WebAssembly backtrace with the names of functions, innermost first. Only where the
    /// module trapped.
    #[serde(default)]
    pub backtrace: Option<String>,
    /// The exit code, if any. A component has 75 for an error that it calls retryable, 65 for a
    /// permanent error and for params that its function does not take, and 1 for another error. The
    /// master gives 75 where it cannot take the tasks that an attempt adds now, and 65 where it never
    /// will.
    #[serde(default)]
    pub code: Option<i32>,
}

impl TaskError {
    /// A failure without backtrace and exit code.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> TaskError {
        TaskError {
            kind,
            message: message.into(),
            backtrace: None,
            code: None,
        }
    }

    /// Whether trying again helps, where the program itself or the master says so: `false` for the
    /// exit codes 64 and 65, for params that no attempt can take and for tasks that never can be
    /// added, `true` for the exit code 75 and for tasks that can be added later. `None` leaves the
    /// decision to the retry policy of the task.
    pub fn verdict(&self) -> Option<bool> {
        match (self.kind, self.code) {
            (ErrorKind::Exit, Some(64 | 65)) | (ErrorKind::Input | ErrorKind::Output, Some(65)) => {
                Some(false)
            }
            (ErrorKind::Exit | ErrorKind::Output, Some(75)) => Some(true),
            _ => None,
        }
    }
}

/// What an attempt cost.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct TaskStats {
    /// Microseconds from the start of guest code to its end, including the time in which it waited.
    pub run_us: u64,
    /// The most linear memory that the guest had, in bytes.
    pub memory_bytes: u64,
    /// Bytes written to stderr, including directives and what the kept log leaves out.
    pub log_bytes: u64,
}
