//! The core's effects, carried out: records with bodies attached, messages to runners.

use super::{AttemptReport, Engine, RunnerReport};
use crate::inbox::ConnectionId;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_core::{DurableChange, Effect, EndReason, FinalState, RunnerKey, TaskKey};
use taskmaster_protocol::message::{Assignment, Attempt, Refused, ResultRef};
use taskmaster_protocol::{
    AttemptId, ErrorKind, EventKind, EventView, FromMaster, JobName, Json, Refusal, RefusalCode,
    TaskError, TaskId, Wall,
};
use taskmaster_store::record::{
    EndExtras, Ended, JobRecord, Record, Retrying, TaskEnd, TaskOutput, final_state_index,
};

/// Bytes of results that travel with an attempt; the runner asks for the others.
const RESULTS_BYTES_MAX: usize = 256 << 10;

/// An attempt has failed, and another will follow.
struct PlannedRetry {
    task: TaskKey,
    /// The attempt that failed.
    attempt: AttemptId,
    /// Failures counted.
    tries: u32,
    /// Lost runners counted.
    lost: u32,
    /// How long the task waits before the next attempt.
    wait_us: u64,
    runner_lost: bool,
    error: TaskError,
}

/// EndReason a task ended, where no report says so.
#[derive(Default)]
struct Reason {
    error: Option<TaskError>,
    skipped_for: Option<TaskId>,
}

impl Engine {
    /// Carries out an effect of the core. `report` is what the core was just told of; it is taken
    /// by the end of the task that it makes.
    pub(super) fn carry_out(&mut self, effect: Effect, report: &mut Option<RunnerReport>) {
        match effect {
            Effect::Store(change) => self.store_change(change, report),
            Effect::Send {
                runner,
                task,
                attempt,
            } => self.send(runner, task, attempt),
            Effect::Recall { runner, attempts } => {
                let attempts = attempts
                    .into_iter()
                    .map(|(task, attempt)| self.attempt(task, attempt))
                    .collect();
                self.say(ConnectionId(runner.0), FromMaster::Recall(attempts));
            }
            Effect::Stop {
                runner,
                task,
                attempt,
            } => {
                let attempt = self.attempt(task, attempt);
                self.say(ConnectionId(runner.0), FromMaster::Cancel(vec![attempt]));
            }
            Effect::Disconnect { runner } => self.hang_up(runner),
            Effect::Announce {
                kind: EventKind::RunnerStuck,
                runner: Some(runner),
                ..
            } => self.stuck(runner),
            Effect::Announce { kind, task, runner } => self.show(kind, task, runner, Json::null),
            Effect::Forget(key) => self.facts.let_go(key),
        }
    }

    fn attempt(&self, task: TaskKey, attempt: AttemptId) -> Attempt {
        Attempt {
            id: self.facts.body(task).id.clone(),
            attempt,
        }
    }

    pub(super) fn runner_name(&self, runner: RunnerKey) -> Option<Arc<str>> {
        self.sessions.get(&ConnectionId(runner.0))?.runner.clone()
    }

    /// Dropping the outbox ends the gateway's session, which closes the connection.
    fn hang_up(&mut self, runner: RunnerKey) {
        if let Some(name) = self.runner_name(runner) {
            self.gone.entry(name).or_insert("it was silent");
        }
        self.sessions.remove(&ConnectionId(runner.0));
    }

    fn stuck(&mut self, runner: RunnerKey) {
        let Some(name) = self.runner_name(runner) else {
            return;
        };
        tracing::warn!(runner = %name, "the runner lives and answers nothing; its tasks run elsewhere");
        self.gone.insert(name, "it answered nothing");
        let text = "you have not answered `task:recall`; your tasks run elsewhere: connect again when you listen";
        let refused = Refused {
            reference: None,
            error: Refusal::new(RefusalCode::NotAllowed, text),
        };
        self.say(ConnectionId(runner.0), FromMaster::Refused(refused));
        let data =
            || Json::of(&serde_json::json!({ "reason": "it does not answer `task:recall`" }));
        self.show(EventKind::RunnerStuck, None, Some(runner), data);
    }

