//! Jobs: groups of tasks that are waited for, cancelled and shared fairly by. The counts of a job
//! are kept up to date, and never counted.

use crate::effect::{DurableChange, Effect};
use crate::keys::JobKey;
use crate::one_or_many::OneOrMany;
use crate::ready::{JobQueueKey, JobUsage};
use crate::ready_queues::ReadyQueues;
use crate::scheduler::Scheduler;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use taskmaster_protocol::{JobName, TaskState};

/// What is stored of a job that the core does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredJob {
    /// How many times the job was opened.
    pub run: u32,
    /// Tasks that were ever added to the job, and in which states those that ended are.
    pub counts: JobCounts,
    /// Whether the job is paused.
    pub paused: bool,
}

/// The number of a job's tasks in each state. Tasks in final states are counted over all runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Tasks that were ever added.
    pub total: u64,
    /// By [`TaskState`], in its order.
    pub by_state: [u64; 8],
}

impl JobCounts {
    /// Tasks in a state.
    pub fn of(&self, state: TaskState) -> u64 {
        self.by_state[state as usize]
    }

    /// Tasks that have not ended.
    pub fn open(&self) -> u64 {
        TaskState::ALL
            .iter()
            .filter(|state| !state.is_final())
            .map(|state| self.of(*state))
            .sum()
    }

    pub(crate) fn add(&mut self, state: TaskState) {
        self.by_state[state as usize] += 1;
    }

    pub(crate) fn remove(&mut self, state: TaskState) {
        assert!(
            self.of(state) > 0,
            "no task of the job is {}",
            state.as_str()
        );
        self.by_state[state as usize] -= 1;
    }

    pub(crate) fn moved(&mut self, from: TaskState, to: TaskState) {
        self.remove(from);
        self.add(to);
    }
}

/// A job as the core keeps it, while the job is open or the core holds a task of it. The fields that
/// are used for every task come first, so that they share cache lines.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Job {
    /// Whether a run of the job is going on: a session holds the job, or a task of it is open.
    pub open: bool,
    /// Whether tasks of the job are held back.
    pub paused: bool,
    /// How many times the job was opened.
    pub run: u32,
    /// What the job has used. Jobs that have used less come first.
    pub(crate) usage: JobUsage,
    /// The queues of groups in which the job stands, under its usage.
    pub(crate) queued_in: OneOrMany<JobQueueKey>,
    /// The job's ready tasks.
    pub(crate) ready: ReadyQueues,
    /// The number of tasks in the table that name the job.
    pub(crate) tasks: usize,
    /// Tasks by state.
    pub counts: JobCounts,
    /// The sessions that hold the job. A session that has lost its connection has a time, when the
    /// hold ends; in microseconds of the monotonic clock.
    pub(crate) holders: BTreeMap<Arc<str>, Option<u64>>,
    /// The job's name.
    pub name: JobName,
    /// Cancels of the job that are being carried out.
    pub(crate) cancels: usize,
}

impl Job {
    /// Whether no task of the job is sent for now.
    pub(crate) fn is_held_back(&self) -> bool {
        self.paused || self.cancels > 0
    }

    fn is_idle(&self) -> bool {
        self.open && self.holders.is_empty() && self.counts.open() == 0
    }
}

/// A run of a job that is over.
#[derive(Debug)]
struct EndedRun {
    job: JobKey,
    /// [`JobUsage::opened`] of the job, which tells it from others that had its key before.
    opened: u64,
    run: u32,
}

/// The jobs that the core holds, by key and by name.
#[derive(Debug, Default)]
pub(crate) struct JobTable {
    slots: Vec<Option<Job>>,
    free: Vec<u32>,
    names: BTreeMap<JobName, JobKey>,
    /// Jobs that may be idle. They are closed when the turn ends, and not before, because the next
    /// task may belong to the same batch.
    maybe_idle: Vec<JobKey>,
    /// Runs that are over, those of former turns first.
    ended_runs: Vec<EndedRun>,
    /// How many of the ended runs are of former turns. The shell has read the last counts of their
    /// jobs.
    read_runs: usize,
    /// How many jobs were ever taken in.
    opened: u64,
}

impl JobTable {
    /// The key of a job, if the core holds it.
    pub fn key(&self, name: &JobName) -> Option<JobKey> {
        self.names.get(name).copied()
    }

    fn slot(&self, key: JobKey) -> Option<&Job> {
        self.slots.get(key.0 as usize).and_then(Option::as_ref)
    }

    /// A job that the core must hold, because the key was found in one of the core's own indices.
    #[expect(clippy::panic, reason = "a job is dropped only when nothing names it")]
    pub fn get(&self, key: JobKey) -> &Job {
        self.slot(key).unwrap_or_else(|| {
            panic!("the core's own index names job {key:?}, which it does not hold")
        })
    }

    /// A job that the core must hold, to be changed.
    #[expect(clippy::panic, reason = "a job is dropped only when nothing names it")]
    pub fn get_mut(&mut self, key: JobKey) -> &mut Job {
        let job = self.slots.get_mut(key.0 as usize).and_then(Option::as_mut);
        job.unwrap_or_else(|| {
            panic!("the core's own index names job {key:?}, which it does not hold")
        })
    }

