//! What the core is told: events in the past tense, each with the facts that the engine has looked
//! up for it.

use crate::due::Due;
use crate::jobs::StoredJob;
use crate::keys::{RunnerKey, SharedRunKey, TaskKey};
use crate::state::FinalState;
use std::sync::Arc;
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{
    AttemptId, Capabilities, JobName, ModuleName, Requires, Retries, TaskError, When,
};

/// A dependency of a task, with what the engine knows of the task waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependsOn {
    /// The core holds the task waited for, and it was open when the turn began.
    Open(TaskKey, When),
    /// The task waited for has ended.
    Ended(FinalState, When),
    /// Something that the core does not know, as the end of a job. The engine tells of it with
    /// [`Event::DependencyTold`].
    Told,
}

/// Why the engine tells the core of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// A feeder added the task.
    #[default]
    Added,
    /// `tasks retry` opened the task again. Its attempts are counted anew, and older attempts are
    /// void.
    Reopened {
        /// The last attempt before the task was opened again.
        fence: AttemptId,
        /// How the task had ended. Its job counts the task no longer under this state.
        was: FinalState,
    },
    /// The task was open when the last master ended. Nothing is stored again.
    Restored {
        /// Failures counted so far.
        tries: u32,
        /// Lost runners counted so far.
        lost: u32,
        /// The last attempt whose failure is durable. This attempt and older ones are void.
        fence: AttemptId,
    },
}

/// A task as the core needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// A key that no task in the core has.
    pub key: TaskKey,
    /// The task's number in the order of adding. Numbers only grow, over all starts of the master:
    /// among equals, the task with the smallest number is sent first.
    pub ordinal: u64,
    /// A job that [`Event::JobOpened`] has told of.
    pub job: JobName,
    /// The module that runs the task.
    pub module: ModuleName,
    /// What a runner must offer to be sent the task.
    pub requires: Arc<Requires>,
    /// The most memory that an attempt may take, in MiB. A runner is charged for it.
    pub memory_mb: u32,
    /// A higher priority is sent first.
    pub priority: i32,
    /// The tasks that this one waits for.
    pub dependencies: Vec<DependsOn>,
    /// The earliest start, if there is one.
    pub due: Option<Due>,
    /// The task's own retry policy; `None` stands for the default policy.
    pub retries: Option<Box<Retries>>,
    /// Whether [`Effect::LookUpAnswer`](crate::Effect::LookUpAnswer) is wanted whenever the task
    /// becomes ready.
    pub is_cached: bool,
    /// Why the core is told of the task.
    pub origin: Origin,
}

/// Where the request to cancel a job comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelOrigin {
    /// A client asked for it now.
    Client,
    /// The request is durable already: the master restarted before it was carried out.
    Restored {
        /// Tasks that were opened again after the request, so that it does not concern them.
        reopened: Vec<TaskKey>,
    },
}

