//! The door of the core: every event comes in here, and is handed to the file that deals with it.

use crate::attempts::{AttemptFailure, Reported};
use crate::cancels::JobCancel;
use crate::deadlines::Deadlines;
use crate::dependencies::Notification;
use crate::effect::Effect;
use crate::event::Event;
use crate::jobs::JobTable;
use crate::joining::Joining;
use crate::keys::{RunnerKey, TaskKey};
use crate::priorities::InheritedPriorities;
use crate::ready::ReadyIndex;
use crate::runners::Runner;
use crate::sharing::SharedRuns;
use crate::tasks::TaskTable;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use taskmaster_protocol::{Capabilities, ModuleName, Now};

/// How many tasks each part of the end of a turn touches at most, so that no turn takes long.
pub(crate) const TOUCHED_PER_TURN_MAX: usize = 1_000;

/// The core: a state machine that decides which task runs where, and when. The documentation of the
/// crate says what its user has to do.
#[derive(Debug)]
pub struct Scheduler {
    /// How many times a master has started on this journal. The epoch is the first half of the
    /// number of every attempt.
    pub(crate) epoch: u32,
    /// The latest time that came in with an event. Neither clock runs backwards.
    pub(crate) now: Now,
    pub(crate) tasks: TaskTable,
    pub(crate) jobs: JobTable,
    pub(crate) ready: ReadyIndex,
    pub(crate) runners: BTreeMap<RunnerKey, Runner>,
    pub(crate) deadlines: Deadlines,
    /// Ended tasks with dependents that have not been notified yet.
    pub(crate) notifications: VecDeque<Notification>,
    /// How many dependencies of a blocked task the engine is going to tell of; only for tasks that have
    /// any.
    pub(crate) told: BTreeMap<TaskKey, u32>,
    /// What urgent tasks pass on to those that they wait for.
    pub(crate) priorities: InheritedPriorities,
    /// Runs that equal tasks share.
    pub(crate) sharing: SharedRuns,
    /// Cancels of jobs that are being carried out, some tasks in each turn.
    pub(crate) job_cancels: VecDeque<JobCancel>,
    /// Modules whose tasks cannot be sent.
    pub(crate) closed_modules: BTreeSet<ModuleName>,
    /// What runners must offer for a module, of the modules that need anything.
    pub(crate) module_needs: BTreeMap<ModuleName, Arc<Capabilities>>,
    /// Names of the runners that the journal says are there.
    pub(crate) roster: BTreeSet<String>,
    /// Nothing is sent before this time, because runners of an earlier epoch may still tell what
    /// they hold; in microseconds of the monotonic clock.
    pub(crate) roster_wait_until: Option<u64>,
    /// Whether the master is to stop, and nothing is sent any more.
    pub(crate) stopping: bool,
}

impl Scheduler {
    /// An empty core. `epoch` must be greater than that of any earlier start on the same journal.
    pub fn new(epoch: u32) -> Scheduler {
        Scheduler {
            epoch,
            now: Now::default(),
            tasks: TaskTable::default(),
            jobs: JobTable::default(),
            ready: ReadyIndex::default(),
            runners: BTreeMap::new(),
            deadlines: Deadlines::default(),
            notifications: VecDeque::new(),
            told: BTreeMap::new(),
            priorities: InheritedPriorities::default(),
            sharing: SharedRuns::default(),
            job_cancels: VecDeque::new(),
            closed_modules: BTreeSet::new(),
            module_needs: BTreeMap::new(),
            roster: BTreeSet::new(),
            roster_wait_until: None,
            stopping: false,
        }
    }

