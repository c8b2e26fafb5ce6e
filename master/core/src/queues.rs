//! The ready tasks of one job: a queue for each priority and class, and which task of them all
//! comes first.

use crate::event::TaskKey;
use crate::queue::{Aged, Queue};
use crate::ready::ClassKey;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What a queue is of: higher priorities first.
pub(crate) type Of = (Reverse<i32>, ClassKey);

/// See the module's text. No queue in it is empty.
#[derive(Debug)]
pub(crate) enum Queues {
    /// None, or one: so it is with most jobs, and then its first task is the job's.
    One(Option<(Of, Queue)>),
    /// There have been several since it was empty last.
    Several(Box<Several>),
}

/// Queues, and an index of their heads.
#[derive(Debug, Default)]
pub(crate) struct Several {
    queues: BTreeMap<Of, Queue>,
    /// The first of each queue, so that the first of all is found without a look at every class.
    heads: BTreeSet<(Reverse<i32>, Aged, ClassKey)>,
}

impl Default for Queues {
    fn default() -> Queues {
        Queues::One(None)
    }
}

impl Queues {
    /// Files a task; whether its queue is a new one.
    pub fn insert(&mut self, of: Of, task: Aged) -> bool {
        match self {
            Queues::One(Some((is, queue))) if *is == of => {
                queue.insert(task);
                false
            }
            Queues::One(one @ None) => {
                let mut queue = Queue::default();
                queue.insert(task);
                *one = Some((of, queue));
                true
            }
            Queues::One(one @ Some(_)) => {
                let mut several = Several::default();
                if let Some((is, queue)) = one.take() {
                    several
                        .heads
                        .extend(queue.first().map(|first| (is.0, first, is.1)));
                    several.queues.insert(is, queue);
                }
                let is_new = several.insert(of, task);
                *self = Queues::Several(Box::new(several));
                is_new
            }
            Queues::Several(several) => several.insert(of, task),
        }
    }

    /// Takes a task out; whether its queue is gone with it.
    pub fn remove(&mut self, of: Of, task: Aged) -> bool {
        match self {
            Queues::One(Some((is, queue))) if *is == of => {
                queue.remove(task);
                let gone = queue.is_empty();
                if gone {
                    *self = Queues::default();
                }
                gone
            }
            Queues::One(_) => false,
            Queues::Several(several) => {
                let gone = several.remove(of, task);
                if several.queues.is_empty() {
                    *self = Queues::default();
                }
                gone
            }
        }
    }

    /// The oldest task of a priority whose class is served.
    pub fn first(
        &self,
        priority: Reverse<i32>,
        is_served: impl Fn(ClassKey) -> bool,
    ) -> Option<(TaskKey, ClassKey)> {
        match self {
            Queues::One(one) => {
                let ((is, class), queue) = one.as_ref()?;
                let first = queue
                    .first()
                    .filter(|_| *is == priority && is_served(*class))?;
                Some((first.1, *class))
            }
            Queues::Several(several) => {
                let least = (priority, (0, TaskKey(0)), ClassKey(0));
                let mut heads = several
                    .heads
                    .range(least..)
                    .take_while(|(is, ..)| *is == priority);
                heads
                    .find(|(.., class)| is_served(*class))
                    .map(|(_, task, class)| (task.1, *class))
            }
        }
    }

    /// Classes with tasks of a priority.
    pub fn classes_at(&self, priority: Reverse<i32>) -> impl Iterator<Item = ClassKey> {
        let (one, several) = match self {
            Queues::One(one) => (
                one.as_ref()
                    .map(|(of, _)| *of)
                    .filter(|(is, _)| *is == priority),
                None,
            ),
            Queues::Several(several) => (None, Some(several)),
        };
        let all = (priority, ClassKey(0))..=(priority, ClassKey(u32::MAX));
        let several = several
            .into_iter()
            .flat_map(move |several| several.queues.range(all.clone()));
        one.into_iter()
            .chain(several.map(|(of, _)| *of))
            .map(|(_, class)| class)
    }

    /// What there are queues of.
    pub fn keys(&self) -> impl Iterator<Item = Of> {
        self.iter().map(|(of, _)| of)
    }

    /// Every queue.
    pub fn iter(&self) -> impl Iterator<Item = (Of, &Queue)> {
        let (one, several) = match self {
            Queues::One(one) => (one.as_ref(), None),
            Queues::Several(several) => (None, Some(several)),
        };
        let one = one.into_iter().map(|(of, queue)| (*of, queue));
        one.chain(
            several
                .into_iter()
                .flat_map(|several| several.queues.iter().map(|(of, queue)| (*of, queue))),
        )
    }

    /// Whether no task is ready.
    pub fn is_empty(&self) -> bool {
        matches!(self, Queues::One(None))
    }

    /// For [`Scheduler::check`](crate::Scheduler::check): no queue is empty, each is right, and the
    /// heads are what they would be if they were made anew.
    pub fn are_right(&self) -> bool {
        let heads = match self {
            Queues::One(_) => true,
            Queues::Several(several) => {
                several.heads == several.first_of_each() && !several.queues.is_empty()
            }
        };
        heads
            && self
                .iter()
                .all(|(_, queue)| !queue.is_empty() && queue.is_right())
    }
}

impl Several {
    fn insert(&mut self, of: Of, task: Aged) -> bool {
        let queue = self.queues.entry(of).or_default();
        let last = queue.first();
        queue.insert(task);
        if last.is_none_or(|last| task < last) {
            self.head_moved(of, last, Some(task));
        }
        last.is_none()
    }

    fn remove(&mut self, of: Of, task: Aged) -> bool {
        let Some(queue) = self.queues.get_mut(&of) else {
            return false;
        };
        let last = queue.first();
        queue.remove(task);
        let next = queue.first();
        if next.is_none() {
            self.queues.remove(&of);
        }
        if last != next {
            self.head_moved(of, last, next);
        }
        next.is_none()
    }

    fn head_moved(&mut self, (priority, class): Of, last: Option<Aged>, next: Option<Aged>) {
        last.map(|last| self.heads.remove(&(priority, last, class)));
        next.map(|next| self.heads.insert((priority, next, class)));
    }

    fn first_of_each(&self) -> BTreeSet<(Reverse<i32>, Aged, ClassKey)> {
        let first = |((priority, class), queue): (&Of, &Queue)| {
            queue.first().map(|first| (*priority, first, *class))
        };
        self.queues.iter().filter_map(first).collect()
    }
}
