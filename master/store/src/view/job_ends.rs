//! The ends of tasks by job, for tasks that take the results of a whole job.
//!
//! Each fold writes the ends that it has taken in, in chunks of one run of one job. The chunk with
//! which a run begins says so: a reader that does not come to it knows that the oldest ends of the run
//! are no longer kept. Ends are only ever appended, so that a task which was opened again and has
//! ended anew has two of them, of which the later one counts.

use super::{EndedTask, JOB_ENDS, corrupt, prefixed_key};
use crate::codec;
use crate::kv::{KeyValue, KvStore, StoreError, WriteBatch, part_key};
use crate::record::Ended;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use taskmaster_protocol::{JobName, TaskId, TaskState};

/// Bytes of a chunk. It is written as one value of the store.
const CHUNK_BYTES_MAX: usize = 3_500;

/// Bytes of an end beside its id, at most.
const END_BYTES_MAX: usize = 28;

/// Chunks that are read at once.
const CHUNKS_OF_A_SCAN: usize = 16;

/// The end of a task, as the task's job remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// The seq of the event that reported the end.
    pub seq: u64,
    /// The task's number in the order of adding.
    pub ordinal: u64,
    /// The final state of the task.
    pub state: TaskState,
    pub id: TaskId,
}

impl From<&Ended> for JobEnd {
    fn from(ended: &Ended) -> JobEnd {
        JobEnd {
            seq: ended.seq,
            ordinal: ended.ordinal,
            state: ended.end.state,
            id: ended.id.clone(),
        }
    }
}

/// The ends of the tasks of one run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunEnds {
    /// In no particular order.
    pub ends: Vec<JobEnd>,
    /// Whether the run's first end is among them, so that none is missing.
    pub from_beginning: bool,
}

/// A chunk as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Chunk {
    run: u32,
    /// Whether the run begins with this chunk.
    begins: bool,
    ends: Vec<WrittenEnd>,
}

/// A [`JobEnd`] as it is written. Ids of one job often begin alike.
#[derive(Debug, Serialize, Deserialize)]
struct WrittenEnd {
    /// How much greater the seq is than that of the chunk.
    after: u64,
    ordinal: u64,
    state: TaskState,
    /// Bytes with which the id begins as the one before does.
    shared: u8,
    /// The rest of the id.
    rest: String,
}

impl Chunk {
    fn read(pair: &KeyValue) -> Result<Chunk, StoreError> {
        codec::decode(&pair.value).map_err(|why| corrupt(&String::from_utf8_lossy(&pair.key), why))
    }

    /// Appends the ends of the chunk to `ends`. `first` is the seq of the chunk.
    fn unpack(&self, first: u64, ends: &mut Vec<JobEnd>) -> Result<(), StoreError> {
        let damaged = || corrupt("an end of a job", codec::DecodeError::Empty);
        let mut text = String::new();
        for written in &self.ends {
            if !text.is_char_boundary(usize::from(written.shared)) {
                return Err(damaged());
            }
            text.truncate(usize::from(written.shared));
            text.push_str(&written.rest);
            ends.push(JobEnd {
                seq: first + written.after,
                ordinal: written.ordinal,
                state: written.state,
                id: TaskId::new(&text).map_err(|_| damaged())?,
            });
        }
        Ok(())
    }
}