    /// Takes one event in and appends what is to be done. Never fails or blocks, and never panics
    /// because of what came from outside.
    ///
    /// # Panics
    ///
    /// If the engine breaks the contract: with a key that is in use, a job that was not opened, or a
    /// dependency that the core does not hold.
    pub fn handle(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        self.now = Now {
            mono_us: self.now.mono_us.max(now.mono_us),
            wall: self.now.wall.max(now.wall),
        };
        match event {
            Event::TaskOpened(task) => self.open_task(*task, effects),
            Event::DependencyTold { task, is } => self.dependency_told(task, is, effects),
            Event::AnswerFound { task } => self.answer_task(task, effects),
            Event::AnswerMissed {
                task,
                run,
                timeout_ms,
            } => self.share_run(task, run, timeout_ms, effects),
            Event::CancelRequested { task } => self.cancel(task, effects),
            Event::JobCancelRequested { job, up_to, origin } => {
                self.cancel_job(&job, up_to, origin, effects)
            }
            Event::TaskSet {
                task,
                priority,
                due,
            } => self.set_task(task, priority, due, effects),
            Event::JobOpened {
                job,
                stored,
                restored,
            } => self.open_job(job, stored, restored, effects),
            Event::JobHeld { job, by, restored } => self.hold_job(&job, by, restored, effects),
            Event::JobReleased { job, by } => self.release_job(&job, &by, effects),
            Event::HolderLost { by } => self.holder_lost(&by),
            Event::JobPaused { job, paused } => self.pause_job(&job, paused, effects),
            Event::ModuleOpened { module, open } => self.open_module(module, open, effects),
            Event::ModuleNeedsChanged { module, needs } => {
                self.change_needs(module, needs, effects);
            }
            Event::RunnerJoined {
                runner,
                process,
                offer,
                credits,
                held,
            } => {
                let joining = Joining {
                    process,
                    offer: *offer,
                    credits,
                    held,
                };
                self.runner_joined(runner, joining, effects);
            }
            Event::RunnerUpdated {
                runner,
                credits,
                draining,
            } => self.runner_updated(runner, credits, draining, effects),
            Event::RunnerHeard { runner } => self.runner_heard(runner),
            Event::RunnerDisconnected { runner } => self.runner_disconnected(runner, effects),
            Event::AttemptDone {
                runner,
                task,
                attempt,
                run_us,
            } => {
                let reported = Reported::new(runner, task, attempt);
                self.attempt_done(reported, run_us, effects);
            }
            Event::AttemptContinued {
                runner,
                attempt,
                run_us,
                next,
            } => {
                let reported = Reported::new(runner, next.key, attempt);
                self.attempt_continued(reported, run_us, *next, effects);
            }
            Event::AttemptFailed {
                runner,
                task,
                attempt,
                error,
                run_us,
                random,
            } => {
                let reported = Reported::new(runner, task, attempt);
                let failure = AttemptFailure {
                    error,
                    run_us,
                    random,
                };
                self.attempt_failed(reported, &failure, effects);
            }
            Event::AttemptReturned {
                runner,
                task,
                attempt,
            } => {
                let reported = Reported::new(runner, task, attempt);
                self.attempt_returned(reported, effects);
            }
            Event::RecallAnswered { runner } => self.recall_answered(runner),
            Event::Started { roster } => self.started(roster),
            Event::StopRequested => self.stop(effects),
            Event::TurnEnded => self.turn_ended(effects),
        }
    }

    /// When to call [`Scheduler::handle`] with [`Event::TurnEnded`] again, in microseconds of the
    /// monotonic clock. A time that has passed means at once, because there is work left over.
    /// `None` means that nothing is to be done before something happens.
    pub fn next_deadline(&self, now: Now) -> Option<u64> {
        let has_work = !self.notifications.is_empty()
            || !self.job_cancels.is_empty()
            || self.priorities.has_work()
            || self.sharing.has_work()
            || self.ready.left_over;
        if has_work {
            return Some(now.mono_us);
        }
        self.deadlines.next(now)
    }

    /// The parts of the end of a turn, in the order in which one makes work for the next.
    fn turn_ended(&mut self, effects: &mut Vec<Effect>) {
        self.jobs.drop_closed();
        self.fire_deadlines(effects);
        self.notify_some(effects);
        self.share_some(effects);
        self.cancel_some(effects);
        self.close_idle(effects);
        self.pass_on_some();
        self.dispatch(effects);
        self.jobs.turn_ended();
    }
}
