//! Which answers are kept. Memory has the key and the times of every answer, and the answers that
//! were used last; the view has all of them. Neither order nor size of anything depends on a hash.

use hashbrown::HashTable;
use std::collections::VecDeque;
use std::sync::Arc;
use taskmaster_protocol::{Hash, Wall};
use taskmaster_store::cache_entry::CacheEntry;

/// Bytes of answers that stay in memory beside the view. Newer ones stay, too, until the view has
/// them.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// Bytes of an answer beside its result, about: the key, the names and the parts of the key.
const ENTRY_BYTES: u64 = 1_024;

/// No entry.
const NONE: u32 = u32::MAX;

/// One answer, as memory has it. A million of these take some 90 MB with their places in the tables.
#[derive(Debug)]
struct Slot {
    key: Hash,
    expires: Wall,
    /// The seq of the end of the run. The view has the answer when it has this event.
    seq: u64,
    bytes: u64,
    /// The answer, while it is in memory.
    entry: Option<Arc<CacheEntry>>,
    /// The entries that were used next after and next before this one.
    newer: u32,
    older: u32,
}

/// What is known of a key.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// No answer is kept that is young enough.
    Nothing,
    /// The answer.
    Answer(Arc<CacheEntry>),
    /// An answer is kept, and the view has it.
    InView,
}

/// An answer in memory, in the order in which the answers came in.
#[derive(Debug)]
struct InMemory {
    slot: u32,
    seq: u64,
    bytes: usize,
}

/// The kept answers by their keys.
#[derive(Debug)]
pub(crate) struct AnswerIndex {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    /// The entry that was used last, and the one that was not used for longest.
    newest: u32,
    oldest: u32,
    in_memory: VecDeque<InMemory>,
    memory_bytes: usize,
    /// Bytes of all answers, those of their blobs included.
    bytes: u64,
    bytes_max: u64,
    /// Where the next sweep begins.
    sweep_from: usize,
}

/// Keys are hashes already.
fn hash_of(key: &Hash) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&key.0[..8]);
    u64::from_be_bytes(first)
}

impl AnswerIndex {
    /// An empty index for answers of `bytes_max` together.
    pub fn new(bytes_max: u64) -> AnswerIndex {
        AnswerIndex {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            newest: NONE,
            oldest: NONE,
            in_memory: VecDeque::new(),
            memory_bytes: 0,
            bytes: 0,
            bytes_max,
            sweep_from: 0,
        }
    }

    /// How many answers are kept.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Bytes of all answers, with their blobs.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The most bytes that all answers may have.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Until when an answer of this key is kept, or was kept if it is too old by now.
    pub fn expires(&self, key: &Hash) -> Option<Wall> {
        self.slot(self.slot_of(key)?).map(|slot| slot.expires)
    }

    /// Whether answers of this size are kept at all.
    pub fn has_room_for(&self, result_bytes: u64) -> bool {
        result_bytes + ENTRY_BYTES <= self.bytes_max
    }

    fn slot_of(&self, key: &Hash) -> Option<u32> {
        let is_it = |index: &u32| self.slot(*index).is_some_and(|slot| slot.key == *key);
        self.by_key.find(hash_of(key), is_it).copied()
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)?.as_ref()
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    /// Looks an answer up, which counts as a use.
    pub fn get(&mut self, key: &Hash, now: Wall) -> Found {
        let Some(index) = self.slot_of(key) else {
            return Found::Nothing;
        };
        let Some(slot) = self.slot(index).filter(|slot| slot.expires > now) else {
            return Found::Nothing;
        };
        let found = match &slot.entry {
            Some(entry) => Found::Answer(entry.clone()),
            None => Found::InView,
        };
        self.unlink(index);
        self.link_newest(index);
        found
    }

    /// Keeps an answer in the place of another one of its key. Returns the keys of the answers that have
    /// to go for it.
    pub fn insert(&mut self, entry: Arc<CacheEntry>) -> Vec<Hash> {
        self.remove(&entry.key);
        self.put(Slot {
            key: entry.key,
            expires: entry.expires,
            seq: entry.seq,
            bytes: entry_bytes(&entry),
            entry: Some(entry),
            newer: NONE,
            older: NONE,
        });
        self.make_room()
    }

    /// Keeps an answer that the view has.
    pub fn restore(&mut self, entry: &CacheEntry) {
        self.put(Slot {
            key: entry.key,
            expires: entry.expires,
            seq: entry.seq,
            bytes: entry_bytes(entry),
            entry: None,
            newer: NONE,
            older: NONE,
        });
    }

