//! Attempts: lent to a runner, and reported by it. The first success committed while the task is
//! open wins.

use crate::deadlines::Timer;
use crate::effect::{Change, Effect, Why};
use crate::event::{Due, NewTask, RunnerKey, TaskKey};
use crate::few::Few;
use crate::retry;
use crate::runners::Lent;
use crate::scheduler::Scheduler;
use crate::state::{Final, State, Tried};
use crate::tasks;
use taskmaster_protocol::{AttemptId, ErrorKind, Retries, TaskError, limits};

/// The longest run time that is believed: enough to tell long from short, too little to overflow a
/// sum.
const RUN_US_MAX: u64 = 3_600_000_000;

/// Attempts of one task: more than any retries allow, and far enough from the end of the numbers. A
/// runner that tells of a greater one makes it up.
const ATTEMPTS_MAX: u32 = 1_000_000_000;

impl Scheduler {
    /// Charges a runner and the job for an attempt.
    pub(crate) fn lend(&mut self, runner_key: RunnerKey, task: TaskKey, attempt: AttemptId) {
        let now = self.now.mono_us;
        let (class, job) = (self.tasks.expect(task).class, self.tasks.expect(task).job);
        let class = self.ready.class(class);
        let slots = class.requires.slots();
        // A mean is at most RUN_US_MAX, so that these add without overflow.
        let expected_us = class.mean_us.unwrap_or(limits::PREFETCH_US) * u64::from(slots);
        let runner = self.runner(runner_key);
        runner.sent += 1;
        let last = runner.lent.insert(
            (task, attempt),
            Lent {
                slots,
                expected_us,
                order: runner.sent,
            },
        );
        assert!(
            last.is_none(),
            "attempt {attempt} of {task:?} is lent twice"
        );
        runner.used += slots;
        runner.backlog_us += expected_us;
        if runner.used > runner.offer.slots && !runner.watched {
            runner.watched = true;
            runner.progress_us = now;
            self.deadlines.insert(
                now + limits::RECALL_AFTER_MS * 1_000,
                Timer::Recall(runner_key),
            );
        }
        self.charge(job, |share| share.in_use += slots);
        self.update_room(runner_key);
    }

    /// Takes the charge back: the attempt has ended here, after `run_us` where it ran. Who holds it
    /// counts, not who tells of it: that may be the same runner over its last connection.
    pub(crate) fn give_back(
        &mut self,
        by: RunnerKey,
        task: TaskKey,
        attempt: AttemptId,
        run_us: Option<u64>,
    ) {
        let now = self.now.mono_us;
        let held = self
            .tasks
            .get(task)
            .and_then(|task| task.held().iter().find(|held| held.attempt == attempt));
        let key = held.and_then(|held| held.runner).unwrap_or(by);
        let Some(runner) = self.runners.get_mut(&key) else {
            return;
        };
        let Some(lent) = runner.lent.remove(&(task, attempt)) else {
            return;
        };
        runner.used -= lent.slots;
        runner.backlog_us -= lent.expected_us;
        if run_us.is_some() {
            runner.finished += 1;
            runner.progress_us = now;
            runner.stuck = false;
        }
        self.update_room(key);
        let (class, job) = (self.tasks.expect(task).class, self.tasks.expect(task).job);
        let run_us = run_us.unwrap_or(0).min(RUN_US_MAX);
        // An attempt that never ran (stopped while it waited, no module) tells nothing of how long
        // others will.
        if run_us > 0 {
            let mean = &mut self.ready.class_mut(class).mean_us;
            *mean = Some(
                mean.map_or(run_us, |mean| mean - mean / 8 + run_us / 8)
                    .max(1),
            );
        }
        self.charge(job, |share| {
            share.in_use -= lent.slots;
            share.slot_time_us = share
                .slot_time_us
                .saturating_add(run_us * u64::from(lent.slots));
        });
    }

