//! Tasks that a client adds, and how it learns that they ended.

use crate::{JobName, Json, Refusal, TaskId, TaskView, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From a client: tasks to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Add {
    /// The number of the batch in this session, from 1, increasing. A batch that is sent again
    /// after a reconnect keeps its number.
    pub batch: u64,
    /// The job of the tasks that name no job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Whether this session holds the job open until `job:release`.
    #[serde(default)]
    pub hold: bool,
    /// Task documents, at most [`BATCH_TASKS_MAX`](crate::limits::BATCH_TASKS_MAX). Each is checked
    /// on its own; a wrong one does not stop the others.
    pub tasks: Vec<Json>,
}

/// To a client: the tasks of a batch are durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Added {
    /// The number of the batch.
    pub batch: u64,
    /// The ids of the tasks that were added, in the order of the batch.
    pub ids: Vec<TaskId>,
    /// Those of `ids` whose tasks were there already, because the same document was added earlier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<TaskId>,
    /// Those of `known` whose tasks have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<TaskId>,
}

/// To a client: tasks of a batch that were not added. It comes before the `task:added` of the
/// batch, which always comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// The number of the batch.
    pub batch: u64,
    /// The tasks and why they were not added.
    pub tasks: Vec<Rejection>,
}

/// A task of a batch that was not added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejection {
    /// The index of the task in the batch, from 0.
    pub index: usize,
    /// Why the task was not added.
    pub error: Refusal,
}

/// The data of an event that only names a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobRef {
    /// The name of the job.
    pub job: JobName,
}

/// From a client: asks to be told of tasks that end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Follow {
    /// Asks for every task of this job that ends after `since`, and for the end of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Asks for these tasks, each once, also where they ended long ago.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<TaskId>,
    /// The number of the last event that the client knows. Absent: from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Asks for the partial results of these tasks, too. The newest ones come at once, where the
    /// master has them, and the others as they come.
    #[serde(default, skip_serializing_if = "is_false")]
    pub partials: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// To a client: a partial result of an open task that it follows with `partials`. Those of one task
/// come in the order in which the module gave them, and before the task's `task:final`. They are
/// never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartialResult {
    /// The id of the task.
    pub id: TaskId,
    /// The number of the attempt that gave it, as in the shape of a task. Once a newer attempt has
    /// given one, those of older attempts are not passed on.
    pub attempt: u32,
    /// Its number among those that the attempt gave, from 1.
    pub n: u64,
    /// Whether it is the first one that is passed on of an attempt that follows another. What older
    /// attempts gave is void then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restart: bool,
    /// How many the client was not told before this one, because they came faster than they could be
    /// passed on or read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
    /// When it came, by the master's clock.
    pub time: Wall,
    /// The partial result, as the module gave it.
    pub value: Json,
}

/// To a client: tasks that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TasksEnded {
    /// What to give as `since` after a reconnect. `null` where single ids were asked for.
    pub seq: Option<u64>,
    /// The tasks in the order in which they ended.
    pub tasks: Vec<TaskView>,
    /// The run of the followed job that is done now. Absent while the job is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_done: Option<u32>,
}
