//! Makes an engine from what the view has.

use super::add::{due_of, stored_job};
use super::answers::Answers;
use super::modules::ModuleTable;
use super::{Engine, EngineConfig, Turn};
use crate::cache::UncheckedBlobs;
use crate::disk_space::DiskSpace;
use crate::events::EventFeed;
use crate::facts::{Facts, LastAttempt};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use taskmaster_core::{CancelOrigin, Due, Event, Origin, Scheduler, TaskKey};
use taskmaster_protocol::{JobName, Now, TaskId, Wall};
use taskmaster_store::body::TaskBody;
use taskmaster_store::journal;
use taskmaster_store::kv::{SharedStore, StoreError};
use taskmaster_store::record::{JobRecord, Record};
use taskmaster_store::view::{self, OpenTask, RestoredView};

impl Engine {
    /// Continues where the last master ended. The first turn makes the raised epoch durable, so the
    /// caller must end this turn before it gives the engine any input.
    pub fn restore(
        restored: RestoredView,
        config: EngineConfig,
        store: SharedStore,
        events: EventFeed,
        now: Now,
    ) -> Result<Engine, StoreError> {
        let epoch = restored.watermarks.epoch + 1;
        let require_approved = config.require_approved;
        let cache_bytes = config.cache_bytes;
        let mut engine = Engine {
            core: Scheduler::new(epoch),
            epoch,
            random_state: config.seed | 1,
            config,
            facts: Facts::new(
                store.clone(),
                restored.watermarks.seq,
                restored.watermarks.ordinal,
            )?,
            events,
            now,
            started: now,
            last_ordinal: restored.watermarks.ordinal,
            last_seq: restored.watermarks.seq,
            connections: BTreeMap::new(),
            no_requirements: Arc::default(),
            modules: ModuleTable::restored(restored.modules, restored.rights, require_approved),
            disk: DiskSpace::Ample,
            postponed_reports: Vec::new(),
            finished: [0; 4],
            effects: Vec::new(),
            lost_links: BTreeMap::new(),
            stopping: false,
            idle_waiter: None,
            retention_us: super::RETENTION_US,
            sick_runners: Default::default(),
            waits: Default::default(),
            why_skipped: None,
            answers: Answers::new(cache_bytes, Box::new(UncheckedBlobs)),
            turn: Turn {
                first_seq: restored.watermarks.seq + 1,
                ..Turn::default()
            },
        };
        super::answers::restore(store.as_ref(), &mut engine.answers)?;
        engine.persist(Record::Started { epoch });
        engine.restore_modules();
        let open_jobs: Vec<(JobName, JobRecord)> = restored
            .jobs
            .into_iter()
            .filter(|(_, record)| record.open)
            .collect();
        engine.restore_jobs(&open_jobs);
        let reopened = engine.restore_tasks(&store)?;
        engine.restore_cancels(open_jobs, &reopened);
        engine.tell(Event::Started {
            roster: restored.roster,
        });
        Ok(engine)
    }

    fn restore_modules(&mut self) {
        let modules: Vec<_> = self.modules.iter().map(|(name, _)| name.clone()).collect();
        for module in modules {
            let open = self.modules.is_open(&module);
            let needs = self.modules.granted(&module);
            self.tell(Event::ModuleNeedsChanged {
                module: module.clone(),
                needs,
            });
            self.tell(Event::ModuleOpened { module, open });
        }
    }

    fn restore_jobs(&mut self, open_jobs: &[(JobName, JobRecord)]) {
        for (job, record) in open_jobs {
            self.tell(Event::JobOpened {
                job: job.clone(),
                stored: stored_job(record),
                restored: true,
            });
            for by in &record.holders {
                self.tell(Event::JobHeld {
                    job: job.clone(),
                    by: by.clone(),
                    restored: true,
                });
            }
        }
    }

    /// Goes on with cancels of jobs. They do not concern tasks that were opened again since.
    fn restore_cancels(&mut self, open_jobs: Vec<(JobName, JobRecord)>, reopened: &[ReopenedTask]) {
        // A later cancel must not go up to the same ordinal as an earlier one.
        let unders = reopened.iter().map(|task| task.under);
        self.last_ordinal = unders.fold(self.last_ordinal, u64::max);
        for (job, record) in open_jobs {
            let up_to = record.cancelled_up_to;
            if up_to == 0 {
                continue;
            }
            self.last_ordinal = self.last_ordinal.max(up_to);
            let is_since = |task: &&ReopenedTask| task.under == up_to && task.job == job;
            let since = reopened.iter().filter(is_since).map(|task| task.key);
            let origin = CancelOrigin::Restored {
                reopened: since.collect(),
            };
            self.tell(Event::JobCancelRequested { job, up_to, origin });
        }
    }

    /// Opens the tasks that were open when the last commit was made.
    /// Returns those that were opened again while their job was being cancelled.
    fn restore_tasks(&mut self, store: &SharedStore) -> Result<Vec<ReopenedTask>, StoreError> {
        let committed = last_time(store)?.unwrap_or(self.now.wall);
        let mut postponed = PostponedTasks::default();
        let mut reopened = Vec::new();
        view::open_tasks(store.as_ref(), &mut |body, task| {
            if let Some(restored) = postponed.postpone(RestoredTask { body, task }) {
                reopened.extend(self.restore_task(restored, committed)?);
            }
            Ok(())
        })?;
        for restored in postponed.in_order() {
            reopened.extend(self.restore_task(restored, committed)?);
        }
        Ok(reopened)
    }

