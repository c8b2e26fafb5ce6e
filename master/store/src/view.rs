//! The view holds what is folded from the journal, to be read by key. A task that was added and has
//! ended between two folds is written once.
//!
//! Keys by their first byte:
//!
//! - `!`: the watermarks, the list of runs of the index, and the digest of all values ([`digest`]).
//! - `o`: open tasks by ordinal, and `e`: ended tasks by seq. Both lie in blocks ([`block`]).
//! - `i`: the index of ended tasks by the hash of their id ([`ended_index`]).
//! - `d`, a cause's id, 0, a task's id: the task was skipped because of the cause.
//! - `k`, a job's name, 0, a seq: the ends of the job's tasks from this event on ([`job_ends`]).
//! - `j`: jobs, `m`: modules, `g`: rights of modules, `r`: runners, each by name.
//! - `c`: kept answers by their keys ([`answers`]).

mod answers;
mod block;
mod digest;
mod ended_index;
mod fold;
mod job_ends;
mod restoring;
pub mod sound;

pub use answers::{cache_entries, cache_entries_after, cache_entry};
pub use digest::verify;
pub use ended_index::EndedIndex;
pub use fold::{FOLD_WEIGHT_MAX, Fold, catch_up};
pub use job_ends::{JobEnd, RunEnds, job_ends};
pub use restoring::{RestoredView, restore};

use crate::body::TaskBody;
use crate::codec::{self, DecodeError};
use crate::kv::{KeyValue, KvStore, StoreError, VALUE_BYTES_MAX, get_parts, part_key};
use crate::packed::StoredBody;
use crate::record::{Ended, JobRecord, ModuleRecord, Retrying, TaskEnd};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use taskmaster_protocol::{AttemptId, JobName, ModuleName, TaskId, Wall};

/// The key of the watermarks.
const WATERMARKS_KEY: &[u8] = b"!marks";

/// Prefix of the blocks of open tasks.
const OPEN: u8 = b'o';

/// Prefix of the blocks of ended tasks.
const ENDED: u8 = b'e';

/// Prefix of the ids of skipped tasks.
const SKIPPED: u8 = b'd';

/// Prefix of the ends of tasks by job.
const JOB_ENDS: u8 = b'k';

/// Prefix of the jobs.
const JOBS: u8 = b'j';

/// Prefix of the modules.
const MODULES: u8 = b'm';

/// Prefix of the rights of modules.
const RIGHTS: u8 = b'g';

/// Prefix of the runners.
const RUNNERS: u8 = b'r';

/// Prefix of the kept answers.
const CACHE: u8 = b'c';

/// An open task as the view keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenTask {
    /// The task as its feeder described it.
    pub body: StoredBody,
    /// The task's priority now, which may differ from the one in the body.
    pub priority: i32,
    /// Failures that count against the task's retry policy.
    pub tries: u32,
    /// Attempts that were lost with their runner.
    pub lost: u32,
    /// Attempts up to this one are void.
    pub fence: AttemptId,
    /// The time before which the task does not start, where `task:set` or a back-off has set one.
    pub due: Option<Wall>,
}

impl OpenTask {
    /// A task that was added, or goes on with this body. Attempts up to `fence` are void.
    pub fn new(body: Arc<TaskBody>, fence: AttemptId) -> OpenTask {
        OpenTask {
            priority: body.priority,
            body: StoredBody::Whole(body),
            tries: 0,
            lost: 0,
            fence,
            due: None,
        }
    }

    /// A task that was opened again. Whoever opens a task again wants it at once, so a delay in the
    /// document is over.
    pub fn reopened(body: Arc<TaskBody>, fence: AttemptId) -> OpenTask {
        OpenTask {
            due: Some(Wall(0)),
            ..OpenTask::new(body, fence)
        }
    }

    /// Takes in that an attempt has failed and another one follows.
    pub fn retry(&mut self, retrying: &Retrying) {
        self.tries = retrying.tries;
        self.lost = retrying.lost;
        self.due = Some(retrying.due);
        self.fence = retrying.fence.unwrap_or(self.fence).max(self.fence);
    }

