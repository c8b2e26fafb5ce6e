//! A new engine from what the view has.

use super::add::{due_of, stored_job};
use super::modules::ModuleTable;
use super::{Engine, EngineConfig, Turn};
use crate::disk_space::DiskSpace;
use crate::events::EventFeed;
use crate::facts::{Facts, LastAttempt};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use taskmaster_core::{Due, Event, Origin, Scheduler};
use taskmaster_protocol::{Now, TaskId, Wall};
use taskmaster_store::body::TaskBody;
use taskmaster_store::journal;
use taskmaster_store::kv::{SharedStore, StoreError};
use taskmaster_store::record::Record;
use taskmaster_store::view::{self, OpenTask, RestoredView};

impl Engine {
    /// Takes up where the last master ended. The first turn makes the raised epoch durable: end it
    /// before anything else is told.
    pub fn restore(
        restored: RestoredView,
        config: EngineConfig,
        reader: SharedStore,
        events: EventFeed,
        now: Now,
    ) -> Result<Engine, StoreError> {
        let epoch = restored.watermarks.epoch + 1;
        let require_approved = config.require_approved;
        let mut engine = Engine {
            core: Scheduler::new(epoch),
            epoch,
            chance: config.seed | 1,
            config,
            facts: Facts::new(
                reader.clone(),
                restored.watermarks.seq,
                restored.watermarks.ordinal,
            )?,
            events,
            now,
            started: now,
            last_ordinal: restored.watermarks.ordinal,
            last_seq: restored.watermarks.seq,
            sessions: BTreeMap::new(),
            nothing: Arc::default(),
            modules: ModuleTable::restored(restored.modules, restored.rights, require_approved),
            disk: DiskSpace::Ample,
            held_back: Vec::new(),
            finished: [0; 4],
            effects: Vec::new(),
            gone: BTreeMap::new(),
            stopping: false,
            idle: None,
            told_us: super::TOLD_US,
            turn: Turn {
                first_seq: restored.watermarks.seq + 1,
                ..Turn::default()
            },
        };
        engine.store(Record::Started { epoch });
        let modules: Vec<_> = engine
            .modules
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        for module in modules {
            let (open, needs) = (
                engine.modules.is_open(&module),
                engine.modules.granted(&module),
            );
            engine.tell(Event::ModuleNeedsChanged {
                module: module.clone(),
                needs,
            });
            engine.tell(Event::ModuleOpened { module, open });
        }
        let open_jobs: Vec<_> = restored
            .jobs
            .into_iter()
            .filter(|(_, record)| record.open)
            .collect();
        for (job, record) in &open_jobs {
            engine.tell(Event::JobOpened {
                job: job.clone(),
                stored: stored_job(record),
                restored: true,
            });
            for by in &record.holders {
                engine.tell(Event::JobHeld {
                    job: job.clone(),
                    by: by.clone(),
                    restored: true,
                });
            }
        }
        let then = last_time(&reader)?.unwrap_or(now.wall);
        let mut later = PostponedTasks::default();
        view::open_tasks(reader.as_ref(), &mut |body, task| {
            if let Some((body, task)) = later.hold(body, task) {
                engine.came_back(body, &task, then);
            }
            Ok(())
        })?;
        for (body, task) in later.in_order() {
            engine.came_back(body, &task, then);
        }
        for (job, record) in open_jobs {
            if record.cancelled_up_to > 0 {
                engine.tell(Event::JobCancelRequested {
                    job,
                    up_to: record.cancelled_up_to,
                    restored: true,
                });
            }
        }
        engine.tell(Event::Started {
            roster: restored.roster,
        });
        Ok(engine)
    }

