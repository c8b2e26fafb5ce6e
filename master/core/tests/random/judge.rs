//! Whether the effects of the core are what a queue may do.

use crate::harness::{Record, Wanted, module_name, phrase};
use crate::{Play, Process};
use std::collections::BTreeSet;
use taskmaster_core::{
    Due, DurableChange, Effect, EndReason, Event, Explanation, FinalState, RunnerKey, WaitsFor,
};
use taskmaster_protocol::{AttemptId, When};

impl Play {
    /// Judges the effects of an event, which `shown` describes.
    pub fn judge(&mut self, shown: &str, effects: &[Effect]) {
        self.note(shown.to_owned());
        for effect in effects {
            self.note(format!("    {}", phrase(&self.world, effect)));
            match effect {
                Effect::Send {
                    runner,
                    task,
                    attempt,
                } => {
                    let name = self.world.names[task].clone();
                    self.judge_send(*runner, &name, *attempt);
                }
                Effect::Stop {
                    runner,
                    task,
                    attempt,
                } => {
                    let name = self.world.names[task].clone();
                    if let Some(process) = self
                        .processes
                        .iter_mut()
                        .find(|process| process.connection == Some(*runner))
                    {
                        process
                            .on_the_way
                            .retain(|held| *held != (name.clone(), *attempt));
                    }
                }
                Effect::Store(DurableChange::Ended {
                    task, state, why, ..
                }) => {
                    let name = self.world.names[task].clone();
                    self.judge_end(&name, *state, *why);
                }
                Effect::Disconnect { runner } => {
                    if let Some(process) = self
                        .processes
                        .iter_mut()
                        .find(|process| process.connection == Some(*runner))
                    {
                        process.connection = None;
                        process.on_the_way.clear();
                    }
                }
                Effect::Store(_)
                | Effect::LookUpAnswer(_)
                | Effect::ForgetSharedRun(_)
                | Effect::Recall { .. }
                | Effect::Announce { .. }
                | Effect::Forget(_) => {}
            }
        }
    }

    /// Whether a task may be sent now, to whichever runner.
    fn judge_may_run(&self, name: &str) {
        let wanted = &self.world.tasks[name].wanted;
        assert!(
            self.roster_wait_is_over,
            "{name} is sent while the roster is waited for"
        );
        for (on, when) in &wanted.after {
            let how = self.world.tasks[on].ended;
            assert!(
                how.is_some_and(|how| how.meets(*when)),
                "{name} is sent, and {on} is {how:?}"
            );
        }
        if let Some(Due::Wall(due)) = wanted.due {
            assert!(due <= self.world.now.wall, "{name} is sent before its time");
        }
        assert!(
            !self.world.closed.contains(&wanted.module),
            "{name} is sent, its module is closed"
        );
        assert!(
            !self.world.jobs[&wanted.job].stored.paused,
            "{name} is sent, its job is paused"
        );
    }

    /// Judges an attempt that is sent, and puts it on its way.
    fn judge_send(&mut self, runner: RunnerKey, name: &str, attempt: AttemptId) {
        self.judge_may_run(name);
        let elsewhere = |process: &Process| {
            process.connection.is_some()
                && process
                    .held
                    .iter()
                    .any(|(held, older)| held == name && *older < attempt)
        };
        // A runner whose connection is lost may hold an older attempt. A connected one must not.
        let twice = self
            .processes
            .iter()
            .filter(|process| elsewhere(process))
            .any(|process| self.knows_two_attempts(process, name));
        assert!(!twice, "{name} is sent while a runner works on it");
        let at = self
            .processes
            .iter()
            .position(|process| process.connection == Some(runner));
        let at = at.unwrap_or_else(|| panic!("{name} is sent over a connection that is cut"));
        self.sent.push((name.to_owned(), at));
        let process = &mut self.processes[at];
        assert!(!process.draining, "{name} is sent to a draining runner");
        process.on_the_way.push((name.to_owned(), attempt));
        let facts = self.world.core.runner_facts(runner).expect("a runner");
        assert!(
            facts.attempts <= process.credits as usize
                || process.credits == 0 && facts.attempts == 0,
            "{name} is sent beyond the credits"
        );
        assert!(
            suits(&self.world.tasks[name].wanted, process),
            "{name} is sent to a runner that does not suit"
        );
    }

    /// Whether the core knows of two attempts of the task on this process.
    fn knows_two_attempts(&self, process: &Process, name: &str) -> bool {
        let explained = self
            .world
            .key(name)
            .and_then(|key| self.world.core.explain(key));
        match explained {
            Some(Explanation::Assigned { held }) => {
                held.iter()
                    .filter(|(_, r)| *r == process.connection)
                    .count()
                    > 1
            }
            _ => false,
        }
    }

