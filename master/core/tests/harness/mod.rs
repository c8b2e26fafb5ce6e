//! Plays the engine's part for tests of the core: it gives out keys, opens jobs before tasks are
//! added to them, looks up what is known of dependencies, keeps what is durable, and restores a
//! core from that. After every event it asks the core whether its invariants hold.

#![allow(dead_code, reason = "each test uses the part that it needs")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_core::jobs::{Counts, Past};
use taskmaster_core::{
    Change, DependsOn, Due, Effect, Event, Final, NewTask, Origin, RunnerKey, Scheduler, TaskKey,
    Why,
};
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{
    AttemptId, JobName, ModuleName, Now, Requires, Retries, TaskState, Wall, When,
};

/// What a feeder asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub name: String,
    pub job: String,
    pub module: String,
    pub requires: Requires,
    pub priority: i32,
    pub after: Vec<(String, When)>,
    pub due: Option<Due>,
    pub retries: Option<Box<Retries>>,
}

impl Wanted {
    pub fn new(name: &str) -> Wanted {
        Wanted {
            name: name.into(),
            job: "j".into(),
            module: "m".into(),
            requires: Requires::default(),
            priority: 0,
            after: Vec::new(),
            due: None,
            retries: None,
        }
    }
}

/// What is durable of a task, and how the engine names it to the core.
#[derive(Debug, Clone)]
pub struct Record {
    pub wanted: Wanted,
    pub no: u64,
    pub key: Option<TaskKey>,
    pub ended: Option<Final>,
    pub last: AttemptId,
    pub tries: u32,
    pub lost: u32,
    pub fence: AttemptId,
}

/// What is durable of a job.
#[derive(Debug, Clone, Default)]
pub struct JobRecord {
    pub past: Past,
    pub open: bool,
    pub holders: BTreeSet<Arc<str>>,
    pub cancelled_up_to: u64,
}

pub struct World {
    pub core: Scheduler,
    pub now: Now,
    pub epoch: u32,
    pub tasks: BTreeMap<String, Record>,
    pub names: BTreeMap<TaskKey, String>,
    pub jobs: BTreeMap<String, JobRecord>,
    pub runners: BTreeMap<RunnerKey, String>,
    pub roster: BTreeSet<String>,
    pub closed: BTreeSet<String>,
    free: BTreeSet<u32>,
    keys: u32,
    nos: u64,
    connections: u64,
    events: u64,
    restoring: bool,
}

pub fn job_name(text: &str) -> JobName {
    JobName::new(text).expect("a job's name")
}

pub fn module_name(text: &str) -> ModuleName {
    ModuleName::new(text).expect("a module's name")
}

impl World {
    pub fn new() -> World {
        World {
            core: Scheduler::new(1),
            now: Now {
                mono_us: 0,
                wall: Wall(1_000_000_000),
            },
            epoch: 1,
            tasks: BTreeMap::new(),
            names: BTreeMap::new(),
            jobs: BTreeMap::new(),
            runners: BTreeMap::new(),
            roster: BTreeSet::new(),
            closed: BTreeSet::new(),
            free: BTreeSet::new(),
            keys: 0,
            nos: 0,
            connections: 0,
            events: 0,
            restoring: false,
        }
    }

