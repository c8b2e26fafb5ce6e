//! The ready tasks of one job: a queue for each priority and class, and which of their tasks comes
//! first.

use crate::keys::{ClassKey, TaskKey};
use crate::task_queue::{QueuedTask, TaskQueue};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Names a queue of a job. Higher priorities come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    pub priority: Reverse<i32>,
    pub class: ClassKey,
}

/// The first task of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    priority: Reverse<i32>,
    first: QueuedTask,
    class: ClassKey,
}

/// The queues of one job, none of which is empty.
#[derive(Debug)]
pub(crate) enum ReadyQueues {
    /// No queue, or one. Most jobs have no more, and then the first task of the queue is the job's.
    AtMostOne(Option<(QueueKey, TaskQueue)>),
    /// There have been several queues since there was none.
    Several(Box<SeveralQueues>),
}

/// Several queues, with an index of their heads.
#[derive(Debug, Default)]
pub(crate) struct SeveralQueues {
    queues: BTreeMap<QueueKey, TaskQueue>,
    /// The head of each queue, so that the first task of a priority is found without a look at every
    /// class.
    heads: BTreeSet<Head>,
}

impl Default for ReadyQueues {
    fn default() -> ReadyQueues {
        ReadyQueues::AtMostOne(None)
    }
}

impl ReadyQueues {
    /// Adds a task to a queue, and returns whether the queue is a new one.
    pub fn insert(&mut self, key: QueueKey, task: QueuedTask) -> bool {
        match self {
            ReadyQueues::AtMostOne(Some((only, queue))) if *only == key => {
                queue.insert(task);
                false
            }
            ReadyQueues::AtMostOne(none @ None) => {
                let mut queue = TaskQueue::default();
                queue.insert(task);
                *none = Some((key, queue));
                true
            }
            ReadyQueues::AtMostOne(one @ Some(_)) => {
                let mut several = SeveralQueues::default();
                if let Some((only, queue)) = one.take() {
                    several.insert_queue(only, queue);
                }
                let is_new = several.insert(key, task);
                *self = ReadyQueues::Several(Box::new(several));
                is_new
            }
            ReadyQueues::Several(several) => several.insert(key, task),
        }
    }

    /// Takes a task out of a queue, and returns whether the queue is gone with it.
    pub fn remove(&mut self, key: QueueKey, task: QueuedTask) -> bool {
        match self {
            ReadyQueues::AtMostOne(Some((only, queue))) if *only == key => {
                queue.remove(task);
                let is_gone = queue.is_empty();
                if is_gone {
                    *self = ReadyQueues::default();
                }
                is_gone
            }
            ReadyQueues::AtMostOne(_) => false,
            ReadyQueues::Several(several) => {
                let is_gone = several.remove(key, task);
                if several.queues.is_empty() {
                    *self = ReadyQueues::default();
                }
                is_gone
            }
        }
    }

    /// The first task of a priority whose class is served.
    pub fn first(
        &self,
        priority: Reverse<i32>,
        is_served: impl Fn(ClassKey) -> bool,
    ) -> Option<(TaskKey, ClassKey)> {
        match self {
            ReadyQueues::AtMostOne(one) => {
                let (key, queue) = one.as_ref()?;
                if key.priority != priority || !is_served(key.class) {
                    return None;
                }
                Some((queue.first()?.key, key.class))
            }
            ReadyQueues::Several(several) => {
                let least = Head {
                    priority,
                    first: QueuedTask {
                        ordinal: 0,
                        key: TaskKey(0),
                    },
                    class: ClassKey(0),
                };
                several
                    .heads
                    .range(least..)
                    .take_while(|head| head.priority == priority)
                    .find(|head| is_served(head.class))
                    .map(|head| (head.first.key, head.class))
            }
        }
    }

    /// The classes with tasks of a priority.
    pub fn classes_at(&self, priority: Reverse<i32>) -> impl Iterator<Item = ClassKey> {
        let (one, several) = match self {
            ReadyQueues::AtMostOne(one) => (one.as_ref(), None),
            ReadyQueues::Several(several) => (None, Some(several)),
        };
        let one = one
            .map(|(key, _)| *key)
            .filter(|key| key.priority == priority);
        let first = QueueKey {
            priority,
            class: ClassKey(0),
        };
        let last = QueueKey {
            priority,
            class: ClassKey(u32::MAX),
        };
        let several = several
            .into_iter()
            .flat_map(move |several| several.queues.range(first..=last));
        one.into_iter()
            .chain(several.map(|(key, _)| *key))
            .map(|key| key.class)
    }

    /// The key of every queue.
    pub fn keys(&self) -> impl Iterator<Item = QueueKey> {
        self.iter().map(|(key, _)| key)
    }

    /// Every queue.
    pub fn iter(&self) -> impl Iterator<Item = (QueueKey, &TaskQueue)> {
        let (one, several) = match self {
            ReadyQueues::AtMostOne(one) => (one.as_ref(), None),
            ReadyQueues::Several(several) => (None, Some(several)),
        };
        let one = one.into_iter().map(|(key, queue)| (*key, queue));
        let several = several
            .into_iter()
            .flat_map(|several| several.queues.iter())
            .map(|(key, queue)| (*key, queue));
        one.chain(several)
    }

    /// Whether no task is ready.
    pub fn is_empty(&self) -> bool {
        matches!(self, ReadyQueues::AtMostOne(None))
    }

    /// For [`Scheduler::check`](crate::Scheduler::check): whether no queue is empty, each is
    /// consistent, and the heads are what they would be if they were collected anew.
    pub fn are_consistent(&self) -> bool {
        let heads = match self {
            ReadyQueues::AtMostOne(_) => true,
            ReadyQueues::Several(several) => {
                several.heads == several.collect_heads() && !several.queues.is_empty()
            }
        };
        heads
            && self
                .iter()
                .all(|(_, queue)| !queue.is_empty() && queue.is_consistent())
    }
}

impl SeveralQueues {
    fn insert_queue(&mut self, key: QueueKey, queue: TaskQueue) {
        self.head_changed(key, None, queue.first());
        self.queues.insert(key, queue);
    }

    fn insert(&mut self, key: QueueKey, task: QueuedTask) -> bool {
        let queue = self.queues.entry(key).or_default();
        let last = queue.first();
        queue.insert(task);
        if last.is_none_or(|last| task < last) {
            self.head_changed(key, last, Some(task));
        }
        last.is_none()
    }

    fn remove(&mut self, key: QueueKey, task: QueuedTask) -> bool {
        let Some(queue) = self.queues.get_mut(&key) else {
            return false;
        };
        let last = queue.first();
        queue.remove(task);
        let next = queue.first();
        if next.is_none() {
            self.queues.remove(&key);
        }
        if last != next {
            self.head_changed(key, last, next);
        }
        next.is_none()
    }

    fn head_changed(&mut self, key: QueueKey, last: Option<QueuedTask>, next: Option<QueuedTask>) {
        let QueueKey { priority, class } = key;
        let head = |first| Head {
            priority,
            first,
            class,
        };
        if let Some(last) = last {
            self.heads.remove(&head(last));
        }
        if let Some(next) = next {
            self.heads.insert(head(next));
        }
    }

    fn collect_heads(&self) -> BTreeSet<Head> {
        let head = |(key, queue): (&QueueKey, &TaskQueue)| {
            let first = queue.first()?;
            Some(Head {
                priority: key.priority,
                first,
                class: key.class,
            })
        };
        self.queues.iter().filter_map(head).collect()
    }
}
