//! A list that nearly always has one entry, or none.

use std::ops::{Deref, DerefMut};

/// One entry lies where the list lies: no memory of its own, no look elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Few<T> {
    /// Exactly one.
    One(T),
    /// None, or several; or what is left of several.
    Many(Vec<T>),
}

impl<T> Default for Few<T> {
    fn default() -> Few<T> {
        Few::Many(Vec::new())
    }
}

impl<T> Few<T> {
    /// Adds one at the end.
    pub fn push(&mut self, entry: T) {
        match std::mem::take(self) {
            Few::Many(entries) if entries.is_empty() => *self = Few::One(entry),
            Few::Many(mut entries) => {
                entries.push(entry);
                *self = Few::Many(entries);
            }
            Few::One(first) => *self = Few::Many(vec![first, entry]),
        }
    }

    /// Takes the last one out.
    pub fn pop(&mut self) -> Option<T> {
        match self {
            Few::Many(entries) => entries.pop(),
            Few::One(_) => match std::mem::take(self) {
                Few::One(entry) => Some(entry),
                Few::Many(_) => None,
            },
        }
    }

    /// Keeps those that `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        match self {
            Few::Many(entries) => entries.retain(keep),
            Few::One(entry) if keep(entry) => {}
            Few::One(_) => *self = Few::default(),
        }
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Few::One(entry) => std::slice::from_ref(entry),
            Few::Many(entries) => entries,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Few::One(entry) => std::slice::from_mut(entry),
            Few::Many(entries) => entries,
        }
    }
}