    /// Opens a task that was open when the last commit was made, at the time `committed`.
    fn restore_task(
        &mut self,
        restored: RestoredTask,
        committed: Wall,
    ) -> Result<Option<ReopenedTask>, StoreError> {
        let RestoredTask { body, task } = restored;
        let OpenTask {
            body: _,
            priority,
            tries,
            lost,
            fence,
            due,
        } = task;
        let now = self.now;
        let until = due
            .or_else(|| delayed_until(&body, now))
            .filter(|until| *until > now.wall);
        // The task waits at most as long as was left when the last commit was made, because the
        // clock may have been set back since.
        let wait_us = until.map(|until| until.since_us(now.wall.max(committed)));
        let start = wait_us
            .map(|us| Due::Mono(now.mono_us + us))
            .or(due.map(|_| Due::Mono(now.mono_us)));
        // The next start must not let the task wait anew.
        if let Some(us) = wait_us.filter(|_| committed > now.wall) {
            self.persist(Record::Set {
                ordinal: body.ordinal,
                priority,
                due: Some(now.wall.plus_us(us)),
            });
        }
        let origin = Origin::Restored { tries, lost, fence };
        let job = body.job.clone();
        let under = body.reopened_under();
        let key = self.open_task(body, priority, origin, start)?;
        // The core may have skipped the task at once, if its dependency failed before the restart.
        // Then there is nothing left to update.
        let Some(live) = self.facts.live_if_held(key) else {
            return Ok(None);
        };
        live.body.pack();
        live.last = (tries + lost > 0).then(|| {
            Box::new(LastAttempt {
                n: fence.n,
                ..LastAttempt::default()
            })
        });
        Ok(under.map(|under| ReopenedTask { key, job, under }))
    }
}

/// A task that was opened again while its job was being cancelled.
struct ReopenedTask {
    key: TaskKey,
    job: JobName,
    /// The ordinal up to which that cancel went.
    under: u64,
}

/// An open task of the view.
struct RestoredTask {
    body: Arc<TaskBody>,
    task: OpenTask,
}

/// Open tasks that are opened last. Tasks are restored in the order in which they were added, in
/// which a task comes after its dependencies. But a task that has continued as another one may
/// depend on later tasks, and it must be opened before the tasks that depend on it.
#[derive(Default)]
struct PostponedTasks {
    tasks: BTreeMap<TaskId, RestoredTask>,
}

impl PostponedTasks {
    /// Keeps a task that must be opened later. Returns any other task.
    fn postpone(&mut self, restored: RestoredTask) -> Option<RestoredTask> {
        let body = &restored.body;
        let waits = !self.tasks.is_empty()
            && body
                .dependencies()
                .iter()
                .any(|dependency| self.tasks.contains_key(&dependency.on));
        if !waits && !body.is_continued() {
            return Some(restored);
        }
        self.tasks.insert(body.id.clone(), restored);
        None
    }

    /// All postponed tasks, dependencies first.
    fn in_order(mut self) -> Vec<RestoredTask> {
        let mut missing: BTreeMap<TaskId, usize> = BTreeMap::new();
        let mut dependents: BTreeMap<TaskId, Vec<TaskId>> = BTreeMap::new();
        for (id, restored) in &self.tasks {
            let dependencies: BTreeSet<&TaskId> = restored
                .body
                .dependencies()
                .iter()
                .map(|dependency| &dependency.on)
                .collect();
            let postponed = dependencies
                .into_iter()
                .filter(|on| self.tasks.contains_key(*on));
            let count = postponed
                .map(|on| dependents.entry(on.clone()).or_default().push(id.clone()))
                .count();
            missing.insert(id.clone(), count);
        }
        let mut ready: VecDeque<TaskId> = missing
            .iter()
            .filter(|(_, count)| **count == 0)
            .map(|(id, _)| id.clone())
            .collect();
        let mut order = Vec::with_capacity(self.tasks.len());
        while let Some(id) = ready.pop_front() {
            for dependent in dependents.remove(&id).unwrap_or_default() {
                let count = missing.entry(dependent.clone()).or_default();
                *count = count.saturating_sub(1);
                if *count == 0 {
                    ready.push_back(dependent);
                }
            }
            order.extend(self.tasks.remove(&id));
        }
        // Cycles are always refused. If there were one, its tasks would be opened here, and would
        // wait for ever.
        order.extend(self.tasks.into_values());
        order
    }
}

/// When the `delay_ms` of a document ends, if that is what the task waits for.
fn delayed_until(body: &TaskBody, now: Now) -> Option<Wall> {
    let delay_ms = body.extras.as_ref()?.delay_ms?;
    matches!(due_of(body, now), Some(Due::Mono(_))).then(|| body.created.plus_us(delay_ms * 1_000))
}

/// When the last commit was made.
fn last_time(store: &SharedStore) -> Result<Option<Wall>, StoreError> {
    let last = journal::entry(store, journal::last(store)?)?;
    Ok(last.map(|entry| entry.time))
}
