//! What a queue is, read from the records by the simplest means: which tasks are open and what they
//! wait for, how tasks ended, which jobs are open, and what is no longer kept. Every record is judged
//! by what came before it. From this model `expect.rs` says what must follow from an input, and
//! `questions.rs` what must be answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_protocol::{
    AttemptId, ErrorKind, Hash, JobName, ModuleName, TaskError, TaskId, TaskState, Wall, When,
};
use taskmaster_store::body::TaskBody;
use taskmaster_store::record::{Ended, ModuleRecord, Record, Retrying, final_state_index};

type Verdict = Result<(), String>;

/// What the records say of a task.
#[derive(Debug, Clone)]
pub struct Fate {
    pub body: Arc<TaskBody>,
    /// Every end of the task. A task that was opened again has several.
    pub ends: Vec<Arc<Ended>>,
    pub open: bool,
    /// The open tasks that the task waits for.
    pub waits: BTreeSet<TaskId>,
    pub priority: i32,
    /// The earliest start, if a back-off or a change has set one.
    pub due: Option<Wall>,
    /// Failures counted.
    pub tries: u32,
    /// Lost runners counted.
    pub lost: u32,
    /// Failures of this attempt and older ones count no more. The next master takes no report of
    /// them.
    pub fence: AttemptId,
    /// This attempt and older ones are void. It was the fence when the task was opened, or when this
    /// master started.
    pub void: AttemptId,
    /// Attempts whose failure was counted under this master.
    pub failed: BTreeSet<AttemptId>,
}

/// What the records say of a job.
#[derive(Debug, Clone, Default)]
pub struct JobFate {
    pub open: bool,
    pub run: u32,
    pub paused: bool,
    pub open_tasks: u64,
    pub total: u64,
    /// Tasks that ended, over all runs, by [`final_state_index`].
    pub ended: [u64; 4],
    pub holders: BTreeSet<Arc<str>>,
}

/// An answer that is kept.
#[derive(Debug, Clone)]
struct Answer {
    body: Arc<TaskBody>,
    ended: Arc<Ended>,
}

/// What the records of a journal say.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub commits: u64,
    pub seq: u64,
    pub epoch: u32,
    /// The number of the last task that was added.
    pub no: u64,
    pub tasks: BTreeMap<TaskId, Fate>,
    by_no: BTreeMap<u64, TaskId>,
    pub jobs: BTreeMap<JobName, JobFate>,
    /// Jobs that the last turn or commit has opened.
    opened: BTreeSet<JobName>,
    /// Tasks that the last turn or commit has opened again.
    revived: BTreeSet<TaskId>,
    pub roster: BTreeSet<String>,
    pub modules: BTreeMap<ModuleName, ModuleRecord>,
    /// The kept answers by their keys, each with the task that came to it.
    answers: BTreeMap<Hash, Answer>,
    /// Ended tasks that may be forgotten, with the seq of their end. Their ids are free for other
    /// tasks.
    pub leaving: BTreeMap<TaskId, u64>,
    /// Ended tasks that are no longer kept, each as it was at the end.
    pub gone: BTreeMap<TaskId, Fate>,
}

fn claim(holds: bool, text: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(text()) }
}

impl Fate {
    /// Whether a failure with this error is tried again, after `before` failures that the model does
    /// not know of yet.
    pub fn tries_again(&self, error: &TaskError, before: u32) -> bool {
        let policy = self
            .body
            .extras
            .as_ref()
            .and_then(|rare| rare.retries.clone())
            .unwrap_or_default();
        self.tries + before < policy.max && policy.wants(error)
    }

    /// Whether a success of this attempt may count. Its runner may have been lost, and may come back
    /// after a newer attempt has failed.
    pub fn may_succeed(&self, attempt: AttemptId) -> bool {
        attempt > self.void && !self.failed.contains(&attempt)
    }

    /// Whether any end of the task is one that `when` waits for.
    fn has_met(&self, when: When) -> bool {
        self.ends.iter().any(|ended| meets(ended.end.state, when))
    }

