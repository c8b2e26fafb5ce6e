//! The ready tasks of one job: a queue for each priority and class, and which task of them all comes first.

use crate::event::TaskKey;
use crate::ready::ClassKey;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What a queue is of: higher priorities first.
pub(crate) type Of = (Reverse<i32>, ClassKey);

/// A task in a queue, by age: who was added first comes first.
pub(crate) type Aged = (u64, TaskKey);

/// Tasks of one priority and class, first come first.
pub(crate) type Queue = BTreeSet<Aged>;

/// See the module's text. No queue in it is empty.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    queues: BTreeMap<Of, Queue>,
    /// The first of each queue, so that the first of all is found without a look at every class. Kept only while there
    /// are several queues: most jobs have one, and its first is theirs.
    heads: BTreeSet<(Reverse<i32>, Aged, ClassKey)>,
}

impl Queues {
    /// Files a task; whether its queue is a new one.
    pub fn insert(&mut self, of: Of, task: Aged) -> bool {
        let queue = self.queues.entry(of).or_default();
        let last = queue.first().copied();
        queue.insert(task);
        if last.is_none_or(|last| task < last) {
            self.head_moved(of, last, Some(task));
        }
        last.is_none()
    }

    /// Takes a task out; whether its queue is gone with it.
    pub fn remove(&mut self, of: Of, task: Aged) -> bool {
        let Some(queue) = self.queues.get_mut(&of) else { return false };
        let was_first = queue.first() == Some(&task);
        queue.remove(&task);
        let next = queue.first().copied();
        if next.is_none() {
            self.queues.remove(&of);
        }
        if was_first {
            self.head_moved(of, Some(task), next);
        }
        next.is_none()
    }

    fn head_moved(&mut self, (priority, class): Of, last: Option<Aged>, next: Option<Aged>) {
        if self.queues.len() < 2 {
            self.heads.clear();
        } else if self.heads.is_empty() {
            self.heads = self.first_of_each();
        } else {
            last.map(|last| self.heads.remove(&(priority, last, class)));
            next.map(|next| self.heads.insert((priority, next, class)));
        }
    }

    fn first_of_each(&self) -> BTreeSet<(Reverse<i32>, Aged, ClassKey)> {
        let first = |((priority, class), queue): (&Of, &Queue)| queue.first().map(|first| (*priority, *first, *class));
        self.queues.iter().filter_map(first).collect()
    }

    /// The oldest task of a priority whose class is served.
    pub fn first(&self, priority: Reverse<i32>, is_served: impl Fn(ClassKey) -> bool) -> Option<(TaskKey, ClassKey)> {
        if self.queues.len() == 1 {
            let ((is, class), queue) = self.queues.first_key_value()?;
            let first = queue.first().filter(|_| *is == priority && is_served(*class))?;
            return Some((first.1, *class));
        }
        let least = (priority, (0, TaskKey(0)), ClassKey(0));
        let mut heads = self.heads.range(least..).take_while(|(is, ..)| *is == priority);
        heads.find(|(.., class)| is_served(*class)).map(|(_, task, class)| (task.1, *class))
    }

    /// Classes with tasks of a priority.
    pub fn classes_at(&self, priority: Reverse<i32>) -> impl Iterator<Item = ClassKey> {
        self.queues.range((priority, ClassKey(0))..=(priority, ClassKey(u32::MAX))).map(|((_, class), _)| *class)
    }

    /// What there are queues of.
    pub fn keys(&self) -> impl Iterator<Item = Of> {
        self.queues.keys().copied()
    }

    /// Every queue.
    pub fn iter(&self) -> impl Iterator<Item = (Of, &Queue)> {
        self.queues.iter().map(|(of, queue)| (*of, queue))
    }

    /// Whether no task is ready.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// For [`Scheduler::check`](crate::Scheduler::check): no queue is empty, and the heads are what they would be if
    /// they were made anew.
    pub fn are_right(&self) -> bool {
        let several = self.queues.len() > 1;
        let heads = if several { self.first_of_each() } else { BTreeSet::new() };
        heads == self.heads && self.queues.values().all(|queue| !queue.is_empty())
    }
}
