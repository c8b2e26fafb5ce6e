//! Questions of clients, and their answers.

use super::cache::{KeptAnswersPageQuery, KeyPrefix};
#[cfg(doc)]
use super::{Log, ResultRef};
use crate::shape::TaskState;
#[cfg(doc)]
use crate::shape::TaskView;
use crate::{JobName, Json, ModuleName, Refusal, TaskId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A question. The comment on each variant names the shape of its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Query {
    /// Answered by a [`TaskView`].
    Task {
        /// The id of the task.
        id: TaskId,
    },
    /// Answered by a [`Page`] of [`TaskView`]s: open tasks in the order in which they were added,
    /// then ended tasks, the newest first.
    Tasks {
        /// Only tasks of this job.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobName>,
        /// Only tasks in this state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<TaskState>,
        /// Only tasks of this module.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        module: Option<ModuleName>,
        /// The most rows of the page, up to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
        limit: usize,
        /// The `next` of the page before. Absent: the first page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Answered by `{"state":…,"why":"one sentence"}`.
    Why {
        /// The id of the task.
        id: TaskId,
    },
    /// Answered by a [`Log`].
    Logs {
        /// The id of the task.
        id: TaskId,
    },
    /// Answered by a map from ids to [`ResultRef`]s, without the tasks that are not done.
    Results {
        /// The ids of the tasks.
        ids: Vec<TaskId>,
    },
    /// Answered by a [`Page`] of `JobView`s, in the order of their names.
    Jobs {
        /// Only open jobs, or only those that are done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        open: Option<bool>,
        /// The `next` of the page before. Absent: the first page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Answered by a `JobView`.
    Job {
        /// The name of the job.
        job: JobName,
    },
    /// Answered by a [`Page`] of `ModuleView`s without versions, in the order of their names.
    Modules {
        /// The `next` of the page before. Absent: the first page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Answered by a `ModuleView` with its versions.
    Module {
        /// The name of the module.
        name: ModuleName,
    },
    /// Answered by a [`Page`] of `RunnerView`s, in the order of their names.
    Runners {
        /// The `next` of the page before. Absent: the first page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Answered by a [`Status`].
    Status,
    /// Answered by a [`Page`] of [`KeptAnswerView`](super::KeptAnswerView)s, in the order of their
    /// keys.
    KeptAnswers(KeptAnswersPageQuery),
    /// Answered by a [`KeptAnswerView`](super::KeptAnswerView).
    KeptAnswer {
        /// The beginning of its key. Refused where several answers have it.
        key: KeyPrefix,
    },
    /// Answered by a [`CacheReason`](super::CacheReason).
    CacheWhy {
        /// The id of the task.
        id: TaskId,
    },
    /// Answered by [`CacheStats`](super::CacheStats).
    CacheStats,
}

impl Query {
    /// All jobs, from the first page on.
    pub const JOBS: Query = Query::Jobs {
        open: None,
        after: None,
    };

    /// All modules, from the first page on.
    pub const MODULES: Query = Query::Modules { after: None };

    /// All runners, from the first page on.
    pub const RUNNERS: Query = Query::Runners { after: None };

    /// The question for the page that begins at `next`; for what does not come in pages, the same
    /// question again.
    pub fn at(mut self, next: Option<String>) -> Query {
        match &mut self {
            Query::Tasks { after, .. }
            | Query::Jobs { after, .. }
            | Query::Modules { after }
            | Query::Runners { after }
            | Query::KeptAnswers(KeptAnswersPageQuery { after, .. }) => *after = next,
            Query::Task { .. }
            | Query::Why { .. }
            | Query::Logs { .. }
            | Query::Results { .. }
            | Query::Job { .. }
            | Query::Module { .. }
            | Query::Status
            | Query::KeptAnswer { .. }
            | Query::CacheWhy { .. }
            | Query::CacheStats => {}
        }
        self
    }
}

/// One page of a list: at most [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX) rows and about
/// [`PAGE_BYTES_MAX`](crate::limits::PAGE_BYTES_MAX) bytes. It may be empty, and not the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// What is on this page.
    pub rows: Vec<T>,
    /// What to give as `after` for the next page; `null` on the last page.
    pub next: Option<String>,
}

/// The state of the master in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// How many times a master has started on this journal, from 1.
    pub epoch: u32,
    /// The number of the last durable event.
    pub seq: u64,
    /// When commits are written to the disk: `sync` or `interval:<ms>`.
    pub durability: String,
    /// Milliseconds since the master started.
    pub uptime_ms: u64,
    /// Tasks by state: open ones, and those that ended since the master started.
    pub tasks: BTreeMap<String, u64>,
    /// The number of open jobs.
    pub jobs: u64,
    /// The number of connected runners.
    pub runners: u64,
    /// The slots of all connected runners.
    pub slots: u64,
    /// What does not work and wants somebody to look at it. Empty while all is well.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
}

impl Status {
    /// What keeps the master from adding tasks, if anything.
    pub fn why_no_adds(&self) -> Option<&Trouble> {
        let refuses = |trouble: &&Trouble| match trouble.kind {
            TroubleKind::DamagedStore | TroubleKind::RefusedAdds => true,
            TroubleKind::TaskFolder | TroubleKind::SickRunners => false,
        };
        self.troubles.iter().find(refuses)
    }
}

/// Something that does not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trouble {
    /// What it is.
    pub kind: TroubleKind,
    /// The reason, in words.
    pub why: String,
}

/// The kinds of trouble that a master tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TroubleKind {
    /// The store on the disk is damaged, and no tasks are added.
    DamagedStore,
    /// No tasks are added now, for want of space on the disk or in memory.
    RefusedAdds,
    /// The task folder cannot be read.
    TaskFolder,
    /// Runners are there that can run no tasks.
    SickRunners,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = &self.why;
        match self.kind {
            TroubleKind::DamagedStore => {
                write!(f, "the store is damaged, and adds are refused: {why}")
            }
            TroubleKind::RefusedAdds => write!(f, "adds are refused: {why}"),
            TroubleKind::TaskFolder | TroubleKind::SickRunners => f.write_str(why),
        }
    }
}

/// From a client or a runner: a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// The client's own number, which the answer repeats.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// The question, in the fields beside `ref`.
    #[serde(flatten)]
    pub query: Query,
}

/// The answer to a question, or the news that a change is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The client's own number.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// What was asked for, or what the change did.
    pub data: Json,
}

/// The refusal of a message, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// The client's own number. Absent where the message had none or could not be read.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<u64>,
    /// Why the message was refused.
    pub error: Refusal,
}
