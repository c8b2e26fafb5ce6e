//! Jobs: groups that are waited for, cancelled and shared fairly by. Counts are kept, never
//! counted.

use crate::deadlines::Timer;
use crate::effect::{Change, Effect, Why};
use crate::event::TaskKey;
use crate::few::Few;
use crate::queues::Queues;
use crate::ready::{Place, Share};
use crate::scheduler::{Scheduler, TOUCHED_MAX};
use crate::state::{Final, State};
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmaster_protocol::{JobName, TaskState, limits};

/// Tasks that one turn cancels for a job: each makes a record, and everybody waits for the commit
/// with them.
const SWEPT_MAX: usize = 256;

/// Names a job that the core holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobKey(pub(crate) u32);

/// What a job was when it was last stored: the totals survive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// How many times it had been opened.
    pub run: u32,
    /// Tasks ever added to it, and how those that have ended did.
    pub counts: Counts,
    /// Whether it is paused.
    pub paused: bool,
}

/// Tasks of a job by state; final ones over all runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks ever added.
    pub total: u64,
    /// By [`TaskState`], in its order.
    pub by_state: [u64; 8],
}

impl Counts {
    /// Tasks in this state.
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

    pub(crate) fn add(&mut self, state: TaskState, n: u64) {
        self.by_state[state as usize] += n;
    }

    pub(crate) fn no_longer(&mut self, state: TaskState) {
        assert!(
            self.of(state) > 0,
            "no task of the job is {}",
            state.as_str()
        );
        self.by_state[state as usize] -= 1;
    }

    pub(crate) fn moved(&mut self, from: TaskState, to: TaskState) {
        assert!(self.of(from) > 0, "no task of the job is {}", from.as_str());
        self.by_state[from as usize] -= 1;
        self.by_state[to as usize] += 1;
    }
}

/// A job as the core keeps it, while it is open or a task of it is held. What every task of it
/// touches comes first and lies together.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Job {
    /// Whether it is open: somebody holds it or a task of it is open.
    pub open: bool,
    /// Whether its tasks are not sent.
    pub paused: bool,
    /// How many times it has been opened.
    pub run: u32,
    /// What it has had so far; who has had less comes first.
    pub(crate) share: Share,
    /// Where it stands in queues, under `share`.
    pub(crate) places: Few<Place>,
    /// Its ready tasks.
    pub(crate) ready: Queues,
    /// Tasks in the table that name it.
    pub(crate) tasks: usize,
    /// Tasks by state.
    pub counts: Counts,
    /// Sessions that hold it; a time: the link is cut, the hold ends then.
    pub(crate) holders: BTreeMap<Arc<str>, Option<u64>>,
    /// Its name.
    pub name: JobName,
    /// Cancels of it on their way through the table.
    pub(crate) sweeps: usize,
}

impl Job {
    fn is_idle(&self) -> bool {
        self.open && self.holders.is_empty() && self.counts.open() == 0
    }
}

/// A job's cancel on its way through the table.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub job: JobKey,
    up_to: u64,
    next: u32,
}

/// Jobs by name and key.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    slots: Vec<Option<Job>>,
    free: Vec<u32>,
    names: BTreeMap<JobName, JobKey>,
    /// Jobs that may be over. They are closed when the turn ends: the next task may be of the same
    /// batch or restart.
    idle: Vec<JobKey>,
    /// Runs of jobs that are over, those of former turns first: which job, the how-manieth opened,
    /// its run.
    over: Vec<(JobKey, u64, u32)>,
    /// How many of those are of former turns: their last counts have been read by the shell.
    told: usize,
    opened: u64,
}

impl Jobs {
    pub fn key(&self, name: &JobName) -> Option<JobKey> {
        self.names.get(name).copied()
    }

    pub fn get(&self, key: JobKey) -> &Job {
        let job = self.slots.get(key.0 as usize).and_then(Option::as_ref);
        assert!(
            job.is_some(),
            "the core's own index names job {key:?}, which it does not hold"
        );
        job.unwrap_or_else(|| unreachable!())
    }

    pub fn get_mut(&mut self, key: JobKey) -> &mut Job {
        let job = self.slots.get_mut(key.0 as usize).and_then(Option::as_mut);
        assert!(
            job.is_some(),
            "the core's own index names job {key:?}, which it does not hold"
        );
        job.unwrap_or_else(|| unreachable!())
    }

