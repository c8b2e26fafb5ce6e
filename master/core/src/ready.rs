//! The index of ready tasks. A class is what tasks ask for (module and requirements), a group is
//! the runners that serve the same classes; for each group and priority, jobs stand in the order of
//! what they have had.
//!
//! Nothing here is searched by task: the next task for a group is the head of the first class, that
//! the group serves, of its first job. A blocked task is in none of it.

use crate::effect::Effect;
use crate::event::{RunnerKey, TaskKey};
use crate::jobs::JobKey;
use crate::scheduler::Scheduler;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{Capabilities, ModuleName, Requires, limits};

/// Names a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassKey(pub(crate) u32);

/// Names a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey(pub u32);

/// One queue in which jobs stand: of a group, at a priority.
pub(crate) type Place = (GroupKey, Reverse<i32>);

/// What a job has had. Who has fewer slots in use comes first, then who has used less slot time,
/// then who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Share {
    /// Slots of attempts sent and not ended.
    pub in_use: u32,
    /// Slots times run time of ended attempts.
    pub slot_time_us: u64,
    /// The order of opening; different for any two jobs.
    pub opened: u64,
}

/// What a set of tasks asks for.
#[derive(Debug)]
pub(crate) struct Class {
    pub module: ModuleName,
    pub requires: Arc<Requires>,
    /// What its module may reach.
    pub needs: Arc<Capabilities>,
    /// Whether its module can be sent now.
    pub open: bool,
    /// Tasks in the table that name it.
    pub tasks: usize,
    /// Jobs with ready tasks of it, and their priorities.
    pub jobs: BTreeSet<(JobKey, Reverse<i32>)>,
    /// Run time of its attempts, microseconds, a moving mean; `None`: not measured yet.
    pub mean_us: Option<u64>,
}

impl Class {
    /// Whether a runner that offers this may be sent tasks of the class.
    pub fn suits(&self, offer: &Offer) -> bool {
        let wants = &self.requires;
        let same = |wanted: &Option<String>, is: &String| {
            wanted.as_ref().is_none_or(|wanted| wanted == is)
        };
        (offer.modules.is_empty() || offer.modules.contains(&self.module))
            && wants.slots() <= offer.slots
            && wants.memory_mb.is_none_or(|mb| mb <= offer.memory_mb)
            && same(&wants.os, &offer.os)
            && same(&wants.arch, &offer.arch)
            && wants.env.iter().all(|name| offer.env.contains(name))
            && wants
                .labels
                .iter()
                .all(|(key, value)| offer.labels.get(key) == Some(value))
            && (self.needs.is_empty() || offer.lacks(&self.needs).is_empty())
    }
}

/// Runners that serve the same classes, and the jobs that wait for one of them.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Classes that suit its runners, open or not.
    pub serves: BTreeSet<ClassKey>,
    /// Jobs with ready tasks for it.
    pub queues: BTreeMap<Reverse<i32>, BTreeSet<(Share, JobKey)>>,
    /// Its runners.
    pub members: BTreeSet<RunnerKey>,
    /// Those that have room, the best first: most free slots, then least work waiting.
    pub rooms: BTreeSet<(Reverse<u32>, u64, RunnerKey)>,
}

/// Classes and groups.
#[derive(Debug, Default)]
pub(crate) struct ReadyIndex {
    classes: Vec<Option<Class>>,
    by_need: BTreeMap<ModuleName, BTreeMap<Arc<Requires>, ClassKey>>,
    pub groups: BTreeMap<GroupKey, Group>,
    next_group: u32,
    /// Tasks of several slots for which a runner keeps its own.
    pub reserving: BTreeMap<TaskKey, RunnerKey>,
    /// Dispatch stopped at its limit, not for lack of room or tasks.
    pub left_over: bool,
}

impl ReadyIndex {
    pub fn class(&self, key: ClassKey) -> &Class {
        let class = self.classes.get(key.0 as usize).and_then(Option::as_ref);
        assert!(
            class.is_some(),
            "the core's own index names class {key:?}, which it does not hold"
        );
        class.unwrap_or_else(|| unreachable!())
    }

