//! `store export`: what a store knows, as JSON lines that [`super::import`] reads.
//!
//! The first line says the format, and the last line that everything is there. Params and results
//! are as they came. Files, large params and results, and modules come in lines of their own,
//! before the first line that names them.

use super::line::{ExportLine, FORMAT};
use super::pieces::{self, PieceError};
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::sync::Arc;
use taskmaster_blobs::{Blobs, OpenError};
use taskmaster_protocol::{Hash, Listing, ModuleName};
use taskmaster_store::body::TaskBody;
use taskmaster_store::kv::{KvStore, StoreError};
use taskmaster_store::record::{ModuleRecord, Rights};
use taskmaster_store::references::{self, Reference};
use taskmaster_store::view::{self, EndedTask, OpenTask};

/// Ended tasks that are read at a time.
const PAGE_TASKS: usize = 256;

/// Why an export was not written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs cannot be opened.
    #[error(transparent)]
    Blobs(#[from] OpenError),
    /// The export cannot be written.
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Sentences about what is lost that are kept. More help nobody.
pub(super) const LOST_MAX: usize = 100;

/// What was written.
#[derive(Debug, Default)]
pub struct ExportSummary {
    /// Tasks.
    pub tasks: u64,
    /// Files, large params and results, versions of modules.
    pub blobs: u64,
    /// What could not be read, a sentence for each thing.
    pub lost: Vec<String>,
    /// Things that could not be read beyond those in `lost`.
    pub lost_more: u64,
}

impl ExportSummary {
    /// This summary, with what was found to be wrong with the store before it was exported.
    pub(super) fn with_damage(mut self, damage: &StoreError) -> ExportSummary {
        self.lost.insert(0, damage.to_string());
        self
    }
}

/// Writes all lines. The journal must be folded.
pub fn export(
    store: &dyn KvStore,
    blobs: &Blobs,
    out: &mut dyn Write,
) -> Result<ExportSummary, ExportError> {
    Exporter::write(blobs, out, |exporter| exporter.write_all(store))
}

/// Writes the lines of an export.
pub(super) struct Exporter<'a> {
    out: &'a mut dyn Write,
    blobs: &'a Blobs,
    /// Blobs that are written or lost. Many tasks may name the same blob.
    handled: HashSet<Hash>,
    summary: ExportSummary,
    /// Why no line can be written any more. The functions that read the store pass only its own
    /// errors on.
    write_error: Option<io::Error>,
}

impl<'a> Exporter<'a> {
    /// Writes what `lines` gives to the exporter.
    pub fn write(
        blobs: &'a Blobs,
        out: &'a mut dyn Write,
        lines: impl FnOnce(&mut Exporter<'a>) -> Result<(), StoreError>,
    ) -> Result<ExportSummary, ExportError> {
        let mut exporter = Exporter {
            out,
            blobs,
            handled: HashSet::new(),
            summary: ExportSummary::default(),
            write_error: None,
        };
        let written = lines(&mut exporter);
        match exporter.write_error {
            Some(error) => Err(error.into()),
            None => Ok(written.map(|()| exporter.summary)?),
        }
    }

    /// Notes something that cannot be exported.
    pub fn lose(&mut self, what: String) {
        if self.summary.lost.len() < LOST_MAX {
            self.summary.lost.push(what);
        } else {
            self.summary.lost_more += 1;
        }
    }

    /// Writes a line.
    pub fn line(&mut self, line: &ExportLine) -> Result<(), StoreError> {
        let written = serde_json::to_writer(&mut *self.out, line).map_err(io::Error::from);
        written
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(|error| {
                self.write_error.get_or_insert(error);
                StoreError::Failed("the export cannot be written".into())
            })
    }

    fn write_all(&mut self, store: &dyn KvStore) -> Result<(), StoreError> {
        let marks = view::watermarks(store)?;
        self.line(&ExportLine::Store {
            format: FORMAT,
            epoch: marks.epoch,
            seq: marks.seq,
        })?;
        let restored = view::restore(store)?;
        let mut rights: BTreeMap<ModuleName, Rights> = restored.rights.into_iter().collect();
        for (name, record) in restored.modules {
            let rights = rights.remove(&name);
            self.module(name, record, rights)?;
        }
        each_ended(store, &mut |task| self.ended(task))?;
        view::open_tasks(store, &mut |body, task| self.open(body, task))?;
        for (name, record) in view::jobs_after(store, "", usize::MAX)? {
            self.line(&ExportLine::Job { name, record })?;
        }
        self.end()
    }

    /// Writes the last line.
    pub fn end(&mut self) -> Result<(), StoreError> {
        let tasks = self.summary.tasks;
        self.line(&ExportLine::End { tasks })
    }

    /// Writes a module, and its versions before it.
    pub fn module(
        &mut self,
        name: ModuleName,
        record: ModuleRecord,
        rights: Option<Rights>,
    ) -> Result<(), StoreError> {
        for version in &record.versions {
            self.write_blob(version.version)?;
        }
        self.line(&ExportLine::Module {
            name,
            record,
            rights: rights.map(Box::new),
        })
    }

    /// Writes an open task, and what it names before it.
    pub fn open(&mut self, body: Arc<TaskBody>, task: OpenTask) -> Result<(), StoreError> {
        self.summary.tasks += 1;
        self.write_named(references::of_body(&body))?;
        let OpenTask {
            priority,
            tries,
            lost,
            fence,
            due,
            ..
        } = task;
        self.line(&ExportLine::Open {
            body,
            priority,
            tries,
            lost,
            fence,
            due,
        })
    }

    /// Writes an ended task, and what it names before it.
    pub fn ended(&mut self, task: EndedTask) -> Result<(), StoreError> {
        let EndedTask { body, ended } = task;
        self.summary.tasks += 1;
        self.write_named(references::of_body(&body).chain(references::of_ended(&ended)))?;
        self.line(&ExportLine::Ended { body, ended })
    }

    /// Writes the blobs that a record names. The files of a folder come before the folder.
    fn write_named(
        &mut self,
        references: impl Iterator<Item = Reference>,
    ) -> Result<(), StoreError> {
        for reference in references {
            if reference.is_listing
                && !self.handled.contains(&reference.hash)
                && let Ok(bytes) = self.blobs.get(&reference.hash)
                && let Ok(listing) = Listing::decode(&bytes)
            {
                for hash in listing.blobs() {
                    self.write_blob(hash)?;
                }
            }
            self.write_blob(reference.hash)?;
        }
        Ok(())
    }

    fn write_blob(&mut self, hash: Hash) -> Result<(), StoreError> {
        if !self.handled.insert(hash) {
            return Ok(());
        }
        match pieces::write_blob(self.blobs, hash, &mut |line| self.line(line)) {
            Ok(()) => self.summary.blobs += 1,
            Err(PieceError::Lost(why)) => {
                self.lose(format!("blob {hash}: {why}"));
                self.line(&ExportLine::Lost { hash, why })?;
            }
            Err(PieceError::Line(error)) => return Err(error),
        }
        Ok(())
    }
}

/// Calls `visit` with every ended task of the view.
pub(super) fn each_ended(
    store: &dyn KvStore,
    visit: &mut dyn FnMut(EndedTask) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut next = 0;
    loop {
        let page = view::ended_from(store, next, PAGE_TASKS)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        next = last.ended.seq + 1;
        page.into_iter().try_for_each(&mut *visit)?;
    }
}
