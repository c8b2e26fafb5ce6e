//! Filling free slots: which ready task goes to which runner.

use crate::effect::Effect;
use crate::event::{RunnerKey, TaskKey};
use crate::ready::{Class, ClassKey, GroupKey};
use crate::scheduler::{Scheduler, TOUCHED_MAX};
use crate::state::{Held, State, Task};
use std::cmp::Reverse;
use taskmaster_protocol::{AttemptId, EventKind, limits};

/// What to do with the first task of a group.
enum Next {
    /// Nothing waits, or nobody has room for it.
    Nothing,
    /// It goes to this runner.
    Send(RunnerKey, TaskKey),
    /// It needs more slots than any runner has free: this one keeps its slots for it.
    Reserve(RunnerKey, TaskKey),
}

impl Scheduler {
    /// Sends ready tasks until nobody has room or nothing is ready, a thousand at most.
    pub(crate) fn dispatch(&mut self, effects: &mut Vec<Effect>) {
        self.ready.left_over = false;
        if self.settle_until.is_some() || self.stopping {
            return;
        }
        self.send_reserved(effects);
        let groups: Vec<GroupKey> = self.ready.groups.keys().copied().collect();
        let mut left = TOUCHED_MAX;
        for group in groups {
            loop {
                match self.next_for(group) {
                    Next::Nothing => break,
                    _ if left == 0 => {
                        self.ready.left_over = true;
                        return;
                    }
                    Next::Send(runner, task) => self.send(runner, task, effects),
                    Next::Reserve(runner, task) => self.reserve(runner, task, effects),
                }
                left -= 1;
            }
        }
    }

    /// The group's first task and its best runner. Higher priority first; then the job that has had
    /// least; in it, who came first.
    fn next_for(&self, key: GroupKey) -> Next {
        let group = &self.ready.groups[&key];
        let Some((Reverse(free), _, runner)) = group.rooms.first().copied() else {
            return Next::Nothing;
        };
        let Some((priority, jobs)) = group.queues.first_key_value() else {
            return Next::Nothing;
        };
        let Some((_, job)) = jobs.first() else {
            return Next::Nothing;
        };
        let is_served =
            |class: ClassKey| group.serves.contains(&class) && self.ready.class(class).open;
        let Some((task, class)) = self.jobs.get(*job).ready.first(*priority, is_served) else {
            return Next::Nothing;
        };
        let class = self.ready.class(class);
        let needs = class.requires.slots();
        let short = class.mean_us.is_some_and(|mean| mean < limits::PREFETCH_US);
        match (needs <= free, needs == 1) {
            (true, _) => Next::Send(runner, task),
            (false, true) if short => Next::Send(runner, task),
            (false, true) => Next::Nothing,
            (false, false) => Next::Reserve(runner, task),
        }
    }

    fn send(&mut self, runner: RunnerKey, key: TaskKey, effects: &mut Vec<Effect>) {
        let (epoch, name) = (self.epoch, self.runner(runner).name.clone());
        self.enter(key, State::Assigned, effects);
        let task = self.tasks.expect(key);
        let tried = task.tried_mut();
        tried.last_n += 1;
        let attempt = AttemptId {
            epoch,
            n: tried.last_n,
        };
        tried.held.push(Held {
            attempt,
            runner: Some(runner),
            name,
        });
        self.lend(runner, key, attempt);
        effects.push(Effect::Send {
            runner,
            task: key,
            attempt,
        });
        effects.push(Effect::Show {
            kind: EventKind::TaskAssigned,
            task: Some(key),
            runner: Some(runner),
        });
    }

    fn reserve(&mut self, runner: RunnerKey, task: TaskKey, effects: &mut Vec<Effect>) {
        self.enter(task, State::Ready { reserved: true }, effects);
        self.runner(runner).reserved = Some(task);
        self.ready.reserving.insert(task, runner);
        self.update_room(runner);
    }

    /// A task for which a runner kept its slots has left the state.
    pub(crate) fn unreserve(&mut self, task: TaskKey) {
        let runner = self.ready.reserving.remove(&task);
        assert!(
            runner.is_some(),
            "no runner keeps its slots for {task:?}, which says that one does"
        );
        let Some(runner) = runner else { return };
        self.runner(runner).reserved = None;
        self.update_room(runner);
    }

    /// Tasks that must not be sent any more let go of the slots that are kept for them.
    pub(crate) fn unreserve_where(
        &mut self,
        of: impl Fn(&Task, &Class) -> bool,
        effects: &mut Vec<Effect>,
    ) {
        let kept = self.ready.reserving.keys().copied();
        let of: Vec<TaskKey> = kept
            .filter(|key| {
                self.tasks
                    .get(*key)
                    .is_some_and(|task| of(task, self.ready.class(task.class)))
            })
            .collect();
        of.into_iter()
            .for_each(|key| self.enter(key, State::Ready { reserved: false }, effects));
    }

    fn send_reserved(&mut self, effects: &mut Vec<Effect>) {
        let reserving: Vec<(TaskKey, RunnerKey)> = self
            .ready
            .reserving
            .iter()
            .map(|(task, by)| (*task, *by))
            .collect();
        for (task, key) in reserving {
            let runner = self.runner(key);
            let (free, full) = (runner.free(), runner.full());
            let class_key = self.tasks.expect(task).class;
            let needs = self.ready.class(class_key).requires.slots();
            if !full && needs <= free {
                self.send(key, task, effects);
            } else if let Some(other) = self.free_for(class_key, needs) {
                self.send(other, task, effects);
            }
        }
    }

    /// A runner that has become free for a task before the one that keeps its slots for it.
    fn free_for(&self, class: ClassKey, needs: u32) -> Option<RunnerKey> {
        let groups = self
            .ready
            .groups
            .values()
            .filter(|group| group.serves.contains(&class));
        let (Reverse(free), _, runner) = groups
            .filter_map(|group| group.rooms.first().copied())
            .min()?;
        (needs <= free).then_some(runner)
    }
}
