//! A list that nearly always has no entry or one.

use std::ops::{Deref, DerefMut};

/// A list that nearly always has no entry or one. A single entry lies in the list itself and costs
/// no allocation; several lie behind a pointer, which keeps the list small.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OneOrMany<T> {
    /// The list is empty.
    #[default]
    None,
    /// The list has exactly one entry.
    One(T),
    /// The list has several entries, or what is left after it had several.
    #[allow(
        clippy::box_collection,
        reason = "a pointer is a third of a vector, and few lists have several entries"
    )]
    Many(Box<Vec<T>>),
}

impl<T> OneOrMany<T> {
    /// Adds an entry at the end.
    pub fn push(&mut self, entry: T) {
        if let OneOrMany::Many(entries) = self {
            return entries.push(entry);
        }
        *self = match std::mem::take(self) {
            OneOrMany::One(first) => OneOrMany::Many(Box::new(vec![first, entry])),
            OneOrMany::None | OneOrMany::Many(_) => OneOrMany::One(entry),
        };
    }

    /// Takes the last entry out.
    pub fn pop(&mut self) -> Option<T> {
        if let OneOrMany::Many(entries) = self {
            return entries.pop();
        }
        match std::mem::take(self) {
            OneOrMany::One(entry) => Some(entry),
            OneOrMany::None | OneOrMany::Many(_) => None,
        }
    }

    /// Keeps the entries for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        match self {
            OneOrMany::None => {}
            OneOrMany::One(entry) => {
                if !keep(entry) {
                    *self = OneOrMany::None;
                }
            }
            OneOrMany::Many(entries) => entries.retain(keep),
        }
    }
}

impl<T> Deref for OneOrMany<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            OneOrMany::None => &[],
            OneOrMany::One(entry) => std::slice::from_ref(entry),
            OneOrMany::Many(entries) => entries,
        }
    }
}

impl<T> DerefMut for OneOrMany<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            OneOrMany::None => &mut [],
            OneOrMany::One(entry) => std::slice::from_mut(entry),
            OneOrMany::Many(entries) => entries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_a_vector_would_be() {
        let mut list = OneOrMany::default();
        let mut vector = Vec::new();

        for step in 0..200_u32 {
            match step % 7 {
                0..4 => {
                    list.push(step);
                    vector.push(step);
                }
                4 => {
                    list.retain(|entry| entry % 3 != 0);
                    vector.retain(|entry| entry % 3 != 0);
                }
                5 if step % 5 == 0 => {
                    list.retain(|_| false);
                    vector.clear();
                }
                _ => assert_eq!(list.pop(), vector.pop()),
            }
            list.reverse();
            vector.reverse();
            assert_eq!(*list, *vector);
        }
    }
}
