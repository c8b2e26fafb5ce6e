//! Attempts: charged to the runner that holds them, and reported by it. The first success that is
//! committed while the task is open wins.

use crate::deadlines::Timer;
use crate::due::Due;
use crate::effect::{DurableChange, Effect, EndReason};
use crate::event::NewTask;
use crate::keys::{RunnerKey, TaskKey};
use crate::one_or_many::OneOrMany;
use crate::retry;
use crate::runners::InFlight;
use crate::scheduler::Scheduler;
use crate::sharing::MemberEnd;
use crate::state::{FinalState, State};
use crate::task::{OpenAttempt, Task, TaskDetail};
use taskmaster_protocol::{AttemptId, ErrorKind, Retries, TaskError, limits};

/// The longest run time that is believed, in microseconds: long enough to tell long attempts from
/// short ones, and short enough that no sum overflows.
const RUN_US_MAX: u64 = 3_600_000_000;

/// The greatest attempt number that is believed. No task can have that many attempts, and it is far
/// from the end of the numbers: a runner that tells of a greater one has made it up.
const ATTEMPT_NUMBER_MAX: u32 = 1_000_000_000;

/// What a report is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reported {
    /// The connection that the report came over.
    pub by: RunnerKey,
    pub task: TaskKey,
    pub attempt: AttemptId,
}

impl Reported {
    pub fn new(by: RunnerKey, task: TaskKey, attempt: AttemptId) -> Reported {
        Reported { by, task, attempt }
    }
}

/// How an attempt failed.
#[derive(Debug)]
pub(crate) struct AttemptFailure {
    pub error: Box<TaskError>,
    /// Run time in microseconds.
    pub run_us: u64,
    /// A random number, for the jitter of the back-off.
    pub random: u32,
}

impl Scheduler {
    /// Charges a runner and the task's job for an attempt that the runner holds from now on.
    pub(crate) fn add_in_flight(
        &mut self,
        runner_key: RunnerKey,
        task: TaskKey,
        attempt: AttemptId,
    ) {
        let now = self.now.mono_us;
        let class = self.tasks.expect(task).class;
        let job = self.tasks.expect(task).job;
        let class = self.ready.class(class);
        let slots = class.requires.slots();
        let memory_mb = class.memory_mb;
        // A mean is at most RUN_US_MAX, so the sum over a runner's attempts does not overflow.
        let expected_us = class.mean_us.unwrap_or(limits::PREFETCH_US) * u64::from(slots);

        let runner = self.runner(runner_key);
        runner.sent += 1;
        let in_flight = InFlight {
            slots,
            memory_mb,
            expected_us,
            order: runner.sent,
        };
        let last = runner.in_flight.insert((task, attempt), in_flight);
        assert!(
            last.is_none(),
            "attempt {attempt} of {task:?} is in flight twice"
        );
        runner.used_slots += slots;
        runner.used_memory_mb += u64::from(memory_mb);
        runner.backlog_us += expected_us;

        // An attempt waits there from now on.
        if runner.is_overfull() && !runner.recall_timer_set {
            runner.recall_timer_set = true;
            runner.last_progress_us = now;
            let at = now + limits::RECALL_AFTER_MS * 1_000;
            self.deadlines.insert(at, Timer::Recall(runner_key));
        }
        self.change_usage(job, |usage| usage.slots_in_use += slots);
        self.update_availability(runner_key);
    }

