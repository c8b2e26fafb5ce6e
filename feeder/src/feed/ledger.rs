//! What a feed has sent, what was answered, what is held, what has not ended: the part of a feed
//! without IO.
//!
//! A line is in one place at a time: queued, in a batch that is not answered, held until its
//! dependencies come, deferred until the master takes tasks again, or answered for good. After a
//! reconnect the batches are sent again with the numbers that they had, so no task is added twice.

use super::held_lines::{HeldLines, MissingId};
use super::line::{FeedLine, IdHasher, LineIdHash};
use crate::exit::EndCounts;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use taskmaster_protocol::message::{Added, Rejected, Rejection, Welcome};
use taskmaster_protocol::{JobName, Refusal, RefusalCode, TaskId, TaskState, limits};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Tasks of one batch: a quarter of what a master takes, so that no batch delays others by more
/// than some 3 ms.
const BATCH_TASKS: usize = 1_024;

/// Bytes at which a batch is full. A single document may be larger.
const BATCH_BYTES: usize = 1 << 20;

/// Jobs that are kept by name for the summary; the last of them only says that there are others.
const JOBS_NAMED_MAX: usize = 6;

/// Keeps the books of one feed.
pub(super) struct Ledger {
    /// The job of the lines that name none.
    job: JobName,
    hasher: IdHasher,
    batch_tasks: usize,
    queue: VecDeque<FeedLine>,
    /// Batches without an answer, in the order in which they were sent.
    in_flight: VecDeque<SentBatch>,
    held: HeldLines,
    /// Ids that authors gave and that were sent and not refused, with the number of the batch in
    /// which the master took them; `None` while that is not answered.
    sent: HashMap<LineIdHash, Option<NonZeroU64>>,
    /// Ids of tasks that have not ended. `None` where nobody waits for them.
    open: Option<HashSet<LineIdHash>>,
    /// Lines that the master refused only for now.
    deferred: Vec<FeedLine>,
    /// Why, in the master's words, until it is told.
    unavailable: Option<String>,
    /// Batches that were ever sent; the number of the last one.
    batches: u64,
    /// Lines that were added.
    pub(super) added: u64,
    /// Lines whose tasks were there already.
    pub(super) known: u64,
    /// Some of the jobs to which lines were added.
    jobs: BTreeSet<JobName>,
    /// Lines that were refused, here or by the master.
    pub(super) refused: u64,
    /// How tasks ended, where somebody waits for them.
    pub(super) ends: EndCounts,
}

/// A batch without an answer.
struct SentBatch {
    number: u64,
    /// The whole message, to be sent again.
    message: Utf8Bytes,
    lines: Vec<SentLine>,
    /// Whether it was sent again. Then its tasks may be there because of the first time.
    is_resent: bool,
}

/// A line in a batch.
struct SentLine {
    number: u64,
    id: LineIdHash,
    has_own_id: bool,
    job: Option<Arc<str>>,
    /// Where the line's document stands in the message.
    place: Range<usize>,
    /// Whether this line was the first of its id. A second one does not wait for the task, and its
    /// refusal does not end the wait of the first.
    is_first: bool,
    /// Whether this line was refused. After a reconnect the answer may come a second time.
    is_refused: bool,
}

/// What follows from the answer to a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BatchOutcome {
    /// Jobs to which tasks of the batch were added.
    pub(super) jobs: Vec<JobName>,
    /// Tasks that were there before, in whatever job, and that are waited for.
    pub(super) known: Vec<TaskId>,
}

impl Ledger {
    /// Begins a feed into `job`. `waits`: remember which tasks have not ended.
    pub(super) fn new(job: JobName, hasher: IdHasher, waits: bool, welcome: &Welcome) -> Ledger {
        let master_takes = usize::try_from(welcome.batch_tasks_max).unwrap_or(BATCH_TASKS);
        Ledger {
            job,
            hasher,
            batch_tasks: BATCH_TASKS.min(master_takes).max(1),
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            held: HeldLines::default(),
            sent: HashMap::new(),
            open: waits.then(HashSet::new),
            deferred: Vec::new(),
            unavailable: None,
            batches: 0,
            added: 0,
            known: 0,
            jobs: BTreeSet::new(),
            refused: 0,
            ends: EndCounts::default(),
        }
    }

    /// Queues a line.
    pub(super) fn push(&mut self, line: FeedLine) {
        self.queue.push_back(line);
    }

    /// Whether more lines should be read: less than a batch is queued.
    pub(super) fn wants_more(&self) -> bool {
        self.queue.len() < self.batch_tasks
    }

    /// Whether every line is answered, except those that are held.
    pub(super) fn is_answered(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty() && self.deferred.is_empty()
    }

    /// Lines that are held until their dependencies come.
    pub(super) fn held_lines(&self) -> usize {
        self.held.len()
    }

    /// Tasks that have not ended; 0 where nobody waits.
    pub(super) fn open_tasks(&self) -> usize {
        self.open.as_ref().map_or(0, HashSet::len)
    }

    /// Whether a batch was ever sent, so that the session holds the job.
    pub(super) fn has_sent(&self) -> bool {
        self.batches > 0
    }