    /// Hands an event in, keeps what is durable, and checks the core. With many tasks it checks now
    /// and then.
    pub fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        let shown = event.clone();
        self.core.handle(event, self.now, &mut effects);
        effects.iter().for_each(|effect| self.keep(effect));
        self.events += 1;
        // A job's total is right when all its tasks are told of.
        if self.restoring {
            return effects;
        }
        if self.core.tasks_len() < 300 || self.events.is_multiple_of(500) {
            let broken = self.core.check();
            assert!(broken.is_empty(), "after {shown:?}: {broken:#?}");
        }
        effects
    }

    fn keep(&mut self, effect: &Effect) {
        match effect {
            Effect::Forget(key) => {
                // Who reads the effects of a restart still wants to know whose key it was.
                if !self.restoring {
                    self.free.insert(key.0);
                }
                let name = self.names[key].clone();
                let record = self.tasks.get_mut(&name).expect("a known task");
                assert!(
                    record.ended.is_some() || record.key != Some(*key),
                    "{name} is forgotten before it ended"
                );
                record.key = record.key.filter(|is| is != key);
            }
            Effect::Send { task, attempt, .. } => {
                let record = self.record_of(*task);
                assert!(*attempt > record.last, "attempts grow");
                record.last = *attempt;
            }
            Effect::Store(change) => self.store(change),
            _ => {}
        }
    }

    fn record_of(&mut self, key: TaskKey) -> &mut Record {
        let record = self.tasks.get_mut(&self.names[&key]).expect("a known task");
        assert_eq!(record.key, Some(key), "an effect of a former life");
        record
    }

    fn store(&mut self, change: &Change) {
        match change {
            Change::Ended {
                task,
                state,
                attempt,
                ..
            } => {
                let record = self.record_of(*task);
                assert_eq!(record.ended, None, "a task ends once");
                record.ended = Some(*state);
                record.fence = record.fence.max(*attempt).max(record.last);
            }
            Change::Retrying {
                task,
                attempt,
                tries,
                lost,
                wait_us,
                runner_lost,
            } => {
                let due = Due::Wall(self.now.wall.plus_us(*wait_us));
                let record = self.record_of(*task);
                (record.tries, record.lost) = (*tries, *lost);
                if !runner_lost {
                    record.fence = record.fence.max(*attempt);
                }
                if !runner_lost || *wait_us > 0 {
                    record.wanted.due = Some(due);
                }
            }
            Change::Set {
                task,
                priority,
                wait_us,
            } => {
                let due = wait_us.map(|us| Due::Wall(self.now.wall.plus_us(us)));
                let wanted = &mut self.record_of(*task).wanted;
                (wanted.priority, wanted.due) = (*priority, due.or(wanted.due));
            }
            Change::JobOpened(job) => {
                let run = self.core.job(job).expect("an open job").run;
                let record = self.jobs.entry(job.to_string()).or_default();
                assert!(!record.open, "a job opens once");
                (record.open, record.past.run) = (true, run);
            }
            Change::JobDone(job) => {
                let counts = self
                    .core
                    .job(job)
                    .expect("its last counts can be read")
                    .counts
                    .clone();
                let record = self.jobs.get_mut(job.as_str()).expect("a known job");
                assert!(record.open, "a job is done once");
                (record.open, record.past.counts) = (false, counts);
            }
            Change::JobHeld { job, by, held } => {
                let holders = &mut self
                    .jobs
                    .get_mut(job.as_str())
                    .expect("a known job")
                    .holders;
                if *held {
                    holders.insert(by.clone())
                } else {
                    holders.remove(by)
                };
            }
            Change::JobPaused { job, paused } => {
                self.jobs
                    .get_mut(job.as_str())
                    .expect("a known job")
                    .past
                    .paused = *paused;
            }
            Change::JobCancelled { job, up_to } => {
                self.jobs
                    .get_mut(job.as_str())
                    .expect("a known job")
                    .cancelled_up_to = *up_to;
            }
            Change::RunnerJoined(name) => {
                assert!(self.roster.insert(name.clone()), "{name} joins once")
            }
            Change::RunnerLost(name) => assert!(self.roster.remove(name), "{name} is lost once"),
            Change::Continued(task, fence) => {
                let record = self.record_of(*task);
                (record.tries, record.lost, record.fence) = (0, 0, *fence);
            }
            Change::Added(_) | Change::Reopened(_) => {}
        }
    }

    fn free_key(&mut self) -> TaskKey {
        let key = self.free.pop_first().unwrap_or_else(|| {
            self.keys += 1;
            self.keys - 1
        });
        TaskKey(key)
    }

    /// Opens the job where the core does not hold it open.
    pub fn open_job(&mut self, job: &str) -> Vec<Effect> {
        let name = job_name(job);
        if self.core.job(&name).is_some_and(|job| job.open) {
            return Vec::new();
        }
        let past = self
            .jobs
            .get(job)
            .map(|record| record.past.clone())
            .unwrap_or_default();
        self.event(Event::JobOpened {
            job: name,
            past,
            restored: false,
        })
    }

    fn facts(&self, after: &[(String, When)]) -> Vec<DependsOn> {
        let fact = |(on, when): &(String, When)| {
            let record = self.tasks.get(on).unwrap_or_else(|| panic!("no task {on}"));
            match (record.ended, record.key) {
                (Some(how), _) => DependsOn::Ended(how, *when),
                (None, key) => DependsOn::Open(key.expect("an open task has a key"), *when),
            }
        };
        after.iter().map(fact).collect()
    }

    fn told(&self, record: &Record, key: TaskKey, origin: Origin) -> Event {
        Event::TaskCame(Box::new(self.new_task(record, key, origin)))
    }

    fn new_task(&self, record: &Record, key: TaskKey, origin: Origin) -> NewTask {
        let wanted = &record.wanted;
        NewTask {
            key,
            no: record.no,
            job: job_name(&wanted.job),
            module: module_name(&wanted.module),
            requires: wanted.requires.clone().into(),
            priority: wanted.priority,
            dependencies: self.facts(&wanted.after),
            due: wanted.due,
            retries: wanted.retries.clone(),
            origin,
        }
    }

    /// An attempt ended, and its task goes on as `wanted`, in the job that it is in.
    pub fn go_on(&mut self, runner: RunnerKey, attempt: AttemptId, wanted: Wanted) -> Vec<Effect> {
        let name = wanted.name.clone();
        let last = self.tasks[&name].clone();
        let Some(key) = last.key.filter(|_| last.ended.is_none()) else {
            return Vec::new();
        };
        let wanted = Wanted {
            job: last.wanted.job.clone(),
            ..wanted
        };
        let next = self.new_task(
            &Record {
                wanted: wanted.clone(),
                ..last
            },
            key,
            Origin::Added,
        );
        if self.core.report_counts(runner, key, attempt) {
            let due = wanted.due.map(|due| self.by_wall(due));
            self.record_of(key).wanted = Wanted { due, ..wanted };
        }
        self.event(Event::AttemptContinued {
            runner,
            attempt,
            run_us: 10_000,
            next: Box::new(next),
        })
    }

    pub fn add(&mut self, wanted: Wanted) -> Vec<Effect> {
        let mut effects = self.open_job(&wanted.job);
        let key = self.free_key();
        self.nos += 1;
        let (zero, fence) = (
            AttemptId { epoch: 0, n: 0 },
            AttemptId {
                epoch: self.epoch,
                n: 0,
            },
        );
        let name = wanted.name.clone();
        let record = Record {
            wanted,
            no: self.nos,
            key: Some(key),
            ended: None,
            last: zero,
            tries: 0,
            lost: 0,
            fence,
        };
        let event = self.told(&record, key, Origin::Added);
        let due = record.wanted.due.map(|due| self.by_wall(due));
        let record = Record {
            wanted: Wanted {
                due,
                ..record.wanted
            },
            ..record
        };
        assert!(
            self.tasks.insert(name.clone(), record).is_none(),
            "task {name} is there"
        );
        self.names.insert(key, name);
        effects.extend(self.event(event));
        effects
    }

    /// A time that means the same to the next master: the monotonic clock starts anew.
    fn by_wall(&self, due: Due) -> Due {
        match due {
            Due::Mono(us) => Due::Wall(self.now.wall.plus_us(us.saturating_sub(self.now.mono_us))),
            due => due,
        }
    }

    /// `tasks retry`: the task gets a new key, its last attempt is its fence.
    pub fn reopen(&mut self, name: &str) -> Vec<Effect> {
        let mut effects = self.open_job(&self.tasks[name].wanted.job.clone());
        let key = self.free_key();
        let record = self.tasks.get_mut(name).expect("a known task");
        let was = record.ended.take().expect("an ended task");
        (record.key, record.tries, record.lost) = (Some(key), 0, 0);
        record.wanted.due = None;
        let record = record.clone();
        self.names.insert(key, name.into());
        let event = self.told(
            &record,
            key,
            Origin::Reopened {
                fence: record.fence,
                was,
            },
        );
        effects.extend(self.event(event));
        effects
    }

    pub fn join(
        &mut self,
        offer: Offer,
        credits: u32,
        held: &[(String, AttemptId)],
    ) -> (RunnerKey, Vec<Effect>) {
        self.connections += 1;
        let runner = RunnerKey(self.connections);
        self.runners.insert(runner, offer.name.clone());
        let held = held
            .iter()
            .filter_map(|(name, attempt)| Some((self.tasks.get(name)?.key?, *attempt)))
            .collect();
        let effects = self.event(Event::RunnerJoined {
            runner,
            offer: Box::new(offer),
            credits,
            answers: true,
            held,
        });
        (runner, effects)
    }

    /// The key under which the core knows an attempt; `None`: the engine answers the runner without
    /// asking the core.
    pub fn key(&self, name: &str) -> Option<TaskKey> {
        self.tasks.get(name)?.key
    }

    /// The master dies, and another starts on what is durable. What was assigned is restored as
    /// waiting.
    pub fn restart(&mut self) -> Vec<Effect> {
        self.epoch += 1;
        self.restoring = true;
        self.core = Scheduler::new(self.epoch);
        self.now.mono_us = 0;
        self.names.clear();
        self.runners.clear();
        (self.free, self.keys) = (BTreeSet::new(), 0);
        let mut effects = self.event(Event::Started {
            roster: self.roster.iter().cloned().collect(),
        });
        for module in self.closed.clone() {
            effects.extend(self.event(Event::ModuleOpened {
                module: module_name(&module),
                open: false,
            }));
        }
        let jobs: Vec<(String, JobRecord)> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.open)
            .map(|(name, job)| (name.clone(), job.clone()))
            .collect();
        for (name, job) in &jobs {
            let past = Past {
                counts: self.counts_of(name),
                ..job.past.clone()
            };
            effects.extend(self.event(Event::JobOpened {
                job: job_name(name),
                past,
                restored: true,
            }));
            for by in &job.holders {
                let (job, by) = (job_name(name), by.clone());
                effects.extend(self.event(Event::JobHeld {
                    job,
                    by,
                    restored: true,
                }));
            }
        }
        self.tasks.values_mut().for_each(|record| record.key = None);
        let mut open: Vec<(u64, String)> = self
            .tasks
            .iter()
            .filter(|(_, r)| r.ended.is_none())
            .map(|(name, r)| (r.no, name.clone()))
            .collect();
        open.sort();
        // A reopened task may wait for one that came later: those waited for are told first.
        while !open.is_empty() {
            let waits =
                |name: &String| {
                    self.tasks[name].wanted.after.iter().any(|(on, _)| {
                        self.tasks[on].ended.is_none() && self.tasks[on].key.is_none()
                    })
                };
            let (later, first): (Vec<_>, Vec<_>) =
                open.into_iter().partition(|(_, name)| waits(name));
            assert!(!first.is_empty(), "a cycle");
            for (_, name) in first {
                let key = self.free_key();
                self.tasks.get_mut(&name).expect("a known task").key = Some(key);
                self.names.insert(key, name.clone());
                let record = self.tasks[&name].clone();
                let (tries, lost, fence) = (record.tries, record.lost, record.fence);
                let event = self.told(&record, key, Origin::Restored { tries, lost, fence });
                effects.extend(self.event(event));
            }
            open = later;
        }
        self.restoring = false;
        for (name, job) in jobs.iter().filter(|(_, job)| job.cancelled_up_to > 0) {
            let event = Event::JobCancelWanted {
                job: job_name(name),
                up_to: job.cancelled_up_to,
                restored: true,
            };
            effects.extend(self.event(event));
        }
        effects
    }

    /// What the durable records say of a job's past: all that were added, and how those that ended
    /// did.
    fn counts_of(&self, job: &str) -> Counts {
        let mut counts = Counts::default();
        for record in self
            .tasks
            .values()
            .filter(|record| record.wanted.job == job)
        {
            counts.total += 1;
            if let Some(how) = record.ended {
                counts.by_state[how.state() as usize] += 1;
            }
        }
        counts
    }

    pub fn cancel_job(&mut self, job: &str) -> Vec<Effect> {
        self.event(Event::JobCancelWanted {
            job: job_name(job),
            up_to: self.nos,
            restored: false,
        })
    }

    pub fn turn(&mut self) -> Vec<Effect> {
        self.event(Event::TurnEnded)
    }

    /// Whether the core wants another turn at once.
    pub fn busy(&self) -> bool {
        self.core
            .next_deadline(self.now)
            .is_some_and(|at| at <= self.now.mono_us)
    }

    pub fn state(&self, name: &str) -> TaskState {
        let record = &self.tasks[name];
        match record.ended {
            Some(how) => how.state(),
            None => self
                .core
                .task(record.key.expect("an open task"))
                .expect("the core holds it")
                .state()
                .name(),
        }
    }
}

