//! What people change: tasks, jobs, modules and runners. Each is answered by exactly one `answer` or
//! `refused` with the client's number.

use crate::{Capabilities, JobName, ModuleName, TaskId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From a client: cancel tasks, or a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cancel {
    /// The client's number for the answer.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// These tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<TaskId>,
    /// Every open task of this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
}

/// From a client: open failed or cancelled tasks again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retry {
    /// The client's number for the answer.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// The tasks.
    pub ids: Vec<TaskId>,
}

/// From a client: change an open task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeTask {
    /// The client's number for the answer.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// The task.
    pub id: TaskId,
    /// Its new priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Its earliest start, counted from now; 0: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// What an operator does to a job, a module or a runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Operation {
    /// Send no more tasks of this job.
    PauseJob {
        /// The job.
        job: JobName,
    },
    /// Send tasks of this job again.
    ResumeJob {
        /// The job.
        job: JobName,
    },
    /// Send no more tasks of this module.
    PauseModule {
        /// The module.
        name: ModuleName,
    },
    /// Send tasks of this module again.
    ResumeModule {
        /// The module.
        name: ModuleName,
    },
    /// Go back to the version before the present one, or to the named one; hold the present one
    /// back until approved.
    RollbackModule {
        /// The module.
        name: ModuleName,
        /// The beginning of the version wanted, at least 8 digits; absent: the one before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    },
    /// Let a version that waits be used: with what its manifest asks for, or again after a
    /// rollback.
    ApproveModule {
        /// The module.
        name: ModuleName,
        /// The beginning of the version; absent: the newest that waits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// All that it asks for, as it was shown to who approves it: refused where it asks for
        /// something else by now. Absent: whatever it asks for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capabilities: Option<Capabilities>,
    },
    /// Let a runner finish what it has and send it no more.
    DrainRunner {
        /// The runner.
        runner: String,
    },
}

/// From an operator: do this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Operate {
    /// The client's number for the answer.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// What to do.
    #[serde(flatten)]
    pub operation: Operation,
}
