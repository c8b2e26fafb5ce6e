//! What runners say.

use super::{Engine, Report, RunnerReport};
use crate::facts::Known;
use crate::inbox::SessionNo;
use std::sync::Arc;
use taskmaster_core::{Event, RunnerKey, TaskKey};
use taskmaster_protocol::message::{
    Attempt, Compiled, Compiling, CreditRequest, Done, Failed, LiveOutput, Started,
};
use taskmaster_protocol::{AttemptId, EventKind, EventView, FromMaster, Json, Wall};

impl Engine {
    /// A runner's credits; the first time, and after a reconnect, with what it holds.
    pub(super) fn request(&mut self, session: SessionNo, request: CreditRequest) {
        let Some(here) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(offer) = here.offer.clone() else {
            return;
        };
        let runner = RunnerKey(session.0);
        let joins = !std::mem::replace(&mut here.joined, true);
        if joins {
            let announced = self.modules.announced();
            self.say(session, FromMaster::Announce(announced));
            let (held, void) = self.held(request.held.unwrap_or_default());
            self.gone.remove(&*offer.name);
            let (offer, credits) = (Box::new(offer), request.credits);
            self.tell(Event::RunnerJoined {
                runner,
                offer,
                credits,
                answers_recalls: true,
                held,
            });
            if !void.is_empty() {
                self.say_after(session, FromMaster::Cancel(void));
            }
        }
        if !joins || request.draining {
            self.tell(Event::RunnerUpdated {
                runner,
                credits: request.credits,
                draining: request.draining,
            });
        }
    }

    /// Of the attempts that a runner says it holds: those of open tasks, and the others, which are
    /// void.
    fn held(&self, held: Vec<Attempt>) -> (Vec<(TaskKey, AttemptId)>, Vec<Attempt>) {
        let (mut live, mut void) = (Vec::new(), Vec::new());
        for attempt in held {
            match self.facts.known(&attempt.id) {
                Some(Known::Open(key)) => live.push((key, attempt.attempt)),
                Some(Known::Closing(..) | Known::Ended(_)) | None => void.push(attempt),
            }
        }
        (live, void)
    }

    /// Attempts with a result. Whatever it is worth, the runner may forget it once this turn is
    /// durable.
    pub(super) fn done(&mut self, session: SessionNo, reports: Vec<Done>) {
        let runner = RunnerKey(session.0);
        let mut acked = Vec::with_capacity(reports.len());
        for report in reports {
            let (id, attempt) = (report.id.clone(), report.attempt);
            let of = Attempt { id, attempt };
            let wishes = self.wishes.remove(&of).map(|(_, wishes)| wishes);
            match (self.facts.key(&of.id), wishes) {
                (Some(task), Some(wishes)) => self.done_with_wishes(runner, task, report, wishes),
                (Some(task), None) => self.attempt_done(runner, task, report),
                (None, _) => {}
            }
            acked.push(of);
        }
        self.say_after(session, FromMaster::Ack(acked));
    }

    /// Tells the core of a result.
    pub(super) fn attempt_done(&mut self, runner: RunnerKey, task: TaskKey, report: Done) {
        let event = Event::AttemptDone {
            runner,
            task,
            attempt: report.attempt,
            run_us: report.stats.run_us,
        };
        let report = Report::Done(report);
        self.tell_with(event, Some(RunnerReport { runner, report }));
    }

    /// Tells the core of a failure.
    pub(super) fn attempt_failed(&mut self, runner: RunnerKey, task: TaskKey, report: Failed) {
        let event = Event::AttemptFailed {
            runner,
            task,
            attempt: report.attempt,
            error: Box::new(report.error.clone()),
            run_us: report.stats.run_us,
            random: self.chance(),
        };
        let report = Report::Failed(report);
        self.tell_with(event, Some(RunnerReport { runner, report }));
    }

    /// Attempts without one.
    pub(super) fn failed(&mut self, session: SessionNo, reports: Vec<Failed>) {
        let runner = RunnerKey(session.0);
        let mut acked = Vec::with_capacity(reports.len());
        for report in reports {
            let (id, attempt) = (report.id.clone(), report.attempt);
            if let Some(task) = self.facts.key(&id) {
                self.attempt_failed(runner, task, report);
            }
            acked.push(Attempt { id, attempt });
        }
        self.say_after(session, FromMaster::Ack(acked));
    }

    /// Attempts given back, not started.
    pub(super) fn returned(&mut self, session: SessionNo, attempts: Vec<Attempt>) {
        let runner = RunnerKey(session.0);
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

    pub(super) fn guest_started(&mut self, session: SessionNo, started: Vec<Started>) {
        let runner = RunnerKey(session.0);
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
                last.started = Some(Wall(started_us));
                let data = || {
                    Json::of(
                        &serde_json::json!({ "attempt": attempt.n, "started": Wall(started_us) }),
                    )
                };
                self.show(EventKind::TaskStarted, Some(key), Some(runner), data);
            }
        }
    }

    /// Something that a running module said: watchers see it, nobody keeps it.
    pub(super) fn said(&mut self, session: SessionNo, kind: EventKind, said: Vec<LiveOutput>) {
        let runner = RunnerKey(session.0);
        self.tell(Event::RunnerHeard { runner });
        for LiveOutput { id, data, .. } in said {
            if let Some(key) = self.facts.key(&id) {
                self.show(kind, Some(key), Some(runner), || data);
            }
        }
    }

    /// A runner is still at it: watchers see it.
    pub(super) fn compiling(&mut self, session: SessionNo, compiling: Vec<Compiling>) {
        self.tell(Event::RunnerHeard {
            runner: RunnerKey(session.0),
        });
        let Some(runner) = self.runner_name(RunnerKey(session.0)) else {
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

    pub(super) fn compiled(&mut self, session: SessionNo, compiled: Vec<Compiled>) {
        self.tell(Event::RunnerHeard {
            runner: RunnerKey(session.0),
        });
        let Some(runner) = self.runner_name(RunnerKey(session.0)) else {
            return;
        };
        for Compiled {
            name,
            version,
            compile_us,
            error,
        } in compiled
        {
            for module in self.modules.tried(version) {
                self.tell(Event::ModuleOpened { module, open: true });
            }
            if let Some(error) = &error {
                tracing::warn!(module = %name, %version, %runner, %error, "a runner cannot compile the module");
            } else {
                self.modules
                    .compiled(version, Arc::clone(&runner), compile_us);
            }
            self.events.show(EventView {
                seq: None,
                time: self.now.wall,
                event: if error.is_none() { EventKind::ModuleReady } else { EventKind::ModuleRejected },
                task: None,
                module: Some(name),
                job: None,
                runner: Some(runner.to_string()),
                data: Json::of(&serde_json::json!({ "version": version, "compile_us": compile_us, "error": error })),
            });
        }
    }
}
