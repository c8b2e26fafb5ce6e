//! Runners that join: with what they hold, over a new connection, and after a start of the master.

use crate::attempts::Reported;
use crate::deadlines::Timer;
use crate::effect::{DurableChange, Effect};
use crate::keys::{RunnerKey, TaskKey};
use crate::liveness::{GivenUp, SILENT_US_MAX};
use crate::runners::Runner;
use crate::scheduler::Scheduler;
use crate::state::State;
use crate::task::OpenAttempt;
use std::sync::Arc;
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{AttemptId, limits};

/// What a runner says when it joins.
#[derive(Debug)]
pub(crate) struct Joining {
    /// Names the runner's process.
    pub process: Arc<str>,
    pub offer: Offer,
    /// How many attempts the runner will hold at most.
    pub credits: u32,
    /// Attempts that the runner holds, of tasks that the core holds.
    pub held: Vec<(TaskKey, AttemptId)>,
}

/// What is left of a connection that its runner has replaced.
#[derive(Default)]
struct Replaced {
    /// Attempts that nobody holds, until the runner says that it does.
    attempts: Vec<(TaskKey, AttemptId)>,
    /// Attempts that the runner had ended.
    finished: u64,
}

impl Scheduler {
    /// The master has started. If runners were there before, nothing is sent until all of them are
    /// back, or have had their time.
    pub(crate) fn started(&mut self, roster: Vec<String>) {
        self.roster = roster.into_iter().collect();
        if !self.roster.is_empty() {
            let until = self.now.mono_us + limits::ROSTER_WAIT_MS * 1_000;
            self.roster_wait_until = Some(until);
            self.deadlines.insert(until, Timer::RosterWait);
        }
    }

    /// Ends the wait for runners of an earlier epoch. Those that are not back are lost.
    pub(crate) fn end_roster_wait(&mut self, effects: &mut Vec<Effect>) {
        if let Some(until) = self.roster_wait_until.take() {
            self.deadlines.remove(until, Timer::RosterWait);
        }
        let roster = std::mem::take(&mut self.roster);
        let (here, gone): (Vec<String>, Vec<String>) = roster
            .into_iter()
            .partition(|name| self.is_runner_here(name));
        self.roster = here.into_iter().collect();
        for name in gone {
            effects.push(Effect::Store(DurableChange::RunnerLost(name)));
        }
    }

    fn is_runner_here(&self, name: &str) -> bool {
        self.runners
            .values()
            .any(|runner| runner.offer.name == name)
    }

    /// Takes a runner in, or its new connection.
    pub(crate) fn runner_joined(
        &mut self,
        key: RunnerKey,
        joining: Joining,
        effects: &mut Vec<Effect>,
    ) {
        assert!(
            !self.runners.contains_key(&key),
            "the engine uses runner {key:?} twice"
        );
        let name: Arc<str> = joining.offer.name.as_str().into();
        let last = self
            .runners
            .iter()
            .rev()
            .find(|(_, runner)| runner.name == name)
            .map(|(last, _)| *last);
        // Connections are numbered as they are made. One that the runner has replaced is not the
        // runner's any more, however late it joins.
        if last.is_some_and(|last| last > key) {
            return effects.push(Effect::Disconnect { runner: key });
        }
        let replaced = match last {
            Some(last) if self.runner(last).process == joining.process => {
                self.replace_connection(last, effects)
            }
            // The process before has died, or is cut off: another one has its name.
            Some(last) => {
                if self.runner(last).is_connected() {
                    effects.push(Effect::Disconnect { runner: last });
                }
                self.give_up(last, GivenUp::Lost, effects);
                Replaced::default()
            }
            None => Replaced::default(),
        };
        if self.roster.insert(joining.offer.name.clone()) {
            let name = joining.offer.name.clone();
            effects.push(Effect::Store(DurableChange::RunnerJoined(name)));
        }

        let now = self.now.mono_us;
        let runner = Runner {
            credits: joining.credits.min(limits::CREDITS_MAX),
            finished: replaced.finished,
            ..Runner::new(name, joining.process, joining.offer, now)
        };
        self.runners.insert(key, runner);
        self.deadlines
            .insert(now + SILENT_US_MAX, Timer::RunnerLease(key));
        self.join_group(key);

        for (task, attempt) in joining.held {
            self.adopt(key, task, attempt, effects);
        }
        for (task, attempt) in replaced.attempts {
            self.retry_if_lost_on_the_way(task, attempt, effects);
        }
        if self.roster_wait_until.is_some()
            && self.roster.iter().all(|name| self.is_runner_here(name))
        {
            self.end_roster_wait(effects);
        }
    }

    /// Removes a connection that its runner has replaced. For now nobody holds its attempts.
    fn replace_connection(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) -> Replaced {
        let runner = self.runner(key);
        let finished = runner.finished;
        let attempts: Vec<(TaskKey, AttemptId)> = runner.in_flight.keys().copied().collect();
        if runner.is_connected() {
            effects.push(Effect::Disconnect { runner: key });
        }
        for (task, attempt) in attempts.iter().copied() {
            let reported = Reported::new(key, task, attempt);
            self.remove_in_flight(reported, None);
            self.detach_attempt(task, attempt, effects);
        }
        self.remove_runner(key, effects);
        Replaced { attempts, finished }
    }

    /// A runner says that it holds an attempt: it goes on with the attempt, or is told that the
    /// attempt is void.
    fn adopt(
        &mut self,
        runner: RunnerKey,
        key: TaskKey,
        attempt: AttemptId,
        effects: &mut Vec<Effect>,
    ) {
        let process = self.runner(runner).process.clone();
        let is_of_earlier_epoch = self.is_of_earlier_epoch(attempt);
        let stop = Effect::Stop {
            runner,
            task: key,
            attempt,
        };
        let Some(task) = self.tasks.get_mut(key) else {
            return effects.push(stop);
        };
        let may_go_on = task.state.may_have_attempts();
        let was_assigned = task.state == State::Assigned;

        let detail = task.detail_mut();
        let known = detail
            .open_attempts
            .iter_mut()
            .find(|open| open.attempt == attempt);
        match known {
            Some(open) => {
                if open.runner == Some(runner) {
                    // The runner named the attempt twice.
                    return;
                }
                if !may_go_on || open.runner.is_some() || open.process != process {
                    return effects.push(stop);
                }
                open.runner = Some(runner);
            }
            None => {
                if !may_go_on || attempt <= detail.fence || !is_of_earlier_epoch {
                    return effects.push(stop);
                }
                detail.open_attempts.push(OpenAttempt {
                    attempt,
                    runner: Some(runner),
                    process,
                });
            }
        }

        detail.last_attempt = detail.last_attempt.max(attempt.n);
        self.add_in_flight(runner, key, attempt);
        if !was_assigned {
            self.enter(key, State::Assigned, effects);
        }
    }

    /// Tries a task again whose attempt was lost on the way: the runner that it was sent to is back
    /// and does not know of it. This is nobody's failure.
    fn retry_if_lost_on_the_way(
        &mut self,
        key: TaskKey,
        attempt: AttemptId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        task.retain_attempts(|open| open.runner.is_some() || open.attempt != attempt);
        if task.state == State::Assigned && !task.is_on_a_runner() {
            self.unblock(key, effects);
        }
    }
}