    /// Takes the charge for an attempt back from the runner that holds it, which may be another
    /// connection of the runner than the one that reported. `run_us` is the run time of an attempt
    /// that has ended, and `None` for one that was given back or lost.
    pub(crate) fn remove_in_flight(&mut self, reported: Reported, run_us: Option<u64>) {
        let Reported { by, task, attempt } = reported;
        let now = self.now.mono_us;
        let open = self
            .tasks
            .get(task)
            .and_then(|task| task.open_attempt(attempt));
        let holder = open.and_then(|open| open.runner).unwrap_or(by);
        let Some(runner) = self.runners.get_mut(&holder) else {
            return;
        };
        let Some(in_flight) = runner.in_flight.remove(&(task, attempt)) else {
            return;
        };

        runner.used_slots -= in_flight.slots;
        runner.used_memory_mb -= u64::from(in_flight.memory_mb);
        runner.backlog_us -= in_flight.expected_us;
        if run_us.is_some() {
            runner.finished += 1;
            runner.last_progress_us = now;
            runner.prefetch_paused = false;
        }
        self.update_availability(holder);

        let class = self.tasks.expect(task).class;
        let job = self.tasks.expect(task).job;
        let run_us = run_us.unwrap_or(0).min(RUN_US_MAX);
        // An attempt that never ran (it was stopped before, or its module could not be loaded) says
        // nothing of how long others will run.
        if run_us > 0 {
            self.ready.class_mut(class).add_run_time(run_us);
        }
        self.change_usage(job, |usage| {
            let slot_time_us = run_us * u64::from(in_flight.slots);
            usage.slots_in_use -= in_flight.slots;
            usage.slot_time_us = usage.slot_time_us.saturating_add(slot_time_us);
        });
    }

    /// Removes an attempt from the record of its task: it has ended.
    pub(crate) fn close_attempt(
        &mut self,
        key: TaskKey,
        attempt: AttemptId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        task.retain_attempts(|open| open.attempt != attempt);
        self.forget_if_over(key, effects);
    }

    /// Marks an attempt in the record of its task: its runner was lost, and may come back with it.
    /// An ended task needs no such record.
    pub(crate) fn detach_attempt(
        &mut self,
        key: TaskKey,
        attempt: AttemptId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        if !task.state.is_open() {
            return self.close_attempt(key, attempt, effects);
        }
        let Some(detail) = &mut task.detail else {
            return;
        };
        for open in detail.open_attempts.iter_mut() {
            if open.attempt == attempt {
                open.runner = None;
            }
        }
    }

    /// Whether an earlier master may have sent an attempt. The journal does not know to which
    /// runner: it knows nothing of a runner that joined just before that master died, or that the
    /// master had given up. The work of such a runner is worth no less.
    pub(crate) fn is_of_earlier_epoch(&self, attempt: AttemptId) -> bool {
        attempt.epoch < self.epoch && attempt.n <= ATTEMPT_NUMBER_MAX
    }

    /// Whether a runner may report an attempt: the attempt was sent to the runner's process, over
    /// whichever connection, or an earlier master may have sent it. A connection that its runner has replaced
    /// may not report: the runner reports again over the new one.
    fn may_report(&self, reported: Reported) -> bool {
        let Some(runner) = self.runners.get(&reported.by) else {
            return false;
        };
        let open = self
            .tasks
            .get(reported.task)
            .and_then(|task| task.open_attempt(reported.attempt));
        match open {
            Some(open) => open.process == runner.process,
            None => self.is_of_earlier_epoch(reported.attempt),
        }
    }

    /// Whether a report of an attempt counts: the attempt is not void, and its task is open and not
    /// about to be cancelled.
    fn counts(&self, key: TaskKey, attempt: AttemptId) -> bool {
        let Some(task) = self.tasks.get(key) else {
            return false;
        };
        if self.is_being_cancelled(key, task) {
            return false;
        }
        let sent_before = attempt > task.fence() && self.is_of_earlier_epoch(attempt);
        task.state.may_have_attempts() && (sent_before || task.open_attempt(attempt).is_some())
    }

    /// Whether a report of an attempt by a runner would count now.
    pub fn report_counts(&self, runner: RunnerKey, key: TaskKey, attempt: AttemptId) -> bool {
        let reported = Reported::new(runner, key, attempt);
        self.may_report(reported) && self.counts(key, attempt)
    }