    pub fn iter(&self) -> impl Iterator<Item = (JobKey, &Job)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(i, slot)| slot.as_ref().map(|job| (JobKey(i as u32), job)))
    }

    fn insert(&mut self, name: JobName, past: Past) -> JobKey {
        self.opened += 1;
        let job = Job {
            name: name.clone(),
            run: past.run,
            open: false,
            paused: past.paused,
            counts: past.counts,
            holders: BTreeMap::new(),
            ready: Queues::default(),
            share: Share {
                in_use: 0,
                slot_time_us: 0,
                opened: self.opened,
            },
            places: Few::default(),
            tasks: 0,
            sweeps: 0,
        };
        let key = JobKey(self.free.pop().unwrap_or(self.slots.len() as u32));
        if key.0 as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[key.0 as usize] = Some(job);
        self.names.insert(name, key);
        key
    }

    /// Lets go of jobs that are done, of which no task is held, and whose cancels are carried out.
    /// Called when a turn begins to end, so that the shell can read the last counts of jobs that
    /// this turn ended.
    pub fn drop_done(&mut self) {
        let newer = self.over.split_off(self.told);
        for (key, opened, run) in std::mem::replace(&mut self.over, newer) {
            let Some(job) = self.slots.get(key.0 as usize).and_then(Option::as_ref) else {
                continue;
            };
            if job.open || (job.share.opened, job.run) != (opened, run) {
                continue;
            }
            if job.tasks > 0 || job.sweeps > 0 {
                self.over.push((key, opened, run));
                continue;
            }
            let name = job.name.clone();
            self.slots[key.0 as usize] = None;
            self.names.remove(&name);
            self.free.push(key.0);
        }
    }

    /// What is over by now has been told when the next turn ends.
    pub fn turn_ended(&mut self) {
        self.told = self.over.len();
    }
}

impl Scheduler {
    /// The job of this name, if the core holds it.
    pub fn job(&self, name: &JobName) -> Option<&Job> {
        self.jobs.key(name).map(|key| self.jobs.get(key))
    }

    /// Jobs that a session holds.
    pub fn held_by(&self, by: &str) -> Vec<JobName> {
        self.jobs
            .iter()
            .filter(|(_, job)| job.holders.contains_key(by))
            .map(|(_, job)| job.name.clone())
            .collect()
    }

