//! Folding takes in the commits of the journal in their order, and then writes what they changed to
//! the view as one batch.

use super::answers::{answer_key, written};
use super::block::{Blocks, Item};
use super::digest::ViewDigest;
use super::ended_index::{self, IndexEntry};
use super::job_ends::{self, FoldedJobEnds};
use super::{
    ENDED, EndedTask, JOBS, MODULES, NamedRecord, OPEN, OpenTask, RIGHTS, RUNNERS, WATERMARKS_KEY,
    Watermarks, WrittenEnd, prefixed_key, read_record, skipped_key, watermarks,
};
use crate::body::TaskBody;
use crate::cache_entry::CacheEntry;
use crate::codec;
use crate::journal;
use crate::kv::{SharedStore, StoreError, VALUE_BYTES_MAX, WriteBatch, part_key};
use crate::packed::StoredBody;
use crate::record::{self, Ended, JobRecord, JournalEntry, Record, Retrying, final_state_index};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_protocol::{AttemptId, Hash, JobName, ModuleName, TaskId, TaskState, Wall};

/// About how many values one batch of the view holds. The bound is low, because no commit is written
/// while a batch is.
pub const FOLD_WEIGHT_MAX: usize = 125;

/// The number of tasks that are about as much work to write as a block that is written again.
const TASKS_LIKE_A_BLOCK: usize = 8;

/// A fold that is under way. It takes in commits, and then writes them as one batch.
pub struct Fold {
    store: SharedStore,
    /// How far the view will be folded when this fold is written.
    watermarks: Watermarks,
    /// The digest of the view before this fold.
    digest: ViewDigest,
    /// Open tasks that this fold has changed, by ordinal; `None` for a task that has ended or is not
    /// in the view.
    open: BTreeMap<u64, Option<OpenTask>>,
    /// Blocks with open tasks that this fold has read.
    open_blocks: Blocks,
    /// Tasks that have ended in this fold, by the seq of their end.
    ended: BTreeMap<u64, FoldedEnd>,
    /// Blocks from which this fold removes tasks that were reopened or pruned.
    ended_blocks: Blocks,
    /// Jobs that this fold has read or changed.
    jobs: BTreeMap<JobName, JobRecord>,
    /// Ends of tasks that this fold has taken in, by job.
    job_ends: FoldedJobEnds,
    /// Answers that are kept or dropped in this fold, by their keys.
    answers: BTreeMap<Hash, Option<CacheEntry>>,
    /// The ordinal of the first task that was added in this fold. Ordinals grow for ever, so the view
    /// does not know any task from this one on.
    fresh_from: Option<u64>,
    /// What will be written, apart from the tasks and jobs above.
    batch: WriteBatch,
}

/// A task that has ended in this fold.
struct FoldedEnd {
    body: StoredBody,
    ended: Arc<Ended>,
}

/// A task that was opened again.
struct Reopening<'a> {
    body: &'a Arc<TaskBody>,
    fence: AttemptId,
    ended_seq: u64,
    former_state: TaskState,
    skipped_for: Option<&'a TaskId>,
}

impl Fold {
    /// Begins a fold where the view ends.
    pub fn begin(store: SharedStore) -> Result<Fold, StoreError> {
        let watermarks = watermarks(store.as_ref())?;
        Ok(Fold {
            watermarks,
            digest: ViewDigest::stored_or_counted(store.as_ref())?,
            open: BTreeMap::new(),
            open_blocks: Blocks::new(OPEN, store.clone()),
            ended: BTreeMap::new(),
            ended_blocks: Blocks::new(ENDED, store.clone()),
            jobs: BTreeMap::new(),
            job_ends: FoldedJobEnds::default(),
            answers: BTreeMap::new(),
            fresh_from: None,
            batch: WriteBatch::default(),
            store,
        })
    }

    /// The number of the next commit to take in.
    pub fn next(&self) -> u64 {
        self.watermarks.folded + 1
    }

    /// Takes in the rest of a commit.
    pub fn take(&mut self, entry: &JournalEntry) -> Result<(), StoreError> {
        self.take_until(entry, usize::MAX).map(drop)
    }