    fn has_missed(&self, when: When) -> bool {
        self.ends.iter().any(|ended| !meets(ended.end.state, when))
    }
}

fn waited_for(body: &TaskBody) -> impl Iterator<Item = &TaskId> {
    body.dependencies().iter().map(|dependency| &dependency.on)
}

fn meets(state: TaskState, when: When) -> bool {
    match when {
        When::Done => state == TaskState::Done,
        When::Failed => state == TaskState::Failed,
        When::Settled => true,
    }
}

impl Model {
    /// Takes in the records of a turn or a commit.
    pub fn take(&mut self, first_seq: u64, records: &[Record]) -> Verdict {
        self.opened.clear();
        self.revived.clear();
        claim(first_seq == self.seq + 1, || {
            format!("after event {} comes event {first_seq}", self.seq)
        })?;
        for record in records {
            self.seq += u64::from(record.event().is_some());
            self.record(record)?;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Verdict {
        match record {
            Record::Started { epoch } => {
                claim(*epoch == self.epoch + 1, || {
                    format!("epoch {epoch} follows {}", self.epoch)
                })?;
                self.epoch = *epoch;
                self.leaving.clear();
                for fate in self.tasks.values_mut() {
                    fate.void = fate.fence;
                    fate.failed.clear();
                }
                self.count_anew();
            }
            Record::Added(body) => self.added(body)?,
            Record::Ended(ended) => self.ended(ended)?,
            Record::Retrying(retrying) => self.retrying(retrying)?,
            Record::Reopened {
                body,
                fence,
                ended_seq,
                former_state,
                ..
            } => self.reopened(body, *fence, *ended_seq, *former_state)?,
            Record::Continued { body, fence } => self.continued(body, *fence)?,
            Record::Set {
                ordinal: no,
                priority,
                due,
            } => {
                let id = self
                    .by_no
                    .get(no)
                    .cloned()
                    .ok_or_else(|| format!("task number {no} is set, and unknown"))?;
                let fate = self.open(&id, "is set")?;
                fate.priority = *priority;
                fate.due = due.or(fate.due);
            }
            Record::RunnerJoined { name } => {
                claim(self.roster.insert(name.clone()), || {
                    format!("runner {name} joined twice")
                })?;
            }
            Record::RunnerLost { name } => drop(self.roster.remove(name)),
            Record::Module { name, record, .. } => {
                drop(self.modules.insert(name.clone(), (**record).clone()))
            }
            Record::AnswersDropped { keys } => {
                for key in keys {
                    let dropped = self.answers.remove(key);
                    claim(dropped.is_some(), || {
                        format!("{key} is dropped, and not kept")
                    })?;
                }
            }
            Record::Rights { .. }
            | Record::JobOpened { .. }
            | Record::JobDone { .. }
            | Record::JobHeld { .. }
            | Record::JobPaused { .. }
            | Record::JobCancelled { .. } => self.job_record(record)?,
        }
        Ok(())
    }

    fn job_record(&mut self, record: &Record) -> Verdict {
        match record {
            // No manifest in this world asks for a capability.
            Record::Rights { name, .. } => return Err(format!("the rights of {name} changed")),
            Record::JobOpened { job, run } => {
                let fate = self.jobs.entry(job.clone()).or_default();
                claim(!fate.open && *run == fate.run + 1, || {
                    format!("job {job} is opened for run {run}: {fate:?}")
                })?;
                fate.open = true;
                fate.run = *run;
                self.opened.insert(job.clone());
            }
            Record::JobDone { job, run } => {
                let fate = self.jobs.entry(job.clone()).or_default();
                let idle = fate.open
                    && fate.run == *run
                    && fate.open_tasks == 0
                    && fate.holders.is_empty();
                claim(idle, || format!("job {job} is done: {fate:?}"))?;
                fate.open = false;
            }
            Record::JobHeld { job, by, held } => {
                let fate = self.jobs.entry(job.clone()).or_default();
                claim(fate.open, || format!("job {job} is held, and not open"))?;
                let changed = if *held {
                    fate.holders.insert(by.clone())
                } else {
                    fate.holders.remove(by)
                };
                claim(changed, || {
                    format!("job {job} is held by {by}: {held}, and was so")
                })?;
            }
            Record::JobPaused { job, paused } => {
                self.jobs.entry(job.clone()).or_default().paused = *paused;
            }
            // The ends of the tasks say what the model needs to know of a cancel.
            Record::JobCancelled { .. } => {}
            Record::Started { .. }
            | Record::Added(_)
            | Record::Ended(_)
            | Record::Retrying(_)
            | Record::Reopened { .. }
            | Record::Continued { .. }
            | Record::Set { .. }
            | Record::RunnerJoined { .. }
            | Record::RunnerLost { .. }
            | Record::Module { .. }
            | Record::AnswersDropped { .. } => {}
        }
        Ok(())
    }

    fn retrying(&mut self, retrying: &Retrying) -> Verdict {
        let id = &retrying.id;
        let fate = self.open(id, "is to be retried")?;
        let by_report = retrying.fence.is_some();
        let counted = fate.tries + fate.lost + 1;
        claim(counted == retrying.tries + retrying.lost, || {
            format!("{id} has miscounted its tries")
        })?;
        // A runner may be lost with an attempt that is older than one that failed.
        let above = if by_report { fate.fence } else { fate.void };
        claim(retrying.attempt > above, || {
            format!("{id} failed by a void attempt")
        })?;
        let again = if by_report {
            fate.tries_again(&retrying.error, 0)
        } else {
            fate.lost < 4
        };
        claim(again, || {
            format!("{id} is tried again after {retrying:?}: {fate:?}")
        })?;
        fate.tries = retrying.tries;
        fate.lost = retrying.lost;
        fate.fence = retrying.fence.unwrap_or(fate.fence).max(fate.fence);
        fate.failed.extend(retrying.fence);
        fate.due = if by_report {
            Some(retrying.due)
        } else {
            fate.due.max(Some(retrying.due))
        };
        Ok(())
    }

    /// An attempt ended, and its task goes on as another one.
    fn continued(&mut self, body: &Arc<TaskBody>, fence: AttemptId) -> Verdict {
        let last = self.open(&body.id, "goes on")?.body.clone();
        self.may_run(&last)?;
        let same = last.ordinal == body.ordinal
            && last.job == body.job
            && last.fingerprint == body.fingerprint;
        claim(same, || {
            format!("{} goes on as another task than it was", body.id)
        })?;
        for on in waited_for(body) {
            claim(self.tasks.contains_key(on), || {
                format!("{} waits for nobody", body.id)
            })?;
        }
        let waits = self.open_dependencies(body);
        let fate = self.open(&body.id, "goes on")?;
        claim(fence > fate.void, || {
            format!("{} goes on after a void attempt", body.id)
        })?;
        fate.body = body.clone();
        fate.waits = waits;
        fate.priority = body.priority;
        fate.due = None;
        fate.tries = 0;
        fate.lost = 0;
        fate.fence = fence;
        fate.void = fence;
        fate.failed.clear();
        Ok(())
    }

    /// Finds anew what the open tasks wait for, because a master has started.
    fn count_anew(&mut self) {
        let open: Vec<Arc<TaskBody>> = self
            .tasks
            .values()
            .filter(|fate| fate.open)
            .map(|fate| fate.body.clone())
            .collect();
        for body in open {
            let waits = self.open_dependencies(&body);
            self.tasks
                .entry(body.id.clone())
                .and_modify(|fate| fate.waits = waits);
        }
    }

    /// A task whose last end has this seq.
    fn last_end(&self, id: &TaskId, seq: u64) -> Option<&Fate> {
        self.tasks
            .get(id)
            .filter(|fate| !fate.open && fate.ends.last().is_some_and(|ended| ended.seq == seq))
    }

    /// Why a task is needed that is to be no longer kept.
    pub fn needs(&self, id: &TaskId, seq: u64) -> Option<String> {
        let fate = self.last_end(id, seq)?;
        // A task may be opened again after the engine was asked. It has run, and so it has waited for
        // all tasks that it names.
        let names = |other: &&Fate| {
            other.open
                && !self.revived.contains(&other.body.id)
                && waited_for(&other.body).any(|on| on == id)
        };
        let needed = self.tasks.values().find(names);
        let needed =
            needed.map(|other| format!("{id} is no longer kept, and {} names it", other.body.id));
        // A job may be opened after the engine was asked.
        let job = &fate.body.job;
        let job_open = self.jobs.get(job).is_some_and(|job| job.open) && !self.opened.contains(job);
        needed.or(job_open.then(|| format!("{id} is no longer kept, and its job is open")))
    }

    /// Takes out a task that is no longer kept.
    pub fn forget(&mut self, id: &TaskId, seq: u64) {
        self.leaving.remove(id);
        if self.last_end(id, seq).is_some()
            && let Some(fate) = self.tasks.remove(id)
        {
            self.gone.insert(id.clone(), fate);
        }
    }

    /// Whether this model, of what is durable, has the last end of a task or its opening, as the model
    /// of what the master knows has it.
    pub fn is_safe(&self, id: &TaskId, known: &Fate) -> bool {
        match known.ends.last().filter(|_| !known.open) {
            Some(ended) => ended.seq <= self.seq,
            None => self.tasks.get(id).is_none_or(|fate| fate.open),
        }
    }

    fn open(&mut self, id: &TaskId, what: &str) -> Result<&mut Fate, String> {
        let fate = self
            .tasks
            .get_mut(id)
            .ok_or_else(|| format!("{id} {what}, and nobody added it"))?;
        if fate.open {
            Ok(fate)
        } else {
            Err(format!(
                "{id} {what}, and has ended as {:?}",
                fate.ends.last().map(|e| e.end.state)
            ))
        }
    }

    fn added(&mut self, body: &Arc<TaskBody>) -> Verdict {
        if let Some(seq) = self.leaving.get(&body.id).copied() {
            self.forget(&body.id, seq);
        }
        claim(!self.tasks.contains_key(&body.id), || {
            format!("{} is added twice", body.id)
        })?;
        // The cancel of a job takes a number, too.
        claim(body.ordinal > self.no, || {
            format!("{} has number {} after {}", body.id, body.ordinal, self.no)
        })?;
        for dependency in body.dependencies() {
            claim(self.tasks.contains_key(&dependency.on), || {
                format!("{} waits for nobody", body.id)
            })?;
        }
        self.no = body.ordinal;
        self.by_no.insert(body.ordinal, body.id.clone());
        let fence = AttemptId {
            epoch: self.epoch,
            n: 0,
        };
        self.count_open_task(&body.job, 1)?;
        let fate = Fate {
            body: body.clone(),
            ends: Vec::new(),
            open: true,
            waits: self.open_dependencies(body),
            priority: body.priority,
            due: None,
            tries: 0,
            lost: 0,
            fence,
            void: fence,
            failed: BTreeSet::new(),
        };
        self.tasks.insert(body.id.clone(), fate);
        Ok(())
    }

    /// The task that `body` waits for under this id, if it is kept. A task that was added later, under
    /// an id that was free again, is another one, unless `body` has gone on since.
    fn dependency(&self, body: &TaskBody, id: &TaskId) -> Option<&Fate> {
        self.tasks
            .get(id)
            .filter(|fate| fate.body.ordinal < body.ordinal || body.is_continued())
    }

    /// A task that another one waits for, and that is no longer kept.
    pub fn lost_dependency<'a>(&self, body: &'a TaskBody) -> Option<&'a TaskId> {
        waited_for(body).find(|on| self.dependency(body, on).is_none())
    }

