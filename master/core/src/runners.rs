//! Runners: what they offer, what they hold, and the master's belief that they live.

use crate::deadlines::Timer;
use crate::effect::{Change, Effect, Why};
use crate::event::{RunnerKey, TaskKey};
use crate::ready::GroupKey;
use crate::scheduler::Scheduler;
use crate::state::{Final, Held, State};
use crate::tasks;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{AttemptId, EventKind, limits};

/// An attempt as its runner is charged for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lent {
    /// Slots that it takes.
    pub slots: u32,
    /// Run time that was expected when it was sent, microseconds.
    pub expected_us: u64,
    /// Its place in the order of sending: runners start in that order.
    pub order: u64,
}

/// A runner's connection. Absent while its link is cut and its grace lasts: it keeps what it holds,
/// and is sent nothing.
#[derive(Debug)]
pub(crate) struct Runner {
    pub offer: Offer,
    /// The offer's name, shared.
    pub name: Arc<str>,
    /// How many attempts it will hold.
    pub credits: u32,
    /// It takes no more.
    pub draining: bool,
    /// The link is cut; it is lost at this time.
    pub absent_until: Option<u64>,
    /// Attempts sent and not reported.
    pub lent: BTreeMap<(TaskKey, AttemptId), Lent>,
    /// Slots of those; more than it has while some wait there.
    pub used: u32,
    /// Expected run time of those, microseconds.
    pub backlog_us: u64,
    /// Its slots are kept for this task.
    pub reserved: Option<TaskKey>,
    pub group: Option<GroupKey>,
    /// Its entry in the group's rooms.
    pub room: Option<(Reverse<u32>, u64, RunnerKey)>,
    /// Attempts sent so far.
    pub sent: u64,
    /// Attempts that have ended here.
    pub finished: u64,
    /// When something last came from it.
    pub heard_us: u64,
    /// When an attempt last ended here, or the first began to wait.
    pub progress_us: u64,
    /// A recall timer is set.
    pub watched: bool,
    /// What was sent ahead came back unstarted: nothing is sent ahead until an attempt ends.
    pub stuck: bool,
    /// It answers every recall, also one that asks for nothing back: who does not is no longer at
    /// work.
    pub answers: bool,
    /// When it was asked something that it has not answered since.
    pub asked_us: Option<u64>,
}

/// How long a runner may be silent, or leave a question without an answer.
const SILENT_US: u64 = limits::SILENT_MS_MAX * 1_000;

impl Runner {
    pub fn free(&self) -> u32 {
        self.offer.slots.saturating_sub(self.used)
    }

    /// Whether it holds as many attempts as it will.
    pub fn full(&self) -> bool {
        self.lent.len() >= self.credits as usize
    }

    fn connected(&self) -> bool {
        self.absent_until.is_none()
    }

    /// Whether and how well it could take one more attempt.
    pub fn room(&self, key: RunnerKey) -> Option<(Reverse<u32>, u64, RunnerKey)> {
        let takes = self.connected() && !self.draining && self.reserved.is_none();
        if !takes || self.full() {
            return None;
        }
        let free = self.free();
        let ahead = !self.stuck
            && self.backlog_us / u64::from(self.offer.slots.max(1)) < limits::PREFETCH_US;
        (free > 0 || ahead).then_some((Reverse(free), self.backlog_us, key))
    }
}

/// A runner at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerFacts {
    /// Slots taken by what was sent to it.
    pub used: u32,
    /// Attempts sent to it and not ended.
    pub attempts: usize,
    /// Attempts that it has ended.
    pub finished: u64,
    /// It takes no more.
    pub draining: bool,
    /// Its link is cut and its grace lasts.
    pub absent: bool,
}

impl Scheduler {
    /// What the core knows of a runner.
    pub fn runner_facts(&self, key: RunnerKey) -> Option<RunnerFacts> {
        self.runners.get(&key).map(|runner| RunnerFacts {
            used: runner.used,
            attempts: runner.lent.len(),
            finished: runner.finished,
            draining: runner.draining,
            absent: !runner.connected(),
        })
    }

    /// How many attempts runners hold, also those whose link is cut and whose grace lasts.
    pub fn attempts_out(&self) -> usize {
        self.runners.values().map(|runner| runner.lent.len()).sum()
    }

