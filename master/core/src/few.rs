//! A list that nearly always has one entry, or none.

use std::ops::{Deref, DerefMut};

/// One entry lies where the list lies: no memory of its own, no look elsewhere. Several lie behind
/// a pointer, so that the list is small where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Few<T> {
    /// Nothing.
    #[default]
    None,
    /// Exactly one.
    One(T),
    /// Several, or what is left of several.
    #[allow(
        clippy::box_collection,
        reason = "a pointer is a third of a vector, and few lists have several entries"
    )]
    Many(Box<Vec<T>>),
}

impl<T> Few<T> {
    /// Adds one at the end.
    pub fn push(&mut self, entry: T) {
        if let Few::Many(entries) = self {
            return entries.push(entry);
        }
        *self = match std::mem::take(self) {
            Few::One(first) => Few::Many(Box::new(vec![first, entry])),
            _ => Few::One(entry),
        };
    }

    /// Takes the last one out.
    pub fn pop(&mut self) -> Option<T> {
        match self {
            Few::Many(entries) => entries.pop(),
            _ => match std::mem::take(self) {
                Few::One(entry) => Some(entry),
                _ => None,
            },
        }
    }

    /// Keeps those that `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        match self {
            Few::Many(entries) => entries.retain(keep),
            Few::One(entry) if !keep(entry) => *self = Few::None,
            _ => {}
        }
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Few::None => &[],
            Few::One(entry) => std::slice::from_ref(entry),
            Few::Many(entries) => entries,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Few::None => &mut [],
            Few::One(entry) => std::slice::from_mut(entry),
            Few::Many(entries) => entries,
        }
    }
}
