//! Carries out the core's effects: makes records with the bodies of tasks, and sends messages to
//! runners.

use super::answers::{SentAttempt, answer_with};
use super::modules::AttemptVersion;
use super::{AttemptReport, Engine, RunnerReport, Told};
use crate::facts::began;
use crate::inbox::ConnectionId;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_core::{DurableChange, Effect, EndReason, FinalState, RunnerKey, TaskKey};
use taskmaster_protocol::message::{Assignment, Attempt, Refused, ResultRef};
use taskmaster_protocol::{
    AttemptId, ErrorKind, EventKind, EventView, FromMaster, JobName, Json, Refusal, RefusalCode,
    TaskError, TaskId, Wall,
};
use taskmaster_store::body::TaskBody;
use taskmaster_store::cache_entry::CacheEntry;
use taskmaster_store::record::{
    EndExtras, Ended, JobRecord, Record, Retrying, TaskEnd, TaskOutput, final_state_index,
};

/// Bytes of the results that are sent together with an attempt. The runner asks for other results.
const RESULTS_BYTES_MAX: usize = 256 << 10;

/// A failed attempt after which the task is tried again.
struct PlannedRetry {
    task: TaskKey,
    /// The attempt that failed.
    attempt: AttemptId,
    /// How often the task has failed.
    tries: u32,
    /// How often a runner was lost while it had the task.
    lost: u32,
    /// How long the task waits before the next attempt, µs.
    wait_us: u64,
    /// Whether this attempt failed because its runner was lost.
    runner_lost: bool,
    /// Why the attempt failed.
    error: TaskError,
}

/// Why a task ended without a report.
#[derive(Default)]
pub(super) struct EndWithoutReport {
    pub error: Option<TaskError>,
    /// The dependency for which the task was skipped.
    pub skipped_for: Option<TaskId>,
}

/// A task that ends, as the core tells it.
struct EndingTask {
    key: TaskKey,
    state: FinalState,
    why: EndReason,
    /// The attempt that ended the task, or the last one that counted.
    attempt: AttemptId,
}

impl Engine {
    /// Carries out an effect of the core. `told` is the report or the answer of which the core was
    /// told; an effect that ends the task takes it.
    pub(super) fn carry_out(&mut self, effect: Effect, told: &mut Option<Told>) {
        match effect {
            Effect::Store(change) => self.store_change(change, told),
            Effect::LookUpAnswer(task) => self.answers.wanted(task),
            Effect::ForgetSharedRun(run) => self.answers.forget_run(run),
            Effect::Send {
                runner,
                task,
                attempt,
            } => self.assign(runner, task, attempt),
            Effect::Recall { runner, attempts } => {
                let attempts = attempts
                    .into_iter()
                    .map(|(task, attempt)| self.attempt(task, attempt))
                    .collect();
                self.send_now(ConnectionId(runner.0), FromMaster::Recall(attempts));
            }
            Effect::Stop {
                runner,
                task,
                attempt,
            } => {
                let attempt = self.attempt(task, attempt);
                self.send_now(ConnectionId(runner.0), FromMaster::Cancel(vec![attempt]));
            }
            Effect::Disconnect { runner } => self.hang_up(runner),
            Effect::Announce {
                kind: EventKind::RunnerStuck,
                runner: Some(runner),
                ..
            } => self.runner_stuck(runner),
            Effect::Announce { kind, task, runner } => self.show(kind, task, runner, Json::null),
            Effect::Forget(key) => self.facts.forget(key),
        }
    }

    fn attempt(&self, task: TaskKey, attempt: AttemptId) -> Attempt {
        Attempt {
            id: self.facts.body(task).id.clone(),
            attempt,
        }
    }

    pub(super) fn runner_name(&self, runner: RunnerKey) -> Option<Arc<str>> {
        self.connections
            .get(&ConnectionId(runner.0))?
            .runner
            .clone()
    }

    /// Closes the connection of a silent runner. Dropping its outbox makes the gateway close it.
    fn hang_up(&mut self, runner: RunnerKey) {
        if let Some(name) = self.runner_name(runner) {
            self.lost_links
                .entry(name)
                .or_insert("it was silent".into());
        }
        let closed = self.connections.remove(&ConnectionId(runner.0));
        if closed.is_some_and(|closed| closed.fault.is_some()) {
            self.sick_runners.lose();
        }
    }

