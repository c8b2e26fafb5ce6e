//! `store check`: whether every record is what was written, and whether journal and view say the
//! same.

use super::pieces::hash_of;
use super::{OpenStore, UpkeepError, export};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use taskmaster_blobs::Blobs;
use taskmaster_protocol::{Hash, JobName, Listing, TaskId};
use taskmaster_store::journal::SyncedMark;
use taskmaster_store::kv::{SharedStore, StoreError, sled};
use taskmaster_store::record::{JournalEntry, Record};
use taskmaster_store::references::{self, Reference};
use taskmaster_store::view::Watermarks;
use taskmaster_store::{journal, view};

/// Faults that are told. More help nobody.
const FAULTS_MAX: usize = 20;

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct CheckReport {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Commits in the journal.
    pub commits: u64,
    /// Records in the journal.
    pub records: u64,
    /// Commits that are not in the view yet. A master folds them when it starts. The numbers below
    /// are those of the view.
    pub unfolded: u64,
    /// Open tasks.
    pub open: u64,
    /// Ended tasks.
    pub ended: u64,
    /// Jobs.
    pub jobs: u64,
    /// Modules, input and output files, large params and results. Each was read and hashed.
    pub blobs: u64,
    /// What is wrong, a sentence for each fault.
    pub wrong: Vec<String>,
    /// Faults beyond those in `wrong`.
    pub more: u64,
}

impl CheckReport {
    fn fault(&mut self, text: String) {
        if self.wrong.len() < FAULTS_MAX {
            self.wrong.push(text);
        } else {
            self.more += 1;
        }
    }

    fn expect(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.fault(text());
        }
    }
}

/// The state of a task after the last commit that is folded, as the journal says it.
#[derive(Clone, Copy, PartialEq)]
enum JournalState {
    Open,
    Ended { seq: u64 },
}

/// What the journal says.
#[derive(Default)]
struct JournalFacts {
    /// Blobs named in commits that the view does not have yet.
    references: BTreeSet<Reference>,
    states: HashMap<TaskId, JournalState>,
}

/// What the view says of the tasks that the journal still has.
#[derive(Default)]
struct ViewFacts {
    open: HashSet<TaskId>,
    /// By task, the seq of its end.
    ended: HashMap<TaskId, u64>,
    /// Blobs that the view names.
    references: BTreeSet<Reference>,
}

/// Reads everything.
pub fn check(store: &OpenStore) -> Result<CheckReport, UpkeepError> {
    let mut report = CheckReport::default();
    // Damage over which the store's engine panics is damage like any other.
    let read = std::panic::AssertUnwindSafe(|| check_all(store, &mut report));
    match std::panic::catch_unwind(read) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => report.fault(error.to_string()),
        Err(_) => report.fault(sled::GAVE_UP.into()),
    }
    report.ok = report.wrong.is_empty();
    Ok(report)
}

fn check_all(opened: &OpenStore, report: &mut CheckReport) -> Result<(), StoreError> {
    let store = &opened.store;
    if let Err(error) = SyncedMark::open(&opened.folder, journal::last(store)?) {
        report.fault(error.to_string());
    }
    if let Err(error) = view::verify(store.as_ref()) {
        report.fault(error.to_string());
    }
    let marks = view::watermarks(store.as_ref())?;
    let journal = read_journal(store, &marks, report)?;
    let view = read_view(store, &journal, report)?;
    let counted = marks.ended_count;
    let held = report.ended;
    report.expect(counted == held, || {
        format!("the view counts {counted} ended tasks and holds {held}")
    });
    compare(&journal, &view, report);
    let mut references = view.references;
    references.extend(journal.references);
    check_blobs(opened, references, report);
    Ok(())
}