/// What has happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A task is open from now on. [`NewTask::origin`] says why.
    TaskOpened(Box<NewTask>),
    /// The engine has learned what has become of a dependency that was [`DependsOn::Told`].
    DependencyTold {
        /// The task that waits.
        task: TaskKey,
        /// What the dependency is from now on.
        is: DependsOn,
    },
    /// A kept answer was found for a task, which is done by it.
    AnswerFound {
        /// The task that is answered.
        task: TaskKey,
    },
    /// No answer is kept for a task, which is ready.
    AnswerMissed {
        /// The task that needs a run.
        task: TaskKey,
        /// The run that it shares with equal tasks; `None` where nobody can tell which are equal.
        run: Option<SharedRunKey>,
        /// How long an attempt of the task may run, in milliseconds.
        timeout_ms: u64,
    },
    /// A client asked for an open task to be cancelled.
    CancelRequested {
        /// The task to cancel.
        task: TaskKey,
    },
    /// A client asked for the open tasks of a job to be cancelled.
    JobCancelRequested {
        /// The job to cancel.
        job: JobName,
        /// The ordinal of the newest task concerned. Tasks that are added later stay open.
        up_to: u64,
        /// Where the request comes from.
        origin: CancelOrigin,
    },
    /// A client changed an open task.
    TaskSet {
        /// The changed task.
        task: TaskKey,
        /// The new priority, if it was changed.
        priority: Option<i32>,
        /// The new earliest start, if it was changed. A time in the past means at once.
        due: Option<Due>,
    },
    /// A task is about to be added to a job that is not open in the core, or a session to hold it.
    JobOpened {
        /// The job's name.
        job: JobName,
        /// What is stored of the job; the default for a new job.
        stored: StoredJob,
        /// Whether the job was open when the last master ended. Nothing is stored again.
        restored: bool,
    },
    /// A feeder's session holds an open job: the job stays open while it has no open task.
    JobHeld {
        /// The held job.
        job: JobName,
        /// The name of the session.
        by: Arc<str>,
        /// Whether the hold was read from the journal. The feeder has a grace period to renew it.
        restored: bool,
    },
    /// A feeder's input for a job ended, and with it the hold of its session.
    JobReleased {
        /// The job that was held.
        job: JobName,
        /// The name of the session.
        by: Arc<str>,
    },
    /// A feeder's connection was lost. The holds of its session last for a grace period.
    HolderLost {
        /// The name of the session.
        by: Arc<str>,
    },
    /// An operator paused or resumed a job.
    JobPaused {
        /// The job's name.
        job: JobName,
        /// Whether the job is paused from now on.
        paused: bool,
    },
    /// Tasks of a module can be sent from now on, or no longer: its file was removed, or an
    /// operator paused the module.
    ModuleOpened {
        /// The module's name.
        module: ModuleName,
        /// Whether tasks of the module can be sent.
        open: bool,
    },
    /// The capabilities that a module is granted have changed. Only runners that offer all of them
    /// are sent its tasks. A module that was never told of needs none.
    ModuleNeedsChanged {
        /// The module's name.
        module: ModuleName,
        /// What a runner must offer.
        needs: Arc<Capabilities>,
    },
    /// A runner is ready for work and told what it holds. A runner that connects again joins again,
    /// under a new key.
    RunnerJoined {
        /// The runner's connection.
        runner: RunnerKey,
        /// Names the runner's process, over all its connections. Only this process may report the
        /// attempts that it is sent: another one may come under the runner's name.
        process: Arc<str>,
        /// What the runner offers.
        offer: Box<Offer>,
        /// How many attempts the runner will hold at most.
        credits: u32,
        /// Attempts that the runner holds, of tasks that the core holds.
        held: Vec<(TaskKey, AttemptId)>,
    },
    /// A runner changed what it takes.
    RunnerUpdated {
        /// The runner's connection.
        runner: RunnerKey,
        /// How many attempts the runner will hold at most.
        credits: u32,
        /// Whether the runner takes no more attempts. Draining is never taken back.
        draining: bool,
    },
    /// Something came from a runner: it lives.
    RunnerHeard {
        /// The runner's connection.
        runner: RunnerKey,
    },
    /// A runner's connection was lost. The runner has a grace period to come back.
    RunnerDisconnected {
        /// The lost connection.
        runner: RunnerKey,
    },
    /// An attempt ended with a result.
    AttemptDone {
        /// The connection that the report came over.
        runner: RunnerKey,
        /// The attempt's task.
        task: TaskKey,
        /// The attempt that ended.
        attempt: AttemptId,
        /// Run time in microseconds.
        run_us: u64,
    },
    /// An attempt ended, and its task goes on as another one. The task keeps its id, job and
    /// dependents, and has the module, the terms and the dependencies of `next`. Attempts are
    /// counted anew, and earlier ones are void.
    AttemptContinued {
        /// The connection that the report came over.
        runner: RunnerKey,
        /// The attempt that ended.
        attempt: AttemptId,
        /// Run time in microseconds.
        run_us: u64,
        /// What the task is from now on, under the key that it has.
        next: Box<NewTask>,
    },
    /// An attempt ended without a result.
    AttemptFailed {
        /// The connection that the report came over.
        runner: RunnerKey,
        /// The attempt's task.
        task: TaskKey,
        /// The attempt that ended.
        attempt: AttemptId,
        /// Why the attempt failed.
        error: Box<TaskError>,
        /// Run time in microseconds.
        run_us: u64,
        /// A random number, for the jitter of the back-off.
        random: u32,
    },
    /// A runner gave an attempt back without having started it.
    AttemptReturned {
        /// The connection that the report came over.
        runner: RunnerKey,
        /// The attempt's task.
        task: TaskKey,
        /// The attempt given back.
        attempt: AttemptId,
    },
    /// A runner answered a recall, whether or not it gave anything back.
    RecallAnswered {
        /// The runner's connection.
        runner: RunnerKey,
    },
    /// The master has just started on a journal.
    Started {
        /// Names of the runners that were there when the last master ended. They may come back
        /// with attempts.
        roster: Vec<String>,
    },
    /// The master is to stop: nothing more is sent, and attempts that wait on runners are recalled.
    StopRequested,
    /// The inbox is drained. Deadlines that have passed fire, long work goes on, and free slots are
    /// filled.
    TurnEnded,
}
