//! `store check`: is every record what was written, and do journal and view say the same?

use super::{Opened, UpkeepError, export};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use taskmaster_blobs::Blobs;
use taskmaster_protocol::{Hash, JobName, Listing, TaskId};
use taskmaster_store::journal::SyncedMark;
use taskmaster_store::kv::{Reader, StoreError};
use taskmaster_store::record::Record;
use taskmaster_store::references::{self, Reference};
use taskmaster_store::view::Marks;
use taskmaster_store::{journal, view};

/// Faults that are told; more help nobody.
const TOLD_MAX: usize = 20;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Whether all is well.
    pub ok: bool,
    /// Commits in the journal.
    pub commits: u64,
    /// Records in them.
    pub records: u64,
    /// Commits that are not in the view yet: a master folds them when it starts. What is counted
    /// below is the view's.
    pub unfolded: u64,
    /// Open tasks.
    pub open: u64,
    /// Ended tasks.
    pub ended: u64,
    /// Jobs.
    pub jobs: u64,
    /// Modules, input and output files, large params and results: each read and hashed.
    pub blobs: u64,
    /// What is wrong, a sentence each.
    pub wrong: Vec<String>,
    /// How many more are wrong.
    pub more: u64,
}

impl Report {
    fn wrong(&mut self, text: String) {
        if self.wrong.len() < TOLD_MAX {
            self.wrong.push(text);
        } else {
            self.more += 1;
        }
    }

    fn expect(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.wrong(text());
        }
    }
}

/// What the journal says of a task at the end of what is folded.
#[derive(Clone, Copy, PartialEq)]
enum Word {
    Open,
    /// The seq of its end.
    Ended(u64),
}

/// The journal, read.
#[derive(Default)]
struct Told {
    /// Blobs named by what the view does not have yet.
    hashes: BTreeSet<Reference>,
    words: HashMap<TaskId, Word>,
}

/// Reads everything.
pub fn check(opened: &Opened) -> Result<Report, UpkeepError> {
    let mut report = Report::default();
    // Damage that makes the store's engine give up is damage like any other.
    let read = std::panic::AssertUnwindSafe(|| read_all(opened, &mut report));
    match std::panic::catch_unwind(read) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => report.wrong(error.to_string()),
        Err(_) => report
            .wrong("the store's engine gave up over what it read; its message stands above".into()),
    }
    report.ok = report.wrong.is_empty();
    Ok(report)
}

fn read_all(opened: &Opened, report: &mut Report) -> Result<(), StoreError> {
    let shelf = &opened.shelf;
    if let Err(error) = SyncedMark::open(&opened.folder, journal::last(shelf)?) {
        report.wrong(error.to_string());
    }
    let marks = view::marks(shelf.as_ref())?;
    let told = journal_of(shelf, &marks, report)?;
    let mut hashes = told.hashes.clone();
    let seen = view_of(shelf, &told, &mut hashes, report)?;
    let (counted, held) = (marks.ended, report.ended);
    report.expect(counted == held, || {
        format!("the view counts {counted} ended tasks and holds {held}")
    });
    compare(&told, &seen, report);
    blobs_of(opened, hashes, report);
    Ok(())
}

/// Every commit: there, sound, and its events in their place.
fn journal_of(shelf: &Reader, marks: &Marks, report: &mut Report) -> Result<Told, StoreError> {
    let folded = marks.folded;
    let mut told = Told::default();
    let (first, last) = (journal::first(shelf)?.unwrap_or(1), journal::last(shelf)?);
    report.expect(first <= folded + 1, || {
        format!("the view ends at commit {folded} and the journal begins at {first}: what is between is missing")
    });
    let mut next_seq = None;
    for commit in first..=last {
        let entry = match journal::entry(shelf, commit) {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                report.wrong(format!("commit {commit} is missing"));
                next_seq = None;
                continue;
            }
            Err(error @ StoreError::Corrupt { .. }) => {
                report.wrong(error.to_string());
                next_seq = None;
                continue;
            }
            Err(other) => return Err(other),
        };
        report.expect(next_seq.is_none_or(|seq| seq == entry.first_seq), || {
            format!(
                "commit {commit} begins with event {} instead of {}",
                entry.first_seq,
                next_seq.unwrap_or(0)
            )
        });
        report.commits += 1;
        report.unfolded += u64::from(commit > folded);
        report.records += entry.records.len() as u64;
        let mut seq = entry.first_seq;
        for (index, record) in entry.records.iter().enumerate() {
            let within = commit == folded + 1 && index < marks.within as usize;
            if commit <= folded || within {
                hear(record, seq, &mut told.words);
            } else {
                told.hashes.extend(references::of_record(record));
            }
            seq += u64::from(record.event().is_some());
        }
        next_seq = Some(seq);
    }
    Ok(told)
}

