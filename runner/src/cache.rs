//! Values that are loaded once, however many tasks want them at the same time.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A load ended without a result, because the runner is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the runner is ending")]
pub struct LoadAbandoned;

/// Values by key. Those who want a value while it is being loaded wait for that load, which goes on
/// even if all of them give up. The values that were used last stay in memory. A failed load is
/// told to those who waited for it and then forgotten: the next one who asks begins anew.
pub struct SingleFlightCache<K, V, E> {
    table: Mutex<CacheTable<K, V, E>>,
    /// How many values stay in memory. With 0 the cache only joins loads.
    values_max: usize,
}

struct CacheTable<K, V, E> {
    entries: HashMap<K, CacheEntry<V, E>>,
    /// Counts uses, so that the least recently used value is known.
    uses: u64,
}

enum CacheEntry<V, E> {
    Ready { value: V, used: u64 },
    Loading(LoadReceiver<V, E>),
}

type LoadReceiver<V, E> = watch::Receiver<Option<Result<V, E>>>;

/// A load that was joined or begun.
pub struct PendingLoad<V, E>(LoadReceiver<V, E>);

impl<V: Clone, E: Clone + From<LoadAbandoned>> PendingLoad<V, E> {
    /// Waits for the end of the load.
    pub async fn result(mut self) -> Result<V, E> {
        let ended = self.0.wait_for(Option::is_some).await;
        let result = ended.ok().and_then(|result| result.clone());
        result.unwrap_or_else(|| Err(LoadAbandoned.into()))
    }
}

impl<K, V, E> SingleFlightCache<K, V, E>
where
    K: Copy + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// An empty cache of which `values_max` values stay in memory.
    pub fn new(values_max: usize) -> Arc<Self> {
        let table = CacheTable {
            entries: HashMap::new(),
            uses: 0,
        };
        Arc::new(SingleFlightCache {
            table: Mutex::new(table),
            values_max,
        })
    }

    fn table(&self) -> MutexGuard<'_, CacheTable<K, V, E>> {
        // The table is whole between two statements, so a panic elsewhere does not spoil it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, if it is in memory.
    pub fn ready(&self, key: &K) -> Option<V> {
        let mut table = self.table();
        table.uses += 1;
        let now = table.uses;
        match table.entries.get_mut(key)? {
            CacheEntry::Ready { value, used } => {
                *used = now;
                Some(value.clone())
            }
            CacheEntry::Loading(_) => None,
        }
    }

    /// Joins the load of `key` if there is one, else begins it with `load`. A value that is in
    /// memory is a load that has ended.
    pub fn join_or_begin(
        self: &Arc<Self>,
        key: K,
        load: impl Future<Output = Result<V, E>> + Send + 'static,
    ) -> PendingLoad<V, E> {
        let mut table = self.table();
        match table.entries.get(&key) {
            Some(CacheEntry::Loading(receiver)) => return PendingLoad(receiver.clone()),
            Some(CacheEntry::Ready { value, .. }) => {
                let (_, receiver) = watch::channel(Some(Ok(value.clone())));
                return PendingLoad(receiver);
            }
            None => {}
        }
        let (sender, receiver) = watch::channel(None);
        let loading = CacheEntry::Loading(receiver.clone());
        table.entries.insert(key, loading);
        drop(table);

        let guard = LoadGuard {
            cache: self.clone(),
            key,
            ended: false,
        };
        tokio::spawn(async move {
            // A panic drops the guard before the sender. Whoever learns of the broken load from the
            // sender and asks again begins anew.
            let sender = sender;
            let mut guard = guard;
            let result = load.await;
            guard.cache.end(key, &result);
            guard.ended = true;
            sender.send_replace(Some(result));
        });
        PendingLoad(receiver)
    }

    fn end(&self, key: K, result: &Result<V, E>) {
        let mut table = self.table();
        table.entries.remove(&key);
        let Ok(value) = result else { return };
        if self.values_max == 0 {
            return;
        }

        table.uses += 1;
        let ready = CacheEntry::Ready {
            value: value.clone(),
            used: table.uses,
        };
        table.entries.insert(key, ready);
        table.remove_beyond(self.values_max);
    }
}

/// Forgets a load that broke off. Without it nobody could ever load that key again.
struct LoadGuard<K: Copy + Eq + Hash, V, E> {
    cache: Arc<SingleFlightCache<K, V, E>>,
    key: K,
    ended: bool,
}

impl<K: Copy + Eq + Hash, V, E> Drop for LoadGuard<K, V, E> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let table = &self.cache.table;
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entries.remove(&self.key);
    }
}

impl<K: Copy + Eq + Hash, V, E> CacheTable<K, V, E> {
    /// Removes the least recently used value if there are more than `values_max`.
    fn remove_beyond(&mut self, values_max: usize) {
        let ready = self.entries.iter().filter_map(|(key, entry)| match entry {
            CacheEntry::Ready { used, .. } => Some((*used, *key)),
            CacheEntry::Loading(_) => None,
        });
        let ready: Vec<(u64, K)> = ready.collect();
        if ready.len() <= values_max {
            return;
        }
        if let Some((_, key)) = ready.into_iter().min_by_key(|(used, _)| *used) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_load_that_panics_is_told_and_not_remembered() {
        let cache = SingleFlightCache::<u32, u32, LoadAbandoned>::new(2);
        let load = cache.join_or_begin(1, async { panic!("a fault of the loader") });
        assert_eq!(load.result().await, Err(LoadAbandoned));
        let load = cache.join_or_begin(1, async { Ok(10) });
        assert_eq!(load.result().await, Ok(10));
    }

    #[tokio::test]
    async fn the_values_that_were_used_last_stay() {
        let cache = SingleFlightCache::<u32, u32, LoadAbandoned>::new(2);
        for key in [1, 2] {
            let load = cache.join_or_begin(key, async move { Ok(key * 10) });
            assert_eq!(load.result().await, Ok(key * 10));
        }
        assert_eq!(cache.ready(&1), Some(10), "1 is used after 2");
        let load = cache.join_or_begin(3, async { Ok(30) });
        assert_eq!(load.result().await, Ok(30));
        assert_eq!(cache.ready(&2), None);
        assert_eq!(cache.ready(&1), Some(10));
        let load = cache.join_or_begin(1, async { panic!("1 is in memory") });
        assert_eq!(load.result().await, Ok(10));
    }
}
