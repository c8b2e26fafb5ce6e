//! Merging of runs. Each fold does a part of it, so that no fold takes long.

use super::super::{ENDED, block};
use super::{
    IndexEntry, IndexRun, IndexRuns, bucket_of, missing_bucket, put_bucket, read_bucket, run_key,
};
use crate::kv::{KvStore, StoreError, WriteBatch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Runs of one level that are merged into one run of the next level.
const RUNS_OF_A_MERGE: usize = 4;

/// Entries that a merge moves with one fold, even where the fold adds none.
const MERGED_ENTRIES_MIN: usize = 512;

/// Keys of merged runs that one fold removes at least, where there are as many.
const REMOVED_KEYS_MIN: usize = 64;

/// A merge that is under way. Look-ups read its inputs until its last bucket is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RunMerge {
    /// The runs that are merged.
    inputs: Vec<IndexRun>,
    /// The run that is written. Its number of entries counts those that are written already.
    output: IndexRun,
    /// The number of the next bucket to write.
    next_bucket: u32,
}

impl RunMerge {
    fn is_complete(&self) -> bool {
        !self.output.has_bucket(self.next_bucket)
    }
}

/// Goes on with the merges that are under way, completes those that are written, removes buckets of
/// merged runs, and begins new merges. `new_entries` is the number of entries that the fold adds.
pub(super) fn merge(
    store: &dyn KvStore,
    runs: &mut IndexRuns,
    new_entries: usize,
    batch: &mut WriteBatch,
) -> Result<(), StoreError> {
    // Merges move twice as many entries as are added, so that no level falls behind.
    let entries_max = new_entries * 2 + MERGED_ENTRIES_MIN;
    let oldest_seq = block::at_or_after(store, ENDED, 0)?
        .and_then(|items| items.first().map(|item| item.number))
        .unwrap_or(u64::MAX);
    let mut buckets_written = 0;
    for merge in &mut runs.merges {
        buckets_written += advance(store, merge, entries_max, oldest_seq, batch)?;
    }

    complete(runs);
    let keys_max = buckets_written * 2 + REMOVED_KEYS_MIN;
    remove_merged(store, runs, keys_max, batch)?;
    begin(runs);
    Ok(())
}

/// The bucket of an input that was read last.
#[derive(Clone, Default)]
struct InputBucket {
    /// The bucket's number; `None` before the first one is read.
    number: Option<u32>,
    entries: Vec<IndexEntry>,
}

/// Writes the next buckets of a merge, until they hold `entries_max` entries. Entries with a seq below
/// `oldest_seq` are stale and are left out. Returns the number of buckets written.
fn advance(
    store: &dyn KvStore,
    merge: &mut RunMerge,
    entries_max: usize,
    oldest_seq: u64,
    batch: &mut WriteBatch,
) -> Result<usize, StoreError> {
    // Where an input has fewer buckets than the output, several of the output are read from one of the
    // input, so the last one of each is kept.
    let mut last_read = vec![InputBucket::default(); merge.inputs.len()];
    let mut buckets = 0;
    let mut entries_moved = 0;
    while entries_moved < entries_max && !merge.is_complete() {
        let mut entries = read_inputs(store, merge, &mut last_read)?;
        entries.retain(|entry| entry.seq >= oldest_seq);
        entries_moved += entries.len().max(reads_of_a_bucket(merge));
        entries.sort_unstable();
        let entries = without_stale(store, entries)?;

        merge.output.entries += entries.len() as u64;
        put_bucket(batch, merge.output.number, merge.next_bucket, &entries);
        merge.next_bucket += 1;
        buckets += 1;
    }
    Ok(buckets)
}

/// How many buckets are read for one of the output at most.
fn reads_of_a_bucket(merge: &RunMerge) -> usize {
    let buckets = |input: &IndexRun| buckets_behind(input, merge.output.bucket_bits, 0).len();
    merge.inputs.iter().map(buckets).sum()
}

