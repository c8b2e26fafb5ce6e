//! Whether runners live: leases, lost connections, and what becomes of the attempts of a runner
//! that is given up.

use crate::attempts::Reported;
use crate::deadlines::Timer;
use crate::effect::{DurableChange, Effect, EndReason};
use crate::keys::{RunnerKey, TaskKey};
use crate::scheduler::Scheduler;
use crate::state::{FinalState, State};
use taskmaster_protocol::{AttemptId, EventKind, limits};

/// How long a runner may be silent, or leave a recall without an answer, in microseconds.
pub(crate) const SILENT_US_MAX: u64 = limits::SILENT_MS_MAX * 1_000;

/// Why a runner is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// The runner was lost, maybe because of what it worked on.
    Lost,
    /// The runner lives and does not answer. Its tasks are not to blame.
    Stuck,
}

impl Scheduler {
    /// A runner changed what it takes.
    pub(crate) fn runner_updated(
        &mut self,
        key: RunnerKey,
        credits: u32,
        draining: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(runner) = self.runners.get_mut(&key) else {
            return;
        };
        runner.credits = credits.min(limits::CREDITS_MAX);
        let becomes_draining = draining && !runner.draining;
        runner.draining |= draining;
        let reserved_for = runner.reserved_for;
        if becomes_draining {
            effects.push(Effect::Announce {
                kind: EventKind::RunnerDraining,
                task: None,
                runner: Some(key),
            });
        }
        // A runner that takes nothing more keeps its slots for nobody.
        if let Some(task) = reserved_for.filter(|_| draining || credits == 0) {
            self.enter(task, State::Ready { reserved: false }, effects);
        }
        self.runner_heard(key);
        self.update_availability(key);
    }

    pub(crate) fn runner_heard(&mut self, key: RunnerKey) {
        let now = self.now.mono_us;
        if let Some(runner) = self.runners.get_mut(&key) {
            runner.last_heard_us = now;
        }
    }

    /// A runner answered a recall, which shows that it listens.
    pub(crate) fn recall_answered(&mut self, key: RunnerKey) {
        self.runner_heard(key);
        if let Some(runner) = self.runners.get_mut(&key) {
            runner.unanswered_since_us = None;
        }
    }

    /// The timer of a runner's lease fired: the runner is given up if it was silent or left a recall
    /// without an answer for [`SILENT_US_MAX`]. Otherwise the timer is set again.
    pub(crate) fn check_lease(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        let now = self.now.mono_us;
        let Some(runner) = self.runners.get_mut(&key).filter(|r| r.is_connected()) else {
            return;
        };
        let silent_at = runner.last_heard_us + SILENT_US_MAX;
        if silent_at <= now {
            effects.push(Effect::Disconnect { runner: key });
            return self.runner_disconnected(key, effects);
        }
        let is_stuck = runner
            .unanswered_since_us
            .is_some_and(|since| since + SILENT_US_MAX <= now);
        if is_stuck {
            return self.runner_stuck(key, effects);
        }

        // No attempt has ended there for long. The runner may work on something long, or have
        // stopped listening: an empty recall tells which.
        let makes_no_progress =
            !runner.in_flight.is_empty() && runner.last_progress_us + SILENT_US_MAX <= now;
        if runner.unanswered_since_us.is_none() && makes_no_progress {
            runner.unanswered_since_us = Some(now);
            effects.push(Effect::Recall {
                runner: key,
                attempts: Vec::new(),
            });
        }
        let stuck_at = runner
            .unanswered_since_us
            .map_or(u64::MAX, |since| since + SILENT_US_MAX);
        self.deadlines
            .insert(silent_at.min(stuck_at), Timer::RunnerLease(key));
    }

    /// A runner lives and does not listen: what it holds runs elsewhere at once.
    fn runner_stuck(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        effects.push(Effect::Announce {
            kind: EventKind::RunnerStuck,
            task: None,
            runner: Some(key),
        });
        effects.push(Effect::Disconnect { runner: key });
        self.runner_disconnected(key, effects);
        self.give_up(key, GivenUp::Stuck, effects);
    }

