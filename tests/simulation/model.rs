//! What the records say, read by the simplest means: who is open, how who ended, which job is open. Every record is
//! judged against what came before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_master::record::{Ended, Record, TaskBody};
use taskmaster_protocol::{AttemptId, JobName, TaskId, TaskState, When};

type Verdict = Result<(), String>;

/// What became of a task.
#[derive(Debug, Clone)]
pub struct Fate {
    pub body: Arc<TaskBody>,
    /// Its ends: more than one where it was opened again.
    pub ends: Vec<Arc<Ended>>,
    pub open: bool,
    pub priority: i32,
    /// Failures, lost runners.
    pub tries: u32,
    pub lost: u32,
    /// Attempts up to this one are void.
    pub fence: AttemptId,
}

#[derive(Debug, Clone, Default)]
pub struct JobFate {
    pub open: bool,
    pub run: u32,
    pub paused: bool,
    pub open_tasks: u64,
    pub total: u64,
    pub holders: BTreeSet<Arc<str>>,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub commits: u64,
    pub seq: u64,
    pub epoch: u32,
    pub no: u64,
    pub tasks: BTreeMap<TaskId, Fate>,
    by_no: BTreeMap<u64, TaskId>,
    pub jobs: BTreeMap<JobName, JobFate>,
    pub roster: BTreeSet<String>,
}

fn claim(holds: bool, text: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(text()) }
}

impl Fate {
    /// Whether it ended, in this life or an earlier one, as `when` wants.
    fn has_met(&self, when: When) -> bool {
        self.ends.iter().any(|ended| meets(ended.state, when))
    }

    fn has_missed(&self, when: When) -> bool {
        self.ends.iter().any(|ended| !meets(ended.state, when))
    }
}

fn meets(state: TaskState, when: When) -> bool {
    match when {
        When::Done => state == TaskState::Done,
        When::Failed => state == TaskState::Failed,
        When::Settled => true,
    }
}

