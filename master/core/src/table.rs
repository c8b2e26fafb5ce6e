//! Things by key.

use crate::event::TaskKey;

/// Entries that are made and moved together. Large enough to be found fast, small enough that
/// nobody waits for one.
const CHUNK: usize = 1_024;

/// Things of tasks by key. Keys are dense, so this is an array with holes; in chunks, because an
/// array that grows to a million is copied, and everybody waits for that.
#[derive(Debug)]
pub struct Table<T> {
    chunks: Vec<Vec<Option<T>>>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Table<T> {
    /// What is there under a key.
    pub fn get(&self, key: TaskKey) -> Option<&T> {
        let at = key.0 as usize;
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)?.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: TaskKey) -> Option<&mut T> {
        let at = key.0 as usize;
        self.chunks
            .get_mut(at / CHUNK)?
            .get_mut(at % CHUNK)?
            .as_mut()
    }

    /// Puts a thing under a key; what was there before.
    pub fn put(&mut self, key: TaskKey, thing: T) -> Option<T> {
        let at = key.0 as usize;
        while self.end() <= key.0 {
            match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
                Some(chunk) => chunk.push(None),
                None => self.chunks.push(vec![None]),
            }
        }
        let last = self.chunks[at / CHUNK][at % CHUNK].replace(thing);
        self.len += usize::from(last.is_none());
        last
    }

    /// Takes away what is there under a key.
    pub fn take(&mut self, key: TaskKey) -> Option<T> {
        let at = key.0 as usize;
        let thing = self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)?.take();
        self.len -= usize::from(thing.is_some());
        thing
    }

    /// One more than the greatest key ever used.
    pub fn end(&self) -> u32 {
        let Some(last) = self.chunks.last() else {
            return 0;
        };
        ((self.chunks.len() - 1) * CHUNK + last.len()) as u32
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Everything, by key.
    pub fn iter(&self) -> impl Iterator<Item = (TaskKey, &T)> {
        let slots = self.chunks.iter().flatten().enumerate();
        slots.filter_map(|(i, slot)| slot.as_ref().map(|thing| (TaskKey(i as u32), thing)))
    }
}
