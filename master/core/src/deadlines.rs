//! Everything that waits for a time. Firing is the core's own; the shell only asks for the next
//! one.

use crate::effect::Effect;
use crate::event::{Due, RunnerKey, TaskKey};
use crate::jobs::JobKey;
use crate::scheduler::{Scheduler, TOUCHED_MAX};
use crate::state::State;
use std::collections::BTreeSet;
use std::sync::Arc;
use taskmaster_protocol::{Now, Wall};

/// What a time is waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A delayed task becomes ready.
    Task(TaskKey),
    /// A runner whose link is cut has had its grace.
    Grace(RunnerKey),
    /// Attempts have waited on a runner for too long.
    Recall(RunnerKey),
    /// A runner has been silent for too long, if nothing was heard since this was set.
    Lease(RunnerKey),
    /// A feeder whose link is cut has had its grace.
    Hold(JobKey, Arc<str>),
    /// Runners of an earlier epoch have had their time.
    Settle,
}

/// Times to come, soonest first.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    mono: BTreeSet<(u64, Timer)>,
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
            Due::Mono(us) => self.mono.insert((us, Timer::Task(key))),
            Due::Wall(wall) => self.wall.insert((wall, key)),
        };
    }

    pub fn remove_task(&mut self, due: Due, key: TaskKey) {
        match due {
            Due::Mono(us) => self.mono.remove(&(us, Timer::Task(key))),
            Due::Wall(wall) => self.wall.remove(&(wall, key)),
        };
    }

    /// The next one, by the monotonic clock.
    pub fn next(&self, now: Now) -> Option<u64> {
        let mono = self.mono.first().map(|(us, _)| *us);
        let wall = self
            .wall
            .first()
            .map(|(wall, _)| now.mono_us.saturating_add(wall.since_us(now.wall)));
        match (mono, wall) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn pop(&mut self, now: Now) -> Option<Timer> {
        if self.mono.first().is_some_and(|(us, _)| *us <= now.mono_us) {
            return self.mono.pop_first().map(|(_, timer)| timer);
        }
        if self.wall.first().is_some_and(|(wall, _)| *wall <= now.wall) {
            return self.wall.pop_first().map(|(_, key)| Timer::Task(key));
        }
        None
    }

    /// How many times of tasks are waited for.
    pub fn tasks_len(&self) -> usize {
        self.mono
            .iter()
            .filter(|(_, timer)| matches!(timer, Timer::Task(_)))
            .count()
            + self.wall.len()
    }

    /// Whether this task's time is waited for.
    pub fn has_task(&self, due: Due, key: TaskKey) -> bool {
        match due {
            Due::Mono(us) => self.mono.contains(&(us, Timer::Task(key))),
            Due::Wall(wall) => self.wall.contains(&(wall, key)),
        }
    }
}

impl Scheduler {
    /// Fires what is due, a thousand at most; the rest has passed too and comes next turn.
    pub(crate) fn fire_deadlines(&mut self, effects: &mut Vec<Effect>) {
        for _ in 0..TOUCHED_MAX {
            let Some(timer) = self.deadlines.pop(self.now) else {
                return;
            };
            match timer {
                Timer::Task(key) => {
                    assert!(
                        self.tasks.expect(key).state() == State::Delayed,
                        "only delayed tasks have a time"
                    );
                    self.unblocked(key, effects);
                }
                Timer::Grace(runner) => self.runner_lost(runner, effects),
                Timer::Recall(runner) => self.recall(runner, effects),
                Timer::Lease(runner) => self.lease_passed(runner, effects),
                Timer::Hold(job, by) => self.hold_passed(job, &by, effects),
                Timer::Settle => self.settled(effects),
            }
        }
    }
}
