//! What a runner tells the master: what it holds, how attempts ended, and what happens meanwhile.

use super::{Attempt, ResultRef};
use crate::{AttemptId, FilePath, Hash, Json, ModuleName, TaskError, TaskId, TaskStats};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// From a runner: how many attempts it takes, and which ones it holds. It is the first message
/// after `welcome`, and sent again when the number changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreditRequest {
    /// How many attempts the runner will hold at a time, running and waiting. The master never
    /// assigns more. At most [`CREDITS_MAX`](crate::limits::CREDITS_MAX).
    pub credits: u32,
    /// Every attempt that the runner runs or waits to run, or whose result is not acknowledged.
    /// Present in the first message of a connection, absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Vec<Attempt>>,
    /// Whether the runner takes no more attempts and leaves when it has finished.
    #[serde(default)]
    pub draining: bool,
    /// What is wrong with the machine of the runner, in one sentence, such as a disk that is full.
    /// The runner takes no attempts until it says that nothing is. Absent: nothing is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// From a runner: an attempt that ended with a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// The id of the task.
    pub id: TaskId,
    /// The number of the attempt.
    pub attempt: AttemptId,
    /// The result of the attempt. A blob is put (`PUT /blobs/<sha256>`) before this message is
    /// sent.
    pub result: ResultRef,
    /// Files that the attempt gives back, by their path in the task's folder. They are put as blobs
    /// before this message is sent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<FilePath, Hash>,
    /// When guest code started, by the runner's clock, in microseconds since 1970.
    pub started_us: i64,
    /// What the attempt cost.
    pub stats: TaskStats,
    /// For how many seconds the attempt says that its result may be used again. Absent: it says
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_s: Option<u64>,
    /// The log of the attempt.
    #[serde(default, skip_serializing_if = "Log::is_empty")]
    pub log: Log,
    /// Task documents that the attempt adds, each with an id. They are added together with the end
    /// of the attempt, or not at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adds: Vec<Json>,
    /// The document as which the task goes on: the result of that document becomes the result of
    /// the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Json>,
}

/// From a runner: an attempt that ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The id of the task.
    pub id: TaskId,
    /// The number of the attempt.
    pub attempt: AttemptId,
    /// Why the attempt failed.
    pub error: TaskError,
    /// When guest code started, by the runner's clock, in microseconds since 1970. Absent where it
    /// never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_us: Option<i64>,
    /// What the attempt cost.
    pub stats: TaskStats,
    /// The log of the attempt.
    #[serde(default, skip_serializing_if = "Log::is_empty")]
    pub log: Log,
}

/// The first and the last 32 KiB of what an attempt wrote to stderr. Directives (`::progress …`)
/// are left out, and bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Log {
    /// The beginning of the log; the whole log where it is short.
    #[serde(default)]
    pub head: String,
    /// The end of the log; empty where `head` is the whole log.
    #[serde(default)]
    pub tail: String,
    /// Bytes between `head` and `tail` that were not kept.
    #[serde(default)]
    pub dropped: u64,
}

impl Log {
    /// Whether nothing was written to the log.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }
}

/// From a runner, for watchers: guest code of an attempt started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// The id of the task.
    pub id: TaskId,
    /// The number of the attempt.
    pub attempt: AttemptId,
    /// When guest code started, by the runner's clock, in microseconds since 1970.
    pub started_us: i64,
}

/// From a runner, for followers and watchers: a partial result that a module gives while it runs. It
/// is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartialOutput {
    /// The id of the task.
    pub id: TaskId,
    /// The number of the attempt.
    pub attempt: AttemptId,
    /// Its number among those that the attempt gave, from 1. A runner that does not pass on all of
    /// them leaves numbers out. Absent: the next number.
    #[serde(default)]
    pub n: u64,
    /// The partial result, at most
    /// [`PARTIAL_BYTES_MAX`](crate::limits::PARTIAL_BYTES_MAX) bytes.
    pub data: Json,
}

/// From a runner, for watchers: what a module tells while it runs (`task:progress`, `task:log`). It
/// is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LiveOutput {
    /// The id of the task.
    pub id: TaskId,
    /// The number of the attempt.
    pub attempt: AttemptId,
    /// `{"fraction":0.4,"note":"…"}` for progress, `{"text":"…"}` for lines of the log.
    pub data: Json,
}

/// From a runner: a module that it compiled, or failed to compile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Compiled {
    /// The name of the module.
    pub name: ModuleName,
    /// The version of the module.
    pub version: Hash,
    /// Microseconds spent compiling; 0 where the compiled code came from the cache.
    pub compile_us: u64,
    /// Why the module could not be compiled. Absent where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it is the runner that is at fault, and not the module: it can compile or execute
    /// none.
    #[serde(default)]
    pub runner_fault: bool,
}

/// From a runner, for watchers: a module that it is still compiling. Sent once a second, so that
/// only large modules are told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Compiling {
    /// The name of the module.
    pub name: ModuleName,
    /// The version of the module.
    pub version: Hash,
    /// Milliseconds so far, including the wait for other compilations.
    pub elapsed_ms: u64,
}
