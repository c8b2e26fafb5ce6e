//! Plays the engine's part for tests of the core. The harness gives out keys, opens jobs before
//! tasks are added to them, looks up what is known of dependencies, keeps what is durable, and
//! restores a core from that. After every event it asks the core whether its invariants hold.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test uses the part that it needs"
)]

mod phrases;

pub use phrases::{phrase, time};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_core::{
    CancelOrigin, DependsOn, Due, DurableChange, Effect, Event, FinalState, NewTask, Origin,
    RunnerKey, Scheduler, SharedRunKey, State, TaskKey,
};
use taskmaster_core::{JobCounts, StoredJob};
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{
    AttemptId, JobName, ModuleName, Now, Requires, Retries, TaskState, Wall, When,
};

/// A task that a feeder adds.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub name: String,
    pub job: String,
    pub module: String,
    pub requires: Requires,
    /// The most memory that an attempt may take, in MiB.
    pub memory_mb: u32,
    pub priority: i32,
    pub after: Vec<(String, When)>,
    /// Dependencies that the engine tells of.
    pub told: usize,
    pub due: Option<Due>,
    pub retries: Option<Box<Retries>>,
    /// Tasks with the same word here are equal: an answer of one is an answer of all.
    pub equal: Option<String>,
    /// How long an attempt may run, in milliseconds.
    pub timeout_ms: u64,
}

impl Wanted {
    pub fn new(name: &str) -> Wanted {
        Wanted {
            name: name.into(),
            job: "j".into(),
            module: "m".into(),
            requires: Requires::default(),
            memory_mb: 0,
            priority: 0,
            after: Vec::new(),
            told: 0,
            due: None,
            retries: None,
            equal: None,
            timeout_ms: 0,
        }
    }
}

/// What is durable of a task, and the key under which the core holds it.
#[derive(Debug, Clone)]
pub struct Record {
    pub wanted: Wanted,
    pub ordinal: u64,
    /// `None` after the core has forgotten the task.
    pub key: Option<TaskKey>,
    pub ended: Option<FinalState>,
    /// The last attempt that was sent.
    pub last: AttemptId,
    /// Failures counted.
    pub tries: u32,
    /// Lost runners counted.
    pub lost: u32,
    /// This attempt and older ones are void for the next master.
    pub fence: AttemptId,
    /// The ordinal up to which its job was being cancelled when the task was opened again.
    pub reopened_under: Option<u64>,
}

/// What is durable of a job.
#[derive(Debug, Clone, Default)]
pub struct JobRecord {
    pub stored: StoredJob,
    pub open: bool,
    pub holders: BTreeSet<Arc<str>>,
    /// The ordinal up to which tasks are being cancelled; 0 when none are.
    pub cancelled_up_to: u64,
}

