//! The index of ended tasks: from a task's id to the seq of its end. It needs no memory, however
//! many tasks have ended.
//!
//! Ids come in no order, and a store that puts each id at its own place pays for each of them. So
//! every fold writes its ids together as a *run*: hashes of ids with seqs, sorted and cut into
//! buckets of about a hundred entries by the first bits of the hash. Four runs of one level are merged
//! into one run of the next level, a little with every fold, so that ten million ids lie in about
//! twenty runs. A look-up reads one bucket of each run. Whoever looks up often uses an [`EndedIndex`]
//! with filters, which knows of most new ids without reading that they are new.
//!
//! An entry stays in the index after its task is reopened or pruned, until runs are merged. An entry
//! whose seq belongs to no ended task is stale.

mod lookup;
mod merging;

pub use lookup::EndedIndex;

use super::block::ByteSlice;
use super::{corrupt, read_record};
use crate::codec;
use crate::kv::{KvStore, StoreError, WriteBatch, get_parts};
use merging::RunMerge;
use serde::{Deserialize, Serialize};
use taskmaster_protocol::{Hash, TaskId};

/// An id's hash with the seq of the end of that id's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IndexEntry {
    /// The first 64 bits of the id's SHA-256.
    pub hash: u64,
    /// The seq of the event that reported the end.
    pub seq: u64,
}

impl IndexEntry {
    /// Bytes of an entry in a bucket.
    const BYTES: usize = 16;

    pub fn new(id: &TaskId, seq: u64) -> IndexEntry {
        IndexEntry {
            hash: hash_of(id),
            seq,
        }
    }
}

/// The key of the list of runs.
const RUNS_KEY: &[u8] = b"!runs";

/// Prefix of the keys of buckets: `i`, the run's number, the bucket's number, the part's number.
const INDEX: u8 = b'i';

/// Entries of a bucket on average, at most. With this number a bucket fits into one part of a value,
/// however unevenly the hashes fall.
const BUCKET_ENTRIES: u64 = 140;

/// A run: entries that were written together, sorted by their hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct IndexRun {
    /// The run's number. Numbers are never used again.
    number: u32,
    /// The number of merges between new entries and this run.
    level: u8,
    /// The first bits of a hash that choose the bucket. There are two to the power of this many
    /// buckets.
    bucket_bits: u8,
    /// The number of entries in all buckets.
    entries: u64,
}

impl IndexRun {
    fn has_bucket(&self, bucket: u32) -> bool {
        bucket >> self.bucket_bits == 0
    }
}

/// All runs, as the store lists them under [`RUNS_KEY`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct IndexRuns {
    /// The number of the newest run; 0 where there was none yet.
    newest: u32,
    /// The runs that a look-up reads.
    runs: Vec<IndexRun>,
    /// The merges that are under way.
    merges: Vec<RunMerge>,
    /// Numbers of runs that were merged into others, and whose buckets are not removed yet.
    merged: Vec<u32>,
}

impl IndexRuns {
    fn read(store: &dyn KvStore) -> Result<IndexRuns, StoreError> {
        Ok(read_record(store, RUNS_KEY, "the list of runs")?.unwrap_or_default())
    }

    fn is_idle(&self) -> bool {
        self.merges.is_empty() && self.merged.is_empty()
    }

    /// Makes a run with the next number. The run is not listed yet.
    fn new_run(&mut self, level: u8, entries: u64) -> IndexRun {
        self.newest += 1;
        IndexRun {
            number: self.newest,
            level,
            bucket_bits: bits_for(entries),
            entries,
        }
    }
}

/// The hash by which an id is found. It is a part of a SHA-256, so that nobody can make many ids with
/// one hash.
fn hash_of(id: &TaskId) -> u64 {
    big_endian(&Hash::of(id.as_str().as_bytes()).0[..8])
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// The bits that choose a bucket in a run of this many entries.
fn bits_for(entries: u64) -> u8 {
    (0..32)
        .find(|bits| entries >> bits <= BUCKET_ENTRIES)
        .unwrap_or(31)
}

/// The number of a hash's bucket: the first `bits` of the hash.
fn bucket_of(hash: u64, bits: u8) -> u32 {
    if bits == 0 {
        0
    } else {
        (hash >> (64 - bits)) as u32
    }
}

fn run_key(run: u32) -> Vec<u8> {
    let mut key = vec![INDEX];
    key.extend_from_slice(&run.to_be_bytes());
    key
}

fn bucket_key(run: u32, bucket: u32) -> Vec<u8> {
    let mut key = run_key(run);
    key.extend_from_slice(&bucket.to_be_bytes());
    key
}

/// Writes a bucket. A bucket without entries is written too, because a missing bucket says that its
/// run was removed.
fn put_bucket(batch: &mut WriteBatch, run: u32, bucket: u32, entries: &[IndexEntry]) {
    let mut bytes = Vec::with_capacity(entries.len() * IndexEntry::BYTES);
    for entry in entries {
        bytes.extend_from_slice(&entry.hash.to_be_bytes());
        bytes.extend_from_slice(&entry.seq.to_be_bytes());
    }
    batch.put_parts(&bucket_key(run, bucket), &codec::encode(&ByteSlice(&bytes)));
}

/// Reads the entries of a bucket; `None` where the run was removed.
fn read_bucket(
    store: &dyn KvStore,
    run: u32,
    bucket: u32,
) -> Result<Option<Vec<IndexEntry>>, StoreError> {
    let Some(value) = get_parts(store, &bucket_key(run, bucket))? else {
        return Ok(None);
    };
    let bytes: &[u8] =
        codec::decode(&value).map_err(|why| corrupt("where ended tasks lie", why))?;
    let entries = bytes
        .chunks_exact(IndexEntry::BYTES)
        .map(|entry| IndexEntry {
            hash: big_endian(&entry[..8]),
            seq: big_endian(&entry[8..]),
        });
    Ok(Some(entries.collect()))
}

fn missing_bucket(run: u32) -> StoreError {
    StoreError::Corrupt {
        path: "the view".into(),
        why: format!("where ended tasks lie: a part of run {run} is missing"),
    }
}

/// Adds the entries of a fold to the index, and does a part of the merges that are due.
pub(super) fn add(
    store: &dyn KvStore,
    new: &mut [IndexEntry],
    batch: &mut WriteBatch,
) -> Result<(), StoreError> {
    let mut runs = IndexRuns::read(store)?;
    if new.is_empty() && runs.is_idle() {
        return Ok(());
    }

    merging::merge(store, &mut runs, new.len(), batch)?;
    if !new.is_empty() {
        let run = put_new_run(&mut runs, new, batch);
        runs.runs.push(run);
    }
    batch.put_parts(RUNS_KEY, &codec::encode(&runs));
    Ok(())
}

/// Sorts the new entries and writes them as a run of the lowest level.
fn put_new_run(runs: &mut IndexRuns, new: &mut [IndexEntry], batch: &mut WriteBatch) -> IndexRun {
    new.sort_unstable();
    let run = runs.new_run(0, new.len() as u64);
    let mut rest = &*new;
    for bucket in 0..1u32 << run.bucket_bits {
        let count = rest.partition_point(|entry| bucket_of(entry.hash, run.bucket_bits) <= bucket);
        let (entries, behind) = rest.split_at(count);
        put_bucket(batch, run.number, bucket, entries);
        rest = behind;
    }
    run
}
