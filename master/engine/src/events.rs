//! Events for watchers. Durable events have a seq, and are read from memory or from the journal. Live
//! events are not stored, and go to whoever watches at the time.

use crate::interests::{Interest, Interests};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use taskmaster_protocol::shape::TaskView;
use taskmaster_protocol::{EventKind, EventView, JobName, Json, ModuleName, TaskId, Wall};
use taskmaster_store::journal;
use taskmaster_store::kv::SharedStore;
use taskmaster_store::record::{self, Ended, JournalEntry, OutputBlobs, Record};
use tokio::sync::{broadcast, watch};

/// Durable events kept in memory. A watcher that lags by fewer events is served without a read from
/// the disk.
const RECENT_EVENTS_MAX: u64 = 32_768;

/// Commits that a follower looks through before it lets others go on.
const COMMITS_LOOKED_THROUGH: usize = 64;

/// Live events by which a watcher of all jobs may lag before it misses some.
const LIVE_EVENTS_MAX: usize = 4_096;

/// Live events by which a watcher of one job may lag before it misses some.
const LIVE_OF_JOB_MAX: usize = 256;

/// Durable events that one read returns at most.
const READ_EVENTS_MAX: usize = 1_000;

/// A durable event. Clones share the record.
#[derive(Debug, Clone)]
pub struct DurableEvent {
    /// The commit that has the event's record.
    entry: Arc<JournalEntry>,
    /// The place of the record in the commit.
    index: usize,
    seq: u64,
}

/// Some of the events asked for are no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventsPruned {
    /// The seq of the oldest event that is kept.
    pub first: u64,
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

/// The end of a task or of a job, as a record has it.
pub(crate) enum RecordedEnd<'a> {
    /// A task ended.
    Task(&'a Ended),
    /// A run of a job is done.
    Job {
        /// The job that is done.
        job: &'a JobName,
        /// Which of the job's runs this was, from 1 on.
        run: u32,
    },
}

impl<'a> RecordedEnd<'a> {
    pub(crate) fn of(record: &'a Record) -> Option<RecordedEnd<'a>> {
        match record {
            Record::Ended(ended) => Some(RecordedEnd::Task(ended)),
            Record::JobDone { job, run } => Some(RecordedEnd::Job { job, run: *run }),
            Record::Started { .. }
            | Record::Added(_)
            | Record::Retrying(_)
            | Record::Reopened { .. }
            | Record::Set { .. }
            | Record::JobOpened { .. }
            | Record::JobHeld { .. }
            | Record::JobPaused { .. }
            | Record::JobCancelled { .. }
            | Record::RunnerJoined { .. }
            | Record::RunnerLost { .. }
            | Record::Module { .. }
            | Record::Continued { .. }
            | Record::Rights { .. } => None,
        }
    }
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
            | Record::Rights { .. } => None,
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
            | Record::RunnerLost { .. } => None,
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
            | Record::Rights { .. } => None,
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
            | Record::Continued { .. } => Json::null(),
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
        stats: ended.end.stats,
        note: None,
    }
}

/// A commit in memory.
#[derive(Debug)]
struct Commit {
    entry: Arc<JournalEntry>,
    /// The seq of the last event of the commit.
    last: u64,
    /// What ends in the commit. The first follower that asks computes it, and thousands may ask.
    ends: OnceLock<CommitEnds>,
}

/// The jobs and tasks that end in a commit. With it a follower can skip a commit that does not
/// concern it.
#[derive(Debug, Default)]
pub struct CommitEnds {
    jobs: HashSet<JobName>,
    tasks: HashSet<TaskId>,
}

impl CommitEnds {
    fn of(entry: &JournalEntry) -> CommitEnds {
        let mut found = CommitEnds::default();
        for record in &entry.records {
            match RecordedEnd::of(record) {
                Some(RecordedEnd::Task(ended)) => {
                    found.tasks.insert(ended.id.clone());
                    if !found.jobs.contains(&ended.job) {
                        found.jobs.insert(ended.job.clone());
                    }
                }
                Some(RecordedEnd::Job { job, .. }) => {
                    found.jobs.insert(job.clone());
                }
                None => {}
            }
        }
        found
    }

    /// Whether one of these jobs ends, or a task of one of them.
    pub fn any_job<T>(&self, of: &HashMap<JobName, T>) -> bool {
        if of.len() < self.jobs.len() {
            of.keys().any(|job| self.jobs.contains(job))
        } else {
            self.jobs.iter().any(|job| of.contains_key(job))
        }
    }