    pub fn class_mut(&mut self, key: ClassKey) -> &mut Class {
        let class = self
            .classes
            .get_mut(key.0 as usize)
            .and_then(Option::as_mut);
        assert!(
            class.is_some(),
            "the core's own index names class {key:?}, which it does not hold"
        );
        class.unwrap_or_else(|| unreachable!())
    }

    pub fn classes(&self) -> impl Iterator<Item = (ClassKey, &Class)> {
        self.classes
            .iter()
            .enumerate()
            .filter_map(|(i, slot)| slot.as_ref().map(|class| (ClassKey(i as u32), class)))
    }

    fn key_of(&self, module: &ModuleName, requires: &Requires) -> Option<ClassKey> {
        self.by_need.get(module)?.get(requires).copied()
    }

    /// Lets go of classes that no task names, when there are many.
    fn sweep_classes(&mut self) {
        for (i, slot) in self.classes.iter_mut().enumerate() {
            if let Some(class) = slot.take_if(|class| class.tasks == 0) {
                if let Some(of_module) = self.by_need.get_mut(&class.module) {
                    of_module.remove(&class.requires);
                    if of_module.is_empty() {
                        self.by_need.remove(&class.module);
                    }
                }
                for group in self.groups.values_mut() {
                    group.serves.remove(&ClassKey(i as u32));
                }
            }
        }
    }
}

impl Scheduler {
    /// Whether one more distinct set of requirements would be more than the index takes. The shell
    /// refuses adds then.
    pub fn classes_full(&self, module: &ModuleName, requires: &Requires) -> bool {
        let known = self.ready.key_of(module, requires).is_some();
        !known
            && self
                .ready
                .classes()
                .filter(|(_, class)| class.tasks > 0)
                .count()
                >= limits::CLASSES_MAX
    }

    /// The same requirements as other tasks have them: a million tasks that ask for the same share
    /// one copy.
    pub fn shared_requires(
        &self,
        module: &ModuleName,
        requires: &Requires,
    ) -> Option<Arc<Requires>> {
        self.ready
            .key_of(module, requires)
            .map(|key| self.ready.class(key).requires.clone())
    }

    pub(crate) fn class_of(&mut self, module: ModuleName, requires: Arc<Requires>) -> ClassKey {
        if let Some(key) = self.ready.key_of(&module, &requires) {
            return key;
        }
        let hole = |index: &ReadyIndex| index.classes.iter().position(Option::is_none);
        let mut free = hole(&self.ready);
        if free.is_none() && self.ready.classes.len() >= limits::CLASSES_MAX {
            self.ready.sweep_classes();
            free = hole(&self.ready);
        }
        let free = free.unwrap_or(self.ready.classes.len());
        let key = ClassKey(free as u32);
        let open = !self.closed.contains(&module);
        let class = Class {
            module: module.clone(),
            requires: requires.clone(),
            needs: self.needs.get(&module).cloned().unwrap_or_default(),
            open,
            tasks: 0,
            jobs: BTreeSet::new(),
            mean_us: None,
        };
        if free == self.ready.classes.len() {
            self.ready.classes.push(None);
        }
        self.ready.classes[free] = Some(class);
        self.ready
            .by_need
            .entry(module)
            .or_default()
            .insert(requires, key);
        self.serve_new(key);
        key
    }

    /// Finds which groups serve a new class; a group whose runners differ in it is split.
    fn serve_new(&mut self, key: ClassKey) {
        let groups: Vec<GroupKey> = self.ready.groups.keys().copied().collect();
        for group in groups {
            let members: Vec<RunnerKey> =
                self.ready.groups[&group].members.iter().copied().collect();
            let class = self.ready.class(key);
            let (suited, others): (Vec<RunnerKey>, Vec<RunnerKey>) = members
                .into_iter()
                .partition(|member| class.suits(&self.runners[member].offer));
            if suited.is_empty() {
                continue;
            }
            others.iter().for_each(|runner| self.leave_group(*runner));
            self.ready_group(group).serves.insert(key);
            others
                .into_iter()
                .for_each(|runner| self.join_group(runner));
        }
    }

