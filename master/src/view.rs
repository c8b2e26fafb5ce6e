//! The view: records folded from the journal into what is read by key. What was added and has ended between two
//! folds is written once.
//!
//! Keys: `!` marks; `o`+no open tasks; `t`+id ended tasks; `f`+last seq → a
//! block of (seq, id), the order of ending; `d`+cause+0+id tasks
//! skipped for a cause; `j`+job; `m`+module; `r`+runner.

use crate::record::{self, Ended, Entry, JobRecord, ModuleRecord, Record, TaskBody, ended_index};
use crate::store::{Batch, Reader, Shelf, StoreError, VALUE_BYTES_MAX, get_parts, part_key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_protocol::{AttemptId, JobName, ModuleName, TaskId, Wall};

/// An open task as the view keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenTask {
    /// What its feeder said.
    pub body: Arc<TaskBody>,
    /// Its priority now.
    pub priority: i32,
    /// Failures counted.
    pub tries: u32,
    /// Lost runners counted.
    pub lost: u32,
    /// Attempts up to this one are void.
    pub fence: AttemptId,
    /// When it may start, where `task:set` or a back-off says so.
    pub due: Option<Wall>,
}

impl OpenTask {
    fn new(body: Arc<TaskBody>, fence: AttemptId) -> OpenTask {
        OpenTask { priority: body.priority, body, tries: 0, lost: 0, fence, due: None }
    }
}

/// An ended task as the view and the engine keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// What its feeder said.
    pub body: Arc<TaskBody>,
    /// What became of it.
    pub ended: Arc<Ended>,
}

/// How far the view is, and the numbers that go on for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The last commit that is folded.
    pub folded: u64,
    /// How many times a master had started by then.
    pub epoch: u32,
    /// The `no` of the newest task.
    pub no: u64,
    /// The seq of the last event.
    pub seq: u64,
    /// Ended tasks that are kept.
    pub ended: u64,
}

const MARKS: &[u8] = b"!marks";

fn with(prefix: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend_from_slice(rest);
    key
}

/// An id's key ends with a zero byte, which no id holds, so that no id's parts lie among another's.
fn task_key(id: &TaskId) -> Vec<u8> {
    let mut key = with(b't', id.as_str().as_bytes());
    key.push(0);
    key
}

