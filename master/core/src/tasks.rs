//! The table of tasks, and [`Scheduler::enter`], the one function that changes a task's state.

use crate::due::Due;
use crate::effect::{DurableChange, Effect, EndReason};
use crate::event::{NewTask, Origin};
use crate::keys::{ClassKey, JobKey, TaskKey};
use crate::one_or_many::OneOrMany;
use crate::scheduler::Scheduler;
use crate::sharing::MemberEnd;
use crate::state::{FinalState, State};
use crate::task::{Task, TaskDetail};
use crate::task_map::TaskMap;
use taskmaster_protocol::{AttemptId, EventKind, TaskState};

/// The tasks that the core holds, by key.
#[derive(Debug, Default)]
pub(crate) struct TaskTable {
    tasks: TaskMap<Task>,
    /// The generation of the last task. When the number overflows, no entry is left that could
    /// mistake one task for another.
    last_generation: u32,
}

impl TaskTable {
    /// The task of a key, if the core holds it.
    pub fn get(&self, key: TaskKey) -> Option<&Task> {
        self.tasks.get(key)
    }

    /// The task of a key, to be changed.
    pub fn get_mut(&mut self, key: TaskKey) -> Option<&mut Task> {
        self.tasks.get_mut(key)
    }

    /// A task that the core must hold, because the key was found in one of the core's own indices.
    #[expect(
        clippy::panic,
        reason = "the core's indices name only tasks that it holds"
    )]
    pub fn expect(&mut self, key: TaskKey) -> &mut Task {
        self.get_mut(key).unwrap_or_else(|| {
            panic!("the core's own index names task {key:?}, which it does not hold")
        })
    }

    fn insert(&mut self, key: TaskKey, mut task: Task) {
        self.last_generation = self.last_generation.wrapping_add(1);
        task.generation = self.last_generation;
        let last = self.tasks.insert(key, task);
        assert!(last.is_none(), "the engine uses key {key:?} twice");
    }

    fn remove(&mut self, key: TaskKey) {
        self.tasks.remove(key);
    }

    /// The generation of the task that the core was told of last.
    pub fn last_generation(&self) -> u32 {
        self.last_generation
    }

    /// One more than the greatest key that was ever used.
    pub fn key_bound(&self) -> u32 {
        self.tasks.key_bound()
    }

    /// The number of tasks, including those that have ended and are not forgotten yet.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Every task, by ascending key.
    pub fn iter(&self) -> impl Iterator<Item = (TaskKey, &Task)> {
        self.tasks.iter()
    }
}

impl Scheduler {
    /// The task of a key, if the core holds it.
    pub fn task(&self, key: TaskKey) -> Option<&Task> {
        self.tasks.get(key)
    }

    /// The number of tasks that the core holds.
    pub fn tasks_len(&self) -> usize {
        self.tasks.len()
    }

    /// Takes a task in. The task starts as blocked and goes on from there at once.
    pub(crate) fn open_task(&mut self, mut new: NewTask, effects: &mut Vec<Effect>) {
        let job = self.jobs.key(&new.job);
        assert!(
            job.is_some(),
            "the engine adds a task to job {}, which it has not opened",
            new.job
        );
        let Some(job) = job else { return };

        let key = new.key;
        let class = self.class_of(&new);
        if let Origin::Reopened { was, .. } = new.origin {
            self.jobs.get_mut(job).counts.remove(was.task_state());
        }

        let task = self.task_record(&mut new, job, class);
        let state = task.state.task_state();
        self.tasks.insert(key, task);
        self.ready.class_mut(class).tasks += 1;

        let job = self.jobs.get_mut(job);
        job.tasks += 1;
        job.counts.total += u64::from(new.origin == Origin::Added);
        job.counts.add(state);

        match new.origin {
            Origin::Added => effects.push(Effect::Store(DurableChange::Added(key))),
            Origin::Reopened { .. } => effects.push(Effect::Store(DurableChange::Reopened(key))),
            Origin::Restored { .. } => {}
        }
        self.count_dependencies(key, &new.dependencies, effects);
    }

