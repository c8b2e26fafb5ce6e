//! The newest commits with events, in memory.

use super::READ_EVENTS_MAX;
use crate::durable_commit::DurableCommit;
use crate::recorded_end::RecordedEnd;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use taskmaster_protocol::{JobName, TaskId};
use taskmaster_store::record::JournalEntry;

/// Durable events kept in memory. A watcher that lags by fewer events is served without a read from
/// the disk.
pub(super) const RECENT_EVENTS_MAX: u64 = 32_768;

/// Bytes of durable events kept in memory, where they are large.
pub(super) const RECENT_BYTES_MAX: usize = 64 << 20;

/// Commits that a follower looks through before it lets others go on.
const COMMITS_LOOKED_THROUGH: usize = 64;

/// A commit in memory.
#[derive(Debug)]
pub(super) struct Commit {
    pub entry: Arc<JournalEntry>,
    /// The seq of the last event of the commit.
    pub last: u64,
    bytes: usize,
    /// What ends in the commit. The first follower that asks computes it, and thousands may ask.
    ends: OnceLock<CommitEnds>,
}

impl Commit {
    /// What ends in the commit.
    pub fn ends(&self) -> &CommitEnds {
        self.ends.get_or_init(|| CommitEnds::of(&self.entry))
    }
}

/// The jobs and tasks that end in a commit. With it a follower can skip a commit that does not
/// concern it.
#[derive(Debug, Default)]
pub struct CommitEnds {
    jobs: HashSet<JobName>,
    tasks: HashSet<TaskId>,
}

impl CommitEnds {
    fn of(entry: &JournalEntry) -> CommitEnds {
        let mut found = CommitEnds::default();
        for record in &entry.records {
            match RecordedEnd::of(record) {
                Some(RecordedEnd::Task(ended)) => {
                    found.tasks.insert(ended.id.clone());
                    if !found.jobs.contains(&ended.job) {
                        found.jobs.insert(ended.job.clone());
                    }
                }
                Some(RecordedEnd::Job { job, .. }) => {
                    found.jobs.insert(job.clone());
                }
                None => {}
            }
        }
        found
    }

    /// Whether one of these jobs ends, or a task of one of them.
    pub fn any_job<T>(&self, of: &HashMap<JobName, T>) -> bool {
        if of.len() < self.jobs.len() {
            of.keys().any(|job| self.jobs.contains(job))
        } else {
            self.jobs.iter().any(|job| of.contains_key(job))
        }
    }

    /// Whether one of these tasks ends.
    pub fn any_task(&self, of: &BTreeSet<TaskId>) -> bool {
        if of.len() < self.tasks.len() {
            of.iter().any(|task| self.tasks.contains(task))
        } else {
            self.tasks.iter().any(|task| of.contains(task))
        }
    }
}

/// The ends for which a follower waits.
pub trait EndInterest {
    /// Whether any end in a commit concerns the follower.
    fn any_of(&self, ended: &CommitEnds) -> bool;
}

impl EndInterest for BTreeSet<TaskId> {
    fn any_of(&self, ended: &CommitEnds) -> bool {
        ended.any_task(self)
    }
}

/// The newest commits that have events, oldest first.
#[derive(Default)]
pub(super) struct RecentCommits {
    /// The newest commits, with [`RECENT_EVENTS_MAX`] events or a few more, or with
    /// [`RECENT_BYTES_MAX`] bytes.
    kept: VecDeque<Arc<Commit>>,
    /// Bytes of these commits.
    kept_bytes: usize,
    /// The commits before these, which are in memory as long as they wait to be folded. Under a load
    /// that outruns its followers, followers would otherwise read and decode them from the disk, and
    /// lag still more.
    unfolded: VecDeque<UnfoldedCommit>,
}

/// A commit that is in memory until it is folded.
struct UnfoldedCommit {
    first_seq: u64,
    entry: Weak<JournalEntry>,
}

impl RecentCommits {
    pub fn push(&mut self, commit: &DurableCommit, last: u64) {
        self.kept_bytes += commit.bytes;
        self.kept.push_back(Arc::new(Commit {
            entry: commit.entry.clone(),
            last,
            bytes: commit.bytes,
            ends: OnceLock::new(),
        }));
        while self.has_enough_without_the_oldest(last) {
            if let Some(commit) = self.kept.pop_front() {
                self.kept_bytes -= commit.bytes;
                self.unfolded.push_back(UnfoldedCommit {
                    first_seq: commit.entry.first_seq,
                    entry: Arc::downgrade(&commit.entry),
                });
            }
        }
        while self
            .unfolded
            .front()
            .is_some_and(|commit| commit.entry.strong_count() == 0)
        {
            self.unfolded.pop_front();
        }
    }

    /// Whether the oldest commit can go. The newest one always stays.
    fn has_enough_without_the_oldest(&self, last: u64) -> bool {
        self.kept.get(1).is_some_and(|next| {
            last - next.entry.first_seq >= RECENT_EVENTS_MAX || self.kept_bytes > RECENT_BYTES_MAX
        })
    }

    /// The seq from which on all events are in memory for certain.
    pub fn first(&self) -> Option<u64> {
        self.kept.front().map(|commit| commit.entry.first_seq)
    }

    /// The commit that has the event `seq` and those after it, as many as are looked through at a
    /// time. Empty if that commit is not kept.
    pub fn commits_from(&self, seq: u64) -> Vec<Arc<Commit>> {
        if self.first().is_none_or(|first| first > seq) {
            return Vec::new();
        }
        let at = self.kept.partition_point(|commit| commit.last < seq);
        self.kept
            .iter()
            .skip(at)
            .take(COMMITS_LOOKED_THROUGH)
            .cloned()
            .collect()
    }

    /// The commit that has the event `seq` and those after it, enough for one read. `None` if one of
    /// them is not in memory.
    pub fn from(&self, seq: u64) -> Option<Vec<Arc<JournalEntry>>> {
        let first_unfolded = if self.first()? > seq {
            self.unfolded
                .partition_point(|commit| commit.first_seq <= seq)
                .checked_sub(1)?
        } else {
            self.unfolded.len()
        };
        let first_kept = self
            .kept
            .partition_point(|commit| commit.entry.first_seq <= seq)
            .saturating_sub(1);
        let unfolded = self
            .unfolded
            .iter()
            .skip(first_unfolded)
            .map(|commit| commit.entry.upgrade());
        let kept = self
            .kept
            .iter()
            .skip(first_kept)
            .map(|commit| Some(commit.entry.clone()));
        let mut found = Vec::new();
        let mut records = 0;
        for entry in unfolded.chain(kept) {
            let entry = entry?;
            records += entry.records.len();
            found.push(entry);
            if records > READ_EVENTS_MAX {
                break;
            }
        }
        Some(found)
    }
}
