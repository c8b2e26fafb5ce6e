//! A store in memory. When it is told to crash, it forgets what was not synced. It serves tests and
//! the simulation.

use super::{KeyValue, KvStore, StoreError, WriteBatch};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Default)]
struct MemoryContent {
    /// What readers see.
    current: Map,
    /// Batches since the last sync, oldest first.
    unsynced: Vec<WriteBatch>,
    /// What survives a crash: the content at the last sync.
    synced: Map,
    /// Whether every sync fails.
    failing: bool,
    /// Whether every write is refused for want of space.
    full: bool,
}

/// A store in memory that behaves like one on a disk.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<MemoryContent>);

impl MemoryStore {
    fn content(&self) -> MutexGuard<'_, MemoryContent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Simulates a power cut. Of the batches that were not synced, the first `survivors` stay.
    pub fn crash(&self, survivors: usize) {
        let mut content = self.content();
        let batches: Vec<WriteBatch> = content.unsynced.drain(..).take(survivors).collect();
        let mut map = std::mem::take(&mut content.synced);
        for batch in batches {
            apply(&mut map, batch);
        }

        content.current = map.clone();
        content.synced = map;
        content.failing = false;
    }

    /// The number of batches written since the last sync.
    pub fn unsynced(&self) -> usize {
        self.content().unsynced.len()
    }

    /// Says whether every sync fails from now on.
    pub fn fail_syncs(&self, failing: bool) {
        self.content().failing = failing;
    }

    /// Says whether every write is refused for want of space from now on.
    pub fn fill(&self, full: bool) {
        self.content().full = full;
    }

    /// Whether writes are refused for want of space.
    pub fn is_full(&self) -> bool {
        self.content().full
    }
}

fn apply(map: &mut Map, batch: WriteBatch) {
    for entry in batch.entries {
        match entry.value {
            Some(value) => map.insert(entry.key, value),
            None => map.remove(&entry.key),
        };
    }
}

impl KvStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.content().current.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reversed: bool,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let content = self.content();
        let pairs = content
            .current
            .range(from.to_vec()..to.to_vec())
            .map(|(key, value)| KeyValue {
                key: key.clone(),
                value: value.clone(),
            });

        Ok(if reversed {
            pairs.rev().take(limit).collect()
        } else {
            pairs.take(limit).collect()
        })
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut content = self.content();
        if content.full {
            return Err(StoreError::Full("the simulated disk is full".into()));
        }
        apply(&mut content.current, batch.clone());
        content.unsynced.push(batch);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut content = self.content();
        if content.failing {
            return Err(StoreError::Failed("the simulated disk fails".into()));
        }

        let mut map = std::mem::take(&mut content.synced);
        for batch in content.unsynced.drain(..) {
            apply(&mut map, batch);
        }
        content.synced = map;
        Ok(())
    }
}