    fn open_dependencies(&self, body: &TaskBody) -> BTreeSet<TaskId> {
        waited_for(body)
            .filter(|on| self.dependency(body, on).is_some_and(|on| on.open))
            .cloned()
            .collect()
    }

    fn count_open_task(&mut self, job: &JobName, new: u64) -> Verdict {
        let fate = self.jobs.entry(job.clone()).or_default();
        claim(fate.open, || {
            format!("a task of job {job} is open, the job is not")
        })?;
        fate.open_tasks += 1;
        fate.total += new;
        Ok(())
    }

    /// A task ends with what another one came to. That one must be equal, and its answer kept and young
    /// enough, unless the task has waited for it.
    fn answered(&self, body: &TaskBody, ended: &Ended) -> Verdict {
        self.may_run(body)?;
        let Some(source) = ended.end.cached() else {
            return Ok(());
        };
        let id = &ended.id;
        let from = if source.joined {
            let fates = [self.tasks.get(&source.from), self.gone.get(&source.from)];
            let ends = fates.into_iter().flatten();
            ends.filter_map(|fate| Some((fate.body.clone(), fate.ends.last()?.clone())))
                .next()
        } else {
            let kept = self.answers.values();
            kept.map(|answer| (answer.body.clone(), answer.ended.clone()))
                .find(|(_, ended)| ended.id == source.from)
        };
        let (of, end) = from.ok_or_else(|| format!("{id} has an answer of nobody: {source:?}"))?;
        let same = end.end.state == ended.end.state
            && end.end.result == ended.end.result
            && end.end.cached().is_none();
        claim(same, || format!("{id} is told {ended:?} of {end:?}"))?;
        let equal = of.module == body.module && self.spliced(&of) == self.spliced(body);
        claim(equal || of.is_continued(), || {
            format!("{id} has the answer of {}, which is not equal", end.id)
        })?;
        if source.joined {
            return Ok(());
        }
        claim(end.end.state == TaskState::Done, || {
            format!("{id} has the kept failure of {}", end.id)
        })?;
        let current = self
            .modules
            .get(&body.module)
            .and_then(|record| record.current);
        claim(current == end.end.version, || {
            format!("{id} has the answer of another version than {current:?}: {end:?}")
        })?;
        let ttl_us = of.cache().map_or(0, |request| request.ttl_s * 1_000_000);
        claim(
            ended.end.finished < end.end.finished.plus_us(ttl_us),
            || format!("{id} has an answer that is too old: {end:?}"),
        )
    }