    pub(crate) fn ready_group(&mut self, key: GroupKey) -> &mut Group {
        let group = self.ready.groups.get_mut(&key);
        assert!(
            group.is_some(),
            "the core's own index names group {key:?}, which it does not hold"
        );
        group.unwrap_or_else(|| unreachable!())
    }

    /// Puts a runner into the group of those that serve the same classes.
    pub(crate) fn join_group(&mut self, runner: RunnerKey) {
        let offer = &self.runners[&runner].offer;
        let serves: BTreeSet<ClassKey> = self
            .ready
            .classes()
            .filter(|(_, class)| class.suits(offer))
            .map(|(key, _)| key)
            .collect();
        let same = self
            .ready
            .groups
            .iter()
            .find(|(_, group)| group.serves == serves)
            .map(|(key, _)| *key);
        let key = same.unwrap_or_else(|| {
            let key = GroupKey(self.ready.next_group);
            self.ready.next_group += 1;
            self.ready.groups.insert(
                key,
                Group {
                    serves,
                    ..Group::default()
                },
            );
            key
        });
        self.ready_group(key).members.insert(runner);
        self.runner(runner).group = Some(key);
        if same.is_none() {
            let jobs: Vec<JobKey> = self
                .jobs
                .iter()
                .filter(|(_, job)| !job.ready.is_empty())
                .map(|(key, _)| key)
                .collect();
            jobs.into_iter().for_each(|job| self.place_again(job));
        }
        self.update_room(runner);
    }

    /// Takes a runner out of its group; the last one takes the group along.
    pub(crate) fn leave_group(&mut self, runner: RunnerKey) {
        let Some(key) = self.runner(runner).group.take() else {
            return;
        };
        let room = self.runner(runner).room.take();
        let group = self.ready_group(key);
        group.members.remove(&runner);
        if let Some(room) = room {
            group.rooms.remove(&room);
        }
        if !group.members.is_empty() {
            return;
        }
        let queues = std::mem::take(&mut group.queues);
        self.ready.groups.remove(&key);
        for (priority, jobs) in queues {
            for (_, job) in jobs {
                self.jobs
                    .get_mut(job)
                    .places
                    .retain(|place| *place != (key, priority));
            }
        }
    }

    pub(crate) fn open_module(
        &mut self,
        module: ModuleName,
        open: bool,
        effects: &mut Vec<Effect>,
    ) {
        if open {
            self.closed.remove(&module);
        } else {
            self.closed.insert(module.clone());
            self.unreserve_where(|_, class| class.module == module, effects);
        }
        let of: Vec<ClassKey> = self
            .ready
            .classes()
            .filter(|(_, class)| class.module == module)
            .map(|(key, _)| key)
            .collect();
        for key in of {
            let class = self.ready.class_mut(key);
            class.open = open;
            let jobs: BTreeSet<JobKey> = class.jobs.iter().map(|(job, _)| *job).collect();
            jobs.into_iter().for_each(|job| self.place_again(job));
        }
    }

    /// A module may reach something else than before: other runners may suit its classes now.
    pub(crate) fn set_needs(
        &mut self,
        module: ModuleName,
        needs: Arc<Capabilities>,
        effects: &mut Vec<Effect>,
    ) {
        let last = match needs.is_empty() {
            true => self.needs.remove(&module),
            false => self.needs.insert(module.clone(), needs.clone()),
        };
        if last.unwrap_or_default() == needs {
            return;
        }
        self.unreserve_where(|_, class| class.module == module, effects);
        let of: Vec<ClassKey> = self
            .ready
            .classes()
            .filter(|(_, class)| class.module == module)
            .map(|(key, _)| key)
            .collect();
        of.iter()
            .for_each(|key| self.ready.class_mut(*key).needs = needs.clone());
        if !of.is_empty() {
            let runners: Vec<RunnerKey> = self
                .runners
                .iter()
                .filter(|(_, runner)| runner.group.is_some())
                .map(|(key, _)| *key)
                .collect();
            runners.iter().for_each(|runner| self.leave_group(*runner));
            runners
                .into_iter()
                .for_each(|runner| self.join_group(runner));
        }
    }

