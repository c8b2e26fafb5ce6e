//! Who works with which blob at the moment, and which were put or asked for lately: where blobs
//! live in an object store, whose times are of another clock and cannot be set.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use taskmaster_protocol::Hash;

/// One at a time for each blob: who fetches it, puts it, asks for it or removes it.
#[derive(Debug, Default)]
pub(super) struct Turns {
    busy: Mutex<HashSet<Hash>>,
    freed: Condvar,
}

/// The turn at one blob; the next may when it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    hash: Hash,
}

impl Turns {
    fn busy(&self) -> MutexGuard<'_, HashSet<Hash>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for it.
    pub(super) fn take(&self, hash: Hash) -> Turn<'_> {
        let mut busy = self.busy();
        while !busy.insert(hash) {
            busy = self
                .freed
                .wait(busy)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Turn { turns: self, hash }
    }

    /// Takes it where nobody has it.
    pub(super) fn try_take(&self, hash: Hash) -> Option<Turn<'_>> {
        let taken = self.busy().insert(hash);
        taken.then(|| Turn { turns: self, hash })
    }
}

impl Turn<'_> {
    pub(super) fn hash(&self) -> Hash {
        self.hash
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.busy().remove(&self.hash);
        self.turns.freed.notify_all();
    }
}

/// When blobs were put or asked for, in this process. What was before its start is not known, so
/// all are young then.
#[derive(Debug)]
pub(super) struct Young {
    since: Instant,
    asked: Mutex<HashMap<Hash, Instant>>,
}

impl Young {
    pub(super) fn new() -> Young {
        Young {
            since: Instant::now(),
            asked: Mutex::default(),
        }
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<Hash, Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these are young.
    pub(super) fn note(&self, hashes: impl IntoIterator<Item = Hash>) {
        let now = Instant::now();
        self.asked()
            .extend(hashes.into_iter().map(|hash| (hash, now)));
    }

    /// Whether somebody put it or asked for it within this time, or may have.
    pub(super) fn has(&self, hash: &Hash, grace: Duration) -> bool {
        self.since.elapsed() < grace
            || self
                .asked()
                .get(hash)
                .is_some_and(|asked| asked.elapsed() < grace)
    }

    /// Whether all are young, and forgets those that are no longer.
    pub(super) fn has_all(&self, grace: Duration) -> bool {
        self.asked().retain(|_, asked| asked.elapsed() < grace);
        self.since.elapsed() < grace
    }
}
