//! Why a task is where it is, from the state of the core alone.

use crate::due::Due;
use crate::keys::{RunnerKey, TaskKey};
use crate::ready::TaskClass;
use crate::runners::Runner;
use crate::scheduler::Scheduler;
use crate::state::{FinalState, State};
use crate::task::Task;
use taskmaster_protocol::AttemptId;

/// Why a task is where it is. The shell, which knows the names, makes a sentence of this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explanation {
    /// The task waits for other tasks.
    Blocked {
        /// The number of dependencies that are still open.
        open: u32,
    },
    /// The task waits for its earliest start.
    Delayed {
        /// The earliest start.
        until: Due,
        /// Failures counted. The wait is a back-off if there are any.
        tries: u32,
    },
    /// The task waits for a slot.
    Ready(WaitsFor),
    /// The task waits for the answer of an equal task.
    Joined {
        /// The equal task; `None` while an answer is looked for.
        of: Option<TaskKey>,
    },
    /// A runner holds an attempt of the task.
    Assigned {
        /// The attempts that may still report. `None` stands for a runner that was lost.
        held: Vec<(AttemptId, Option<RunnerKey>)>,
    },
    /// The task has ended.
    Ended(FinalState),
}

/// What a ready task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitsFor {
    /// The master has just started, and its runners may still tell what they hold.
    Roster,
    /// The master is stopping and sends nothing more.
    Stopping,
    /// The task's job is paused.
    JobPaused,
    /// Older tasks of the task's job are being cancelled, and the job is held back until all are.
    JobCancel,
    /// The module's file is gone, or the module is paused.
    ModuleClosed,
    /// No runner is connected.
    NoRunner,
    /// Runners are connected, and none offers what the task requires.
    NoneSuits {
        /// The number of connected runners.
        connected: usize,
    },
    /// A runner keeps its slots and its memory for the task, and too little of them is free yet.
    Reserved {
        /// The runner that keeps its slots and its memory.
        runner: RunnerKey,
        /// Slots that the task needs.
        needs: u32,
        /// Slots that are free on the runner.
        free: u32,
        /// The memory that the task may take, in MiB.
        needs_memory_mb: u32,
        /// Memory that no attempt on the runner may take, in MiB.
        free_memory_mb: u64,
    },
    /// The slots or the memory of the runners that suit are taken.
    Slots {
        /// The number of runners that suit.
        runners: usize,
        /// All slots of these runners.
        slots: u64,
        /// Slots of these runners that are taken.
        used: u64,
        /// Runners among them that have the slots free, and not the memory.
        short_of_memory: usize,
        /// Ready tasks that may come before this one: those of a higher priority, and earlier ones
        /// of its own job.
        ahead: u64,
    },
}

impl Scheduler {
    /// Why a task is where it is; `None` if the core does not hold the task.
    pub fn explain(&self, key: TaskKey) -> Option<Explanation> {
        let task = self.tasks.get(key)?;
        Some(match task.state() {
            State::Blocked { open } => Explanation::Blocked { open },
            State::Delayed => Explanation::Delayed {
                until: task.due()?,
                tries: task.tries(),
            },
            State::Ready { .. } if self.is_run_by_other(key) => Explanation::Joined {
                of: self.run_waited_for(key),
            },
            State::Ready { .. } => Explanation::Ready(self.waits_for(key, task)),
            State::LookingUp | State::Joined => Explanation::Joined {
                of: self.run_waited_for(key),
            },
            State::Assigned => Explanation::Assigned {
                held: task
                    .open_attempts()
                    .iter()
                    .map(|open| (open.attempt, open.runner))
                    .collect(),
            },
            State::Ended(how) => Explanation::Ended(how),
        })
    }

    /// Why no connected runner can be sent a ready task, if that is so. Cheaper than
    /// [`Scheduler::explain`], because it is asked for every task of a list.
    pub fn why_no_runner(&self, key: TaskKey) -> Option<WaitsFor> {
        let task = self.tasks.get(key)?;
        if task.state() != (State::Ready { reserved: false }) {
            return None;
        }
        let class = self.ready.class(task.class);
        if !class.open {
            return Some(WaitsFor::ModuleClosed);
        }
        if self.stopping || self.roster_wait_until.is_some() {
            return None;
        }
        if self
            .connected_runners()
            .any(|runner| class.suits(&runner.offer))
        {
            return None;
        }
        Some(match self.connected_runners().count() {
            0 => WaitsFor::NoRunner,
            connected => WaitsFor::NoneSuits { connected },
        })
    }

    fn connected_runners(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values().filter(|runner| runner.is_connected())
    }

    fn waits_for(&self, key: TaskKey, task: &Task) -> WaitsFor {
        let class = self.ready.class(task.class);
        if self.stopping {
            return WaitsFor::Stopping;
        }
        if self.jobs.get(task.job).paused {
            return WaitsFor::JobPaused;
        }
        if self.jobs.get(task.job).cancels > 0 {
            return WaitsFor::JobCancel;
        }
        if !class.open {
            return WaitsFor::ModuleClosed;
        }
        if self.roster_wait_until.is_some() {
            return WaitsFor::Roster;
        }
        if let Some(runner) = self.ready.reservations.get(&key).copied() {
            return WaitsFor::Reserved {
                runner,
                needs: class.requires.slots(),
                free: self.runners.get(&runner).map_or(0, Runner::free_slots),
                needs_memory_mb: class.memory_mb,
                free_memory_mb: self.runners.get(&runner).map_or(0, Runner::free_memory_mb),
            };
        }
        self.waits_for_slots(key, task, class)
    }

    fn waits_for_slots(&self, key: TaskKey, task: &Task, class: &TaskClass) -> WaitsFor {
        let connected = self.connected_runners().count();
        if connected == 0 {
            return WaitsFor::NoRunner;
        }
        let suited: Vec<&Runner> = self
            .connected_runners()
            .filter(|runner| class.suits(&runner.offer))
            .collect();
        if suited.is_empty() {
            return WaitsFor::NoneSuits { connected };
        }
        let mut slots = 0;
        let mut used = 0;
        let mut short_of_memory = 0;
        for runner in &suited {
            slots += u64::from(runner.offer.slots);
            used += u64::from(runner.used_slots.min(runner.offer.slots));
            let has_slots = class.requires.slots() <= runner.free_slots();
            if has_slots && !runner.has_memory_for(class.memory_mb) {
                short_of_memory += 1;
            }
        }
        WaitsFor::Slots {
            runners: suited.len(),
            slots,
            used,
            short_of_memory,
            ahead: self.tasks_ahead_of(key, task),
        }
    }

    fn tasks_ahead_of(&self, task_key: TaskKey, task: &Task) -> u64 {
        let own_priority = self.priorities.of(task_key, task);
        let mut ahead = 0;
        for (job_key, job) in self.jobs.iter().filter(|(_, job)| !job.is_held_back()) {
            for (key, queue) in job.ready.iter() {
                let priority = key.priority.0;
                if priority > own_priority {
                    ahead += queue.len() as u64;
                } else if priority == own_priority && job_key == task.job && key.class == task.class
                {
                    ahead += queue.older_than(task.ordinal) as u64;
                }
            }
        }
        ahead
    }
}
