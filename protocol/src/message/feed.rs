//! Tasks that a client adds, and how it learns that they ended.

use crate::{JobName, Json, Refusal, TaskId, TaskView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From a feeder: tasks to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Add {
    /// The batch's number in this session, from 1, increasing; a resend after a reconnect has the
    /// number it had.
    pub batch: u64,
    /// The job of the tasks that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Whether this session holds that job open until `job:release`.
    #[serde(default)]
    pub hold: bool,
    /// Task documents. Each is checked on its own; one that is wrong does not stop the others.
    pub tasks: Vec<Json>,
}

/// To a feeder: the tasks of a batch are durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Added {
    /// The batch.
    pub batch: u64,
    /// The ids of the tasks that were taken, in the order of the batch.
    pub ids: Vec<TaskId>,
    /// Those of them that had ended before this add (the same document was added earlier).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<TaskId>,
}

/// To a feeder: tasks of a batch that were not taken. Comes before the batch's `task:added`, which
/// always comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// The batch.
    pub batch: u64,
    /// Why not, per task.
    pub tasks: Vec<Rejection>,
}

/// One task that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejection {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Why.
    pub error: Refusal,
}

/// Names a job, where that is all there is to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobRef {
    /// The job.
    pub job: JobName,
}

/// From a feeder: tell me of tasks that end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Follow {
    /// Every task of this job that ends after `since`, and the job's own `job:done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// These tasks, each once, also where they have ended long ago.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<TaskId>,
    /// The seq up to which everything is known; absent: from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// To a feeder: tasks that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TasksEnded {
    /// Follow again from here after a reconnect; `null` where the answer is to a question about
    /// single ids.
    pub seq: Option<u64>,
    /// The tasks, in the order in which they ended.
    pub tasks: Vec<TaskView>,
    /// The run of the followed job that became done, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_done: Option<u32>,
}
