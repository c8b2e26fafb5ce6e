//! What people change: tasks, jobs, modules and runners. Each is answered by exactly one `answer` or
//! `refused` with the client's number.

use crate::{Capabilities, Hash, JobName, ModuleName, Salt, TaskId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From a client: cancels tasks, or all open tasks of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cancel {
    /// The client's own number, which the answer repeats.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// The tasks to cancel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<TaskId>,
    /// The job whose open tasks are cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
}

/// From a client: opens failed or cancelled tasks again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retry {
    /// The client's own number, which the answer repeats.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// The tasks to open again.
    pub ids: Vec<TaskId>,
}

/// From a client: changes an open task. Absent fields stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeTask {
    /// The client's own number, which the answer repeats.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// The task to change.
    pub id: TaskId,
    /// The new priority; tasks with a higher one go first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The new earliest start, in milliseconds from now; 0 means at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// What an operator does to a job, a module or a runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Operation {
    /// Send no more tasks of this job.
    PauseJob {
        /// The name of the job.
        job: JobName,
    },
    /// Send tasks of this job again.
    ResumeJob {
        /// The name of the job.
        job: JobName,
    },
    /// Send no more tasks of this module.
    PauseModule {
        /// The name of the module.
        name: ModuleName,
    },
    /// Send tasks of this module again.
    ResumeModule {
        /// The name of the module.
        name: ModuleName,
    },
    /// Go back to an earlier version, and hold the present one back until it is approved.
    RollbackModule {
        /// The name of the module.
        name: ModuleName,
        /// The beginning of the wanted version, at least 8 digits. Absent: the version before the
        /// present one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    },
    /// Let a version be used that waits, because its manifest asks for capabilities or because it
    /// was rolled back.
    ApproveModule {
        /// The name of the module.
        name: ModuleName,
        /// The beginning of the version. Absent: the newest one that waits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// All capabilities that the version asks for, as they were shown to the person who
        /// approves them. Refused where the version asks for something else by now. Absent:
        /// whatever it asks for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capabilities: Option<Capabilities>,
    },
    /// Let a runner finish the attempts that it has, and send it no more.
    DrainRunner {
        /// The name of the runner.
        runner: String,
    },
    /// Keep these answers no longer. Keys of which no answer is kept are passed over.
    DropAnswers {
        /// The keys, at most [`KEYS_DROPPED_MAX`](crate::limits::KEYS_DROPPED_MAX).
        keys: Vec<Hash>,
    },
    /// Find the answers that a module has given so far no more, or find them again.
    SaltModule {
        /// The name of the module.
        name: ModuleName,
        /// The word that becomes a part of the keys. Absent: no word, as at the beginning.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        salt: Option<Salt>,
    },
}

/// From a client: something to do to a job, a module or a runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Operate {
    /// The client's own number, which the answer repeats.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// What to do, in the fields beside `ref`.
    #[serde(flatten)]
    pub operation: Operation,
}