    /// Sends nothing more, and asks for what has not begun.
    pub(crate) fn stop(&mut self, effects: &mut Vec<Effect>) {
        self.stopping = true;
        for (key, runner) in self
            .runners
            .iter()
            .filter(|(_, runner)| runner.connected() && !runner.lent.is_empty())
        {
            effects.push(Effect::Recall {
                runner: *key,
                attempts: runner.lent.keys().copied().collect(),
            });
        }
    }

    pub(crate) fn runner(&mut self, key: RunnerKey) -> &mut Runner {
        let runner = self.runners.get_mut(&key);
        assert!(
            runner.is_some(),
            "the core's own index names runner {key:?}, which it does not hold"
        );
        runner.unwrap_or_else(|| unreachable!())
    }

    pub(crate) fn started(&mut self, roster: Vec<String>) {
        self.roster = roster.into_iter().collect();
        if !self.roster.is_empty() {
            let until = self.now.mono_us + limits::ROSTER_WAIT_MS * 1_000;
            self.settle_until = Some(until);
            self.deadlines.insert(until, Timer::Settle);
        }
    }

    /// The runners of an earlier epoch have told what they hold, or had their time.
    pub(crate) fn settled(&mut self, effects: &mut Vec<Effect>) {
        if let Some(until) = self.settle_until.take() {
            self.deadlines.remove(until, Timer::Settle);
        }
        let here = |name: &String| {
            self.runners
                .values()
                .any(|runner| runner.offer.name == *name)
        };
        let (roster, gone): (Vec<String>, Vec<String>) =
            std::mem::take(&mut self.roster).into_iter().partition(here);
        self.roster = roster.into_iter().collect();
        effects.extend(
            gone.into_iter()
                .map(|name| Effect::Store(Change::RunnerLost(name))),
        );
    }

    pub(crate) fn runner_joined(
        &mut self,
        key: RunnerKey,
        offer: Offer,
        credits: u32,
        answers: bool,
        held: Vec<(TaskKey, AttemptId)>,
        effects: &mut Vec<Effect>,
    ) {
        assert!(
            !self.runners.contains_key(&key),
            "the shell uses runner {key:?} twice"
        );
        // Connections are numbered as they are made: what comes late over one that its runner has
        // replaced is not it.
        if self
            .runners
            .iter()
            .any(|(newer, runner)| *newer > key && runner.offer.name == offer.name)
        {
            return effects.push(Effect::HangUp { runner: key });
        }
        let last = self
            .runners
            .iter()
            .find(|(_, runner)| runner.offer.name == offer.name)
            .map(|(key, _)| *key);
        let (orphans, finished) = last.map_or((Vec::new(), 0), |last| self.dissolve(last, effects));
        if self.roster.insert(offer.name.clone()) {
            effects.push(Effect::Store(Change::RunnerJoined(offer.name.clone())));
        }
        let now = self.now.mono_us;
        let runner = Runner {
            name: offer.name.as_str().into(),
            offer: Offer {
                slots: offer.slots.clamp(1, limits::SLOTS_MAX),
                ..offer
            },
            credits: credits.min(limits::CREDITS_MAX),
            draining: false,
            absent_until: None,
            lent: BTreeMap::new(),
            used: 0,
            backlog_us: 0,
            reserved: None,
            group: None,
            room: None,
            sent: 0,
            finished,
            heard_us: now,
            progress_us: now,
            watched: false,
            stuck: false,
            answers,
            asked_us: None,
        };
        self.runners.insert(key, runner);
        self.deadlines.insert(now + SILENT_US, Timer::Lease(key));
        self.join_group(key);
        held.into_iter()
            .for_each(|(task, attempt)| self.adopt(key, task, attempt, effects));
        orphans
            .into_iter()
            .for_each(|(task, attempt)| self.orphaned(task, attempt, effects));
        if self.settle_until.is_some()
            && self
                .roster
                .iter()
                .all(|n| self.runners.values().any(|r| r.offer.name == *n))
        {
            self.settled(effects);
        }
    }