/// Effects as text: one phrase each.
pub fn phrase(world: &World, effect: &Effect) -> String {
    let task = |key: &TaskKey| world.names[key].clone();
    let runner = |key: &RunnerKey| {
        let name = &world.runners[key];
        let newest = world
            .runners
            .iter()
            .rev()
            .find(|(_, n)| *n == name)
            .map(|(key, _)| key);
        if newest == Some(key) {
            name.clone()
        } else {
            format!("{name}'")
        }
    };
    match effect {
        Effect::Send {
            runner: to,
            task: key,
            attempt,
        } => format!("{} → {} {attempt}", task(key), runner(to)),
        Effect::Recall {
            runner: from,
            attempts,
        } => {
            let listed: Vec<String> = attempts
                .iter()
                .map(|(key, attempt)| format!("{} {attempt}", task(key)))
                .collect();
            format!("recall from {}: {}", runner(from), listed.join(" + "))
        }
        Effect::Stop {
            runner: on,
            task: key,
            attempt,
        } => format!("stop {} {attempt} on {}", task(key), runner(on)),
        Effect::HangUp { runner: key } => format!("hang up {}", runner(key)),
        Effect::Show {
            kind,
            task: Some(key),
            ..
        } => format!("{} {}", task(key), kind.as_str().replace("task:", "")),
        Effect::Show {
            kind, runner: key, ..
        } => {
            format!(
                "{} {}",
                key.as_ref().map(runner).unwrap_or_default(),
                kind.as_str().replace("runner:", "")
            )
        }
        Effect::Forget(key) => format!("{} forgotten", task(key)),
        Effect::Store(change) => change_phrase(world, change),
    }
}