    /// Whether a runner holds another attempt of a task than this one. Then a task that would go on as
    /// another one does not, because the other attempt will report the same.
    pub fn is_held_elsewhere(&self, key: TaskKey, attempt: AttemptId) -> bool {
        let Some(task) = self.tasks.get(key) else {
            return false;
        };
        let is_other = |open: &OpenAttempt| open.attempt != attempt && open.runner.is_some();
        task.open_attempts().iter().any(is_other)
    }

    /// Takes a report: the attempt has ended, and its runner is charged no longer. Returns whether
    /// the report counts.
    fn take_report(
        &mut self,
        reported: Reported,
        run_us: Option<u64>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        self.recall_answered(reported.by);
        if !self.may_report(reported) {
            return false;
        }
        let key = reported.task;
        let counts = self.counts(key, reported.attempt);
        self.remove_in_flight(reported, run_us);
        self.close_attempt(key, reported.attempt, effects);
        let is_being_cancelled = |task: &Task| self.is_being_cancelled(key, task);
        if self.tasks.get(key).is_some_and(is_being_cancelled) {
            self.cancel(key, effects);
        }
        counts
    }

    pub(crate) fn attempt_done(
        &mut self,
        reported: Reported,
        run_us: u64,
        effects: &mut Vec<Effect>,
    ) {
        if self.take_report(reported, Some(run_us.max(1)), effects) {
            self.end_with_others(
                reported.task,
                FinalState::Done,
                EndReason::Report,
                reported.attempt,
                MemberEnd::ForAll,
                effects,
            );
        }
    }

    /// Has a task go on as `next`. The task keeps its key, ordinal, job and dependents.
    pub(crate) fn attempt_continued(
        &mut self,
        reported: Reported,
        run_us: u64,
        next: NewTask,
        effects: &mut Vec<Effect>,
    ) {
        let key = reported.task;
        let counts = self.take_report(reported, Some(run_us.max(1)), effects);
        // A newer attempt may be at work elsewhere, because this one's runner was lost for a while.
        // The newer one will report the same.
        if !counts || self.tasks.expect(key).is_on_a_runner() {
            return;
        }

        let class = self.class_of(&next);
        // Every field is named, so that the compiler asks what becomes of a new one.
        let NewTask {
            key: _,
            ordinal: _,
            job: _,
            module: _,
            requires: _,
            memory_mb: _,
            priority,
            dependencies,
            due,
            retries,
            is_cached: _,
            origin: _,
        } = next;
        self.member_continued(key);
        if self.tasks.expect(key).state != State::Assigned {
            self.enter(key, State::Assigned, effects);
        }
        // A blocked task is in no index, so what the indices go by can be changed.
        self.enter(key, State::Blocked { open: 0 }, effects);

        let epoch = self.epoch;
        let before = self.effective_priority(key);
        let task = self.tasks.expect(key);
        let last_class = std::mem::replace(&mut task.class, class);
        task.priority = priority;
        let last_attempt = task.last_attempt();
        let newest = AttemptId {
            epoch,
            n: last_attempt,
        };
        let fence = reported.attempt.max(newest);
        let shared_run = task.detail.as_ref().and_then(|detail| detail.shared_run);
        // Attempts of lost runners are void, because they are not greater than the fence.
        *task.detail_mut() = TaskDetail {
            due,
            retries,
            tries: 0,
            lost: 0,
            last_attempt,
            fence,
            open_attempts: OneOrMany::None,
            is_cached: false,
            shared_run,
        };
        self.ready.class_mut(last_class).tasks -= 1;
        self.ready.class_mut(class).tasks += 1;
        self.own_priority_changed(key, before.unwrap_or(priority));
        effects.push(Effect::Store(DurableChange::Continued(key, fence)));
        self.count_dependencies(key, &dependencies, effects);
    }

