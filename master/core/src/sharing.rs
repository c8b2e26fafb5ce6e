//! Equal tasks share one run. The engine says which tasks are equal; all of them stay in the ready
//! index until one is sent, so that whichever can be sent first runs. The others join it, and end as
//! it does. Nothing of this is durable: after a restart equal tasks are told to be equal again.

use crate::effect::{Effect, EndReason};
use crate::keys::{SharedRunKey, TaskKey};
use crate::scheduler::{Scheduler, TOUCHED_PER_TURN_MAX};
use crate::state::{FinalState, State};
use crate::task::Task;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use taskmaster_protocol::{ErrorKind, TaskError};

/// The limits of an attempt, by which a failure is judged: with greater ones another attempt may
/// succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RunLimits {
    timeout_ms: u64,
    memory_mb: u32,
}

impl RunLimits {
    fn covers(self, other: RunLimits) -> bool {
        self.timeout_ms >= other.timeout_ms && self.memory_mb >= other.memory_mb
    }
}

/// One of the tasks that share a run.
#[derive(Debug)]
struct Member {
    /// How long an attempt of the task may run, in milliseconds.
    timeout_ms: u64,
    /// Whether the task goes on as another one. It then counts as at work until it ends.
    continued: bool,
}

/// How the run ended, and for whom that counts.
#[derive(Debug)]
struct Outcome {
    /// The task that ran. The core keeps it until all others are told.
    by: TaskKey,
    how: FinalState,
    /// Only members whose attempts may take no more than this fail with the task; `None` where all
    /// members end as the task does.
    within: Option<RunLimits>,
}

/// A run that equal tasks share.
#[derive(Debug, Default)]
pub(crate) struct SharedRun {
    members: BTreeMap<TaskKey, Member>,
    /// Members that a runner works on, that wait to try again after a failure, or that go on as
    /// another task. The other members wait for them.
    at_work: BTreeSet<TaskKey>,
    /// Members in [`State::Joined`].
    joined: BTreeSet<TaskKey>,
    /// Present once the run has ended, while members are still to be told.
    outcome: Option<Outcome>,
}

impl SharedRun {
    /// Whether this member has to wait for another one.
    fn is_run_by_other(&self, key: TaskKey) -> bool {
        self.outcome.is_some() || self.at_work.iter().any(|other| *other != key)
    }
}

/// All shared runs.
#[derive(Debug, Default)]
pub(crate) struct SharedRuns {
    runs: BTreeMap<SharedRunKey, SharedRun>,
    /// Runs that have ended, whose members are told in turns.
    ended: VecDeque<SharedRunKey>,
    /// Runs that nobody is at work on any more, whose joined members become ready in turns.
    abandoned: VecDeque<SharedRunKey>,
    /// Ended tasks whose end other members are still to be told.
    kept: BTreeSet<TaskKey>,
    /// Runs that may have lost their last member.
    emptied: Vec<SharedRunKey>,
}

impl SharedRuns {
    /// Whether members are left to be told or to become ready.
    pub fn has_work(&self) -> bool {
        !self.ended.is_empty() || !self.abandoned.is_empty() || !self.emptied.is_empty()
    }

    /// Whether an ended task must be kept, because others end as it did.
    pub fn keeps(&self, key: TaskKey) -> bool {
        self.kept.contains(&key)
    }
}

/// What happens to the other members when one of them ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberEnd {
    /// All of them end in the same way.
    ForAll,
    /// Those end in the same way whose attempts may take no more time and memory.
    ForEqualLimits,
    /// They go on without it.
    Alone,
}

impl MemberEnd {
    /// What the final failure of an attempt says about attempts of equal tasks.
    pub fn of_failure(error: &TaskError) -> MemberEnd {
        if error.verdict() == Some(false) {
            return MemberEnd::ForAll;
        }
        match error.kind {
            ErrorKind::Trap | ErrorKind::Module | ErrorKind::Input | ErrorKind::Output => {
                MemberEnd::ForAll
            }
            ErrorKind::Exit | ErrorKind::Timeout | ErrorKind::Memory => MemberEnd::ForEqualLimits,
            ErrorKind::Cancelled | ErrorKind::RunnerLost => MemberEnd::Alone,
        }
    }
}

impl Scheduler {
    /// No answer was found for a task: it is ready. It is equal to all others of the run.
    pub(crate) fn share_run(
        &mut self,
        key: TaskKey,
        run: Option<SharedRunKey>,
        timeout_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        if task.state() != State::LookingUp {
            return;
        }
        let last = std::mem::replace(&mut task.detail_mut().shared_run, run);
        if last != run {
            self.remove_member(key, last);
        }
        if let Some(run) = run {
            let member = Member {
                timeout_ms,
                continued: false,
            };
            let shared = self.sharing.runs.entry(run).or_default();
            shared.members.insert(key, member);
        }
        self.enter(key, State::Ready { reserved: false }, effects);
        // The turn may have ended already, and another one must send the task.
        self.ready.left_over = true;
    }

