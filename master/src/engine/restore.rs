//! A new engine from what the view has.

use super::add::past_of;
use super::modules::Modules;
use super::{Engine, EngineConfig, LastAttempt, Turn};
use crate::events::EventFeed;
use crate::record::{Record, TaskBody};
use crate::store::{Reader, StoreError};
use crate::view::{self, OpenTask, Places, Restored};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use taskmaster_core::{Due, Event, Origin, Scheduler};
use taskmaster_protocol::Now;

impl Engine {
    /// Takes up where the last master ended. The first turn makes the raised epoch durable: end it before anything
    /// else is told.
    pub fn restore(
        restored: Restored,
        config: EngineConfig,
        reader: Reader,
        events: EventFeed,
        now: Now,
    ) -> Result<Engine, StoreError> {
        let epoch = restored.marks.epoch + 1;
        let mut engine = Engine {
            core: Scheduler::new(epoch),
            epoch,
            chance: config.seed | 1,
            config,
            places: RefCell::new(Places::with_filters(reader.as_ref())?),
            reader: reader.clone(),
            events,
            now,
            started: now,
            last_no: restored.marks.no,
            last_seq: restored.marks.seq,
            folded: restored.marks.seq,
            tasks: Vec::new(),
            free: Vec::new(),
            ids: HashMap::new(),
            open: BTreeMap::new(),
            ended: VecDeque::new(),
            skipped: HashMap::new(),
            idle_jobs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            nothing: Arc::default(),
            modules: Modules::restored(restored.modules),
            report: None,
            finished: [0; 4],
            effects: Vec::new(),
            gone: BTreeMap::new(),
            stopping: false,
            idle: None,
            told_us: super::TOLD_US,
            turn: Turn { first_seq: restored.marks.seq + 1, ..Turn::default() },
        };
        engine.store(Record::Started { epoch });
        let modules: Vec<_> = engine.modules.iter().map(|(name, _)| name.clone()).collect();
        for module in modules {
            let open = engine.modules.is_open(&module);
            engine.tell(Event::ModuleOpened { module, open });
        }
        let open_jobs: Vec<_> = restored.jobs.into_iter().filter(|(_, record)| record.open).collect();
        for (job, record) in &open_jobs {
            engine.tell(Event::JobOpened { job: job.clone(), past: past_of(record), restored: true });
            for by in &record.holders {
                engine.tell(Event::JobHeld { job: job.clone(), by: by.clone(), restored: true });
            }
        }
        view::open_tasks(reader.as_ref(), &mut |body, task| {
            engine.came_back(body, &task);
            Ok(())
        })?;
        for (job, record) in open_jobs {
            if record.cancelled_up_to > 0 {
                engine.tell(Event::JobCancelWanted { job, up_to: record.cancelled_up_to, restored: true });
            }
        }
        engine.tell(Event::Started { roster: restored.roster });
        Ok(engine)
    }

    fn came_back(&mut self, body: Arc<TaskBody>, task: &OpenTask) {
        let OpenTask { body: _, priority, tries, lost, fence, due } = *task;
        let due = due.map(|wall| Due::Mono(self.now.mono_us + wall.since_us(self.now.wall)));
        let key = self.came(body, priority, Origin::Restored { tries, lost, fence }, due);
        // A dependency had failed, and the master ended before this one was skipped: it is now, and gone already.
        let Some(live) = self.tasks.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        live.last = (tries + lost > 0).then(|| Box::new(LastAttempt { n: fence.n, ..LastAttempt::default() }));
    }
}
