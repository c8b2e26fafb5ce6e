//! The answers to questions, typed until the gateway encodes them.

use serde::Serialize;
use std::collections::BTreeMap;
use taskmaster_protocol::TaskId;
use taskmaster_protocol::TaskState;
use taskmaster_protocol::message::{
    CacheReason, CacheStats, KeptAnswerView, Log, Page, ResultRef, Status,
};
use taskmaster_protocol::shape::{JobView, ModuleView, RunnerView, TaskView};

/// What a question is answered with. As JSON, each is its content alone.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum QueryAnswer {
    /// One task.
    Task(Box<TaskView>),
    /// Why a task is where it is.
    Why(TaskReason),
    /// What a task wrote to stderr.
    Log(Box<Log>),
    /// A page of tasks.
    Tasks(Page<TaskView>),
    /// Results by task. Tasks that have none are left out.
    Results(BTreeMap<TaskId, ResultRef>),
    /// One job.
    Job(Box<JobView>),
    /// A page of jobs.
    Jobs(Page<JobView>),
    /// One module.
    Module(Box<ModuleView>),
    /// A page of modules.
    Modules(Page<ModuleView>),
    /// A page of connected runners.
    Runners(Page<RunnerView>),
    /// The master in numbers.
    Status(Box<Status>),
    /// A page of kept answers.
    KeptAnswers(Page<KeptAnswerView>),
    /// One kept answer.
    KeptAnswer(Box<KeptAnswerView>),
    /// Why a task was a hit or a miss.
    CacheReason(Box<CacheReason>),
    /// What is kept, and what became of look-ups.
    CacheStats(CacheStats),
}

/// Why a task is where it is, in one sentence.
#[derive(Debug, Serialize)]
pub struct TaskReason {
    /// Where it is.
    pub state: TaskState,
    /// The sentence.
    pub why: String,
}
