//! What a master has acknowledged, and so what must be true in the end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// How an acknowledged task must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Done, with this result.
    Done(u64),
    /// Cancelled: that was acknowledged too.
    Cancelled,
    /// Done or cancelled: nobody has been told which.
    Either(u64),
}

#[derive(Debug, Clone)]
pub struct Promise {
    pub job: String,
    pub expected: Expected,
    /// Attempts that it takes when nothing goes wrong.
    pub attempts: u64,
}

/// Everything that was acknowledged.
#[derive(Default)]
pub struct Ledger {
    promises: Mutex<BTreeMap<String, Promise>>,
    /// What no fault excuses: a refusal without a reason, an answer to nobody.
    complaints: Mutex<Vec<String>>,
}

impl Ledger {
    /// An add was acknowledged.
    pub fn acknowledged(&self, id: &str, promise: Promise) {
        self.promises().insert(id.to_owned(), promise);
    }

    /// A cancel was acknowledged, or refused because the task had ended.
    pub fn cancelled(&self, id: &str, taken: bool) {
        match self.promises().get_mut(id) {
            Some(promise) => match (promise.expected.clone(), taken) {
                (_, true) => promise.expected = Expected::Cancelled,
                (Expected::Either(result), false) => promise.expected = Expected::Done(result),
                _ => {}
            },
            None => self.complain(format!("a cancel of {id} was answered before its add")),
        }
    }

    pub fn promises(&self) -> MutexGuard<'_, BTreeMap<String, Promise>> {
        self.promises.lock().unwrap()
    }

    pub fn complain(&self, text: String) {
        self.complaints.lock().unwrap().push(text);
    }

    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }
}
