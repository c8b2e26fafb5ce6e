//! How many connected runners are sick, for those who must not wait for the engine to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of connected runners whose machines cannot run tasks. Clones share the number.
#[derive(Debug, Clone, Default)]
pub struct SickRunners(Arc<AtomicUsize>);

impl SickRunners {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// There is one more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// There is one less: its machine is well again, or its connection is gone.
    pub(crate) fn lose(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
