//! Where changes become durable: a dense series of commits, each one packed, checksummed entry.
//!
//! The journal is also the log of events: an entry knows the seq of its first event. It decides
//! nothing; the trait is the seam behind which a replicated log can stand.

mod synced;

pub use synced::SyncedMark;

use crate::codec::{self, Unreadable};
use crate::kv::{Batch, Reader, StoreError, part_key};
use crate::record::Entry;

/// Where a commit's parts are kept: `J`, the commit's number, the part's number.
const JOURNAL: u8 = b'J';

/// Why a commit is not known to be durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another master has written in between: this one leads no longer.
    #[error("another master has taken over")]
    Fenced,
    /// It may be durable or not: the core and its effects are void, the journal has the truth.
    #[error("{0}")]
    Unknown(String),
    /// It is not durable, and may be tried again later.
    #[error("{0}")]
    Unavailable(String),
}

/// A durable series of commits, numbered from 1.
pub trait Journal: Send {
    /// Writes `entry` as commit number `expected`, which must be the next one.
    fn append(&mut self, expected: u64, entry: &[u8]) -> Result<(), AppendError>;

    /// Every commit written before is durable when this returns. After an error nothing is known of
    /// them.
    fn sync(&mut self) -> Result<(), AppendError>;

    /// The number of the last commit; 0: there is none.
    fn end(&self) -> u64;

    /// Lets go of commits below `commit`.
    fn trim(&mut self, below: u64) -> Result<(), StoreError>;
}

/// The journal on a [`crate::kv::Shelf`]: each commit is one batch.
pub struct ShelfJournal {
    shelf: Reader,
    end: u64,
    /// Where it says how far it is durable; a store in memory has none.
    mark: Option<SyncedMark>,
}

impl ShelfJournal {
    /// Finds the end of the journal on `shelf`.
    pub fn open(shelf: Reader) -> Result<ShelfJournal, StoreError> {
        let end = last(&shelf)?;
        Ok(ShelfJournal {
            shelf,
            end,
            mark: None,
        })
    }

    /// The same, which notes after each sync how far it is durable.
    pub fn noting(self, mark: SyncedMark) -> ShelfJournal {
        ShelfJournal {
            mark: Some(mark),
            ..self
        }
    }
}

impl Journal for ShelfJournal {
    fn append(&mut self, expected: u64, entry: &[u8]) -> Result<(), AppendError> {
        if expected != self.end + 1 {
            return Err(AppendError::Fenced);
        }
        let mut batch = Batch::default();
        batch.put_parts(&key(expected), entry);
        self.shelf.write(batch).map_err(|error| match error {
            StoreError::Full(why) => AppendError::Unavailable(why),
            other => unknown(other),
        })?;
        self.end = expected;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        self.shelf.sync().map_err(unknown)?;
        if let Some(mark) = &mut self.mark {
            mark.set(self.end);
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.end
    }

    fn trim(&mut self, below: u64) -> Result<(), StoreError> {
        trim(&self.shelf, below)
    }
}

fn unknown(error: StoreError) -> AppendError {
    AppendError::Unknown(error.to_string())
}

fn key(commit: u64) -> Vec<u8> {
    let mut key = vec![JOURNAL];
    key.extend_from_slice(&commit.to_be_bytes());
    key
}

fn commit_of(key: &[u8]) -> u64 {
    key.get(1..9)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

/// Whether a key of the store belongs to a commit after this one.
pub fn is_after(stored: &[u8], commit: u64) -> bool {
    stored.first() == Some(&JOURNAL) && commit_of(stored) > commit
}

/// The bytes of one commit.
pub fn read(shelf: &Reader, commit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    crate::kv::get_parts(shelf.as_ref(), &key(commit))
}

/// One commit, decoded. A damaged one is an error that names it.
pub fn entry(shelf: &Reader, commit: u64) -> Result<Option<Entry>, StoreError> {
    let Some(bytes) = read(shelf, commit)? else {
        return Ok(None);
    };
    let damaged = |why: Unreadable| StoreError::Corrupt {
        path: "the journal".into(),
        why: format!("commit {commit}: {why}"),
    };
    codec::decode(&bytes).map(Some).map_err(damaged)
}

/// The number of the first commit that is kept; `None`: there is none.
pub fn first(shelf: &Reader) -> Result<Option<u64>, StoreError> {
    Ok(shelf
        .scan(&[JOURNAL], &[JOURNAL + 1], false, 1)?
        .first()
        .map(|(key, _)| commit_of(key)))
}

/// The number of the last commit; 0: there is none.
pub fn last(shelf: &Reader) -> Result<u64, StoreError> {
    Ok(shelf
        .scan(&[JOURNAL], &[JOURNAL + 1], true, 1)?
        .first()
        .map_or(0, |(key, _)| commit_of(key)))
}

/// The number of the last commit whose first event is not after `seq`. Entries are dense in their
/// number and ordered in their seq, so it is found by halving.
pub fn commit_at(shelf: &Reader, seq: u64) -> Result<u64, StoreError> {
    let (mut low, mut high) = (first(shelf)?.unwrap_or(1), last(shelf)?);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match entry(shelf, middle)? {
            Some(entry) if entry.first_seq <= seq => low = middle,
            _ => high = middle - 1,
        }
    }
    Ok(low)
}

/// Lets go of commits below `below`, a few thousand parts in a batch. No sync: after a crash they
/// are trimmed again.
pub fn trim(shelf: &Reader, below: u64) -> Result<(), StoreError> {
    loop {
        let parts = shelf.scan(&part_key(&key(0), 0), &key(below), false, 4_096)?;
        if parts.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        parts.into_iter().for_each(|(key, _)| batch.remove(key));
        shelf.write(batch)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::memory::MemoryShelf;
    use std::sync::Arc;

    #[test]
    fn commits_are_dense_survive_and_are_trimmed() {
        let memory = Arc::new(MemoryShelf::default());
        let shelf: Reader = memory.clone();
        let mut journal = ShelfJournal::open(shelf.clone()).unwrap();
        let long = vec![7u8; 10_000];
        journal.append(1, b"one").unwrap();
        journal.append(2, &long).unwrap();
        journal.sync().unwrap();
        assert_eq!(journal.append(2, b"again"), Err(AppendError::Fenced));
        memory.crash(0);
        let mut journal = ShelfJournal::open(shelf.clone()).unwrap();
        assert_eq!((journal.end(), read(&shelf, 2).unwrap()), (2, Some(long)));
        memory.fail_syncs(true);
        journal.append(3, b"three").unwrap();
        assert!(matches!(journal.sync(), Err(AppendError::Unknown(_))));
        trim(&shelf, 2).unwrap();
        assert_eq!(
            (first(&shelf).unwrap(), read(&shelf, 1).unwrap()),
            (Some(2), None)
        );
    }
}