impl Model {
    /// Takes the records of a turn or a commit.
    pub fn take(&mut self, first_seq: u64, records: &[Record]) -> Verdict {
        claim(first_seq == self.seq + 1, || format!("after event {} comes event {first_seq}", self.seq))?;
        for record in records {
            self.seq += u64::from(record.event().is_some());
            self.record(record)?;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Verdict {
        match record {
            Record::Started { epoch } => {
                claim(*epoch == self.epoch + 1, || format!("epoch {epoch} follows {}", self.epoch))?;
                self.epoch = *epoch;
            }
            Record::Added(body) => self.added(body)?,
            Record::Ended(ended) => self.ended(ended)?,
            Record::Retrying(retrying) => {
                let fate = self.open(&retrying.id, "is to be retried")?;
                let counts = (fate.tries + fate.lost + 1, fate.fence);
                claim(counts.0 == retrying.tries + retrying.lost, || {
                    format!("{} has miscounted its tries", retrying.id)
                })?;
                claim(retrying.attempt > counts.1, || format!("{} failed by a void attempt", retrying.id))?;
                (fate.tries, fate.lost) = (retrying.tries, retrying.lost);
                fate.fence = retrying.fence.unwrap_or(fate.fence).max(fate.fence);
            }
            Record::Reopened { body, fence, ended, was, .. } => self.reopened(body, *fence, *ended, *was)?,
            Record::Set { no, priority, .. } => {
                let id = self.by_no.get(no).cloned().ok_or_else(|| format!("task number {no} is set, and unknown"))?;
                self.open(&id, "is set")?.priority = *priority;
            }
            Record::RunnerJoined { name } => {
                claim(self.roster.insert(name.clone()), || format!("runner {name} joined twice"))?;
            }
            Record::RunnerLost { name } => drop(self.roster.remove(name)),
            Record::Module { .. } => {}
            _ => self.of_job(record)?,
        }
        Ok(())
    }

    fn of_job(&mut self, record: &Record) -> Verdict {
        match record {
            Record::JobOpened { job, run } => {
                let fate = self.jobs.entry(job.clone()).or_default();
                claim(!fate.open && *run == fate.run + 1, || format!("job {job} is opened for run {run}: {fate:?}"))?;
                (fate.open, fate.run) = (true, *run);
            }
            Record::JobDone { job, run } => {
                let fate = self.jobs.entry(job.clone()).or_default();
                let idle = fate.open && fate.run == *run && fate.open_tasks == 0 && fate.holders.is_empty();
                claim(idle, || format!("job {job} is done: {fate:?}"))?;
                fate.open = false;
            }
            Record::JobHeld { job, by, held } => {
                let fate = self.jobs.entry(job.clone()).or_default();
                claim(fate.open, || format!("job {job} is held, and not open"))?;
                let changed = if *held { fate.holders.insert(by.clone()) } else { fate.holders.remove(by) };
                claim(changed, || format!("job {job} is held by {by}: {held}, and was so"))?;
            }
            Record::JobPaused { job, paused } => self.jobs.entry(job.clone()).or_default().paused = *paused,
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, id: &TaskId, what: &str) -> Result<&mut Fate, String> {
        let fate = self.tasks.get_mut(id).ok_or_else(|| format!("{id} {what}, and nobody added it"))?;
        if fate.open {
            Ok(fate)
        } else {
            Err(format!("{id} {what}, and has ended as {:?}", fate.ends.last().map(|e| e.state)))
        }
    }

    fn added(&mut self, body: &Arc<TaskBody>) -> Verdict {
        claim(!self.tasks.contains_key(&body.id), || format!("{} is added twice", body.id))?;
        claim(body.no == self.no + 1, || format!("{} has number {} after {}", body.id, body.no, self.no))?;
        for dependency in body.dependencies() {
            claim(self.tasks.contains_key(&dependency.on), || format!("{} waits for nobody", body.id))?;
        }
        self.no = body.no;
        self.by_no.insert(body.no, body.id.clone());
        let fence = AttemptId { epoch: self.epoch, n: 0 };
        let (body, priority) = (body.clone(), body.priority);
        self.open_task(&body.job, 1)?;
        let fate = Fate { body: body.clone(), ends: Vec::new(), open: true, priority, tries: 0, lost: 0, fence };
        self.tasks.insert(body.id.clone(), fate);
        Ok(())
    }

    fn open_task(&mut self, job: &JobName, new: u64) -> Verdict {
        let fate = self.jobs.entry(job.clone()).or_default();
        claim(fate.open, || format!("a task of job {job} is open, the job is not"))?;
        fate.open_tasks += 1;
        fate.total += new;
        Ok(())
    }

    fn ended(&mut self, ended: &Arc<Ended>) -> Verdict {
        let (id, seq) = (&ended.id, self.seq);
        claim(ended.seq == seq, || format!("{id} ended with event {}, which is event {seq}", ended.seq))?;
        let fate = self.open(id, "ends")?;
        let void = ended.attempt <= fate.fence;
        let body = fate.body.clone();
        match ended.state {
            TaskState::Done => {
                claim(!void, || format!("{id} is done by attempt {}, which is void", ended.attempt))?;
                self.may_run(&body)?;
            }
            TaskState::Skipped => {
                let missed = body.dependencies().iter().find(|dependency| {
                    Some(&dependency.on) == ended.because.as_ref()
                        && self.tasks.get(&dependency.on).is_some_and(|on| on.has_missed(dependency.when))
                });
                claim(missed.is_some(), || format!("{id} is skipped for {:?}, for no reason", ended.because))?;
            }
            _ => {}
        }
        let fate = self.open(id, "ends")?;
        fate.open = false;
        fate.ends.push(ended.clone());
        let job = self.jobs.entry(body.job.clone()).or_default();
        claim(job.open_tasks > 0, || format!("job {} has fewer than no open tasks", body.job))?;
        job.open_tasks -= 1;
        Ok(())
    }

    fn reopened(&mut self, body: &Arc<TaskBody>, fence: AttemptId, ended: u64, was: TaskState) -> Verdict {
        let id = &body.id;
        let fate = self.tasks.get_mut(id).ok_or_else(|| format!("{id} is opened again, and nobody added it"))?;
        let last = fate.ends.last().filter(|_| !fate.open);
        claim(last.is_some_and(|last| last.seq == ended && last.state == was), || {
            format!("{id} is opened again from {was:?} of event {ended}, its end was {last:?}")
        })?;
        (fate.open, fate.tries, fate.lost, fate.priority) = (true, 0, 0, body.priority);
        fate.fence = fate.fence.max(fence);
        self.open_task(&body.job, 0)
    }

    /// Whether all that the task waits for has ended as it wants.
    pub fn may_run(&self, body: &TaskBody) -> Verdict {
        for dependency in body.dependencies() {
            let met = self.tasks.get(&dependency.on).is_some_and(|on| on.has_met(dependency.when));
            claim(met, || format!("{} runs, and {} is not {:?}", body.id, dependency.on, dependency.when))?;
        }
        Ok(())
    }
}
