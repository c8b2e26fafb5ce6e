//! One lock for each blob, and which blobs were used lately. Both are wanted only where blobs live
//! in a bucket: the times of its objects are of another clock and cannot be set.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use taskmaster_protocol::Hash;

/// One lock for each blob: who fetches, puts, looks for or removes a blob does so alone.
#[derive(Debug, Default)]
pub(crate) struct BlobLocks {
    locked: Mutex<HashSet<Hash>>,
    freed: Condvar,
}

/// The lock of one blob, held until this is dropped.
#[derive(Debug)]
pub(crate) struct BlobLock<'a> {
    locks: &'a BlobLocks,
    hash: Hash,
}

impl BlobLocks {
    fn locked(&self) -> MutexGuard<'_, HashSet<Hash>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the blob's lock and takes it.
    pub(crate) fn lock(&self, hash: Hash) -> BlobLock<'_> {
        let mut locked = self.locked();
        while !locked.insert(hash) {
            locked = self
                .freed
                .wait(locked)
                .unwrap_or_else(PoisonError::into_inner);
        }
        BlobLock { locks: self, hash }
    }

    /// Takes the blob's lock if it is free.
    pub(crate) fn try_lock(&self, hash: Hash) -> Option<BlobLock<'_>> {
        let is_free = self.locked().insert(hash);
        is_free.then(|| BlobLock { locks: self, hash })
    }
}

impl BlobLock<'_> {
    pub(crate) fn hash(&self) -> Hash {
        self.hash
    }
}

impl Drop for BlobLock<'_> {
    fn drop(&mut self) {
        self.locks.locked().remove(&self.hash);
        self.locks.freed.notify_all();
    }
}

/// When blobs were put or asked for in this process. What happened before its start is not known,
/// so every blob counts as used at the start.
#[derive(Debug)]
pub(crate) struct RecentUse {
    started: Instant,
    used: Mutex<HashMap<Hash, Instant>>,
}

impl RecentUse {
    pub(crate) fn new() -> RecentUse {
        RecentUse {
            started: Instant::now(),
            used: Mutex::default(),
        }
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Hash, Instant>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that these blobs are used now.
    pub(crate) fn note(&self, hashes: impl IntoIterator<Item = Hash>) {
        let now = Instant::now();
        self.used()
            .extend(hashes.into_iter().map(|hash| (hash, now)));
    }

    /// Whether the blob was used within `grace`, or may have been.
    pub(crate) fn is_recent(&self, hash: &Hash, grace: Duration) -> bool {
        self.covers_all(grace)
            || self
                .used()
                .get(hash)
                .is_some_and(|used| used.elapsed() < grace)
    }

    /// Whether every blob may have been used within `grace`.
    pub(crate) fn covers_all(&self, grace: Duration) -> bool {
        self.started.elapsed() < grace
    }

    /// Forgets uses that are longer ago than `grace`.
    pub(crate) fn forget_older(&self, grace: Duration) {
        self.used().retain(|_, used| used.elapsed() < grace);
    }
}