    /// Takes a runner's record apart: its connection was replaced. What it held is held by nobody
    /// for now.
    fn dissolve(
        &mut self,
        key: RunnerKey,
        effects: &mut Vec<Effect>,
    ) -> (Vec<(TaskKey, AttemptId)>, u64) {
        if self.runner(key).connected() {
            effects.push(Effect::HangUp { runner: key });
        }
        let lent: Vec<(TaskKey, AttemptId)> = self.runner(key).lent.keys().copied().collect();
        for (task, attempt) in &lent {
            self.give_back(key, *task, *attempt, None);
            self.let_go(*task, *attempt, true, effects);
        }
        let finished = self.runner(key).finished;
        self.remove_runner(key, effects);
        (lent, finished)
    }

    fn remove_runner(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        if let Some(task) = self.runner(key).reserved {
            self.enter(task, State::Ready { reserved: false }, effects);
        }
        self.leave_group(key);
        if let Some(until) = self.runner(key).absent_until {
            self.deadlines.remove(until, Timer::Grace(key));
        }
        self.runners.remove(&key);
    }

    /// A runner says that it holds an attempt: it goes on with it, or is told that it is void.
    fn adopt(
        &mut self,
        key: RunnerKey,
        task_key: TaskKey,
        attempt: AttemptId,
        effects: &mut Vec<Effect>,
    ) {
        let name = self.runner(key).name.clone();
        let stop = Effect::Stop {
            runner: key,
            task: task_key,
            attempt,
        };
        let earlier = self.of_earlier_epoch(attempt);
        let Some(task) = self.tasks.get_mut(task_key) else {
            return effects.push(stop);
        };
        let fits = matches!(
            task.state,
            State::Delayed | State::Ready { .. } | State::Assigned
        );
        let tried = task.tried_mut();
        match tried.held.iter_mut().find(|held| held.attempt == attempt) {
            Some(held) if fits && held.runner.is_none() && held.name == name => {
                held.runner = Some(key)
            }
            Some(held) if held.runner == Some(key) => return, // told twice
            None if fits && attempt > tried.fence && earlier => {
                tried.held.push(Held {
                    attempt,
                    runner: Some(key),
                    name,
                });
            }
            _ => return effects.push(stop),
        }
        tried.last_n = tried.last_n.max(attempt.n);
        let assigned = task.state == State::Assigned;
        self.lend(key, task_key, attempt);
        if !assigned {
            self.enter(task_key, State::Assigned, effects);
        }
    }

    /// An attempt that its runner does not know of any more (it was lost on the way): the task is
    /// tried again, and nobody is blamed.
    fn orphaned(&mut self, key: TaskKey, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        task.retain_held(|held| held.runner.is_some() || held.attempt != attempt);
        if task.state == State::Assigned && !task.is_held() {
            self.unblocked(key, effects);
        }
    }

    pub(crate) fn runner_asked(
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
        if draining && !runner.draining {
            runner.draining = true;
            effects.push(Effect::Show {
                kind: EventKind::RunnerDraining,
                task: None,
                runner: Some(key),
            });
            if let Some(task) = runner.reserved {
                self.enter(task, State::Ready { reserved: false }, effects);
            }
        }
        self.runner_heard(key);
        self.update_room(key);
    }

    pub(crate) fn runner_heard(&mut self, key: RunnerKey) {
        let now = self.now.mono_us;
        if let Some(runner) = self.runners.get_mut(&key) {
            runner.heard_us = now;
        }
    }

    pub(crate) fn lease_passed(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        let now = self.now.mono_us;
        let Some(runner) = self.runners.get(&key).filter(|runner| runner.connected()) else {
            return;
        };
        let silent_at = runner.heard_us + SILENT_US;
        if silent_at <= now {
            effects.push(Effect::HangUp { runner: key });
            return self.runner_cut(key, effects);
        }
        let runner = self.runner(key);
        if runner
            .asked_us
            .is_some_and(|asked| asked + SILENT_US <= now)
        {
            return self.runner_stuck(key, effects);
        }
        // Nothing has ended there for long: it may work on something long, or have stopped
        // listening.
        if runner.answers
            && runner.asked_us.is_none()
            && !runner.lent.is_empty()
            && runner.progress_us + SILENT_US <= now
        {
            runner.asked_us = Some(now);
            effects.push(Effect::Recall {
                runner: key,
                attempts: Vec::new(),
            });
        }
        let answer_by = runner.asked_us.map_or(u64::MAX, |asked| asked + SILENT_US);
        self.deadlines
            .insert(silent_at.min(answer_by), Timer::Lease(key));
    }