    /// The params of a task, with the results in the places of the ids.
    fn spliced(&self, body: &TaskBody) -> Option<String> {
        let mut text = body.params.as_ref()?.get().to_owned();
        for id in body.references() {
            let ends = self.known(id).filter_map(|fate| fate.ends.last());
            let result = ends.filter_map(|ended| ended.end.result.as_ref()).next();
            text = text.replace(&format!("\"{id}\""), &format!("{result:?}"));
        }
        Some(text)
    }

    /// The answer of a task is kept if its end says so, and the task must have come to it itself.
    fn keep_answer(&mut self, body: &Arc<TaskBody>, ended: &Arc<Ended>) -> Verdict {
        let kept = ended
            .end
            .extras
            .as_ref()
            .and_then(|extras| extras.kept.as_ref());
        let Some(terms) = kept else { return Ok(()) };
        let may_be = ended.end.state == TaskState::Done
            && ended.end.cached().is_none()
            && !body.is_continued()
            && body.cache().is_some_and(|request| request.ttl_s > 0);
        claim(may_be, || {
            format!("the answer of {} is kept: {ended:?}", ended.id)
        })?;
        let answer = Answer {
            body: body.clone(),
            ended: ended.clone(),
        };
        self.answers.insert(terms.key, answer);
        Ok(())
    }

