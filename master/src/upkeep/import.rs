//! `store import`: a new store from the lines that [`super::export`] writes. They are written as
//! commits of a journal and folded, as if everything had happened again, so the store is what a
//! master would have made of it.

use super::export::LOST_MAX;
use super::line::{ExportLine, FORMAT};
use super::pieces::{BlobJoiner, JoinError};
use super::{NewStore, OpenStore, UpkeepError};
use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;
use taskmaster_blobs::Blobs;
use taskmaster_protocol::{AttemptId, ErrorKind, Hash, JobName, ModuleName, TaskError, Wall};
use taskmaster_store::body::TaskBody;
use taskmaster_store::codec;
use taskmaster_store::journal::{AppendError, Journal, KvJournal, SyncedMark};
use taskmaster_store::record::{
    Ended, JobRecord, JournalEntry, ModuleRecord, Record, Retrying, Rights,
};
use taskmaster_store::references::{self, Reference};
use taskmaster_store::view;

/// Records in one commit.
const COMMIT_RECORDS: usize = 2_000;

/// Why an export cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A line is wrong.
    #[error("line {number}: {error}; nothing was imported")]
    Line {
        /// The number of the line, from 1.
        number: usize,
        /// What is wrong with it.
        error: LineError,
    },
    /// The last line is missing.
    #[error("the export is cut off: it has no `end` line; nothing was imported")]
    CutOff,
    /// The new journal cannot be written.
    #[error(transparent)]
    Journal(#[from] AppendError),
}