    /// The record of a new task, as blocked by nothing yet.
    fn task_record(&self, new: &mut NewTask, job: JobKey, class: ClassKey) -> Task {
        let (tries, lost, fence) = match new.origin {
            // Attempts of earlier epochs belong to another task of this id, which is no longer kept.
            Origin::Added => {
                let fence = AttemptId {
                    epoch: self.epoch,
                    n: 0,
                };
                (0, 0, fence)
            }
            Origin::Reopened { fence, .. } => (0, 0, fence),
            Origin::Restored { tries, lost, fence } => (tries, lost, fence),
        };
        let mut task = Task {
            ordinal: new.ordinal,
            generation: 0,
            job,
            class,
            priority: new.priority,
            since_epoch: fence.epoch,
            state: State::Blocked { open: 0 },
            detail: None,
            dependents: OneOrMany::None,
            notifies_dependents: false,
        };

        let has_terms = new.due.is_some() || new.retries.is_some() || new.is_cached;
        if has_terms || tries + lost + fence.n > 0 {
            *task.detail_mut() = TaskDetail {
                due: new.due,
                retries: new.retries.take(),
                tries,
                lost,
                last_attempt: tries.max(fence.n),
                fence,
                open_attempts: OneOrMany::None,
                is_cached: new.is_cached,
                shared_run: None,
            };
        }
        task
    }

    /// Lets a task go on that waits for no other task and that no runner holds: it waits for its
    /// earliest start, or is ready.
    pub(crate) fn unblock(&mut self, key: TaskKey, effects: &mut Vec<Effect>) {
        let now = self.now;
        let task = self.tasks.expect(key);
        let next = if task.due().is_some_and(|due| !due.has_passed(now)) {
            State::Delayed
        } else if task.is_cached() {
            State::LookingUp
        } else {
            State::Ready { reserved: false }
        };
        self.enter(key, next, effects);
    }

    /// Sets the earliest start of a task. If the task is delayed, its timer is set anew.
    pub(crate) fn set_due(&mut self, key: TaskKey, due: Due) {
        let task = self.tasks.expect(key);
        let last = task.detail_mut().due.replace(due);
        if task.state == State::Delayed {
            if let Some(last) = last {
                self.deadlines.remove_task(last, key);
            }
            self.deadlines.insert_task(due, key);
        }
    }

    /// Moves a task from its state to `next`. This is the only place where a state is written: the
    /// ready index, the deadlines and the counts of the job change with it.
    pub(crate) fn enter(&mut self, key: TaskKey, next: State, effects: &mut Vec<Effect>) {
        let task = self.tasks.expect(key);
        let last = task.state;
        let job = task.job;
        let due = task.due();
        assert!(
            last.may_become(next),
            "task {key:?} cannot go from {last:?} to {next:?}"
        );

        match last {
            State::Ready { reserved: false } => self.remove_ready(key),
            State::Ready { reserved: true } => {
                if next != last {
                    self.unreserve(key);
                }
            }
            State::Delayed => {
                if let Some(due) = due {
                    self.deadlines.remove_task(due, key);
                }
            }
            State::Blocked { open } => {
                if open > 0 && !matches!(next, State::Blocked { .. }) {
                    self.stop_waiting(key);
                    self.told.remove(&key);
                }
            }
            State::LookingUp | State::Joined | State::Assigned | State::Ended(_) => {}
        }

        let task = self.tasks.expect(key);
        task.state = next;
        if task.may_share() {
            self.member_moved(key, last, next);
        }
        self.jobs
            .get_mut(job)
            .counts
            .moved(last.task_state(), next.task_state());

        match next {
            State::Ready { reserved: false } => {
                self.insert_ready(key);
                announce_ready(key, last, effects);
            }
            State::LookingUp => {
                announce_ready(key, last, effects);
                effects.push(Effect::LookUpAnswer(key));
            }
            State::Delayed => {
                if let Some(due) = due {
                    self.deadlines.insert_task(due, key);
                }
            }
            State::Ended(_) => self.priorities.task_ended(key),
            State::Ready { reserved: true }
            | State::Joined
            | State::Blocked { .. }
            | State::Assigned => {}
        }
    }

    /// Ends a task by the last attempt that was sent of it.
    pub(crate) fn end(
        &mut self,
        key: TaskKey,
        how: FinalState,
        why: EndReason,
        effects: &mut Vec<Effect>,
    ) {
        let attempt = AttemptId {
            epoch: self.epoch,
            n: self.tasks.expect(key).last_attempt(),
        };
        self.end_by(key, how, why, attempt, effects);
    }