    fn store_change(&mut self, change: DurableChange, report: &mut Option<RunnerReport>) {
        match change {
            DurableChange::Added(task) => self.store(Record::Added(self.facts.body(task))),
            // `Engine::reopen` stores it: it knows how the task had ended.
            DurableChange::Reopened(_) => {}
            DurableChange::Continued(task, fence) => {
                self.store(Record::Continued {
                    body: self.facts.body(task),
                    fence,
                });
            }
            DurableChange::Ended {
                task,
                state,
                why,
                attempt,
            } => {
                let report = match why {
                    EndReason::Report => report.take(),
                    EndReason::Cancelled
                    | EndReason::Dependency(..)
                    | EndReason::EarlierDependency(..)
                    | EndReason::Poison => None,
                };
                self.ended(task, state, why, attempt, report);
            }
            DurableChange::Retrying {
                task,
                attempt,
                tries,
                lost,
                wait_us,
                runner_lost,
            } => {
                let error = match report {
                    Some(RunnerReport {
                        report: AttemptReport::Failed(failed),
                        ..
                    }) if !runner_lost => failed.error.clone(),
                    _ => self.lost_runner(task, attempt),
                };
                self.retrying(PlannedRetry {
                    task,
                    attempt,
                    tries,
                    lost,
                    wait_us,
                    runner_lost,
                    error,
                });
            }
            DurableChange::Set {
                task,
                priority,
                wait_us,
            } => {
                let due = wait_us.map(|us| self.now.wall.plus_us(us));
                self.facts.live_mut(task).priority = priority;
                let ordinal = self.facts.body(task).ordinal;
                self.store(Record::Set {
                    ordinal,
                    priority,
                    due,
                });
            }
            DurableChange::JobOpened(job) => {
                let run = self.core.job(&job).map_or(1, |job| job.run);
                self.store(Record::JobOpened { job, run });
            }
            DurableChange::JobDone(job) => self.job_done(job),
            DurableChange::JobHeld { job, by, held } => {
                self.store(Record::JobHeld { job, by, held })
            }
            DurableChange::JobPaused { job, paused } => {
                self.store(Record::JobPaused { job, paused })
            }
            DurableChange::JobCancelled { job, up_to } => {
                self.store(Record::JobCancelled { job, up_to })
            }
            DurableChange::RunnerJoined(name) => self.store(Record::RunnerJoined { name }),
            DurableChange::RunnerLost(name) => {
                self.gone.remove(name.as_str());
                self.store(Record::RunnerLost { name });
            }
        }
    }

    /// The core lets go of a job that is done; until the view has it, memory keeps what it was.
    fn job_done(&mut self, name: JobName) {
        let Some(job) = self.core.job(&name) else {
            return;
        };
        let (run, record) = (job.run, job_record(job));
        self.store(Record::JobDone {
            job: name.clone(),
            run,
        });
        self.facts.job_idles(name, self.last_seq, record);
    }

    fn send(&mut self, runner: RunnerKey, key: TaskKey, attempt: AttemptId) {
        let name = self.runner_name(runner);
        let body = self.facts.whole_body(key);
        // A module that can be sent has a version; a pin was checked when the task was added.
        let Some((version, forbidden)) = self.modules.version(&body.module, body.pin.as_deref())
        else {
            return;
        };
        let granted = self.modules.granted(&body.module);
        let results = self.results_at_hand(body.references());
        let params = match forbidden {
            // Sent, so that it fails with the reason: no runner runs what asks for such a result.
            Some(why) => Some(Json::of(&serde_json::json!({ "$result": why }))),
            None => body.params.clone(),
        };
        let rare = body.extras.as_deref();
        let send = Assignment {
            id: body.id.clone(),
            attempt,
            module: body.module.clone(),
            version,
            job: body.job.clone(),
            params,
            results,
            args: rare.map(|rare| rare.args.clone()).unwrap_or_default(),
            env: rare.map(|rare| rare.env.clone()).unwrap_or_default(),
            inputs: rare.map(|rare| rare.inputs.clone()).unwrap_or_default(),
            outputs: rare.and_then(|rare| rare.outputs.clone()),
            timeout_ms: rare
                .and_then(|rare| rare.timeout_ms)
                .unwrap_or(self.config.timeout_ms),
            memory_mb: rare
                .and_then(|rare| rare.memory_mb)
                .unwrap_or(self.config.memory_mb),
            slots: body.slots(),
            capabilities: (!granted.is_empty()).then_some(granted),
        };
        let now = self.now.wall;
        let last = self.facts.live_mut(key).last.get_or_insert_default();
        (last.version, last.runner, last.started, last.n, last.sent) =
            (Some(version), name, None, attempt.n, now);
        self.say_send(ConnectionId(runner.0), send);
    }

