//! A map whose keys are task keys.

use crate::keys::TaskKey;

/// Entries that are allocated together: enough to be found fast, few enough that nobody waits for
/// an allocation.
const CHUNK: usize = 1_024;

/// A map from task keys. Keys are dense, so the map is an array with holes. It is kept in chunks,
/// because growing one array of a million entries would copy it while everybody waits.
#[derive(Debug)]
pub struct TaskMap<T> {
    chunks: Vec<Vec<Option<T>>>,
    len: usize,
}

impl<T> Default for TaskMap<T> {
    fn default() -> TaskMap<T> {
        TaskMap {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<T> TaskMap<T> {
    /// The value of a key.
    pub fn get(&self, key: TaskKey) -> Option<&T> {
        let index = key.0 as usize;
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)?.as_ref()
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: TaskKey) -> Option<&mut T> {
        let index = key.0 as usize;
        self.chunks
            .get_mut(index / CHUNK)?
            .get_mut(index % CHUNK)?
            .as_mut()
    }

    /// Sets the value of a key and returns the former value.
    pub fn insert(&mut self, key: TaskKey, value: T) -> Option<T> {
        let index = key.0 as usize;
        while self.key_bound() <= key.0 {
            match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
                Some(chunk) => chunk.push(None),
                None => self.chunks.push(vec![None]),
            }
        }
        let last = self.chunks[index / CHUNK][index % CHUNK].replace(value);
        self.len += usize::from(last.is_none());
        last
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: TaskKey) -> Option<T> {
        let index = key.0 as usize;
        let value = self
            .chunks
            .get_mut(index / CHUNK)?
            .get_mut(index % CHUNK)?
            .take();
        self.len -= usize::from(value.is_some());
        value
    }

    /// One more than the greatest key that was ever in the map; 0 if there was none.
    pub fn key_bound(&self) -> u32 {
        let Some(last) = self.chunks.last() else {
            return 0;
        };
        ((self.chunks.len() - 1) * CHUNK + last.len()) as u32
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every key that has a value, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (TaskKey, &T)> {
        let slots = self.chunks.iter().flatten().enumerate();
        slots.filter_map(|(i, slot)| slot.as_ref().map(|value| (TaskKey(i as u32), value)))
    }
}