    /// Ends a task whose answer was found.
    pub(crate) fn answer_task(&mut self, key: TaskKey, effects: &mut Vec<Effect>) {
        let is_looking = |task: &Task| task.state() == State::LookingUp;
        if self.tasks.get(key).is_some_and(is_looking) {
            self.end(key, FinalState::Done, EndReason::KeptAnswer, effects);
        }
    }

    /// The run of a task, if it shares one.
    fn shared_run_of(&self, key: TaskKey) -> Option<SharedRunKey> {
        self.tasks.get(key)?.detail.as_ref()?.shared_run
    }

    /// Whether a ready task must not be sent, because an equal one is at work.
    pub(crate) fn is_run_by_other(&self, key: TaskKey) -> bool {
        if self.sharing.runs.is_empty() {
            return false;
        }
        self.shared_run_of(key)
            .and_then(|run| self.sharing.runs.get(&run))
            .is_some_and(|run| run.is_run_by_other(key))
    }

    /// The task whose run a joined task waits for; `None` while it is about to be ready again.
    pub(crate) fn run_waited_for(&self, key: TaskKey) -> Option<TaskKey> {
        let run = self.sharing.runs.get(&self.shared_run_of(key)?)?;
        let ended = run.outcome.as_ref().map(|outcome| outcome.by);
        ended.or_else(|| run.at_work.first().copied())
    }

    /// A task that may share a run has gone from one state to another. Only
    /// [`Scheduler::enter`] calls this.
    pub(crate) fn member_moved(&mut self, key: TaskKey, last: State, next: State) {
        let Some(run_key) = self.shared_run_of(key) else {
            return;
        };
        let Some(run) = self.sharing.runs.get_mut(&run_key) else {
            return;
        };
        if last == State::Joined {
            run.joined.remove(&key);
        }
        match next {
            State::Assigned => drop(run.at_work.insert(key)),
            State::Joined => drop(run.joined.insert(key)),
            State::Ready { .. } | State::LookingUp => {
                let continued = run.members.get(&key).is_some_and(|member| member.continued);
                if !continued && run.at_work.remove(&key) {
                    self.wake_if_abandoned(run_key);
                }
            }
            // Only a member that was at work waits to try again, or goes on as another task.
            State::Delayed | State::Blocked { .. } => {
                if !run.at_work.contains(&key) {
                    self.leave_run(key);
                }
            }
            State::Ended(_) => {}
        }
    }

    /// A member goes on as another task. The others wait for its end.
    pub(crate) fn member_continued(&mut self, key: TaskKey) {
        let Some(run) = self.shared_run_of(key) else {
            return;
        };
        if let Some(run) = self.sharing.runs.get_mut(&run)
            && let Some(member) = run.members.get_mut(&key)
        {
            member.continued = true;
        }
    }

