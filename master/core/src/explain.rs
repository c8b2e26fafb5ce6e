//! Why a task is where it is, from state alone.

use crate::event::{Due, RunnerKey, TaskKey};
use crate::scheduler::Scheduler;
use crate::state::{Final, State, Task};
use std::cmp::Reverse;
use taskmaster_protocol::AttemptId;

/// Why a task is where it is. The shell makes a sentence of it: it knows the names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explanation {
    /// It waits for this many dependencies.
    Blocked {
        /// How many are open.
        open: u32,
    },
    /// It waits for its time.
    Delayed {
        /// Which.
        until: Due,
        /// Failures counted: more than none means that it is a back-off.
        tries: u32,
    },
    /// It waits for a slot, because of this.
    Ready(WaitsFor),
    /// Runners have it.
    Assigned {
        /// The attempts; `None`: on a runner that was lost.
        held: Vec<(AttemptId, Option<RunnerKey>)>,
    },
    /// It has ended.
    Ended(Final),
}

/// What a ready task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitsFor {
    /// The master has just started; its runners may still tell what they hold.
    Settling,
    /// The master is stopping and sends nothing more.
    Stopping,
    /// Its job is paused.
    JobPaused,
    /// Its module's file is gone, or the module is paused.
    ModuleClosed,
    /// No runner is connected.
    NoRunner,
    /// Runners are connected, and none offers what it requires.
    NoneSuits {
        /// How many are connected.
        connected: usize,
    },
    /// A runner keeps its slots for it and has too few free yet.
    Reserved {
        /// Which.
        runner: RunnerKey,
        /// Slots that it needs.
        needs: u32,
        /// Slots that are free there.
        free: u32,
    },
    /// Slots of the runners that suit are taken.
    Slots {
        /// Runners that suit.
        runners: usize,
        /// Their slots.
        slots: u64,
        /// Slots that are taken.
        used: u64,
        /// Ready tasks that may come before it: of a higher priority, or earlier in its own job.
        ahead: u64,
    },
}

impl Scheduler {
    /// Why a task is where it is; `None`: the core does not hold it.
    pub fn explain(&self, key: TaskKey) -> Option<Explanation> {
        let task = self.tasks.get(key)?;
        Some(match task.state() {
            State::Blocked { open } => Explanation::Blocked { open },
            State::Delayed => Explanation::Delayed {
                until: task.due()?,
                tries: task.tries(),
            },
            State::Ready { .. } => Explanation::Ready(self.waits_for(key, task)),
            State::Assigned => Explanation::Assigned {
                held: task
                    .held()
                    .iter()
                    .map(|held| (held.attempt, held.runner))
                    .collect(),
            },
            State::Ended(how) => Explanation::Ended(how),
        })
    }

    /// Why no connected runner can take a ready task, where that is so. Cheaper than
    /// [`Scheduler::explain`]: it is asked of every task of a list.
    pub fn nobody_takes(&self, key: TaskKey) -> Option<WaitsFor> {
        let task = self
            .tasks
            .get(key)
            .filter(|task| task.state() == State::Ready { reserved: false })?;
        let class = self.ready.class(task.class);
        let mut connected = self
            .runners
            .values()
            .filter(|runner| runner.absent_until.is_none());
        if !class.open {
            return Some(WaitsFor::ModuleClosed);
        }
        if self.stopping
            || self.settle_until.is_some()
            || connected.clone().any(|runner| class.suits(&runner.offer))
        {
            return None;
        }
        let waits = |connected| WaitsFor::NoneSuits { connected };
        connected.next().map_or(Some(WaitsFor::NoRunner), |_| {
            Some(waits(1 + connected.count()))
        })
    }

    fn waits_for(&self, key: TaskKey, task: &Task) -> WaitsFor {
        let (class, job) = (self.ready.class(task.class), self.jobs.get(task.job));
        let connected = self
            .runners
            .values()
            .filter(|runner| runner.absent_until.is_none());
        let suited: Vec<_> = connected
            .clone()
            .filter(|runner| class.suits(&runner.offer))
            .collect();
        if self.stopping {
            WaitsFor::Stopping
        } else if job.paused {
            WaitsFor::JobPaused
        } else if !class.open {
            WaitsFor::ModuleClosed
        } else if self.settle_until.is_some() {
            WaitsFor::Settling
        } else if let Some(runner) = self.ready.reserving.get(&key).copied() {
            let free = self.runners.get(&runner).map_or(0, |runner| runner.free());
            WaitsFor::Reserved {
                runner,
                needs: class.requires.slots(),
                free,
            }
        } else if connected.clone().next().is_none() {
            WaitsFor::NoRunner
        } else if suited.is_empty() {
            WaitsFor::NoneSuits {
                connected: connected.count(),
            }
        } else {
            WaitsFor::Slots {
                runners: suited.len(),
                slots: suited
                    .iter()
                    .map(|runner| u64::from(runner.offer.slots))
                    .sum(),
                used: suited
                    .iter()
                    .map(|runner| u64::from(runner.used.min(runner.offer.slots)))
                    .sum(),
                ahead: self.ahead_of(task),
            }
        }
    }

    fn ahead_of(&self, task: &Task) -> u64 {
        let mut ahead = 0;
        for (key, job) in self.jobs.iter().filter(|(_, job)| !job.paused) {
            for ((Reverse(priority), class), queue) in job.ready.iter() {
                if priority > task.priority {
                    ahead += queue.len() as u64;
                } else if priority == task.priority && key == task.job && class == task.class {
                    ahead += queue.older_than(task.no) as u64;
                }
            }
        }
        ahead
    }
}
