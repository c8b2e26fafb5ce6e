//! What watchers see: one flat shape for every event, and the filter by which they choose.

use crate::{JobName, Json, ModuleName, TaskId, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal),* $(,)?) => {
        /// The kind of an event. Past tense: it has happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum EventKind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl EventKind {
            /// Every kind, in the order of a task's life, then modules, runners, jobs; what came
            /// later behind them.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$kind),*];

            /// The kind as it is written in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(EventKind::$kind => $name),* }
            }
        }
    };
}

kinds! {
    /// A task was added; durable.
    TaskAdded = "task:added",
    /// Nothing holds the task back any more; live only.
    TaskReady = "task:ready",
    /// The task was lent to a runner's slot; live only.
    TaskAssigned = "task:assigned",
    /// Guest code started; live only.
    TaskStarted = "task:started",
    /// The module said how far it is; live only.
    TaskProgress = "task:progress",
    /// The module gave a part of its answer; live only.
    TaskPartial = "task:partial",
    /// The module wrote to stderr; live only.
    TaskLog = "task:log",
    /// An attempt failed and another will follow; durable.
    TaskRetrying = "task:retrying",
    /// An attempt ended and the task goes on as another module (`::then`); durable.
    TaskContinued = "task:continued",
    /// The task is done; durable.
    TaskDone = "task:done",
    /// The task failed for good; durable.
    TaskFailed = "task:failed",
    /// The task was cancelled; durable.
    TaskCancelled = "task:cancelled",
    /// A dependency ended in another way than the task waited for; durable.
    TaskSkipped = "task:skipped",
    /// A final task was opened again by `tasks retry`; durable.
    TaskReopened = "task:reopened",
    /// A module was dropped under a new name; durable.
    ModuleAdded = "module:added",
    /// A module's file was replaced; durable.
    ModuleUpdated = "module:updated",
    /// A runner is still compiling a version of a module, once a second; live only.
    ModuleCompiling = "module:compiling",
    /// A version of a module was compiled by a runner; live only.
    ModuleReady = "module:ready",
    /// A file cannot be a module, with the reason; durable.
    ModuleRejected = "module:rejected",
    /// A module's file is gone; durable.
    ModuleRemoved = "module:removed",
    /// A runner joined; durable.
    RunnerJoined = "runner:joined",
    /// A runner was lost; durable.
    RunnerLost = "runner:lost",
    /// A runner lives and answers nothing: it is hung up on, and its tasks run elsewhere; live
    /// only.
    RunnerStuck = "runner:stuck",
    /// A runner takes no more tasks and finishes those it has; live only.
    RunnerDraining = "runner:draining",
    /// A job got its first open task or holder of this run; durable.
    JobOpened = "job:opened",
    /// Nobody holds the job and no task of it is open; durable.
    JobDone = "job:done",
    /// A version of a module asks for more than was approved, and waits; durable.
    // Last: the order is the format on disk.
    ModuleWaiting = "module:waiting",
}

/// One event as watchers and scripts see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// Its dense number; `null` for events that are live only and never written to disk.
    pub seq: Option<u64>,
    /// When it happened, by the master's clock.
    pub time: Wall,
    /// What happened.
    pub event: EventKind,
    /// The task, where it is about one.
    pub task: Option<TaskId>,
    /// The module, where it is about one.
    pub module: Option<ModuleName>,
    /// The job, where it is about one.
    pub job: Option<JobName>,
    /// The runner, where it is about one.
    pub runner: Option<String>,
    /// More, by kind of event.
    pub data: Json,
}

/// Which events a watcher wants; every field that is given must match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventFilter {
    /// Kinds, by full name or by their part before the colon (`task`, `module`); empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// Only about this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Only about this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Only about this module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleName>,
    /// Only about this runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
}

impl EventFilter {
    /// Whether events of this kind are wanted at all.
    pub fn wants(&self, kind: EventKind) -> bool {
        let name = kind.as_str();
        let part = name.split(':').next().unwrap_or_default();
        self.events.is_empty()
            || self
                .events
                .iter()
                .any(|wanted| wanted == name || wanted == part)
    }

    /// Whether this event is wanted.
    pub fn matches(&self, event: &EventView) -> bool {
        fn same<T: PartialEq>(wanted: &Option<T>, is: &Option<T>) -> bool {
            wanted.is_none() || wanted == is
        }
        self.wants(event.event)
            && same(&self.job, &event.job)
            && same(&self.task, &event.task)
            && same(&self.module, &event.module)
            && same(&self.runner, &event.runner)
    }

    /// The words in `events` that name no kind of event.
    pub fn unknown_events(&self) -> Vec<&str> {
        let known = |word: &str| {
            EventKind::ALL
                .iter()
                .any(|k| k.as_str() == word || k.as_str().split(':').next() == Some(word))
        };
        self.events
            .iter()
            .map(String::as_str)
            .filter(|word| !known(word))
            .collect()
    }
}
