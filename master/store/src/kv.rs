//! The seam to the disk: an ordered map of bytes with atomic batches, and one call after which what
//! was written is durable. Journal and view are written over it; [`sled`] is the one that lasts,
//! [`memory`] the one for tests.

pub mod memory;
pub mod sled;

use std::path::PathBuf;
use std::sync::Arc;

/// Reads shared by the gateway's threads, the fold and the engine. Never sees what is not
/// committed.
pub type Reader = Arc<dyn Shelf>;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Changes that happen together or not at all. `None` removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch(pub Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Batch {
    /// Writes a value of at most [`VALUE_BYTES_MAX`].
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.push((key, Some(value)));
    }

    /// Removes a key.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.0.push((key, None));
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        self.0
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len))
            .sum()
    }

    /// Writes a value of any size under `key` followed by a part number.
    pub fn put_parts(&mut self, key: &[u8], value: &[u8]) {
        for (part, bytes) in value.chunks(VALUE_BYTES_MAX).enumerate() {
            self.put(part_key(key, part), bytes.to_vec());
        }
    }
}

/// sled puts values of 8 KiB and more into files of their own, which the sync of its main file does
/// not cover; at 4 KiB none appears.
pub const VALUE_BYTES_MAX: usize = 4_000;

/// The key of a part of a larger value. Two bytes: 256 MiB at most.
pub fn part_key(key: &[u8], part: usize) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 2);
    full.extend_from_slice(key);
    full.extend_from_slice(&u16::try_from(part).unwrap_or(u16::MAX).to_be_bytes());
    full
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error(
        "the store in {0} is in use by another master: stop that one, or give this one another --data folder"
    )]
    Locked(String),
    /// It cannot be opened or read as what it should be.
    #[error(
        "the store in {path} cannot be used: {why}. No task in it was changed. `taskmaster store check` says more. Restore a copy of the folder (`taskmaster store backup` makes them), or start with another --data folder"
    )]
    Corrupt {
        /// Where it is.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// It can be read, and its end is missing: sled takes a log with a damaged end for one that
    /// ends earlier.
    #[error(
        "the store in {path} has lost what was durable: it ends at commit {end}, and commit {synced} was written and synced. Its end was damaged or cut off, or an older copy was put in its place. Restore a copy of the folder that is whole; or, to go on without what is missing, remove {}",
        mark.display()
    )]
    Cut {
        /// Where it is.
        path: String,
        /// The file that says how far it was durable.
        mark: PathBuf,
        /// The last commit that is there.
        end: u64,
        /// The last commit that was durable.
        synced: u64,
    },
    /// There is no room on the disk. Nothing of what was to be written is there, and it may be
    /// tried again.
    #[error("{0}")]
    Full(String),
    /// The disk or the system said no; nothing is known of what was being written.
    #[error("the disk failed: {0}")]
    Failed(String),
}

/// An ordered map of bytes on a disk, or like one.
pub trait Shelf: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Pairs with `from ≤ key < to`, in order or (`back`) from the end, `most` at the most.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        back: bool,
        most: usize,
    ) -> Result<Vec<Pair>, StoreError>;

    /// Writes a batch: all of it is seen by the next read, and all or nothing of it after a crash.
    /// After [`StoreError::Full`] nothing of it is there; after any other error nothing is known.
    fn write(&self, batch: Batch) -> Result<(), StoreError>;

    /// Everything written before is durable when this returns. After an error nothing is known;
    /// never call it again.
    fn sync(&self) -> Result<(), StoreError>;
}

/// A value that was written in parts; `None` where there is none.
pub fn get_parts(shelf: &dyn Shelf, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(mut whole) = shelf.get(&part_key(key, 0))? else {
        return Ok(None);
    };
    if whole.len() == VALUE_BYTES_MAX {
        let mut end = key.to_vec();
        end.extend_from_slice(&[0xff, 0xff]);
        for (_, part) in shelf.scan(&part_key(key, 1), &end, false, usize::MAX)? {
            whole.extend_from_slice(&part);
        }
    }
    Ok(Some(whole))
}
