//! The index of ready tasks. A class is what tasks ask for, a group is the runners that serve the
//! same classes. For each group and priority, jobs stand in the order of what they have used.
//!
//! Nothing is searched to find the next task for a group: it is the head of the first class, among
//! those that the group serves, of the group's first job. A blocked task is nowhere in this index.

use crate::keys::{ClassKey, GroupKey, JobKey, RunnerKey, TaskKey};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{Capabilities, ModuleName, Requires};

/// Names one queue in which jobs stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobQueueKey {
    pub group: GroupKey,
    pub priority: Reverse<i32>,
}

/// What a job has used. The job with fewer slots in use comes first, then the one that has used
/// less slot time, then the one that was opened first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobUsage {
    /// Slots of the job's attempts in flight.
    pub slots_in_use: u32,
    /// Run time of ended attempts times their slots, in microseconds.
    pub slot_time_us: u64,
    /// The order of opening, which differs for any two jobs.
    pub opened: u64,
}

/// Whether and how well a runner can take one more attempt. The smallest is the best: most free
/// slots, then least run time waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Availability {
    pub free_slots: Reverse<u32>,
    /// Expected run time of the runner's attempts, in microseconds.
    pub backlog_us: u64,
    pub runner: RunnerKey,
}

/// What a set of tasks asks for: a module together with requirements.
#[derive(Debug)]
pub(crate) struct TaskClass {
    pub module: ModuleName,
    pub requires: Arc<Requires>,
    /// The most memory that an attempt may take, in MiB.
    pub memory_mb: u32,
    /// What the module is granted, and a runner must therefore offer.
    pub needs: Arc<Capabilities>,
    /// Whether tasks of the module can be sent.
    pub open: bool,
    /// The number of tasks in the table that are of this class.
    pub tasks: usize,
    /// Jobs with ready tasks of this class, and the priorities of these tasks.
    pub jobs: BTreeSet<(JobKey, Reverse<i32>)>,
    /// The moving mean of the run time of an attempt, in microseconds; `None` before the first.
    pub mean_us: Option<u64>,
}

impl TaskClass {
    /// Whether a runner with this offer may be sent tasks of the class.
    pub fn suits(&self, offer: &Offer) -> bool {
        let wants = &self.requires;
        let is_or_any = |wanted: &Option<String>, offered: &String| {
            wanted.as_ref().is_none_or(|wanted| wanted == offered)
        };
        (offer.modules.is_empty() || offer.modules.contains(&self.module))
            && wants.slots() <= offer.slots
            && wants.memory_mb.is_none_or(|mb| mb <= offer.memory_mb)
            && is_or_any(&wants.os, &offer.os)
            && is_or_any(&wants.arch, &offer.arch)
            && wants.env.iter().all(|name| offer.env.contains(name))
            && wants
                .labels
                .iter()
                .all(|(key, value)| offer.labels.get(key) == Some(value))
            && (self.needs.is_empty() || offer.lacks(&self.needs).is_empty())
    }

    /// Takes the run time of an attempt into the mean.
    pub fn add_run_time(&mut self, run_us: u64) {
        let mean = match self.mean_us {
            Some(mean) => mean - mean / 8 + run_us / 8,
            None => run_us,
        };
        self.mean_us = Some(mean.max(1));
    }
}

/// Runners that serve the same classes, and the jobs that wait for one of these runners.
#[derive(Debug, Default)]
pub(crate) struct RunnerGroup {
    /// The classes that suit the runners, whether or not their modules can be sent.
    pub serves: BTreeSet<ClassKey>,
    /// The jobs with ready tasks for the group, by priority.
    pub job_queues: BTreeMap<Reverse<i32>, BTreeSet<(JobUsage, JobKey)>>,
    /// All runners of the group.
    pub members: BTreeSet<RunnerKey>,
    /// The runners that can take one more attempt, the best first.
    pub available: BTreeSet<Availability>,
}

impl RunnerGroup {
    /// Takes a job out of the queue of a priority.
    pub fn remove_job(&mut self, priority: Reverse<i32>, usage: JobUsage, job: JobKey) {
        if let Some(queue) = self.job_queues.get_mut(&priority) {
            queue.remove(&(usage, job));
            if queue.is_empty() {
                self.job_queues.remove(&priority);
            }
        }
    }
}

/// Classes and groups.
#[derive(Debug, Default)]
pub(crate) struct ReadyIndex {
    /// By [`ClassKey`]; `None` where a key is free.
    classes: Vec<Option<TaskClass>>,
    /// Keys of the classes, by what they ask for: module, requirements, and memory.
    class_keys: BTreeMap<ModuleName, BTreeMap<Arc<Requires>, BTreeMap<u32, ClassKey>>>,
    pub groups: BTreeMap<GroupKey, RunnerGroup>,
    next_group: u32,
    /// Tasks of several slots, each with the runner that keeps its slots for the task.
    pub reservations: BTreeMap<TaskKey, RunnerKey>,
    /// Whether the last dispatch stopped at its limit, and not because no runner was available or no
    /// task was ready.
    pub left_over: bool,
}

