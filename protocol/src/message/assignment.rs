//! What the master sends to a runner: attempts to run, and modules to prepare.

use crate::{
    AttemptId, Capabilities, FilePath, Glob, Hash, InputRef, JobName, Json, ModuleKind, ModuleName,
    TaskId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An attempt of a task, named.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Attempt {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
}

/// One attempt, ready to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Assignment {
    /// The task.
    pub id: TaskId,
    /// The try.
    pub attempt: AttemptId,
    /// Its module's name.
    pub module: ModuleName,
    /// The version to run: fetch `/blobs/<version>` where it is not cached.
    pub version: Hash,
    /// Its job.
    pub job: JobName,
    /// What goes to stdin, references not yet replaced; absent: stdin is empty.
    /// `{"$blob":"<sha256>"}` and nothing else: the text of that blob, in which references are
    /// replaced, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Json>,
    /// Results that params refer to, as far as the master had them at hand; the runner asks for the
    /// others (`query` with `what: results`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<TaskId, ResultRef>,
    /// argv after the module's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The module's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Files and folders to put into its folder: fetch `/blobs/<sha256>` where they are not cached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<FilePath, InputRef>,
    /// Globs of files to give back; absent: everything in its folder that was created or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<Glob>>,
    /// Limit from the start of guest code.
    pub timeout_ms: u64,
    /// Limit of linear memory, MiB.
    pub memory_mb: u32,
    /// Slots that it takes.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slots: u32,
    /// What its module may reach; absent: nothing. Only a runner that offers it all is sent the
    /// attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Arc<Capabilities>>,
}

fn one() -> u32 {
    1
}

fn is_one(n: &u32) -> bool {
    *n == 1
}

/// A result, inline or by the name of its blob (`GET /blobs/<sha256>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResultRef {
    /// JSON, as the module gave it (text as a JSON string).
    Json(Json),
    /// Bytes, kept under their hash.
    Blob(Hash),
}

/// From the master to runners: a module to fetch and compile ahead of need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Announce {
    /// The module.
    pub name: ModuleName,
    /// Its version, also the name of its blob.
    pub version: Hash,
    /// How it is run.
    pub kind: ModuleKind,
    /// Size of the file.
    pub bytes: u64,
}