    /// The task's own record of an attempt: gone, or (`lost`) kept in case its runner comes back.
    pub(crate) fn let_go(
        &mut self,
        key: TaskKey,
        attempt: AttemptId,
        lost: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        if lost && !matches!(task.state, State::Ended(_)) {
            let held = task
                .tried
                .iter_mut()
                .flat_map(|tried| tried.held.iter_mut());
            held.filter(|held| held.attempt == attempt)
                .for_each(|held| held.runner = None);
        } else {
            task.retain_held(|held| held.attempt != attempt);
            self.forget_if_over(key, effects);
        }
    }

    /// Whether an earlier master may have sent it. To whom is not known: of a runner that came just
    /// before that master died, or that it had given up, the journal knows nothing, and what it did
    /// is worth no less.
    pub(crate) fn of_earlier_epoch(&self, attempt: AttemptId) -> bool {
        attempt.epoch < self.epoch && attempt.n <= ATTEMPTS_MAX
    }

    /// Whether this runner may speak of the attempt: it was sent to it, over whichever connection,
    /// or may have been by an earlier master. What a connection says that is no longer the runner's
    /// own is said again over the next one.
    fn may_report(&self, by: RunnerKey, key: TaskKey, attempt: AttemptId) -> bool {
        let Some(runner) = self.runners.get(&by) else {
            return false;
        };
        match self
            .tasks
            .get(key)
            .and_then(|task| task.held().iter().find(|held| held.attempt == attempt))
        {
            Some(held) => held.name == runner.name,
            None => self.of_earlier_epoch(attempt),
        }
    }

    /// Whether a report of this attempt counts: it was not voided, and the task is open.
    fn counts(&self, key: TaskKey, attempt: AttemptId) -> bool {
        self.tasks.get(key).is_some_and(|task| {
            let sent_before = attempt > task.fence() && self.of_earlier_epoch(attempt);
            let open = matches!(
                task.state,
                State::Delayed | State::Ready { .. } | State::Assigned
            );
            open && (sent_before || task.held().iter().any(|held| held.attempt == attempt))
        })
    }

    pub(crate) fn attempt_done(
        &mut self,
        runner: RunnerKey,
        key: TaskKey,
        attempt: AttemptId,
        run_us: u64,
        effects: &mut Vec<Effect>,
    ) {
        self.recall_answered(runner);
        if !self.may_report(runner, key, attempt) {
            return;
        }
        let counts = self.counts(key, attempt);
        self.give_back(runner, key, attempt, Some(run_us.max(1)));
        self.let_go(key, attempt, false, effects);
        if counts {
            self.end_by(key, Final::Done, Why::Report, attempt, effects);
        }
    }

    /// Whether a report of this attempt by this runner would count now.
    pub fn report_counts(&self, runner: RunnerKey, key: TaskKey, attempt: AttemptId) -> bool {
        self.may_report(runner, key, attempt) && self.counts(key, attempt)
    }

