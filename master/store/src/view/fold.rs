//! Folding: commits of the journal taken in, in order, then written to the view as one batch.

use super::block::{Blocks, Items};
use super::{
    ENDED, MARKS, Marks, Named, OPEN, OpenTask, RIGHTS, Stored, WrittenEnd, corrupt, marks, one,
    places, skipped_key, with,
};
use crate::codec;
use crate::journal;
use crate::kv::{Batch, Reader, StoreError, VALUE_BYTES_MAX, part_key};
use crate::packed::StoredBody;
use crate::record::{self, Ended, Entry, JobRecord, Record, ended_index};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_protocol::{AttemptId, JobName, TaskId, Wall};

/// Values in one batch of the view, about: while a batch is written, no commit is.
pub const FOLD_WEIGHT_MAX: usize = 125;

/// Tasks that are about as much work to write as a block that is written again.
const TASKS_LIKE_A_BLOCK: usize = 8;

/// One fold on its way: entries are taken in, then written as one batch.
pub struct Fold {
    shelf: Reader,
    marks: Marks,
    /// Open tasks touched; `None`: they have ended.
    open: BTreeMap<u64, Option<OpenTask>>,
    /// Blocks of the open tasks touched that the view had before.
    open_blocks: Blocks,
    /// By seq.
    ended: BTreeMap<u64, (StoredBody, Arc<Ended>)>,
    /// Blocks of tasks that were reopened or pruned.
    ended_blocks: Blocks,
    jobs: BTreeMap<JobName, JobRecord>,
    /// The `no` of the first task that was added in this fold. Numbers grow for ever, so the view
    /// has never heard of any task from this one on.
    fresh_from: Option<u64>,
    batch: Batch,
}

impl Fold {
    /// A fold that goes on where the view is.
    pub fn begin(shelf: Reader) -> Result<Fold, StoreError> {
        let marks = marks(shelf.as_ref())?;
        Ok(Fold {
            marks,
            open: BTreeMap::new(),
            open_blocks: Blocks::new(OPEN, shelf.clone()),
            ended: BTreeMap::new(),
            ended_blocks: Blocks::new(ENDED, shelf.clone()),
            jobs: BTreeMap::new(),
            fresh_from: None,
            batch: Batch::default(),
            shelf,
        })
    }

    /// The next commit to take in.
    pub fn next(&self) -> u64 {
        self.marks.folded + 1
    }

    /// Takes one commit in.
    pub fn take(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.take_until(entry, usize::MAX).map(drop)
    }

    /// Takes a commit in, or goes on with one, until the fold is of this weight; true: all of it is
    /// in. A fold is one batch, and while a batch is written nothing else is.
    pub fn take_until(&mut self, entry: &Entry, weight_max: usize) -> Result<bool, StoreError> {
        let mut within = self.marks.within as usize;
        let before = entry.records.get(..within).unwrap_or_default();
        let mut seq = entry.first_seq + record::events_of(before) - 1;
        for record in entry.records.iter().skip(within) {
            if self.weight() >= weight_max {
                break;
            }
            self.record(record)?;
            seq += u64::from(record.event().is_some());
            within += 1;
        }
        self.marks.seq = seq;
        if within < entry.records.len() {
            self.marks.within = within as u32;
            return Ok(false);
        }
        (self.marks.folded, self.marks.within) = (self.marks.folded + 1, 0);
        Ok(true)
    }

    /// About how many values will be written.
    pub fn weight(&self) -> usize {
        let packed = (self.open.len() + self.ended.len()) / TASKS_LIKE_A_BLOCK;
        packed
            + self.open_blocks.len()
            + self.ended_blocks.len()
            + self.jobs.len()
            + self.batch.0.len()
    }

    /// The last event that is folded.
    pub fn seq(&self) -> u64 {
        self.marks.seq
    }

    /// Ended tasks that are kept, this fold included.
    pub fn ended(&self) -> u64 {
        self.marks.ended
    }