    pub(crate) fn attempt_failed(
        &mut self,
        reported: Reported,
        failure: &AttemptFailure,
        effects: &mut Vec<Effect>,
    ) {
        let Reported {
            task: key, attempt, ..
        } = reported;
        if !self.take_report(reported, Some(failure.run_us), effects) {
            return;
        }
        let task = self.tasks.expect(key);
        if task.is_on_a_runner() {
            return;
        }
        // The machine of the runner failed under the attempt, or the runner's process died under it and
        // its next process says so.
        let is_lost = failure.error.kind == ErrorKind::RunnerLost;
        if is_lost && attempt > task.fence() {
            return self.reassign(key, attempt, true, effects);
        }

        // A runner that shuts down stops its attempts and reports them as cancelled, which is
        // nobody's failure. And an attempt that is older than one that failed was counted already,
        // when its runner was lost: only its success would have mattered.
        if failure.error.kind == ErrorKind::Cancelled || is_lost || attempt <= task.fence() {
            if task.state == State::Assigned {
                self.unblock(key, effects);
            }
            return;
        }

        let detail = task.detail_mut();
        detail.tries += 1;
        let tries = detail.tries;
        let default_policy = Retries::default();
        let policy = task.retries().unwrap_or(&default_policy);
        match retry::wait_us(policy, &failure.error, tries, failure.random) {
            Some(wait_us) => self.retry_later(key, attempt, wait_us, effects),
            None => self.end_with_others(
                key,
                FinalState::Failed,
                EndReason::Report,
                attempt,
                MemberEnd::of_failure(&failure.error),
                effects,
            ),
        }
    }

    /// Delays a task after a counted failure.
    fn retry_later(
        &mut self,
        key: TaskKey,
        attempt: AttemptId,
        backoff_us: u64,
        effects: &mut Vec<Effect>,
    ) {
        let now = self.now;
        let task = self.tasks.expect(key);
        let due_us = task.due().map_or(0, |due| due.wait_us(now));
        let detail = task.detail_mut();
        detail.fence = detail.fence.max(attempt);
        let tries = detail.tries;
        let lost = detail.lost;

        // A start that was set while the attempt ran holds, too. The longer wait is kept as the
        // task's due time, because a late attempt may come and go meanwhile.
        let wait_us = backoff_us.max(due_us);
        self.set_due(key, Due::Mono(now.mono_us + wait_us));
        effects.push(Effect::Store(DurableChange::Retrying {
            task: key,
            attempt,
            tries,
            lost,
            wait_us,
            runner_lost: false,
        }));
        self.enter(key, State::Delayed, effects);
    }

    pub(crate) fn attempt_returned(&mut self, reported: Reported, effects: &mut Vec<Effect>) {
        let counts = self.take_report(reported, None, effects);
        let Some(task) = self.tasks.get(reported.task) else {
            return;
        };
        if counts && !task.is_on_a_runner() && task.state == State::Assigned {
            self.unblock(reported.task, effects);
        }
    }

    /// Recalls the attempts of a runner on which some have waited while none ended. Nothing is sent
    /// ahead to the runner until an attempt ends there. Attempts that run already are not given
    /// back, and nobody here knows which these are.
    pub(crate) fn recall(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        let now = self.now.mono_us;
        let Some(runner) = self.runners.get_mut(&key) else {
            return;
        };
        if !runner.is_overfull() || !runner.is_connected() {
            runner.recall_timer_set = false;
            return;
        }
        let at = runner.last_progress_us + limits::RECALL_AFTER_MS * 1_000;
        if at > now {
            return self.deadlines.insert(at, Timer::Recall(key));
        }

        runner.recall_timer_set = false;
        runner.prefetch_paused = true;
        runner.unanswered_since_us.get_or_insert(now);
        let attempts = runner.in_flight.keys().copied().collect();
        effects.push(Effect::Recall {
            runner: key,
            attempts,
        });
        self.update_availability(key);
    }
}