/// The buckets of an input that hold the entries of a bucket of the output. The input has fewer buckets
/// than the output, or more where most of its tasks were pruned before it was written: then its
/// number of entries is small for its number of buckets.
fn buckets_behind(input: &IndexRun, output_bits: u8, bucket: u32) -> Range<u32> {
    match output_bits.checked_sub(input.bucket_bits) {
        Some(coarser_by) => {
            let number = bucket >> coarser_by;
            number..number + 1
        }
        None => {
            let finer_by = input.bucket_bits - output_bits;
            (bucket << finer_by)..((bucket + 1) << finer_by)
        }
    }
}

/// All entries of the inputs that belong into the next bucket of the output.
fn read_inputs(
    store: &dyn KvStore,
    merge: &RunMerge,
    last_read: &mut [InputBucket],
) -> Result<Vec<IndexEntry>, StoreError> {
    let output_bits = merge.output.bucket_bits;
    let mut found = Vec::new();
    for (input, last) in merge.inputs.iter().zip(last_read) {
        for number in buckets_behind(input, output_bits, merge.next_bucket) {
            if last.number != Some(number) {
                last.number = Some(number);
                last.entries = read_bucket(store, input.number, number)?
                    .ok_or_else(|| missing_bucket(input.number))?;
            }
            let belongs =
                |entry: &&IndexEntry| bucket_of(entry.hash, output_bits) == merge.next_bucket;
            found.extend(last.entries.iter().filter(belongs));
        }
    }
    Ok(found)
}

/// Removes the stale ones among several entries with one hash. An id whose task was reopened again
/// and again has left an entry each time. A lone entry is not looked up, because that would cost a
/// read for each.
fn without_stale(
    store: &dyn KvStore,
    entries: Vec<IndexEntry>,
) -> Result<Vec<IndexEntry>, StoreError> {
    if !entries
        .windows(2)
        .any(|neighbours| neighbours[0].hash == neighbours[1].hash)
    {
        return Ok(entries);
    }

    let mut kept = Vec::with_capacity(entries.len());
    for same_hash in entries.chunk_by(|one, next| one.hash == next.hash) {
        for entry in same_hash {
            if same_hash.len() == 1 || block::item(store, ENDED, entry.seq)?.is_some() {
                kept.push(*entry);
            }
        }
    }
    Ok(kept)
}

/// Lists the outputs of complete merges as runs, and their inputs as merged.
fn complete(runs: &mut IndexRuns) {
    let (complete, under_way): (Vec<RunMerge>, Vec<RunMerge>) = std::mem::take(&mut runs.merges)
        .into_iter()
        .partition(RunMerge::is_complete);
    runs.merges = under_way;
    for merge in complete {
        let inputs: Vec<u32> = merge.inputs.iter().map(|input| input.number).collect();
        runs.runs.retain(|run| !inputs.contains(&run.number));
        runs.merged.extend(inputs);
        runs.runs.push(merge.output);
    }
}

/// Removes buckets of merged runs, with at most `keys_max` keys.
fn remove_merged(
    store: &dyn KvStore,
    runs: &mut IndexRuns,
    keys_max: usize,
    batch: &mut WriteBatch,
) -> Result<(), StoreError> {
    let mut keys_left = keys_max;
    while let Some(run) = runs.merged.first().copied() {
        let pairs = store.scan(&run_key(run), &run_key(run + 1), false, keys_left)?;
        keys_left -= pairs.len();
        for pair in pairs {
            batch.remove(pair.key);
        }
        if keys_left == 0 {
            break;
        }
        runs.merged.remove(0);
    }
    Ok(())
}

/// Begins a merge on each level that has enough runs, unless one is under way there. All runs that are
/// listed at this moment are on disk.
fn begin(runs: &mut IndexRuns) {
    let mut levels: BTreeMap<u8, Vec<IndexRun>> = BTreeMap::new();
    for run in &runs.runs {
        levels.entry(run.level).or_default().push(run.clone());
    }
    for (level, inputs) in levels {
        let is_under_way = runs
            .merges
            .iter()
            .any(|merge| merge.output.level == level + 1);
        if inputs.len() < RUNS_OF_A_MERGE || is_under_way {
            continue;
        }

        let entries = inputs.iter().map(|input| input.entries).sum();
        let mut output = runs.new_run(level + 1, entries);
        output.entries = 0;
        runs.merges.push(RunMerge {
            inputs,
            output,
            next_bucket: 0,
        });
    }
}