    /// Puts an answer that was read from the view into memory.
    pub fn was_read(&mut self, entry: Arc<CacheEntry>) {
        let Some(index) = self.slot_of(&entry.key) else {
            return;
        };
        let bytes = inline_bytes(&entry);
        let seq = entry.seq;
        if let Some(slot) = self.slot_mut(index) {
            slot.entry = Some(entry);
        }
        self.remember(index, seq, bytes);
        self.forget_some(u64::MAX);
    }

    fn put(&mut self, slot: Slot) {
        let key = slot.key;
        let seq = slot.seq;
        let bytes = slot.entry.as_deref().map(inline_bytes);
        self.bytes += slot.bytes;
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = Some(slot);
                index
            }
            None => {
                self.slots.push(Some(slot));
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        let hash_at = |index: &u32| {
            let slot = slots.get(*index as usize).and_then(Option::as_ref);
            slot.map_or(0, |slot| hash_of(&slot.key))
        };
        self.by_key.insert_unique(hash_of(&key), index, hash_at);
        self.link_newest(index);
        if let Some(bytes) = bytes {
            self.remember(index, seq, bytes);
        }
    }

    fn remember(&mut self, slot: u32, seq: u64, bytes: usize) {
        self.memory_bytes += bytes;
        self.in_memory.push_back(InMemory { slot, seq, bytes });
    }

    /// Keeps an answer no longer. Returns whether one was kept.
    pub fn remove(&mut self, key: &Hash) -> bool {
        let Some(index) = self.slot_of(key) else {
            return false;
        };
        self.unlink(index);
        if let Ok(entry) = self
            .by_key
            .find_entry(hash_of(key), |other| *other == index)
        {
            entry.remove();
        }
        if let Some(slot) = self.slots[index as usize].take() {
            self.bytes -= slot.bytes;
        }
        self.free.push(index);
        true
    }

    /// Removes the answers that were not used for longest, until the others have room.
    fn make_room(&mut self) -> Vec<Hash> {
        let mut gone = Vec::new();
        while self.bytes > self.bytes_max
            && let Some(key) = self.slot(self.oldest).map(|slot| slot.key)
        {
            self.remove(&key);
            gone.push(key);
        }
        gone
    }

    /// The view has all events up to `seq`, so memory may forget answers.
    pub fn view_has(&mut self, seq: u64) {
        self.forget_some(seq);
    }

    fn forget_some(&mut self, seq: u64) {
        while self.memory_bytes > MEMORY_BYTES_MAX
            && let Some(first) = self.in_memory.pop_front_if(|first| first.seq <= seq)
        {
            self.memory_bytes -= first.bytes;
            let is_it = |slot: &&mut Slot| slot.seq == first.seq;
            if let Some(slot) = self.slot_mut(first.slot).filter(is_it) {
                slot.entry = None;
            }
        }
    }

    /// Looks at some entries, and removes those that are too old. Returns their keys. All entries
    /// have been looked at after some calls.
    pub fn sweep(&mut self, now: Wall, looked_at_max: usize) -> Vec<Hash> {
        let mut gone = Vec::new();
        for _ in 0..looked_at_max.min(self.slots.len()) {
            if self.sweep_from >= self.slots.len() {
                self.sweep_from = 0;
            }
            let slot = self.slots[self.sweep_from].as_ref();
            if let Some(slot) = slot.filter(|slot| slot.expires <= now) {
                gone.push(slot.key);
            }
            self.sweep_from += 1;
        }
        for key in &gone {
            self.remove(key);
        }
        gone
    }

    fn unlink(&mut self, index: u32) {
        let Some(slot) = self.slot(index) else { return };
        let newer = slot.newer;
        let older = slot.older;
        match self.slot_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slot_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, index: u32) {
        let newest = self.newest;
        match self.slot_mut(newest) {
            Some(slot) => slot.newer = index,
            None => self.oldest = index,
        }
        if let Some(slot) = self.slot_mut(index) {
            slot.newer = NONE;
            slot.older = newest;
        }
        self.newest = index;
    }
}

/// Bytes of an answer, with its blobs.
pub(crate) fn entry_bytes(entry: &CacheEntry) -> u64 {
    ENTRY_BYTES + inline_bytes(entry) as u64 + entry.blob_bytes
}

