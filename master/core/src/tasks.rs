//! The table of tasks, and the one function that moves a task from state to state.

use crate::effect::{Change, Effect, Why};
use crate::event::{DependsOn, Due, NewTask, Origin, TaskKey};
use crate::few::Few;
use crate::scheduler::Scheduler;
use crate::state::{Final, State, Task, Tried, Waiter};
use crate::table::Table;
use taskmaster_protocol::{AttemptId, EventKind};

/// Live tasks by key.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    table: Table<Task>,
    /// How many there have been; where that runs over, no entry is left that could mistake one for
    /// another.
    lives: u32,
}

impl Tasks {
    /// The task of this key, if the core holds it.
    pub fn get(&self, key: TaskKey) -> Option<&Task> {
        self.table.get(key)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: TaskKey) -> Option<&mut Task> {
        self.table.get_mut(key)
    }

    /// A task that must be there: the caller has found its key in one of the core's own indices.
    pub fn expect(&mut self, key: TaskKey) -> &mut Task {
        let task = self.get_mut(key);
        assert!(
            task.is_some(),
            "the core's own index names task {key:?}, which it does not hold"
        );
        task.unwrap_or_else(|| unreachable!())
    }

    fn insert(&mut self, key: TaskKey, mut task: Task) {
        self.lives = self.lives.wrapping_add(1);
        task.life = self.lives;
        let last = self.table.put(key, task);
        assert!(last.is_none(), "the shell uses key {key:?} twice");
    }

    fn remove(&mut self, key: TaskKey) {
        self.table.take(key);
    }

    /// One more than the greatest key ever used.
    pub fn end(&self) -> u32 {
        self.table.end()
    }

    /// How many tasks there are, those that have ended and are not forgotten included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Every task, by key.
    pub fn iter(&self) -> impl Iterator<Item = (TaskKey, &Task)> {
        self.table.iter()
    }
}

impl Scheduler {
    /// The task of this key, if the core holds it.
    pub fn task(&self, key: TaskKey) -> Option<&Task> {
        self.tasks.get(key)
    }