    /// Takes in the rest of a commit, until the fold has the weight `weight_max`. Returns whether the
    /// whole commit is in. A commit may be spread over several folds, because nothing else is
    /// written while the batch of a fold is.
    pub fn take_until(
        &mut self,
        entry: &JournalEntry,
        weight_max: usize,
    ) -> Result<bool, StoreError> {
        let mut records_folded = self.watermarks.records_folded as usize;
        let before = entry.records.get(..records_folded).unwrap_or_default();
        let mut seq = entry.first_seq + record::events_of(before) - 1;
        for record in entry.records.iter().skip(records_folded) {
            if self.weight() >= weight_max {
                break;
            }
            seq += u64::from(record.event().is_some());
            self.take_record(record, seq)?;
            records_folded += 1;
        }

        self.watermarks.seq = seq;
        if records_folded < entry.records.len() {
            self.watermarks.records_folded = records_folded as u32;
            return Ok(false);
        }
        self.watermarks.folded += 1;
        self.watermarks.records_folded = 0;
        Ok(true)
    }

    /// About how many values the fold will write.
    pub fn weight(&self) -> usize {
        let packed = (self.open.len() + self.ended.len()) / TASKS_LIKE_A_BLOCK;
        packed
            + self.open_blocks.len()
            + self.ended_blocks.len()
            + self.jobs.len()
            + self.job_ends.len()
            + self.answers.len()
            + self.batch.entries.len()
    }

    /// The seq of the last event that is folded, this fold included.
    pub fn seq(&self) -> u64 {
        self.watermarks.seq
    }

    /// The number of ended tasks in the view, this fold included.
    pub fn ended_count(&self) -> u64 {
        self.watermarks.ended_count
    }

    /// Takes in a record. `seq` is that of its event, or of the last event before it.
    fn take_record(&mut self, record: &Record, seq: u64) -> Result<(), StoreError> {
        if let Record::JobOpened { job, run } = record {
            self.job_ends.run_began(job, *run, seq);
        }
        match record {
            Record::Started { epoch } => self.watermarks.epoch = *epoch,
            Record::Added(body) => self.add(body)?,
            Record::Ended(ended) => self.end(ended)?,
            Record::Retrying(retrying) => self.retry(retrying)?,
            Record::Reopened {
                body,
                fence,
                ended_seq,
                former_state,
                skipped_for,
            } => self.reopen(Reopening {
                body,
                fence: *fence,
                ended_seq: *ended_seq,
                former_state: *former_state,
                skipped_for: skipped_for.as_ref(),
            })?,
            Record::Set {
                ordinal,
                priority,
                due,
            } => self.set(*ordinal, *priority, *due)?,
            Record::Continued { body, fence } => self.go_on(body, *fence)?,
            Record::JobOpened { job, .. }
            | Record::JobDone { job, .. }
            | Record::JobHeld { job, .. }
            | Record::JobPaused { job, .. }
            | Record::JobCancelled { job, .. } => self.job(job)?.take(record),
            Record::RunnerJoined { name } => self.put(prefixed_key(RUNNERS, name), name),
            Record::RunnerLost { name } => {
                let key = prefixed_key(RUNNERS, name);
                self.batch.remove(part_key(&key, 0));
            }
            Record::Rights { name, rights, .. } => {
                let record = serde_json::to_string(rights).unwrap_or_default();
                self.put_named(RIGHTS, name, record);
            }
            Record::Module { name, record, .. } => self.put_named(MODULES, name, record),
            Record::AnswersDropped { keys } => {
                self.answers.extend(keys.iter().map(|key| (*key, None)));
            }
        }
        Ok(())
    }

    fn add(&mut self, body: &Arc<TaskBody>) -> Result<(), StoreError> {
        self.watermarks.ordinal = self.watermarks.ordinal.max(body.ordinal);
        self.fresh_from = self.fresh_from.or(Some(body.ordinal));
        // Attempts of earlier epochs belong to another task that had this id.
        let fence = AttemptId {
            epoch: self.watermarks.epoch,
            n: 0,
        };
        let task = OpenTask::new(body.clone(), fence);
        self.open.insert(body.ordinal, Some(task));
        self.job(&body.job)?.total += 1;
        Ok(())
    }

    fn retry(&mut self, retrying: &Retrying) -> Result<(), StoreError> {
        if let Some(task) = self.open_task(retrying.ordinal)? {
            task.retry(retrying);
        }
        Ok(())
    }

    fn set(&mut self, ordinal: u64, priority: i32, due: Option<Wall>) -> Result<(), StoreError> {
        if let Some(task) = self.open_task(ordinal)? {
            task.set(priority, due);
        }
        Ok(())
    }

