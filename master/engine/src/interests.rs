//! Which follower waits for which job or task. A commit wakes only the followers whom one of its
//! records concerns. If every commit woke a thousand followers of a job each, all clients would wait
//! for them.

use crate::follower_map::FollowerMap;
use crate::recorded_end::RecordedEnd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use taskmaster_protocol::{JobName, TaskId};
use taskmaster_store::record::JournalEntry;
use tokio::sync::Notify;

/// The interests of all followers. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Interests(Arc<Mutex<InterestTable>>);

#[derive(Debug, Default)]
struct InterestTable {
    /// Followers of the end of a job, and of the ends of its tasks.
    jobs: FollowerMap<JobName, UnseenEvents>,
    /// Followers of every event of a job.
    watched: FollowerMap<JobName, UnseenEvents>,
    /// Followers of the end of a task.
    tasks: FollowerMap<TaskId, UnseenEvents>,
}

/// The range of events that one follower has not read yet.
#[derive(Debug, Default)]
struct UnseenEvents {
    range: Mutex<Option<SeqRange>>,
    /// Notified when `range` grows.
    grown: Notify,
}

/// A range of seqs, both ends included.
#[derive(Debug, Clone, Copy)]
struct SeqRange {
    first: u64,
    last: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UnseenEvents {
    fn add(&self, first: u64, last: u64) {
        let mut range = lock(&self.range);
        let grown = match *range {
            // An earlier record of the same commit has added this range.
            Some(range) if range.last == last && range.first <= first => return,
            Some(range) => SeqRange {
                first: range.first.min(first),
                last: range.last.max(last),
            },
            None => SeqRange { first, last },
        };
        *range = Some(grown);
        drop(range);
        self.grown.notify_one();
    }
}

impl Interests {
    /// A new follower, who waits for nothing yet.
    pub fn new_follower(&self) -> Interest {
        Interest {
            all: self.clone(),
            unseen: Arc::default(),
            jobs: Vec::new(),
            watched: Vec::new(),
            tasks: Vec::new(),
        }
    }

    /// A commit is durable, and its events up to `last` are in memory: wakes the followers whom it
    /// concerns.
    pub fn wake(&self, entry: &JournalEntry, last: u64) {
        let table = lock(&self.0);
        if table.jobs.is_empty() && table.watched.is_empty() && table.tasks.is_empty() {
            return;
        }
        let wake = |unseen: &Arc<UnseenEvents>| unseen.add(entry.first_seq, last);
        for record in &entry.records {
            if let Some(job) = record.job().filter(|_| !table.watched.is_empty()) {
                table.watched.of(job).for_each(wake);
            }
            match RecordedEnd::of(record) {
                Some(RecordedEnd::Task(ended)) => {
                    table.jobs.of(&ended.job).for_each(wake);
                    table.tasks.of(&ended.id).for_each(wake);
                }
                Some(RecordedEnd::Job { job, .. }) => table.jobs.of(job).for_each(wake),
                None => {}
            }
        }
    }
}

/// What one follower waits for. Dropping it ends the waiting.
#[derive(Debug)]
pub struct Interest {
    all: Interests,
    unseen: Arc<UnseenEvents>,
    /// Jobs whose ends the follower waits for.
    jobs: Vec<JobName>,
    /// Jobs of which the follower waits for every event.
    watched: Vec<JobName>,
    /// Tasks whose ends the follower waits for.
    tasks: Vec<TaskId>,
}

impl Interest {
    /// From now on the follower waits for every event of a job.
    pub fn watch_job(&mut self, job: &JobName) {
        if lock(&self.all.0).watched.add(job, &self.unseen) {
            self.watched.push(job.clone());
        }
    }

    /// From now on the follower waits for the end of a job and for the ends of its tasks.
    pub fn follow_job(&mut self, job: &JobName) {
        if lock(&self.all.0).jobs.add(job, &self.unseen) {
            self.jobs.push(job.clone());
        }
    }

    /// From now on the follower waits for the end of a task.
    pub fn follow_task(&mut self, task: &TaskId) {
        if lock(&self.all.0).tasks.add(task, &self.unseen) {
            self.tasks.push(task.clone());
        }
    }

    /// Makes the follower read the events from `first` to `last`, whatever they are.
    pub fn mark(&self, first: u64, last: u64) {
        if first <= last {
            self.unseen.add(first, last);
        }
    }

    /// Waits until some events concern the follower. Returns the first and the last seq of a range
    /// that has these events; other events in the range need not concern the follower.
    pub async fn next(&self) -> (u64, u64) {
        loop {
            if let Some(range) = lock(&self.unseen.range).take() {
                return (range.first, range.last);
            }
            self.unseen.grown.notified().await;
        }
    }

    /// Whether no unread events concern the follower.
    pub fn is_quiet(&self) -> bool {
        lock(&self.unseen.range).is_none()
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut table = lock(&self.all.0);
        for job in &self.jobs {
            table.jobs.remove(job, &self.unseen);
        }
        for job in &self.watched {
            table.watched.remove(job, &self.unseen);
        }
        for task in &self.tasks {
            table.tasks.remove(task, &self.unseen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::Wall;
    use taskmaster_store::record::Record;

    fn done(job: &str, first_seq: u64) -> JournalEntry {
        let records = vec![Record::JobDone {
            job: JobName::new(job).unwrap(),
            run: 1,
        }];
        JournalEntry {
            first_seq,
            time: Wall(0),
            records,
        }
    }

    #[tokio::test]
    async fn a_commit_wakes_whom_it_concerns_and_nobody_else() {
        let interests = Interests::default();
        let mut one = interests.new_follower();
        let mut other = interests.new_follower();
        one.follow_job(&JobName::new("a").unwrap());
        one.follow_job(&JobName::new("a").unwrap());
        other.follow_job(&JobName::new("b").unwrap());
        interests.wake(&done("a", 5), 5);
        interests.wake(&done("c", 6), 6);
        interests.wake(&done("a", 7), 7);
        assert_eq!(one.next().await, (5, 7));
        assert!(one.is_quiet() && other.is_quiet());
        other.mark(2, 4);
        interests.wake(&done("b", 8), 8);
        assert_eq!(
            other.next().await,
            (2, 8),
            "what was before is looked at, too"
        );
        drop(one);
        assert_eq!(lock(&interests.0).jobs.len(), 1);
    }
}