    /// Whether one of these tasks ends.
    pub fn any_task(&self, of: &BTreeSet<TaskId>) -> bool {
        if of.len() < self.tasks.len() {
            of.iter().any(|task| self.tasks.contains(task))
        } else {
            self.tasks.iter().any(|task| of.contains(task))
        }
    }
}

/// The ends for which a follower waits.
pub trait EndInterest {
    /// Whether any end in a commit concerns the follower.
    fn any_of(&self, ended: &CommitEnds) -> bool;
}

impl EndInterest for BTreeSet<TaskId> {
    fn any_of(&self, ended: &CommitEnds) -> bool {
        ended.any_task(self)
    }
}

/// The ends that [`EventFeed::ends`] found.
#[derive(Debug)]
pub struct EndEvents {
    /// The ends in every commit that concerns the follower. Some of these ends may not concern it.
    pub events: Vec<DurableEvent>,
    /// The seq up to which everything was looked at.
    pub seq: u64,
}

/// The newest commits that have events, oldest first.
#[derive(Default)]
struct RecentCommits {
    /// The newest commits, with [`RECENT_EVENTS_MAX`] events or a few more.
    kept: VecDeque<Arc<Commit>>,
    /// The commits before these, which are in memory as long as they wait to be folded. Under a load
    /// that outruns its followers, followers would otherwise read and decode them from the disk, and
    /// lag still more.
    unfolded: VecDeque<UnfoldedCommit>,
}

/// A commit that is in memory until it is folded.
struct UnfoldedCommit {
    first_seq: u64,
    entry: Weak<JournalEntry>,
}

impl RecentCommits {
    fn push(&mut self, entry: &Arc<JournalEntry>, last: u64) {
        self.kept.push_back(Arc::new(Commit {
            entry: entry.clone(),
            last,
            ends: OnceLock::new(),
        }));
        // The oldest commit goes when the others have enough events without it.
        while self
            .kept
            .get(1)
            .is_some_and(|next| last - next.entry.first_seq >= RECENT_EVENTS_MAX)
        {
            if let Some(commit) = self.kept.pop_front() {
                self.unfolded.push_back(UnfoldedCommit {
                    first_seq: commit.entry.first_seq,
                    entry: Arc::downgrade(&commit.entry),
                });
            }
        }
        while self
            .unfolded
            .front()
            .is_some_and(|commit| commit.entry.strong_count() == 0)
        {
            self.unfolded.pop_front();
        }
    }

    /// The seq from which on all events are in memory for certain.
    fn first(&self) -> Option<u64> {
        self.kept.front().map(|commit| commit.entry.first_seq)
    }

    /// The commit that has the event `seq` and those after it, as many as are looked through at a
    /// time. Empty if that commit is not kept.
    fn commits_from(&self, seq: u64) -> Vec<Arc<Commit>> {
        if self.first().is_none_or(|first| first > seq) {
            return Vec::new();
        }
        let at = self.kept.partition_point(|commit| commit.last < seq);
        self.kept
            .iter()
            .skip(at)
            .take(COMMITS_LOOKED_THROUGH)
            .cloned()
            .collect()
    }

    /// The commit that has the event `seq` and those after it, enough for one read. `None` if one of
    /// them is not in memory.
    fn from(&self, seq: u64) -> Option<Vec<Arc<JournalEntry>>> {
        let first_unfolded = if self.first()? > seq {
            self.unfolded
                .partition_point(|commit| commit.first_seq <= seq)
                .checked_sub(1)?
        } else {
            self.unfolded.len()
        };
        let first_kept = self
            .kept
            .partition_point(|commit| commit.entry.first_seq <= seq)
            .saturating_sub(1);
        let unfolded = self
            .unfolded
            .iter()
            .skip(first_unfolded)
            .map(|commit| commit.entry.upgrade());
        let kept = self
            .kept
            .iter()
            .skip(first_kept)
            .map(|commit| Some(commit.entry.clone()));
        let mut found = Vec::new();
        let mut records = 0;
        for entry in unfolded.chain(kept) {
            let entry = entry?;
            records += entry.records.len();
            found.push(entry);
            if records > READ_EVENTS_MAX {
                break;
            }
        }
        Some(found)
    }
}

type LiveEvents = broadcast::Sender<Arc<EventView>>;

