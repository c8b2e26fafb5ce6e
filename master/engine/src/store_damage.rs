//! What is known to be wrong with the store while a master runs on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use taskmaster_store::kv::StoreError;

/// What was found first to be wrong with the store. It stays until the master ends, because only a
/// keeper can mend a store. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct StoreDamage(Arc<Mutex<Option<String>>>);

impl StoreDamage {
    fn first(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the store could not be read or written for another reason than want of space.
    pub fn record(&self, error: &StoreError) {
        if !matches!(error, StoreError::Full(_)) {
            self.record_text(error.to_string());
        }
    }

    pub(crate) fn record_text(&self, text: String) {
        let mut first = self.first();
        if first.is_none() {
            tracing::error!(why = %text, "the store is damaged, and adds are refused");
            *first = Some(text);
        }
    }

    /// What was found first; `None` while nothing is known to be wrong.
    pub fn found(&self) -> Option<String> {
        self.first().clone()
    }
}
