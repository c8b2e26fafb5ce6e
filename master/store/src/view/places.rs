//! Where an ended task lies: from its id to its seq, for as many tasks as there ever were, without
//! memory.
//!
//! Ids come in no order, and a store that must put each at a place of its own pays for each. So
//! every fold writes its ids together, as a *run*: hashes with their seqs, sorted, in buckets of a
//! hundred or so by the first bits of the hash. Four runs of a level are merged, a little with
//! every fold, into one of the next: ten million ids are in about twenty runs. A look-up reads one
//! bucket of each; who looks often keeps a filter of the buckets that it has read ([`Places`]), and
//! knows of most ids without reading that they are new.
//!
//! What is reopened or pruned stays here until runs are merged: a seq under which nothing is found
//! is stale.

use super::{block, corrupt};
use crate::codec;
use crate::kv::{Batch, Shelf, StoreError, get_parts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use taskmaster_protocol::{Hash, TaskId};

/// A hash of an id and the seq of its end.
type Place = (u64, u64);

const RUNS: &[u8] = b"!runs";

/// Runs of a level that are merged into one of the next.
const MERGED_RUNS: usize = 4;

/// The most entries that a bucket has on the average: it then is one part of a value, however the
/// hashes fall.
const BUCKET_ENTRIES: u64 = 140;

/// Keys of merged runs removed with one fold, at the least.
const REMOVED_MIN: usize = 64;

/// Words of a bucket's filter: at 140 entries 11 bits for each, one wrong answer in 200.
const FILTER_WORDS: usize = 24;

/// Bits of an entry in a filter.
const FILTER_PROBES: u64 = 6;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    no: u32,
    level: u8,
    /// It has two to the power of this many buckets.
    bits: u8,
    entries: u64,
}

/// A merge on its way. Its runs are read until the last bucket is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Merge {
    inputs: Vec<Run>,
    output: Run,
    /// The next bucket to write.
    bucket: u32,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Runs {
    next: u32,
    runs: Vec<Run>,
    merges: Vec<Merge>,
    /// Merged, and not yet removed.
    merged: Vec<u32>,
}

/// The hash by which an id is found. SHA-256, so that nobody can make many ids that meet in one
/// place.
pub(super) fn hash_of(id: &TaskId) -> u64 {
    Hash::of(id.as_str().as_bytes()).0[..8]
        .iter()
        .fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

fn bits_for(entries: u64) -> u8 {
    (0..32)
        .find(|bits| entries >> bits <= BUCKET_ENTRIES)
        .unwrap_or(31)
}

/// The first `bits` of a hash.
fn bucket_of(hash: u64, bits: u8) -> u32 {
    if bits == 0 {
        0
    } else {
        (hash >> (64 - bits)) as u32
    }
}

fn run_key(run: u32) -> Vec<u8> {
    let mut key = vec![b'i'];
    key.extend_from_slice(&run.to_be_bytes());
    key
}

fn bucket_key(run: u32, bucket: u32) -> Vec<u8> {
    let mut key = run_key(run);
    key.extend_from_slice(&bucket.to_be_bytes());
    key
}

fn put_bucket(batch: &mut Batch, run: u32, bucket: u32, places: &[Place]) {
    let mut bytes = Vec::with_capacity(places.len() * 16);
    for (hash, seq) in places {
        bytes.extend_from_slice(&hash.to_be_bytes());
        bytes.extend_from_slice(&seq.to_be_bytes());
    }
    // A bucket without entries is written too: one that is missing belongs to a run that is gone.
    batch.put_parts(
        &bucket_key(run, bucket),
        &codec::encode(&block::Bytes(&bytes)),
    );
}

fn bucket(shelf: &dyn Shelf, run: u32, bucket: u32) -> Result<Option<Vec<Place>>, StoreError> {
    let Some(value) = get_parts(shelf, &bucket_key(run, bucket))? else {
        return Ok(None);
    };
    let bytes: &[u8] =
        codec::decode(&value).map_err(|why| corrupt("where ended tasks lie", why))?;
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |number, byte| (number << 8) | u64::from(*byte))
    };
    Ok(Some(
        bytes
            .chunks_exact(16)
            .map(|entry| (number(&entry[..8]), number(&entry[8..])))
            .collect(),
    ))
}

fn runs(shelf: &dyn Shelf) -> Result<Runs, StoreError> {
    Ok(super::one(shelf, RUNS, "the list of runs")?.unwrap_or_default())
}