    fn ended(&mut self, ended: &Arc<Ended>) -> Verdict {
        let id = &ended.id;
        let seq = self.seq;
        claim(ended.seq == seq, || {
            format!("{id} ended with event {}, which is event {seq}", ended.seq)
        })?;
        let fate = self.open(id, "ends")?;
        let void = !fate.may_succeed(ended.end.attempt);
        let body = fate.body.clone();
        match ended.end.state {
            _ if ended.end.cached().is_some() => self.answered(&body, ended)?,
            TaskState::Done => {
                claim(!void, || {
                    format!(
                        "{id} is done by attempt {}, which is void",
                        ended.end.attempt
                    )
                })?;
                self.may_run(&body)?;
            }
            TaskState::Skipped => {
                let missed = body.dependencies().iter().find(|dependency| {
                    Some(&dependency.on) == ended.end.skipped_for()
                        && self
                            .known(&dependency.on)
                            .any(|on| on.has_missed(dependency.when))
                });
                claim(missed.is_some(), || {
                    format!(
                        "{id} is skipped for {:?}, for no reason",
                        ended.end.skipped_for()
                    )
                })?;
            }
            TaskState::Failed => {
                let fate = self.open(id, "ends")?;
                let error = ended
                    .end
                    .error
                    .clone()
                    .unwrap_or_else(|| TaskError::new(ErrorKind::Trap, ""));
                let poison = error.kind == ErrorKind::RunnerLost && fate.lost == 4;
                claim(poison || !fate.tries_again(&error, 0), || {
                    format!("{id} fails with {error:?} for good: {fate:?}")
                })?;
                let above = if poison { fate.void } else { fate.fence };
                claim(ended.end.attempt > above, || {
                    format!("{id} fails by attempt {}, which is void", ended.end.attempt)
                })?;
            }
            TaskState::Cancelled => {}
            state @ (TaskState::Blocked
            | TaskState::Delayed
            | TaskState::Ready
            | TaskState::Assigned) => {
                return Err(format!("{id} ends as {state:?}, which is no end"));
            }
        }
        self.keep_answer(&body, ended)?;
        let fate = self.open(id, "ends")?;
        fate.open = false;
        fate.ends.push(ended.clone());
        fate.waits.clear();
        self.tasks
            .values_mut()
            .filter(|fate| fate.open)
            .for_each(|fate| _ = fate.waits.remove(id));
        let job = self.jobs.entry(body.job.clone()).or_default();
        claim(job.open_tasks > 0, || {
            format!("job {} has fewer than no open tasks", body.job)
        })?;
        job.open_tasks -= 1;
        job.ended[final_state_index(ended.end.state)] += 1;
        Ok(())
    }

