//! Ready tasks of one job, priority and class, by age.

use crate::event::TaskKey;
use std::collections::{BTreeSet, VecDeque};

/// A task in a queue, by age: who was added first comes first.
pub(crate) type Aged = (u64, TaskKey);

/// Stands where a task was taken out of the middle. No task has this key: the shell counts keys
/// from 0.
const HOLE: TaskKey = TaskKey(u32::MAX);

/// Holes that are not worth a pass over the line.
const HOLES_MIN: usize = 32;

/// Tasks nearly always come in the order of their adding and leave from the front, so they stand in
/// one row of memory: a job's next task is one look away, where a tree would be a walk from node to
/// node.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// By age. Its first and its last are no holes.
    line: VecDeque<Aged>,
    holes: usize,
    /// Those that came when a younger one stood in line already: retried, returned, unblocked late.
    late: BTreeSet<Aged>,
}

impl Queue {
    /// Files a task that is not in it.
    pub fn insert(&mut self, task: Aged) {
        if self.line.back().is_none_or(|last| *last < task) {
            self.line.push_back(task);
        } else {
            self.late.insert(task);
        }
    }

    /// Takes a task out, if it is there.
    pub fn remove(&mut self, task: Aged) {
        if self.line.front() == Some(&task) {
            self.line.pop_front();
            self.trim();
        } else if !self.late.remove(&task)
            && let Ok(at) = self.line.binary_search_by_key(&task.0, |(no, _)| *no)
            && self.line[at] == task
        {
            self.line[at].1 = HOLE;
            self.holes += 1;
            self.trim();
        }
    }

    /// No holes at the ends, few between, and no more memory than a few times what is needed.
    fn trim(&mut self) {
        while self.holes > 0 && self.line.pop_front_if(|(_, key)| *key == HOLE).is_some() {
            self.holes -= 1;
        }
        while self.holes > 0 && self.line.pop_back_if(|(_, key)| *key == HOLE).is_some() {
            self.holes -= 1;
        }
        if self.holes > HOLES_MIN.max(self.line.len() / 2) {
            self.line.retain(|(_, key)| *key != HOLE);
            self.holes = 0;
        }
        if self.line.capacity() > 1_024 && self.line.capacity() / 8 > self.line.len() {
            self.line.shrink_to(self.line.len() * 2);
        }
    }

    /// The oldest.
    pub fn first(&self) -> Option<Aged> {
        match (self.line.front(), self.late.first()) {
            (Some(a), Some(b)) => Some(*a.min(b)),
            (a, b) => a.or(b).copied(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.line.len() - self.holes + self.late.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty() && self.late.is_empty()
    }

    /// Every task, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = Aged> {
        self.line
            .iter()
            .filter(|(_, key)| *key != HOLE)
            .chain(&self.late)
            .copied()
    }

    /// How many were added before the one of this number. Looks at each: for people, not for
    /// dispatch.
    pub fn older_than(&self, no: u64) -> usize {
        self.iter().filter(|(other, _)| *other < no).count()
    }

    /// For [`Scheduler::check`](crate::Scheduler::check): by age, holes counted, none at the ends.
    pub fn is_right(&self) -> bool {
        let holes = self.line.iter().filter(|(_, key)| *key == HOLE).count();
        let ends = [self.line.front(), self.line.back()].into_iter().flatten();
        self.line.iter().is_sorted()
            && holes == self.holes
            && ends.into_iter().all(|(_, key)| *key != HOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain sorted set, over some thousand changes of every kind.
    #[test]
    fn it_is_what_a_sorted_set_would_be() {
        let (mut queue, mut set) = (Queue::default(), BTreeSet::new());
        let mut chance = 1_u64;
        let mut next = |below: u64| {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (chance >> 33) % below
        };
        for step in 0..20_000_u64 {
            let task = match next(4) {
                0 => (step, TaskKey(next(1_000) as u32)),
                1 => (next(step + 1), TaskKey(next(4) as u32)),
                _ => set
                    .iter()
                    .nth(next(set.len() as u64 + 1) as usize / 2)
                    .copied()
                    .unwrap_or((0, TaskKey(0))),
            };
            // A number belongs to one task.
            let same = set
                .range((task.0, TaskKey(0))..=(task.0, TaskKey(u32::MAX)))
                .next()
                .copied();
            match same {
                Some(there) => {
                    set.remove(&there);
                    queue.remove(there);
                }
                None => {
                    set.insert(task);
                    queue.insert(task);
                }
            }
            queue.remove((step + 1, TaskKey(1)));
            assert!(queue.is_right(), "{queue:?}");
            assert_eq!(
                (queue.first(), queue.len()),
                (set.first().copied(), set.len())
            );
            assert_eq!(
                queue.older_than(step / 2),
                set.range(..(step / 2, TaskKey(0))).count()
            );
        }
        assert!(set.len() > 100, "{}", set.len());
        assert_eq!(queue.iter().collect::<BTreeSet<_>>(), set);
    }
}
