//! Events for those who watch: the durable ones by seq, from memory or from the journal; the live
//! ones as they come.

use crate::interests::{Interest, Interests};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use taskmaster_protocol::shape::TaskView;
use taskmaster_protocol::{EventKind, EventView, JobName, Json, ModuleName, TaskId, Wall};
use taskmaster_store::journal;
use taskmaster_store::kv::Reader;
use taskmaster_store::record::{self, Entry, Outputs, Record};
use tokio::sync::{broadcast, watch};

/// Durable events kept in memory for watchers: who is no further behind costs no read from the
/// disk.
const RECENT_EVENTS_MAX: u64 = 32_768;

/// Commits that a follower looks through before it lets others go on.
const COMMITS_LOOKED_THROUGH: usize = 64;

/// Live events that a watcher may be behind before it misses some.
const LIVE_EVENTS_MAX: usize = 4_096;

/// The same of who watches one job.
const LIVE_OF_JOB_MAX: usize = 256;

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
    let told = entry
        .records
        .iter()
        .enumerate()
        .filter(|(_, record)| record.event().is_some());
    told.zip(entry.first_seq..).map(|((index, _), seq)| Logged {
        entry: entry.clone(),
        index,
        seq,
    })
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

    /// Whether a task ended by it, or a job.
    pub fn is_end(&self) -> bool {
        matches!(self.record(), Record::Ended(_) | Record::JobDone { .. })
    }

    /// The job it is about.
    pub fn job(&self) -> Option<&JobName> {
        self.record().job()
    }

    /// The task it is about.
    pub fn task(&self) -> Option<&TaskId> {
        match self.record() {
            Record::Added(body)
            | Record::Reopened { body, .. }
            | Record::Continued { body, .. } => Some(&body.id),
            Record::Ended(ended) => Some(&ended.id),
            Record::Retrying(retrying) => Some(&retrying.id),
            _ => None,
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
            _ => None,
        }
    }

    fn runner(&self) -> Option<String> {
        match self.record() {
            Record::Ended(ended) => ended.end.runner.as_deref().map(str::to_owned),
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
                    "version": waiting.version, "asks": waiting.wants, "more": waiting.wants.beyond(&rights.approved),
                })),
                None => Json::null(),
            },
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
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<&'a Outputs>,
    stats: Option<taskmaster_protocol::TaskStats>,
}

