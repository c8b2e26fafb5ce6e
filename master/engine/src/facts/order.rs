//! Open tasks in the order in which they were added, for lists.

use std::collections::BTreeMap;
use taskmaster_core::TaskKey;

/// Ordinals that share a row. New tasks have consecutive ordinals, so most rows are full. A row
/// takes a kilobyte even if it has a single task, such as an old one that was opened again.
const ROW: u64 = 256;

/// Marks an ordinal whose task is not open. No task has this key, because keys count up from 0.
const FREE: TaskKey = TaskKey(u32::MAX);

#[derive(Debug)]
struct OrdinalRow {
    /// The key of each ordinal of the row, or [`FREE`].
    keys: Box<[TaskKey]>,
    /// How many ordinals of the row have an open task.
    open: usize,
}

/// Keys of open tasks by their ordinals. It takes four bytes a task; a tree would take five times as
/// much.
#[derive(Debug, Default)]
pub(crate) struct AddingOrder(BTreeMap<u64, OrdinalRow>);

impl AddingOrder {
    /// Puts the key of a task at its ordinal, which must be free.
    pub fn insert(&mut self, ordinal: u64, key: TaskKey) {
        let empty = || OrdinalRow {
            keys: vec![FREE; ROW as usize].into(),
            open: 0,
        };
        let row = self.0.entry(ordinal / ROW).or_insert_with(empty);
        let last = std::mem::replace(&mut row.keys[(ordinal % ROW) as usize], key);
        assert!(last == FREE, "two open tasks have the number {ordinal}");
        row.open += 1;
    }

    /// Removes the key at an ordinal, if there is one.
    pub fn remove(&mut self, ordinal: u64) {
        let Some(row) = self.0.get_mut(&(ordinal / ROW)) else {
            return;
        };
        let last = std::mem::replace(&mut row.keys[(ordinal % ROW) as usize], FREE);
        if last != FREE {
            row.open -= 1;
        }
        if row.open == 0 {
            self.0.remove(&(ordinal / ROW));
        }
    }

    /// The number of open tasks.
    pub fn len(&self) -> usize {
        self.0.values().map(|row| row.open).sum()
    }

    /// Ordinals and keys in order, from the ordinal `first` on.
    pub fn from(&self, first: u64) -> impl Iterator<Item = (u64, TaskKey)> {
        let rows = self.0.range(first / ROW..);
        let all =
            rows.flat_map(|(row_index, row)| (row_index * ROW..).zip(row.keys.iter().copied()));
        all.filter(move |(ordinal, key)| *ordinal >= first && *key != FREE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_a_sorted_map_would_be() {
        let mut rows = AddingOrder::default();
        let mut map = BTreeMap::new();
        for step in 1..3_000_u64 {
            let ordinal = step.wrapping_mul(0x9E37_79B9) % 2_000;
            match map.remove(&ordinal) {
                Some(_) => rows.remove(ordinal),
                None => {
                    map.insert(ordinal, TaskKey(step as u32));
                    rows.insert(ordinal, TaskKey(step as u32));
                }
            }
            rows.remove(ordinal + 5_000);
            let from = step % 2_000;
            assert!(
                rows.from(from)
                    .eq(map.range(from..).map(|(ordinal, key)| (*ordinal, *key)))
            );
        }
        map.keys().for_each(|ordinal| rows.remove(*ordinal));
        assert!(rows.0.is_empty(), "an empty row is removed");
    }
}
