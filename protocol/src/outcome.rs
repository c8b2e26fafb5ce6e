//! How an attempt ended: kinds of failure that decide what comes next, and what it cost.

use serde::{Deserialize, Serialize};

/// Why an attempt failed. Each is caused by another thing and noticed by another mechanism.
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
    /// The program ended with another exit code than 0.
    Exit,
    /// The module trapped: unreachable code, a bad access, a stack that ran over.
    Trap,
    /// The attempt ran longer than its `timeout_ms`.
    Timeout,
    /// The module asked for more memory than its `memory_mb`.
    Memory,
    /// Somebody cancelled the task.
    Cancelled,
    /// The runner was lost while it held the attempt, more often than a task can be believed
    /// innocent of.
    RunnerLost,
    /// The module could not be fetched, compiled or instantiated.
    Module,
    /// An input (a result, a blob, params) could not be had.
    Input,
    /// The output could not be kept.
    Output,
}

impl ErrorKind {
    /// The kind as it is written in JSON.
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

/// What an attempt's failure was, as scripts see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TaskError {
    /// The kind, which decides whether the task is tried again.
    pub kind: ErrorKind,
    /// One sentence for people.
    pub message: String,
    /// The WebAssembly backtrace with function names, innermost first, where the module trapped.
    #[serde(default)]
    pub backtrace: Option<String>,
    /// The exit code, where there was one. Of a component: 75 for an error that it calls retryable,
    /// 65 for a permanent one, 1 for another. 65 also with params that its function does not take.
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

    /// Whether the program itself said that trying again is of no use (exit 64, 65) or is (exit
    /// 75), or its params are such that no try can succeed; `None` leaves it to the task's retry
    /// policy.
    pub fn verdict(&self) -> Option<bool> {
        match (self.kind, self.code) {
            (ErrorKind::Exit, Some(64 | 65)) | (ErrorKind::Input, Some(65)) => Some(false),
            (ErrorKind::Exit, Some(75)) => Some(true),
            _ => None,
        }
    }
}

/// What an attempt cost.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct TaskStats {
    /// Microseconds from the start of guest code to its end, waiting included.
    pub run_us: u64,
    /// The most linear memory that the guest had, bytes.
    pub memory_bytes: u64,
    /// Bytes written to stderr, directives included; more than the kept log when it was long.
    pub log_bytes: u64,
}