    /// The next batch to send, if a line is queued and the master has answered enough of what was
    /// sent.
    pub(super) fn next_batch(&mut self) -> Option<Utf8Bytes> {
        if self.queue.is_empty() || self.in_flight.len() >= limits::BATCHES_IN_FLIGHT_MAX {
            return None;
        }
        self.batches += 1;
        let number = self.batches;
        let mut text = message_start(number);
        let mut lines = Vec::new();
        while lines.len() < self.batch_tasks {
            let is_empty = lines.is_empty();
            let bytes = text.len();
            let fits = |line: &mut FeedLine| is_empty || bytes + line.text.len() < BATCH_BYTES;
            let Some(line) = self.queue.pop_front_if(fits) else {
                break;
            };
            if !is_empty {
                text.push(',');
            }
            let start = text.len();
            text.push_str(&line.text);
            lines.push(self.send(line, start..text.len()));
        }
        text.push(']');
        // A job to which no line belongs is not held: it would be empty.
        if lines.iter().any(|line| line.job.is_none()) {
            // A job's name has no character that JSON escapes.
            text.push_str(&format!(r#","job":"{}","hold":true"#, self.job));
        }
        text.push_str("}}");
        let message = Utf8Bytes::from(text);
        self.in_flight.push_back(SentBatch {
            number,
            message: message.clone(),
            lines,
            is_resent: false,
        });
        Some(message)
    }

    /// Notes that a line is being sent.
    fn send(&mut self, line: FeedLine, place: Range<usize>) -> SentLine {
        let is_first = !line.has_own_id || !self.sent.contains_key(&line.id);
        if line.has_own_id && is_first {
            self.sent.insert(line.id, None);
        }
        if is_first && let Some(open) = &mut self.open {
            open.insert(line.id);
        }
        SentLine {
            number: line.number,
            id: line.id,
            has_own_id: line.has_own_id,
            job: line.job,
            place,
            is_first,
            is_refused: false,
        }
    }

    /// The batches without an answer, in order, to be sent again after a reconnect.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = Utf8Bytes> {
        self.in_flight.iter().map(|batch| batch.message.clone())
    }

    /// The batches without an answer are being sent again.
    pub(super) fn note_resend(&mut self) {
        for batch in &mut self.in_flight {
            batch.is_resent = true;
        }
    }

    /// The master did not take some tasks of a batch. Gives the refusals that are for good, each
    /// with its line.
    pub(super) fn rejected(&mut self, rejected: Rejected) -> Vec<Refusal> {
        let Some(index) = self.in_flight_index(rejected.batch) else {
            return Vec::new();
        };
        // All lines are taken back before one is looked at: else a line of this batch would be
        // thought to be at the master by another one that depends on it.
        let taken_back: Vec<(FeedLine, Refusal)> = rejected
            .tasks
            .into_iter()
            .filter_map(|rejection| self.take_back(index, rejection))
            .collect();
        let mut refusals = Vec::new();
        for (line, refusal) in taken_back {
            refusals.extend(self.keep_or_refuse(line, rejected.batch, refusal));
        }
        self.refused += refusals.len() as u64;
        refusals
    }

    fn in_flight_index(&self, number: u64) -> Option<usize> {
        self.in_flight
            .iter()
            .position(|batch| batch.number == number)
    }

    /// The line that a rejection is about. `None` where it was taken back already.
    fn take_back(&mut self, index: usize, rejection: Rejection) -> Option<(FeedLine, Refusal)> {
        let batch = self.in_flight.get_mut(index)?;
        let sent = batch
            .lines
            .get_mut(rejection.index)
            .filter(|sent| !sent.is_refused)?;
        sent.is_refused = true;
        let line = FeedLine {
            number: sent.number,
            id: sent.id,
            has_own_id: sent.has_own_id,
            job: sent.job.clone(),
            text: batch.message.as_str().get(sent.place.clone())?.to_owned(),
            // Files of this machine were put before the line was sent.
            has_inputs: false,
        };
        if sent.is_first {
            self.sent.remove(&line.id);
            if let Some(open) = &mut self.open {
                open.remove(&line.id);
            }
        }
        let refusal = Refusal {
            line: Some(line.number),
            ..rejection.error
        };
        Some((line, refusal))
    }

    /// Defers, holds or queues a line that was not taken. Gives the refusal where it is for good.
    fn keep_or_refuse(&mut self, line: FeedLine, batch: u64, refusal: Refusal) -> Option<Refusal> {
        match refusal.code {
            RefusalCode::Unavailable => {
                self.deferred.push(line);
                self.unavailable = Some(refusal.message);
                None
            }
            RefusalCode::UnknownDependency if !refusal.ids.is_empty() => {
                self.hold_or_refuse(line, batch, refusal)
            }
            _ => Some(refusal),
        }
    }

    /// Decides about a line whose dependencies the master does not know.
    fn hold_or_refuse(&mut self, line: FeedLine, batch: u64, refusal: Refusal) -> Option<Refusal> {
        let unknown = MissingId::of(&refusal.ids, &self.hasher);
        let taken_in = |missing: &MissingId| {
            let batch = self.sent.get(&missing.hash).copied().flatten();
            batch.map(NonZeroU64::get)
        };
        // An id that the master took earlier and does not know now has been forgotten: asking again
        // is of no use.
        let is_forgotten = |missing: &MissingId| taken_in(missing).is_some_and(|in_| in_ <= batch);
        if unknown.iter().any(is_forgotten) {
            return Some(refusal);
        }
        // An id whose batch is not answered is missing, too, because it may be refused: else the
        // lines of a circle would be sent for ever.
        let missing: Vec<MissingId> = unknown
            .into_iter()
            .filter(|missing| taken_in(missing).is_none())
            .collect();
        if missing.is_empty() {
            self.queue.push_back(line);
            return None;
        }
        self.held.hold(line, missing).err()
    }

    /// A batch is durable, without the tasks that were rejected before.
    pub(super) fn added(&mut self, added: Added) -> BatchOutcome {
        let batch = self
            .in_flight_index(added.batch)
            .and_then(|index| self.in_flight.remove(index));
        let Some(batch) = batch else {
            return BatchOutcome::default();
        };
        // Where a batch was sent again, nobody can tell whose tasks are there already: this feed's,
        // most probably.
        let known = added.known.iter().filter(|_| !batch.is_resent);
        let known: HashSet<LineIdHash> = known.map(|id| self.hasher.hash(id.as_str())).collect();
        let mut jobs: Vec<JobName> = Vec::new();
        let mut last_job: Option<Option<&str>> = None;
        for line in batch.lines.iter().filter(|line| !line.is_refused) {
            if line.has_own_id && line.is_first {
                self.sent.insert(line.id, NonZeroU64::new(batch.number));
                self.queue_lines_that_waited_for(line.id);
            }
            if known.contains(&line.id) {
                self.known += 1;
                continue;
            }
            self.added += 1;
            // Jobs seldom change from line to line.
            let own_job = line.job.as_deref();
            if last_job != Some(own_job) {
                last_job = Some(own_job);
                let job = match own_job {
                    Some(name) => JobName::new(name).ok(),
                    None => Some(self.job.clone()),
                };
                jobs.extend(job.filter(|job| !jobs.contains(job)));
            }
        }
        for job in &jobs {
            if self.jobs.len() < JOBS_NAMED_MAX {
                self.jobs.insert(job.clone());
            }
        }
        let known = added
            .known
            .into_iter()
            .filter(|id| self.is_open(id.as_str()))
            .collect();
        BatchOutcome { jobs, known }
    }

    /// The names of the jobs to which lines were added, and `others` behind the first few.
    pub(super) fn named_jobs(&self) -> String {
        let mut names: Vec<&str> = self.jobs.iter().map(|job| job.as_str()).collect();
        if names.len() == JOBS_NAMED_MAX {
            names.pop();
            names.push("others");
        }
        let word = if names.len() == 1 { "job" } else { "jobs" };
        format!("{word} {}", names.join(", "))
    }

    /// The job to which lines were added, where it is a single one.
    pub(super) fn only_job(&self) -> Option<&JobName> {
        self.jobs.first().filter(|_| self.jobs.len() == 1)
    }

    /// The master took an id: queues the lines that waited for it, then those that waited for
    /// these, and so on. In this order each comes behind what it depends on.
    fn queue_lines_that_waited_for(&mut self, id: LineIdHash) {
        let mut taken = VecDeque::from([id]);
        while let Some(id) = taken.pop_front() {
            for line in self.held.id_taken(id) {
                if line.has_own_id {
                    taken.push_back(line.id);
                }
                self.queue.push_back(line);
            }
        }
    }

    /// Whether this feed waits for a task.
    pub(super) fn is_open(&self, id: &str) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.contains(&self.hasher.hash(id)))
    }

    /// A task has ended. Gives whether this feed waits for it: each end counts once, however often
    /// it is told.
    pub(super) fn task_ended(&mut self, id: &str, state: TaskState) -> bool {
        let is_waited_for = self
            .open
            .as_mut()
            .is_some_and(|open| open.remove(&self.hasher.hash(id)));
        if is_waited_for {
            self.ends.count(state);
        }
        is_waited_for
    }

    /// Whether lines wait for a master that takes nothing for now.
    pub(super) fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Queues the deferred lines again.
    pub(super) fn retry_deferred(&mut self) {
        self.queue.extend(self.deferred.drain(..));
    }

    /// Why the master takes nothing for now, once after each answer that said so.
    pub(super) fn take_unavailable(&mut self) -> Option<String> {
        self.unavailable.take()
    }

    /// The input has ended and everything is answered: refuses what is still held.
    pub(super) fn refuse_held(&mut self) -> Vec<Refusal> {
        let refusals = self.held.refuse_all();
        self.refused += refusals.len() as u64;
        refusals
    }
}

/// The message of a batch up to its first task.
fn message_start(number: u64) -> String {
    let mut text = String::with_capacity(BATCH_BYTES / 4);
    text.push_str(&format!(
        r#"{{"event":"task:add","data":{{"batch":{number},"tasks":["#
    ));
    text
}

#[cfg(test)]
mod tests;
