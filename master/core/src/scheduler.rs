//! The door: every event comes in here, and is handed to the room that it concerns.

use crate::deadlines::Deadlines;
use crate::effect::Effect;
use crate::event::{Event, RunnerKey};
use crate::graph::Settling;
use crate::jobs::Jobs;
use crate::ready::ReadyIndex;
use crate::runners::Runner;
use crate::tasks::Tasks;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use taskmaster_protocol::{Capabilities, ModuleName, Now};

/// How many tasks one call of [`Scheduler::handle`] touches at most, so that no turn is long.
pub(crate) const TOUCHED_MAX: usize = 1_000;

/// The core. See the crate's documentation for its contract.
#[derive(Debug)]
pub struct Scheduler {
    /// How many times a master has started on this journal; the first half of every attempt's name.
    pub(crate) epoch: u32,
    /// The last time that came through the door; neither clock runs backwards past it.
    pub(crate) now: Now,
    pub(crate) tasks: Tasks,
    pub(crate) jobs: Jobs,
    pub(crate) ready: ReadyIndex,
    pub(crate) runners: BTreeMap<RunnerKey, Runner>,
    pub(crate) deadlines: Deadlines,
    /// Ended tasks whose dependents do not all know yet.
    pub(crate) settling: VecDeque<Settling>,
    /// Jobs whose tasks are being cancelled, some in each turn.
    pub(crate) sweeps: VecDeque<crate::jobs::Sweep>,
    /// Modules whose tasks cannot be sent.
    pub(crate) closed: BTreeSet<ModuleName>,
    /// What modules may reach, of those that may reach anything.
    pub(crate) needs: BTreeMap<ModuleName, Arc<Capabilities>>,
    /// Names of the runners that are durably here.
    pub(crate) roster: BTreeSet<String>,
    /// Nothing is sent before this time: runners of an earlier epoch may still tell what they hold.
    pub(crate) settle_until: Option<u64>,
    /// Nothing is sent any more: the master is to stop.
    pub(crate) stopping: bool,
}

impl Scheduler {
    /// An empty core. `epoch` must be greater than that of any earlier start on the same journal.
    pub fn new(epoch: u32) -> Scheduler {
        Scheduler {
            epoch,
            now: Now::default(),
            tasks: Tasks::default(),
            jobs: Jobs::default(),
            ready: ReadyIndex::default(),
            runners: BTreeMap::new(),
            deadlines: Deadlines::default(),
            settling: VecDeque::new(),
            sweeps: VecDeque::new(),
            closed: BTreeSet::new(),
            needs: BTreeMap::new(),
            roster: BTreeSet::new(),
            settle_until: None,
            stopping: false,
        }
    }

    /// Takes one event in and appends what follows from it. Never fails, blocks or panics on what
    /// comes from outside; panics where the shell breaks the contract (a key that is in use, a job
    /// that was never opened).
    pub fn handle(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        self.now = Now {
            mono_us: self.now.mono_us.max(now.mono_us),
            wall: self.now.wall.max(now.wall),
        };
        match event {
            Event::TaskCame(task) => self.task_came(*task, effects),
            Event::CancelWanted { task } => self.cancel(task, effects),
            Event::JobCancelWanted {
                job,
                up_to,
                restored,
            } => self.cancel_job(&job, up_to, restored, effects),
            Event::TaskSet {
                task,
                priority,
                due,
            } => self.set(task, priority, due, effects),
            Event::JobOpened {
                job,
                past,
                restored,
            } => self.open_job(job, past, restored, effects),
            Event::JobHeld { job, by, restored } => self.hold_job(&job, by, restored, effects),
            Event::JobReleased { job, by } => self.release_job(&job, &by, effects),
            Event::HolderLost { by } => self.holder_lost(&by),
            Event::JobPaused { job, paused } => self.pause_job(&job, paused, effects),
            Event::ModuleOpened { module, open } => self.open_module(module, open, effects),
            Event::ModuleNeeds { module, needs } => self.set_needs(module, needs, effects),
            Event::RunnerJoined {
                runner,
                offer,
                credits,
                answers,
                held,
            } => {
                self.runner_joined(runner, *offer, credits, answers, held, effects);
            }
            Event::RunnerAsked {
                runner,
                credits,
                draining,
            } => self.runner_asked(runner, credits, draining, effects),
            Event::RunnerHeard { runner } => self.runner_heard(runner),
            Event::RunnerCut { runner } => self.runner_cut(runner, effects),
            Event::AttemptDone {
                runner,
                task,
                attempt,
                run_us,
            } => {
                self.attempt_done(runner, task, attempt, run_us, effects);
            }
            Event::AttemptContinued {
                runner,
                attempt,
                run_us,
                next,
            } => {
                self.attempt_continued(runner, attempt, run_us, *next, effects);
            }
            Event::AttemptFailed {
                runner,
                task,
                attempt,
                error,
                run_us,
                chance,
            } => {
                self.attempt_failed(runner, task, attempt, &error, run_us, chance, effects);
            }
            Event::AttemptReturned {
                runner,
                task,
                attempt,
            } => self.attempt_returned(runner, task, attempt, effects),
            Event::RecallAnswered { runner } => self.recall_answered(runner),
            Event::Started { roster } => self.started(roster),
            Event::StopWanted => self.stop(effects),
            Event::TurnEnded => self.turn_ended(effects),
        }
    }

    /// When to call [`Scheduler::handle`] with [`Event::TurnEnded`] again, by the monotonic clock;
    /// `None`: not before something happens. A time that has passed means at once: there is work
    /// left over.
    pub fn next_deadline(&self, now: Now) -> Option<u64> {
        if !self.settling.is_empty() || !self.sweeps.is_empty() || self.ready.left_over {
            return Some(now.mono_us);
        }
        self.deadlines.next(now)
    }

    fn turn_ended(&mut self, effects: &mut Vec<Effect>) {
        self.jobs.drop_done();
        self.fire_deadlines(effects);
        self.settle_some(effects);
        self.sweep_some(effects);
        self.close_idle(effects);
        self.dispatch(effects);
        self.jobs.turn_ended();
    }
}