    /// Takes in that a client has changed the task.
    pub fn set(&mut self, priority: i32, due: Option<Wall>) {
        self.priority = priority;
        self.due = due.or(self.due);
    }

    fn unpack(bytes: &[u8]) -> Result<OpenTask, StoreError> {
        codec::unpack(bytes).map_err(damaged_open_task)
    }

    fn whole_body(&self) -> Result<Arc<TaskBody>, StoreError> {
        self.body.whole().map_err(damaged_open_task)
    }
}

fn damaged_open_task(why: DecodeError) -> StoreError {
    corrupt("an open task", why)
}

/// An ended task as the view and the engine hold it in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedTask {
    /// The task as its feeder described it.
    pub body: Arc<TaskBody>,
    /// How the task ended.
    pub ended: Arc<Ended>,
}

/// An [`EndedTask`] as it is written: without the parts of [`Ended`] that repeat the body.
#[derive(Serialize, Deserialize)]
struct WrittenEnd {
    body: StoredBody,
    end: TaskEnd,
}

impl WrittenEnd {
    fn pack(body: StoredBody, ended: &Ended) -> Vec<u8> {
        let end = ended.end.clone();
        codec::pack(&WrittenEnd { body, end })
    }

    fn unpack(seq: u64, bytes: &[u8]) -> Result<EndedTask, StoreError> {
        let damaged = |why| corrupt("an ended task", why);
        let written: WrittenEnd = codec::unpack(bytes).map_err(damaged)?;
        let body = written.body.whole().map_err(damaged)?;
        let ended = Arc::new(Ended::new(seq, &body, written.end));
        Ok(EndedTask { body, ended })
    }
}

/// A record with the name under which it is kept.
#[derive(Serialize, Deserialize)]
struct NamedRecord<N, R> {
    name: N,
    record: R,
}

/// How far the view is folded, and the numbers that go on after a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermarks {
    /// The number of the last commit that is folded as a whole.
    pub folded: u64,
    /// The number of records of the next commit that are folded already.
    pub records_folded: u32,
    /// The number of times that a master had started before the last folded record.
    pub epoch: u32,
    /// The ordinal of the newest task.
    pub ordinal: u64,
    /// The seq of the last event that is folded.
    pub seq: u64,
    /// The number of ended tasks in the view.
    pub ended_count: u64,
}

/// The key of a value that has a name.
fn prefixed_key(prefix: u8, name: &str) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend_from_slice(name.as_bytes());
    key
}

/// The key that says that the task `id` was skipped because of `cause`.
fn skipped_key(cause: &TaskId, id: &str) -> Vec<u8> {
    let mut key = prefixed_key(SKIPPED, cause.as_str());
    key.push(0);
    key.extend_from_slice(id.as_bytes());
    key
}

fn corrupt(what: &str, why: DecodeError) -> StoreError {
    StoreError::Corrupt {
        path: "the view".into(),
        why: format!("{what}: {why}"),
    }
}

/// Reads one value. `what` names the value in the error for damaged bytes.
fn read_record<T: for<'a> Deserialize<'a>>(
    store: &dyn KvStore,
    key: &[u8],
    what: &str,
) -> Result<Option<T>, StoreError> {
    let Some(bytes) = get_parts(store, key)? else {
        return Ok(None);
    };
    codec::decode(&bytes)
        .map(Some)
        .map_err(|why| corrupt(what, why))
}

/// How far the view is folded.
pub fn watermarks(store: &dyn KvStore) -> Result<Watermarks, StoreError> {
    Ok(read_record(store, WATERMARKS_KEY, "its watermarks")?.unwrap_or_default())
}

/// The ended task with this id; `None` where there is none.
pub fn ended_task(store: &dyn KvStore, id: &TaskId) -> Result<Option<EndedTask>, StoreError> {
    ended_task_by_index(store, &mut EndedIndex::without_filters(store)?, id)
}