    /// One message carries all that a turn sends to a runner in a row.
    fn say_send(&mut self, session: ConnectionId, send: Assignment) {
        let Some(session) = self.sessions.get(&session) else {
            return;
        };
        match self.turn.now.last_mut() {
            Some((outbox, FromMaster::Send(sends))) if outbox.same_channel(&session.outbox) => {
                sends.push(send)
            }
            _ => self
                .turn
                .now
                .push((session.outbox.clone(), FromMaster::Send(vec![send]))),
        }
    }

    fn results_at_hand(&self, references: &[TaskId]) -> BTreeMap<TaskId, ResultRef> {
        let mut left = RESULTS_BYTES_MAX;
        let mut results = BTreeMap::new();
        for id in references {
            let Some(ended) = self.facts.last_end(id) else {
                continue;
            };
            let Some(result) = ended.end.result.as_ref().map(TaskOutput::result) else {
                continue;
            };
            let size = match &result {
                ResultRef::Json(json) => json.get().len(),
                ResultRef::Blob(_) => 64,
            };
            if size <= left {
                left -= size;
                results.insert(id.clone(), result);
            }
        }
        results
    }

    /// EndReason an attempt failed whose runner was lost. The loss is remembered with the task.
    fn lost_runner(&mut self, task: TaskKey, attempt: AttemptId) -> TaskError {
        let loss = self.loss(task, attempt);
        let text = format!("the runner was lost: {loss}");
        let last = self.facts.live_mut(task).last.get_or_insert_default();
        last.failures().losses.push(loss);
        TaskError::new(ErrorKind::RunnerLost, text)
    }

    fn retrying(&mut self, retry: PlannedRetry) {
        let due = self.now.wall.plus_us(retry.wait_us);
        let body = self.facts.body(retry.task);
        let last = self.facts.live_mut(retry.task).last.get_or_insert_default();
        last.failures().error = Some(retry.error.clone());
        let record = Retrying {
            id: body.id.clone(),
            module: body.module.clone(),
            job: body.job.clone(),
            ordinal: body.ordinal,
            attempt: retry.attempt,
            runner: last.runner.clone(),
            tries: retry.tries,
            lost: retry.lost,
            fence: (!retry.runner_lost).then_some(retry.attempt),
            due,
            error: retry.error,
        };
        self.store(Record::Retrying(Box::new(record)));
    }

    /// What became of an attempt whose runner was lost, as a clause.
    fn loss(&self, key: TaskKey, attempt: AttemptId) -> String {
        let last = self.facts.live(key).last.as_deref();
        let Some(last) = last.filter(|last| last.n == attempt.n) else {
            return format!(
                "attempt {}, which an earlier master had sent, at {}",
                attempt.n, self.now.wall
            );
        };
        let name = last
            .runner
            .as_deref()
            .unwrap_or("a runner of an earlier master");
        let how = self
            .gone
            .get(name)
            .copied()
            .unwrap_or("it did not come back");
        format!(
            "attempt {} on `{name}`, sent at {}, lost at {}: {how}",
            attempt.n, last.sent, self.now.wall
        )
    }

    fn poison(&self, key: TaskKey, attempt: AttemptId) -> TaskError {
        let most = taskmaster_protocol::limits::RUNNER_LOST_MAX;
        let failures = self
            .facts
            .live(key)
            .last
            .as_ref()
            .and_then(|last| last.failures.as_ref());
        let mut losses = failures.map_or(Vec::new(), |failures| failures.losses.clone());
        losses.push(self.loss(key, attempt));
        let earlier = match (most as usize).saturating_sub(losses.len()) {
            0 => String::new(),
            n => format!(" ({n} of them under an earlier master)"),
        };
        let story = losses.join("; ");
        let text = format!(
            "its runner was lost {most} times while it ran{earlier}, so it is the likely cause (poison): {story}"
        );
        TaskError::new(ErrorKind::RunnerLost, text)
    }