    fn runner_stuck(&mut self, runner: RunnerKey) {
        let Some(name) = self.runner_name(runner) else {
            return;
        };
        tracing::warn!(runner = %name, "the runner lives and answers nothing; its tasks run elsewhere");
        self.lost_links.insert(name, "it answered nothing".into());
        let text = "you have not answered `task:recall`; your tasks run elsewhere: connect again when you listen";
        let refused = Refused {
            reference: None,
            error: Refusal::new(RefusalCode::NotAllowed, text),
        };
        self.send_now(ConnectionId(runner.0), FromMaster::Refused(refused));
        let data =
            || Json::of(&serde_json::json!({ "reason": "it does not answer `task:recall`" }));
        self.show(EventKind::RunnerStuck, None, Some(runner), data);
    }

    fn store_change(&mut self, change: DurableChange, told: &mut Option<Told>) {
        match change {
            DurableChange::Added(task) => self.persist(Record::Added(self.facts.body(task))),
            // `Engine::reopen` makes the record, because it knows how the task had ended.
            DurableChange::Reopened(_) => {}
            DurableChange::Continued(task, fence) => {
                self.persist(Record::Continued {
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
                let ending = EndingTask {
                    key: task,
                    state,
                    why,
                    attempt,
                };
                self.ended(ending, told);
            }
            DurableChange::Retrying {
                task,
                attempt,
                tries,
                lost,
                wait_us,
                runner_lost,
            } => {
                let reported = match told.as_ref() {
                    Some(Told::Report(RunnerReport {
                        report: AttemptReport::Failed(failed),
                        ..
                    })) if !runner_lost => Some(failed.error.clone()),
                    Some(Told::Report(_) | Told::Answer(_)) | None => None,
                };
                let error = reported.unwrap_or_else(|| self.lost_runner(task, attempt));
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
            } => self.task_set(task, priority, wait_us),
            DurableChange::JobOpened(job) => {
                let run = self.core.job(&job).map_or(1, |job| job.run);
                self.persist(Record::JobOpened {
                    job: job.clone(),
                    run,
                });
                self.facts.run_began(&job, run, self.last_seq);
            }
            DurableChange::JobDone(job) => self.job_done(job),
            DurableChange::JobHeld { job, by, held } => {
                self.persist(Record::JobHeld { job, by, held })
            }
            DurableChange::JobPaused { job, paused } => {
                self.persist(Record::JobPaused { job, paused })
            }
            DurableChange::JobCancelled { job, up_to } => {
                self.persist(Record::JobCancelled { job, up_to })
            }
            DurableChange::RunnerJoined(name) => self.persist(Record::RunnerJoined { name }),
            DurableChange::RunnerLost(name) => {
                self.lost_links.remove(name.as_str());
                self.persist(Record::RunnerLost { name });
            }
        }
    }

    /// A client has changed the priority of a task, or how long it waits.
    fn task_set(&mut self, task: TaskKey, priority: i32, wait_us: Option<u64>) {
        let due = wait_us.map(|us| self.now.wall.plus_us(us));
        self.facts.live_mut(task).priority = priority;
        let ordinal = self.facts.body(task).ordinal;
        self.persist(Record::Set {
            ordinal,
            priority,
            due,
        });
    }

    /// A job is done, so the core forgets it. Memory keeps its record until the view has it.
    fn job_done(&mut self, name: JobName) {
        let Some(job) = self.core.job(&name) else {
            return;
        };
        let run = job.run;
        let record = job_record(job);
        self.persist(Record::JobDone {
            job: name.clone(),
            run,
        });
        self.waits.job_ended(&name);
        self.facts.set_idle_job(name, self.last_seq, record);
    }

    fn assign(&mut self, runner: RunnerKey, key: TaskKey, attempt: AttemptId) {
        let name = self.runner_name(runner);
        let body = self.facts.whole_body(key);
        // The core assigns only tasks whose module has a version, and a pin was checked when the
        // task was added.
        let Some(AttemptVersion { version, forbidden }) =
            self.modules.version(&body.module, body.pin.as_deref())
        else {
            return;
        };
        let granted = self.modules.granted(&body.module);
        let job_results = self.tasks_of_jobs(&body);
        let of_jobs = job_results.values().flatten();
        let results = self.results_in_memory(body.references().iter().chain(of_jobs));
        let cache_key = self.key_of_attempt(&body);
        let params = match forbidden {
            // The runner cannot resolve this reference, so the attempt fails with the reason.
            Some(why) => Some(Json::of(&serde_json::json!({ "$result": why }))),
            None => body.params.clone(),
        };
        let extras = body.extras.as_deref();
        let assignment = Assignment {
            id: body.id.clone(),
            attempt,
            module: body.module.clone(),
            version,
            job: body.job.clone(),
            params,
            results,
            job_results,
            args: extras.map(|extras| extras.args.clone()).unwrap_or_default(),
            env: extras.map(|extras| extras.env.clone()).unwrap_or_default(),
            inputs: extras
                .map(|extras| extras.inputs.clone())
                .unwrap_or_default(),
            outputs: extras.and_then(|extras| extras.outputs.clone()),
            timeout_ms: self.timeout_ms(&body),
            memory_mb: self.memory_mb(extras.and_then(|extras| extras.memory_mb)),
            slots: body.slots(),
            capabilities: (!granted.is_empty()).then_some(granted),
            is_cached: cache_key.is_some(),
        };
        let now = self.now.wall;
        let last = self.facts.live_mut(key).last.get_or_insert_default();
        last.version = Some(version);
        last.runner = name;
        last.started = None;
        last.n = attempt.n;
        last.sent = now;
        last.cache_key = cache_key;
        last.adds_tasks = false;
        self.send_assignment(ConnectionId(runner.0), assignment);
    }

    /// Sends an assignment to a runner. Assignments that follow each other in a turn go to the
    /// runner in one message.
    fn send_assignment(&mut self, connection: ConnectionId, assignment: Assignment) {
        let Some(connection) = self.connections.get(&connection) else {
            return;
        };
        if let Some((outbox, FromMaster::Send(assignments))) = self.turn.now.last_mut()
            && outbox.same_channel(&connection.outbox)
        {
            assignments.push(assignment);
        } else {
            let message = FromMaster::Send(vec![assignment]);
            self.turn.now.push((connection.outbox.clone(), message));
        }
    }

    /// Results that memory has, as many as are sent together with an attempt.
    fn results_in_memory<'a>(
        &self,
        references: impl Iterator<Item = &'a TaskId>,
    ) -> BTreeMap<TaskId, ResultRef> {
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

    /// The error of an attempt whose runner was lost. The loss is remembered with the task.
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
        self.persist(Record::Retrying(Box::new(record)));
    }

    /// What happened to an attempt whose runner was lost, as a clause.
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
            .lost_links
            .get(name)
            .map_or("it did not come back", |how| &**how);
        format!(
            "attempt {} on `{name}`, sent at {}, lost at {}: {how}",
            attempt.n, last.sent, self.now.wall
        )
    }