/// The ended task with this id, found through an index that the caller keeps for many look-ups.
pub fn ended_task_by_index(
    store: &dyn KvStore,
    index: &mut EndedIndex,
    id: &TaskId,
) -> Result<Option<EndedTask>, StoreError> {
    for seq in index.find(store, id)? {
        let Some(bytes) = block::item(store, ENDED, seq)? else {
            continue;
        };
        let task = WrittenEnd::unpack(seq, &bytes)?;
        if task.body.id == *id {
            return Ok(Some(task));
        }
    }
    Ok(None)
}

/// What is known of a job; `None` where the job was never opened.
pub fn job(store: &dyn KvStore, name: &JobName) -> Result<Option<JobRecord>, StoreError> {
    let key = prefixed_key(JOBS, name.as_str());
    let named = read_record::<NamedRecord<JobName, JobRecord>>(store, &key, name.as_str())?;
    Ok(named.map(|named| named.record))
}

/// Ids of tasks that were skipped because of the end of `cause`.
pub fn skipped_for(store: &dyn KvStore, cause: &TaskId) -> Result<Vec<TaskId>, StoreError> {
    let from = skipped_key(cause, "");
    let mut to = from.clone();
    to.push(0xff);
    let pairs = store.scan(&from, &to, false, usize::MAX)?;
    let id_of = |pair: &KeyValue| {
        let id = pair.key.get(from.len()..)?;
        TaskId::new(std::str::from_utf8(id).ok()?).ok()
    };
    let damaged = || corrupt("an id of a skipped task", DecodeError::Empty);
    pairs
        .iter()
        .map(|pair| id_of(pair).ok_or_else(damaged))
        .collect()
}

/// The last `limit` tasks that ended with a seq below `before`, the newest first. There are fewer only
/// where no more such tasks exist.
pub fn ended_before(
    store: &dyn KvStore,
    before: u64,
    limit: usize,
) -> Result<Vec<EndedTask>, StoreError> {
    let mut found = Vec::new();
    // The block that would hold `before` has a key that is not below it, so the search for blocks
    // with keys below `before` does not meet it.
    let mut items = block::at_or_after(store, ENDED, before)?.unwrap_or_default();
    let mut below = before;
    loop {
        let missing = limit - found.len();
        for item in items
            .into_iter()
            .rev()
            .filter(|item| item.number < before)
            .take(missing)
        {
            found.push(WrittenEnd::unpack(item.number, &item.bytes)?);
        }
        if found.len() == limit {
            return Ok(found);
        }

        let Some(block) = block::before(store, ENDED, below)? else {
            return Ok(found);
        };
        below = block.last;
        items = block.items;
    }
}

/// The first `limit` tasks that ended with a seq of at least `from`, the oldest first. There are fewer
/// only where no more such tasks exist.
pub fn ended_from(
    store: &dyn KvStore,
    from: u64,
    limit: usize,
) -> Result<Vec<EndedTask>, StoreError> {
    let mut found = Vec::new();
    let mut next = from;
    while found.len() < limit {
        let Some(items) = block::at_or_after(store, ENDED, next)? else {
            break;
        };
        let missing = limit - found.len();
        // A block's key may be above its last item. Where this block has no item from `next` on, the
        // search goes on with the next number.
        let mut last = next;
        for item in items
            .into_iter()
            .filter(|item| item.number >= next)
            .take(missing)
        {
            last = item.number;
            found.push(WrittenEnd::unpack(item.number, &item.bytes)?);
        }
        next = last + 1;
    }
    Ok(found)
}

/// Open tasks with an ordinal of at least `from`, in the order of adding. They are whole blocks, so
/// that there may be more than `limit`. There are fewer only where no more such tasks exist.
pub fn open_from(
    store: &dyn KvStore,
    from: u64,
    limit: usize,
) -> Result<Vec<Arc<TaskBody>>, StoreError> {
    let mut found = Vec::new();
    let mut next = from;
    while found.len() < limit {
        let Some(items) = block::at_or_after(store, OPEN, next)? else {
            break;
        };
        // A block's key may be above its last item. Where this block has no item from `next` on, the
        // search goes on with the next number.
        let mut last = next;
        for item in items.into_iter().filter(|item| item.number >= next) {
            last = item.number;
            found.push(OpenTask::unpack(&item.bytes)?.whole_body()?);
        }
        next = last + 1;
    }
    Ok(found)
}

