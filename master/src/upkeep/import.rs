//! `store import`: a new store from what [`super::export`] wrote. It is written as commits of a
//! journal and folded, as if all of it had happened again, so that it is what a master would have
//! made of it.

use super::export::{FORMAT, Line};
use super::pieces::Pieces;
use super::{Making, Opened, UpkeepError};
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use taskmaster_blobs::Blobs;
use taskmaster_protocol::{AttemptId, ErrorKind, Hash, TaskError, Wall};
use taskmaster_store::codec;
use taskmaster_store::journal::{Journal, ShelfJournal, SyncedMark};
use taskmaster_store::record::{Ended, Entry, Record, Retrying};
use taskmaster_store::references::{self, Reference};
use taskmaster_store::view;

/// Records in one commit.
const COMMIT_RECORDS: usize = 2_000;

/// What is there now.
#[derive(Debug)]
pub struct Imported {
    /// Tasks.
    pub tasks: u64,
    /// Large params and results, versions of modules.
    pub blobs: u64,
    /// Those that the export says could not be read, with a sentence each.
    pub lost: Vec<String>,
}

/// Reads lines into a new store in `data`. It has its name only when all of it is there: where a
/// line is wrong, or the power goes out, there is none.
pub fn import(data: &Path, lines: &mut dyn BufRead) -> Result<Imported, UpkeepError> {
    let had_blobs = data.join("blobs").exists();
    let making = Making::begin(data)?;
    let read = read(&making.opened, lines).and_then(|imported| making.finish().map(|()| imported));
    if read.is_err() {
        let _ = std::fs::remove_dir_all(Making::folder(data));
        if !had_blobs {
            let _ = std::fs::remove_dir_all(data.join("blobs"));
        }
    }
    read
}

fn read(opened: &Opened, lines: &mut dyn BufRead) -> Result<Imported, UpkeepError> {
    let mark = SyncedMark::open(&opened.folder, 0)?;
    let journal = ShelfJournal::open(opened.shelf.clone())?.noting(mark);
    let blobs = Blobs::of(&opened.data)?;
    let pieces = Pieces::new(blobs);
    let mut writer = Writer {
        journal,
        pieces,
        lost: BTreeMap::new(),
        records: Vec::new(),
        next_seq: 0,
        tasks: 0,
    };
    let mut ended = false;
    for (index, line) in lines.lines().enumerate() {
        let refused = |why: String| {
            UpkeepError::Refused(format!("line {}: {why}; nothing was imported", index + 1))
        };
        let line = line.map_err(|error| refused(error.to_string()))?;
        let line: Line = serde_json::from_str(&line).map_err(|error| refused(error.to_string()))?;
        if ended || (index == 0) != matches!(line, Line::Store { .. }) {
            return Err(refused(
                "an export begins with its `store` line and stops with its `end` line".into(),
            ));
        }
        ended = matches!(line, Line::End { .. });
        writer.take(line).map_err(refused)?;
    }
    if !ended {
        let text = "the export is cut off: it has no `end` line; nothing was imported";
        return Err(UpkeepError::Refused(text.into()));
    }
    writer.commit().map_err(UpkeepError::Refused)?;
    view::catch_up(&opened.shelf)?;
    writer
        .journal
        .sync()
        .map_err(|error| UpkeepError::Refused(error.to_string()))?;
    let lost = writer
        .lost
        .iter()
        .map(|(hash, why)| format!("blob {hash}: {why}"))
        .collect();
    Ok(Imported {
        tasks: writer.tasks,
        blobs: writer.pieces.count,
        lost,
    })
}

struct Writer {
    journal: ShelfJournal,
    pieces: Pieces,
    /// Blobs that the export did not have either.
    lost: BTreeMap<Hash, String>,
    records: Vec<Record>,
    /// The seq of the next event: those of the old store go on, so that nobody who asks for what
    /// came after one of them misses anything.
    next_seq: u64,
    tasks: u64,
}

impl Writer {
    fn take(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Store { format, epoch, seq } => {
                if format != FORMAT {
                    return Err(format!(
                        "the export has format {format}, this program reads format {FORMAT}"
                    ));
                }
                self.next_seq = seq + 1;
                self.records.push(Record::Started { epoch });
            }
            Line::Blob { hash, last, base64 } => self.pieces.take(hash, last, &base64.0)?,
            Line::Lost { hash, why } => _ = self.lost.insert(hash, why),
            Line::Module {
                name,
                record,
                rights,
            } => {
                record
                    .versions
                    .iter()
                    .try_for_each(|version| self.expect(&version.version))?;
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
            }
            Line::Job { name: job, record } => {
                self.records.push(Record::JobOpened {
                    job: job.clone(),
                    run: record.run,
                });
                if !record.open {
                    self.records.push(Record::JobDone {
                        job: job.clone(),
                        run: record.run,
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
                let held = |by| Record::JobHeld {
                    job: job.clone(),
                    by,
                    held: true,
                };
                self.records.extend(record.holders.into_iter().map(held));
            }
            Line::Open {
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
                let nothing = AttemptId { epoch: 0, n: 0 };
                let retrying = (tries > 0 || lost > 0 || fence > nothing).then(|| {
                    Box::new(Retrying {
                        id: body.id.clone(),
                        module: body.module.clone(),
                        job: body.job.clone(),
                        ordinal,
                        attempt: fence,
                        runner: None,
                        tries,
                        lost,
                        fence: Some(fence),
                        due: due.unwrap_or(Wall(0)),
                        error: TaskError::new(
                            ErrorKind::Exit,
                            "its attempts before the import are not known",
                        ),
                    })
                });
                self.records.push(Record::Added(body));
                self.records.extend(retrying.map(Record::Retrying));
                self.records.push(Record::Set {
                    ordinal,
                    priority,
                    due,
                });
            }
            Line::Ended { body, ended } => {
                self.expect_all(references::of_body(&body).chain(references::of_ended(&ended)))?;
                self.tasks += 1;
                self.records.push(Record::Added(body));
                let seq = self.seq_of_next();
                self.records.push(Record::Ended(Arc::new(Ended {
                    seq,
                    ..ended.as_ref().clone()
                })));
            }
            Line::End { tasks } if tasks != self.tasks => {
                return Err(format!("the export had {tasks} tasks, {} came", self.tasks));
            }
            Line::End { .. } => {}
        }
        if self.records.len() >= COMMIT_RECORDS {
            self.commit()
        } else {
            Ok(())
        }
    }

    fn expect_all(&self, mut named: impl Iterator<Item = Reference>) -> Result<(), String> {
        named.try_for_each(|reference| self.expect(&reference.hash))
    }

    /// The bytes of what a record names must have come before it, or be known to be lost.
    fn expect(&self, hash: &Hash) -> Result<(), String> {
        if self.pieces.has(hash) || self.lost.contains_key(hash) {
            return Ok(());
        }
        Err(format!(
            "it names blob {hash}, whose bytes did not come before it"
        ))
    }

    fn seq_of_next(&self) -> u64 {
        self.next_seq
            + self
                .records
                .iter()
                .filter(|record| record.event().is_some())
                .count() as u64
    }

    fn commit(&mut self) -> Result<(), String> {
        let first_seq = self.next_seq;
        self.next_seq = self.seq_of_next();
        let entry = Entry {
            first_seq,
            time: taskmaster_engine::clock::now().wall,
            records: std::mem::take(&mut self.records),
        };
        self.journal
            .append(self.journal.end() + 1, &codec::encode(&entry))
            .map_err(|error| error.to_string())
    }
}
