//! The seam to the disk: an ordered map of bytes with atomic batches, and one call that makes
//! earlier writes durable. Journal and view are written over it. [`sled`] keeps the map on a disk,
//! [`memory`] keeps it in memory for tests, and
//! [`salvage`] reads what is left of a damaged one.

pub mod memory;
pub mod salvage;
pub mod sled;

use std::path::PathBuf;
use std::sync::Arc;

/// The store as the gateway's threads, the fold and the engine share it for reading. Readers never
/// see a commit that is not written yet.
pub type SharedStore = Arc<dyn KvStore>;

/// A key with its value, as a scan returns them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key, with its prefix and its part number.
    pub key: Vec<u8>,
    /// The value, at most [`VALUE_BYTES_MAX`] long.
    pub value: Vec<u8>,
}

/// What a batch does to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchEntry {
    /// The whole key, with its prefix and its part number.
    pub key: Vec<u8>,
    /// The new value; `None` removes the key.
    pub value: Option<Vec<u8>>,
}

/// Changes that happen together or not at all. Of two entries with one key, the later counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// The changes, in the order in which they were asked for.
    pub entries: Vec<BatchEntry>,
}

impl WriteBatch {
    /// Writes a value of at most [`VALUE_BYTES_MAX`].
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.entries.push(BatchEntry {
            key,
            value: Some(value),
        });
    }

    /// Removes a key.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.entries.push(BatchEntry { key, value: None });
    }

    /// The bytes of all keys and values in the batch.
    pub fn bytes(&self) -> usize {
        self.entries
            .iter()
            .map(|entry| entry.key.len() + entry.value.as_ref().map_or(0, Vec::len))
            .sum()
    }

    /// Writes a value of any size in parts. The key of each part is `key` with the part's number
    /// behind it.
    pub fn put_parts(&mut self, key: &[u8], value: &[u8]) {
        for (part, bytes) in value.chunks(VALUE_BYTES_MAX).enumerate() {
            self.put(part_key(key, part), bytes.to_vec());
        }
    }
}

/// The largest value that is written under one key. sled puts values of 8 KiB and more into files
/// of their own, which the sync of its main file does not cover; at 4 KiB no such file appears.
pub const VALUE_BYTES_MAX: usize = 4_000;

/// The key of one part of a larger value. The part's number takes two bytes, so that a value has
/// 256 MiB at most.
pub fn part_key(key: &[u8], part: usize) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 2);
    full.extend_from_slice(key);
    full.extend_from_slice(&u16::try_from(part).unwrap_or(u16::MAX).to_be_bytes());
    full
}

/// Why the store did not do what it was asked to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error(
        "the store in {0} is in use by another master: stop that one, or give this one another --data folder"
    )]
    Locked(String),
    /// The store cannot be opened, or its content cannot be decoded.
    #[error(
        "the store in {path} cannot be used: {why}. No task in it was changed. `taskmaster store check` says more. Restore a copy of the folder (`taskmaster store backup` makes them), or take what is sound out of it with `taskmaster store export` and begin a new store with `store import`, or start with another --data folder"
    )]
    Corrupt {
        /// The store's folder, or the part of the store that is damaged.
        path: String,
        /// What is wrong with the content.
        why: String,
    },
    /// The store can be read, but its newest commits are missing. sled reads a log with a damaged
    /// end as a log that ends earlier, and does not complain.
    #[error(
        "the store in {path} has lost what was durable: it ends at commit {end}, and commit {synced} was written and synced. Its end was damaged or cut off, or an older copy was put in its place. Restore a copy of the folder that is whole, or take what is sound out of it with `taskmaster store export`; or, to go on without what is missing, remove {}",
        mark.display()
    )]
    Cut {
        /// The folder of the store, as text.
        path: String,
        /// The file that holds the number of the last durable commit.
        mark: PathBuf,
        /// The number of the last commit in the store.
        end: u64,
        /// The number of the last commit that was durable.
        synced: u64,
    },
    /// The disk has no free space. Nothing of the batch was written, and the write may be tried
    /// again.
    #[error("{0}")]
    Full(String),
    /// The disk or the operating system reported an error. Nobody knows whether the batch was
    /// written.
    #[error("the disk failed: {0}")]
    Failed(String),
}

/// An ordered map of bytes, on a disk or in memory.
pub trait KvStore: Send + Sync {
    /// The value of a key; `None` where the key does not exist.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The first `limit` pairs with `from ≤ key < to`, in ascending order of their keys. When
    /// `reversed`, the last `limit` pairs in descending order.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reversed: bool,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError>;

    /// Writes a batch. The next read sees all of it; after a crash all of it is there or nothing.
    /// After [`StoreError::Full`] nothing of it is there. After any other error nobody knows.
    fn write(&self, batch: WriteBatch) -> Result<(), StoreError>;

    /// Makes every earlier write durable before it returns. After an error nobody knows what is
    /// durable, and this must not be called again.
    fn sync(&self) -> Result<(), StoreError>;
}

/// Reads a value that [`WriteBatch::put_parts`] has written; `None` where there is none.
pub fn get_parts(store: &dyn KvStore, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(mut value) = store.get(&part_key(key, 0))? else {
        return Ok(None);
    };

    if value.len() == VALUE_BYTES_MAX {
        let mut end = key.to_vec();
        end.extend_from_slice(&[0xff, 0xff]);
        for part in store.scan(&part_key(key, 1), &end, false, usize::MAX)? {
            value.extend_from_slice(&part.value);
        }
    }
    Ok(Some(value))
}