/// All modules with their names.
pub fn modules(store: &dyn KvStore) -> Result<Vec<(ModuleName, ModuleRecord)>, StoreError> {
    let mut modules = Vec::new();
    for_each_record(store, MODULES, &mut |NamedRecord { name, record }| {
        modules.push((name, record))
    })?;
    Ok(modules)
}

/// The first `limit` jobs whose names come behind `after`, in the order of the names. There are fewer
/// only where no more such jobs exist.
pub fn jobs_after(
    store: &dyn KvStore,
    after: &str,
    limit: usize,
) -> Result<Vec<(JobName, JobRecord)>, StoreError> {
    let from = behind(&prefixed_key(JOBS, after));
    let job_of = |pair: KeyValue| {
        let damaged = |why| corrupt(&String::from_utf8_lossy(&pair.key), why);
        let NamedRecord { name, record } = codec::decode(&pair.value).map_err(damaged)?;
        Ok((name, record))
    };
    values_from(store, from, JOBS, limit)?
        .into_iter()
        .map(job_of)
        .collect()
}

/// Calls `visit` with the body and the state of every open task, in the order of adding. Only one
/// block of them is in memory at a time.
pub fn open_tasks(
    store: &dyn KvStore,
    visit: &mut impl FnMut(Arc<TaskBody>, OpenTask) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    block::for_each_item(store, OPEN, &mut |_, bytes| {
        let task = OpenTask::unpack(bytes)?;
        visit(task.whole_body()?, task)
    })
}

/// The first `limit` values under a prefix from the key `from` on, in the order of their keys. The
/// parts of a value are put together, and its key has no part number. There are fewer only where no
/// more exist.
fn values_from(
    store: &dyn KvStore,
    mut from: Vec<u8>,
    prefix: u8,
    limit: usize,
) -> Result<Vec<KeyValue>, StoreError> {
    let mut values = Vec::new();
    while values.len() < limit {
        let pairs = store.scan(&from, &[prefix + 1], false, limit - values.len())?;
        let Some(last) = pairs.last() else {
            break;
        };
        from.clone_from(&last.key);
        from.push(0);

        for KeyValue { key, value } in pairs {
            // Later parts of a value are read together with its first part.
            let Some((key, [0, 0])) = key.split_last_chunk() else {
                continue;
            };
            let value = if value.len() == VALUE_BYTES_MAX {
                get_parts(store, key)?.unwrap_or_default()
            } else {
                value
            };
            let key = key.to_vec();
            values.push(KeyValue { key, value });
        }
    }
    Ok(values)
}

/// Calls `visit` with the key and the value of everything under a prefix, in order. The key has no part
/// number.
fn for_each_value(
    store: &dyn KvStore,
    prefix: u8,
    visit: &mut impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    /// Values that are in memory at once.
    const VALUES_AT_ONCE: usize = 512;

    let mut from = vec![prefix];
    loop {
        let values = values_from(store, from, prefix, VALUES_AT_ONCE)?;
        let Some(last) = values.last() else {
            return Ok(());
        };
        from = behind(&last.key);
        values
            .iter()
            .try_for_each(|pair| visit(&pair.key, &pair.value))?;
    }
}

/// Where the values behind one begin. `key` has no part number. Later parts of the same value may come
/// first, and begin no value.
fn behind(key: &[u8]) -> Vec<u8> {
    let mut from = part_key(key, 0);
    from.push(0);
    from
}

/// Calls `visit` with every record under a prefix, in the order of their keys.
fn for_each_record<T: for<'a> Deserialize<'a>>(
    store: &dyn KvStore,
    prefix: u8,
    visit: &mut dyn FnMut(T),
) -> Result<(), StoreError> {
    for_each_value(store, prefix, &mut |key, value| {
        let record =
            codec::decode(value).map_err(|why| corrupt(&String::from_utf8_lossy(key), why))?;
        visit(record);
        Ok(())
    })
}

#[cfg(test)]
mod tests;