fn skipped_key(cause: &TaskId, id: &str) -> Vec<u8> {
    let mut key = with(b'd', cause.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(id.as_bytes());
    key
}

fn corrupt(what: &str, why: record::Unreadable) -> StoreError {
    StoreError::Corrupt { path: "the view".into(), why: format!("{what}: {why}") }
}

fn one<T: for<'a> Deserialize<'a>>(shelf: &dyn Shelf, key: &[u8], what: &str) -> Result<Option<T>, StoreError> {
    let Some(bytes) = get_parts(shelf, key)? else { return Ok(None) };
    record::decode(&bytes).map(Some).map_err(|why| corrupt(what, why))
}

/// How far the view is.
pub fn marks(shelf: &dyn Shelf) -> Result<Marks, StoreError> {
    Ok(one(shelf, MARKS, "its marks")?.unwrap_or_default())
}

/// An ended task.
pub fn stored(shelf: &dyn Shelf, id: &TaskId) -> Result<Option<Stored>, StoreError> {
    one(shelf, &task_key(id), id.as_str())
}

/// A job.
pub fn job(shelf: &dyn Shelf, name: &JobName) -> Result<Option<JobRecord>, StoreError> {
    let named = one::<Named<JobName, JobRecord>>(shelf, &with(b'j', name.as_str().as_bytes()), name.as_str())?;
    Ok(named.map(|Named(_, record)| record))
}

/// Ids of tasks that were skipped because `cause` ended as it did.
pub fn skipped_for(shelf: &dyn Shelf, cause: &TaskId) -> Result<Vec<TaskId>, StoreError> {
    let from = skipped_key(cause, "");
    let mut to = from.clone();
    to.push(0xff);
    let pairs = shelf.scan(&from, &to, false, usize::MAX)?;
    let id = |(key, _): (Vec<u8>, Vec<u8>)| {
        key.get(from.len()..).and_then(|id| TaskId::new(std::str::from_utf8(id).ok()?).ok())
    };
    Ok(pairs.into_iter().filter_map(id).collect())
}

/// The order of ending, in blocks: a write for each task would cost as much as the task's own. An entry whose task is
/// gone, or has ended anew since, is stale; readers find that when they look for the task.
type Block = Vec<(u64, TaskId)>;

/// Entries in a block: its value stays below [`VALUE_BYTES_MAX`] also when every id is as long as it may be.
const BLOCK_ENTRIES: usize = 28;

fn block_key(last_seq: u64) -> Vec<u8> {
    with(b'f', &last_seq.to_be_bytes())
}

fn block((_, value): &(Vec<u8>, Vec<u8>)) -> Result<Block, StoreError> {
    record::decode(value).map_err(|why| corrupt("the order of ending", why))
}

/// Ids of ended tasks with a seq below `before`, the newest first.
pub fn ended_before(shelf: &dyn Shelf, before: u64, most: usize) -> Result<Block, StoreError> {
    let mut found = Block::new();
    // The block that holds `before` has a key at or above it; it may be the only one to read from.
    let above = shelf.scan(&block_key(before), b"g", false, 1)?;
    let below = shelf.scan(b"f", &block_key(before), true, most.div_ceil(BLOCK_ENTRIES) + 1)?;
    for pair in above.iter().chain(&below) {
        found.extend(block(pair)?.into_iter().rev().filter(|(seq, _)| *seq < before));
    }
    found.truncate(most);
    Ok(found)
}

/// Ids of the tasks that ended first.
pub fn ended_first(shelf: &dyn Shelf, most: usize) -> Result<Block, StoreError> {
    let mut found = Block::new();
    // A block may have one entry left that something open needs: as many blocks as entries are wanted.
    for pair in shelf.scan(b"f", b"g", false, most)? {
        found.extend(block(&pair)?);
        if found.len() >= most {
            break;
        }
    }
    Ok(found)
}

/// Every record under a prefix, with the rest of its key. Values that were written in parts are put together.
fn all<T: for<'a> Deserialize<'a>>(shelf: &dyn Shelf, prefix: u8, meet: &mut dyn FnMut(T)) -> Result<(), StoreError> {
    let mut from = vec![prefix];
    loop {
        let pairs = shelf.scan(&from, &[prefix + 1], false, 4_096)?;
        let Some((last, _)) = pairs.last() else { return Ok(()) };
        let mut whole: Vec<u8> = Vec::new();
        let mut key: Vec<u8> = Vec::new();
        let more = pairs.len() == 4_096;
        let last_stem = last[..last.len() - 2].to_vec();
        for (part_key, value) in pairs {
            let stem = &part_key[..part_key.len() - 2];
            if stem != key.as_slice() {
                if !key.is_empty() {
                    meet(record::decode(&whole).map_err(|why| corrupt(&String::from_utf8_lossy(&key), why))?);
                }
                key = stem.to_vec();
                whole.clear();
            }
            whole.extend_from_slice(&value);
        }
        if !more {
            meet(record::decode(&whole).map_err(|why| corrupt(&String::from_utf8_lossy(&key), why))?);
            return Ok(());
        }
        // The last record may go on beyond this page: read it again from its first part.
        from = part_key(&last_stem, 0);
    }
}

/// All that a starting master needs.
#[derive(Debug, Default)]
pub struct Restored {
    /// How far the view is.
    pub marks: Marks,
    /// Open tasks in the order of their adding.
    pub tasks: Vec<OpenTask>,
    /// Open jobs.
    pub jobs: Vec<(JobName, JobRecord)>,
    /// Modules.
    pub modules: Vec<(ModuleName, ModuleRecord)>,
    /// Names of runners that are durably here.
    pub roster: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Named<N, R>(N, R);

/// Reads the view. The journal must be folded to its end before.
pub fn restore(shelf: &dyn Shelf) -> Result<Restored, StoreError> {
    let mut restored = Restored { marks: marks(shelf)?, ..Restored::default() };
    all(shelf, b'o', &mut |task: OpenTask| restored.tasks.push(task))?;
    all(shelf, b'j', &mut |Named(name, job): Named<JobName, JobRecord>| {
        if job.open || job.paused {
            restored.jobs.push((name, job));
        }
    })?;
    all(shelf, b'm', &mut |Named(name, module)| restored.modules.push((name, module)))?;
    all(shelf, b'r', &mut |name: String| restored.roster.push(name))?;
    Ok(restored)
}

/// The jobs that are kept, `most` at the most, from the one named `after` on.
pub fn jobs(shelf: &dyn Shelf, most: usize) -> Result<Vec<(JobName, JobRecord)>, StoreError> {
    let pairs = shelf.scan(b"j", b"k", false, most)?;
    let row = |(_, value): (Vec<u8>, Vec<u8>)| record::decode(&value).ok().map(|Named(name, job)| (name, job));
    Ok(pairs.into_iter().filter_map(row).collect())
}

/// One fold on its way: entries are taken in, then written as one batch.
pub struct Fold {
    shelf: Reader,
    marks: Marks,
    /// Open tasks touched; `None`: they have ended.
    open: BTreeMap<u64, Option<OpenTask>>,
    ended: BTreeMap<TaskId, Stored>,
    jobs: BTreeMap<JobName, JobRecord>,
    /// The `no` of the first task that was added in this fold. Numbers grow for ever, so the view has never heard of
    /// any task from this one on.
    fresh_from: Option<u64>,
    batch: Batch,
}

impl Fold {
    /// A fold that goes on where the view is.
    pub fn begin(shelf: Reader) -> Result<Fold, StoreError> {
        let marks = marks(shelf.as_ref())?;
        Ok(Fold {
            shelf,
            marks,
            open: BTreeMap::new(),
            ended: BTreeMap::new(),
            jobs: BTreeMap::new(),
            fresh_from: None,
            batch: Batch::default(),
        })
    }

    /// The next commit to take in.
    pub fn next(&self) -> u64 {
        self.marks.folded + 1
    }

    /// Takes one commit in.
    pub fn take(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let events = entry.records.iter().filter(|record| record.event().is_some()).count() as u64;
        entry.records.iter().try_for_each(|record| self.record(record))?;
        self.marks.folded += 1;
        self.marks.seq = entry.first_seq + events - 1;
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<(), StoreError> {
        match record {
            Record::Started { epoch } => self.marks.epoch = *epoch,
            Record::Added(body) => {
                self.marks.no = self.marks.no.max(body.no);
                self.fresh_from = self.fresh_from.or(Some(body.no));
                let task = OpenTask::new(body.clone(), AttemptId { epoch: 0, n: 0 });
                self.open.insert(body.no, Some(task));
                self.job(&body.job)?.total += 1;
            }
            Record::Ended(ended) => self.end(ended)?,
            Record::Retrying(retrying) => {
                if let Some(task) = self.open_task(retrying.no)? {
                    (task.tries, task.lost, task.due) = (retrying.tries, retrying.lost, Some(retrying.due));
                    task.fence = retrying.fence.unwrap_or(task.fence).max(task.fence);
                }
            }
            Record::Reopened { body, fence, was, because, .. } => self.reopen(body, *fence, *was, because)?,
            Record::Set { no, priority, due } => {
                if let Some(task) = self.open_task(*no)? {
                    task.priority = *priority;
                    task.due = due.or(task.due);
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
            Record::RunnerLost { name } => self.batch.remove(part_key(&with(b'r', name.as_bytes()), 0)),
            Record::Module { name, record, .. } => self.put(with(b'm', name.as_str().as_bytes()), &Named(name, record)),
        }
        Ok(())
    }

    fn put<T: Serialize>(&mut self, key: Vec<u8>, value: &T) {
        let bytes = record::encode(value);
        self.batch.put_parts(&key, &bytes);
        // A value that has become a little shorter must not keep a last part of what it was.
        if bytes.len() > VALUE_BYTES_MAX / 2 {
            self.batch.remove(part_key(&key, bytes.len().div_ceil(VALUE_BYTES_MAX)));
        }
    }

    fn job(&mut self, name: &JobName) -> Result<&mut JobRecord, StoreError> {
        if !self.jobs.contains_key(name) {
            let last = one::<Named<JobName, JobRecord>>(
                self.shelf.as_ref(),
                &with(b'j', name.as_str().as_bytes()),
                name.as_str(),
            )?;
            self.jobs.insert(name.clone(), last.map(|Named(_, record)| record).unwrap_or_default());
        }
        Ok(self.jobs.entry(name.clone()).or_default())
    }

    fn open_task(&mut self, no: u64) -> Result<Option<&mut OpenTask>, StoreError> {
        if !self.open.contains_key(&no) {
            let last = one(self.shelf.as_ref(), &with(b'o', &no.to_be_bytes()), "an open task")?;
            self.open.insert(no, last);
        }
        Ok(self.open.get_mut(&no).and_then(Option::as_mut))
    }

    fn end(&mut self, ended: &Arc<Ended>) -> Result<(), StoreError> {
        let no = ended.no;
        let Some(task) = self.open_task(no)? else { return Ok(()) };
        let body = task.body.clone();
        self.open.insert(no, None);
        self.job(&ended.job)?.ended[ended_index(ended.state)] += 1;
        self.ended.insert(ended.id.clone(), Stored { body, ended: ended.clone() });
        self.marks.ended += 1;
        Ok(())
    }

    fn reopen(
        &mut self,
        body: &Arc<TaskBody>,
        fence: AttemptId,
        was: taskmaster_protocol::TaskState,
        because: &Option<TaskId>,
    ) -> Result<(), StoreError> {
        let known = &mut self.job(&body.job)?.ended[ended_index(was)];
        *known = known.saturating_sub(1);
        self.marks.ended = self.marks.ended.saturating_sub(1);
        if self.ended.remove(&body.id).is_none() {
            self.remove_stored(&body.id, because.as_ref())?;
        }
        self.open.insert(body.no, Some(OpenTask::new(body.clone(), fence)));
        Ok(())
    }

    fn remove_stored(&mut self, id: &TaskId, because: Option<&TaskId>) -> Result<(), StoreError> {
        self.remove_parts(&task_key(id))?;
        if let Some(cause) = because {
            self.batch.remove(skipped_key(cause, id.as_str()));
        }
        Ok(())
    }

    /// Removes a value with all its parts.
    fn remove_parts(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let mut end = key.to_vec();
        end.extend_from_slice(&[0xff, 0xff]);
        for (part, _) in self.shelf.scan(&part_key(key, 0), &end, false, usize::MAX)? {
            self.batch.remove(part);
        }
        Ok(())
    }

    /// Forgets ended tasks.
    pub fn prune(&mut self, tasks: &[Stored]) -> Result<(), StoreError> {
        for task in tasks {
            self.remove_stored(&task.ended.id, task.ended.because.as_ref())?;
        }
        self.marks.ended = self.marks.ended.saturating_sub(tasks.len() as u64);
        self.drop_stale_blocks(tasks)
    }

    /// Takes what is no longer kept out of the oldest blocks of the order of ending; a block keeps its key, which need
    /// only be no less than any seq in it.
    fn drop_stale_blocks(&mut self, pruned: &[Stored]) -> Result<(), StoreError> {
        let gone: std::collections::BTreeSet<(u64, &TaskId)> =
            pruned.iter().map(|task| (task.ended.seq, &task.ended.id)).collect();
        for pair in self.shelf.scan(b"f", b"g", false, pruned.len())? {
            let entries = block(&pair)?;
            let before = entries.len();
            let mut kept = Block::new();
            for (seq, id) in entries {
                if gone.contains(&(seq, &id)) {
                    continue;
                }
                if stored(self.shelf.as_ref(), &id)?.is_some_and(|stored| stored.ended.seq == seq) {
                    kept.push((seq, id));
                }
            }
            match kept.len() {
                // Behind the first block that is whole, all are: tasks are pruned from the oldest on.
                n if n == before => return Ok(()),
                0 => self.batch.remove(pair.0),
                _ => self.batch.put(pair.0, record::encode(&kept)),
            }
        }
        Ok(())
    }

    /// How many tasks it has touched: a fold is written before it grows large.
    pub fn touched(&self) -> usize {
        self.open.len()
    }

    /// Ended tasks that are kept, this fold included.
    pub fn ended(&self) -> u64 {
        self.marks.ended
    }

    /// Writes the batch. It is durable with the next sync of anything; until then a crash finds the view as it was,
    /// and the journal still has the rest. Returns the last commit that the view holds now.
    pub fn write(mut self) -> Result<u64, StoreError> {
        for (no, task) in std::mem::take(&mut self.open) {
            let key = with(b'o', &no.to_be_bytes());
            match task {
                Some(task) => self.put(key, &task),
                None => self.remove_open(no, &key)?,
            }
        }
        let ended = std::mem::take(&mut self.ended);
        let mut order: Block = ended.iter().map(|(id, stored)| (stored.ended.seq, id.clone())).collect();
        order.sort_unstable();
        for entries in order.chunks(BLOCK_ENTRIES) {
            let last = entries.last().map_or(0, |(seq, _)| *seq);
            self.batch.put(block_key(last), record::encode(&entries));
        }
        for (id, stored) in ended {
            if let Some(cause) = &stored.ended.because {
                self.batch.put(skipped_key(cause, id.as_str()), Vec::new());
            }
            self.put(task_key(&id), &stored);
        }
        for (name, job) in std::mem::take(&mut self.jobs) {
            self.put(with(b'j', name.as_str().as_bytes()), &Named(&name, job));
        }
        let (shelf, folded, marks) = (self.shelf.clone(), self.marks.folded, self.marks.clone());
        self.put(MARKS.to_vec(), &marks);
        shelf.write(self.batch)?;
        Ok(folded)
    }

    fn remove_open(&mut self, no: u64, key: &[u8]) -> Result<(), StoreError> {
        // Most tasks come and end between two folds.
        if self.fresh_from.is_some_and(|first| no >= first) {
            return Ok(());
        }
        self.remove_parts(key)
    }
}

#[cfg(test)]
mod tests;
