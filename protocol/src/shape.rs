//! The shapes that scripts rely on: what `-o json` prints. Fields are added, never renamed.

use crate::{
    Capabilities, FilePath, Hash, JobName, Json, ModuleName, Offer, TaskError, TaskId, TaskStats,
    Wall,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The state of a task. The diagram of all changes of state is in `state.rs` of `taskmaster-core`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// The task waits for a dependency.
    Blocked,
    /// The task waits for its time: `delay_ms`, `not_before`, or the back-off of a retry.
    Delayed,
    /// The task waits for a slot.
    Ready,
    /// An attempt of the task is assigned to a runner.
    Assigned,
    /// The task ended with a result. Final.
    Done,
    /// The task ended without a result, because its retries are used up or an error is permanent.
    /// Final.
    Failed,
    /// Somebody cancelled the task. Final.
    Cancelled,
    /// A dependency ended in another way than the task waited for. Final.
    Skipped,
}

impl TaskState {
    /// Every state, open ones first.
    pub const ALL: [TaskState; 8] = [
        TaskState::Blocked,
        TaskState::Delayed,
        TaskState::Ready,
        TaskState::Assigned,
        TaskState::Done,
        TaskState::Failed,
        TaskState::Cancelled,
        TaskState::Skipped,
    ];

    /// Whether the task has ended.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            TaskState::Done | TaskState::Failed | TaskState::Cancelled | TaskState::Skipped
        )
    }

    /// The state as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::Blocked => "blocked",
            TaskState::Delayed => "delayed",
            TaskState::Ready => "ready",
            TaskState::Assigned => "assigned",
            TaskState::Done => "done",
            TaskState::Failed => "failed",
            TaskState::Cancelled => "cancelled",
            TaskState::Skipped => "skipped",
        }
    }
}

/// A task, as `tasks show`, `add --wait` and each line of `feed --follow` print it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// The id of the task.
    pub id: TaskId,
    /// The name of the task's module.
    pub module: ModuleName,
    /// The version of the module that ran last; `null` before the first attempt.
    pub version: Option<Hash>,
    /// The present state.
    pub state: TaskState,
    /// The job that the task belongs to.
    pub job: JobName,
    /// Ready tasks with a higher priority go first.
    pub priority: i32,
    /// The number of the last attempt, from 1; 0 before the first attempt.
    pub attempt: u32,
    /// The name of the runner of the last attempt.
    pub runner: Option<String>,
    /// When the task was added, by the master's clock.
    pub created: Wall,
    /// When guest code of the last attempt started, by the runner's clock. It is for people, and
    /// never decides anything.
    pub started: Option<Wall>,
    /// When the task ended, by the master's clock.
    pub finished: Option<Wall>,
    /// The result, where it is inline.
    pub result: Option<Json>,
    /// The hash of the result, where it is a blob.
    pub result_blob: Option<Hash>,
    /// Why the task failed, was cancelled or was skipped. For an open task: why its last attempt
    /// failed.
    pub error: Option<TaskError>,
    /// Files that the task gave back, by their path in its folder.
    pub outputs: BTreeMap<FilePath, Hash>,
    /// What the last attempt cost.
    pub stats: Option<TaskStats>,
    /// Where the answer comes from. Only for a task that is done, or failed, without a run of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<AnswerSource>,
    /// Why no connected runner can take the task now. Only for a ready task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The newest partial result. Only for an open task that gave one, and only while the master has
    /// it in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<PartialView>,
}

/// The newest partial result of an open task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartialView {
    /// The number of the attempt that gave it.
    pub attempt: u32,
    /// Its number among those that the attempt gave, from 1.
    pub n: u64,
    /// When it came, by the master's clock.
    pub time: Wall,
    /// The partial result, as the module gave it.
    pub value: Json,
}

/// Where the answer of a task comes from that did not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerSource {
    /// The task that ran.
    pub from: TaskId,
    /// Seconds from the end of the run to this answer.
    pub age_s: u64,
    /// Whether this task waited for the run to end, because an equal task was at work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joined: bool,
}

impl TaskView {
    /// About how many bytes the view has as JSON. Lists of views are cut into parts by it.
    pub fn bytes(&self) -> usize {
        /// The other fields, with long names.
        const FIELDS: usize = 1 << 10;
        /// A hash and the signs around it.
        const HASH: usize = 70;
        let result = self.result.as_ref().map_or(0, |result| result.get().len());
        let error = self.error.as_ref().map_or(0, |error| {
            error.message.len() + error.backtrace.as_ref().map_or(0, String::len)
        });
        let outputs: usize = self
            .outputs
            .keys()
            .map(|path| path.as_str().len() + HASH)
            .sum();
        let note = self.note.as_ref().map_or(0, String::len);
        let partial = self.partial.as_ref().map_or(0, |it| it.value.get().len());
        FIELDS + result + error + outputs + note + partial
    }
}

/// A job, as `jobs show` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
    /// The name.
    pub job: JobName,
    /// How many times the job has been opened.
    pub run: u32,
    /// Whether a session holds the job, or a task of the job is open.
    pub open: bool,
    /// Whether the job is paused, so that its tasks are not sent to runners.
    #[serde(default)]
    pub paused: bool,
    /// All tasks that were ever added to the job.
    pub total: u64,
    /// Tasks in the state [`TaskState::Blocked`].
    pub blocked: u64,
    /// Tasks in the state [`TaskState::Delayed`].
    pub delayed: u64,
    /// Tasks in the state [`TaskState::Ready`].
    pub ready: u64,
    /// Tasks in the state [`TaskState::Assigned`].
    pub assigned: u64,
    /// Tasks in the state [`TaskState::Done`].
    pub done: u64,
    /// Tasks in the state [`TaskState::Failed`].
    pub failed: u64,
    /// Tasks in the state [`TaskState::Cancelled`].
    pub cancelled: u64,
    /// Tasks in the state [`TaskState::Skipped`].
    pub skipped: u64,
}