/// The events of a master: recent durable events in memory, older ones in the journal, and the
/// channels of live events. Clones share it.
#[derive(Clone)]
pub struct EventFeed {
    recent: Arc<Mutex<RecentCommits>>,
    /// The seq of the newest durable event.
    latest: watch::Sender<u64>,
    /// Carries the live events of all jobs.
    live: LiveEvents,
    /// Carries the live events of each job that somebody watches. Without these channels, each event
    /// of any job would go to a thousand watchers of one job each.
    live_by_job: Arc<Mutex<HashMap<JobName, LiveEvents>>>,
    /// Has the journal with older events.
    store: SharedStore,
    interests: Interests,
}

impl EventFeed {
    /// A new follower, who waits for nothing yet.
    pub fn interest(&self) -> Interest {
        self.interests.new_follower()
    }

    /// A feed whose newest durable event is `latest`. Older events are read from `store`.
    pub fn new(latest: u64, store: SharedStore) -> EventFeed {
        EventFeed {
            recent: Arc::default(),
            latest: watch::Sender::new(latest),
            live: broadcast::Sender::new(LIVE_EVENTS_MAX),
            live_by_job: Arc::default(),
            store,
            interests: Interests::default(),
        }
    }

    fn recent(&self) -> MutexGuard<'_, RecentCommits> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seq of the newest durable event.
    pub fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    /// Publishes the events of a commit, which is durable.
    pub fn publish(&self, entry: &Arc<JournalEntry>) {
        let events = record::events_of(&entry.records);
        if events == 0 {
            return;
        }
        let last = entry.first_seq + events - 1;
        self.recent().push(entry, last);
        self.interests.wake(entry, last);
        self.latest
            .send_if_modified(|latest| std::mem::replace(latest, last) != last);
    }

    /// Whether anybody watches live events. If not, the engine need not make any.
    pub fn is_watched(&self) -> bool {
        self.live.receiver_count() > 0 || !self.live_by_job().is_empty()
    }

    fn live_by_job(&self) -> MutexGuard<'_, HashMap<JobName, LiveEvents>> {
        self.live_by_job
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a live event to those who watch now.
    pub fn show(&self, event: EventView) {
        let event = Arc::new(event);
        if let Some(job) = &event.job {
            let mut channels = self.live_by_job();
            let is_unwatched = channels
                .get(job)
                .is_some_and(|channel| channel.send(event.clone()).is_err());
            if is_unwatched {
                channels.remove(job);
            }
        }
        let _ = self.live.send(event);
    }

    /// Live events of one job from now on.
    pub fn live_of(&self, job: &JobName) -> broadcast::Receiver<Arc<EventView>> {
        let mut channels = self.live_by_job();
        channels.retain(|_, channel| channel.receiver_count() > 0);
        channels
            .entry(job.clone())
            .or_insert_with(|| broadcast::Sender::new(LIVE_OF_JOB_MAX))
            .subscribe()
    }

    /// Live events of all jobs from now on.
    pub fn live(&self) -> broadcast::Receiver<Arc<EventView>> {
        self.live.subscribe()
    }

    /// Waits until there are durable events after `seq`, and returns the first of them in order: at
    /// least one, at most a thousand or so.
    pub async fn after(&self, seq: u64) -> Result<Vec<DurableEvent>, EventsPruned> {
        self.wait_for_event_after(seq).await;
        if let Some(events) = self.in_memory(seq) {
            return Ok(events);
        }
        let store = self.store.clone();
        let last = self.latest();
        #[expect(
            clippy::disallowed_methods,
            reason = "a watcher that lags far reads the journal, on a thread that may wait for it"
        )]
        let read = tokio::task::spawn_blocking(move || from_journal(&store, seq, last)).await;
        match read {
            Ok(Ok(result)) => result,
            failed => {
                tracing::error!(?failed, "events cannot be read from the journal");
                let first = self.recent().first().unwrap_or(seq + 1);
                Err(EventsPruned { first })
            }
        }
    }

    async fn wait_for_event_after(&self, seq: u64) {
        let mut latest = self.latest.subscribe();
        // An error means that the master stops. It also drops the futures that wait here.
        if latest.wait_for(|latest| *latest > seq).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until there are durable events after `seq`, and returns the ends among them that may
    /// concern `of`, and how far it has looked. A commit that does not concern the follower is
    /// skipped with one look, because there may be a thousand followers.
    pub async fn ends(&self, seq: u64, of: &impl EndInterest) -> Result<EndEvents, EventsPruned> {
        self.wait_for_event_after(seq).await;
        let commits = self.recent().commits_from(seq + 1);
        if commits.is_empty() {
            let events = self.after(seq).await?;
            return Ok(EndEvents {
                seq: events.last().map_or(seq, DurableEvent::seq),
                events,
            });
        }
        let mut found = EndEvents {
            events: Vec::new(),
            seq,
        };
        for commit in commits {
            if of.any_of(commit.ends.get_or_init(|| CommitEnds::of(&commit.entry))) {
                let left = READ_EVENTS_MAX - found.events.len();
                let ends =
                    durable_events(&commit.entry).filter(|event| event.seq > seq && event.is_end());
                found.events.extend(ends.take(left));
                if found.events.len() == READ_EVENTS_MAX {
                    found.seq = found.events.last().map_or(seq, DurableEvent::seq);
                    return Ok(found);
                }
            }
            found.seq = commit.last;
        }
        Ok(found)
    }

    /// Durable events after `seq`, at most a thousand or so, read on the caller's thread without
    /// waiting for any. For tests.
    pub fn read_after(&self, seq: u64) -> Result<Vec<DurableEvent>, EventsPruned> {
        let last = self.latest();
        if last <= seq {
            return Ok(Vec::new());
        }
        let read =
            || from_journal(&self.store, seq, last).unwrap_or(Err(EventsPruned { first: seq + 1 }));
        self.in_memory(seq).map_or_else(read, Ok)
    }

    /// Events after `seq`, as many as one read returns. `None` if memory does not have them.
    fn in_memory(&self, seq: u64) -> Option<Vec<DurableEvent>> {
        let entries = self.recent().from(seq + 1)?;
        Some(
            entries
                .iter()
                .flat_map(durable_events)
                .filter(|event| event.seq > seq)
                .take(READ_EVENTS_MAX)
                .collect(),
        )
    }
}

