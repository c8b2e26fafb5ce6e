//! Groups of runners that serve the same classes, and the queues of the groups, in which jobs with
//! ready tasks stand.

use crate::keys::{ClassKey, JobKey, RunnerKey, TaskKey};
use crate::ready::{JobQueueKey, JobUsage};
use crate::ready_queues::QueueKey;
use crate::scheduler::Scheduler;
use crate::task::Task;
use crate::task_queue::QueuedTask;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Where a ready task stands in the index: in a queue of its job.
struct Position {
    job: JobKey,
    queue: QueueKey,
    task: QueuedTask,
}

impl Position {
    fn of(key: TaskKey, task: &Task, priority: i32) -> Position {
        Position {
            job: task.job,
            queue: QueueKey {
                priority: Reverse(priority),
                class: task.class,
            },
            task: QueuedTask {
                ordinal: task.ordinal,
                key,
            },
        }
    }
}

impl Scheduler {
    /// Puts a runner into the group of those that serve the same classes, and makes the group if
    /// there is none.
    pub(crate) fn join_group(&mut self, runner: RunnerKey) {
        let offer = &self.runners[&runner].offer;
        let serves: BTreeSet<ClassKey> = self
            .ready
            .classes()
            .filter(|(_, class)| class.suits(offer))
            .map(|(key, _)| key)
            .collect();
        let existing = self
            .ready
            .groups
            .iter()
            .find(|(_, group)| group.serves == serves)
            .map(|(key, _)| *key);
        let key = existing.unwrap_or_else(|| self.ready.insert_group(serves));
        self.ready.group_mut(key).members.insert(runner);
        self.runner(runner).group = Some(key);

        if existing.is_none() {
            let jobs: Vec<JobKey> = self
                .jobs
                .iter()
                .filter(|(_, job)| !job.ready.is_empty())
                .map(|(key, _)| key)
                .collect();
            for job in jobs {
                self.requeue_job(job);
            }
        }
        self.update_availability(runner);
    }

    /// Takes a runner out of its group. A group without runners is removed.
    pub(crate) fn leave_group(&mut self, runner: RunnerKey) {
        let Some(key) = self.runner(runner).group.take() else {
            return;
        };
        let availability = self.runner(runner).availability.take();
        let group = self.ready.group_mut(key);
        group.members.remove(&runner);
        if let Some(availability) = availability {
            group.available.remove(&availability);
        }
        if !group.members.is_empty() {
            return;
        }

        let job_queues = std::mem::take(&mut group.job_queues);
        self.ready.groups.remove(&key);
        for (priority, jobs) in job_queues {
            let queue = JobQueueKey {
                group: key,
                priority,
            };
            for (_, job) in jobs {
                let queued_in = &mut self.jobs.get_mut(job).queued_in;
                queued_in.retain(|other| *other != queue);
            }
        }
    }

    fn position(&mut self, key: TaskKey) -> Position {
        let task = self.tasks.expect(key);
        let priority = self.priorities.of(key, task);
        Position::of(key, task, priority)
    }

    /// Takes a ready task into the index.
    pub(crate) fn insert_ready(&mut self, key: TaskKey) {
        let position = self.position(key);
        let QueueKey { priority, class } = position.queue;
        let job = self.jobs.get_mut(position.job);
        let is_first = job.ready.insert(position.queue, position.task);
        if is_first {
            let jobs = &mut self.ready.class_mut(class).jobs;
            jobs.insert((position.job, priority));
            self.enqueue_job(position.job, class, priority);
        }
    }

    /// Takes a task out of the index.
    pub(crate) fn remove_ready(&mut self, key: TaskKey) {
        let position = self.position(key);
        let QueueKey { priority, class } = position.queue;
        let job = self.jobs.get_mut(position.job);
        let was_last = job.ready.remove(position.queue, position.task);
        if was_last {
            let jobs = &mut self.ready.class_mut(class).jobs;
            jobs.remove(&(position.job, priority));
            self.dequeue_job(position.job, priority);
        }
    }

    /// Puts a job that has a ready task of a class into the queues of the groups that serve the
    /// class.
    fn enqueue_job(&mut self, job_key: JobKey, class: ClassKey, priority: Reverse<i32>) {
        let job = self.jobs.get_mut(job_key);
        if job.is_held_back() || !self.ready.class(class).open {
            return;
        }
        for (key, group) in &mut self.ready.groups {
            let queue = JobQueueKey {
                group: *key,
                priority,
            };
            if group.serves.contains(&class) && !job.queued_in.contains(&queue) {
                job.queued_in.push(queue);
                let jobs = group.job_queues.entry(priority).or_default();
                jobs.insert((job.usage, job_key));
            }
        }
    }

    /// Takes a job that has lost its last ready task of some class out of the queues of a priority,
    /// except where a task of another class keeps the job.
    fn dequeue_job(&mut self, job_key: JobKey, priority: Reverse<i32>) {
        let job = self.jobs.get_mut(job_key);
        let at_priority: Vec<JobQueueKey> = job
            .queued_in
            .iter()
            .filter(|queue| queue.priority == priority)
            .copied()
            .collect();

        for queue in at_priority {
            let Some(group) = self.ready.groups.get(&queue.group) else {
                continue;
            };
            let mut classes = job.ready.classes_at(priority);
            let is_kept = !job.is_held_back()
                && classes.any(|class| group.serves.contains(&class) && self.ready.is_open(class));
            if is_kept {
                continue;
            }
            job.queued_in.retain(|other| *other != queue);
            let group = self.ready.group_mut(queue.group);
            group.remove_job(priority, job.usage, job_key);
        }
    }

    /// Finds the queues of a job anew, after the job was paused or resumed, its cancel began or
    /// ended, a module was opened or closed, or a group was made.
    pub(crate) fn requeue_job(&mut self, job_key: JobKey) {
        let job = self.jobs.get_mut(job_key);
        for queue in std::mem::take(&mut job.queued_in).iter() {
            if let Some(group) = self.ready.groups.get_mut(&queue.group) {
                group.remove_job(queue.priority, job.usage, job_key);
            }
        }
        let ready: Vec<QueueKey> = self.jobs.get(job_key).ready.keys().collect();
        for QueueKey { priority, class } in ready {
            self.enqueue_job(job_key, class, priority);
        }
    }

    /// Changes what a job has used, and with it the order of the job in all its queues.
    pub(crate) fn change_usage(&mut self, job_key: JobKey, change: impl FnOnce(&mut JobUsage)) {
        let job = self.jobs.get_mut(job_key);
        let last = job.usage;
        change(&mut job.usage);
        for queue in job.queued_in.iter() {
            let jobs = self
                .ready
                .groups
                .get_mut(&queue.group)
                .and_then(|group| group.job_queues.get_mut(&queue.priority));
            if let Some(jobs) = jobs {
                jobs.remove(&(last, job_key));
                jobs.insert((job.usage, job_key));
            }
        }
    }
}