    /// Every job, by ascending key.
    pub fn iter(&self) -> impl Iterator<Item = (JobKey, &Job)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(i, slot)| slot.as_ref().map(|job| (JobKey(i as u32), job)))
    }

    fn insert(&mut self, name: JobName, stored: StoredJob) -> JobKey {
        self.opened += 1;
        let job = Job {
            name: name.clone(),
            run: stored.run,
            open: false,
            paused: stored.paused,
            counts: stored.counts,
            holders: BTreeMap::new(),
            ready: ReadyQueues::default(),
            usage: JobUsage {
                slots_in_use: 0,
                slot_time_us: 0,
                opened: self.opened,
            },
            queued_in: OneOrMany::default(),
            tasks: 0,
            cancels: 0,
        };
        let key = JobKey(self.free.pop().unwrap_or(self.slots.len() as u32));
        if key.0 as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[key.0 as usize] = Some(job);
        self.names.insert(name, key);
        key
    }

    /// Drops the jobs whose runs ended in former turns, unless the core holds a task of the job or a
    /// cancel is being carried out. Called when a turn begins to end, so that the engine can read the
    /// last counts of the jobs that this turn closes.
    pub fn drop_closed(&mut self) {
        let unread = self.ended_runs.split_off(self.read_runs);
        for ended in std::mem::replace(&mut self.ended_runs, unread) {
            let key = ended.job;
            let Some(job) = self.slot(key) else {
                continue;
            };
            let is_another_run = job.usage.opened != ended.opened || job.run != ended.run;
            if job.open || is_another_run {
                continue;
            }
            if job.tasks > 0 || job.cancels > 0 {
                self.ended_runs.push(ended);
                continue;
            }
            let name = job.name.clone();
            self.slots[key.0 as usize] = None;
            self.names.remove(&name);
            self.free.push(key.0);
        }
    }

    /// Marks the ended runs as read: the engine carries out this turn's effects before the next turn
    /// ends.
    pub fn turn_ended(&mut self) {
        self.read_runs = self.ended_runs.len();
    }
}

impl Scheduler {
    /// The job of a name, if the core holds it.
    pub fn job(&self, name: &JobName) -> Option<&Job> {
        self.jobs.key(name).map(|key| self.jobs.get(key))
    }

    /// Every job that the core holds.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().map(|(_, job)| job)
    }

    /// The jobs that the core holds and whose names come behind `name`, in the order of their names.
    pub fn jobs_after(&self, name: &str) -> impl Iterator<Item = &Job> {
        let names = self.jobs.names.range::<str, _>((Excluded(name), Unbounded));
        names.map(|(_, key)| self.jobs.get(*key))
    }

    /// The job of a key, which is that of a task in the core.
    pub fn job_by_key(&self, key: JobKey) -> &Job {
        self.jobs.get(key)
    }

    /// Begins a run of a job.
    pub(crate) fn open_job(
        &mut self,
        name: JobName,
        stored: StoredJob,
        restored: bool,
        effects: &mut Vec<Effect>,
    ) {
        let paused = stored.paused;
        let key = match self.jobs.key(&name) {
            Some(key) => key,
            None => self.jobs.insert(name.clone(), stored),
        };
        let job = self.jobs.get_mut(key);
        if job.open {
            return;
        }
        job.open = true;
        // The core may have held the job since its last run, and the job may have been paused since.
        job.paused = paused;
        if !restored {
            job.run += 1;
            effects.push(Effect::Store(DurableChange::JobOpened(name)));
        }
        self.close_if_idle(key);
    }

    /// Has the job's run end with the turn if nobody holds the job and no task of it is open.
    pub(crate) fn close_if_idle(&mut self, key: JobKey) {
        if self.jobs.get(key).is_idle() {
            self.jobs.maybe_idle.push(key);
        }
    }

    /// Ends the runs of jobs that are still idle.
    pub(crate) fn close_idle(&mut self, effects: &mut Vec<Effect>) {
        for key in std::mem::take(&mut self.jobs.maybe_idle) {
            let job = self.jobs.get_mut(key);
            if !job.is_idle() {
                continue;
            }
            job.open = false;
            effects.push(Effect::Store(DurableChange::JobDone(job.name.clone())));
            let ended = EndedRun {
                job: key,
                opened: job.usage.opened,
                run: job.run,
            };
            self.jobs.ended_runs.push(ended);
        }
    }

    pub(crate) fn pause_job(&mut self, name: &JobName, paused: bool, effects: &mut Vec<Effect>) {
        let Some(key) = self.jobs.key(name) else {
            return;
        };
        let job = self.jobs.get_mut(key);
        if job.paused == paused {
            return;
        }
        job.paused = paused;
        effects.push(Effect::Store(DurableChange::JobPaused {
            job: name.clone(),
            paused,
        }));
        if paused {
            self.unreserve_where(|task, _| task.job == key, effects);
        }
        self.requeue_job(key);
    }
}