impl ReadyIndex {
    /// A class that a task names.
    #[expect(
        clippy::panic,
        reason = "a class is dropped only when no task names it"
    )]
    pub fn class(&self, key: ClassKey) -> &TaskClass {
        let class = self.classes.get(key.0 as usize).and_then(Option::as_ref);
        class.unwrap_or_else(|| {
            panic!("the core's own index names class {key:?}, which it does not hold")
        })
    }

    /// A class that a task names, to be changed.
    #[expect(
        clippy::panic,
        reason = "a class is dropped only when no task names it"
    )]
    pub fn class_mut(&mut self, key: ClassKey) -> &mut TaskClass {
        let class = self
            .classes
            .get_mut(key.0 as usize)
            .and_then(Option::as_mut);
        class.unwrap_or_else(|| {
            panic!("the core's own index names class {key:?}, which it does not hold")
        })
    }

    /// Whether the tasks of a class can be sent; `false` for a class that is not there.
    pub fn is_open(&self, key: ClassKey) -> bool {
        let class = self.classes.get(key.0 as usize).and_then(Option::as_ref);
        class.is_some_and(|class| class.open)
    }

    pub fn classes(&self) -> impl Iterator<Item = (ClassKey, &TaskClass)> {
        self.classes
            .iter()
            .enumerate()
            .filter_map(|(i, slot)| slot.as_ref().map(|class| (ClassKey(i as u32), class)))
    }

    /// The classes of a module.
    pub fn classes_of(&self, module: &ModuleName) -> Vec<ClassKey> {
        self.classes()
            .filter(|(_, class)| class.module == *module)
            .map(|(key, _)| key)
            .collect()
    }

    /// The class of a module, requirements and memory, if there is one.
    pub fn class_key(
        &self,
        module: &ModuleName,
        requires: &Requires,
        memory_mb: u32,
    ) -> Option<ClassKey> {
        let by_memory = self.class_keys.get(module)?.get(requires)?;
        by_memory.get(&memory_mb).copied()
    }

    /// The copy of these requirements that the classes of a module share, if there is one.
    pub fn shared_requires(
        &self,
        module: &ModuleName,
        requires: &Requires,
    ) -> Option<&Arc<Requires>> {
        let of_module = self.class_keys.get(module)?;
        of_module.get_key_value(requires).map(|(shared, _)| shared)
    }

    /// Takes a class in under a free key. With `max` classes, those that no task names are dropped
    /// first.
    pub fn insert_class(&mut self, class: TaskClass, max: usize) -> ClassKey {
        let mut free = self.classes.iter().position(Option::is_none);
        if free.is_none() && self.classes.len() >= max {
            self.drop_unused_classes();
            free = self.classes.iter().position(Option::is_none);
        }
        let index = free.unwrap_or(self.classes.len());
        let key = ClassKey(index as u32);
        self.class_keys
            .entry(class.module.clone())
            .or_default()
            .entry(class.requires.clone())
            .or_default()
            .insert(class.memory_mb, key);
        if index == self.classes.len() {
            self.classes.push(None);
        }
        self.classes[index] = Some(class);
        key
    }

    fn forget_class_key(&mut self, class: &TaskClass) {
        let Some(of_module) = self.class_keys.get_mut(&class.module) else {
            return;
        };
        if let Some(by_memory) = of_module.get_mut(&class.requires) {
            by_memory.remove(&class.memory_mb);
            if by_memory.is_empty() {
                of_module.remove(&class.requires);
            }
        }
        if of_module.is_empty() {
            self.class_keys.remove(&class.module);
        }
    }

    fn drop_unused_classes(&mut self) {
        for i in 0..self.classes.len() {
            let Some(class) = self.classes[i].take_if(|class| class.tasks == 0) else {
                continue;
            };
            self.forget_class_key(&class);
            for group in self.groups.values_mut() {
                group.serves.remove(&ClassKey(i as u32));
            }
        }
    }

    /// A group that a runner names.
    #[expect(
        clippy::panic,
        reason = "a group is removed together with its last runner"
    )]
    pub fn group_mut(&mut self, key: GroupKey) -> &mut RunnerGroup {
        self.groups.get_mut(&key).unwrap_or_else(|| {
            panic!("the core's own index names group {key:?}, which it does not hold")
        })
    }

    /// Makes a group without runners that serves these classes.
    pub fn insert_group(&mut self, serves: BTreeSet<ClassKey>) -> GroupKey {
        let key = GroupKey(self.next_group);
        self.next_group += 1;
        let group = RunnerGroup {
            serves,
            ..RunnerGroup::default()
        };
        self.groups.insert(key, group);
        key
    }
}
