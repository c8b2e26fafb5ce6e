//! The tasks that the core holds, and what memory keeps of each: little, because there may be
//! millions that wait.

use super::attempt::LastAttempt;
use super::order::AddingOrder;
use hashbrown::HashTable;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use taskmaster_core::{TaskKey, TaskMap};
use taskmaster_protocol::{Dependency, TaskId};
use taskmaster_store::body::TaskBody;
use taskmaster_store::packed::StoredBody;
use taskmaster_store::record::Ended;
use taskmaster_store::view::EndedTask;

/// A task that the core holds.
#[derive(Debug)]
pub(crate) struct Live {
    pub body: StoredBody,
    /// The last attempt, once there is one.
    pub last: Option<Box<LastAttempt>>,
    /// It has ended, and a runner still holds an attempt of it or its dependents do not know yet.
    pub ended: Option<Arc<Ended>>,
    /// Changed by `task:set`.
    pub priority: i32,
}

/// What memory knows of an id. The view knows the others.
#[derive(Debug)]
pub(crate) enum Known<'a> {
    /// The task is open.
    Open(TaskKey),
    /// The task has ended, and the core still holds it: a runner has an attempt of it, or its
    /// dependents do not know yet.
    Closing(TaskKey, &'a Arc<Ended>),
    /// The task has ended, the core has let go of it, and the view does not have it yet.
    Ended(&'a EndedTask),
}

impl<'a> Known<'a> {
    /// The key under which the core holds the task.
    pub fn key(&self) -> Option<TaskKey> {
        match self {
            Known::Open(key) | Known::Closing(key, _) => Some(*key),
            Known::Ended(_) => None,
        }
    }

    /// How the task has ended; `None` while it is open.
    pub fn end(&self) -> Option<&'a Arc<Ended>> {
        match self {
            Known::Open(_) => None,
            Known::Closing(_, ended) => Some(ended),
            Known::Ended(stored) => Some(&stored.ended),
        }
    }
}

/// The hash of an id. The id itself would be a fifth of all memory; a table's entry has this beside
/// what it is of, so that a table that grows looks at nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdHash(u32);

impl IdHash {
    /// As a table wants it: random in its lowest bits, and in its highest.
    fn wide(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// Tasks by key and by id, and the ids that open tasks name.
#[derive(Debug, Default)]
pub(crate) struct LiveTasks {
    tasks: TaskMap<Live>,
    /// Keys given back; the others below `next` are in use.
    free: Vec<TaskKey>,
    next: u32,
    /// A hash that nobody outside can foresee: ids come from outside.
    hasher: RandomState,
    /// By id.
    keys: HashTable<(IdHash, TaskKey)>,
    /// Open tasks in the order of their adding, for lists.
    pub open: AddingOrder,
    /// How many open tasks name an id of this hash: these are not pruned.
    named: HashTable<(IdHash, u32)>,
    /// Memory that open tasks take, bytes, about.
    pub bytes: u64,
    /// Ended tasks that the core has let go of, and that the view does not have yet, by id.
    ended: HashTable<(IdHash, EndedTask)>,
}

/// What an open task takes in the core and here beside what its document says, bytes: measured with
/// a million of them (docs/performance.md), the store's share left out.
const TASK_BYTES: u64 = 350;

/// A dependency: the edge in the core, the id here.
const DEPENDENCY_BYTES: u64 = 100;

/// The memory of an open task, about.
fn bytes_of(body: &TaskBody) -> u64 {
    let params = body.params.as_ref().map_or(0, |params| params.get().len());
    let rare = body.extras.as_ref().map_or(0, |rare| {
        let args: usize = rare.args.iter().map(String::len).sum();
        args + rare
            .env
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>()
    });
    TASK_BYTES + DEPENDENCY_BYTES * body.dependencies().len() as u64 + (params + rare) as u64
}

impl LiveTasks {
    fn hash(&self, id: &TaskId) -> IdHash {
        IdHash(self.hasher.hash_one(id.as_str()) as u32)
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

    fn key_by(&self, hash: IdHash, id: &TaskId) -> Option<TaskKey> {
        let is_it = |(of, key): &(IdHash, TaskKey)| {
            *of == hash
                && self
                    .tasks
                    .get(*key)
                    .is_some_and(|live| live.body.has_id(id))
        };
        self.keys.find(hash.wide(), is_it).map(|(_, key)| *key)
    }

    /// What is known of an id.
    pub fn known(&self, id: &TaskId) -> Option<Known<'_>> {
        let hash = self.hash(id);
        if let Some(key) = self.key_by(hash, id) {
            let ended = self.get(key).and_then(|live| live.ended.as_ref());
            return Some(ended.map_or(Known::Open(key), |ended| Known::Closing(key, ended)));
        }
        let is_it = |(of, stored): &(IdHash, EndedTask)| *of == hash && stored.body.id == *id;
        let found = self.ended.find(hash.wide(), is_it);
        found.map(|(_, stored)| Known::Ended(stored))
    }

    /// Puts a task under a free key.
    pub fn insert(&mut self, body: Arc<TaskBody>, priority: i32) -> TaskKey {
        let key = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            TaskKey(self.next - 1)
        });
        let hash = self.hash(&body.id);
        self.keys
            .insert_unique(hash.wide(), (hash, key), |(of, _)| of.wide());
        self.forget_ended_by(hash, &body.id, |_| true);
        self.open.insert(body.ordinal, key);
        self.bytes += bytes_of(&body);
        self.name(body.dependencies());
        self.tasks.insert(
            key,
            Live {
                body: StoredBody::Whole(body),
                last: None,
                ended: None,
                priority,
            },
        );
        key
    }