/// Takes a fold's new places in, and goes on with merges. `ended` is the prefix of the blocks of
/// ended tasks.
pub(super) fn add(
    shelf: &dyn Shelf,
    new: &mut [Place],
    ended: u8,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    let mut state = runs(shelf)?;
    if new.is_empty() && state.merges.is_empty() && state.merged.is_empty() {
        return Ok(());
    }
    let mut written = 0;
    // Twice as fast as new runs come: no level falls behind.
    let budget = new.len() * 2 + 512;
    let oldest =
        block::at_or_after(shelf, ended, 0)?.and_then(|items| items.first().map(|(seq, _)| *seq));
    for merge in &mut state.merges {
        written += advance(
            shelf,
            merge,
            budget,
            oldest.unwrap_or(u64::MAX),
            ended,
            batch,
        )?;
    }
    let (over, going) = state
        .merges
        .into_iter()
        .partition(|merge| merge.bucket >> merge.output.bits != 0);
    state.merges = going;
    for merge in over {
        state
            .runs
            .retain(|run| !merge.inputs.iter().any(|input| input.no == run.no));
        state
            .merged
            .extend(merge.inputs.iter().map(|input| input.no));
        state.runs.push(merge.output);
    }
    remove_merged(shelf, &mut state, written * 2 + REMOVED_MIN, batch)?;
    start_merges(&mut state);
    if !new.is_empty() {
        new.sort_unstable();
        let run = state.run(0, new.len() as u64);
        let mut rest = &*new;
        for bucket in 0..1u32 << run.bits {
            let here = rest.partition_point(|(hash, _)| bucket_of(*hash, run.bits) <= bucket);
            put_bucket(batch, run.no, bucket, &rest[..here]);
            rest = &rest[here..];
        }
        state.runs.push(run);
    }
    batch.put_parts(RUNS, &codec::encode(&state));
    Ok(())
}

impl Runs {
    fn run(&mut self, level: u8, entries: u64) -> Run {
        self.next += 1;
        Run {
            no: self.next,
            level,
            bits: bits_for(entries),
            entries,
        }
    }
}

/// Begins the merge of each level that has enough runs, all of which are on disk.
fn start_merges(state: &mut Runs) {
    let mut levels: BTreeMap<u8, Vec<Run>> = BTreeMap::new();
    for run in &state.runs {
        levels.entry(run.level).or_default().push(run.clone());
    }
    for (level, inputs) in levels {
        let is_going = state
            .merges
            .iter()
            .any(|merge| merge.output.level == level + 1);
        if inputs.len() >= MERGED_RUNS && !is_going {
            let output = state.run(level + 1, inputs.iter().map(|input| input.entries).sum());
            state.merges.push(Merge {
                inputs,
                output: Run {
                    entries: 0,
                    ..output
                },
                bucket: 0,
            });
        }
    }
}

/// Writes some buckets of a merge; how many.
fn advance(
    shelf: &dyn Shelf,
    merge: &mut Merge,
    budget: usize,
    oldest: u64,
    ended: u8,
    batch: &mut Batch,
) -> Result<usize, StoreError> {
    // The bucket of each input that was read last: an input has fewer buckets than the output.
    let mut read: Vec<(u32, Vec<Place>)> = vec![(u32::MAX, Vec::new()); merge.inputs.len()];
    let (mut buckets, mut entries) = (0, 0);
    while entries < budget && merge.bucket >> merge.output.bits == 0 {
        let mut places: Vec<Place> = Vec::new();
        for (input, last) in merge.inputs.iter().zip(&mut read) {
            let from = merge.bucket >> (merge.output.bits - input.bits);
            if last.0 != from {
                *last = (from, bucket(shelf, input.no, from)?.unwrap_or_default());
            }
            let here = last
                .1
                .iter()
                .filter(|(hash, _)| bucket_of(*hash, merge.output.bits) == merge.bucket);
            places.extend(here.filter(|(_, seq)| *seq >= oldest));
        }
        entries += places.len().max(1);
        places.sort_unstable();
        let places = without_stale(shelf, places, ended)?;
        merge.output.entries += places.len() as u64;
        put_bucket(batch, merge.output.no, merge.bucket, &places);
        merge.bucket += 1;
        buckets += 1;
    }
    Ok(buckets)
}

