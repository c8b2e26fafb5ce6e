//! Events for those who watch: the durable ones by seq, from memory or from the journal; the live ones as they come.

use crate::journal;
use crate::record::{Ended, Entry, Record};
use crate::store::Reader;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use taskmaster_protocol::shape::TaskView;
use taskmaster_protocol::{EventKind, EventView, JobName, Json, ModuleName, TaskId, Wall};
use tokio::sync::{broadcast, watch};

/// Durable events kept in memory: a watcher that is no further behind costs no read from the disk.
const RING_EVENTS_MAX: usize = 32_768;

/// Live events that a watcher may be behind before it misses some.
const LIVE_EVENTS_MAX: usize = 4_096;

/// Events given to a watcher at a time.
const READ_EVENTS_MAX: usize = 1_000;

/// A durable event. Clones share the record.
#[derive(Debug, Clone)]
pub struct Logged {
    entry: Arc<Entry>,
    index: usize,
    seq: u64,
}

/// Durable events below `first` are no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// The first seq that is kept.
    pub first: u64,
}

/// The durable events of one commit.
pub fn logged(entry: &Arc<Entry>) -> impl Iterator<Item = Logged> + '_ {
    let told = entry.records.iter().enumerate().filter(|(_, record)| record.event().is_some());
    told.zip(entry.first_seq..).map(|((index, _), seq)| Logged { entry: entry.clone(), index, seq })
}

impl Logged {
    fn record(&self) -> &Record {
        &self.entry.records[self.index]
    }

    /// Its number.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What happened.
    pub fn kind(&self) -> EventKind {
        // Only records that have a kind become events.
        self.record().event().unwrap_or(EventKind::TaskAdded)
    }

    /// The job it is about.
    pub fn job(&self) -> Option<&JobName> {
        match self.record() {
            Record::Added(body) | Record::Reopened { body, .. } => Some(&body.job),
            Record::Ended(ended) => Some(&ended.job),
            Record::Retrying(retrying) => Some(&retrying.job),
            Record::JobOpened { job, .. } | Record::JobDone { job, .. } => Some(job),
            _ => None,
        }
    }

    /// The task it is about.
    pub fn task(&self) -> Option<&TaskId> {
        match self.record() {
            Record::Added(body) | Record::Reopened { body, .. } => Some(&body.id),
            Record::Ended(ended) => Some(&ended.id),
            Record::Retrying(retrying) => Some(&retrying.id),
            _ => None,
        }
    }

    fn module(&self) -> Option<&ModuleName> {
        match self.record() {
            Record::Added(body) | Record::Reopened { body, .. } => Some(&body.module),
            Record::Ended(ended) => Some(&ended.module),
            Record::Retrying(retrying) => Some(&retrying.module),
            Record::Module { name, .. } => Some(name),
            _ => None,
        }
    }

    fn runner(&self) -> Option<String> {
        match self.record() {
            Record::Ended(ended) => ended.runner.as_deref().map(str::to_owned),
            Record::Retrying(retrying) => retrying.runner.as_deref().map(str::to_owned),
            Record::RunnerJoined { name } | Record::RunnerLost { name } => Some(name.clone()),
            _ => None,
        }
    }

    fn data(&self) -> Json {
        match self.record() {
            Record::Added(body) => Json::of(&serde_json::json!({ "priority": body.priority })),
            Record::Ended(ended) => Json::of(&EndedData::of(ended)),
            Record::Retrying(retrying) => Json::of(&serde_json::json!({
                "attempt": retrying.attempt.n, "tries": retrying.tries, "not_before": retrying.due, "error": retrying.error,
            })),
            Record::JobOpened { run, .. } | Record::JobDone { run, .. } => Json::of(&serde_json::json!({ "run": run })),
            Record::Module { record, .. } => {
                Json::of(&serde_json::json!({ "version": record.current, "error": record.error }))
            }
            _ => Json::null(),
        }
    }

    /// As watchers see it.
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

    /// The task that ended by it.
    pub fn finished(&self) -> Option<TaskView> {
        match self.record() {
            Record::Ended(ended) => Some(ended_view(ended)),
            _ => None,
        }
    }

    /// The run of the job that became done by it.
    pub fn job_run(&self) -> Option<u32> {
        match self.record() {
            Record::JobDone { run, .. } => Some(*run),
            _ => None,
        }
    }
}

/// What an event says of a task that ended.
#[derive(serde::Serialize)]
struct EndedData<'a> {
    attempt: u32,
    version: Option<taskmaster_protocol::Hash>,
    started: Option<Wall>,
    result: Option<&'a Json>,
    result_blob: Option<taskmaster_protocol::Hash>,
    error: Option<&'a taskmaster_protocol::TaskError>,
    stats: Option<taskmaster_protocol::TaskStats>,
}

