//! Durable events, as the records of the journal tell them.

use crate::recorded_end::RecordedEnd;
use std::sync::Arc;
use taskmaster_protocol::shape::{AnswerSource, TaskView};
use taskmaster_protocol::{EventKind, EventView, JobName, Json, ModuleName, TaskId, Wall};
use taskmaster_store::record::{Ended, JournalEntry, OutputBlobs, Record};

/// A durable event. Clones share the record.
#[derive(Debug, Clone)]
pub struct DurableEvent {
    /// The commit that has the event's record.
    entry: Arc<JournalEntry>,
    /// The place of the record in the commit.
    index: usize,
    seq: u64,
}

/// The durable events of one commit.
pub fn durable_events(entry: &Arc<JournalEntry>) -> impl Iterator<Item = DurableEvent> + '_ {
    let with_event = entry
        .records
        .iter()
        .enumerate()
        .filter(|(_, record)| record.event().is_some());
    with_event
        .zip(entry.first_seq..)
        .map(|((index, _), seq)| DurableEvent {
            entry: entry.clone(),
            index,
            seq,
        })
}

impl DurableEvent {
    fn record(&self) -> &Record {
        &self.entry.records[self.index]
    }

    /// The number of the event in the order of all durable events.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What happened.
    pub fn kind(&self) -> EventKind {
        // Only records that have a kind become events.
        self.record().event().unwrap_or(EventKind::TaskAdded)
    }

    /// Whether the event is the end of a task or of a job.
    pub fn is_end(&self) -> bool {
        RecordedEnd::of(self.record()).is_some()
    }

    /// The job that the event is about.
    pub fn job(&self) -> Option<&JobName> {
        self.record().job()
    }

    /// The task that the event is about.
    pub fn task(&self) -> Option<&TaskId> {
        match self.record() {
            Record::Added(body)
            | Record::Reopened { body, .. }
            | Record::Continued { body, .. } => Some(&body.id),
            Record::Ended(ended) => Some(&ended.id),
            Record::Retrying(retrying) => Some(&retrying.id),
            Record::Started { .. }
            | Record::Set { .. }
            | Record::JobOpened { .. }
            | Record::JobDone { .. }
            | Record::JobHeld { .. }
            | Record::JobPaused { .. }
            | Record::JobCancelled { .. }
            | Record::RunnerJoined { .. }
            | Record::RunnerLost { .. }
            | Record::Module { .. }
            | Record::Rights { .. }
            | Record::AnswersDropped { .. } => None,
        }
    }

    fn module(&self) -> Option<&ModuleName> {
        match self.record() {
            Record::Added(body)
            | Record::Reopened { body, .. }
            | Record::Continued { body, .. } => Some(&body.module),
            Record::Ended(ended) => Some(&ended.module),
            Record::Retrying(retrying) => Some(&retrying.module),
            Record::Module { name, .. } | Record::Rights { name, .. } => Some(name),
            Record::Started { .. }
            | Record::Set { .. }
            | Record::JobOpened { .. }
            | Record::JobDone { .. }
            | Record::JobHeld { .. }
            | Record::JobPaused { .. }
            | Record::JobCancelled { .. }
            | Record::RunnerJoined { .. }
            | Record::RunnerLost { .. }
            | Record::AnswersDropped { .. } => None,
        }
    }

    fn runner(&self) -> Option<String> {
        match self.record() {
            Record::Ended(ended) => ended.end.runner.as_deref().map(str::to_owned),
            Record::Retrying(retrying) => retrying.runner.as_deref().map(str::to_owned),
            Record::RunnerJoined { name } | Record::RunnerLost { name } => Some(name.clone()),
            Record::Started { .. }
            | Record::Added(_)
            | Record::Reopened { .. }
            | Record::Set { .. }
            | Record::JobOpened { .. }
            | Record::JobDone { .. }
            | Record::JobHeld { .. }
            | Record::JobPaused { .. }
            | Record::JobCancelled { .. }
            | Record::Module { .. }
            | Record::Continued { .. }
            | Record::Rights { .. }
            | Record::AnswersDropped { .. } => None,
        }
    }

