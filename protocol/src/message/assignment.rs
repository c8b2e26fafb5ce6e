//! What the master sends to a runner: attempts to run, and modules to prepare.

use crate::{
    AttemptId, Capabilities, FilePath, Glob, Hash, InputRef, JobName, Json, ModuleKind, ModuleName,
    TaskId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name of an attempt of a task.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Attempt {
    /// The id of the task.
    pub id: TaskId,
    /// The number of the attempt.
    pub attempt: AttemptId,
}

/// From the master to a runner: an attempt to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Assignment {
    /// The id of the task.
    pub id: TaskId,
    /// The number of the attempt.
    pub attempt: AttemptId,
    /// The name of the module to run.
    pub module: ModuleName,
    /// The version of the module to run. The runner fetches it from `/blobs/<version>` where it is
    /// not cached.
    pub version: Hash,
    /// The job that the task belongs to.
    pub job: JobName,
    /// What goes to stdin once its placeholders have been replaced. `{"$blob":"<sha256>"}` and
    /// nothing else stands for the text of that blob, whose placeholders are replaced, too. Absent:
    /// stdin is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Json>,
    /// Results that the params ask for, as far as the master has them in memory. The runner asks
    /// for the others with `query` and `what: results`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<TaskId, ResultRef>,
    /// The tasks of the jobs whose results the params ask for, in the order of adding.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub job_results: BTreeMap<JobName, Vec<TaskId>>,
    /// The arguments of the program, without its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The environment variables of the program.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Files and folders to put into the task's folder, by their path there. The runner fetches
    /// them from `/blobs/<sha256>` where they are not cached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<FilePath, InputRef>,
    /// The files of the task's folder to give back. Absent: every file that was created or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<Glob>>,
    /// The longest run time in milliseconds, counted from the start of guest code.
    pub timeout_ms: u64,
    /// The largest linear memory, in MiB.
    pub memory_mb: u32,
    /// Slots of the runner that the attempt occupies. Absent: 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slots: u32,
    /// What the module may reach. Absent: nothing. Only a runner that offers all of it is sent the
    /// attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Arc<Capabilities>>,
    /// Whether the answer may be given to other tasks. Then the module is not told the id and the job
    /// of the task, nor the number of the attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cached: bool,
}

fn one() -> u32 {
    1
}

fn is_one(n: &u32) -> bool {
    *n == 1
}

/// The result of a task, inline or by the name of its blob (`GET /blobs/<sha256>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResultRef {
    /// JSON as the module wrote it. Text that is not JSON is a JSON string.
    Json(Json),
    /// The hash of the bytes.
    Blob(Hash),
}

/// From the master to runners: a module to fetch and compile before a task needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Announce {
    /// The name of the module.
    pub name: ModuleName,
    /// The version of the module, which is also the name of its blob.
    pub version: Hash,
    /// How the module is run.
    pub kind: ModuleKind,
    /// The size of the module's file, in bytes.
    pub bytes: u64,
}