    fn reopened(
        &mut self,
        body: &Arc<TaskBody>,
        fence: AttemptId,
        ended: u64,
        was: TaskState,
    ) -> Verdict {
        let id = &body.id;
        let fate = self
            .tasks
            .get_mut(id)
            .ok_or_else(|| format!("{id} is opened again, and nobody added it"))?;
        let last = fate.ends.last().filter(|_| !fate.open);
        claim(
            last.is_some_and(|last| last.seq == ended && last.end.state == was),
            || format!("{id} is opened again from {was:?} of event {ended}, its end was {last:?}"),
        )?;
        fate.open = true;
        fate.tries = 0;
        fate.lost = 0;
        fate.priority = body.priority;
        fate.due = None;
        fate.fence = fate.fence.max(fence);
        fate.void = fate.fence;
        if fence.n > 0 && !body.is_continued() {
            self.revived.insert(id.clone());
        } else {
            let lost = self.lost_dependency(body);
            claim(lost.is_none(), || {
                format!(
                    "{} is opened again, and what it waits for is not kept: {lost:?}",
                    body.id
                )
            })?;
        }
        let waits = self.open_dependencies(body);
        self.tasks
            .entry(id.clone())
            .and_modify(|fate| fate.waits = waits);
        self.count_open_task(&body.job, 0)?;
        let ended =
            &mut self.jobs.entry(body.job.clone()).or_default().ended[final_state_index(was)];
        *ended = ended.saturating_sub(1);
        Ok(())
    }

    /// The tasks that have or had this id.
    fn known(&self, id: &TaskId) -> impl Iterator<Item = &Fate> {
        self.tasks.get(id).into_iter().chain(self.gone.get(id))
    }

    /// Whether every task that this one waits for has ended as it wants.
    pub fn may_run(&self, body: &TaskBody) -> Verdict {
        for dependency in body.dependencies() {
            let met = self
                .known(&dependency.on)
                .any(|on| on.has_met(dependency.when));
            claim(met, || {
                format!(
                    "{} runs, and {} is not {:?}",
                    body.id, dependency.on, dependency.when
                )
            })?;
        }
        Ok(())
    }
}