    /// A member has ended as `how`: the others end as it does, or go on without it.
    pub(crate) fn member_ended(
        &mut self,
        key: TaskKey,
        how: FinalState,
        end: MemberEnd,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run_key) = self.shared_run_of(key) else {
            return;
        };
        let limits = self.limits_of(key, run_key);
        let run = self.sharing.runs.get_mut(&run_key);
        let counts = |run: &&mut SharedRun| end != MemberEnd::Alone && run.outcome.is_none();
        let Some(run) = run.filter(counts) else {
            return self.leave_run(key);
        };
        run.members.remove(&key);
        run.at_work.remove(&key);
        run.outcome = Some(Outcome {
            by: key,
            how,
            within: limits.filter(|_| end == MemberEnd::ForEqualLimits),
        });
        self.sharing.kept.insert(key);
        self.sharing.ended.push_back(run_key);
        effects.push(Effect::ForgetSharedRun(run_key));
    }

    fn limits_of(&self, key: TaskKey, run: SharedRunKey) -> Option<RunLimits> {
        let member = self.sharing.runs.get(&run)?.members.get(&key)?;
        let class = self.tasks.get(key)?.class;
        Some(RunLimits {
            timeout_ms: member.timeout_ms,
            memory_mb: self.ready.class(class).memory_mb,
        })
    }

    /// Takes a task out of its run.
    fn leave_run(&mut self, key: TaskKey) {
        let detail = self
            .tasks
            .get_mut(key)
            .and_then(|task| task.detail.as_mut());
        let run = detail.and_then(|detail| detail.shared_run.take());
        self.remove_member(key, run);
    }

    fn remove_member(&mut self, key: TaskKey, run: Option<SharedRunKey>) {
        let Some(run_key) = run else { return };
        let Some(run) = self.sharing.runs.get_mut(&run_key) else {
            return;
        };
        run.members.remove(&key);
        run.joined.remove(&key);
        run.at_work.remove(&key);
        if run.members.is_empty() && run.outcome.is_none() {
            self.sharing.emptied.push(run_key);
        } else {
            self.wake_if_abandoned(run_key);
        }
    }

    fn wake_if_abandoned(&mut self, key: SharedRunKey) {
        let is_abandoned = |run: &SharedRun| {
            run.outcome.is_none() && run.at_work.is_empty() && !run.joined.is_empty()
        };
        if self.sharing.runs.get(&key).is_some_and(is_abandoned) {
            self.sharing.abandoned.push_back(key);
        }
    }

    /// Ends the members of ended runs, and makes those ready that wait for nobody,
    /// [`TOUCHED_PER_TURN_MAX`] at most.
    pub(crate) fn share_some(&mut self, effects: &mut Vec<Effect>) {
        let mut left = TOUCHED_PER_TURN_MAX;
        while left > 0 {
            let Some(run) = self.sharing.ended.front().copied() else {
                break;
            };
            self.tell_next_member(run, effects);
            left -= 1;
        }
        while left > 0 {
            let Some(run) = self.sharing.abandoned.front().copied() else {
                break;
            };
            self.wake_next_member(run, effects);
            left -= 1;
        }
        for run in std::mem::take(&mut self.sharing.emptied) {
            let is_empty = |run: &SharedRun| run.members.is_empty() && run.outcome.is_none();
            if self.sharing.runs.get(&run).is_some_and(is_empty) {
                self.sharing.runs.remove(&run);
                effects.push(Effect::ForgetSharedRun(run));
            }
        }
    }

    /// Tells one member of an ended run how the run ended, or drops the run when all know.
    fn tell_next_member(&mut self, run_key: SharedRunKey, effects: &mut Vec<Effect>) {
        let first = |run: &SharedRun| run.members.keys().next().copied();
        let Some(key) = self.sharing.runs.get(&run_key).and_then(first) else {
            self.sharing.ended.pop_front();
            let run = self.sharing.runs.remove(&run_key);
            if let Some(outcome) = run.and_then(|run| run.outcome) {
                self.sharing.kept.remove(&outcome.by);
                self.forget_if_over(outcome.by, effects);
            }
            return;
        };
        let own = self.limits_of(key, run_key);
        self.leave_run(key);
        let Some(outcome) = self
            .sharing
            .runs
            .get(&run_key)
            .and_then(|run| run.outcome.as_ref())
        else {
            return;
        };
        let counts = match (outcome.within, own) {
            (Some(within), Some(own)) => within.covers(own),
            (Some(_), None) => false,
            (None, _) => true,
        };
        let by = outcome.by;
        let how = outcome.how;
        let state = self.tasks.get(key).map(Task::state);
        match state {
            // The task goes on as another one, which waits for something of its own.
            Some(State::Blocked { .. } | State::Ended(_)) | None => {}
            Some(_) if counts => self.end(key, how, EndReason::SharedRun(by), effects),
            Some(State::Ready { .. } | State::LookingUp | State::Joined) => {
                self.enter(key, State::LookingUp, effects);
            }
            Some(State::Delayed | State::Assigned) => {}
        }
    }

    /// Makes one joined member of a run ready, unless somebody is at work again.
    fn wake_next_member(&mut self, run_key: SharedRunKey, effects: &mut Vec<Effect>) {
        let waiting = |run: &SharedRun| {
            let is_abandoned = run.outcome.is_none() && run.at_work.is_empty();
            run.joined.first().copied().filter(|_| is_abandoned)
        };
        match self.sharing.runs.get(&run_key).and_then(waiting) {
            Some(key) => self.enter(key, State::LookingUp, effects),
            None => drop(self.sharing.abandoned.pop_front()),
        }
    }

    /// Appends what is broken in the shared runs.
    pub(crate) fn joined_tasks_wait_for_somebody(&self, broken: &mut Vec<String>) {
        for (key, task) in self.tasks.iter() {
            let run = self.shared_run_of(key);
            let shared = run.and_then(|run| self.sharing.runs.get(&run));
            let is_joined = task.state() == State::Joined;
            if is_joined != shared.is_some_and(|shared| shared.joined.contains(&key)) {
                broken.push(format!(
                    "{key:?} is joined: {is_joined}, its run says otherwise"
                ));
            }
            let (Some(run), Some(shared)) = (run, shared) else {
                continue;
            };
            if !shared.members.contains_key(&key) && task.state().is_open() {
                broken.push(format!("{key:?} names {run:?}, which does not know it"));
            }
            let waits_for_nobody = is_joined
                && shared.outcome.is_none()
                && shared.at_work.is_empty()
                && !self.sharing.abandoned.contains(&run);
            if waits_for_nobody {
                broken.push(format!("{key:?} is joined, and nobody is at work"));
            }
        }
        for (run, shared) in &self.sharing.runs {
            let is_gone = |key: &&TaskKey| self.shared_run_of(**key) != Some(*run);
            for key in shared.members.keys().filter(is_gone) {
                broken.push(format!(
                    "{run:?} has the member {key:?}, which is not in it"
                ));
            }
            if shared.outcome.is_some() != self.sharing.ended.contains(run) {
                broken.push(format!("{run:?} has ended, and its members are not told"));
            }
        }
    }
}