    /// A task that was open when the last commit was made, at `then`.
    fn came_back(&mut self, body: Arc<TaskBody>, task: &OpenTask, then: Wall) {
        let OpenTask {
            body: _,
            priority,
            tries,
            lost,
            fence,
            due,
        } = *task;
        let now = self.now;
        let until = due
            .or_else(|| delayed_until(&body, now))
            .filter(|until| *until > now.wall);
        // What was left to wait for then, at the most: the clock may have been set back since.
        let wait_us = until.map(|until| until.since_us(now.wall.max(then)));
        let (due, no) = (
            wait_us
                .map(|us| Due::Mono(now.mono_us + us))
                .or(due.map(|_| Due::Mono(now.mono_us))),
            body.ordinal,
        );
        // It must not be waited for anew at the next start.
        if let Some(us) = wait_us.filter(|_| then > now.wall) {
            self.store(Record::Set {
                ordinal: no,
                priority,
                due: Some(now.wall.plus_us(us)),
            });
        }
        let key = self.came(body, priority, Origin::Restored { tries, lost, fence }, due);
        // A dependency had failed, and the master ended before this one was skipped: it is now, and
        // gone already.
        let Some(live) = self.facts.live_if_held(key) else {
            return;
        };
        live.body.pack();
        live.last = (tries + lost > 0).then(|| {
            Box::new(LastAttempt {
                n: fence.n,
                ..LastAttempt::default()
            })
        });
    }
}

/// Open tasks that are told last. Tasks come back in the order of their adding, which is one in
/// which dependencies come first; but one that has gone on as another may wait for tasks that came
/// after it, and others wait for it.
#[derive(Default)]
struct PostponedTasks {
    held: BTreeMap<TaskId, (Arc<TaskBody>, OpenTask)>,
}

impl PostponedTasks {
    /// Holds the task where it must be told later; else gives it back.
    fn hold(&mut self, body: Arc<TaskBody>, task: OpenTask) -> Option<(Arc<TaskBody>, OpenTask)> {
        let waits = !self.held.is_empty()
            && body
                .dependencies()
                .iter()
                .any(|on| self.held.contains_key(&on.on));
        if !waits && !body.is_continued() {
            return Some((body, task));
        }
        self.held.insert(body.id.clone(), (body, task));
        None
    }

    /// All that were held, dependencies first.
    fn in_order(mut self) -> Vec<(Arc<TaskBody>, OpenTask)> {
        let mut missing: BTreeMap<TaskId, usize> = BTreeMap::new();
        let mut waiting: BTreeMap<TaskId, Vec<TaskId>> = BTreeMap::new();
        for (id, (body, _)) in &self.held {
            let on: BTreeSet<&TaskId> = body
                .dependencies()
                .iter()
                .map(|dependency| &dependency.on)
                .collect();
            let held = on.into_iter().filter(|on| self.held.contains_key(*on));
            let count = held
                .map(|on| waiting.entry(on.clone()).or_default().push(id.clone()))
                .count();
            missing.insert(id.clone(), count);
        }
        let mut free: VecDeque<TaskId> = missing
            .iter()
            .filter(|(_, n)| **n == 0)
            .map(|(id, _)| id.clone())
            .collect();
        let mut order = Vec::with_capacity(self.held.len());
        while let Some(id) = free.pop_front() {
            for dependent in waiting.remove(&id).unwrap_or_default() {
                let count = missing.entry(dependent.clone()).or_default();
                *count = count.saturating_sub(1);
                if *count == 0 {
                    free.push_back(dependent);
                }
            }
            order.extend(self.held.remove(&id));
        }
        // No cycle is ever let in; if one were, its tasks would wait for ever, and are told all the
        // same.
        order.extend(self.held.into_values());
        order
    }
}

/// Until when a document's `delay_ms` lasts, where that is what the task waits for.
fn delayed_until(body: &TaskBody, now: Now) -> Option<Wall> {
    let delay_ms = body.extras.as_ref()?.delay_ms?;
    matches!(due_of(body, now), Some(Due::Mono(_))).then(|| body.created.plus_us(delay_ms * 1_000))
}

/// When the last commit was made.
fn last_time(reader: &SharedStore) -> Result<Option<Wall>, StoreError> {
    let last = journal::entry(reader, journal::last(reader)?)?;
    Ok(last.map(|entry| entry.time))
}
