//! The view: records folded from the journal into what is read by key. What was added and has ended
//! between two folds is written once.
//!
//! Keys: `!` marks; `o` open tasks by `no` and `e` ended ones by seq, both in blocks ([`block`]);
//! `i` where an ended task lies, by the hash of its id ([`places`]); `d`+cause+0+id tasks skipped
//! for a cause; `j`+job; `m`+module; `r`+runner.

mod block;
mod fold;
mod places;

pub use fold::{FOLD_WEIGHT_MAX, Fold, catch_up};
pub use places::Places;

use crate::body::TaskBody;
use crate::codec;
use crate::kv::{Shelf, StoreError, VALUE_BYTES_MAX, get_parts};
use crate::packed::StoredBody;
use crate::record::{Ended, JobRecord, ModuleRecord, Rights, TaskEnd};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use taskmaster_protocol::{AttemptId, JobName, ModuleName, TaskId, Wall};

/// Prefix of the blocks of open tasks.
const OPEN: u8 = b'o';

/// Prefix of the blocks of ended tasks.
const ENDED: u8 = b'e';

/// Prefix of what modules may reach.
const RIGHTS: u8 = b'g';

/// An open task as the view keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenTask {
    /// What its feeder said.
    pub body: StoredBody,
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
        OpenTask {
            priority: body.priority,
            body: StoredBody::Whole(body),
            tries: 0,
            lost: 0,
            fence,
            due: None,
        }
    }
}

/// An ended task as the view and the engine keep it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// What its feeder said.
    pub body: Arc<TaskBody>,
    /// What became of it.
    pub ended: Arc<Ended>,
}

/// [`Stored`] as it is written: what body and end both say, once.
#[derive(Serialize, Deserialize)]
struct WrittenEnd {
    body: StoredBody,
    end: TaskEnd,
}

impl WrittenEnd {
    fn bytes(body: StoredBody, ended: &Ended) -> Vec<u8> {
        let end = ended.end.clone();
        codec::pack(&WrittenEnd { body, end })
    }

    fn read(seq: u64, bytes: &[u8]) -> Result<Stored, StoreError> {
        let damaged = |why| corrupt("an ended task", why);
        let written: WrittenEnd = codec::unpack(bytes).map_err(damaged)?;
        let body = written.body.whole().map_err(damaged)?;
        let ended = Arc::new(Ended::new(seq, &body, written.end));
        Ok(Stored { body, ended })
    }
}

/// How far the view is, and the numbers that go on for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The last commit that is folded.
    pub folded: u64,
    /// Records of the next commit that are folded already.
    pub within: u32,
    /// How many times a master had started by then.
    pub epoch: u32,
    /// The place of the newest task in the order of adding.
    pub ordinal: u64,
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