    /// How many tasks the core holds.
    pub fn tasks_len(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn task_came(&mut self, new: NewTask, effects: &mut Vec<Effect>) {
        let job = self.jobs.key(&new.job);
        assert!(
            job.is_some(),
            "the shell adds a task to job {}, which it has not opened",
            new.job
        );
        let Some(job) = job else { return };
        let class = self.class_of(new.module, new.requires);
        let restored = matches!(new.origin, Origin::Restored { .. });
        let added = new.origin == Origin::Added;
        let (tries, lost, fence) = match new.origin {
            // What an earlier master sent was sent for another task of that id, which is pruned.
            Origin::Added => (
                0,
                0,
                AttemptId {
                    epoch: self.epoch,
                    n: 0,
                },
            ),
            Origin::Reopened { fence, was } => {
                self.jobs.get_mut(job).counts.no_longer(was.state());
                (0, 0, fence)
            }
            Origin::Restored { tries, lost, fence } => (tries, lost, fence),
        };
        let state = State::Blocked { open: 0 };
        let mut task = Task {
            no: new.no,
            life: 0,
            job,
            class,
            priority: new.priority,
            since: fence.epoch,
            state,
            tried: None,
            waiters: Few::None,
            telling: false,
        };
        if new.due.is_some() || new.retries.is_some() || tries + lost + fence.n > 0 {
            let last_n = tries.max(fence.n);
            let (due, retries) = (new.due, new.retries);
            *task.tried_mut() = Tried {
                due,
                retries,
                tries,
                lost,
                last_n,
                fence,
                held: Few::None,
            };
        }
        self.tasks.insert(new.key, task);
        self.ready.class_mut(class).tasks += 1;
        let books = self.jobs.get_mut(job);
        books.tasks += 1;
        books.counts.total += u64::from(added);
        books.counts.add(state.name(), 1);
        if !restored {
            effects.push(Effect::Store(if added {
                Change::Added(new.key)
            } else {
                Change::Reopened(new.key)
            }));
        }
        self.depend(new.key, &new.dependencies, effects);
    }

    /// Counts what the task waits for, and lets it go on where that is nothing, or ends it where it
    /// waits in vain.
    pub(crate) fn depend(
        &mut self,
        key: TaskKey,
        dependencies: &[DependsOn],
        effects: &mut Vec<Effect>,
    ) {
        let life = self.tasks.expect(key).life;
        let mut open = 0;
        for (index, dependency) in dependencies.iter().enumerate() {
            match *dependency {
                DependsOn::Open(on, when) => match self.tasks.get_mut(on) {
                    Some(waited) if !matches!(waited.state, State::Ended(_)) => {
                        waited.waiters.push(Waiter {
                            task: key,
                            life,
                            when,
                        });
                        open += 1;
                    }
                    other => {
                        // It ended within this turn; the engine's fact is of its beginning.
                        let how = other.map(|t| t.state);
                        assert!(
                            how.is_some(),
                            "the shell says that {on:?} is open, and the core does not hold it"
                        );
                        if let Some(State::Ended(how)) = how
                            && !how.meets(when)
                        {
                            return self.end(
                                key,
                                Final::Skipped,
                                Why::Dependency(on, how),
                                effects,
                            );
                        }
                    }
                },
                DependsOn::Ended(how, when) if !how.meets(when) => {
                    return self.end(key, Final::Skipped, Why::Earlier(index, how), effects);
                }
                DependsOn::Ended(..) => {}
            }
        }
        if open > 0 {
            self.enter(key, State::Blocked { open }, effects);
        } else {
            self.unblocked(key, effects);
        }
    }

    /// No dependency is open, and no runner has it: the task waits for its time, or is ready.
    pub(crate) fn unblocked(&mut self, key: TaskKey, effects: &mut Vec<Effect>) {
        let task = self.tasks.expect(key);
        let due = task.due();
        let waits = due.is_some_and(|due| !passed(due, self.now));
        self.enter(
            key,
            if waits {
                State::Delayed
            } else {
                State::Ready { reserved: false }
            },
            effects,
        );
    }

    /// Sets the time before which a task must not start; a delayed one waits for this one from now
    /// on.
    pub(crate) fn set_due(&mut self, key: TaskKey, due: Due) {
        let task = self.tasks.expect(key);
        let last = task.tried_mut().due.replace(due);
        if task.state == State::Delayed {
            last.into_iter()
                .for_each(|last| self.deadlines.remove_task(last, key));
            self.deadlines.insert_task(due, key);
        }
    }

    /// Moves a task from its state to `next`: the only place where a state is written. The ready
    /// index, the deadlines and the job's counts change with it.
    pub(crate) fn enter(&mut self, key: TaskKey, next: State, effects: &mut Vec<Effect>) {
        let task = self.tasks.expect(key);
        let (last, job, due) = (task.state, task.job, task.due());
        assert!(
            last.may_become(next),
            "task {key:?} cannot go from {last:?} to {next:?}"
        );
        match last {
            State::Ready { reserved: false } => self.ready_remove(key),
            State::Ready { reserved: true } if next != last => self.unreserve(key),
            State::Delayed => due
                .into_iter()
                .for_each(|due| self.deadlines.remove_task(due, key)),
            _ => {}
        }
        self.tasks.expect(key).state = next;
        self.jobs
            .get_mut(job)
            .counts
            .moved(last.name(), next.name());
        match next {
            State::Ready { reserved: false } => {
                self.ready_insert(key);
                if !matches!(last, State::Ready { .. }) {
                    effects.push(Effect::Show {
                        kind: EventKind::TaskReady,
                        task: Some(key),
                        runner: None,
                    });
                }
            }
            State::Delayed => due
                .into_iter()
                .for_each(|due| self.deadlines.insert_task(due, key)),
            _ => {}
        }
    }

    /// Ends a task: stores it, stops what still runs of it, and lets its dependents know.
    pub(crate) fn end(&mut self, key: TaskKey, how: Final, why: Why, effects: &mut Vec<Effect>) {
        let (epoch, task) = (self.epoch, self.tasks.expect(key));
        let attempt = AttemptId {
            epoch,
            n: task.last_n(),
        };
        self.end_by(key, how, why, attempt, effects);
    }

    /// [`Scheduler::end`] by a certain attempt.
    pub(crate) fn end_by(
        &mut self,
        key: TaskKey,
        how: Final,
        why: Why,
        attempt: AttemptId,
        effects: &mut Vec<Effect>,
    ) {
        self.enter(key, State::Ended(how), effects);
        let task = self.tasks.expect(key);
        task.retain_held(|held| held.runner.is_some());
        let job = task.job;
        let waiters = std::mem::take(&mut task.waiters);
        effects.push(Effect::Store(Change::Ended {
            task: key,
            state: how,
            why,
            attempt,
        }));
        for held in task.held() {
            if let Some(runner) = held.runner {
                effects.push(Effect::Stop {
                    runner,
                    task: key,
                    attempt: held.attempt,
                });
            }
        }
        self.settle(key, how, waiters, effects);
        self.close_if_idle(job);
    }

    /// Lets go of an ended task once no runner holds an attempt of it and all its dependents know.
    pub(crate) fn forget_if_over(&mut self, key: TaskKey, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        let over = matches!(task.state, State::Ended(_)) && task.held().is_empty() && !task.telling;
        if !over {
            return;
        }
        let (job, class) = (task.job, task.class);
        self.tasks.remove(key);
        self.jobs.get_mut(job).tasks -= 1;
        self.ready.class_mut(class).tasks -= 1;
        effects.push(Effect::Forget(key));
    }

    pub(crate) fn cancel(&mut self, key: TaskKey, effects: &mut Vec<Effect>) {
        if self
            .tasks
            .get(key)
            .is_some_and(|task| !matches!(task.state, State::Ended(_)))
        {
            self.end(key, Final::Cancelled, Why::Cancelled, effects);
        }
    }

    pub(crate) fn set(
        &mut self,
        key: TaskKey,
        priority: Option<i32>,
        due: Option<Due>,
        effects: &mut Vec<Effect>,
    ) {
        let now = self.now;
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        let state = task.state;
        if matches!(state, State::Ended(_)) {
            return;
        }
        let in_index = state == State::Ready { reserved: false };
        if in_index {
            self.ready_remove(key);
        }
        let task = self.tasks.expect(key);
        task.priority = priority.unwrap_or(task.priority);
        let priority = task.priority;
        due.into_iter().for_each(|due| self.set_due(key, due));
        if in_index {
            self.ready_insert(key);
        }
        let wait_us = due.map(|due| wait_us(due, now));
        effects.push(Effect::Store(Change::Set {
            task: key,
            priority,
            wait_us,
        }));
        let Some(due) = due else { return };
        match (state, passed(due, now)) {
            (State::Delayed, true) => self.enter(key, State::Ready { reserved: false }, effects),
            (State::Ready { .. }, false) => self.enter(key, State::Delayed, effects),
            _ => {}
        }
    }
}

/// Whether the time has come.
pub(crate) fn passed(due: Due, now: taskmaster_protocol::Now) -> bool {
    match due {
        Due::Mono(us) => us <= now.mono_us,
        Due::Wall(wall) => wall <= now.wall,
    }
}

/// Microseconds until the time comes.
pub(crate) fn wait_us(due: Due, now: taskmaster_protocol::Now) -> u64 {
    match due {
        Due::Mono(us) => us.saturating_sub(now.mono_us),
        Due::Wall(wall) => wall.since_us(now.wall),
    }
}