    fn record(&mut self, record: &Record) -> Result<(), StoreError> {
        match record {
            Record::Started { epoch } => self.marks.epoch = *epoch,
            Record::Added(body) => {
                self.marks.ordinal = self.marks.ordinal.max(body.ordinal);
                self.fresh_from = self.fresh_from.or(Some(body.ordinal));
                let task = OpenTask::new(
                    body.clone(),
                    AttemptId {
                        epoch: self.marks.epoch,
                        n: 0,
                    },
                );
                self.open.insert(body.ordinal, Some(task));
                self.job(&body.job)?.total += 1;
            }
            Record::Ended(ended) => self.end(ended)?,
            Record::Retrying(retrying) => {
                if let Some(task) = self.open_task(retrying.ordinal)? {
                    (task.tries, task.lost, task.due) =
                        (retrying.tries, retrying.lost, Some(retrying.due));
                    task.fence = retrying.fence.unwrap_or(task.fence).max(task.fence);
                }
            }
            Record::Reopened {
                body,
                fence,
                ended,
                was,
                because,
            } => {
                let known = &mut self.job(&body.job)?.ended[ended_index(*was)];
                *known = known.saturating_sub(1);
                if self.ended.remove(ended).is_none() {
                    self.remove_ended(*ended, &body.id, because.as_ref())?;
                }
                self.marks.ended = self.marks.ended.saturating_sub(1);
                // Whoever wants it again does not want it later: what its document says of that is
                // over.
                let task = OpenTask {
                    due: Some(Wall(0)),
                    ..OpenTask::new(body.clone(), *fence)
                };
                self.open.insert(body.ordinal, Some(task));
            }
            Record::Set {
                ordinal: no,
                priority,
                due,
            } => {
                if let Some(task) = self.open_task(*no)? {
                    task.priority = *priority;
                    task.due = due.or(task.due);
                }
            }
            Record::Continued { body, fence } => {
                if let Some(task) = self.open_task(body.ordinal)? {
                    *task = OpenTask::new(body.clone(), *fence);
                }
            }
            Record::JobOpened { job, run } => {
                let record = self.job(job)?;
                (record.open, record.run) = (true, *run);
            }
            Record::JobDone { job, .. } => {
                let record = self.job(job)?;
                record.open = false;
                record.holders.clear();
            }
            Record::JobHeld { job, by, held } => {
                let record = self.job(job)?;
                record.holders.retain(|holder| holder != by);
                if *held {
                    record.holders.push(by.clone());
                }
            }
            Record::JobPaused { job, paused } => self.job(job)?.paused = *paused,
            Record::JobCancelled { job, up_to } => self.job(job)?.cancelled_up_to = *up_to,
            Record::RunnerJoined { name } => self.put(with(b'r', name.as_bytes()), name),
            Record::RunnerLost { name } => {
                self.batch.remove(part_key(&with(b'r', name.as_bytes()), 0))
            }
            Record::Rights { name, rights, .. } => {
                let text = serde_json::to_string(rights).unwrap_or_default();
                self.put(with(RIGHTS, name.as_str().as_bytes()), &Named(name, text));
            }
            Record::Module { name, record, .. } => {
                self.put(with(b'm', name.as_str().as_bytes()), &Named(name, record))
            }
        }
        Ok(())
    }

    fn put<T: Serialize>(&mut self, key: Vec<u8>, value: &T) {
        let bytes = codec::encode(value);
        self.batch.put_parts(&key, &bytes);
        // A value that has become a little shorter must not keep a last part of what it was.
        if bytes.len() > VALUE_BYTES_MAX / 2 {
            self.batch
                .remove(part_key(&key, bytes.len().div_ceil(VALUE_BYTES_MAX)));
        }
    }

    fn job(&mut self, name: &JobName) -> Result<&mut JobRecord, StoreError> {
        if !self.jobs.contains_key(name) {
            let key = with(b'j', name.as_str().as_bytes());
            let last = one::<Named<JobName, JobRecord>>(self.shelf.as_ref(), &key, name.as_str())?;
            self.jobs.insert(
                name.clone(),
                last.map(|Named(_, record)| record).unwrap_or_default(),
            );
        }
        Ok(self.jobs.entry(name.clone()).or_default())
    }

    fn is_fresh(&self, no: u64) -> bool {
        self.fresh_from.is_some_and(|first| no >= first)
    }

    fn open_task(&mut self, no: u64) -> Result<Option<&mut OpenTask>, StoreError> {
        if !self.open.contains_key(&no) && !self.is_fresh(no) {
            let read =
                |bytes: &[u8]| codec::unpack(bytes).map_err(|why| corrupt("an open task", why));
            let last = self.open_blocks.get(no)?.map(read).transpose()?;
            self.open.insert(no, last);
        }
        Ok(self.open.get_mut(&no).and_then(Option::as_mut))
    }