/// Of several entries of one hash, those under which there is something: an id that was opened
/// again and again has left one each time.
fn without_stale(
    shelf: &dyn Shelf,
    places: Vec<Place>,
    ended: u8,
) -> Result<Vec<Place>, StoreError> {
    if !places.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Ok(places);
    }
    let mut kept = Vec::with_capacity(places.len());
    for (index, place) in places.iter().enumerate() {
        let twin = |other: Option<&Place>| other.is_some_and(|other| other.0 == place.0);
        let alone = !twin(places.get(index + 1))
            && !twin(index.checked_sub(1).and_then(|before| places.get(before)));
        if alone || block::item(shelf, ended, place.1)?.is_some() {
            kept.push(*place);
        }
    }
    Ok(kept)
}

fn remove_merged(
    shelf: &dyn Shelf,
    state: &mut Runs,
    most: usize,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    let mut left = most;
    while let Some(run) = state.merged.first().copied() {
        let keys = shelf.scan(&run_key(run), &run_key(run + 1), false, left)?;
        left -= keys.len();
        keys.into_iter().for_each(|(key, _)| batch.remove(key));
        if left == 0 {
            break;
        }
        state.merged.remove(0);
    }
    Ok(())
}

/// The runs as one who looks often knows them, with the filters of the buckets that it has read.
#[derive(Debug, Default)]
pub struct Places {
    runs: Vec<(Run, Vec<Option<Box<Filter>>>)>,
    filters: bool,
}

type Filter = [u64; FILTER_WORDS];

impl Places {
    /// For one look-up.
    pub(super) fn once(shelf: &dyn Shelf) -> Result<Places, StoreError> {
        let mut places = Places::default();
        places.renew(shelf)?;
        Ok(places)
    }

    /// For many.
    pub fn with_filters(shelf: &dyn Shelf) -> Result<Places, StoreError> {
        let mut places = Places {
            filters: true,
            ..Places::default()
        };
        places.renew(shelf)?;
        Ok(places)
    }

    /// The view has been folded.
    pub fn renew(&mut self, shelf: &dyn Shelf) -> Result<(), StoreError> {
        let mut known: BTreeMap<u32, _> = std::mem::take(&mut self.runs)
            .into_iter()
            .map(|(run, filters)| (run.no, filters))
            .collect();
        for run in runs(shelf)?.runs {
            let buckets = if self.filters { 1 << run.bits } else { 0 };
            let filters = known.remove(&run.no).unwrap_or_else(|| vec![None; buckets]);
            self.runs.push((run, filters));
        }
        Ok(())
    }

    /// The seqs under which a task with this hash may lie, the newest first: what was to be pruned
    /// when the power went is there again, and its id may mean another task since.
    pub(super) fn find(&mut self, shelf: &dyn Shelf, hash: u64) -> Result<Vec<u64>, StoreError> {
        loop {
            if let Some(mut found) = self.look(shelf, hash)? {
                found.sort_unstable_by_key(|seq| std::cmp::Reverse(*seq));
                return Ok(found);
            }
            // A run was merged and removed since.
            self.renew(shelf)?;
        }
    }

    fn look(&mut self, shelf: &dyn Shelf, hash: u64) -> Result<Option<Vec<u64>>, StoreError> {
        let mut found = Vec::new();
        for (run, filters) in &mut self.runs {
            let at = bucket_of(hash, run.bits);
            let filter = filters.get_mut(at as usize);
            if let Some(Some(filter)) = &filter
                && !probes(hash).all(|(word, bit)| filter[word] & bit != 0)
            {
                continue;
            }
            let Some(places) = bucket(shelf, run.no, at)? else {
                return Ok(None);
            };
            found.extend(
                places
                    .iter()
                    .filter(|(other, _)| *other == hash)
                    .map(|(_, seq)| *seq),
            );
            if let Some(filter @ None) = filter {
                let mut bits = Box::new([0; FILTER_WORDS]);
                places
                    .iter()
                    .flat_map(|(hash, _)| probes(*hash))
                    .for_each(|(word, bit)| bits[word] |= bit);
                *filter = Some(bits);
            }
        }
        Ok(Some(found))
    }
}

/// The bits of a hash in a filter. The first bits of the hash chose the bucket: these are from its
/// end.
fn probes(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let (start, step) = (hash & 0xffff_ffff, (hash >> 16) & 0xffff | 1);
    (0..FILTER_PROBES).map(move |n| {
        let bit = (start + n * step) % (FILTER_WORDS as u64 * 64);
        ((bit / 64) as usize, 1 << (bit % 64))
    })
}
