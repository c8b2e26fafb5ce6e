//! Who follows what, by the name of what is followed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

/// The followers of each key. A key without followers has no entry.
#[derive(Debug)]
pub(crate) struct FollowerMap<K, F>(HashMap<K, Vec<Arc<F>>>);

impl<K, F> Default for FollowerMap<K, F> {
    fn default() -> FollowerMap<K, F> {
        FollowerMap(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash, F> FollowerMap<K, F> {
    /// Adds a follower of `key`. Returns whether it is new there.
    pub fn add(&mut self, key: &K, follower: &Arc<F>) -> bool {
        let followers = self.0.entry(key.clone()).or_default();
        let is_new = !followers.iter().any(|other| Arc::ptr_eq(other, follower));
        if is_new {
            followers.push(follower.clone());
        }
        is_new
    }

    /// Removes a follower of `key`.
    pub fn remove(&mut self, key: &K, follower: &Arc<F>) {
        if let Entry::Occupied(mut followers) = self.0.entry(key.clone()) {
            followers
                .get_mut()
                .retain(|other| !Arc::ptr_eq(other, follower));
            if followers.get().is_empty() {
                followers.remove();
            }
        }
    }

    /// The followers of `key`.
    pub fn of(&self, key: &K) -> impl Iterator<Item = &Arc<F>> {
        self.0.get(key).into_iter().flatten()
    }

    /// Whether nothing is followed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys are followed. For tests.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
