//! Who waits for which job or task. A commit wakes those whom something in it concerns, and nobody
//! else: a thousand followers of a job each would otherwise all be woken by every commit, and
//! everybody would wait for them.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use taskmaster_protocol::{JobName, TaskId};
use taskmaster_store::record::{Entry, Record};
use tokio::sync::Notify;

/// Everybody's interests. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Interests(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// For the ends in a job, and its own.
    jobs: HashMap<JobName, Vec<Arc<Marks>>>,
    /// For all that happens in a job.
    watched: HashMap<JobName, Vec<Arc<Marks>>>,
    /// For the end of a task.
    tasks: HashMap<TaskId, Vec<Arc<Marks>>>,
}

/// What concerns one follower and he has not looked at.
#[derive(Debug, Default)]
struct Marks {
    /// The first and the last seq of it.
    unseen: Mutex<Option<(u64, u64)>>,
    came: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Marks {
    fn add(&self, first: u64, last: u64) {
        let mut unseen = lock(&self.unseen);
        match *unseen {
            // More of the commit that has been marked.
            Some((low, marked)) if marked == last && low <= first => return,
            Some((low, high)) => *unseen = Some((low.min(first), high.max(last))),
            None => *unseen = Some((first, last)),
        }
        drop(unseen);
        self.came.notify_one();
    }
}

impl Interests {
    /// For one follower.
    pub fn none(&self) -> Interest {
        let (marks, jobs, watched, tasks) = (Arc::default(), Vec::new(), Vec::new(), Vec::new());
        Interest {
            all: self.clone(),
            marks,
            jobs,
            watched,
            tasks,
        }
    }

    /// A commit is durable, and its events up to `last` are in memory: wakes whom it concerns.
    pub fn wake(&self, entry: &Entry, last: u64) {
        let table = lock(&self.0);
        if table.jobs.is_empty() && table.watched.is_empty() && table.tasks.is_empty() {
            return;
        }
        let mark = |whom: Option<&Vec<Arc<Marks>>>| {
            whom.into_iter()
                .flatten()
                .for_each(|marks| marks.add(entry.first_seq, last));
        };
        for record in &entry.records {
            if let Some(job) = record.job().filter(|_| !table.watched.is_empty()) {
                mark(table.watched.get(job));
            }
            match record {
                Record::Ended(ended) => {
                    mark(table.jobs.get(&ended.job));
                    mark(table.tasks.get(&ended.id));
                }
                Record::JobDone { job, .. } => mark(table.jobs.get(job)),
                _ => {}
            }
        }
    }
}

/// What one follower waits for; forgotten when it is dropped.
#[derive(Debug)]
pub struct Interest {
    all: Interests,
    marks: Arc<Marks>,
    jobs: Vec<JobName>,
    watched: Vec<JobName>,
    tasks: Vec<TaskId>,
}

impl Interest {
    /// In all that happens in a job, from now on.
    pub fn in_all_of(&mut self, job: &JobName) {
        if add(&mut lock(&self.all.0).watched, job, &self.marks) {
            self.watched.push(job.clone());
        }
    }

    /// In what ends in a job, from now on.
    pub fn in_job(&mut self, job: &JobName) {
        if add(&mut lock(&self.all.0).jobs, job, &self.marks) {
            self.jobs.push(job.clone());
        }
    }

    /// In the end of a task, from now on.
    pub fn in_task(&mut self, task: &TaskId) {
        if add(&mut lock(&self.all.0).tasks, task, &self.marks) {
            self.tasks.push(task.clone());
        }
    }

    /// What is from `first` to `last` is to be looked at, whatever it is.
    pub fn mark(&self, first: u64, last: u64) {
        if first <= last {
            self.marks.add(first, last);
        }
    }

    /// Waits until there is something that concerns him; the first and the last seq of it.
    pub async fn next(&self) -> (u64, u64) {
        loop {
            if let Some(unseen) = lock(&self.marks.unseen).take() {
                return unseen;
            }
            self.marks.came.notified().await;
        }
    }

    /// Whether there is nothing that concerns him and he has not looked at.
    pub fn is_quiet(&self) -> bool {
        lock(&self.marks.unseen).is_none()
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut table = lock(&self.all.0);
        self.jobs
            .iter()
            .for_each(|job| remove(&mut table.jobs, job, &self.marks));
        self.watched
            .iter()
            .for_each(|job| remove(&mut table.watched, job, &self.marks));
        self.tasks
            .iter()
            .for_each(|task| remove(&mut table.tasks, task, &self.marks));
    }
}

/// Whether it was not there.
fn add<K: Clone + Eq + Hash>(
    table: &mut HashMap<K, Vec<Arc<Marks>>>,
    key: &K,
    marks: &Arc<Marks>,
) -> bool {
    let there = table.entry(key.clone()).or_default();
    let is_new = !there.iter().any(|other| Arc::ptr_eq(other, marks));
    if is_new {
        there.push(marks.clone());
    }
    is_new
}

fn remove<K: Clone + Eq + Hash>(
    table: &mut HashMap<K, Vec<Arc<Marks>>>,
    key: &K,
    marks: &Arc<Marks>,
) {
    if let Place::Occupied(mut there) = table.entry(key.clone()) {
        there.get_mut().retain(|other| !Arc::ptr_eq(other, marks));
        if there.get().is_empty() {
            there.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::Wall;

    fn done(job: &str, first_seq: u64) -> Entry {
        let records = vec![Record::JobDone {
            job: JobName::new(job).unwrap(),
            run: 1,
        }];
        Entry {
            first_seq,
            time: Wall(0),
            records,
        }
    }

    #[tokio::test]
    async fn a_commit_wakes_whom_it_concerns_and_nobody_else() {
        let interests = Interests::default();
        let (mut one, mut other) = (interests.none(), interests.none());
        one.in_job(&JobName::new("a").unwrap());
        one.in_job(&JobName::new("a").unwrap());
        other.in_job(&JobName::new("b").unwrap());
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