    fn judge_end(&self, name: &str, how: FinalState, why: EndReason) {
        let record = &self.world.tasks[name];
        let met = |(on, when): &(String, When)| {
            self.world.tasks[on]
                .ended
                .is_some_and(|how| how.meets(*when))
        };
        let missed = |(on, when): &(String, When)| {
            self.world.tasks[on]
                .ended
                .is_some_and(|how| !how.meets(*when))
        };
        match (how, why) {
            (FinalState::Done, EndReason::Report) => assert!(
                record.wanted.after.iter().all(met),
                "{name} is done too early"
            ),
            (FinalState::Failed, EndReason::Report) => assert!(
                record.wanted.after.iter().all(met),
                "{name} failed too early"
            ),
            (FinalState::Failed, EndReason::Poison) => assert_eq!(
                record.lost, 4,
                "{name} is poison after its fifth lost runner"
            ),
            (FinalState::Skipped, EndReason::Dependency(..) | EndReason::EarlierDependency(..)) => {
                assert!(
                    record.wanted.after.iter().any(missed),
                    "{name} is skipped for nothing"
                );
            }
            (FinalState::Cancelled, EndReason::Cancelled) => {}
            (FinalState::Done, EndReason::KeptAnswer) => {
                let equal = record.wanted.equal.as_ref();
                assert!(
                    equal.is_some_and(|equal| self.world.answers.contains(equal)),
                    "{name} is done by an answer that is not kept"
                );
                assert!(
                    record.wanted.after.iter().all(met),
                    "{name} is done too early"
                );
            }
            (FinalState::Done | FinalState::Failed, EndReason::SharedRun(by)) => {
                let by = &self.world.tasks[&self.world.names[&by]];
                assert_eq!(by.ended, Some(how), "{name} ends as the task that ran");
                assert!(
                    record.wanted.equal.is_some(),
                    "{name} shares a run with nobody"
                );
                assert_eq!(by.wanted.equal, record.wanted.equal, "{name} is not equal");
                assert!(record.wanted.after.iter().all(met), "{name} ends too early");
            }
            other => panic!("{name} ended so: {other:?}"),
        }
    }

    /// No task that still waits for a slot was overtaken by a less urgent one of one slot, unless a
    /// runner kept its slots and its memory for that one before.
    fn judge_order(&self, were_reserved: &BTreeSet<String>) {
        for (name, at) in &self.sent {
            let priority = self.priority(name);
            let several = self.world.tasks[name].wanted.requires.slots() > 1;
            if several || were_reserved.contains(name) {
                continue;
            }
            for (other, record) in self
                .world
                .tasks
                .iter()
                .filter(|(other, _)| self.priority(other) > priority)
                // The answer of such a task was looked for when the others had been sent.
                .filter(|(other, _)| !self.world.looked_up.contains(*other))
            {
                let waits = record
                    .key
                    .filter(|_| record.ended.is_none())
                    .and_then(|key| self.world.core.explain(key));
                let overtaken = matches!(waits, Some(Explanation::Ready(WaitsFor::Slots { .. })))
                    && suits(&record.wanted, &self.processes[*at]);
                assert!(
                    !overtaken,
                    "{name} is sent before {other}, which is more urgent"
                );
            }
        }
    }

    /// The priority by which a task that the core holds is sent; `None` for any other task.
    fn priority(&self, name: &str) -> Option<i32> {
        let key = self.world.tasks[name].key?;
        self.world.core.effective_priority(key)
    }

    /// The tasks for which a runner keeps its slots and its memory.
    fn reserved(&self) -> BTreeSet<String> {
        let is_reserved = |record: &Record| {
            let why = record.key.and_then(|key| self.world.core.explain(key));
            matches!(why, Some(Explanation::Ready(WaitsFor::Reserved { .. })))
        };
        let tasks = self.world.tasks.iter();
        tasks
            .filter(|(_, record)| is_reserved(record))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether a process keeps its slots for some task.
    fn keeps_its_slots(&self, process: &Process) -> bool {
        self.world.tasks.values().filter_map(|record| self.world.core.explain(record.key?)).any(
            |why| matches!(why, Explanation::Ready(WaitsFor::Reserved { runner, .. }) if Some(runner) == process.connection),
        )
    }

    /// The turn ends, and is judged as a whole.
    pub fn turn(&mut self) {
        self.sent.clear();
        let were_reserved = self.reserved();
        self.world.looked_up.clear();
        self.event(Event::TurnEnded);
        self.deliver();
        self.judge_order(&were_reserved);
        // A turn that did not stop at its limit leaves no free slot to a task that could use it.
        if self.world.busy() || !self.roster_wait_is_over {
            return;
        }
        for name in self
            .world
            .tasks
            .iter()
            .filter(|(_, r)| r.ended.is_none())
            .map(|(name, _)| name)
        {
            let record = &self.world.tasks[name];
            let key = record.key.expect("an open task");
            let waits = self.world.core.explain(key);
            let Some(Explanation::Ready(WaitsFor::Slots { .. })) = waits else {
                continue;
            };
            for process in self.processes.iter().filter(|process| !process.draining) {
                let Some(facts) = process
                    .connection
                    .and_then(|connection| self.world.core.runner_facts(connection))
                else {
                    continue;
                };
                let wanted = &record.wanted;
                let suits = suits(wanted, process);
                let memory_mb = facts.used_memory_mb + u64::from(wanted.memory_mb);
                let has_memory = facts.attempts == 0 || memory_mb <= process.offer.memory_mb;
                let room = has_memory
                    && facts.attempts < process.credits as usize
                    && facts.used + wanted.requires.slots() <= process.offer.slots;
                assert!(
                    !(suits && room) || self.keeps_its_slots(process),
                    "{name} waits, {} has room",
                    process.offer.name
                );
            }
        }
    }
}

/// Whether a process may be sent a task.
fn suits(wanted: &Wanted, process: &Process) -> bool {
    let offer = &process.offer;
    let requires = &wanted.requires;
    requires
        .labels
        .iter()
        .all(|(key, value)| offer.labels.get(key) == Some(value))
        && (offer.modules.is_empty() || offer.modules.contains(&module_name(&wanted.module)))
        && requires.slots() <= offer.slots
}
