//! Looking up an id in the index of ended tasks.

use super::{IndexEntry, IndexRun, IndexRuns, bucket_of, hash_of, missing_bucket, read_bucket};
use crate::kv::{KvStore, StoreError};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use taskmaster_protocol::TaskId;

/// 64-bit words of a bucket's filter. With 140 entries each has 11 bits, and one answer in 200 is
/// wrong.
const FILTER_WORDS: usize = 24;

/// Bits that an entry sets in a filter.
const BITS_OF_AN_ENTRY: u64 = 6;

/// A Bloom filter of the hashes in a bucket.
#[derive(Debug, Clone)]
struct BucketFilter([u64; FILTER_WORDS]);

/// One bit of a filter.
struct FilterBit {
    word: usize,
    mask: u64,
}

impl BucketFilter {
    fn new(entries: &[IndexEntry]) -> BucketFilter {
        let mut words = [0; FILTER_WORDS];
        for bit in entries.iter().flat_map(|entry| bits_of(entry.hash)) {
            words[bit.word] |= bit.mask;
        }
        BucketFilter(words)
    }

    fn may_contain(&self, hash: u64) -> bool {
        bits_of(hash).all(|bit| self.0[bit.word] & bit.mask != 0)
    }
}

/// The bits of a hash in a filter. They are computed from the hash's last bits, because the first bits
/// have chosen the bucket.
fn bits_of(hash: u64) -> impl Iterator<Item = FilterBit> {
    let start = hash & 0xffff_ffff;
    let step = (hash >> 16) & 0xffff | 1;
    (0..BITS_OF_AN_ENTRY).map(move |index| {
        let bit = (start + index * step) % (FILTER_WORDS as u64 * 64);
        FilterBit {
            word: (bit / 64) as usize,
            mask: 1 << (bit % 64),
        }
    })
}

/// A filter for each bucket of a run; `None` for a bucket that was not read yet.
type RunFilters = Vec<Option<Box<BucketFilter>>>;

/// A run with the filters of its buckets.
#[derive(Debug)]
struct FilteredRun {
    run: IndexRun,
    /// Empty where no filters are kept.
    filters: RunFilters,
}

/// What a look-up has found in the runs that were listed.
enum Found {
    /// The seqs of the hash.
    Seqs(Vec<u64>),
    /// A run has no such bucket: it was merged and removed since the list of runs was read, or the
    /// bucket is lost.
    MissingBucket {
        /// The number of the run.
        run: u32,
    },
}

/// The index of ended tasks, as it was when the list of runs was read last.
#[derive(Debug, Default)]
pub struct EndedIndex {
    runs: Vec<FilteredRun>,
    /// Whether a filter is kept of each bucket that was read.
    keeps_filters: bool,
}

impl EndedIndex {
    /// An index for a single look-up.
    pub(in crate::view) fn without_filters(store: &dyn KvStore) -> Result<EndedIndex, StoreError> {
        let mut index = EndedIndex::default();
        index.renew(store)?;
        Ok(index)
    }

    /// An index for many look-ups.
    pub fn with_filters(store: &dyn KvStore) -> Result<EndedIndex, StoreError> {
        let mut index = EndedIndex {
            keeps_filters: true,
            ..EndedIndex::default()
        };
        index.renew(store)?;
        Ok(index)
    }

    /// Reads the list of runs again. This must follow each fold, because a look-up finds nothing in
    /// runs that are not listed.
    pub fn renew(&mut self, store: &dyn KvStore) -> Result<(), StoreError> {
        // Where the list cannot be read, the old one stays: without a list, every id would be new.
        let listed = IndexRuns::read(store)?.runs;
        let mut known: BTreeMap<u32, RunFilters> = std::mem::take(&mut self.runs)
            .into_iter()
            .map(|known| (known.run.number, known.filters))
            .collect();
        for run in listed {
            let buckets = if self.keeps_filters {
                1 << run.bucket_bits
            } else {
                0
            };
            let filters = known
                .remove(&run.number)
                .unwrap_or_else(|| vec![None; buckets]);
            self.runs.push(FilteredRun { run, filters });
        }
        Ok(())
    }

    /// The seqs under which the task `id` may lie, the newest first. There may be several: when the
    /// power fails, a task that was being pruned may come back, and by then its id may belong to
    /// another task.
    pub(in crate::view) fn find(
        &mut self,
        store: &dyn KvStore,
        id: &TaskId,
    ) -> Result<Vec<u64>, StoreError> {
        let hash = hash_of(id);
        loop {
            match self.find_in_listed_runs(store, hash)? {
                Found::Seqs(mut seqs) => {
                    seqs.sort_unstable_by_key(|seq| Reverse(*seq));
                    return Ok(seqs);
                }
                Found::MissingBucket { run } => {
                    self.renew(store)?;
                    // A run is listed no longer before its buckets are removed.
                    if self.runs.iter().any(|listed| listed.run.number == run) {
                        return Err(missing_bucket(run));
                    }
                }
            }
        }
    }

    fn find_in_listed_runs(&mut self, store: &dyn KvStore, hash: u64) -> Result<Found, StoreError> {
        let mut seqs = Vec::new();
        for FilteredRun { run, filters } in &mut self.runs {
            let bucket = bucket_of(hash, run.bucket_bits);
            let filter = filters.get_mut(bucket as usize);
            if let Some(Some(filter)) = &filter
                && !filter.may_contain(hash)
            {
                continue;
            }

            let Some(entries) = read_bucket(store, run.number, bucket)? else {
                return Ok(Found::MissingBucket { run: run.number });
            };
            let found = entries.iter().filter(|entry| entry.hash == hash);
            seqs.extend(found.map(|entry| entry.seq));
            if let Some(filter @ None) = filter {
                *filter = Some(Box::new(BucketFilter::new(&entries)));
            }
        }
        Ok(Found::Seqs(seqs))
    }
}