/// Bytes of the part of an answer that is no blob.
fn inline_bytes(entry: &CacheEntry) -> usize {
    use taskmaster_protocol::message::ResultRef;
    let result = match entry.result.result() {
        ResultRef::Json(json) => json.get().len(),
        ResultRef::Blob(_) => 0,
    };
    let files = entry.result.outputs().map_or(0, |files| files.len() * 128);
    result + files
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{Json, ModuleName, TaskId};
    use taskmaster_store::record::TaskOutput;

    fn entry(name: &str, seq: u64, expires: i64, result_bytes: usize) -> Arc<CacheEntry> {
        Arc::new(CacheEntry {
            key: Hash::of(name.as_bytes()),
            task: TaskId::new(name).unwrap(),
            attempt: 1,
            runner: None,
            module: ModuleName::new("m").unwrap(),
            version: None,
            engine: String::new(),
            timeout_ms: 1,
            memory_mb: 1,
            result: TaskOutput::Json(Json::string(&"x".repeat(result_bytes - 2))),
            seq,
            stored: Wall(0),
            expires: Wall(expires),
            parts: Default::default(),
            blob_bytes: 0,
        })
    }

    fn with_blob(entry: Arc<CacheEntry>, blob_bytes: u64) -> Arc<CacheEntry> {
        Arc::new(CacheEntry {
            blob_bytes,
            ..entry.as_ref().clone()
        })
    }

    #[test]
    fn an_answer_is_found_until_it_is_too_old() {
        let mut index = AnswerIndex::new(u64::MAX);
        let answer = entry("a", 1, 100, 10);
        assert_eq!(index.get(&answer.key, Wall(0)), Found::Nothing);
        assert_eq!(index.insert(answer.clone()), []);
        assert_eq!(
            index.get(&answer.key, Wall(99)),
            Found::Answer(answer.clone())
        );
        assert_eq!(index.get(&answer.key, Wall(100)), Found::Nothing);
        assert_eq!(index.sweep(Wall(99), 10), []);
        assert_eq!(index.sweep(Wall(100), 10), [answer.key]);
        assert_eq!((index.len(), index.bytes()), (0, 0));
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut index = AnswerIndex::new(3 * (ENTRY_BYTES + 10));
        let answers: Vec<_> = ["a", "b", "c", "d", "e"]
            .iter()
            .map(|name| entry(name, 1, 100, 10))
            .collect();
        for answer in &answers[..3] {
            assert_eq!(index.insert(answer.clone()), []);
        }
        index.get(&answers[0].key, Wall(0));
        assert_eq!(index.insert(answers[3].clone()), [answers[1].key]);
        assert_eq!(
            index.insert(with_blob(answers[4].clone(), 10)),
            [answers[2].key, answers[0].key]
        );
        assert!(!index.has_room_for(3 * (ENTRY_BYTES + 10)));
        assert!(index.has_room_for(10));
    }

    #[test]
    fn a_newer_answer_takes_the_place_of_an_older_one() {
        let mut index = AnswerIndex::new(u64::MAX);
        index.insert(with_blob(entry("a", 1, 100, 10), 5));
        let newer = with_blob(entry("a", 2, 200, 20), 7);
        assert_eq!(index.insert(newer.clone()), []);
        assert_eq!(
            index.get(&newer.key, Wall(150)),
            Found::Answer(newer.clone())
        );
        assert_eq!((index.len(), index.bytes()), (1, ENTRY_BYTES + 20 + 7));
        assert!(index.remove(&newer.key));
        assert!(!index.remove(&newer.key));
        assert_eq!((index.len(), index.bytes()), (0, 0));
    }

    #[test]
    fn memory_forgets_what_the_view_has_and_nothing_else() {
        let mut index = AnswerIndex::new(u64::MAX);
        let big = MEMORY_BYTES_MAX / 2;
        let answers: Vec<_> = ["a", "b", "c"]
            .iter()
            .zip(1..)
            .map(|(name, seq)| entry(name, seq, 100, big))
            .collect();
        for answer in &answers {
            index.insert(answer.clone());
        }
        index.view_has(0);
        let get = |index: &mut AnswerIndex, i: usize| index.get(&answers[i].key, Wall(0));
        assert_eq!(get(&mut index, 0), Found::Answer(answers[0].clone()));
        index.view_has(1);
        assert_eq!(get(&mut index, 0), Found::InView);
        assert_eq!(get(&mut index, 1), Found::Answer(answers[1].clone()));
        index.view_has(3);
        index.was_read(answers[0].clone());
        assert_eq!(get(&mut index, 0), Found::Answer(answers[0].clone()));
        assert_eq!(get(&mut index, 1), Found::InView);
    }
}
