//! The journal makes changes durable. It is a dense series of commits, and each commit is one
//! encoded [`JournalEntry`].
//!
//! The journal is also the log of events, because an entry holds the seq of its first event. The
//! journal decides nothing. Behind its trait a replicated log could stand.

mod synced;

pub use synced::SyncedMark;

use crate::codec::{self, DecodeError};
use crate::kv::{SharedStore, StoreError, WriteBatch, part_key};
use crate::record::JournalEntry;
use std::fmt::Display;

/// Prefix of the keys of commits: `J`, the commit's number, the part's number.
pub(crate) const JOURNAL: u8 = b'J';

/// Why a commit is not known to be durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another master has written the commit, so this master leads no longer.
    #[error("another master has taken over")]
    Fenced,
    /// The commit may be durable or not. The core and its effects are void, and only the journal
    /// knows what happened.
    #[error("{0}")]
    Unknown(String),
    /// The commit is not durable, and may be tried again later.
    #[error("{0}")]
    Unavailable(String),
}

/// A durable series of commits, numbered from 1.
pub trait Journal: Send {
    /// Writes `entry` as commit number `expected`, which must be the next one.
    fn append(&mut self, expected: u64, entry: &[u8]) -> Result<(), AppendError>;

    /// Makes every earlier commit durable before it returns. After an error nobody knows which of
    /// them are durable.
    fn sync(&mut self) -> Result<(), AppendError>;

    /// The number of the last commit; 0 where there is none.
    fn end(&self) -> u64;

    /// Removes commits with a number below `below`.
    fn trim(&mut self, below: u64) -> Result<(), StoreError>;
}

/// The journal on a [`KvStore`](crate::kv::KvStore), where each commit is one batch.
pub struct KvJournal {
    store: SharedStore,
    /// The number of the last commit; 0 where there is none.
    end: u64,
    /// The file that holds the number of the last durable commit; `None` for a store in memory.
    mark: Option<SyncedMark>,
}

impl KvJournal {
    /// Finds the end of the journal on `store`.
    pub fn open(store: SharedStore) -> Result<KvJournal, StoreError> {
        let end = last(&store)?;
        Ok(KvJournal {
            store,
            end,
            mark: None,
        })
    }

    /// This journal, which from now on writes to `mark` after each sync how far it is durable.
    pub fn with_synced_mark(self, mark: SyncedMark) -> KvJournal {
        KvJournal {
            mark: Some(mark),
            ..self
        }
    }
}