    /// The task goes on as `next`: it keeps its key, its place, its job and who waits for it.
    pub(crate) fn attempt_continued(
        &mut self,
        runner: RunnerKey,
        attempt: AttemptId,
        run_us: u64,
        next: NewTask,
        effects: &mut Vec<Effect>,
    ) {
        let key = next.key;
        self.recall_answered(runner);
        if !self.may_report(runner, key, attempt) {
            return;
        }
        let counts = self.counts(key, attempt);
        self.give_back(runner, key, attempt, Some(run_us.max(1)));
        self.let_go(key, attempt, false, effects);
        // A newer attempt may be at work elsewhere, because this one's runner was lost for a while.
        // It will say the same.
        if !counts || self.tasks.expect(key).is_held() {
            return;
        }
        let class = self.class_of(next.module, next.requires);
        if self.tasks.expect(key).state != State::Assigned {
            self.enter(key, State::Assigned, effects);
        }
        // Blocked tasks are in no index: what the indices go by can be changed.
        self.enter(key, State::Blocked { open: 0 }, effects);
        let epoch = self.epoch;
        let task = self.tasks.expect(key);
        let last = std::mem::replace(&mut task.class, class);
        task.priority = next.priority;
        let (due, retries, last_n) = (next.due, next.retries, task.last_n());
        let fence = attempt.max(AttemptId { epoch, n: last_n });
        // Attempts of lost runners are void: they are not greater than the fence.
        *task.tried_mut() = Tried {
            due,
            retries,
            tries: 0,
            lost: 0,
            last_n,
            fence,
            held: Few::None,
        };
        self.ready.class_mut(last).tasks -= 1;
        self.ready.class_mut(class).tasks += 1;
        effects.push(Effect::Store(Change::Continued(key, fence)));
        self.depend(key, &next.dependencies, effects);
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(crate) fn attempt_failed(
        &mut self,
        runner: RunnerKey,
        key: TaskKey,
        attempt: AttemptId,
        error: &TaskError,
        run_us: u64,
        chance: u32,
        effects: &mut Vec<Effect>,
    ) {
        let now = self.now;
        self.recall_answered(runner);
        if !self.may_report(runner, key, attempt) {
            return;
        }
        let counts = self.counts(key, attempt);
        self.give_back(runner, key, attempt, Some(run_us));
        self.let_go(key, attempt, false, effects);
        if !counts {
            return;
        }
        let task = self.tasks.expect(key);
        if task.is_held() {
            return;
        }
        // A runner that stops an attempt unasked (it is shutting down) says `cancelled`: nobody's
        // failure. And where a newer attempt has failed, this one was counted when its runner was
        // lost; it could only have made good.
        if error.kind == ErrorKind::Cancelled || attempt <= task.fence() {
            if task.state == State::Assigned {
                self.unblocked(key, effects);
            }
            return;
        }
        let tried = task.tried_mut();
        tried.tries += 1;
        let (tries, lost) = (tried.tries, tried.lost);
        let usual = Retries::default();
        let policy = task.retries().unwrap_or(&usual);
        let Some(wait_us) = retry::wait_us(policy, error, tries, chance) else {
            return self.end_by(key, Final::Failed, Why::Report, attempt, effects);
        };
        let tried = task.tried_mut();
        tried.fence = tried.fence.max(attempt);
        // A delay that was set while it ran holds, too. The wait is kept: a late attempt may come
        // and go meanwhile.
        let wait_us = task
            .due()
            .map_or(wait_us, |due| wait_us.max(tasks::wait_us(due, now)));
        self.set_due(key, Due::Mono(now.mono_us + wait_us));
        effects.push(Effect::Store(Change::Retrying {
            task: key,
            attempt,
            tries,
            lost,
            wait_us,
            runner_lost: false,
        }));
        self.enter(key, State::Delayed, effects);
    }

    pub(crate) fn attempt_returned(
        &mut self,
        runner: RunnerKey,
        key: TaskKey,
        attempt: AttemptId,
        effects: &mut Vec<Effect>,
    ) {
        self.recall_answered(runner);
        if !self.may_report(runner, key, attempt) {
            return;
        }
        let counts = self.counts(key, attempt);
        self.give_back(runner, key, attempt, None);
        self.let_go(key, attempt, false, effects);
        let Some(task) = self.tasks.get(key) else {
            return;
        };
        let alone = !task.is_held();
        if counts && alone && task.state == State::Assigned {
            self.unblocked(key, effects);
        }
    }

    /// Attempts have waited on a runner while nothing ended there: they are asked back, and nothing
    /// is sent ahead until something ends. Those that run already are not given back; nobody here
    /// knows which they are.
    pub(crate) fn recall(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        let now = self.now.mono_us;
        let Some(runner) = self.runners.get_mut(&key) else {
            return;
        };
        if runner.used <= runner.offer.slots || runner.absent_until.is_some() {
            runner.watched = false;
            return;
        }
        let at = runner.progress_us + limits::RECALL_AFTER_MS * 1_000;
        if at > now {
            return self.deadlines.insert(at, Timer::Recall(key));
        }
        runner.watched = false;
        runner.stuck = true;
        if runner.answers {
            runner.asked_us.get_or_insert(now);
        }
        let attempts = runner.lent.keys().copied().collect();
        effects.push(Effect::Recall {
            runner: key,
            attempts,
        });
        self.update_room(key);
    }
}
