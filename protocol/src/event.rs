//! What watchers see: one flat shape for every event, and the filter by which watchers choose.

use crate::{JobName, Json, ModuleName, TaskId, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal),* $(,)?) => {
        /// The kind of an event. Its name is in the past tense, because it has happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize, JsonSchema)]
        pub enum EventKind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl EventKind {
            /// Every kind. The order is that of the enum, which the format on disk depends on.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$kind),*];

            /// The kind as JSON has it.
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
    /// An attempt of the task was assigned to a runner; live only.
    TaskAssigned = "task:assigned",
    /// Guest code started; live only.
    TaskStarted = "task:started",
    /// The module told how far the task is; live only.
    TaskProgress = "task:progress",
    /// The module gave a first part of the result; live only.
    TaskPartial = "task:partial",
    /// The module wrote to stderr; live only.
    TaskLog = "task:log",
    /// An attempt failed and another will follow; durable.
    TaskRetrying = "task:retrying",
    /// An attempt ended and the task goes on as another document (`::then`); durable.
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
    /// A runner lives and answers nothing. The master closes its connection and runs its tasks
    /// elsewhere; live only.
    RunnerStuck = "runner:stuck",
    /// A runner takes no more tasks and finishes those it has; live only.
    RunnerDraining = "runner:draining",
    /// A job got its first open task or holder of this run; durable.
    JobOpened = "job:opened",
    /// Nobody holds the job and no task of it is open; durable.
    JobDone = "job:done",
    /// A version of a module asks for more than was approved, and waits; durable.
    // New kinds are added at the end, because the order is the format on disk.
    ModuleWaiting = "module:waiting",
    /// The machine of a runner cannot run tasks, with the reason; the runner takes none until it
    /// can. Live only.
    RunnerSick = "runner:sick",
    /// The machine of a runner can run tasks again; live only.
    RunnerWell = "runner:well",
}

impl EventKind {
    /// Whether `word` is the name of the kind, or the part of the name before the colon.
    fn is_called(self, word: &str) -> bool {
        let name = self.as_str();
        word == name || name.split(':').next() == Some(word)
    }
}

/// An event, as watchers and scripts see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// The number of the event; durable events are numbered without gaps. `null` for an event that
    /// is live only and never written to disk.
    pub seq: Option<u64>,
    /// When the event happened, by the master's clock.
    pub time: Wall,
    /// The kind of the event.
    pub event: EventKind,
    /// The task that the event is about, if any.
    pub task: Option<TaskId>,
    /// The module that the event is about, if any.
    pub module: Option<ModuleName>,
    /// The job that the event is about, if any.
    pub job: Option<JobName>,
    /// The runner that the event is about, if any.
    pub runner: Option<String>,
    /// More about the event; its shape depends on the kind.
    pub data: Json,
}

impl EventView {
    /// About how many bytes the event has in a message. What waits for watchers is bounded by it.
    pub fn bytes(&self) -> usize {
        /// The other fields, with long names.
        const FIELDS: usize = 256;
        FIELDS + self.data.get().len() + self.runner.as_ref().map_or(0, String::len)
    }
}

/// Which events a watcher wants. Every field that is given must match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventFilter {
    /// Kinds of events, by their full names or by the part before the colon (`task`, `module`).
    /// Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// Only events about this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// Only events about this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Only events about this module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleName>,
    /// Only events about this runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
}

impl EventFilter {
    /// Whether events of this kind may be wanted, whatever they are about.
    pub fn wants(&self, kind: EventKind) -> bool {
        self.events.is_empty() || self.events.iter().any(|word| kind.is_called(word))
    }

    /// Whether the event is wanted.
    pub fn matches(&self, event: &EventView) -> bool {
        fn fits<T: PartialEq>(wanted: &Option<T>, is: &Option<T>) -> bool {
            wanted.is_none() || wanted == is
        }
        self.wants(event.event)
            && fits(&self.job, &event.job)
            && fits(&self.task, &event.task)
            && fits(&self.module, &event.module)
            && fits(&self.runner, &event.runner)
    }

    /// The words in `events` that name no kind of event.
    pub fn unknown_events(&self) -> Vec<&str> {
        let is_known = |word: &str| EventKind::ALL.iter().any(|kind| kind.is_called(word));
        self.events
            .iter()
            .map(String::as_str)
            .filter(|word| !is_known(word))
            .collect()
    }
}