/// Reads every commit: it must be there and sound, and its events must be in their place.
fn read_journal(
    store: &SharedStore,
    marks: &Watermarks,
    report: &mut CheckReport,
) -> Result<JournalFacts, StoreError> {
    let folded = marks.folded;
    let mut facts = JournalFacts::default();
    let first = journal::first(store)?.unwrap_or(1);
    let last = journal::last(store)?;
    report.expect(first <= folded + 1, || {
        format!(
            "the view ends at commit {folded} and the journal begins at {first}: what is between \
             is missing"
        )
    });
    // `None` where the commit before could not be read.
    let mut next_seq = None;
    for commit in first..=last {
        let Some(entry) = read_commit(store, commit, report)? else {
            next_seq = None;
            continue;
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
        next_seq = Some(read_entry(&entry, commit, marks, &mut facts));
    }
    Ok(facts)
}

/// A commit. `None` where it is missing or damaged, which is noted.
fn read_commit(
    store: &SharedStore,
    commit: u64,
    report: &mut CheckReport,
) -> Result<Option<JournalEntry>, StoreError> {
    match journal::entry(store, commit) {
        Ok(Some(entry)) => Ok(Some(entry)),
        Ok(None) => {
            report.fault(format!("commit {commit} is missing"));
            Ok(None)
        }
        Err(error @ StoreError::Corrupt { .. }) => {
            report.fault(error.to_string());
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

/// Notes what the records of a commit say. Returns the seq of the next commit's first event.
fn read_entry(
    entry: &JournalEntry,
    commit: u64,
    marks: &Watermarks,
    facts: &mut JournalFacts,
) -> u64 {
    let mut seq = entry.first_seq;
    for (index, record) in entry.records.iter().enumerate() {
        let is_in_folded_part = commit == marks.folded + 1 && index < marks.records_folded as usize;
        if commit <= marks.folded || is_in_folded_part {
            note_state(record, seq, &mut facts.states);
        } else {
            facts.references.extend(references::of_record(record));
        }
        seq += u64::from(record.event().is_some());
    }
    seq
}

fn note_state(record: &Record, seq: u64, states: &mut HashMap<TaskId, JournalState>) {
    match record {
        Record::Added(body) | Record::Reopened { body, .. } => {
            states.insert(body.id.clone(), JournalState::Open);
        }
        Record::Ended(ended) => {
            states.insert(ended.id.clone(), JournalState::Ended { seq });
        }
        // These change no task from open to ended or back.
        Record::Started { .. }
        | Record::Retrying(_)
        | Record::Set { .. }
        | Record::JobOpened { .. }
        | Record::JobDone { .. }
        | Record::JobHeld { .. }
        | Record::JobPaused { .. }
        | Record::JobCancelled { .. }
        | Record::RunnerJoined { .. }
        | Record::RunnerLost { .. }
        | Record::Module { .. }
        | Record::Continued { .. }
        | Record::Rights { .. }
        | Record::AnswersDropped { .. } => {}
    }
}

/// Reads the view, and checks the counts of jobs.
fn read_view(
    store: &SharedStore,
    journal: &JournalFacts,
    report: &mut CheckReport,
) -> Result<ViewFacts, StoreError> {
    let mut facts = ViewFacts::default();
    let mut open_of: BTreeMap<JobName, u64> = BTreeMap::new();
    view::open_tasks(store.as_ref(), &mut |body, _| {
        report.open += 1;
        *open_of.entry(body.job.clone()).or_default() += 1;
        facts.references.extend(references::of_body(&body));
        facts.open.insert(body.id.clone());
        Ok(())
    })?;
    export::each_ended(store.as_ref(), &mut |task| {
        report.ended += 1;
        facts.references.extend(references::of_body(&task.body));
        facts.references.extend(references::of_ended(&task.ended));
        if journal.states.contains_key(&task.ended.id) {
            facts.ended.insert(task.ended.id.clone(), task.ended.seq);
        }
        Ok(())
    })?;
    check_jobs(store, open_of, report)?;
    view::cache_entries(store.as_ref(), &mut |entry| {
        facts.references.extend(references::of_answer(&entry));
    })?;
    for (_, module) in view::restore(store.as_ref())?.modules {
        facts.references.extend(references::of_module(&module));
    }
    Ok(facts)
}

/// `open_of` has the number of open tasks by job.
fn check_jobs(
    store: &SharedStore,
    mut open_of: BTreeMap<JobName, u64>,
    report: &mut CheckReport,
) -> Result<(), StoreError> {
    for (name, job) in view::jobs_after(store.as_ref(), "", usize::MAX)? {
        report.jobs += 1;
        let total = job.total;
        let open = open_of.remove(&name).unwrap_or(0);
        let ended = job.ended.iter().sum::<u64>();
        report.expect(total == open + ended, || {
            format!(
                "job {name} counts {total} tasks: {ended} ended, and {open} open ones are there"
            )
        });
    }
    for name in open_of.keys() {
        report.fault(format!(
            "open tasks name the job {name}, of which the view has no record"
        ));
    }
    Ok(())
}

/// Compares journal and view, task by task.
fn compare(journal: &JournalFacts, view: &ViewFacts, report: &mut CheckReport) {
    for (id, state) in &journal.states {
        let is_open = view.open.contains(id);
        let ended = view.ended.get(id);
        let agrees = match state {
            JournalState::Open => is_open && ended.is_none(),
            // An ended task that is not in the view was pruned. The number of ended tasks is
            // checked, and how long they are kept is not known here.
            JournalState::Ended { seq } => !is_open && ended.is_none_or(|is| is == seq),
        };
        report.expect(agrees, || {
            let says = match state {
                JournalState::Open => "is open".to_owned(),
                JournalState::Ended { seq } => format!("ended with event {seq}"),
            };
            let has = match (is_open, ended) {
                (true, _) => "has it open".to_owned(),
                (false, Some(seq)) => format!("has it ended with event {seq}"),
                (false, None) => "does not have it".to_owned(),
            };
            format!("by the journal, task {id} {says}; the view {has}")
        });
    }
}

/// Every blob that a record or a folder names must be there, with the bytes that its name says.
fn check_blobs(store: &OpenStore, named: BTreeSet<Reference>, report: &mut CheckReport) {
    let blobs = match Blobs::open_for_upkeep(&store.data) {
        Ok(blobs) => blobs,
        Err(error) => return report.fault(format!("the blobs cannot be read: {error}")),
    };
    let hashes = with_files_of_folders(&blobs, named, report);
    match blobs.exist_durably(&hashes) {
        Ok(is_there) => {
            let place = blobs.bucket_name().unwrap_or("the blob folder");
            for (hash, is_there) in hashes.iter().zip(is_there) {
                report.expect(is_there, || format!("blob {hash} is not in {place}"));
            }
        }
        Err(error) => report.fault(format!("it is not known which blobs are there: {error}")),
    }
    for hash in hashes {
        report.blobs += 1;
        match blobs.file(&hash).and_then(|mut file| hash_of(&mut file)) {
            Ok(is) => report.expect(is == hash, || {
                format!("blob {hash} has other bytes than its name says")
            }),
            Err(error) => report.fault(format!("blob {hash}: {error}")),
        }
    }
}

/// The named blobs, and those that the folders among them name.
fn with_files_of_folders(
    blobs: &Blobs,
    named: BTreeSet<Reference>,
    report: &mut CheckReport,
) -> Vec<Hash> {
    let mut hashes: BTreeSet<Hash> = named.iter().map(|reference| reference.hash).collect();
    for Reference { hash, .. } in named.into_iter().filter(|reference| reference.is_listing) {
        match blobs.get(&hash).map(|bytes| Listing::decode(&bytes)) {
            Ok(Ok(listing)) => hashes.extend(listing.blobs()),
            Ok(Err(why)) => report.fault(format!("blob {hash}: {why}")),
            // A folder that cannot be read is noted when its own blob is checked.
            Err(_) => {}
        }
    }
    hashes.into_iter().collect()
}