impl Journal for KvJournal {
    fn append(&mut self, expected: u64, entry: &[u8]) -> Result<(), AppendError> {
        if expected != self.end + 1 {
            return Err(AppendError::Fenced);
        }
        let mut batch = WriteBatch::default();
        batch.put_parts(&key(expected), entry);
        self.store.write(batch).map_err(|error| match error {
            StoreError::Full(why) => AppendError::Unavailable(why),
            other => unknown(other),
        })?;
        self.end = expected;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        self.store.sync().map_err(unknown)?;
        if let Some(mark) = &mut self.mark {
            mark.set(self.end);
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.end
    }

    fn trim(&mut self, below: u64) -> Result<(), StoreError> {
        trim(&self.store, below)
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

/// Whether a key of the store belongs to a commit with a number above `commit`.
pub fn is_key_after(key: &[u8], commit: u64) -> bool {
    key.first() == Some(&JOURNAL) && commit_of(key) > commit
}

/// The encoded entry of one commit; `None` where the journal does not have the commit.
pub fn read(store: &SharedStore, commit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    crate::kv::get_parts(store.as_ref(), &key(commit))
}

/// The entry of one commit; `None` where the journal does not have the commit. A damaged entry is an
/// error that names the commit.
pub fn entry(store: &SharedStore, commit: u64) -> Result<Option<JournalEntry>, StoreError> {
    let Some(bytes) = read(store, commit)? else {
        return Ok(None);
    };
    decode(commit, &bytes).map(Some)
}

/// The entry of a commit from what [`read`] gives. A damaged entry is an error that names the commit.
pub fn decode(commit: u64, bytes: &[u8]) -> Result<JournalEntry, StoreError> {
    codec::decode(bytes).map_err(|why: DecodeError| damaged(commit, why))
}

pub(crate) fn damaged(commit: u64, why: impl Display) -> StoreError {
    StoreError::Corrupt {
        path: "the journal".into(),
        why: format!("commit {commit}: {why}"),
    }
}

/// The number of the first commit that was not removed; `None` where there is none.
pub fn first(store: &SharedStore) -> Result<Option<u64>, StoreError> {
    Ok(store
        .scan(&[JOURNAL], &[JOURNAL + 1], false, 1)?
        .first()
        .map(|pair| commit_of(&pair.key)))
}

/// The number of the last commit; 0 where there is none.
pub fn last(store: &SharedStore) -> Result<u64, StoreError> {
    Ok(store
        .scan(&[JOURNAL], &[JOURNAL + 1], true, 1)?
        .first()
        .map_or(0, |pair| commit_of(&pair.key)))
}

/// Checks that the journal ends with the commit `folded`, up to which a view was folded. A fold that
/// finds no next commit is at the journal's end, unless commits are missing.
pub(crate) fn expect_end(store: &SharedStore, folded: u64) -> Result<(), StoreError> {
    let last = last(store)?;
    if last > folded {
        return Err(damaged(folded + 1, "it is missing"));
    }
    if last < folded {
        let why = format!("it ends at commit {last}, and the view at commit {folded}");
        return Err(StoreError::Corrupt {
            path: "the journal".into(),
            why,
        });
    }
    Ok(())
}

/// Reads the whole journal: every commit must be there, as it was written.
pub fn verify(store: &SharedStore) -> Result<(), StoreError> {
    let Some(first) = first(store)? else {
        return Ok(());
    };
    for commit in first..=last(store)? {
        let Some(bytes) = read(store, commit)? else {
            return Err(damaged(commit, "it is missing"));
        };
        codec::check(&bytes).map_err(|why| damaged(commit, why))?;
    }
    Ok(())
}

/// The number of the last commit whose first event is not after `seq`. Commits have dense numbers
/// and ascending seqs, so that a binary search finds it.
pub fn commit_at(store: &SharedStore, seq: u64) -> Result<u64, StoreError> {
    let mut low = first(store)?.unwrap_or(1);
    let mut high = last(store)?;
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match entry(store, middle)? {
            Some(entry) if entry.first_seq <= seq => low = middle,
            Some(_) | None => high = middle - 1,
        }
    }
    Ok(low)
}

/// Removes commits with a number below `below`. Nothing is synced, because after a crash the commits
/// are removed again.
pub fn trim(store: &SharedStore, below: u64) -> Result<(), StoreError> {
    /// Parts of commits that are removed in one batch.
    const PARTS_OF_A_BATCH: usize = 4_096;

    loop {
        let mut parts = store.scan(&part_key(&key(0), 0), &key(below), false, PARTS_OF_A_BATCH)?;
        let Some(last) = parts.last() else {
            return Ok(());
        };
        // No commit loses only some of its parts, because a crash between two batches would leave
        // the others behind, and half a commit looks like a damaged one.
        let mut behind = last.key.clone();
        behind.push(0);
        let end = key(commit_of(&last.key) + 1);
        parts.extend(store.scan(&behind, &end, false, usize::MAX)?);
        let mut batch = WriteBatch::default();
        for part in parts {
            batch.remove(part.key);
        }
        store.write(batch)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::memory::MemoryStore;
    use std::sync::Arc;

    #[test]
    fn commits_are_dense_survive_and_are_trimmed() {
        let memory = Arc::new(MemoryStore::default());
        let store: SharedStore = memory.clone();
        let mut journal = KvJournal::open(store.clone()).unwrap();
        let long = vec![7u8; 10_000];
        journal.append(1, b"one").unwrap();
        journal.append(2, &long).unwrap();
        journal.sync().unwrap();
        assert_eq!(journal.append(2, b"again"), Err(AppendError::Fenced));
        memory.crash(0);
        let mut journal = KvJournal::open(store.clone()).unwrap();
        assert_eq!((journal.end(), read(&store, 2).unwrap()), (2, Some(long)));
        memory.fail_syncs(true);
        journal.append(3, b"three").unwrap();
        assert!(matches!(journal.sync(), Err(AppendError::Unknown(_))));
        trim(&store, 2).unwrap();
        assert_eq!(
            (first(&store).unwrap(), read(&store, 1).unwrap()),
            (Some(2), None)
        );
    }
}