    fn end(&mut self, ended: &Arc<Ended>) -> Result<(), StoreError> {
        if self.open_task(ended.ordinal)?.is_none() {
            return Ok(());
        }
        let Some(Some(task)) = self.open.insert(ended.ordinal, None) else {
            return Ok(());
        };
        self.job(&ended.job)?.ended[ended_index(ended.end.state)] += 1;
        self.ended.insert(ended.seq, (task.body, ended.clone()));
        self.marks.ended += 1;
        Ok(())
    }

    fn remove_ended(
        &mut self,
        seq: u64,
        id: &TaskId,
        because: Option<&TaskId>,
    ) -> Result<(), StoreError> {
        self.ended_blocks.remove(seq)?;
        if let Some(cause) = because {
            self.batch.remove(skipped_key(cause, id.as_str()));
        }
        Ok(())
    }

    /// Forgets ended tasks. Where they lie is forgotten when runs of places are merged.
    pub fn prune(&mut self, tasks: &[Stored]) -> Result<(), StoreError> {
        for task in tasks {
            self.remove_ended(task.ended.seq, &task.ended.id, task.ended.end.skipped_for())?;
        }
        self.marks.ended = self.marks.ended.saturating_sub(tasks.len() as u64);
        Ok(())
    }

    /// Writes the batch. It is durable with the next sync of anything; until then a crash finds the
    /// view as it was, and the journal still has the rest. Returns the last commit that the view
    /// holds now.
    pub fn write(mut self) -> Result<u64, StoreError> {
        self.write_open()?;
        self.write_ended()?;
        for (name, job) in std::mem::take(&mut self.jobs) {
            self.put(with(b'j', name.as_str().as_bytes()), &Named(&name, job));
        }
        let (shelf, folded, marks) = (self.shelf.clone(), self.marks.folded, self.marks.clone());
        self.put(MARKS.to_vec(), &marks);
        shelf.write(self.batch)?;
        Ok(folded)
    }

    fn write_open(&mut self) -> Result<(), StoreError> {
        let mut fresh = Items::new();
        for (no, task) in std::mem::take(&mut self.open) {
            match task {
                Some(task) if self.is_fresh(no) => fresh.push((no, codec::pack(&task))),
                Some(task) => self.open_blocks.put(no, codec::pack(&task))?,
                // Most tasks come and end between two folds.
                None if self.is_fresh(no) => {}
                None => drop(self.open_blocks.remove(no)?),
            }
        }
        self.open_blocks.append(fresh)?;
        let blocks =
            std::mem::replace(&mut self.open_blocks, Blocks::new(OPEN, self.shelf.clone()));
        blocks.write(&mut self.batch);
        Ok(())
    }

    fn write_ended(&mut self) -> Result<(), StoreError> {
        let (mut items, mut places) = (Items::new(), Vec::new());
        for (seq, (body, ended)) in std::mem::take(&mut self.ended) {
            if let Some(cause) = ended.end.skipped_for() {
                self.batch
                    .put(skipped_key(cause, ended.id.as_str()), Vec::new());
            }
            places.push((places::hash_of(&ended.id), seq));
            items.push((seq, WrittenEnd::bytes(body, &ended)));
        }
        self.ended_blocks.append(items)?;
        let blocks = std::mem::replace(
            &mut self.ended_blocks,
            Blocks::new(ENDED, self.shelf.clone()),
        );
        blocks.write(&mut self.batch);
        places::add(self.shelf.as_ref(), &mut places, ENDED, &mut self.batch)
    }
}

/// Folds the whole journal: the start of a master.
pub fn catch_up(shelf: &Reader) -> Result<(), StoreError> {
    // A commit in the middle of which a fold has ended: to read it costs as much as to fold it.
    let mut begun: Option<Entry> = None;
    loop {
        let mut fold = Fold::begin(shelf.clone())?;
        while fold.weight() < FOLD_WEIGHT_MAX {
            let read = || journal::entry(shelf, fold.next());
            let Some(entry) = begun.take().map_or_else(read, |entry| Ok(Some(entry)))? else {
                return fold.write().map(drop);
            };
            begun = (!fold.take_until(&entry, FOLD_WEIGHT_MAX)?).then_some(entry);
        }
        fold.write()?;
    }
}