/// What is wrong with a line of an export.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no JSON, or no line of an export.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is a line after the last one, or not the first line where it should be.
    #[error("an export begins with its `store` line and stops with its `end` line")]
    WrongOrder,
    /// Another version of this program has written it.
    #[error("the export has format {0}, this program reads format {FORMAT}")]
    WrongFormat(u32),
    /// A piece of a blob cannot be kept.
    #[error(transparent)]
    Blob(#[from] JoinError),
    /// The bytes of a blob must come before the lines that name it.
    #[error("it names blob {0}, whose bytes did not come before it")]
    UnknownBlob(Hash),
    /// Lines with tasks are missing.
    #[error("the export had {expected} tasks, {came} came")]
    WrongCount {
        /// What the last line says.
        expected: u64,
        /// Lines with tasks.
        came: u64,
    },
    /// The new journal cannot be written.
    #[error(transparent)]
    Journal(#[from] AppendError),
}

/// What is in the new store.
#[derive(Debug)]
pub struct ImportSummary {
    /// Tasks.
    pub tasks: u64,
    /// Large params and results, versions of modules.
    pub blobs: u64,
    /// Blobs that the export says could not be read, a sentence for each of the first.
    pub lost: Vec<String>,
    /// Such blobs beyond those in `lost`.
    pub lost_more: u64,
}

/// Reads lines into a new store in `data`. The store gets its name only when all of it is there.
/// Where a line is wrong, or the power goes out, there is no store.
pub fn import(data: &Path, lines: &mut dyn BufRead) -> Result<ImportSummary, UpkeepError> {
    let had_blobs = data.join("blobs").exists();
    let store = NewStore::begin(data)?;
    let imported = read(&store.opened, lines);
    let finished = imported.and_then(|summary| store.finish().map(|()| summary));
    if finished.is_err() {
        let _ = std::fs::remove_dir_all(NewStore::folder(data));
        if !had_blobs {
            let _ = std::fs::remove_dir_all(data.join("blobs"));
        }
    }
    finished
}

fn read(store: &OpenStore, lines: &mut dyn BufRead) -> Result<ImportSummary, UpkeepError> {
    let mark = SyncedMark::open(&store.folder, 0)?;
    let mut importer = Importer {
        journal: KvJournal::open(store.store.clone())?.with_synced_mark(mark),
        blobs: BlobJoiner::new(Blobs::open_for_upkeep(&store.data)?),
        lost: BTreeMap::new(),
        records: Vec::new(),
        next_seq: 0,
        tasks: 0,
        has_ended: false,
    };
    for (index, line) in lines.lines().enumerate() {
        importer
            .take_text(index, line)
            .map_err(|error| ImportError::Line {
                number: index + 1,
                error,
            })?;
    }
    if !importer.has_ended {
        return Err(ImportError::CutOff.into());
    }
    importer.commit().map_err(ImportError::Journal)?;
    view::catch_up(&store.store)?;
    importer.journal.sync().map_err(ImportError::Journal)?;
    let lost = importer.lost.iter();
    Ok(ImportSummary {
        tasks: importer.tasks,
        blobs: importer.blobs.count,
        lost_more: lost.len().saturating_sub(LOST_MAX) as u64,
        lost: lost
            .take(LOST_MAX)
            .map(|(hash, why)| format!("blob {hash}: {why}"))
            .collect(),
    })
}

struct Importer {
    journal: KvJournal,
    blobs: BlobJoiner,
    /// Blobs that the export did not have, and why.
    lost: BTreeMap<Hash, String>,
    /// Records of the next commit.
    records: Vec<Record>,
    /// The seq of the first event of the next commit. The seqs of the old store go on, so that
    /// nobody who asks for what came after one of them misses anything.
    next_seq: u64,
    /// Lines with tasks so far.
    tasks: u64,
    /// The last line has come.
    has_ended: bool,
}

impl Importer {
    fn take_text(&mut self, index: usize, text: io::Result<String>) -> Result<(), LineError> {
        let line: ExportLine = serde_json::from_str(&text?)?;
        let is_first = matches!(line, ExportLine::Store { .. });
        if self.has_ended || (index == 0) != is_first {
            return Err(LineError::WrongOrder);
        }
        self.take(line)?;
        if self.records.len() >= COMMIT_RECORDS {
            self.commit()?;
        }
        Ok(())
    }

    fn take(&mut self, line: ExportLine) -> Result<(), LineError> {
        match line {
            ExportLine::Store { format, epoch, seq } => {
                if format != FORMAT {
                    return Err(LineError::WrongFormat(format));
                }
                self.next_seq = seq + 1;
                self.records.push(Record::Started { epoch });
            }
            ExportLine::Blob { hash, last, base64 } => self.blobs.take(hash, last, &base64.0)?,
            ExportLine::Lost { hash, why } => {
                self.lost.insert(hash, why);
            }
            ExportLine::Module {
                name,
                record,
                rights,
            } => self.take_module(name, record, rights)?,
            ExportLine::Job { name, record } => self.take_job(&name, record),
            ExportLine::Open {
                body,
                priority,
                tries,
                lost,
                fence,
                due,
            } => {
                self.expect_all(references::of_body(&body))?;
                self.tasks += 1;
                let ordinal = body.ordinal;
                let retrying = retrying(&body, tries, lost, fence, due);
                self.records.push(Record::Added(body));
                self.records.extend(retrying.map(Record::Retrying));
                self.records.push(Record::Set {
                    ordinal,
                    priority,
                    due,
                });
            }
            ExportLine::Ended { body, ended } => {
                self.expect_all(references::of_body(&body).chain(references::of_ended(&ended)))?;
                self.tasks += 1;
                self.records.push(Record::Added(body));
                let ended = Ended {
                    seq: self.next_event_seq(),
                    ..ended.as_ref().clone()
                };
                self.records.push(Record::Ended(Arc::new(ended)));
            }
            ExportLine::End { tasks } => {
                if tasks != self.tasks {
                    return Err(LineError::WrongCount {
                        expected: tasks,
                        came: self.tasks,
                    });
                }
                self.has_ended = true;
            }
        }
        Ok(())
    }

    fn take_module(
        &mut self,
        name: ModuleName,
        record: ModuleRecord,
        rights: Option<Box<Rights>>,
    ) -> Result<(), LineError> {
        for version in &record.versions {
            self.expect(&version.version)?;
        }
        self.records.push(Record::Module {
            name: name.clone(),
            event: None,
            record: Box::new(record),
        });
        self.records.extend(rights.map(|rights| Record::Rights {
            name,
            event: None,
            rights: Some(rights),
        }));
        Ok(())
    }

    fn take_job(&mut self, job: &JobName, record: JobRecord) {
        let run = record.run;
        self.records.push(Record::JobOpened {
            job: job.clone(),
            run,
        });
        if !record.open {
            self.records.push(Record::JobDone {
                job: job.clone(),
                run,
            });
        }
        if record.paused {
            self.records.push(Record::JobPaused {
                job: job.clone(),
                paused: true,
            });
        }
        if record.cancelled_up_to > 0 {
            self.records.push(Record::JobCancelled {
                job: job.clone(),
                up_to: record.cancelled_up_to,
            });
        }
        for by in record.holders {
            self.records.push(Record::JobHeld {
                job: job.clone(),
                by,
                held: true,
            });
        }
    }

    fn expect_all(&self, references: impl Iterator<Item = Reference>) -> Result<(), LineError> {
        for reference in references {
            self.expect(&reference.hash)?;
        }
        Ok(())
    }

    /// The bytes of a blob that a record names must have come before it, or be known to be lost.
    fn expect(&self, hash: &Hash) -> Result<(), LineError> {
        if self.blobs.has(hash) || self.lost.contains_key(hash) {
            Ok(())
        } else {
            Err(LineError::UnknownBlob(*hash))
        }
    }

    /// The seq of the event of the next record.
    fn next_event_seq(&self) -> u64 {
        let events = self
            .records
            .iter()
            .filter(|record| record.event().is_some());
        self.next_seq + events.count() as u64
    }

    fn commit(&mut self) -> Result<(), AppendError> {
        let first_seq = self.next_seq;
        self.next_seq = self.next_event_seq();
        let entry = JournalEntry {
            first_seq,
            time: taskmaster_engine::clock::now().wall,
            records: std::mem::take(&mut self.records),
        };
        let commit = self.journal.end() + 1;
        self.journal.append(commit, &codec::encode(&entry))
    }
}

/// What the attempts of an open task have left. `None` where it has had none.
fn retrying(
    body: &TaskBody,
    tries: u32,
    lost: u32,
    fence: AttemptId,
    due: Option<Wall>,
) -> Option<Box<Retrying>> {
    let has_attempts = tries > 0 || lost > 0 || fence > AttemptId { epoch: 0, n: 0 };
    has_attempts.then(|| {
        let why = "its attempts before the import are not known";
        Box::new(Retrying {
            id: body.id.clone(),
            module: body.module.clone(),
            job: body.job.clone(),
            ordinal: body.ordinal,
            attempt: fence,
            runner: None,
            tries,
            lost,
            fence: Some(fence),
            due: due.unwrap_or(Wall(0)),
            error: TaskError::new(ErrorKind::Exit, why),
        })
    })
}
