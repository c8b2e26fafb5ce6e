//! Filling free slots: which ready task goes to which runner.

use crate::effect::Effect;
use crate::keys::{ClassKey, GroupKey, RunnerKey, TaskKey};
use crate::ready::{Availability, RunnerGroup, TaskClass};
use crate::scheduler::{Scheduler, TOUCHED_PER_TURN_MAX};
use crate::state::State;
use crate::task::{OpenAttempt, Task};
use taskmaster_protocol::{AttemptId, EventKind, limits};

/// How many runners with free slots are looked at for one that has the memory, too, before the task is
/// reserved for the first of them. It bounds the time of a step among thousands of runners that are
/// full of memory.
const LOOKED_AT_FOR_MEMORY_MAX: usize = 64;

/// What to do with the first task of a group.
enum DispatchStep {
    /// No task waits, or no runner is available for the first one.
    Nothing,
    /// The task goes to this runner.
    Send(RunnerKey, TaskKey),
    /// The task waits for an equal one that is at work.
    Join(TaskKey),
    /// The task needs more slots or memory than any runner has free. This runner keeps what it has
    /// for the task.
    Reserve(RunnerKey, TaskKey),
}

impl Scheduler {
    /// Sends ready tasks until no runner is available or no task is ready, [`TOUCHED_PER_TURN_MAX`]
    /// at most.
    pub(crate) fn dispatch(&mut self, effects: &mut Vec<Effect>) {
        self.ready.left_over = false;
        if self.roster_wait_until.is_some() || self.stopping {
            return;
        }
        self.join_reserved(effects);
        self.send_reserved(effects);

        let groups: Vec<GroupKey> = self.ready.groups.keys().copied().collect();
        let mut left = TOUCHED_PER_TURN_MAX;
        for group in groups {
            loop {
                let step = self.next_step(group);
                if left == 0 && !matches!(step, DispatchStep::Nothing) {
                    self.ready.left_over = true;
                    return;
                }
                match step {
                    DispatchStep::Nothing => break,
                    DispatchStep::Send(runner, task) => self.send(runner, task, effects),
                    DispatchStep::Join(task) => self.enter(task, State::Joined, effects),
                    DispatchStep::Reserve(runner, task) => self.reserve(runner, task, effects),
                }
                left -= 1;
            }
        }
    }

    /// Finds the first task of a group and the best runner for it. Higher priorities come first,
    /// then the job that has used least, and in a job the task that was added first.
    fn next_step(&self, key: GroupKey) -> DispatchStep {
        let group = &self.ready.groups[&key];
        let Some(best) = group.available.first() else {
            return DispatchStep::Nothing;
        };
        let Some((priority, jobs)) = group.job_queues.first_key_value() else {
            return DispatchStep::Nothing;
        };
        let Some((_, job)) = jobs.first() else {
            return DispatchStep::Nothing;
        };
        let is_served =
            |class: ClassKey| group.serves.contains(&class) && self.ready.class(class).open;
        let Some((task, class)) = self.jobs.get(*job).ready.first(*priority, is_served) else {
            return DispatchStep::Nothing;
        };

        if self.is_run_by_other(task) {
            return DispatchStep::Join(task);
        }
        let class = self.ready.class(class);
        let needs = class.requires.slots();
        if let Some(with_room) = self.runner_with_room(group, class) {
            return DispatchStep::Send(with_room.runner, task);
        }
        if needs > 1 {
            return DispatchStep::Reserve(best.runner, task);
        }
        // Short tasks are sent ahead, so that a runner never waits for the next one.
        let is_short = class.mean_us.is_some_and(|mean| mean < limits::PREFETCH_US);
        if is_short && self.runners[&best.runner].may_prefetch() {
            DispatchStep::Send(best.runner, task)
        } else if needs <= best.free_slots.0 {
            DispatchStep::Reserve(best.runner, task)
        } else {
            DispatchStep::Nothing
        }
    }

    /// The best runner of a group that has the slots and the memory for an attempt of a class.
    fn runner_with_room(&self, group: &RunnerGroup, class: &TaskClass) -> Option<Availability> {
        group
            .available
            .iter()
            .take_while(|available| class.requires.slots() <= available.free_slots.0)
            .take(LOOKED_AT_FOR_MEMORY_MAX)
            .find(|available| self.runners[&available.runner].has_memory_for(class.memory_mb))
            .copied()
    }

