//! The export of a damaged store: all that is sound, and a sentence for each thing that is not.
//!
//! The store is read from its log file, where damage costs only what it hits (see
//! [`SalvagedStore`]). What was left in an older state is told apart with the journal, which says of
//! about a million events what became of each task, and has the tasks that the view has lost.

mod fates;

use super::export::{ExportError, ExportSummary, Exporter};
use super::line::{ExportLine, FORMAT};
use fates::Fates;
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use taskmaster_blobs::Blobs;
use taskmaster_protocol::{JobName, ModuleName, TaskId};
use taskmaster_store::body::TaskBody;
use taskmaster_store::kv::SharedStore;
use taskmaster_store::kv::salvage::SalvagedStore;
use taskmaster_store::record::{JobRecord, ModuleRecord, Rights};
use taskmaster_store::view::sound::{self, Sound};
use taskmaster_store::view::{self, EndedTask, OpenTask, Watermarks};

/// Writes what is sound of the damaged store in `folder`. Nothing is changed there.
pub fn export_sound(
    folder: &Path,
    blobs: &Blobs,
    out: &mut dyn Write,
) -> Result<ExportSummary, ExportError> {
    let salvaged = SalvagedStore::open(folder)?;
    let places = salvaged.damaged_places;
    let store: SharedStore = Arc::new(salvaged);
    Exporter::write(blobs, out, |exporter| {
        if places > 0 {
            exporter.lose(format!("the store's file is damaged in {places} places"));
        }
        let fates = Fates::read(&store, &mut |lost| exporter.lose(lost));
        let mut salvage = Salvage {
            exporter,
            store,
            fates,
            written: HashSet::new(),
            jobs: BTreeMap::new(),
        };
        salvage.write()
    })
}

struct Salvage<'a, 'b> {
    exporter: &'a mut Exporter<'b>,
    store: SharedStore,
    /// What the journal says of tasks, jobs and modules.
    fates: Fates,
    /// Tasks that are written, because an older state of the store may have one again.
    written: HashSet<TaskId>,
    /// All jobs, by name.
    jobs: BTreeMap<JobName, JobRecord>,
}

type Written = Result<(), taskmaster_store::kv::StoreError>;

impl Salvage<'_, '_> {
    fn write(&mut self) -> Written {
        let marks = view::watermarks(self.store.as_ref()).unwrap_or_else(|error| {
            self.exporter.lose(error.to_string());
            Watermarks::default()
        });
        self.exporter.line(&ExportLine::Store {
            format: FORMAT,
            epoch: marks.epoch.max(self.fates.epoch),
            seq: marks.seq.max(self.fates.seq),
        })?;
        self.write_modules()?;
        let jobs = self.sound_of(sound::jobs(self.store.as_ref()));
        self.jobs = self.fates.jobs_after(jobs, &marks);
        self.write_ended()?;
        self.write_open()?;
        for (name, record) in std::mem::take(&mut self.jobs) {
            self.exporter.line(&ExportLine::Job { name, record })?;
        }
        self.exporter.end()
    }

    /// What can be read; what cannot is told.
    fn sound_of<T>(&mut self, read: Vec<Sound<T>>) -> Vec<T> {
        let mut sound = Vec::new();
        for read in read {
            match read {
                Ok(found) => sound.push(found),
                Err(error) => self.exporter.lose(error.to_string()),
            }
        }
        sound
    }

    fn write_modules(&mut self) -> Written {
        let modules = self.sound_of(sound::modules(self.store.as_ref()));
        let rights = self.sound_of(sound::rights(self.store.as_ref()));
        let mut rights: BTreeMap<ModuleName, Rights> = rights.into_iter().collect();
        let mut modules: BTreeMap<ModuleName, ModuleRecord> = modules.into_iter().collect();
        modules.extend(std::mem::take(&mut self.fates.modules));
        for (name, newer) in std::mem::take(&mut self.fates.rights) {
            match newer {
                Some(newer) => rights.insert(name, *newer),
                None => rights.remove(&name),
            };
        }
        for (name, record) in modules {
            let rights = rights.remove(&name);
            self.exporter.module(name, record, rights)?;
        }
        Ok(())
    }

    fn write_ended(&mut self) -> Written {
        let store = self.store.clone();
        sound::each_ended(store.as_ref(), &mut |read| match read {
            Ok(task) if self.fates.is_last_end(&task.ended) => self.write_one_ended(task),
            Ok(_) => Ok(()),
            Err(error) => {
                self.exporter.lose(error.to_string());
                Ok(())
            }
        })?;
        for task in self.fates.ends_but(&store, &self.written) {
            self.write_one_ended(task)?;
        }
        Ok(())
    }

    fn write_one_ended(&mut self, task: EndedTask) -> Written {
        if !self.written.insert(task.ended.id.clone()) {
            return Ok(());
        }
        self.exporter.ended(task)
    }

    /// Open tasks are written in the order of adding. Those that only the journal has are put
    /// between those of the view.
    fn write_open(&mut self) -> Written {
        let store = self.store.clone();
        let mut open: BTreeMap<u64, TaskId> = BTreeMap::new();
        let mut of_journal = self.fates.open_tasks(&store);
        for task in of_journal.values() {
            open.extend(id_and_place(task));
        }
        sound::each_open(store.as_ref(), &mut |read| {
            match read {
                Ok(task) => {
                    let is_open = |(_, id): &(u64, TaskId)| {
                        !self.written.contains(id) && self.fates.may_be_open(id)
                    };
                    open.extend(id_and_place(&task).filter(is_open));
                }
                Err(error) => self.exporter.lose(error.to_string()),
            }
            Ok::<(), taskmaster_store::kv::StoreError>(())
        })?;
        sound::each_open(store.as_ref(), &mut |read| {
            let Ok(task) = read else {
                return Ok(());
            };
            let Some((place, id)) = id_and_place(&task) else {
                return Ok(());
            };
            // First those of the journal that come before this one.
            let later = of_journal.split_off(&place);
            for (_, before) in std::mem::replace(&mut of_journal, later) {
                self.write_one_open(before)?;
            }
            if open.get(&place) != Some(&id) || of_journal.contains_key(&place) {
                return Ok(());
            }
            self.write_one_open(task)
        })?;
        for (_, task) in of_journal {
            self.write_one_open(task)?;
        }
        Ok(())
    }

    fn write_one_open(&mut self, task: OpenTask) -> Written {
        let Ok(body) = task.body.whole() else {
            return Ok(());
        };
        if !self.written.insert(body.id.clone()) {
            return Ok(());
        }
        // An open task is in an open job, also where the record of the job is lost.
        self.jobs.entry(body.job.clone()).or_default().open = true;
        self.exporter.open(body, task)
    }
}

fn id_and_place(task: &OpenTask) -> Option<(u64, TaskId)> {
    let body: Arc<TaskBody> = task.body.whole().ok()?;
    Some((body.ordinal, body.id.clone()))
}
