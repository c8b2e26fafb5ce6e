//! The shapes that scripts rely on: what `-o json` prints. Fields are added, never renamed.

use crate::{
    Capabilities, FilePath, Hash, JobName, Json, ModuleName, Offer, TaskError, TaskId, TaskStats,
    Wall,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a task is; see the diagram in `taskmaster-core`'s `state.rs`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for a dependency.
    Blocked,
    /// Waits for its time: `delay_ms`, `not_before`, or the back-off of a retry.
    Delayed,
    /// Waits for a slot.
    Ready,
    /// Lent to a runner's slot.
    Assigned,
    /// Ended with a result. Final.
    Done,
    /// Ended without one: retries used up, or a permanent error. Final.
    Failed,
    /// Cancelled. Final.
    Cancelled,
    /// A dependency ended in another way than it waited for. Final.
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

    /// The state as it is written in JSON.
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

/// A task: `tasks show`, `add --wait`, each line of `feed --follow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// Its module's name.
    pub module: ModuleName,
    /// The module's version that ran last; `null` before the first attempt.
    pub version: Option<Hash>,
    /// Where it is.
    pub state: TaskState,
    /// Its job.
    pub job: JobName,
    /// Higher first.
    pub priority: i32,
    /// The number of the last attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// The runner of the last attempt.
    pub runner: Option<String>,
    /// When it was added, by the master's clock.
    pub created: Wall,
    /// When guest code of the last attempt started, by the runner's clock: for people, never for
    /// decisions.
    pub started: Option<Wall>,
    /// When it became final, by the master's clock.
    pub finished: Option<Wall>,
    /// What it gave back, where that is inline.
    pub result: Option<Json>,
    /// What it gave back, where that is a blob.
    pub result_blob: Option<Hash>,
    /// Why it failed, was cancelled or was skipped; of an open task: why its last attempt failed.
    pub error: Option<TaskError>,
    /// Files that it gave back, by their path in its folder.
    pub outputs: BTreeMap<FilePath, Hash>,
    /// What the last attempt cost.
    pub stats: Option<TaskStats>,
    /// Of a ready task that no connected runner can take now: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A job: `jobs show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
    /// Its name.
    pub job: JobName,
    /// How many times it has been opened.
    pub run: u32,
    /// Whether somebody holds it or a task of it is open.
    pub open: bool,
    /// Whether it is paused: its tasks are not sent.
    #[serde(default)]
    pub paused: bool,
    /// Tasks ever added to it.
    pub total: u64,
    /// Tasks in this state now, and so on.
    pub blocked: u64,
    /// See [`TaskState::Delayed`].
    pub delayed: u64,
    /// See [`TaskState::Ready`].
    pub ready: u64,
    /// See [`TaskState::Assigned`].
    pub assigned: u64,
    /// See [`TaskState::Done`].
    pub done: u64,
    /// See [`TaskState::Failed`].
    pub failed: u64,
    /// See [`TaskState::Cancelled`].
    pub cancelled: u64,
    /// See [`TaskState::Skipped`].
    pub skipped: u64,
}

/// How a module's file is read and run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ModuleKind {
    /// A WASI preview 1 command: `_start`.
    Command,
    /// A component: a command (`wasi:cli/run`), one of the world in `tasks/wit`, or one that
    /// exports one function.
    Component,
}

/// Where a module is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ModuleState {
    /// Validated; no runner has compiled it yet.
    Compiling,
    /// Compiled by a runner; or no runner is connected and the file is sound.
    Ready,
    /// Its newest version waits until somebody approves it; an older one may be in use.
    Waiting,
    /// The file cannot be a module.
    Rejected,
    /// The file is gone; its tasks wait.
    Removed,
    /// Paused by an operator; its tasks wait.
    Paused,
}

/// A module: `modules list`, `modules show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleView {
    /// Its name: the file's stem.
    pub name: ModuleName,
    /// The version that the next attempt takes; `null` where no file of this name was ever sound.
    pub version: Option<Hash>,
    /// How it is run.
    pub kind: Option<ModuleKind>,
    /// Where it is.
    pub state: ModuleState,
    /// Why the newest file was rejected, where it was; an older version may be in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Every version seen, newest first.
    #[serde(default)]
    pub versions: Vec<ModuleVersion>,
    /// What it may reach now: what its manifest asks for and was approved.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
    /// Its newest version, where that is not in use: why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<ModuleWaiting>,
    /// What its manifest says that it is for; of a single module only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is in the version in use; of a single module only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<ModuleCheck>,
}

/// A version of a module that waits to be approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleWaiting {
    /// Which one.
    pub version: Hash,
    /// Why, and what to type, as a sentence.
    pub why: String,
    /// All that its manifest asks for.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub asks: Capabilities,
    /// What of that was not approved yet.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub more: Capabilities,
}

/// One version of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleVersion {
    /// SHA-256 of the file's bytes.
    pub version: Hash,
    /// Size of the file.
    pub bytes: u64,
    /// When the master first saw it.
    pub seen: Wall,
    /// Whether `modules rollback` holds it back: it is not taken again until approved, also if its
    /// file returns.
    pub held: bool,
    /// Runners that have compiled it.
    #[serde(default)]
    pub runners: Vec<String>,
    /// The longest that one of them took for it, µs; absent where none compiled it since the master
    /// started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile_us: Option<u64>,
    /// Attempts of it running or sent now.
    #[serde(default)]
    pub attempts: u64,
}

/// What `modules check FILE` finds, and `modules show` tells of the version in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleCheck {
    /// Whether a runner would load it.
    pub ok: bool,
    /// The file's stem.
    pub name: String,
    /// How it would be run.
    pub kind: Option<ModuleKind>,
    /// SHA-256 of the file's bytes.
    pub version: Option<Hash>,
    /// What it imports: `module.field` of a command, interfaces of a component.
    pub imports: Vec<String>,
    /// Why it would not load.
    pub error: Option<String>,
    /// What a task calls in it, with its types where params must have them.
    #[serde(default)]
    pub entry: Option<String>,
    /// What it exports.
    #[serde(default)]
    pub exports: Vec<String>,
    /// The languages that it is written in, where it says so.
    #[serde(default)]
    pub language: Option<String>,
    /// The tools that made it, where it says so.
    #[serde(default)]
    pub toolchain: Option<String>,
    /// Size of the file.
    #[serde(default)]
    pub bytes: u64,
    /// What of the machine it may reach, in a few words.
    #[serde(default)]
    pub reach: Option<String>,
    /// What the manifest beside it says that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What the manifest beside it asks for.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
}

impl ModuleCheck {
    /// Of a file with this stem, of which nothing is known yet.
    pub fn of(file_stem: &str) -> ModuleCheck {
        ModuleCheck {
            ok: false,
            name: file_stem.to_owned(),
            kind: None,
            version: None,
            imports: Vec::new(),
            error: None,
            entry: None,
            exports: Vec::new(),
            language: None,
            toolchain: None,
            bytes: 0,
            reach: None,
            description: None,
            capabilities: Capabilities::default(),
        }
    }
}

/// A runner: `runners list`, `runners show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunnerView {
    /// Its name.
    pub runner: String,
    /// `connected`, `absent` (its link is cut, its attempts are waited for), or `draining`.
    pub state: String,
    /// Room for this many one-slot tasks at a time.
    pub slots: u32,
    /// Slots taken by attempts sent to it.
    pub used: u32,
    /// Attempts sent to it and not finished.
    pub attempts: u64,
    /// Attempts that it has finished since the master started.
    pub finished: u64,
    /// What it offers.
    pub offer: Offer,
    /// When it joined.
    pub joined: Wall,
}
