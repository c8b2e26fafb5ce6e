//! The ready tasks of one job, priority and class, in the order of adding.

use crate::keys::TaskKey;
use std::collections::{BTreeSet, VecDeque};

/// A task in a queue. The task that was added first comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueuedTask {
    /// The task's number in the order of adding.
    pub ordinal: u64,
    pub key: TaskKey,
}

/// Stands where a task was taken out of the middle of a line. No task has this key, because the
/// shell counts keys from 0.
const HOLE: TaskKey = TaskKey(u32::MAX);

/// Fewer holes than this are not worth a pass over the line.
const HOLES_MIN: usize = 32;

/// A line longer than this, in entries, gives memory back when most of it is unused.
const CAPACITY_KEPT: usize = 1_024;

/// A queue of ready tasks. Tasks nearly always come in the order of adding and leave from the front,
/// so they stand in one row of memory. Finding the next task of a job takes one access, where a tree
/// would take a walk from node to node.
#[derive(Debug, Default)]
pub(crate) struct TaskQueue {
    /// In the order of adding. The first and the last entry are no holes.
    line: VecDeque<QueuedTask>,
    /// The number of holes in the line.
    holes: usize,
    /// Tasks that came when a younger one stood in the line already: they were retried, given back,
    /// or unblocked late.
    late: BTreeSet<QueuedTask>,
}

impl TaskQueue {
    /// Adds a task that is not in the queue.
    pub fn insert(&mut self, task: QueuedTask) {
        if self.line.back().is_none_or(|last| *last < task) {
            self.line.push_back(task);
        } else {
            self.late.insert(task);
        }
    }

    /// Takes a task out, if it is in the queue.
    pub fn remove(&mut self, task: QueuedTask) {
        if self.line.front() == Some(&task) {
            self.line.pop_front();
            self.trim();
        } else if !self.late.remove(&task)
            && let Ok(at) = self
                .line
                .binary_search_by_key(&task.ordinal, |queued| queued.ordinal)
            && self.line[at] == task
        {
            self.line[at].key = HOLE;
            self.holes += 1;
            self.trim();
        }
    }

    /// Removes holes from the ends, removes the others when they are many, and gives memory back
    /// when little of it is used.
    fn trim(&mut self) {
        let is_hole = |queued: &mut QueuedTask| queued.key == HOLE;
        while self.holes > 0 && self.line.pop_front_if(is_hole).is_some() {
            self.holes -= 1;
        }
        while self.holes > 0 && self.line.pop_back_if(is_hole).is_some() {
            self.holes -= 1;
        }
        if self.holes > HOLES_MIN.max(self.line.len() / 2) {
            self.line.retain(|queued| queued.key != HOLE);
            self.holes = 0;
        }
        let capacity = self.line.capacity();
        if capacity > CAPACITY_KEPT && capacity / 8 > self.line.len() {
            self.line.shrink_to(self.line.len() * 2);
        }
    }

    /// The task that was added first.
    pub fn first(&self) -> Option<QueuedTask> {
        match (self.line.front(), self.late.first()) {
            (Some(in_line), Some(late)) => Some(*in_line.min(late)),
            (in_line, late) => in_line.or(late).copied(),
        }
    }

    /// The number of tasks.
    pub fn len(&self) -> usize {
        self.line.len() - self.holes + self.late.len()
    }

    /// Whether there is no task.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty() && self.late.is_empty()
    }

    /// Every task, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = QueuedTask> {
        self.line
            .iter()
            .filter(|queued| queued.key != HOLE)
            .chain(&self.late)
            .copied()
    }

    /// How many tasks were added before the one with this ordinal. Walks through the whole queue:
    /// this is for people, not for dispatch.
    pub fn older_than(&self, ordinal: u64) -> usize {
        self.iter()
            .filter(|queued| queued.ordinal < ordinal)
            .count()
    }

    /// For [`Scheduler::check`](crate::Scheduler::check): whether the line is in order, its holes
    /// are counted, and neither end is a hole.
    pub fn is_consistent(&self) -> bool {
        let holes = self.line.iter().filter(|queued| queued.key == HOLE).count();
        let ends = [self.line.front(), self.line.back()].into_iter().flatten();
        self.line.iter().is_sorted()
            && holes == self.holes
            && ends.into_iter().all(|queued| queued.key != HOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random numbers below a limit.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }
    }

    fn task(ordinal: u64, key: u32) -> QueuedTask {
        QueuedTask {
            ordinal,
            key: TaskKey(key),
        }
    }

    /// Compares the queue with a sorted set, over some thousand changes of every kind.
    #[test]
    fn it_is_what_a_sorted_set_would_be() {
        let mut queue = TaskQueue::default();
        let mut set = BTreeSet::new();
        let mut random = Random(1);

        for step in 0..20_000_u64 {
            let candidate = match random.below(4) {
                0 => task(step, random.below(1_000) as u32),
                1 => task(random.below(step + 1), random.below(4) as u32),
                _ => {
                    let nth = random.below(set.len() as u64 + 1) as usize / 2;
                    set.iter().nth(nth).copied().unwrap_or(task(0, 0))
                }
            };
            // An ordinal belongs to one task.
            let same_ordinal = task(candidate.ordinal, 0)..=task(candidate.ordinal, u32::MAX);
            match set.range(same_ordinal).next().copied() {
                Some(there) => {
                    set.remove(&there);
                    queue.remove(there);
                }
                None => {
                    set.insert(candidate);
                    queue.insert(candidate);
                }
            }
            queue.remove(task(step + 1, 1));

            assert!(queue.is_consistent(), "{queue:?}");
            assert_eq!(queue.first(), set.first().copied());
            assert_eq!(queue.len(), set.len());
            let older = set.range(..task(step / 2, 0)).count();
            assert_eq!(queue.older_than(step / 2), older);
        }

        assert!(set.len() > 100, "{}", set.len());
        assert_eq!(queue.iter().collect::<BTreeSet<_>>(), set);
    }
}