fn skipped_key(cause: &TaskId, id: &str) -> Vec<u8> {
    let mut key = with(b'd', cause.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(id.as_bytes());
    key
}

fn corrupt(what: &str, why: codec::Unreadable) -> StoreError {
    StoreError::Corrupt {
        path: "the view".into(),
        why: format!("{what}: {why}"),
    }
}

fn one<T: for<'a> Deserialize<'a>>(
    shelf: &dyn Shelf,
    key: &[u8],
    what: &str,
) -> Result<Option<T>, StoreError> {
    let Some(bytes) = get_parts(shelf, key)? else {
        return Ok(None);
    };
    codec::decode(&bytes)
        .map(Some)
        .map_err(|why| corrupt(what, why))
}

/// How far the view is.
pub fn marks(shelf: &dyn Shelf) -> Result<Marks, StoreError> {
    Ok(one(shelf, MARKS, "its marks")?.unwrap_or_default())
}

/// An ended task.
pub fn stored(shelf: &dyn Shelf, id: &TaskId) -> Result<Option<Stored>, StoreError> {
    stored_by(shelf, &mut Places::once(shelf)?, id)
}

/// An ended task, for one who asks often and keeps `places`.
pub fn stored_by(
    shelf: &dyn Shelf,
    places: &mut Places,
    id: &TaskId,
) -> Result<Option<Stored>, StoreError> {
    for seq in places.find(shelf, places::hash_of(id))? {
        if let Some(bytes) = block::item(shelf, ENDED, seq)? {
            let stored = WrittenEnd::read(seq, &bytes)?;
            if stored.body.id == *id {
                return Ok(Some(stored));
            }
        }
    }
    Ok(None)
}

/// A job.
pub fn job(shelf: &dyn Shelf, name: &JobName) -> Result<Option<JobRecord>, StoreError> {
    let named = one::<Named<JobName, JobRecord>>(
        shelf,
        &with(b'j', name.as_str().as_bytes()),
        name.as_str(),
    )?;
    Ok(named.map(|Named(_, record)| record))
}

/// Ids of tasks that were skipped because `cause` ended as it did.
pub fn skipped_for(shelf: &dyn Shelf, cause: &TaskId) -> Result<Vec<TaskId>, StoreError> {
    let from = skipped_key(cause, "");
    let mut to = from.clone();
    to.push(0xff);
    let pairs = shelf.scan(&from, &to, false, usize::MAX)?;
    let id = |(key, _): (Vec<u8>, Vec<u8>)| {
        key.get(from.len()..)
            .and_then(|id| TaskId::new(std::str::from_utf8(id).ok()?).ok())
    };
    Ok(pairs.into_iter().filter_map(id).collect())
}

/// Tasks that ended with a seq below `before`, the newest first: `most` of them, fewer only where
/// there are no more.
pub fn ended_before(
    shelf: &dyn Shelf,
    before: u64,
    most: usize,
) -> Result<Vec<Stored>, StoreError> {
    let mut found = Vec::new();
    // The block that holds `before` has a key at or above it; it may be the only one to read from.
    let mut items = block::at_or_after(shelf, ENDED, before)?.unwrap_or_default();
    let mut below = before;
    loop {
        for (seq, bytes) in items
            .into_iter()
            .rev()
            .filter(|(seq, _)| *seq < before)
            .take(most - found.len())
        {
            found.push(WrittenEnd::read(seq, &bytes)?);
        }
        if found.len() == most {
            return Ok(found);
        }
        let Some(next) = block::before(shelf, ENDED, below)? else {
            return Ok(found);
        };
        (below, items) = next;
    }
}

/// Tasks that ended with a seq of at least `from`, in the order of their ending: `most` of them,
/// fewer only where there are no more.
pub fn ended_from(shelf: &dyn Shelf, from: u64, most: usize) -> Result<Vec<Stored>, StoreError> {
    let mut found: Vec<Stored> = Vec::new();
    let mut next = from;
    while found.len() < most {
        let Some(items) = block::at_or_after(shelf, ENDED, next)? else {
            break;
        };
        let here = found.len();
        for (seq, bytes) in items
            .into_iter()
            .filter(|(seq, _)| *seq >= next)
            .take(most - here)
        {
            found.push(WrittenEnd::read(seq, &bytes)?);
        }
        // A block's key may be beyond its last item: where this one has nothing, the next may have.
        next = found
            .last()
            .filter(|_| found.len() > here)
            .map_or(next, |task| task.ended.seq)
            + 1;
    }
    Ok(found)
}

/// Open tasks with a `no` of at least `from`, in the order of adding: about `most` of them, none
/// where there are no more.
pub fn open_from(
    shelf: &dyn Shelf,
    from: u64,
    most: usize,
) -> Result<Vec<Arc<TaskBody>>, StoreError> {
    let mut found: Vec<Arc<TaskBody>> = Vec::new();
    let mut next = from;
    while found.len() < most {
        let Some(items) = block::at_or_after(shelf, OPEN, next)? else {
            break;
        };
        let here = found.len();
        for (_, bytes) in items.into_iter().filter(|(no, _)| *no >= next) {
            let task: OpenTask =
                codec::unpack(&bytes).map_err(|why| corrupt("an open task", why))?;
            found.push(
                task.body
                    .whole()
                    .map_err(|why| corrupt("an open task", why))?,
            );
        }
        // A block's key may be beyond its last item: where this one has nothing, the next may have.
        next = found
            .last()
            .filter(|_| found.len() > here)
            .map_or(next, |body| body.ordinal)
            + 1;
    }
    Ok(found)
}

/// The modules that are known.
pub fn modules(shelf: &dyn Shelf) -> Result<Vec<(ModuleName, ModuleRecord)>, StoreError> {
    let mut modules = Vec::new();
    all(shelf, b'm', &mut |Named(name, module)| {
        modules.push((name, module))
    })?;
    Ok(modules)
}

/// Every value under a prefix with its key, in order; values that were written in parts are put
/// together.
fn each(
    shelf: &dyn Shelf,
    prefix: u8,
    meet: &mut impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut from = vec![prefix];
    loop {
        let pairs = shelf.scan(&from, &[prefix + 1], false, 512)?;
        let Some((last, _)) = pairs.last() else {
            return Ok(());
        };
        from = last.clone();
        from.push(0);
        for (key, value) in pairs {
            let (stem, part) = key.split_at(key.len() - 2);
            match (part, value.len()) {
                ([0, 0], VALUE_BYTES_MAX) => {
                    meet(stem, &get_parts(shelf, stem)?.unwrap_or_default())?
                }
                ([0, 0], _) => meet(stem, &value)?,
                _ => {}
            }
        }
    }
}

/// Every record under a prefix.
fn all<T: for<'a> Deserialize<'a>>(
    shelf: &dyn Shelf,
    prefix: u8,
    meet: &mut dyn FnMut(T),
) -> Result<(), StoreError> {
    each(shelf, prefix, &mut |key, value| {
        meet(codec::decode(value).map_err(|why| corrupt(&String::from_utf8_lossy(key), why))?);
        Ok(())
    })
}

/// Every open task in the order of adding. Of ten million there is one in memory at a time.
pub fn open_tasks(
    shelf: &dyn Shelf,
    meet: &mut impl FnMut(Arc<TaskBody>, OpenTask) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    block::each(shelf, OPEN, &mut |_, bytes| {
        let task: OpenTask = codec::unpack(bytes).map_err(|why| corrupt("an open task", why))?;
        let body = task
            .body
            .whole()
            .map_err(|why| corrupt("an open task", why))?;
        meet(body, task)
    })
}

/// What a starting master needs beside the open tasks.
#[derive(Debug, Default)]
pub struct Restored {
    /// How far the view is.
    pub marks: Marks,
    /// Open jobs, and those that are paused.
    pub jobs: Vec<(JobName, JobRecord)>,
    /// Modules.
    pub modules: Vec<(ModuleName, ModuleRecord)>,
    /// What modules may reach, of those of which anything is known.
    pub rights: Vec<(ModuleName, Rights)>,
    /// Names of runners that are durably here.
    pub roster: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Named<N, R>(N, R);

/// Reads the view. The journal must be folded to its end before.
pub fn restore(shelf: &dyn Shelf) -> Result<Restored, StoreError> {
    let mut restored = Restored {
        marks: marks(shelf)?,
        ..Restored::default()
    };
    all(shelf, b'j', &mut |Named(name, job): Named<
        JobName,
        JobRecord,
    >| {
        if job.open || job.paused {
            restored.jobs.push((name, job));
        }
    })?;
    all(shelf, b'm', &mut |Named(name, module)| {
        restored.modules.push((name, module))
    })?;
    each(shelf, RIGHTS, &mut |key, value| {
        let Named(name, text): Named<ModuleName, String> =
            codec::decode(value).map_err(|why| corrupt(&String::from_utf8_lossy(key), why))?;
        let read = serde_json::from_str::<Option<Rights>>(&text);
        let rights = read.map_err(|error| {
            corrupt(name.as_str(), codec::Unreadable::Content(error.to_string()))
        })?;
        restored.rights.extend(rights.map(|rights| (name, rights)));
        Ok(())
    })?;
    all(shelf, b'r', &mut |name: String| restored.roster.push(name))?;
    Ok(restored)
}

/// The jobs that are kept, `most` at the most.
pub fn jobs(shelf: &dyn Shelf, most: usize) -> Result<Vec<(JobName, JobRecord)>, StoreError> {
    let pairs = shelf.scan(b"j", b"k", false, most)?;
    let row = |(_, value): (Vec<u8>, Vec<u8>)| {
        codec::decode(&value)
            .ok()
            .map(|Named(name, job)| (name, job))
    };
    Ok(pairs.into_iter().filter_map(row).collect())
}

#[cfg(test)]
mod tests;
