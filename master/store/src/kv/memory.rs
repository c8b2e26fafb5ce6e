//! A store in memory that forgets, when it is told to crash, what was not synced. For tests and the
//! simulation.

use super::{Batch, Pair, Shelf, StoreError};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Default)]
struct Content {
    now: Map,
    /// Batches since the last sync, oldest first.
    unsynced: Vec<Batch>,
    synced: Map,
    failing: bool,
    full: bool,
}

/// A store like a disk's.
#[derive(Debug, Default)]
pub struct MemoryShelf(Mutex<Content>);

impl MemoryShelf {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Power goes out: of what was not synced, the first `kept` batches survive.
    pub fn crash(&self, kept: usize) {
        let mut content = self.content();
        let survivors: Vec<Batch> = content.unsynced.drain(..).take(kept).collect();
        let mut map = std::mem::take(&mut content.synced);
        survivors
            .into_iter()
            .for_each(|batch| apply(&mut map, batch));
        content.now = map.clone();
        content.synced = map;
        content.failing = false;
    }

    /// Batches written since the last sync.
    pub fn unsynced(&self) -> usize {
        self.content().unsynced.len()
    }

    /// From now on every sync fails, or no longer.
    pub fn fail_syncs(&self, failing: bool) {
        self.content().failing = failing;
    }

    /// From now on there is no room for any write, or there is again.
    pub fn fill(&self, full: bool) {
        self.content().full = full;
    }

    /// Whether there is no room.
    pub fn is_full(&self) -> bool {
        self.content().full
    }
}

fn apply(map: &mut Map, batch: Batch) {
    for (key, value) in batch.0 {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

impl Shelf for MemoryShelf {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.content().now.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        back: bool,
        most: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let content = self.content();
        let range = content
            .now
            .range(from.to_vec()..to.to_vec())
            .map(|(key, value)| (key.clone(), value.clone()));
        Ok(if back {
            range.rev().take(most).collect()
        } else {
            range.take(most).collect()
        })
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut content = self.content();
        if content.full {
            return Err(StoreError::Full("the simulated disk is full".into()));
        }
        apply(&mut content.now, batch.clone());
        content.unsynced.push(batch);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut content = self.content();
        if content.failing {
            return Err(StoreError::Failed("the simulated disk fails".into()));
        }
        let mut map = std::mem::take(&mut content.synced);
        content
            .unsynced
            .drain(..)
            .for_each(|batch| apply(&mut map, batch));
        content.synced = map;
        Ok(())
    }
}
