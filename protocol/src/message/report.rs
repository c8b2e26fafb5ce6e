//! What a runner tells the master: what it holds, how attempts ended, and what happens meanwhile.

use super::{Attempt, ResultRef};
use crate::{AttemptId, FilePath, Hash, Json, ModuleName, TaskError, TaskId, TaskStats};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// From a runner: what it holds and how much more it takes. The first message after `welcome`, and
/// again when the number changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreditRequest {
    /// How many attempts it will hold at a time, running and waiting. The master never has more
    /// outstanding.
    pub credits: u32,
    /// After a (re)connect: every attempt that it holds or whose result is not acknowledged. Absent
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Vec<Attempt>>,
    /// Whether it takes no more and will leave when it has finished.
    #[serde(default)]
    pub draining: bool,
}

/// From a runner: an attempt ended with a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
    /// What it gave back. A blob has been put (`PUT /blobs/<sha256>`) before this is sent.
    pub result: ResultRef,
    /// Files that it gives back, by their path in its folder. They have been put before this is
    /// sent, too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<FilePath, Hash>,
    /// When guest code started, by the runner's clock, microseconds since 1970.
    pub started_us: i64,
    /// What it cost.
    pub stats: TaskStats,
    /// Its log.
    #[serde(default, skip_serializing_if = "Log::is_empty")]
    pub log: Log,
    /// Task documents that it added, each with an id. They are added together with its end, or not
    /// at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adds: Vec<Json>,
    /// The task document as which it goes on: its result becomes this task's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Json>,
}

/// From a runner: an attempt ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
    /// Why.
    pub error: TaskError,
    /// When guest code started, by the runner's clock, microseconds since 1970; absent where it
    /// never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_us: Option<i64>,
    /// What it cost.
    pub stats: TaskStats,
    /// Its log.
    #[serde(default, skip_serializing_if = "Log::is_empty")]
    pub log: Log,
}

/// The first and last 32 KiB of what a task wrote to stderr, directives left out; bytes that are
/// not UTF-8 replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Log {
    /// The beginning; all of it where it is short.
    #[serde(default)]
    pub head: String,
    /// The end, where the whole is longer than the beginning.
    #[serde(default)]
    pub tail: String,
    /// Bytes between the two that were not kept.
    #[serde(default)]
    pub dropped: u64,
}

impl Log {
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }
}

/// From a runner, live: guest code started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
    /// By the runner's clock, microseconds since 1970.
    pub started_us: i64,
}

/// From a runner, live: something a running module said (`task:progress`, `task:partial`,
/// `task:log`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LiveOutput {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
    /// `{"fraction":0.4,"note":"…"}`, the partial result, or `{"text":"…"}`.
    pub data: Json,
}

/// From a runner: what it did with a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Compiled {
    /// The module.
    pub name: ModuleName,
    /// Its version.
    pub version: Hash,
    /// Time spent compiling, 0 where it came from the cache.
    pub compile_us: u64,
    /// Why it could not be compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// From a runner, live: it is still getting a module ready. Said once a second, so of large modules
/// only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Compiling {
    /// The module.
    pub name: ModuleName,
    /// Its version.
    pub version: Hash,
    /// Since when, waiting for other compilations included.
    pub elapsed_ms: u64,
}