    /// Ends a task by a certain attempt: stores the end, stops the attempts that still run, and
    /// begins to notify the dependents.
    pub(crate) fn end_by(
        &mut self,
        key: TaskKey,
        how: FinalState,
        why: EndReason,
        attempt: AttemptId,
        effects: &mut Vec<Effect>,
    ) {
        self.end_with_others(key, how, why, attempt, MemberEnd::Alone, effects);
    }

    /// Ends a task by a certain attempt, as [`Scheduler::end_by`] does. `others` says what the end
    /// means for equal tasks.
    pub(crate) fn end_with_others(
        &mut self,
        key: TaskKey,
        how: FinalState,
        why: EndReason,
        attempt: AttemptId,
        others: MemberEnd,
        effects: &mut Vec<Effect>,
    ) {
        self.member_ended(key, how, others, effects);
        self.enter(key, State::Ended(how), effects);
        let task = self.tasks.expect(key);
        task.retain_attempts(|open| open.runner.is_some());
        let job = task.job;
        let dependents = std::mem::take(&mut task.dependents);

        effects.push(Effect::Store(DurableChange::Ended {
            task: key,
            state: how,
            why,
            attempt,
        }));
        for open in task.open_attempts() {
            if let Some(runner) = open.runner {
                effects.push(Effect::Stop {
                    runner,
                    task: key,
                    attempt: open.attempt,
                });
            }
        }
        self.notify_later(key, how, dependents, effects);
        self.close_if_idle(job);
    }

    /// Forgets a task once it has ended, no runner holds an attempt of it, and all its dependents
    /// have been notified.
    pub(crate) fn forget_if_over(&mut self, key: TaskKey, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        if task.state.is_open() || task.notifies_dependents || !task.open_attempts().is_empty() {
            return;
        }
        if self.sharing.keeps(key) {
            return;
        }
        let job = task.job;
        let class = task.class;
        self.tasks.remove(key);
        self.jobs.get_mut(job).tasks -= 1;
        self.ready.class_mut(class).tasks -= 1;
        effects.push(Effect::Forget(key));
    }

    pub(crate) fn cancel(&mut self, key: TaskKey, effects: &mut Vec<Effect>) {
        if self.tasks.get(key).is_some_and(|task| task.state.is_open()) {
            self.end(key, FinalState::Cancelled, EndReason::Cancelled, effects);
        }
    }

    /// Changes the priority or the earliest start of an open task.
    pub(crate) fn set_task(
        &mut self,
        key: TaskKey,
        priority: Option<i32>,
        due: Option<Due>,
        effects: &mut Vec<Effect>,
    ) {
        let now = self.now;
        let Some(state) = self.tasks.get(key).map(Task::state) else {
            return;
        };
        if !state.is_open() {
            return;
        }

        // The ready index goes by the priority.
        let in_index = state == State::Ready { reserved: false };
        if in_index {
            self.remove_ready(key);
        }
        let before = self.effective_priority(key);
        let task = self.tasks.expect(key);
        task.priority = priority.unwrap_or(task.priority);
        let priority = task.priority;
        self.own_priority_changed(key, before.unwrap_or(priority));
        if let Some(due) = due {
            self.set_due(key, due);
        }
        if in_index {
            self.insert_ready(key);
        }

        effects.push(Effect::Store(DurableChange::Set {
            task: key,
            priority,
            wait_us: due.map(|due| due.wait_us(now)),
        }));
        let Some(due) = due else { return };
        match state {
            State::Delayed if due.has_passed(now) => self.unblock(key, effects),
            State::Ready { .. } | State::LookingUp | State::Joined if !due.has_passed(now) => {
                self.enter(key, State::Delayed, effects);
            }
            State::Blocked { .. }
            | State::Delayed
            | State::Ready { .. }
            | State::LookingUp
            | State::Joined
            | State::Assigned
            | State::Ended(_) => {}
        }
    }
}

/// Tells watchers of a task that waits for a slot from now on.
fn announce_ready(key: TaskKey, last: State, effects: &mut Vec<Effect>) {
    if last.task_state() != TaskState::Ready {
        effects.push(Effect::Announce {
            kind: EventKind::TaskReady,
            task: Some(key),
            runner: None,
        });
    }
}