    /// Every job that the core holds.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().map(|(_, job)| job)
    }

    /// The job of this key.
    pub fn job_of(&self, key: JobKey) -> &Job {
        self.jobs.get(key)
    }

    pub(crate) fn open_job(
        &mut self,
        name: JobName,
        past: Past,
        restored: bool,
        effects: &mut Vec<Effect>,
    ) {
        let paused = past.paused;
        let key = self
            .jobs
            .key(&name)
            .unwrap_or_else(|| self.jobs.insert(name.clone(), past));
        let job = self.jobs.get_mut(key);
        if job.open {
            return;
        }
        // It may be held here still, and have been paused since it was done.
        (job.open, job.paused) = (true, paused);
        if !restored {
            job.run += 1;
            effects.push(Effect::Store(Change::JobOpened(name)));
        }
        self.close_if_idle(key);
    }

    pub(crate) fn hold_job(
        &mut self,
        name: &JobName,
        by: Arc<str>,
        restored: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.jobs.key(name) else {
            return;
        };
        let until = restored.then(|| self.now.mono_us + limits::JOB_HOLD_GRACE_MS * 1_000);
        let last = self.jobs.get_mut(key).holders.insert(by.clone(), until);
        if let Some(Some(at)) = last {
            self.deadlines.remove(at, Timer::Hold(key, by.clone()));
        }
        if let Some(at) = until {
            self.deadlines.insert(at, Timer::Hold(key, by.clone()));
        }
        if last.is_none() && !restored {
            effects.push(Effect::Store(Change::JobHeld {
                job: name.clone(),
                by,
                held: true,
            }));
        }
    }

    pub(crate) fn release_job(&mut self, name: &JobName, by: &Arc<str>, effects: &mut Vec<Effect>) {
        if let Some(key) = self.jobs.key(name) {
            self.unhold(key, by, effects);
        }
    }

    pub(crate) fn hold_passed(&mut self, key: JobKey, by: &Arc<str>, effects: &mut Vec<Effect>) {
        self.unhold(key, by, effects);
    }

    fn unhold(&mut self, key: JobKey, by: &Arc<str>, effects: &mut Vec<Effect>) {
        let job = self.jobs.get_mut(key);
        let Some(until) = job.holders.remove(by) else {
            return;
        };
        let name = job.name.clone();
        if let Some(at) = until {
            self.deadlines.remove(at, Timer::Hold(key, by.clone()));
        }
        effects.push(Effect::Store(Change::JobHeld {
            job: name,
            by: by.clone(),
            held: false,
        }));
        self.close_if_idle(key);
    }

    pub(crate) fn holder_lost(&mut self, by: &Arc<str>) {
        let at = self.now.mono_us + limits::JOB_HOLD_GRACE_MS * 1_000;
        let held: Vec<JobKey> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.holders.get(by) == Some(&None))
            .map(|(key, _)| key)
            .collect();
        for key in held {
            self.jobs.get_mut(key).holders.insert(by.clone(), Some(at));
            self.deadlines.insert(at, Timer::Hold(key, by.clone()));
        }
    }

    /// Has the job's run end with the turn where nobody holds it and no task of it is open.
    pub(crate) fn close_if_idle(&mut self, key: JobKey) {
        if self.jobs.get(key).is_idle() {
            self.jobs.idle.push(key);
        }
    }

    /// Ends the runs of jobs that are idle still.
    pub(crate) fn close_idle(&mut self, effects: &mut Vec<Effect>) {
        for key in std::mem::take(&mut self.jobs.idle) {
            let job = self.jobs.get_mut(key);
            if job.is_idle() {
                job.open = false;
                effects.push(Effect::Store(Change::JobDone(job.name.clone())));
                let run = (key, job.share.opened, job.run);
                self.jobs.over.push(run);
            }
        }
    }

    pub(crate) fn pause_job(&mut self, name: &JobName, paused: bool, effects: &mut Vec<Effect>) {
        let Some(key) = self.jobs.key(name) else {
            return;
        };
        if self.jobs.get(key).paused == paused {
            return;
        }
        self.jobs.get_mut(key).paused = paused;
        effects.push(Effect::Store(Change::JobPaused {
            job: name.clone(),
            paused,
        }));
        self.unreserve_where(|task, _| paused && task.job == key, effects);
        self.place_again(key);
    }

    pub(crate) fn cancel_job(
        &mut self,
        name: &JobName,
        up_to: u64,
        restored: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.key(name) else {
            return;
        };
        if !restored {
            effects.push(Effect::Store(Change::JobCancelled {
                job: name.clone(),
                up_to,
            }));
        }
        self.jobs.get_mut(job).sweeps += 1;
        self.sweeps.push_back(Sweep {
            job,
            up_to,
            next: 0,
        });
    }

    /// Goes further through the table for the first cancel on its way.
    pub(crate) fn sweep_some(&mut self, effects: &mut Vec<Effect>) {
        let Some(sweep) = self.sweeps.front() else {
            return;
        };
        let (job, up_to, first) = (sweep.job, sweep.up_to, sweep.next);
        let mut last = self.tasks.end().min(first + TOUCHED_MAX as u32);
        let mut left = SWEPT_MAX;
        for key in (first..last).map(TaskKey) {
            let Some(task) = self.tasks.get(key) else {
                continue;
            };
            if task.job == job && task.no <= up_to && !matches!(task.state(), State::Ended(_)) {
                self.end(key, Final::Cancelled, Why::Cancelled, effects);
                left -= 1;
            }
            if left == 0 {
                last = key.0 + 1;
                break;
            }
        }
        if let Some(sweep) = self.sweeps.front_mut() {
            sweep.next = last;
        }
        let books = self.jobs.get_mut(job);
        if last == self.tasks.end() || books.counts.open() == 0 {
            self.sweeps.pop_front();
            books.sweeps -= 1;
            // A later cancel of the same job has a wider wish, and that is the durable one.
            if books.sweeps == 0 {
                effects.push(Effect::Store(Change::JobCancelled {
                    job: books.name.clone(),
                    up_to: 0,
                }));
            }
        }
    }
}
