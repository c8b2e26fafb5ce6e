//! `store export`: what a store knows, as JSON lines that [`super::import`] reads.
//!
//! The first line says how it was counted, the last one that all of it is there. Params and results
//! stand as they came; files, large ones and modules come in lines of their own, before the first
//! line that names them.

use super::pieces::{self, Piece, SayError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::sync::Arc;
use taskmaster_blobs::Blobs;
use taskmaster_protocol::{AttemptId, Hash, JobName, Listing, ModuleName, Wall};
use taskmaster_store::body::TaskBody;
use taskmaster_store::kv::{Shelf, StoreError};
use taskmaster_store::record::{Ended, JobRecord, ModuleRecord, Rights};
use taskmaster_store::references::{self, Reference};
use taskmaster_store::view::{self, OpenTask, Stored};

/// The version of these lines.
pub const FORMAT: u32 = 1;

/// One line: an object whose only key says what it is. (A tag beside the others could not be read:
/// params and results are kept as text, and such text is lost where a line is read twice.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// The first one.
    Store {
        /// See [`FORMAT`].
        format: u32,
        /// How many times a master had started.
        epoch: u32,
        /// The seq of the last event.
        seq: u64,
    },
    /// A part of large params, of a large result or of a module's bytes.
    Blob {
        /// Of all of it.
        hash: Hash,
        /// Whether it ends here.
        last: bool,
        /// The next bytes.
        base64: Piece,
    },
    /// A blob that is named below and could not be read: what names it is incomplete.
    Lost {
        /// Which one.
        hash: Hash,
        /// Why.
        why: String,
    },
    /// A module, as the master knows it.
    Module {
        /// Its name.
        name: ModuleName,
        /// What is known of it.
        record: ModuleRecord,
        /// What it may reach, where anything is known of that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rights: Option<Box<Rights>>,
    },
    /// A job.
    Job {
        /// Its name.
        name: JobName,
        /// What is known of it.
        record: JobRecord,
    },
    /// A task that has not ended.
    Open {
        /// What its feeder said.
        body: Arc<TaskBody>,
        /// Its priority now.
        priority: i32,
        /// Failures counted.
        tries: u32,
        /// Lost runners counted.
        lost: u32,
        /// Attempts up to this one are void.
        fence: AttemptId,
        /// When it may start.
        due: Option<Wall>,
    },
    /// A task that has.
    Ended {
        /// What its feeder said.
        body: Arc<TaskBody>,
        /// What became of it.
        ended: Arc<Ended>,
    },
    /// The last one.
    End {
        /// Lines with tasks.
        tasks: u64,
    },
}

/// Why an export was not written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Where it goes.
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// What was written.
#[derive(Debug, Default)]
pub struct Exported {
    /// Tasks.
    pub tasks: u64,
    /// Files, large params and results, versions of modules.
    pub blobs: u64,
    /// Those that could not be read, with a sentence each.
    pub lost: Vec<String>,
}

/// Writes all lines. The journal must be folded.
pub fn export(
    shelf: &dyn Shelf,
    blobs: &Blobs,
    out: &mut dyn Write,
) -> Result<Exported, ExportError> {
    let mut export = Export {
        out,
        blobs,
        said: HashSet::new(),
        done: Exported::default(),
        failed: None,
    };
    let written = export.all(shelf);
    match export.failed {
        Some(error) => Err(error.into()),
        None => Ok(written.map(|()| export.done)?),
    }
}

struct Export<'a> {
    out: &'a mut dyn Write,
    blobs: &'a Blobs,
    /// Blobs that are written or lost: many tasks may name the same.
    said: HashSet<Hash>,
    done: Exported,
    /// Why no line can be written any more.
    failed: Option<io::Error>,
}

impl Export<'_> {
    fn say(&mut self, line: &Line) -> Result<(), StoreError> {
        let written = serde_json::to_writer(&mut *self.out, line).map_err(io::Error::from);
        written
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(|error| {
                self.failed.get_or_insert(error);
                StoreError::Failed("the export cannot be written".into())
            })
    }

    /// A blob, and of a folder those in it, first.
    fn named(&mut self, reference: Reference) -> Result<(), StoreError> {
        if reference.is_listing
            && !self.said.contains(&reference.hash)
            && let Ok(bytes) = self.blobs.get(&reference.hash)
            && let Ok(listing) = Listing::decode(&bytes)
        {
            listing
                .blobs()
                .into_iter()
                .try_for_each(|hash| self.blob(hash))?;
        }
        self.blob(reference.hash)
    }

    fn blob(&mut self, hash: Hash) -> Result<(), StoreError> {
        if !self.said.insert(hash) {
            return Ok(());
        }
        match pieces::say(self.blobs, hash, &mut |line| self.say(line)) {
            Ok(()) => self.done.blobs += 1,
            Err(SayError::Lost(why)) => {
                self.done.lost.push(format!("blob {hash}: {why}"));
                self.say(&Line::Lost { hash, why })?;
            }
            Err(SayError::Line(error)) => return Err(error),
        }
        Ok(())
    }

    fn all(&mut self, shelf: &dyn Shelf) -> Result<(), StoreError> {
        let marks = view::marks(shelf)?;
        self.say(&Line::Store {
            format: FORMAT,
            epoch: marks.epoch,
            seq: marks.seq,
        })?;
        let restored = view::restore(shelf)?;
        let mut rights: BTreeMap<ModuleName, Rights> = restored.rights.into_iter().collect();
        for (name, record) in restored.modules {
            for version in &record.versions {
                self.blob(version.version)?;
            }
            let rights = rights.remove(&name).map(Box::new);
            self.say(&Line::Module {
                name,
                record,
                rights,
            })?;
        }
        each_ended(shelf, &mut |Stored { body, ended }| {
            self.done.tasks += 1;
            references::of_body(&body)
                .chain(references::of_ended(&ended))
                .try_for_each(|named| self.named(named))?;
            self.say(&Line::Ended { body, ended })
        })?;
        view::open_tasks(shelf, &mut |body, task| {
            self.done.tasks += 1;
            references::of_body(&body).try_for_each(|named| self.named(named))?;
            let OpenTask {
                priority,
                tries,
                lost,
                fence,
                due,
                ..
            } = task;
            self.say(&Line::Open {
                body,
                priority,
                tries,
                lost,
                fence,
                due,
            })
        })?;
        for (name, record) in view::jobs(shelf, usize::MAX)? {
            self.say(&Line::Job { name, record })?;
        }
        self.say(&Line::End {
            tasks: self.done.tasks,
        })
    }
}

/// Every ended task of the view.
pub(super) fn each_ended(
    shelf: &dyn Shelf,
    meet: &mut dyn FnMut(Stored) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut next = 0;
    loop {
        let page = view::ended_from(shelf, next, 256)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        next = last.ended.seq + 1;
        page.into_iter().try_for_each(&mut *meet)?;
    }
}
