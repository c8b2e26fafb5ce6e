//! Filling free slots: which ready task goes to which runner.

use crate::effect::Effect;
use crate::event::{RunnerKey, TaskKey};
use crate::ready::{ClassKey, GroupKey};
use crate::scheduler::{Scheduler, TOUCHED_MAX};
use crate::state::{Held, State};
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
        if self.settle_until.is_some() {
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

    /// The group's first task and its best runner. Higher priority first; then the job that has had least; in it, who
    /// came first.
    fn next_for(&self, key: GroupKey) -> Next {
        let group = &self.ready.groups[&key];
        let Some((Reverse(free), _, runner)) = group.rooms.first().copied() else { return Next::Nothing };
        let Some((priority, jobs)) = group.queues.first_key_value() else { return Next::Nothing };
        let Some((_, job)) = jobs.first() else { return Next::Nothing };
        let queues = self.jobs.get(*job).ready.range((*priority, ClassKey(0))..=(*priority, ClassKey(u32::MAX)));
        let served = queues.filter(|((_, class), _)| group.serves.contains(class) && self.ready.class(*class).open);
        let heads = served.filter_map(|((_, class), queue)| queue.first().map(|(no, task)| (*no, *task, *class)));
        let Some((_, task, class)) = heads.min() else { return Next::Nothing };
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
        let epoch = self.epoch;
        self.enter(key, State::Assigned, effects);
        let task = self.tasks.expect(key);
        task.last_n += 1;
        let attempt = AttemptId { epoch, n: task.last_n };
        task.held.push(Held { attempt, runner: Some(runner) });
        self.lend(runner, key, attempt);
        effects.push(Effect::Send { runner, task: key, attempt });
        effects.push(Effect::Show { kind: EventKind::TaskAssigned, task: Some(key), runner: Some(runner) });
    }

    fn reserve(&mut self, runner: RunnerKey, task: TaskKey, effects: &mut Vec<Effect>) {
        self.enter(task, State::Ready { reserved: Some(runner) }, effects);
        self.runner(runner).reserved = Some(task);
        self.ready.reserving.insert(runner);
        self.update_room(runner);
    }

    /// The task for which a runner kept its slots has left the state.
    pub(crate) fn unreserve(&mut self, runner: RunnerKey) {
        self.ready.reserving.remove(&runner);
        self.runner(runner).reserved = None;
        self.update_room(runner);
    }

    fn send_reserved(&mut self, effects: &mut Vec<Effect>) {
        let reserving: Vec<RunnerKey> = self.ready.reserving.iter().copied().collect();
        for key in reserving {
            let runner = self.runner(key);
            let (Some(task), free) = (runner.reserved, runner.free()) else { continue };
            let class = self.ready.class(self.tasks.expect(task).class);
            if class.open && class.requires.slots() <= free {
                self.send(key, task, effects);
            }
        }
    }
}