    /// An open task is from now on what `body` says; it keeps its id and its place.
    pub fn replace(&mut self, key: TaskKey, last: &TaskBody, body: Arc<TaskBody>) {
        let Some(live) = self.tasks.get_mut(key) else {
            return;
        };
        live.priority = body.priority;
        live.body = StoredBody::Whole(body.clone());
        self.bytes = self.bytes - bytes_of(last) + bytes_of(&body);
        self.name_no_more(last.dependencies());
        self.name(body.dependencies());
    }

    /// An open task names these.
    fn name(&mut self, dependencies: &[Dependency]) {
        for dependency in dependencies {
            let named = self.hash(&dependency.on);
            let same = |(of, _): &(IdHash, u32)| *of == named;
            self.named
                .entry(named.wide(), same, |(of, _)| of.wide())
                .or_insert((named, 0))
                .into_mut()
                .1 += 1;
        }
    }

    /// A task is open no longer.
    pub fn close(&mut self, body: &TaskBody) {
        self.open.remove(body.ordinal);
        self.bytes -= bytes_of(body);
        self.name_no_more(body.dependencies());
    }

    fn name_no_more(&mut self, dependencies: &[Dependency]) {
        for dependency in dependencies {
            let named = self.hash(&dependency.on);
            let Ok(mut entry) = self.named.find_entry(named.wide(), |(of, _)| *of == named) else {
                continue;
            };
            entry.get_mut().1 -= 1;
            if entry.get().1 == 0 {
                entry.remove();
            }
        }
    }

    /// Whether an open task may name this id.
    pub fn is_named(&self, id: &TaskId) -> bool {
        let named = self.hash(id);
        self.named
            .find(named.wide(), |(of, _)| *of == named)
            .is_some()
    }

    /// Lets go of a key.
    pub fn remove(&mut self, key: TaskKey, id: &TaskId) -> Option<Live> {
        let live = self.tasks.remove(key)?;
        self.free.push(key);
        let hash = self.hash(id);
        if let Ok(entry) = self
            .keys
            .find_entry(hash.wide(), |(_, other)| *other == key)
        {
            entry.remove();
        }
        Some(live)
    }

    pub fn remember_ended(&mut self, stored: EndedTask) {
        let hash = self.hash(&stored.body.id);
        self.ended
            .insert_unique(hash.wide(), (hash, stored), |(of, _)| of.wide());
    }

    /// Lets go of an ended task, if it is here and the one that is meant.
    pub fn forget_ended(&mut self, id: &TaskId, is_meant: impl Fn(&EndedTask) -> bool) {
        self.forget_ended_by(self.hash(id), id, is_meant);
    }

    fn forget_ended_by(
        &mut self,
        hash: IdHash,
        id: &TaskId,
        is_meant: impl Fn(&EndedTask) -> bool,
    ) {
        let is_it = |(of, stored): &(IdHash, EndedTask)| {
            *of == hash && stored.body.id == *id && is_meant(stored)
        };
        if let Ok(entry) = self.ended.find_entry(hash.wide(), is_it) {
            entry.remove();
        }
    }

    /// Packs the bodies of tasks up to `last` that wait still, from `first` on.
    pub fn pack(&mut self, first: u64, last: u64) {
        let (open, tasks) = (&self.open, &mut self.tasks);
        for (_, key) in open.from(first).take_while(|(no, _)| *no <= last) {
            if let Some(live) = tasks
                .get_mut(key)
                .filter(|live| live.last.is_none() && live.ended.is_none())
            {
                live.body.pack();
            }
        }
    }
}
