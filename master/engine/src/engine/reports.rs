//! Messages of runners: what they hold, results, failures, and live output.

use super::failed_compilations::FailedCompilation;
use super::{AttemptReport, Engine, RunnerReport, Told};
use crate::facts::{Known, began};
use crate::inbox::{ConnectionId, DoneReport};
use crate::partials::GivenPartial;
use std::sync::Arc;
use taskmaster_core::{Event, RunnerKey, TaskKey};
use taskmaster_protocol::message::{
    Attempt, Compiled, Compiling, CreditRequest, Done, Failed, LiveOutput, PartialOutput, Started,
};
use taskmaster_protocol::{AttemptId, ErrorKind, EventKind, EventView, FromMaster, Json, Wall};

/// The attempts that a runner says it holds.
#[derive(Default)]
struct HeldAttempts {
    /// Attempts of open tasks. The core decides which of them still count.
    open: Vec<(TaskKey, AttemptId)>,
    /// Attempts of tasks that are not open, which the runner must stop.
    void: Vec<Attempt>,
}

impl Engine {
    /// A runner asks for tasks. Its first request on a connection also tells which attempts it
    /// holds.
    pub(super) fn request(&mut self, connection: ConnectionId, request: CreditRequest) {
        let Some(here) = self.connections.get_mut(&connection) else {
            return;
        };
        let Some(offer) = here.offer.clone() else {
            return;
        };
        let runner = RunnerKey(connection.0);
        let process = here.name.clone();
        let joins = !std::mem::replace(&mut here.joined, true);
        let before = std::mem::replace(&mut here.fault, request.fault.clone());
        let credits = if request.fault.is_some() {
            0
        } else {
            request.credits
        };
        if joins {
            let announced = self.modules.announced();
            self.send_now(connection, FromMaster::Announce(announced));
            let held = self.sort_held_attempts(request.held.unwrap_or_default());
            self.lost_links.remove(&*offer.name);
            self.tell(Event::RunnerJoined {
                runner,
                process,
                offer: Box::new(offer),
                credits,
                held: held.open,
            });
            if !held.void.is_empty() {
                self.send_when_durable(connection, FromMaster::Cancel(held.void));
            }
        }
        if !joins || request.draining {
            self.tell(Event::RunnerUpdated {
                runner,
                credits,
                draining: request.draining,
            });
        }
        if before != request.fault {
            self.health_changed(connection, before.is_some(), request.fault);
        }
    }

    /// What is known of the machine of a runner has changed: operators are told.
    fn health_changed(&mut self, connection: ConnectionId, was_sick: bool, fault: Option<String>) {
        let runner = RunnerKey(connection.0);
        let Some(name) = self.runner_name(runner) else {
            return;
        };
        match &fault {
            Some(fault) => {
                tracing::warn!(runner = %name, %fault, "a runner is sick and takes nothing");
                if !was_sick {
                    self.sick_runners.add();
                }
                let data = || Json::of(&serde_json::json!({ "fault": fault }));
                self.show(EventKind::RunnerSick, None, Some(runner), data);
            }
            None => {
                tracing::warn!(runner = %name, "a sick runner is well again");
                self.sick_runners.lose();
                self.show(EventKind::RunnerWell, None, Some(runner), Json::null);
            }
        }
    }

    /// Sorts the attempts that a runner says it holds.
    fn sort_held_attempts(&self, held: Vec<Attempt>) -> HeldAttempts {
        let mut sorted = HeldAttempts::default();
        for attempt in held {
            match self.facts.known(&attempt.id) {
                Some(Known::Open(key)) => sorted.open.push((key, attempt.attempt)),
                Some(Known::Closing(..) | Known::Ended(_)) | None => sorted.void.push(attempt),
            }
        }
        sorted
    }

    /// Takes reports of attempts that ended with a result. Even if a report does not count, the
    /// runner may forget it when this turn is durable.
    pub(super) fn done(&mut self, connection: ConnectionId, reports: Vec<DoneReport>) {
        let runner = RunnerKey(connection.0);
        let mut acked = Vec::with_capacity(reports.len());
        for DoneReport { done, follow_ups } in reports {
            let attempt = Attempt {
                id: done.id.clone(),
                attempt: done.attempt,
            };
            match (self.facts.key(&attempt.id), follow_ups) {
                (Some(task), Some(follow_ups)) => {
                    self.done_with_follow_ups(runner, task, done, *follow_ups);
                }
                (Some(task), None) => self.attempt_done(runner, task, done),
                (None, _) => {}
            }
            acked.push(attempt);
        }
        self.send_when_durable(connection, FromMaster::Ack(acked));
    }

    /// Tells the core that an attempt ended with a result.
    pub(super) fn attempt_done(&mut self, runner: RunnerKey, task: TaskKey, report: Done) {
        let event = Event::AttemptDone {
            runner,
            task,
            attempt: report.attempt,
            run_us: report.stats.run_us,
        };
        let report = AttemptReport::Done(report);
        self.tell_with(event, Some(Told::Report(RunnerReport { runner, report })));
    }

    /// Tells the core that an attempt failed.
    pub(super) fn attempt_failed(&mut self, runner: RunnerKey, task: TaskKey, report: Failed) {
        let event = Event::AttemptFailed {
            runner,
            task,
            attempt: report.attempt,
            error: Box::new(report.error.clone()),
            run_us: report.stats.run_us,
            random: self.random(),
        };
        let machine_failed = report.error.kind == ErrorKind::RunnerLost;
        let name = self.runner_name(runner).filter(|_| machine_failed);
        if let Some(name) = &name {
            let how = report.error.message.clone().into();
            self.lost_links.insert(name.clone(), how);
        }
        let report = AttemptReport::Failed(report);
        self.tell_with(event, Some(Told::Report(RunnerReport { runner, report })));
        if let Some(name) = &name {
            self.lost_links.remove(name);
        }
    }