fn change_phrase(world: &World, change: &Change) -> String {
    let name = |key: &TaskKey| world.names[key].clone();
    match change {
        Change::Added(key) => format!("{} added", name(key)),
        Change::Reopened(key) => format!("{} reopened", name(key)),
        Change::Continued(key, fence) => format!("{} goes on, void up to {fence}", name(key)),
        Change::Ended {
            task,
            state,
            why,
            attempt,
        } => {
            let how = state.state().as_str();
            match why {
                Why::Report => format!("{} {how} by {attempt}", name(task)),
                Why::Cancelled => format!("{} {how}", name(task)),
                Why::Dependency(on, was) => format!(
                    "{} {how}, {} {}",
                    name(task),
                    name(on),
                    was.state().as_str()
                ),
                Why::Earlier(i, was) => format!(
                    "{} {how}, dependency {i} {} before",
                    name(task),
                    was.state().as_str()
                ),
                Why::Poison => format!("{} {how}, poison", name(task)),
            }
        }
        Change::Retrying {
            task,
            attempt,
            tries,
            lost,
            wait_us,
            runner_lost,
        } => {
            let why = if *runner_lost { "runner lost" } else { "error" };
            format!(
                "{} retrying after {attempt}: {why}, tries {tries} lost {lost}, wait {}",
                name(task),
                time(*wait_us)
            )
        }
        Change::Set {
            task,
            priority,
            wait_us,
        } => {
            let wait = wait_us
                .map(|us| format!(" wait {}", time(us)))
                .unwrap_or_default();
            format!("{} set priority {priority}{wait}", name(task))
        }
        Change::JobOpened(job) => format!("job {job} opened"),
        Change::JobDone(job) => format!("job {job} done"),
        Change::JobHeld { job, by, held } => format!(
            "job {job} {} {by}",
            if *held { "held by" } else { "let go by" }
        ),
        Change::JobPaused { job, paused } => {
            format!("job {job} {}", if *paused { "paused" } else { "resumed" })
        }
        Change::JobCancelled { job, up_to: 0 } => format!("job {job} cancel carried out"),
        Change::JobCancelled { job, .. } => format!("job {job} cancel wanted"),
        Change::RunnerJoined(runner) => format!("{runner} joined"),
        Change::RunnerLost(runner) => format!("{runner} lost"),
    }
}

pub fn time(us: u64) -> String {
    if us.is_multiple_of(1_000_000) {
        format!("{}s", us / 1_000_000)
    } else if us.is_multiple_of(1_000) {
        format!("{}ms", us / 1_000)
    } else {
        format!("{us}us")
    }
}
