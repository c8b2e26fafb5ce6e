//! Questions of clients, and what answers them.

#[cfg(doc)]
use super::{Log, ResultRef};
use crate::shape::{TaskState, TaskView};
use crate::{JobName, Json, ModuleName, Refusal, TaskId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A question. The shape of its answer stands beside each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Query {
    /// A `TaskView`.
    Task {
        /// The task.
        id: TaskId,
    },
    /// A [`Page`] of `TaskView`s: open tasks in the order of their adding, then ended ones, the
    /// newest first.
    Tasks {
        /// Only of this job.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobName>,
        /// Only in this state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<TaskState>,
        /// Only of this module.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        module: Option<ModuleName>,
        /// At most so many rows, at most 1,000.
        limit: usize,
        /// The `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// `{"state":…,"why":"one sentence"}`.
    Why {
        /// The task.
        id: TaskId,
    },
    /// A [`Log`].
    Logs {
        /// The task.
        id: TaskId,
    },
    /// A map of id → [`ResultRef`]; an id that is not done is left out.
    Results {
        /// The tasks.
        ids: Vec<TaskId>,
    },
    /// An array of `JobView`s: open ones, then those done last, at most 1,000.
    Jobs,
    /// A `JobView`.
    Job {
        /// The job.
        job: JobName,
    },
    /// An array of `ModuleView`s.
    Modules,
    /// A `ModuleView` with its versions.
    Module {
        /// The module.
        name: ModuleName,
    },
    /// An array of `RunnerView`s.
    Runners,
    /// A [`Status`].
    Status,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Page {
    /// The rows.
    pub rows: Vec<TaskView>,
    /// Ask for the next page with this; `null` at the end.
    pub next: Option<String>,
}

/// The master at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// How many times a master has started on this journal.
    pub epoch: u32,
    /// The seq of the last durable event.
    pub seq: u64,
    /// `sync` or `interval:<ms>`.
    pub durability: String,
    /// Milliseconds since this start.
    pub uptime_ms: u64,
    /// Open tasks by state, and final ones since this start.
    pub tasks: BTreeMap<String, u64>,
    /// Open jobs.
    pub jobs: u64,
    /// Runners connected.
    pub runners: u64,
    /// Their slots.
    pub slots: u64,
    /// Why nothing is added now; `null`: all is taken.
    #[serde(default)]
    pub refusing: Option<String>,
}

/// From a client: a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// The client's number for the answer.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// The question.
    #[serde(flatten)]
    pub query: Query,
}

/// To a client: what it asked for, or that what it wanted is durably done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The client's number.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// The answer.
    pub data: Json,
}

/// To a client: no, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// The client's number; absent where the message had none or could not be read.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<u64>,
    /// Why.
    pub error: Refusal,
}