    /// Replaces the body of an open task.
    fn go_on(&mut self, body: &Arc<TaskBody>, fence: AttemptId) -> Result<(), StoreError> {
        if let Some(task) = self.open_task(body.ordinal)? {
            *task = OpenTask::new(body.clone(), fence);
        }
        Ok(())
    }

    fn reopen(&mut self, task: Reopening) -> Result<(), StoreError> {
        let body = task.body;
        let count = &mut self.job(&body.job)?.ended[final_state_index(task.former_state)];
        *count = count.saturating_sub(1);
        if self.ended.remove(&task.ended_seq).is_none() {
            self.remove_ended(task.ended_seq, &body.id, task.skipped_for)?;
        }
        self.watermarks.ended_count = self.watermarks.ended_count.saturating_sub(1);

        let reopened = OpenTask::reopened(body.clone(), task.fence);
        self.open.insert(body.ordinal, Some(reopened));
        Ok(())
    }

    fn end(&mut self, ended: &Arc<Ended>) -> Result<(), StoreError> {
        if self.open_task(ended.ordinal)?.is_none() {
            return Ok(());
        }
        let Some(Some(task)) = self.open.insert(ended.ordinal, None) else {
            return Ok(());
        };
        let job = self.job(&ended.job)?;
        job.ended[final_state_index(ended.end.state)] += 1;
        let run = job.run;
        self.job_ends.ended(run, ended);
        let folded = FoldedEnd {
            body: task.body,
            ended: ended.clone(),
        };
        if let Some(entry) = CacheEntry::of(ended) {
            self.answers.insert(entry.key, Some(entry));
        }
        self.ended.insert(ended.seq, folded);
        self.watermarks.ended_count += 1;
        Ok(())
    }

    /// Puts a value into the batch.
    fn put<T: Serialize>(&mut self, key: Vec<u8>, value: &T) {
        let bytes = codec::encode(value);
        self.batch.put_parts(&key, &bytes);
        // A value that has become a little shorter must not keep the last part of its former self.
        if bytes.len() > VALUE_BYTES_MAX / 2 {
            let next_part = bytes.len().div_ceil(VALUE_BYTES_MAX);
            self.batch.remove(part_key(&key, next_part));
        }
    }

    fn put_named<R: Serialize>(&mut self, prefix: u8, name: &ModuleName, record: R) {
        let key = prefixed_key(prefix, name.as_str());
        self.put(key, &NamedRecord { name, record });
    }

    /// The record of a job, which the caller may change. A job that is not known gets a new record.
    fn job(&mut self, name: &JobName) -> Result<&mut JobRecord, StoreError> {
        if !self.jobs.contains_key(name) {
            let key = prefixed_key(JOBS, name.as_str());
            let named = read_record::<NamedRecord<JobName, JobRecord>>(
                self.store.as_ref(),
                &key,
                name.as_str(),
            )?;
            let record = named.map(|named| named.record).unwrap_or_default();
            self.jobs.insert(name.clone(), record);
        }
        Ok(self.jobs.entry(name.clone()).or_default())
    }

    /// Whether the task was added in this fold, so that the view does not know it.
    fn is_fresh(&self, ordinal: u64) -> bool {
        self.fresh_from.is_some_and(|first| ordinal >= first)
    }

    /// An open task, which the caller may change; `None` where it is not open.
    fn open_task(&mut self, ordinal: u64) -> Result<Option<&mut OpenTask>, StoreError> {
        if !self.open.contains_key(&ordinal) && !self.is_fresh(ordinal) {
            let stored = self
                .open_blocks
                .get(ordinal)?
                .map(OpenTask::unpack)
                .transpose()?;
            self.open.insert(ordinal, stored);
        }
        Ok(self.open.get_mut(&ordinal).and_then(Option::as_mut))
    }

    fn remove_ended(
        &mut self,
        seq: u64,
        id: &TaskId,
        skipped_for: Option<&TaskId>,
    ) -> Result<(), StoreError> {
        self.ended_blocks.remove(seq)?;
        if let Some(cause) = skipped_for {
            self.batch.remove(skipped_key(cause, id.as_str()));
        }
        Ok(())
    }