    /// It lives, and does not listen: what it holds runs elsewhere at once.
    fn runner_stuck(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        effects.push(Effect::Show {
            kind: EventKind::RunnerStuck,
            task: None,
            runner: Some(key),
        });
        effects.push(Effect::HangUp { runner: key });
        self.runner_cut(key, effects);
        // What it holds is not to blame.
        self.part_with(key, false, effects);
    }

    /// It listens: it answered a recall.
    pub(crate) fn recall_answered(&mut self, key: RunnerKey) {
        self.runner_heard(key);
        if let Some(runner) = self.runners.get_mut(&key) {
            runner.asked_us = None;
        }
    }

    pub(crate) fn runner_cut(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        let until = self.now.mono_us + limits::RUNNER_GRACE_MS * 1_000;
        let Some(runner) = self
            .runners
            .get_mut(&key)
            .filter(|runner| runner.connected())
        else {
            return;
        };
        runner.absent_until = Some(until);
        let (idle, reserved) = (runner.lent.is_empty(), runner.reserved);
        self.deadlines.insert(until, Timer::Grace(key));
        if let Some(task) = reserved {
            self.enter(task, State::Ready { reserved: false }, effects);
        }
        self.update_room(key);
        if idle {
            self.runner_lost(key, effects);
        }
    }

    /// The grace is over: what the runner held runs elsewhere. The attempts stay valid: should it
    /// come back with a result while the task is open, that counts.
    pub(crate) fn runner_lost(&mut self, key: RunnerKey, effects: &mut Vec<Effect>) {
        self.part_with(key, true, effects);
    }

    /// `blame`: what was at work may be why.
    fn part_with(&mut self, key: RunnerKey, blame: bool, effects: &mut Vec<Effect>) {
        let Some(runner) = self.runners.get(&key) else {
            return;
        };
        let name = runner.offer.name.clone();
        let mut lent: Vec<(u64, u32, TaskKey, AttemptId)> = runner
            .lent
            .iter()
            .map(|((task, attempt), lent)| (lent.order, lent.slots, *task, *attempt))
            .collect();
        lent.sort_unstable();
        let mut slots = runner.offer.slots;
        for (_, takes, task, attempt) in lent {
            // Runners start in the order of sending, so only the first ones can have been at work.
            let at_work = blame && slots > 0;
            slots = slots.saturating_sub(takes);
            self.give_back(key, task, attempt, None);
            self.let_go(task, attempt, true, effects);
            self.bereaved(task, attempt, at_work, effects);
        }
        self.remove_runner(key, effects);
        self.roster.remove(&name);
        effects.push(Effect::Store(Change::RunnerLost(name)));
    }

    /// A task's runner was lost. If nobody else holds it, it is ready again; if that happens too
    /// often, it is poison.
    fn bereaved(
        &mut self,
        key: TaskKey,
        attempt: AttemptId,
        at_work: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        if task.state != State::Assigned || task.is_held() {
            return;
        }
        if !at_work {
            return self.unblocked(key, effects);
        }
        let tried = task.tried_mut();
        tried.lost += 1;
        let (tries, lost) = (tried.tries, tried.lost);
        if lost >= limits::RUNNER_LOST_MAX {
            return self.end_by(key, Final::Failed, Why::Poison, attempt, effects);
        }
        // A delay that was set while it ran holds.
        let wait_us = task.due().map_or(0, |due| tasks::wait_us(due, self.now));
        let change = Change::Retrying {
            task: key,
            attempt,
            tries,
            lost,
            wait_us,
            runner_lost: true,
        };
        effects.push(Effect::Store(change));
        self.unblocked(key, effects);
    }

    /// Brings the runner's place among those with room up to date.
    pub(crate) fn update_room(&mut self, key: RunnerKey) {
        let runner = self.runner(key);
        let (group, last, next) = (runner.group, runner.room, runner.room(key));
        if last == next {
            return;
        }
        runner.room = group.and(next);
        let Some(group) = group else { return };
        let rooms = &mut self.ready_group(group).rooms;
        if let Some(last) = last {
            rooms.remove(&last);
        }
        if let Some(next) = next {
            rooms.insert(next);
        }
    }
}