    /// Takes reports of attempts that ended without a result.
    pub(super) fn failed(&mut self, connection: ConnectionId, reports: Vec<Failed>) {
        let runner = RunnerKey(connection.0);
        let mut acked = Vec::with_capacity(reports.len());
        for report in reports {
            let attempt = Attempt {
                id: report.id.clone(),
                attempt: report.attempt,
            };
            if let Some(task) = self.facts.key(&attempt.id) {
                self.attempt_failed(runner, task, report);
            }
            acked.push(attempt);
        }
        self.send_when_durable(connection, FromMaster::Ack(acked));
    }

    /// A runner gives back attempts that it has not started.
    pub(super) fn returned(&mut self, connection: ConnectionId, attempts: Vec<Attempt>) {
        let runner = RunnerKey(connection.0);
        self.tell(Event::RecallAnswered { runner });
        for Attempt { id, attempt } in attempts {
            if let Some(task) = self.facts.key(&id) {
                self.tell(Event::AttemptReturned {
                    runner,
                    task,
                    attempt,
                });
            }
        }
    }

    /// A runner has started the modules of these attempts.
    pub(super) fn guest_started(&mut self, connection: ConnectionId, started: Vec<Started>) {
        let runner = RunnerKey(connection.0);
        self.tell(Event::RunnerHeard { runner });
        for Started {
            id,
            attempt,
            started_us,
        } in started
        {
            let Some(key) = self.facts.key(&id) else {
                continue;
            };
            if let Some(last) = self
                .facts
                .live_mut(key)
                .last
                .as_mut()
                .filter(|last| last.n == attempt.n)
            {
                let started = began(Wall(started_us), last.sent, self.now.wall);
                last.started = Some(started);
                let data =
                    || Json::of(&serde_json::json!({ "attempt": attempt.n, "started": started }));
                self.show(EventKind::TaskStarted, Some(key), Some(runner), data);
            }
        }
    }

    /// Shows watchers what running modules say. The output is not stored.
    pub(super) fn live_output(
        &mut self,
        connection: ConnectionId,
        kind: EventKind,
        output: Vec<LiveOutput>,
    ) {
        let runner = RunnerKey(connection.0);
        self.tell(Event::RunnerHeard { runner });
        for LiveOutput { id, data, .. } in output {
            if let Some(key) = self.facts.key(&id) {
                self.show(kind, Some(key), Some(runner), || data);
            }
        }
    }

    /// Passes partial results on to followers and watchers, where the attempt counts that gave them.
    pub(super) fn partials(&mut self, connection: ConnectionId, partials: Vec<PartialOutput>) {
        let runner = RunnerKey(connection.0);
        self.tell(Event::RunnerHeard { runner });
        for PartialOutput {
            id,
            attempt,
            n,
            data,
        } in partials
        {
            let Some(key) = self.facts.key(&id) else {
                continue;
            };
            if !self.core.report_counts(runner, key, attempt) {
                continue;
            }
            let given = GivenPartial {
                attempt,
                n,
                time: self.now.wall,
                value: data.clone(),
            };
            let job = self.facts.body(key).job.clone();
            if self.events.partials().publish(&job, &id, given) {
                self.show(EventKind::TaskPartial, Some(key), Some(runner), || data);
            }
        }
    }

    /// Shows watchers that a runner is still compiling modules.
    pub(super) fn compiling(&mut self, connection: ConnectionId, compiling: Vec<Compiling>) {
        self.tell(Event::RunnerHeard {
            runner: RunnerKey(connection.0),
        });
        let Some(runner) = self.runner_name(RunnerKey(connection.0)) else {
            return;
        };
        for Compiling {
            name,
            version,
            elapsed_ms,
        } in compiling
        {
            self.events.show(EventView {
                seq: None,
                time: self.now.wall,
                event: EventKind::ModuleCompiling,
                task: None,
                module: Some(name),
                job: None,
                runner: Some(runner.to_string()),
                data: Json::of(
                    &serde_json::json!({ "version": version, "elapsed_ms": elapsed_ms }),
                ),
            });
        }
    }

    /// A runner has compiled modules, or has failed to.
    pub(super) fn compiled(&mut self, connection: ConnectionId, compiled: Vec<Compiled>) {
        self.tell(Event::RunnerHeard {
            runner: RunnerKey(connection.0),
        });
        let Some(runner) = self.runner_name(RunnerKey(connection.0)) else {
            return;
        };
        for Compiled {
            name,
            version,
            compile_us,
            error,
            runner_fault,
        } in compiled
        {
            for module in self.modules.tried(version) {
                self.tell(Event::ModuleOpened { module, open: true });
            }
            if let Some(error) = &error {
                tracing::warn!(module = %name, %version, %runner, %error, "a runner cannot compile the module");
                let failure = FailedCompilation {
                    error: error.clone(),
                    runner_fault,
                };
                self.modules
                    .not_compiled(version, Arc::clone(&runner), failure);
            } else {
                self.modules
                    .compiled(version, Arc::clone(&runner), compile_us);
            }
            let event = if error.is_none() {
                EventKind::ModuleReady
            } else {
                EventKind::ModuleRejected
            };
            let data = serde_json::json!({
                "version": version,
                "compile_us": compile_us,
                "error": error,
            });
            self.events.show(EventView {
                seq: None,
                time: self.now.wall,
                event,
                task: None,
                module: Some(name),
                job: None,
                runner: Some(runner.to_string()),
                data: Json::of(&data),
            });
        }
    }
}