    /// Removes ended tasks from the view. Their entries in the index are removed when runs are
    /// merged.
    pub fn prune(&mut self, tasks: &[EndedTask]) -> Result<(), StoreError> {
        for EndedTask { ended, .. } in tasks {
            self.remove_ended(ended.seq, &ended.id, ended.end.skipped_for())?;
        }
        job_ends::prune(self.store.as_ref(), tasks, &mut self.batch)?;
        let count = tasks.len() as u64;
        self.watermarks.ended_count = self.watermarks.ended_count.saturating_sub(count);
        Ok(())
    }

    /// Writes the batch, and returns the number of the last commit that is folded as a whole. The
    /// batch becomes durable with the next sync of the store. Until then a crash leaves the view as
    /// it was before the fold, and the journal still has the commits.
    pub fn write(mut self) -> Result<u64, StoreError> {
        self.put_open()?;
        self.put_ended()?;
        std::mem::take(&mut self.job_ends).put(&mut self.batch);
        for (name, record) in std::mem::take(&mut self.jobs) {
            let key = prefixed_key(JOBS, name.as_str());
            self.put(key, &NamedRecord { name, record });
        }
        self.put_answers()?;
        let watermarks = std::mem::take(&mut self.watermarks);
        self.put(WATERMARKS_KEY.to_vec(), &watermarks);
        self.digest
            .put_changed(self.store.as_ref(), &mut self.batch)?;
        self.store.write(self.batch)?;
        Ok(watermarks.folded)
    }

    fn put_answers(&mut self) -> Result<(), StoreError> {
        for (hash, entry) in std::mem::take(&mut self.answers) {
            let key = answer_key(&hash);
            // An answer in whose place another one is kept may have had more parts.
            let end = [key.as_slice(), &[0xff, 0xff]].concat();
            for part in self
                .store
                .scan(&part_key(&key, 0), &end, false, usize::MAX)?
            {
                self.batch.remove(part.key);
            }
            if let Some(entry) = entry {
                self.batch.put_parts(&key, &codec::encode(&written(&entry)));
            }
        }
        Ok(())
    }

    fn put_open(&mut self) -> Result<(), StoreError> {
        let mut fresh = Vec::new();
        for (ordinal, task) in std::mem::take(&mut self.open) {
            match task {
                Some(task) if self.is_fresh(ordinal) => fresh.push(Item {
                    number: ordinal,
                    bytes: codec::pack(&task),
                }),
                Some(task) => self.open_blocks.put(ordinal, codec::pack(&task))?,
                // Most tasks are added and end between two folds.
                None if self.is_fresh(ordinal) => {}
                None => self.open_blocks.remove(ordinal)?,
            }
        }
        self.open_blocks.append(fresh)?;

        let none = Blocks::new(OPEN, self.store.clone());
        std::mem::replace(&mut self.open_blocks, none).write(&mut self.batch);
        Ok(())
    }

    fn put_ended(&mut self) -> Result<(), StoreError> {
        let mut items = Vec::new();
        let mut entries = Vec::new();
        for (seq, FoldedEnd { body, ended }) in std::mem::take(&mut self.ended) {
            if let Some(cause) = ended.end.skipped_for() {
                let key = skipped_key(cause, ended.id.as_str());
                self.batch.put(key, Vec::new());
            }
            entries.push(IndexEntry::new(&ended.id, seq));
            items.push(Item {
                number: seq,
                bytes: WrittenEnd::pack(body, &ended),
            });
        }
        self.ended_blocks.append(items)?;

        let none = Blocks::new(ENDED, self.store.clone());
        std::mem::replace(&mut self.ended_blocks, none).write(&mut self.batch);
        ended_index::add(self.store.as_ref(), &mut entries, &mut self.batch)
    }
}

/// Folds the journal to its end, as a master does when it starts.
pub fn catch_up(store: &SharedStore) -> Result<(), StoreError> {
    // The commit in the middle of which the last fold has ended. It is kept, because to read it again
    // costs as much as to fold it.
    let mut unfinished: Option<JournalEntry> = None;
    loop {
        let mut fold = Fold::begin(store.clone())?;
        while fold.weight() < FOLD_WEIGHT_MAX {
            let entry = match unfinished.take() {
                Some(entry) => Some(entry),
                None => journal::entry(store, fold.next())?,
            };
            let Some(entry) = entry else {
                journal::expect_end(store, fold.watermarks.folded)?;
                return fold.write().map(drop);
            };
            let is_whole = fold.take_until(&entry, FOLD_WEIGHT_MAX)?;
            unfinished = (!is_whole).then_some(entry);
        }
        fold.write()?;
    }
}
