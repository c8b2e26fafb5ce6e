//! Everything that waits for a time. The core fires its deadlines itself; the engine only asks when
//! the next one is.

use crate::due::Due;
use crate::effect::Effect;
use crate::keys::{JobKey, RunnerKey, TaskKey};
use crate::scheduler::{Scheduler, TOUCHED_PER_TURN_MAX};
use crate::state::State;
use std::collections::BTreeSet;
use std::sync::Arc;
use taskmaster_protocol::{Now, Wall};

/// What happens when a time has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A delayed task becomes ready.
    TaskDue(TaskKey),
    /// The grace period of a runner without a connection is over.
    RunnerGrace(RunnerKey),
    /// Attempts have waited on a runner for too long.
    Recall(RunnerKey),
    /// A runner has been silent for too long, unless it was heard since the timer was set.
    RunnerLease(RunnerKey),
    /// The grace period of a session that holds a job, and has no connection, is over.
    HolderGrace(JobKey, Arc<str>),
    /// Runners of an earlier epoch have had their time to come back.
    RosterWait,
}

/// Times to come, the earliest first.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// By the monotonic clock, in microseconds.
    mono: BTreeSet<(u64, Timer)>,
    /// Delayed tasks that wait by the wall clock.
    wall: BTreeSet<(Wall, TaskKey)>,
}

impl Deadlines {
    pub fn insert(&mut self, at_us: u64, timer: Timer) {
        self.mono.insert((at_us, timer));
    }

    pub fn remove(&mut self, at_us: u64, timer: Timer) {
        self.mono.remove(&(at_us, timer));
    }

    pub fn insert_task(&mut self, due: Due, key: TaskKey) {
        match due {
            Due::Mono(us) => self.mono.insert((us, Timer::TaskDue(key))),
            Due::Wall(wall) => self.wall.insert((wall, key)),
        };
    }

    pub fn remove_task(&mut self, due: Due, key: TaskKey) {
        match due {
            Due::Mono(us) => self.mono.remove(&(us, Timer::TaskDue(key))),
            Due::Wall(wall) => self.wall.remove(&(wall, key)),
        };
    }

    /// The next deadline by the monotonic clock, in microseconds.
    pub fn next(&self, now: Now) -> Option<u64> {
        let mono = self.mono.first().map(|(us, _)| *us);
        let wall = self
            .wall
            .first()
            .map(|(wall, _)| now.mono_us.saturating_add(wall.since_us(now.wall)));
        match (mono, wall) {
            (Some(mono), Some(wall)) => Some(mono.min(wall)),
            (mono, wall) => mono.or(wall),
        }
    }

    /// Takes out one deadline that has passed.
    fn pop(&mut self, now: Now) -> Option<Timer> {
        if self.mono.first().is_some_and(|(us, _)| *us <= now.mono_us) {
            return self.mono.pop_first().map(|(_, timer)| timer);
        }
        if self.wall.first().is_some_and(|(wall, _)| *wall <= now.wall) {
            return self.wall.pop_first().map(|(_, key)| Timer::TaskDue(key));
        }
        None
    }

    /// The number of tasks that wait for a time. Walks through all deadlines.
    pub fn tasks_len(&self) -> usize {
        let mono = self
            .mono
            .iter()
            .filter(|(_, timer)| matches!(timer, Timer::TaskDue(_)));
        mono.count() + self.wall.len()
    }

    /// Whether a task waits for this time.
    pub fn has_task(&self, due: Due, key: TaskKey) -> bool {
        match due {
            Due::Mono(us) => self.mono.contains(&(us, Timer::TaskDue(key))),
            Due::Wall(wall) => self.wall.contains(&(wall, key)),
        }
    }
}

impl Scheduler {
    /// Fires deadlines that have passed, [`TOUCHED_PER_TURN_MAX`] at most. The next turn fires the
    /// others.
    pub(crate) fn fire_deadlines(&mut self, effects: &mut Vec<Effect>) {
        for _ in 0..TOUCHED_PER_TURN_MAX {
            let Some(timer) = self.deadlines.pop(self.now) else {
                return;
            };
            match timer {
                Timer::TaskDue(key) => {
                    assert!(
                        self.tasks.expect(key).state() == State::Delayed,
                        "only delayed tasks have a time"
                    );
                    self.unblock(key, effects);
                }
                Timer::RunnerGrace(runner) => self.runner_grace_over(runner, effects),
                Timer::Recall(runner) => self.recall(runner, effects),
                Timer::RunnerLease(runner) => self.check_lease(runner, effects),
                Timer::HolderGrace(job, by) => self.release(job, &by, effects),
                Timer::RosterWait => self.end_roster_wait(effects),
            }
        }
    }
}
