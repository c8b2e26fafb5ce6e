//! The tasks that the core has. Memory keeps little for each task, because millions may wait.

use super::attempt::LastAttempt;
use super::order::AddingOrder;
use hashbrown::HashTable;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use taskmaster_core::{TaskKey, TaskMap};
use taskmaster_protocol::{JobName, TaskId};
use taskmaster_store::body::{JobRun, TaskBody};
use taskmaster_store::packed::StoredBody;
use taskmaster_store::record::Ended;
use taskmaster_store::view::EndedTask;

/// A task that the core has.
#[derive(Debug)]
pub(crate) struct Live {
    /// What the task's document says, packed while the task waits.
    pub body: StoredBody,
    /// The last attempt, once there is one.
    pub last: Option<Box<LastAttempt>>,
    /// How the task has ended. An ended task stays here while a runner has an attempt of it, or
    /// while its dependents have not been told.
    pub ended: Option<Arc<Ended>>,
    /// The present priority, which `task:set` may have changed.
    pub priority: i32,
}

/// What memory knows about an id.
#[derive(Debug)]
pub(crate) enum Known<'a> {
    /// The task is open.
    Open(TaskKey),
    /// The task has ended, and the core still has it: a runner has an attempt of it, or its
    /// dependents have not been told.
    Closing(TaskKey, &'a Arc<Ended>),
    /// The task has ended, the core has forgotten it, and the view does not have it yet.
    Ended(&'a EndedTask),
}

impl<'a> Known<'a> {
    /// The key under which the core has the task.
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

/// The hash of an id. Tables have the hash instead of the id, which would take a fifth of all
/// memory. Each entry has its hash, so that a table can grow without looking at the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdHash(u32);

impl IdHash {
    /// The hash in 64 bits, as hash tables need it: random in its lowest and in its highest bits.
    fn wide(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// Tasks by key and by id, and the ids that open tasks name.
#[derive(Debug, Default)]
pub(crate) struct LiveTasks {
    tasks: TaskMap<Live>,
    /// Keys below `next` that no task has.
    free: Vec<TaskKey>,
    /// The next key that no task has ever had.
    next: u32,
    /// Randomly seeded, because ids come from outside, and nobody may choose ids that collide.
    hasher: RandomState,
    /// Keys of the tasks, by the hash of their ids.
    keys: HashTable<(IdHash, TaskKey)>,
    /// Open tasks in the order in which they were added, for lists.
    pub open: AddingOrder,
    /// How many open tasks depend on an id with this hash. Such tasks are not pruned.
    named: HashTable<(IdHash, u32)>,
    /// How many open tasks take the results of this job. Its ended tasks are not pruned.
    named_jobs: BTreeMap<JobName, u32>,
    /// How many open tasks descend from the task of this ordinal.
    descendants: BTreeMap<u64, usize>,
    /// Memory that open tasks take, bytes, estimated.
    pub bytes: u64,
    /// Ended tasks that the core has forgotten and that the view does not have yet, by the hash of
    /// their ids.
    ended: HashTable<(IdHash, EndedTask)>,
}

/// Memory of an open task in the core and in this table, without what its document says, bytes. It
/// was measured with a million tasks (docs/performance.md), and the store's share is left out.
const TASK_BYTES: u64 = 350;

/// Memory of a dependency, bytes: the edge in the core and the id in the body.
const DEPENDENCY_BYTES: u64 = 100;

/// Memory of an open task, bytes, estimated.
fn bytes_of(body: &TaskBody) -> u64 {
    let params = body.params.as_ref().map_or(0, |params| params.get().len());
    let extras = body.extras.as_ref().map_or(0, |extras| {
        let args: usize = extras.args.iter().map(String::len).sum();
        args + extras
            .env
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>()
    });
    TASK_BYTES + DEPENDENCY_BYTES * body.dependencies().len() as u64 + (params + extras) as u64
}

impl LiveTasks {
    fn hash(&self, id: &TaskId) -> IdHash {
        IdHash(self.hasher.hash_one(id.as_str()) as u32)
    }

    /// The task of this key.
    pub fn get(&self, key: TaskKey) -> Option<&Live> {
        self.tasks.get(key)
    }

    /// The task of this key, mutable.
    pub fn get_mut(&mut self, key: TaskKey) -> Option<&mut Live> {
        self.tasks.get_mut(key)
    }

    /// Every task that the core has.
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

    /// What memory knows about an id.
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

    /// Adds an open task. Returns its new key.
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
        if let Some(lineage) = body.lineage() {
            *self.descendants.entry(lineage.root).or_default() += 1;
        }
        self.count_named(&body);
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

    /// Replaces the body `last` of an open task with `body`. The task keeps its id and its place in
    /// the order of adding.
    pub fn replace(&mut self, key: TaskKey, last: &TaskBody, body: Arc<TaskBody>) {
        let Some(live) = self.tasks.get_mut(key) else {
            return;
        };
        live.priority = body.priority;
        live.body = StoredBody::Whole(body.clone());
        self.bytes = self.bytes - bytes_of(last) + bytes_of(&body);
        self.uncount_named(last);
        self.count_named(&body);
    }

    /// Counts what a task that opens depends on.
    fn count_named(&mut self, body: &TaskBody) {
        for JobRun { job, .. } in body.job_results() {
            *self.named_jobs.entry(job.clone()).or_default() += 1;
        }
        for dependency in body.dependencies() {
            let named = self.hash(&dependency.on);
            let same = |(of, _): &(IdHash, u32)| *of == named;
            self.named
                .entry(named.wide(), same, |(of, _)| of.wide())
                .or_insert((named, 0))
                .into_mut()
                .1 += 1;
        }
    }

    /// The task of this body has ended. Its key stays until the core forgets the task.
    pub fn close(&mut self, body: &TaskBody) {
        self.open.remove(body.ordinal);
        self.bytes -= bytes_of(body);
        if let Some(lineage) = body.lineage()
            && let Entry::Occupied(mut count) = self.descendants.entry(lineage.root)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.uncount_named(body);
    }

    /// How many open tasks descend from the task of this ordinal.
    pub fn open_descendants(&self, root: u64) -> usize {
        self.descendants.get(&root).copied().unwrap_or(0)
    }

    fn uncount_named(&mut self, body: &TaskBody) {
        for JobRun { job, .. } in body.job_results() {
            if let Entry::Occupied(mut count) = self.named_jobs.entry(job.clone()) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        for dependency in body.dependencies() {
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

    /// Whether an open task may depend on this id. Ids with equal hashes count as one.
    pub fn is_named(&self, id: &TaskId) -> bool {
        let named = self.hash(id);
        self.named
            .find(named.wide(), |(of, _)| *of == named)
            .is_some()
    }

    /// Whether an open task takes the results of this job.
    pub fn is_job_named(&self, job: &JobName) -> bool {
        self.named_jobs.contains_key(job)
    }

    /// Removes the task of this key, so that another task can get the key.
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

    /// Forgets the ended task of this id, if there is one and `is_wanted` says so.
    pub fn forget_ended(&mut self, id: &TaskId, is_wanted: impl Fn(&EndedTask) -> bool) {
        self.forget_ended_by(self.hash(id), id, is_wanted);
    }

    fn forget_ended_by(
        &mut self,
        hash: IdHash,
        id: &TaskId,
        is_wanted: impl Fn(&EndedTask) -> bool,
    ) {
        let is_it = |(of, stored): &(IdHash, EndedTask)| {
            *of == hash && stored.body.id == *id && is_wanted(stored)
        };
        if let Ok(entry) = self.ended.find_entry(hash.wide(), is_it) {
            entry.remove();
        }
    }

    /// Packs the bodies of tasks that still wait, from the ordinal `first` to `last`.
    pub fn pack(&mut self, first: u64, last: u64) {
        let tasks = &mut self.tasks;
        let range = self
            .open
            .from(first)
            .take_while(|(ordinal, _)| *ordinal <= last);
        for (_, key) in range {
            if let Some(live) = tasks
                .get_mut(key)
                .filter(|live| live.last.is_none() && live.ended.is_none())
            {
                live.body.pack();
            }
        }
    }
}
