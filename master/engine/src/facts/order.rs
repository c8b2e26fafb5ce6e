//! Open tasks in the order of their adding, for lists.

use std::collections::BTreeMap;
use taskmaster_core::TaskKey;

/// Numbers that lie together. Numbers are dense, so most rows are full; of an old task that is
/// opened again, alone among ended ones, the row is a kilobyte.
const ROW: u64 = 256;

/// Stands where no task is open. No task has this key: they are counted from 0.
const NOBODY: TaskKey = TaskKey(u32::MAX);

#[derive(Debug)]
struct Row {
    keys: Box<[TaskKey]>,
    open: usize,
}

/// Keys by `no`: four bytes a task, where a tree of them would be five times that.
#[derive(Debug, Default)]
pub(crate) struct AddingOrder(BTreeMap<u64, Row>);

impl AddingOrder {
    /// Puts a key in its place, which is free.
    pub fn insert(&mut self, no: u64, key: TaskKey) {
        let empty = || Row {
            keys: vec![NOBODY; ROW as usize].into(),
            open: 0,
        };
        let row = self.0.entry(no / ROW).or_insert_with(empty);
        let last = std::mem::replace(&mut row.keys[(no % ROW) as usize], key);
        assert!(last == NOBODY, "two open tasks have the number {no}");
        row.open += 1;
    }

    /// Takes a key away, if one is there.
    pub fn remove(&mut self, no: u64) {
        let Some(row) = self.0.get_mut(&(no / ROW)) else {
            return;
        };
        if std::mem::replace(&mut row.keys[(no % ROW) as usize], NOBODY) != NOBODY {
            row.open -= 1;
        }
        if row.open == 0 {
            self.0.remove(&(no / ROW));
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.values().map(|row| row.open).sum()
    }

    /// Those of at least this number, in order.
    pub fn from(&self, first: u64) -> impl Iterator<Item = (u64, TaskKey)> {
        let rows = self.0.range(first / ROW..);
        let all = rows.flat_map(|(at, row)| (at * ROW..).zip(row.keys.iter().copied()));
        all.filter(move |(no, key)| *no >= first && *key != NOBODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_a_sorted_map_would_be() {
        let (mut rows, mut map) = (AddingOrder::default(), BTreeMap::new());
        for step in 1..3_000_u64 {
            let no = step.wrapping_mul(0x9E37_79B9) % 2_000;
            match map.remove(&no) {
                Some(_) => rows.remove(no),
                None => {
                    map.insert(no, TaskKey(step as u32));
                    rows.insert(no, TaskKey(step as u32));
                }
            }
            rows.remove(no + 5_000);
            let from = step % 2_000;
            assert!(
                rows.from(from)
                    .eq(map.range(from..).map(|(no, key)| (*no, *key)))
            );
        }
        map.keys().for_each(|no| rows.remove(*no));
        assert!(rows.0.is_empty(), "an empty row is let go of");
    }
}
