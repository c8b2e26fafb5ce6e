//! The tasks that the engine holds, and what it keeps of each: little, because there may be millions that wait.

use super::{Engine, LastAttempt};
use crate::record::{Ended, TaskBody};
use crate::view::Stored;
use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;
use taskmaster_core::{Table, TaskKey};
use taskmaster_protocol::TaskId;

/// A task that the core holds.
#[derive(Debug)]
pub(super) struct Live {
    pub body: Arc<TaskBody>,
    /// The last attempt, once there is one.
    pub last: Option<Box<LastAttempt>>,
    /// It has ended, and a runner still holds an attempt of it or its dependents do not know yet.
    pub ended: Option<Arc<Ended>>,
    /// Changed by `task:set`.
    pub priority: i32,
}

/// What memory knows of an id. The view knows the others.
#[derive(Debug)]
pub(super) enum Known<'a> {
    /// The core holds it.
    Live(TaskKey),
    /// It has ended, and the view does not have it yet.
    Ended(&'a Stored),
}

/// The hash of an id, which is its own hash.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("hashes are u64")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Things by the hash of an id: an id of its own for each would be a fifth of all memory.
type ByHash<T> = HashMap<u64, T, BuildHasherDefault<Hashed>>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Held {
    tasks: Table<Live>,
    /// Keys given back; the others below `next` are in use.
    free: Vec<TaskKey>,
    next: u32,
    /// A hash that nobody outside can foresee: ids come from outside.
    hasher: RandomState,
    keys: ByHash<TaskKey>,
    /// Those whose hash another one has.
    clashes: BTreeMap<TaskId, TaskKey>,
    /// Open tasks in the order of their adding, for lists.
    pub open: BTreeMap<u64, TaskKey>,
    /// How many open tasks name an id: these are not pruned.
    named: ByHash<u32>,
    /// Memory that open tasks take, bytes, about.
    pub bytes: u64,
    /// Ended tasks that the core has let go of, and that the view does not have yet.
    pub ended: HashMap<TaskId, Stored>,
}

/// What an open task takes in the core and here beside what its document says, bytes: measured with a million of them
/// (see ARCHITECTURE.md, "Where the time goes"), the store's share left out.
const TASK_BYTES: u64 = 600;

/// A dependency: the edge in the core, the id here.
const DEPENDENCY_BYTES: u64 = 100;

/// The memory of an open task, about.
fn bytes_of(body: &TaskBody) -> u64 {
    let params = body.params.as_ref().map_or(0, |params| params.get().len());
    let rare = body.rare.as_ref().map_or(0, |rare| {
        let args: usize = rare.args.iter().map(String::len).sum();
        args + rare.env.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    });
    TASK_BYTES + DEPENDENCY_BYTES * body.dependencies().len() as u64 + (params + rare) as u64
}

impl Held {
    fn hash(&self, id: &TaskId) -> u64 {
        self.hasher.hash_one(id.as_str())
    }

    /// The task of this key.
    pub fn get(&self, key: TaskKey) -> Option<&Live> {
        self.tasks.get(key)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: TaskKey) -> Option<&mut Live> {
        self.tasks.get_mut(key)
    }

    /// Every task that the core holds.
    pub fn iter(&self) -> impl Iterator<Item = &Live> {
        self.tasks.iter().map(|(_, live)| live)
    }

    /// The key of an id.
    pub fn key(&self, id: &TaskId) -> Option<TaskKey> {
        let key = self.keys.get(&self.hash(id)).copied();
        let is_it = |key: &TaskKey| self.get(*key).is_some_and(|live| live.body.id == *id);
        key.filter(is_it).or_else(|| self.clashes.get(id).copied())
    }

    /// What is known of an id.
    pub fn known(&self, id: &TaskId) -> Option<Known<'_>> {
        self.key(id).map(Known::Live).or_else(|| self.ended.get(id).map(Known::Ended))
    }

    /// Puts a task under a free key.
    pub fn insert(&mut self, body: Arc<TaskBody>, priority: i32) -> TaskKey {
        let key = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            TaskKey(self.next - 1)
        });
        match self.keys.entry(self.hasher.hash_one(body.id.as_str())) {
            Entry::Vacant(place) => drop(place.insert(key)),
            Entry::Occupied(_) => drop(self.clashes.insert(body.id.clone(), key)),
        }
        self.ended.remove(&body.id);
        self.open.insert(body.no, key);
        self.bytes += bytes_of(&body);
        for dependency in body.dependencies() {
            *self.named.entry(self.hasher.hash_one(dependency.on.as_str())).or_default() += 1;
        }
        self.tasks.put(key, Live { body, last: None, ended: None, priority });
        key
    }

    /// A task is open no longer.
    fn close(&mut self, body: &TaskBody) {
        self.open.remove(&body.no);
        self.bytes -= bytes_of(body);
        for dependency in body.dependencies() {
            if let Entry::Occupied(mut named) = self.named.entry(self.hasher.hash_one(dependency.on.as_str())) {
                *named.get_mut() -= 1;
                if *named.get() == 0 {
                    named.remove();
                }
            }
        }
    }

    /// Whether an open task may name this id.
    pub fn is_named(&self, id: &TaskId) -> bool {
        self.named.contains_key(&self.hash(id))
    }

    /// Lets go of a key.
    fn remove(&mut self, key: TaskKey) -> Option<Live> {
        let live = self.tasks.take(key)?;
        self.free.push(key);
        match self.keys.entry(self.hasher.hash_one(live.body.id.as_str())) {
            Entry::Occupied(place) if *place.get() == key => drop(place.remove()),
            _ => drop(self.clashes.remove(&live.body.id)),
        }
        Some(live)
    }
}

impl Engine {
    pub(super) fn live(&self, key: TaskKey) -> &Live {
        let live = self.held.get(key);
        assert!(live.is_some(), "the core names task {key:?}, which the engine does not hold");
        live.unwrap_or_else(|| unreachable!())
    }

    pub(super) fn live_mut(&mut self, key: TaskKey) -> &mut Live {
        let live = self.held.get_mut(key);
        assert!(live.is_some(), "the core names task {key:?}, which the engine does not hold");
        live.unwrap_or_else(|| unreachable!())
    }

    /// An open task has ended: what became of it is known from now on.
    pub(super) fn close(&mut self, key: TaskKey, ended: Arc<Ended>) {
        let live = self.live_mut(key);
        live.ended = Some(ended);
        let body = live.body.clone();
        self.held.close(&body);
    }

    /// The core lets go of a task that has ended. Until the view has it, memory keeps it by its id.
    pub(super) fn forget(&mut self, key: TaskKey) {
        let live = self.held.remove(key);
        assert!(live.is_some(), "the core forgets task {key:?}, which the engine does not hold");
        let Some(super::held::Live { body, ended: Some(ended), .. }) = live else { return };
        if ended.seq > self.folded {
            self.held.ended.insert(body.id.clone(), Stored { body, ended });
        }
    }
}