    /// A runner's connection was lost. A runner that holds nothing is lost at once, any other one
    /// has a grace period.
    pub(crate) fn runner_disconnected(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        let until = self.now.mono_us + limits::RUNNER_GRACE_MS * 1_000;
        let Some(runner) = self.runners.get_mut(&key).filter(|r| r.is_connected()) else {
            return;
        };
        runner.absent_until = Some(until);
        let is_idle = runner.in_flight.is_empty();
        let reserved_for = runner.reserved_for;
        self.deadlines.insert(until, Timer::RunnerGrace(key));
        if let Some(task) = reserved_for {
            self.enter(task, State::Ready { reserved: false }, effects);
        }
        self.update_availability(key);
        if is_idle {
            self.give_up(key, GivenUp::Lost, effects);
        }
    }

    /// The grace period of a runner is over: what it held runs elsewhere. The attempts stay valid,
    /// and a result of one counts if the runner comes back with it while the task is open.
    pub(crate) fn runner_grace_over(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        self.give_up(key, GivenUp::Lost, effects);
    }

    pub(crate) fn give_up(&mut self, key: RunnerKey, why: GivenUp, effects: &mut Vec<Effect>) {
        let Some(runner) = self.runners.get(&key) else {
            return;
        };
        let name = runner.offer.name.clone();
        let mut slots_left = runner.offer.slots;
        let mut attempts: Vec<(u64, u32, TaskKey, AttemptId)> = runner
            .in_flight
            .iter()
            .map(|((task, attempt), charge)| (charge.order, charge.slots, *task, *attempt))
            .collect();
        attempts.sort_unstable();

        for (_, slots, task, attempt) in attempts {
            // A runner starts its attempts in the order of sending, so only those that came first
            // can have been at work.
            let may_be_to_blame = why == GivenUp::Lost && slots_left > 0;
            slots_left = slots_left.saturating_sub(slots);
            let reported = Reported::new(key, task, attempt);
            self.remove_in_flight(reported, None);
            self.detach_attempt(task, attempt, effects);
            self.reassign(task, attempt, may_be_to_blame, effects);
        }
        self.remove_runner(key, effects);
        self.roster.remove(&name);
        effects.push(Effect::Store(DurableChange::RunnerLost(name)));
    }

    /// Lets a task run elsewhere whose runner was given up or whose runner's machine failed, unless
    /// another runner holds it. A task that was at work on too many lost runners is poison, and
    /// fails.
    pub(crate) fn reassign(
        &mut self,
        key: TaskKey,
        attempt: AttemptId,
        may_be_to_blame: bool,
        effects: &mut Vec<Effect>,
    ) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        if task.state != State::Assigned || task.is_on_a_runner() {
            return;
        }
        if !may_be_to_blame {
            return self.unblock(key, effects);
        }

        // A start that was set while the attempt ran holds.
        let wait_us = task.due().map_or(0, |due| due.wait_us(now));
        let detail = task.detail_mut();
        detail.lost += 1;
        let tries = detail.tries;
        let lost = detail.lost;
        if lost >= limits::RUNNER_LOST_MAX {
            let how = FinalState::Failed;
            return self.end_by(key, how, EndReason::Poison, attempt, effects);
        }
        effects.push(Effect::Store(DurableChange::Retrying {
            task: key,
            attempt,
            tries,
            lost,
            wait_us,
            runner_lost: true,
        }));
        self.unblock(key, effects);
    }

    /// Removes a runner that holds nothing.
    pub(crate) fn remove_runner(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        if let Some(task) = self.runner(key).reserved_for {
            self.enter(task, State::Ready { reserved: false }, effects);
        }
        self.leave_group(key);
        if let Some(until) = self.runner(key).absent_until {
            self.deadlines.remove(until, Timer::RunnerGrace(key));
        }
        self.runners.remove(&key);
    }
}