/// The key of the chunk of a job whose first event has this seq.
fn chunk_key(job: &JobName, seq: u64) -> Vec<u8> {
    let mut key = prefixed_key(JOB_ENDS, job.as_str());
    key.push(0);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// The seq in the key of a chunk, as a scan returns the key.
fn seq_of(pair: &KeyValue) -> u64 {
    let key = pair.key.split_last_chunk::<2>().map(|(key, _)| key);
    let seq = key.and_then(|key| key.last_chunk::<8>());
    seq.map_or(0, |seq| u64::from_be_bytes(*seq))
}

/// The ends of one run, from the newest back to the oldest that is kept, and no further than to more
/// than `ends_max`.
pub fn job_ends(
    store: &dyn KvStore,
    job: &JobName,
    run: u32,
    ends_max: usize,
) -> Result<RunEnds, StoreError> {
    let mut found = RunEnds::default();
    let from = chunk_key(job, 0);
    let mut to = chunk_key(job, u64::MAX);
    loop {
        let pairs = store.scan(&from, &to, true, CHUNKS_OF_A_SCAN)?;
        for pair in &pairs {
            let chunk = Chunk::read(pair)?;
            if chunk.run < run || found.ends.len() > ends_max {
                return Ok(found);
            }
            if chunk.run > run {
                continue;
            }
            chunk.unpack(seq_of(pair), &mut found.ends)?;
            if chunk.begins {
                found.from_beginning = true;
                return Ok(found);
            }
        }
        let Some(last) = pairs.last().filter(|_| pairs.len() == CHUNKS_OF_A_SCAN) else {
            return Ok(found);
        };
        to.clone_from(&last.key);
    }
}

/// A chunk that a fold is going to write.
struct NewChunk {
    /// The seq of its first event.
    first: u64,
    chunk: Chunk,
    /// Bytes so far, at most.
    bytes: usize,
    last_id: String,
}

impl NewChunk {
    fn new(first: u64, run: u32, begins: bool) -> NewChunk {
        let ends = Vec::new();
        NewChunk {
            first,
            chunk: Chunk { run, begins, ends },
            bytes: END_BYTES_MAX,
            last_id: String::new(),
        }
    }

    fn push(&mut self, end: &JobEnd) {
        let id = end.id.as_str();
        let is_same = |(one, other): &(u8, u8)| one == other;
        let shared = id.bytes().zip(self.last_id.bytes());
        let shared = shared.take_while(is_same).count();
        self.bytes += END_BYTES_MAX + id.len() - shared;
        self.chunk.ends.push(WrittenEnd {
            after: end.seq - self.first,
            ordinal: end.ordinal,
            state: end.state,
            shared: u8::try_from(shared).unwrap_or(u8::MAX),
            rest: id[shared..].to_owned(),
        });
        id.clone_into(&mut self.last_id);
    }
}

/// The ends that a fold has taken in.
#[derive(Default)]
pub(super) struct FoldedJobEnds {
    jobs: BTreeMap<JobName, Vec<NewChunk>>,
    chunks: usize,
}

impl FoldedJobEnds {
    /// How many values will be written.
    pub fn len(&self) -> usize {
        self.chunks
    }

    /// The event of this seq has opened a job for this run.
    pub fn run_began(&mut self, job: &JobName, run: u32, seq: u64) {
        self.add_chunk(job, NewChunk::new(seq, run, true));
    }

    /// A task of a job has ended in this run.
    pub fn ended(&mut self, run: u32, ended: &Ended) {
        let end = JobEnd::from(ended);
        let chunks = self.jobs.get_mut(&ended.job);
        let last = chunks.and_then(|chunks| chunks.last_mut());
        let has_room = |last: &&mut NewChunk| {
            let bytes = last.bytes + END_BYTES_MAX + end.id.as_str().len();
            last.chunk.run == run && bytes <= CHUNK_BYTES_MAX
        };
        if let Some(last) = last.filter(has_room) {
            return last.push(&end);
        }
        let mut chunk = NewChunk::new(end.seq, run, false);
        chunk.push(&end);
        self.add_chunk(&ended.job, chunk);
    }

    fn add_chunk(&mut self, job: &JobName, chunk: NewChunk) {
        self.chunks += 1;
        match self.jobs.get_mut(job) {
            Some(chunks) => chunks.push(chunk),
            None => drop(self.jobs.insert(job.clone(), vec![chunk])),
        }
    }

    /// Adds everything to the batch.
    pub fn put(self, batch: &mut WriteBatch) {
        for (job, chunks) in self.jobs {
            for NewChunk { first, chunk, .. } in chunks {
                batch.put_parts(&chunk_key(&job, first), &codec::encode(&chunk));
            }
        }
    }
}

/// Removes what is known of the ends of pruned tasks, and of older ones of their jobs. A run of which
/// a part is left does not begin with that part.
pub(super) fn prune(
    store: &dyn KvStore,
    tasks: &[EndedTask],
    batch: &mut WriteBatch,
) -> Result<(), StoreError> {
    let mut pruned: BTreeMap<&JobName, u64> = BTreeMap::new();
    for EndedTask { ended, .. } in tasks {
        let last = pruned.entry(&ended.job).or_default();
        *last = ended.seq.max(*last);
    }
    for (job, last) in pruned {
        prune_job(store, job, last, batch)?;
    }
    Ok(())
}

/// Removes the chunks of a job that end with the seq `last` or before.
fn prune_job(
    store: &dyn KvStore,
    job: &JobName,
    last: u64,
    batch: &mut WriteBatch,
) -> Result<(), StoreError> {
    let from = chunk_key(job, 0);
    let to = chunk_key(job, last + 1);
    let chunks = store.scan(&from, &to, false, usize::MAX)?;
    let Some((newest, older)) = chunks.split_last() else {
        return Ok(());
    };
    for pair in older {
        batch.remove(pair.key.clone());
    }
    let first = seq_of(newest);
    let chunk = Chunk::read(newest)?;
    let last_of_chunk = chunk.ends.last().map_or(first, |end| first + end.after);
    if last_of_chunk <= last {
        batch.remove(part_key(&chunk_key(job, first), 0));
    } else if chunk.begins {
        let rest = Chunk {
            begins: false,
            ..chunk
        };
        batch.put_parts(&chunk_key(job, first), &codec::encode(&rest));
    }
    Ok(())
}