    /// A task has ended. `report` says so where a runner did.
    fn ended(
        &mut self,
        key: TaskKey,
        state: FinalState,
        why: EndReason,
        attempt: AttemptId,
        report: Option<RunnerReport>,
    ) {
        let Reason { error, skipped_for } = self.reason(key, why, attempt);
        let runner = report
            .as_ref()
            .and_then(|report| self.runner_name(report.runner));
        let seq = self.last_seq + 1;
        let finished = self.now.wall;
        let epoch = self.epoch;
        let body = self.facts.whole_body(key);
        let live = self.facts.live_mut(key);
        let last = live.last.take().unwrap_or_default();
        let last_sent = attempt.max(AttemptId { epoch, n: last.n });
        let skipped = skipped_for.map(|on| EndExtras {
            skipped_for: Some(on),
        });
        let mut end = TaskEnd {
            state: state.task_state(),
            priority: live.priority,
            attempt,
            last_sent,
            version: last.version,
            runner: runner.or(last.runner),
            result: None,
            error,
            started: last.started,
            finished,
            stats: None,
            log: None,
            extras: skipped.map(Box::new),
        };
        match report.map(|report| report.report) {
            Some(AttemptReport::Done(done)) => {
                end.result = Some(TaskOutput::new(done.result, done.outputs));
                end.started = Some(Wall(done.started_us));
                end.stats = Some(done.stats);
                end.log = (!done.log.is_empty()).then(|| Box::new(done.log));
            }
            Some(AttemptReport::Failed(failed)) => {
                end.error = Some(failed.error);
                end.started = failed.started_us.map(Wall).or(end.started);
                end.stats = Some(failed.stats);
                end.log = (!failed.log.is_empty()).then(|| Box::new(failed.log));
            }
            None => {}
        }
        let ended = Ended::new(seq, &body, end);
        self.remember(key, Arc::new(ended));
    }

    fn remember(&mut self, key: TaskKey, ended: Arc<Ended>) {
        self.facts.ended(key, ended.clone());
        self.finished[final_state_index(ended.end.state)] += 1;
        self.store(Record::Ended(ended));
    }

    /// EndReason a task ended, where no report says so.
    fn reason(&self, key: TaskKey, why: EndReason, attempt: AttemptId) -> Reason {
        let skipped = |on: &TaskId, how: FinalState| {
            let text = format!(
                "the task `{on}`, on which it depends, ended as {}",
                how.task_state().as_str()
            );
            Reason {
                error: Some(TaskError::new(ErrorKind::Input, text)),
                skipped_for: Some(on.clone()),
            }
        };
        let failed = |error: TaskError| Reason {
            error: Some(error),
            skipped_for: None,
        };
        match why {
            EndReason::Report => Reason::default(),
            EndReason::Cancelled => {
                failed(TaskError::new(ErrorKind::Cancelled, "it was cancelled"))
            }
            EndReason::Dependency(on, how) => skipped(&self.facts.body(on).id, how),
            EndReason::EarlierDependency(index, how) => {
                let body = self.facts.body(key);
                let on = body.dependencies().get(index);
                on.map_or_else(Reason::default, |on| skipped(&on.on, how))
            }
            EndReason::Poison => failed(self.poison(key, attempt)),
        }
    }

    /// A live event, made only when somebody watches.
    pub(super) fn show(
        &mut self,
        kind: EventKind,
        task: Option<TaskKey>,
        runner: Option<RunnerKey>,
        data: impl FnOnce() -> Json,
    ) {
        if !self.events.is_watched() {
            return;
        }
        let body = task.map(|task| self.facts.body(task));
        let runner = runner
            .and_then(|runner| self.runner_name(runner))
            .map(|name| name.to_string());
        self.events.show(EventView {
            seq: None,
            time: self.now.wall,
            event: kind,
            task: body.as_ref().map(|body| body.id.clone()),
            module: body.as_ref().map(|body| body.module.clone()),
            job: body.as_ref().map(|body| body.job.clone()),
            runner,
            data: data(),
        });
    }
}

/// A job of the core as the journal knows it.
pub(super) fn job_record(job: &taskmaster_core::Job) -> JobRecord {
    let mut ended = [0; 4];
    ended.copy_from_slice(&job.counts.by_state[4..]);
    JobRecord {
        run: job.run,
        open: job.open,
        paused: job.paused,
        total: job.counts.total,
        ended,
        holders: Vec::new(),
        cancelled_up_to: 0,
    }
}