    fn send(&mut self, runner: RunnerKey, key: TaskKey, effects: &mut Vec<Effect>) {
        let process = self.runner(runner).process.clone();
        let epoch = self.epoch;
        self.enter(key, State::Assigned, effects);
        self.join_reserved(effects);

        let detail = self.tasks.expect(key).detail_mut();
        detail.last_attempt += 1;
        let attempt = AttemptId {
            epoch,
            n: detail.last_attempt,
        };
        detail.open_attempts.push(OpenAttempt {
            attempt,
            runner: Some(runner),
            process,
        });
        self.add_in_flight(runner, key, attempt);

        effects.push(Effect::Send {
            runner,
            task: key,
            attempt,
        });
        effects.push(Effect::Announce {
            kind: EventKind::TaskAssigned,
            task: Some(key),
            runner: Some(runner),
        });
    }

    fn reserve(&mut self, runner: RunnerKey, task: TaskKey, effects: &mut Vec<Effect>) {
        self.enter(task, State::Ready { reserved: true }, effects);
        self.runner(runner).reserved_for = Some(task);
        self.ready.reservations.insert(task, runner);
        self.update_availability(runner);
    }

    /// Lets tasks join that runners keep their slots for, where an equal task is at work by now. The
    /// slots are free for others, in a turn that begins at once.
    fn join_reserved(&mut self, effects: &mut Vec<Effect>) {
        let reserved = self.ready.reservations.keys().copied();
        let joining: Vec<TaskKey> = reserved.filter(|key| self.is_run_by_other(*key)).collect();
        for key in joining {
            self.enter(key, State::Joined, effects);
            self.ready.left_over = true;
        }
    }

    /// Gives the slots free that a runner keeps for a task. Only [`Scheduler::enter`] calls this,
    /// when the task leaves the state.
    pub(crate) fn unreserve(&mut self, task: TaskKey) {
        let runner = self.ready.reservations.remove(&task);
        assert!(
            runner.is_some(),
            "no runner keeps its slots for {task:?}, which says that one does"
        );
        let Some(runner) = runner else { return };
        self.runner(runner).reserved_for = None;
        self.update_availability(runner);
    }

    /// Gives the slots free that are kept for certain tasks, because these must not be sent any
    /// more.
    pub(crate) fn unreserve_where(
        &mut self,
        concerns: impl Fn(&Task, &TaskClass) -> bool,
        effects: &mut Vec<Effect>,
    ) {
        let is_concerned = |key: &TaskKey| {
            self.tasks
                .get(*key)
                .is_some_and(|task| concerns(task, self.ready.class(task.class)))
        };
        let reserved = self.ready.reservations.keys().copied();
        let concerned: Vec<TaskKey> = reserved.filter(is_concerned).collect();
        for key in concerned {
            self.enter(key, State::Ready { reserved: false }, effects);
        }
    }

    /// Sends the tasks for which enough slots and memory have become free.
    fn send_reserved(&mut self, effects: &mut Vec<Effect>) {
        let reservations: Vec<(TaskKey, RunnerKey)> = self
            .ready
            .reservations
            .iter()
            .map(|(task, runner)| (*task, *runner))
            .collect();
        for (task, runner_key) in reservations {
            // The task may have joined an equal one that was just sent.
            if self.tasks.expect(task).state() != (State::Ready { reserved: true }) {
                continue;
            }
            let class_key = self.tasks.expect(task).class;
            let class = self.ready.class(class_key);
            let runner = &self.runners[&runner_key];
            let has_room = !runner.is_full()
                && class.requires.slots() <= runner.free_slots()
                && runner.has_memory_for(class.memory_mb);
            if has_room {
                self.send(runner_key, task, effects);
            } else if let Some(other) = self.any_runner_with_room(class_key) {
                self.send(other, task, effects);
            }
        }
    }

    /// The best runner of all groups that has room for an attempt of a class.
    fn any_runner_with_room(&self, class_key: ClassKey) -> Option<RunnerKey> {
        let class = self.ready.class(class_key);
        self.ready
            .groups
            .values()
            .filter(|group| group.serves.contains(&class_key))
            .filter_map(|group| self.runner_with_room(group, class))
            .min()
            .map(|with_room| with_room.runner)
    }
}