/// The core, and everything that its engine would know.
pub struct World {
    pub core: Scheduler,
    pub now: Now,
    pub epoch: u32,
    pub tasks: BTreeMap<String, Record>,
    /// Names of the tasks that have or had a key under this master.
    pub names: BTreeMap<TaskKey, String>,
    pub jobs: BTreeMap<String, JobRecord>,
    /// Names of the runners of all connections under this master.
    pub runners: BTreeMap<RunnerKey, String>,
    pub roster: BTreeSet<String>,
    /// The process of the runner that joins next, where it is not the only one of its name.
    pub process: Option<String>,
    /// Modules whose tasks cannot be sent.
    pub closed: BTreeSet<String>,
    free_keys: BTreeSet<u32>,
    /// The number of keys that were ever given out under this master.
    keys: u32,
    last_ordinal: u64,
    last_connection: u64,
    events: u64,
    /// Whether the core is being restored, and was not told of all tasks yet.
    restoring: bool,
    /// Words of equal tasks for which an answer is kept.
    pub answers: BTreeSet<String>,
    /// The shared run of equal tasks, by their word.
    pub runs: BTreeMap<String, SharedRunKey>,
    last_run: u64,
    /// Tasks for which an answer was looked for since this was cleared.
    pub looked_up: BTreeSet<String>,
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
            process: None,
            closed: BTreeSet::new(),
            free_keys: BTreeSet::new(),
            keys: 0,
            last_ordinal: 0,
            last_connection: 0,
            events: 0,
            restoring: false,
            answers: BTreeSet::new(),
            runs: BTreeMap::new(),
            last_run: 0,
            looked_up: BTreeSet::new(),
        }
    }

    /// Tells the core of an event, keeps what is durable, and checks the core. With many tasks the
    /// check is slow, and happens only after some events.
    pub fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        let event_shown = event.clone();
        self.core.handle(event, self.now, &mut effects);
        effects.iter().for_each(|effect| self.keep(effect));
        self.events += 1;
        let looked_up: Vec<TaskKey> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::LookUpAnswer(key) => Some(*key),
                _ => None,
            })
            .collect();
        for key in looked_up {
            effects.extend(self.look_up(key));
        }
        // The totals of jobs are right only when the core was told of all tasks.
        if self.restoring {
            return effects;
        }
        if self.core.tasks_len() < 300 || self.events.is_multiple_of(500) {
            let broken = self.core.check();
            assert!(broken.is_empty(), "after {event_shown:?}: {broken:#?}");
        }
        effects
    }

    /// Tells the core whether an answer is kept for a task.
    fn look_up(&mut self, task: TaskKey) -> Vec<Effect> {
        let is_looking = |task: &taskmaster_core::Task| task.state() == State::LookingUp;
        if !self.core.task(task).is_some_and(is_looking) {
            // The task was cancelled within the same turn.
            return Vec::new();
        }
        self.looked_up.insert(self.names[&task].clone());
        let wanted = &self.record_of(task).wanted;
        let timeout_ms = wanted.timeout_ms;
        let equal = wanted
            .equal
            .clone()
            .expect("only cached tasks look for answers");
        if self.answers.contains(&equal) {
            return self.event(Event::AnswerFound { task });
        }
        let next = SharedRunKey(self.last_run + 1);
        let run = *self.runs.entry(equal).or_insert(next);
        self.last_run = self.last_run.max(run.0);
        let run = Some(run);
        self.event(Event::AnswerMissed {
            task,
            run,
            timeout_ms,
        })
    }

    fn keep(&mut self, effect: &Effect) {
        match effect {
            Effect::ForgetSharedRun(run) => self.runs.retain(|_, other| other != run),
            Effect::Forget(key) => {
                // The effects of a restart are shown only after the last of them, with the names that
                // the keys had. So these keys are not used again.
                if !self.restoring {
                    self.free_keys.insert(key.0);
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
            Effect::LookUpAnswer(_)
            | Effect::Recall { .. }
            | Effect::Stop { .. }
            | Effect::Disconnect { .. }
            | Effect::Announce { .. } => {}
        }
    }

    fn record_of(&mut self, key: TaskKey) -> &mut Record {
        let record = self.tasks.get_mut(&self.names[&key]).expect("a known task");
        assert_eq!(
            record.key,
            Some(key),
            "an effect concerns a task that is open"
        );
        record
    }

    fn job_record(&mut self, job: &JobName) -> &mut JobRecord {
        self.jobs.get_mut(job.as_str()).expect("a known job")
    }

    fn store(&mut self, change: &DurableChange) {
        match change {
            DurableChange::Ended {
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
            DurableChange::Retrying {
                task,
                attempt,
                tries,
                lost,
                wait_us,
                runner_lost,
            } => {
                let due = Due::Wall(self.now.wall.plus_us(*wait_us));
                let record = self.record_of(*task);
                record.tries = *tries;
                record.lost = *lost;
                if !runner_lost {
                    record.fence = record.fence.max(*attempt);
                }
                if !runner_lost || *wait_us > 0 {
                    record.wanted.due = Some(due);
                }
            }
            DurableChange::Set {
                task,
                priority,
                wait_us,
            } => {
                let due = wait_us.map(|us| Due::Wall(self.now.wall.plus_us(us)));
                let wanted = &mut self.record_of(*task).wanted;
                wanted.priority = *priority;
                wanted.due = due.or(wanted.due);
            }
            DurableChange::JobOpened(job) => {
                let run = self.core.job(job).expect("an open job").run;
                let record = self.jobs.entry(job.to_string()).or_default();
                assert!(!record.open, "a job opens once");
                record.open = true;
                record.stored.run = run;
            }
            DurableChange::JobDone(job) => {
                let counts = self
                    .core
                    .job(job)
                    .expect("its last counts can be read")
                    .counts
                    .clone();
                let record = self.job_record(job);
                assert!(record.open, "a job is done once");
                record.open = false;
                record.stored.counts = counts;
            }
            DurableChange::JobHeld { job, by, held } => {
                let holders = &mut self.job_record(job).holders;
                if *held {
                    holders.insert(by.clone())
                } else {
                    holders.remove(by)
                };
            }
            DurableChange::JobPaused { job, paused } => {
                self.job_record(job).stored.paused = *paused;
            }
            DurableChange::JobCancelled { job, up_to } => {
                self.job_record(job).cancelled_up_to = *up_to;
            }
            DurableChange::RunnerJoined(name) => {
                assert!(self.roster.insert(name.clone()), "{name} joins once")
            }
            DurableChange::RunnerLost(name) => {
                assert!(self.roster.remove(name), "{name} is lost once")
            }
            DurableChange::Continued(task, fence) => {
                let record = self.record_of(*task);
                record.tries = 0;
                record.lost = 0;
                record.fence = *fence;
            }
            DurableChange::Added(_) | DurableChange::Reopened(_) => {}
        }
    }

    fn free_key(&mut self) -> TaskKey {
        let key = self.free_keys.pop_first().unwrap_or_else(|| {
            self.keys += 1;
            self.keys - 1
        });
        TaskKey(key)
    }

    /// Opens a job, unless it is open.
    pub fn open_job(&mut self, job: &str) -> Vec<Effect> {
        let name = job_name(job);
        if self.core.job(&name).is_some_and(|job| job.open) {
            return Vec::new();
        }
        let stored = self
            .jobs
            .get(job)
            .map(|record| record.stored.clone())
            .unwrap_or_default();
        self.event(Event::JobOpened {
            job: name,
            stored,
            restored: false,
        })
    }

    fn dependencies(&self, wanted: &Wanted) -> Vec<DependsOn> {
        let fact = |(on, when): &(String, When)| {
            let record = self.tasks.get(on).unwrap_or_else(|| panic!("no task {on}"));
            match (record.ended, record.key) {
                (Some(how), _) => DependsOn::Ended(how, *when),
                (None, key) => DependsOn::Open(key.expect("an open task has a key"), *when),
            }
        };
        let told = std::iter::repeat_n(DependsOn::Told, wanted.told);
        wanted.after.iter().map(fact).chain(told).collect()
    }

    fn task_opened(&self, record: &Record, key: TaskKey, origin: Origin) -> Event {
        Event::TaskOpened(Box::new(self.new_task(record, key, origin)))
    }

    fn new_task(&self, record: &Record, key: TaskKey, origin: Origin) -> NewTask {
        let wanted = &record.wanted;
        NewTask {
            key,
            ordinal: record.ordinal,
            job: job_name(&wanted.job),
            module: module_name(&wanted.module),
            requires: wanted.requires.clone().into(),
            memory_mb: wanted.memory_mb,
            priority: wanted.priority,
            dependencies: self.dependencies(wanted),
            due: wanted.due,
            retries: wanted.retries.clone(),
            is_cached: wanted.equal.is_some(),
            origin,
        }
    }

    /// An attempt ended, and its task goes on as `wanted`. The task stays in its job.
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
        let goes_on = !self.core.is_held_elsewhere(key, attempt);
        if goes_on && self.core.report_counts(runner, key, attempt) {
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
        self.last_ordinal += 1;
        let name = wanted.name.clone();
        let record = Record {
            wanted,
            ordinal: self.last_ordinal,
            key: Some(key),
            ended: None,
            last: AttemptId { epoch: 0, n: 0 },
            tries: 0,
            lost: 0,
            reopened_under: None,
            fence: AttemptId {
                epoch: self.epoch,
                n: 0,
            },
        };
        let event = self.task_opened(&record, key, Origin::Added);
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

    /// A time by the wall clock, which the next master understands: its monotonic clock starts
    /// anew.
    fn by_wall(&self, due: Due) -> Due {
        match due {
            Due::Mono(us) => Due::Wall(self.now.wall.plus_us(us.saturating_sub(self.now.mono_us))),
            Due::Wall(wall) => Due::Wall(wall),
        }
    }

    /// `tasks retry`: the task gets a new key, and its last attempt is its fence.
    pub fn reopen(&mut self, name: &str) -> Vec<Effect> {
        let mut effects = self.open_job(&self.tasks[name].wanted.job.clone());
        let key = self.free_key();
        let record = self.tasks.get_mut(name).expect("a known task");
        let was = record.ended.take().expect("an ended task");
        record.key = Some(key);
        record.tries = 0;
        record.lost = 0;
        record.wanted.due = None;
        let under = self.jobs.get(&record.wanted.job);
        record.reopened_under = under
            .map(|job| job.cancelled_up_to)
            .filter(|up_to| *up_to > 0);
        let record = record.clone();
        self.names.insert(key, name.into());
        let event = self.task_opened(
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
        self.last_connection += 1;
        let runner = RunnerKey(self.last_connection);
        self.runners.insert(runner, offer.name.clone());
        let held = held
            .iter()
            .filter_map(|(name, attempt)| Some((self.tasks.get(name)?.key?, *attempt)))
            .collect();
        let effects = self.event(Event::RunnerJoined {
            runner,
            process: self.process.as_deref().unwrap_or(&offer.name).into(),
            offer: Box::new(offer),
            credits,
            held,
        });
        (runner, effects)
    }

    /// The key under which the core holds a task. Without one, the engine answers a runner that
    /// speaks of the task without asking the core.
    pub fn key(&self, name: &str) -> Option<TaskKey> {
        self.tasks.get(name)?.key
    }

    /// The master dies, and another one starts on what is durable. Tasks that were assigned are
    /// restored as waiting.
    pub fn restart(&mut self) -> Vec<Effect> {
        self.epoch += 1;
        self.restoring = true;
        self.core = Scheduler::new(self.epoch);
        self.now.mono_us = 0;
        self.names.clear();
        self.runs.clear();
        self.runners.clear();
        self.free_keys.clear();
        self.keys = 0;
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
            let stored = StoredJob {
                counts: self.counts_of(name),
                ..job.stored.clone()
            };
            effects.extend(self.event(Event::JobOpened {
                job: job_name(name),
                stored,
                restored: true,
            }));
            for by in &job.holders {
                effects.extend(self.event(Event::JobHeld {
                    job: job_name(name),
                    by: by.clone(),
                    restored: true,
                }));
            }
        }
        effects.extend(self.restore_tasks());
        self.restoring = false;
        for (name, job) in jobs.iter().filter(|(_, job)| job.cancelled_up_to > 0) {
            let event = Event::JobCancelRequested {
                job: job_name(name),
                up_to: job.cancelled_up_to,
                origin: CancelOrigin::Restored {
                    reopened: self.reopened_under(name, job.cancelled_up_to),
                },
            };
            effects.extend(self.event(event));
        }
        effects
    }

    /// Tells a new core of the open tasks.
    fn restore_tasks(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.tasks.values_mut().for_each(|record| record.key = None);
        let mut open: Vec<(u64, String)> = self
            .tasks
            .iter()
            .filter(|(_, record)| record.ended.is_none())
            .map(|(name, record)| (record.ordinal, name.clone()))
            .collect();
        open.sort();
        // A task that was opened again may wait for one that was added later. The core is told of the
        // tasks waited for first.
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
                let origin = Origin::Restored {
                    tries: record.tries,
                    lost: record.lost,
                    fence: record.fence,
                };
                let event = self.task_opened(&record, key, origin);
                effects.extend(self.event(event));
            }
            open = later;
        }
        effects
    }

    /// The counts of a job by the durable records of its tasks.
    fn counts_of(&self, job: &str) -> JobCounts {
        let mut counts = JobCounts::default();
        for record in self
            .tasks
            .values()
            .filter(|record| record.wanted.job == job)
        {
            counts.total += 1;
            if let Some(how) = record.ended {
                counts.by_state[how.task_state() as usize] += 1;
            }
        }
        counts
    }

    pub fn cancel_job(&mut self, job: &str) -> Vec<Effect> {
        // No other cancel goes up to this ordinal.
        self.last_ordinal += 1;
        self.event(Event::JobCancelRequested {
            job: job_name(job),
            up_to: self.last_ordinal,
            origin: CancelOrigin::Client,
        })
    }

    /// Open tasks that were opened again while their job was being cancelled.
    fn reopened_under(&self, job: &str, up_to: u64) -> Vec<TaskKey> {
        self.tasks
            .values()
            .filter(|task| task.wanted.job == job && task.reopened_under == Some(up_to))
            .filter(|task| task.ended.is_none())
            .filter_map(|task| task.key)
            .collect()
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
            Some(how) => how.task_state(),
            None => self
                .core
                .task(record.key.expect("an open task"))
                .expect("the core holds it")
                .state()
                .task_state(),
        }
    }
}