    fn data(&self) -> Json {
        match self.record() {
            Record::Added(body) => Json::of(&serde_json::json!({ "priority": body.priority })),
            Record::Ended(ended) => Json::of(&EndedData::of(ended)),
            Record::Retrying(retrying) => Json::of(&serde_json::json!({
                "attempt": retrying.attempt.n,
                "tries": retrying.tries,
                "not_before": retrying.due,
                "error": retrying.error,
            })),
            Record::JobOpened { run, .. } | Record::JobDone { run, .. } => {
                Json::of(&serde_json::json!({ "run": run }))
            }
            Record::Module { record, .. } => {
                Json::of(&serde_json::json!({ "version": record.current, "error": record.error }))
            }
            Record::Rights {
                rights: Some(rights),
                ..
            } => match rights.waiting() {
                Some(waiting) => Json::of(&serde_json::json!({
                    "version": waiting.version,
                    "asks": waiting.wants,
                    "more": waiting.wants.beyond(&rights.approved),
                })),
                None => Json::null(),
            },
            Record::Rights { rights: None, .. }
            | Record::Started { .. }
            | Record::Reopened { .. }
            | Record::Set { .. }
            | Record::JobHeld { .. }
            | Record::JobPaused { .. }
            | Record::JobCancelled { .. }
            | Record::RunnerJoined { .. }
            | Record::RunnerLost { .. }
            | Record::Continued { .. }
            | Record::AnswersDropped { .. } => Json::null(),
        }
    }

    /// The event as watchers see it.
    pub fn view(&self) -> EventView {
        EventView {
            seq: Some(self.seq),
            time: self.entry.time,
            event: self.kind(),
            task: self.task().cloned(),
            module: self.module().cloned(),
            job: self.job().cloned(),
            runner: self.runner(),
            data: self.data(),
        }
    }

    /// The ended task, if the event is the end of a task.
    pub fn finished(&self) -> Option<TaskView> {
        match RecordedEnd::of(self.record())? {
            RecordedEnd::Task(ended) => Some(ended_view(ended)),
            RecordedEnd::Job { .. } => None,
        }
    }

    /// Which run of its job is done, if the event is the end of a job.
    pub fn job_run(&self) -> Option<u32> {
        match RecordedEnd::of(self.record())? {
            RecordedEnd::Job { run, .. } => Some(run),
            RecordedEnd::Task(_) => None,
        }
    }
}

/// The data of the event that tells about the end of a task.
#[derive(serde::Serialize)]
struct EndedData<'a> {
    attempt: u32,
    version: Option<taskmaster_protocol::Hash>,
    started: Option<Wall>,
    result: Option<&'a Json>,
    result_blob: Option<taskmaster_protocol::Hash>,
    error: Option<&'a taskmaster_protocol::TaskError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<&'a OutputBlobs>,
    stats: Option<taskmaster_protocol::TaskStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached: Option<&'a AnswerSource>,
}

impl<'a> EndedData<'a> {
    fn of(ended: &'a Ended) -> EndedData<'a> {
        let (result, result_blob) = ended.end.result_parts();
        EndedData {
            attempt: ended.end.attempt.n,
            version: ended.end.version,
            started: ended.end.started,
            result,
            result_blob,
            error: ended.end.error.as_ref(),
            outputs: ended.end.outputs(),
            stats: ended.end.stats,
            cached: ended.end.cached(),
        }
    }
}

/// An ended task as scripts see it.
pub fn ended_view(ended: &Ended) -> TaskView {
    let (result, result_blob) = ended.end.result_parts();
    TaskView {
        id: ended.id.clone(),
        module: ended.module.clone(),
        version: ended.end.version,
        state: ended.end.state,
        job: ended.job.clone(),
        priority: ended.end.priority,
        attempt: ended.end.attempt.n,
        runner: ended.end.runner.as_deref().map(str::to_owned),
        created: ended.created,
        started: ended.end.started,
        finished: Some(ended.end.finished),
        result: result.cloned(),
        result_blob,
        error: ended.end.error.clone(),
        outputs: ended.end.outputs().cloned().unwrap_or_default(),
        cached: ended.end.cached().cloned(),
        stats: ended.end.stats,
        note: None,
        partial: None,
    }
}