impl<'a> EndedData<'a> {
    fn of(ended: &'a Ended) -> EndedData<'a> {
        let (result, result_blob) = ended.result_parts();
        EndedData {
            attempt: ended.attempt.n,
            version: ended.version,
            started: ended.started,
            result,
            result_blob,
            error: ended.error.as_ref(),
            stats: ended.stats,
        }
    }
}

/// An ended task as scripts see it.
pub fn ended_view(ended: &Ended) -> TaskView {
    let (result, result_blob) = ended.result_parts();
    TaskView {
        id: ended.id.clone(),
        module: ended.module.clone(),
        version: ended.version,
        state: ended.state,
        job: ended.job.clone(),
        priority: ended.priority,
        attempt: ended.attempt.n,
        runner: ended.runner.as_deref().map(str::to_owned),
        created: ended.created,
        started: ended.started,
        finished: Some(ended.finished),
        result: result.cloned(),
        result_blob,
        error: ended.error.clone(),
        outputs: Default::default(),
        stats: ended.stats,
    }
}

/// Recent durable events, the number of the last one, and the channel of live ones.
#[derive(Clone)]
pub struct EventFeed {
    ring: Arc<Mutex<VecDeque<Logged>>>,
    latest: watch::Sender<u64>,
    live: broadcast::Sender<Arc<EventView>>,
    reader: Reader,
}

impl EventFeed {
    /// A feed whose last durable event is `latest`.
    pub fn new(latest: u64, reader: Reader) -> EventFeed {
        EventFeed {
            ring: Arc::default(),
            latest: watch::Sender::new(latest),
            live: broadcast::Sender::new(LIVE_EVENTS_MAX),
            reader,
        }
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Logged>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seq of the last durable event.
    pub fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    /// A commit is durable: its events may be seen.
    pub fn publish(&self, entry: &Arc<Entry>) {
        let mut ring = self.ring();
        ring.extend(logged(entry));
        let surplus = ring.len().saturating_sub(RING_EVENTS_MAX);
        ring.drain(..surplus);
        let last = ring.back().map(Logged::seq);
        drop(ring);
        if let Some(last) = last {
            self.latest.send_if_modified(|latest| std::mem::replace(latest, last) != last);
        }
    }

    /// Whether anybody watches live events: if not, none need be made.
    pub fn is_watched(&self) -> bool {
        self.live.receiver_count() > 0
    }

    /// Something happened that is not durable.
    pub fn show(&self, event: EventView) {
        let _ = self.live.send(Arc::new(event));
    }

    /// Live events from now on.
    pub fn live(&self) -> broadcast::Receiver<Arc<EventView>> {
        self.live.subscribe()
    }

    /// Durable events after `seq`, in order, at least one and at most a thousand or so; waits for the first.
    pub async fn after(&self, seq: u64) -> Result<Vec<Logged>, Pruned> {
        let mut latest = self.latest.subscribe();
        // An error means that the master is stopping; whoever waits is dropped with it.
        if latest.wait_for(|latest| *latest > seq).await.is_err() {
            std::future::pending::<()>().await;
        }
        if let Some(events) = self.recent(seq) {
            return Ok(events);
        }
        let reader = self.reader.clone();
        let read = tokio::task::spawn_blocking(move || from_journal(&reader, seq)).await;
        match read {
            Ok(Ok(result)) => result,
            failed => {
                tracing::error!(?failed, "events cannot be read from the journal");
                let first = self.ring().front().map_or(seq + 1, Logged::seq);
                Err(Pruned { first })
            }
        }
    }

    /// Events after `seq` from memory; `None`: they go back further than that.
    fn recent(&self, seq: u64) -> Option<Vec<Logged>> {
        let ring = self.ring();
        let first = ring.front()?.seq;
        if first > seq + 1 {
            return None;
        }
        let skip = usize::try_from(seq + 1 - first).unwrap_or(usize::MAX);
        Some(ring.iter().skip(skip).take(READ_EVENTS_MAX).cloned().collect())
    }
}

/// Events after `seq` from the journal.
fn from_journal(reader: &Reader, seq: u64) -> Result<Result<Vec<Logged>, Pruned>, crate::store::StoreError> {
    let Some(first) = journal::first(reader)? else { return Ok(Err(Pruned { first: seq + 1 })) };
    let low = journal::commit_at(reader, seq + 1)?;
    let mut events = Vec::new();
    for commit in low.. {
        let Some(entry) = journal::entry(reader, commit)? else { break };
        if commit == first && entry.first_seq > seq + 1 {
            return Ok(Err(Pruned { first: entry.first_seq }));
        }
        events.extend(logged(&Arc::new(entry)).filter(|event| event.seq > seq));
        if events.len() >= READ_EVENTS_MAX {
            break;
        }
    }
    Ok(if events.is_empty() { Err(Pruned { first: seq + 1 }) } else { Ok(events) })
}