    fn poison_error(&self, key: TaskKey, attempt: AttemptId) -> TaskError {
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

    /// A task has ended. It takes `told` if this report or answer ended the task.
    fn ended(&mut self, ending: EndingTask, told: &mut Option<Told>) {
        let EndingTask {
            key,
            state,
            why,
            attempt,
        } = ending;
        let told = told.take_if(|_| ends_by_what_was_told(why));
        let EndWithoutReport { error, skipped_for } = self.end_without_report(key, why, attempt);
        let runner = match &told {
            Some(Told::Report(report)) => self.runner_name(report.runner),
            Some(Told::Answer(_)) | None => None,
        };
        let seq = self.last_seq + 1;
        let finished = self.now.wall;
        let epoch = self.epoch;
        let body = self.facts.whole_body(key);
        let live = self.facts.live_mut(key);
        let last = live.last.take().unwrap_or_default();
        let last_sent = attempt.max(AttemptId { epoch, n: last.n });
        // A report may come of an attempt that an earlier master had sent, nobody knows when.
        let sent = if last.n == attempt.n {
            last.sent.max(body.created)
        } else {
            body.created
        };
        let skipped = skipped_for.map(|on| EndExtras {
            skipped_for: Some(on),
            ..EndExtras::default()
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
        let sent_attempt = SentAttempt {
            key: last.cache_key.filter(|_| last.n == attempt.n),
            adds_tasks: last.adds_tasks,
        };
        match told {
            Some(Told::Report(report)) => {
                self.take_report(&body, &mut end, report.report, sent_attempt);
            }
            Some(Told::Answer(entry)) => answer_with(&mut end, &entry, finished),
            None => {}
        }
        if let EndReason::SharedRun(by) = why {
            self.shared_answer(&mut end, by);
        }
        let run_us = end.stats.map_or(0, |stats| stats.run_us);
        let run_us = i64::try_from(run_us).unwrap_or(i64::MAX);
        let latest = Wall(finished.0.saturating_sub(run_us));
        end.started = end.started.map(|said| began(said, sent, latest));
        let ended = Ended::new(seq, &body, end);
        self.forget_waits(key, &body);
        self.remember(key, Arc::new(ended));
    }

    /// Adds what a runner has reported to the end of a task, and keeps the answer where it may be.
    fn take_report(
        &mut self,
        body: &TaskBody,
        end: &mut TaskEnd,
        report: AttemptReport,
        sent: SentAttempt,
    ) {
        let own_ttl_s = ttl_of(&report);
        add_report(end, report);
        if end.result.is_some() {
            self.keep_answer(body, end, sent, own_ttl_s);
        }
    }

    fn remember(&mut self, key: TaskKey, ended: Arc<Ended>) {
        if let Some(entry) = CacheEntry::of(&ended) {
            self.answer_kept(entry);
        }
        self.events.partials().forget(&ended.id);
        self.facts.ended(key, ended.clone());
        let run = self.core.job(&ended.job).map_or(0, |job| job.run);
        self.facts.ended_in_run(run, ended.clone());
        self.finished[final_state_index(ended.end.state)] += 1;
        self.persist(Record::Ended(ended));
    }

    fn end_without_report(
        &mut self,
        key: TaskKey,
        why: EndReason,
        attempt: AttemptId,
    ) -> EndWithoutReport {
        let skipped = |on: &TaskId, how: FinalState| {
            let text = format!(
                "the task `{on}`, on which it depends, ended as {}",
                how.task_state().as_str()
            );
            EndWithoutReport {
                error: Some(TaskError::new(ErrorKind::Input, text)),
                skipped_for: Some(on.clone()),
            }
        };
        let failed = |error: TaskError| EndWithoutReport {
            error: Some(error),
            skipped_for: None,
        };
        match why {
            EndReason::Report | EndReason::KeptAnswer | EndReason::SharedRun(_) => {
                EndWithoutReport::default()
            }
            EndReason::Cancelled => {
                failed(TaskError::new(ErrorKind::Cancelled, "it was cancelled"))
            }
            EndReason::Dependency(on, how) => skipped(&self.facts.body(on).id, how),
            EndReason::EarlierDependency(index, how) => {
                let body = self.facts.body(key);
                let on = body.dependencies().get(index);
                on.map_or_else(EndWithoutReport::default, |on| skipped(&on.on, how))
            }
            EndReason::ToldDependency => self.why_skipped.take().unwrap_or_default(),
            EndReason::Poison => failed(self.poison_error(key, attempt)),
        }
    }

    /// Sends a live event to watchers. The event is only made if somebody watches.
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

/// Whether a task that ends for this reason ends by the report or the answer of which the core was told.
fn ends_by_what_was_told(why: EndReason) -> bool {
    match why {
        EndReason::Report | EndReason::KeptAnswer => true,
        EndReason::Cancelled
        | EndReason::Dependency(..)
        | EndReason::EarlierDependency(..)
        | EndReason::ToldDependency
        | EndReason::SharedRun(_)
        | EndReason::Poison => false,
    }
}

/// How long the answer may be used again, in seconds, as the attempt itself has said.
fn ttl_of(report: &AttemptReport) -> Option<u64> {
    match report {
        AttemptReport::Done(done) => done.cache_s,
        AttemptReport::Failed(_) => None,
    }
}

/// Adds what a runner reported about the last attempt.
fn add_report(end: &mut TaskEnd, report: AttemptReport) {
    match report {
        AttemptReport::Done(done) => {
            end.result = Some(TaskOutput::new(done.result, done.outputs));
            end.started = Some(Wall(done.started_us));
            end.stats = Some(done.stats);
            end.log = (!done.log.is_empty()).then(|| Box::new(done.log));
        }
        AttemptReport::Failed(failed) => {
            end.error = Some(failed.error);
            end.started = failed.started_us.map(Wall).or(end.started);
            end.stats = Some(failed.stats);
            end.log = (!failed.log.is_empty()).then(|| Box::new(failed.log));
        }
    }
}

/// A job of the core as a record.
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