/// Events after `seq` up to `last` from the journal. The journal may have later commits, which are
/// written but not synced yet, so nobody may see their events.
fn from_journal(
    store: &SharedStore,
    seq: u64,
    last: u64,
) -> Result<Result<Vec<DurableEvent>, EventsPruned>, taskmaster_store::kv::StoreError> {
    let Some(first) = journal::first(store)? else {
        return Ok(Err(EventsPruned { first: seq + 1 }));
    };
    let start = journal::commit_at(store, seq + 1)?;
    let mut events: Vec<DurableEvent> = Vec::new();
    for commit in start.. {
        let Some(entry) = journal::entry(store, commit)? else {
            break;
        };
        if commit == first && entry.first_seq > seq + 1 {
            return Ok(Err(EventsPruned {
                first: entry.first_seq,
            }));
        }
        let entry = Arc::new(entry);
        events.extend(durable_events(&entry).filter(|event| event.seq > seq && event.seq <= last));
        let is_complete = events.last().is_some_and(|event| event.seq >= last);
        if events.len() >= READ_EVENTS_MAX || is_complete {
            break;
        }
    }
    Ok(if events.is_empty() {
        Err(EventsPruned { first: seq + 1 })
    } else {
        Ok(events)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_store::kv::memory::MemoryStore;

    fn entry(first_seq: u64, events: u64) -> Arc<JournalEntry> {
        let records = (0..events)
            .map(|n| Record::RunnerJoined {
                name: n.to_string(),
            })
            .collect();
        Arc::new(JournalEntry {
            first_seq,
            time: Wall(0),
            records,
        })
    }

    #[tokio::test]
    async fn what_waits_to_be_folded_is_read_in_memory_and_what_is_folded_is_not_kept() {
        // The journal behind it is empty: whatever is read comes from memory.
        let feed = EventFeed::new(0, Arc::new(MemoryStore::default()));
        let mut waiting: VecDeque<Arc<JournalEntry>> = VecDeque::new();
        for commit in 0..100 {
            waiting.push_back(entry(commit * 1_000 + 1, 1_000));
            feed.publish(&waiting[commit as usize]);
        }
        for seq in [0, 1, 999, 1_000, 49_999, 99_500] {
            let events = feed.after(seq).await.unwrap();
            assert_eq!(events.first().map(DurableEvent::seq), Some(seq + 1));
            let dense = events
                .windows(2)
                .all(|pair| pair[0].seq() + 1 == pair[1].seq());
            assert!(
                dense && events.len() as u64 == (100_000 - seq).min(READ_EVENTS_MAX as u64),
                "after {seq}"
            );
        }
        waiting.drain(..50);
        assert!(
            feed.after(10_000).await.is_err(),
            "it was folded, and memory holds it still"
        );
        assert!(feed.after(60_000).await.is_ok());
        feed.publish(&entry(100_001, 1));
        waiting.clear();
        assert!(
            feed.after(100_001 - RECENT_EVENTS_MAX).await.is_ok(),
            "the last events are always there"
        );
    }
}