/// How the file of a module is read and run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ModuleKind {
    /// A WASI preview 1 command, which exports `_start`.
    Command,
    /// A component that is a command (`wasi:cli/run`), one of the world in `tasks/wit`, or one that
    /// exports exactly one function.
    Component,
}

/// The state of a module.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ModuleState {
    /// The file is validated, and no runner has compiled it yet.
    Compiling,
    /// A runner has compiled the module; or the file is valid and no runner is connected.
    Ready,
    /// No version may be used until somebody approves one. Where an older version is in use, the
    /// module is not in this state, and `waiting` tells of the newer one.
    Waiting,
    /// Every connected runner has said that it cannot compile or execute the version in use.
    Failed,
    /// The file is no module that can be run.
    Rejected,
    /// The file is gone, and tasks of the module wait.
    Removed,
    /// An operator paused the module, and its tasks wait.
    Paused,
}

/// A module, as `modules list` and `modules show` print it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleView {
    /// The name of the module, which is the stem of its file.
    pub name: ModuleName,
    /// The version that the next attempt takes; `null` where no file of this name was ever valid.
    pub version: Option<Hash>,
    /// How the module is run.
    pub kind: Option<ModuleKind>,
    /// The present state.
    pub state: ModuleState,
    /// Why the newest file was rejected. An older version may be in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why no connected runner can execute the version in use, as one of them said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Every version that the master has seen, the newest first.
    #[serde(default)]
    pub versions: Vec<ModuleVersion>,
    /// What the module may reach now: what its manifest asks for and somebody approved.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
    /// The newest version and why it is not in use. Absent where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<ModuleWaiting>,
    /// The word that an operator has set, by which older answers are found no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// What the module is for, by its manifest. Only where a single module is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is in the version in use. Only where a single module is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<ModuleCheck>,
}

/// A version of a module that waits to be approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleWaiting {
    /// The version that waits.
    pub version: Hash,
    /// Why the version waits, and what to type, as a sentence.
    pub why: String,
    /// All that the manifest asks for.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub asks: Capabilities,
    /// The part of `asks` that is not approved yet.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub more: Capabilities,
}

/// One version of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleVersion {
    /// The SHA-256 of the file.
    pub version: Hash,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// When the master first saw the version.
    pub seen: Wall,
    /// Whether `modules rollback` holds the version back. It is not used until it is approved, also
    /// if its file returns.
    pub held: bool,
    /// The runners that have compiled the version.
    #[serde(default)]
    pub runners: Vec<String>,
    /// The longest time that a runner took to compile the version, in microseconds. Absent where
    /// none compiled it since the master started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile_us: Option<u64>,
    /// Attempts of this version that are assigned to runners now.
    #[serde(default)]
    pub attempts: u64,
}

/// What `modules check FILE` finds in a file, and `modules show` tells of the version in use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ModuleCheck {
    /// Whether a runner would load the file.
    pub ok: bool,
    /// The stem of the file's name.
    pub name: String,
    /// How the file would be run.
    pub kind: Option<ModuleKind>,
    /// The SHA-256 of the file.
    pub version: Option<Hash>,
    /// What the file imports: `module.field` for a command, interfaces for a component.
    pub imports: Vec<String>,
    /// Why no runner would load the file.
    pub error: Option<String>,
    /// What a task calls in the file, with its types where params must have them.
    #[serde(default)]
    pub entry: Option<String>,
    /// What the file exports.
    #[serde(default)]
    pub exports: Vec<String>,
    /// The languages that the module is written in, where the file says so.
    #[serde(default)]
    pub language: Option<String>,
    /// The tools that made the module, where the file says so.
    #[serde(default)]
    pub toolchain: Option<String>,
    /// The size of the file, in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// What of the machine the module may reach, in a few words.
    #[serde(default)]
    pub reach: Option<String>,
    /// What the module is for, by the manifest beside the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What the manifest beside the file asks for.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
}

impl ModuleCheck {
    /// The check of a file with this stem, of which nothing is known yet.
    pub fn of(file_stem: &str) -> ModuleCheck {
        ModuleCheck {
            name: file_stem.to_owned(),
            ..ModuleCheck::default()
        }
    }
}

/// A runner, as `runners list` and `runners show` print it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunnerView {
    /// The name.
    pub runner: String,
    /// `connected`; `absent`, where its link is cut and its attempts are waited for; `draining`; or
    /// `sick`, where its machine cannot run tasks and it takes none.
    pub state: String,
    /// What is wrong with the machine of a sick runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// How many tasks of one slot the runner executes at the same time.
    pub slots: u32,
    /// Slots that are occupied by attempts.
    pub used: u32,
    /// Attempts that the runner was sent and has not finished.
    pub attempts: u64,
    /// Attempts that the runner has finished since the master started.
    pub finished: u64,
    /// What the runner offers.
    pub offer: Offer,
    /// When the runner joined.
    pub joined: Wall,
}