fn hear(record: &Record, seq: u64, words: &mut HashMap<TaskId, Word>) {
    match record {
        Record::Added(body) | Record::Reopened { body, .. } => {
            words.insert(body.id.clone(), Word::Open)
        }
        Record::Ended(ended) => words.insert(ended.id.clone(), Word::Ended(seq)),
        _ => None,
    };
}

/// What the view holds of the tasks that the journal still tells of.
#[derive(Default)]
struct Seen {
    open: HashSet<TaskId>,
    ended: HashMap<TaskId, u64>,
}

fn view_of(
    shelf: &Reader,
    told: &Told,
    hashes: &mut BTreeSet<Reference>,
    report: &mut Report,
) -> Result<Seen, StoreError> {
    let mut seen = Seen::default();
    let mut open_of: BTreeMap<JobName, u64> = BTreeMap::new();
    view::open_tasks(shelf.as_ref(), &mut |body, _| {
        report.open += 1;
        *open_of.entry(body.job.clone()).or_default() += 1;
        hashes.extend(references::of_body(&body));
        seen.open.insert(body.id.clone());
        Ok(())
    })?;
    export::each_ended(shelf.as_ref(), &mut |task| {
        report.ended += 1;
        hashes.extend(references::of_body(&task.body).chain(references::of_ended(&task.ended)));
        if told.words.contains_key(&task.ended.id) {
            seen.ended.insert(task.ended.id.clone(), task.ended.seq);
        }
        Ok(())
    })?;
    for (name, job) in view::jobs(shelf.as_ref(), usize::MAX)? {
        report.jobs += 1;
        let (open, ended) = (
            open_of.remove(&name).unwrap_or(0),
            job.ended.iter().sum::<u64>(),
        );
        report.expect(job.total == open + ended, || {
            format!(
                "job {name} counts {} tasks: {ended} ended, and {open} open ones are there",
                job.total
            )
        });
    }
    for name in open_of.keys() {
        report.wrong(format!(
            "open tasks name the job {name}, of which the view has no record"
        ));
    }
    for (_, module) in view::restore(shelf.as_ref())?.modules {
        hashes.extend(references::of_module(&module));
    }
    Ok(seen)
}

fn compare(told: &Told, seen: &Seen, report: &mut Report) {
    for (id, word) in &told.words {
        let (open, ended) = (seen.open.contains(id), seen.ended.get(id));
        let agrees = match word {
            Word::Open => open && ended.is_none(),
            // What is not there was pruned: how many there are is counted, and for how long they
            // are kept is not known here.
            Word::Ended(seq) => !open && ended.is_none_or(|is| is == seq),
        };
        report.expect(agrees, || {
            let says = match word {
                Word::Open => "is open".to_owned(),
                Word::Ended(seq) => format!("ended with event {seq}"),
            };
            let has = match (open, ended) {
                (true, _) => "has it open".to_owned(),
                (_, Some(seq)) => format!("has it ended with event {seq}"),
                _ => "does not have it".to_owned(),
            };
            format!("by the journal, task {id} {says}; the view {has}")
        });
    }
}

/// Every blob that something names, and those that folders name: there, and what its name says.
fn blobs_of(opened: &Opened, named: BTreeSet<Reference>, report: &mut Report) {
    let blobs = match Blobs::of(&opened.data) {
        Ok(blobs) => blobs,
        Err(error) => return report.wrong(format!("the blobs cannot be read: {error}")),
    };
    let mut hashes: BTreeSet<Hash> = named.iter().map(|reference| reference.hash).collect();
    for Reference { hash, .. } in named.into_iter().filter(|reference| reference.is_listing) {
        // One that is not there is told below.
        match blobs.get(&hash).map(|bytes| Listing::decode(&bytes)) {
            Ok(Ok(listing)) => hashes.extend(listing.blobs()),
            Ok(Err(why)) => report.wrong(format!("blob {hash}: {why}")),
            Err(_) => {}
        }
    }
    let hashes: Vec<Hash> = hashes.into_iter().collect();
    match blobs.last(&hashes) {
        Ok(last) => {
            let place = blobs.lives_in().unwrap_or("the blob folder");
            for (hash, _) in hashes.iter().zip(last).filter(|(_, there)| !there) {
                report.wrong(format!("blob {hash} is not in {place}"));
            }
        }
        Err(error) => report.wrong(format!("it is not known which blobs are there: {error}")),
    }
    for hash in hashes {
        report.blobs += 1;
        match blobs.file(&hash).and_then(|mut file| hash_of(&mut file)) {
            Ok(is) => report.expect(is == hash, || {
                format!("blob {hash} has other bytes than its name says")
            }),
            Err(error) => report.wrong(format!("blob {hash}: {error}")),
        }
    }
}

/// The hash of a file's bytes; one may be larger than memory.
fn hash_of(file: &mut File) -> io::Result<Hash> {
    let mut hasher = Sha256::new();
    io::copy(file, &mut hasher)?;
    Ok(Hash(hasher.finalize().into()))
}