impl<'a> EndedData<'a> {
    fn of(ended: &'a record::Ended) -> EndedData<'a> {
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
pub fn ended_view(ended: &record::Ended) -> TaskView {
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
    entry: Arc<Entry>,
    /// The seq of its last event.
    last: u64,
    /// Made by the first follower who asks; thousands may.
    ended: OnceLock<EndsOf>,
}

/// What ends in a commit: a follower passes over a commit that has nothing of its own with one
/// look.
#[derive(Debug, Default)]
pub struct EndsOf {
    jobs: HashSet<JobName>,
    tasks: HashSet<TaskId>,
}

impl EndsOf {
    fn of(entry: &Entry) -> EndsOf {
        let mut found = EndsOf::default();
        for record in &entry.records {
            match record {
                Record::Ended(ended) => {
                    found.tasks.insert(ended.id.clone());
                    if !found.jobs.contains(&ended.job) {
                        found.jobs.insert(ended.job.clone());
                    }
                }
                Record::JobDone { job, .. } => drop(found.jobs.insert(job.clone())),
                _ => {}
            }
        }
        found
    }

    /// Whether a task of one of these jobs ends, or one of them.
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

/// Somebody whom some ends concern.
pub trait Concern {
    /// Whether anything in this commit does.
    fn any_of(&self, ended: &EndsOf) -> bool;
}

impl Concern for BTreeSet<TaskId> {
    fn any_of(&self, ended: &EndsOf) -> bool {
        ended.any_task(self)
    }
}

/// What [`EventFeed::ends`] found.
#[derive(Debug)]
pub struct Ends {
    /// Events of commits in which something concerns whoever asked; those that do not are his to
    /// leave out.
    pub events: Vec<Logged>,
    /// Up to here everything was looked at.
    pub seq: u64,
}

/// The last commits that have events, by the seq of their first ones.
#[derive(Default)]
struct Recent {
    /// As far back as [`RECENT_EVENTS_MAX`] reaches.
    kept: VecDeque<Arc<Commit>>,
    /// Those before, as long as they are in memory anyway because they wait to be folded: under a
    /// load that outruns its followers these would otherwise be read and decoded again from the
    /// disk, and fall behind still more.
    lent: VecDeque<(u64, Weak<Entry>)>,
}

impl Recent {
    fn push(&mut self, entry: &Arc<Entry>, last: u64) {
        self.kept.push_back(Arc::new(Commit {
            entry: entry.clone(),
            last,
            ended: OnceLock::new(),
        }));
        // The front goes when what is left behind it is enough.
        while self
            .kept
            .get(1)
            .is_some_and(|next| last - next.entry.first_seq >= RECENT_EVENTS_MAX)
        {
            if let Some(commit) = self.kept.pop_front() {
                self.lent
                    .push_back((commit.entry.first_seq, Arc::downgrade(&commit.entry)));
            }
        }
        while self
            .lent
            .front()
            .is_some_and(|(_, entry)| entry.strong_count() == 0)
        {
            self.lent.pop_front();
        }
    }

    /// The first seq that is in memory for certain.
    fn first(&self) -> Option<u64> {
        self.kept.front().map(|commit| commit.entry.first_seq)
    }

    /// Commits from the one that has the event `seq` on, as many as are looked through at a time;
    /// none: it is not kept.
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

    /// Commits from the one that has the event `seq` on, enough for one read; `None`: it is not in
    /// memory.
    fn from(&self, seq: u64) -> Option<Vec<Arc<Entry>>> {
        let lent = if self.first()? > seq {
            self.lent
                .partition_point(|(first, _)| *first <= seq)
                .checked_sub(1)?
        } else {
            self.lent.len()
        };
        let kept = self
            .kept
            .partition_point(|commit| commit.entry.first_seq <= seq)
            .saturating_sub(1);
        let lent = self
            .lent
            .iter()
            .skip(lent)
            .map(|(_, entry)| entry.upgrade());
        let kept = self
            .kept
            .iter()
            .skip(kept)
            .map(|commit| Some(commit.entry.clone()));
        let (mut found, mut records) = (Vec::new(), 0);
        for entry in lent.chain(kept) {
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

/// Recent durable events, the number of the last one, and the channel of live ones.
#[derive(Clone)]
pub struct EventFeed {
    recent: Arc<Mutex<Recent>>,
    latest: watch::Sender<u64>,
    live: broadcast::Sender<Arc<EventView>>,
    /// The same for those who watch one job: with a thousand of them each event would else go to
    /// all.
    live_in: Arc<Mutex<HashMap<JobName, broadcast::Sender<Arc<EventView>>>>>,
    reader: Reader,
    /// Who waits for ends.
    interests: Interests,
}

impl EventFeed {
    /// The interests of a new follower: see [`EventFeed::ends`].
    pub fn interest(&self) -> Interest {
        self.interests.none()
    }

    /// A feed whose last durable event is `latest`.
    pub fn new(latest: u64, reader: Reader) -> EventFeed {
        EventFeed {
            recent: Arc::default(),
            latest: watch::Sender::new(latest),
            live: broadcast::Sender::new(LIVE_EVENTS_MAX),
            live_in: Arc::default(),
            reader,
            interests: Interests::default(),
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seq of the last durable event.
    pub fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    /// A commit is durable: its events may be seen.
    pub fn publish(&self, entry: &Arc<Entry>) {
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

    /// Whether anybody watches live events: if not, none need be made.
    pub fn is_watched(&self) -> bool {
        self.live.receiver_count() > 0 || !self.live_in().is_empty()
    }

    fn live_in(&self) -> MutexGuard<'_, HashMap<JobName, broadcast::Sender<Arc<EventView>>>> {
        self.live_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened that is not durable.
    pub fn show(&self, event: EventView) {
        let event = Arc::new(event);
        if let Some(job) = &event.job {
            let mut of_jobs = self.live_in();
            // Nobody watches it any more.
            if of_jobs
                .get(job)
                .is_some_and(|channel| channel.send(event.clone()).is_err())
            {
                of_jobs.remove(job);
            }
        }
        let _ = self.live.send(event);
    }

    /// Live events of one job from now on.
    pub fn live_of(&self, job: &JobName) -> broadcast::Receiver<Arc<EventView>> {
        let mut of_jobs = self.live_in();
        of_jobs.retain(|_, channel| channel.receiver_count() > 0);
        of_jobs
            .entry(job.clone())
            .or_insert_with(|| broadcast::Sender::new(LIVE_OF_JOB_MAX))
            .subscribe()
    }

    /// Live events from now on.
    pub fn live(&self) -> broadcast::Receiver<Arc<EventView>> {
        self.live.subscribe()
    }

    /// Durable events after `seq`, in order, at least one and at most a thousand or so; waits for
    /// the first.
    pub async fn after(&self, seq: u64) -> Result<Vec<Logged>, Pruned> {
        let mut latest = self.latest.subscribe();
        // An error means that the master is stopping; whoever waits is dropped with it.
        if latest.wait_for(|latest| *latest > seq).await.is_err() {
            std::future::pending::<()>().await;
        }
        if let Some(events) = self.in_memory(seq) {
            return Ok(events);
        }
        let (reader, last) = (self.reader.clone(), self.latest());
        let read = tokio::task::spawn_blocking(move || from_journal(&reader, seq, last)).await;
        match read {
            Ok(Ok(result)) => result,
            failed => {
                tracing::error!(?failed, "events cannot be read from the journal");
                let first = self.recent().first().unwrap_or(seq + 1);
                Err(Pruned { first })
            }
        }
    }

    /// What ends after `seq` and concerns `of`; waits until there are events, and then says how far
    /// it has looked. For a thousand followers of a job each: a commit without anything of a job
    /// costs its follower one look.
    pub async fn ends(&self, seq: u64, of: &impl Concern) -> Result<Ends, Pruned> {
        let mut latest = self.latest.subscribe();
        if latest.wait_for(|latest| *latest > seq).await.is_err() {
            std::future::pending::<()>().await;
        }
        let commits = self.recent().commits_from(seq + 1);
        if commits.is_empty() {
            let events = self.after(seq).await?;
            return Ok(Ends {
                seq: events.last().map_or(seq, Logged::seq),
                events,
            });
        }
        let mut found = Ends {
            events: Vec::new(),
            seq,
        };
        for commit in commits {
            if of.any_of(commit.ended.get_or_init(|| EndsOf::of(&commit.entry))) {
                let room = READ_EVENTS_MAX - found.events.len();
                let more = logged(&commit.entry).filter(|event| event.seq > seq && event.is_end());
                found.events.extend(more.take(room));
                if found.events.len() == READ_EVENTS_MAX {
                    found.seq = found.events.last().map_or(seq, Logged::seq);
                    return Ok(found);
                }
            }
            found.seq = commit.last;
        }
        Ok(found)
    }

    /// The same without waiting, from the caller's own thread; none: there are none yet. For tests.
    pub fn read_after(&self, seq: u64) -> Result<Vec<Logged>, Pruned> {
        let last = self.latest();
        if last <= seq {
            return Ok(Vec::new());
        }
        let read =
            || from_journal(&self.reader, seq, last).unwrap_or(Err(Pruned { first: seq + 1 }));
        self.in_memory(seq).map_or_else(read, Ok)
    }

    /// Events after `seq` from memory, no more than are given at a time; `None`: they go back
    /// further than that.
    fn in_memory(&self, seq: u64) -> Option<Vec<Logged>> {
        let entries = self.recent().from(seq + 1)?;
        Some(
            entries
                .iter()
                .flat_map(logged)
                .filter(|event| event.seq > seq)
                .take(READ_EVENTS_MAX)
                .collect(),
        )
    }
}

/// Events after `seq` up to `last` from the journal. Behind them may be commits that are written
/// and not safe yet: nobody is told of those.
fn from_journal(
    reader: &Reader,
    seq: u64,
    last: u64,
) -> Result<Result<Vec<Logged>, Pruned>, taskmaster_store::kv::StoreError> {
    let Some(first) = journal::first(reader)? else {
        return Ok(Err(Pruned { first: seq + 1 }));
    };
    let low = journal::commit_at(reader, seq + 1)?;
    let mut events = Vec::new();
    for commit in low.. {
        let Some(entry) = journal::entry(reader, commit)? else {
            break;
        };
        if commit == first && entry.first_seq > seq + 1 {
            return Ok(Err(Pruned {
                first: entry.first_seq,
            }));
        }
        events
            .extend(logged(&Arc::new(entry)).filter(|event| event.seq > seq && event.seq <= last));
        if events.len() >= READ_EVENTS_MAX
            || events
                .last()
                .is_some_and(|event: &Logged| event.seq >= last)
        {
            break;
        }
    }
    Ok(if events.is_empty() {
        Err(Pruned { first: seq + 1 })
    } else {
        Ok(events)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_store::kv::memory::MemoryShelf;

    fn entry(first_seq: u64, events: u64) -> Arc<Entry> {
        let records = (0..events)
            .map(|n| Record::RunnerJoined {
                name: n.to_string(),
            })
            .collect();
        Arc::new(Entry {
            first_seq,
            time: Wall(0),
            records,
        })
    }

    #[tokio::test]
    async fn what_waits_to_be_folded_is_read_in_memory_and_what_is_folded_is_not_kept() {
        // The journal behind it is empty: whatever is read comes from memory.
        let feed = EventFeed::new(0, Arc::new(MemoryShelf::default()));
        let mut waiting: VecDeque<Arc<Entry>> = VecDeque::new();
        for commit in 0..100 {
            waiting.push_back(entry(commit * 1_000 + 1, 1_000));
            feed.publish(&waiting[commit as usize]);
        }
        for seq in [0, 1, 999, 1_000, 49_999, 99_500] {
            let events = feed.after(seq).await.unwrap();
            assert_eq!(events.first().map(Logged::seq), Some(seq + 1));
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