    pub(crate) fn ready_insert(&mut self, key: TaskKey) {
        let task = self.tasks.expect(key);
        let (no, job_key, class, priority) =
            (task.no, task.job, task.class, Reverse(task.priority));
        let job = self.jobs.get_mut(job_key);
        if job.ready.insert((priority, class), (no, key)) {
            self.ready.class_mut(class).jobs.insert((job_key, priority));
            self.place(job_key, class, priority);
        }
    }

    pub(crate) fn ready_remove(&mut self, key: TaskKey) {
        let task = self.tasks.expect(key);
        let (no, job_key, class, priority) =
            (task.no, task.job, task.class, Reverse(task.priority));
        let job = self.jobs.get_mut(job_key);
        if job.ready.remove((priority, class), (no, key)) {
            self.ready
                .class_mut(class)
                .jobs
                .remove(&(job_key, priority));
            self.unplace(job_key, priority);
        }
    }

    /// A job has its first ready task of a class at a priority: it stands in the queues of the
    /// groups that serve it.
    fn place(&mut self, job_key: JobKey, class: ClassKey, priority: Reverse<i32>) {
        let job = self.jobs.get_mut(job_key);
        if job.paused || !self.ready.class(class).open {
            return;
        }
        for (key, group) in &mut self.ready.groups {
            if group.serves.contains(&class) && !job.places.contains(&(*key, priority)) {
                job.places.push((*key, priority));
                group
                    .queues
                    .entry(priority)
                    .or_default()
                    .insert((job.share, job_key));
            }
        }
    }

    /// A job has no ready task of some class any more: it leaves the queues in which nothing else
    /// keeps it.
    fn unplace(&mut self, job_key: JobKey, priority: Reverse<i32>) {
        let job = self.jobs.get_mut(job_key);
        let at_priority: Vec<Place> = job
            .places
            .iter()
            .filter(|(_, p)| *p == priority)
            .copied()
            .collect();
        for place in at_priority {
            let Some(group) = self.ready.groups.get_mut(&place.0) else {
                continue;
            };
            let mut kept = job.ready.classes_at(priority);
            let open = |class: &ClassKey| {
                self.ready.classes[class.0 as usize]
                    .as_ref()
                    .is_some_and(|class| class.open)
            };
            if !job.paused && kept.any(|class| group.serves.contains(&class) && open(&class)) {
                continue;
            }
            job.places.retain(|other| *other != place);
            remove_from(group, priority, (job.share, job_key));
        }
    }

    /// Finds a job's places anew: it was paused or resumed, a module opened or closed, a group
    /// came.
    pub(crate) fn place_again(&mut self, job_key: JobKey) {
        let job = self.jobs.get_mut(job_key);
        for (group, priority) in std::mem::take(&mut job.places).iter() {
            if let Some(group) = self.ready.groups.get_mut(group) {
                remove_from(group, *priority, (job.share, job_key));
            }
        }
        let ready: Vec<(Reverse<i32>, ClassKey)> = self.jobs.get(job_key).ready.keys().collect();
        for (priority, class) in ready {
            self.place(job_key, class, priority);
        }
    }

    /// Changes what a job has had, and with it its places in all queues.
    pub(crate) fn charge(&mut self, job_key: JobKey, change: impl FnOnce(&mut Share)) {
        let job = self.jobs.get_mut(job_key);
        let last = job.share;
        change(&mut job.share);
        for (group, priority) in job.places.iter() {
            if let Some(queue) = self
                .ready
                .groups
                .get_mut(group)
                .and_then(|group| group.queues.get_mut(priority))
            {
                queue.remove(&(last, job_key));
                queue.insert((job.share, job_key));
            }
        }
    }
}

fn remove_from(group: &mut Group, priority: Reverse<i32>, entry: (Share, JobKey)) {
    if let Some(queue) = group.queues.get_mut(&priority) {
        queue.remove(&entry);
        if queue.is_empty() {
            group.queues.remove(&priority);
        }
    }
}
