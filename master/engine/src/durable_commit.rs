//! A commit that is durable, on its way to watchers and into the view.

use std::sync::Arc;
use taskmaster_store::codec;
use taskmaster_store::record::JournalEntry;

/// Bytes of a usual record. A commit with larger records weighs as much as if it had more of them.
const RECORD_BYTES: usize = 1 << 10;

/// A commit that is durable. Clones share it.
#[derive(Debug, Clone)]
pub struct DurableCommit {
    /// Its records.
    pub entry: Arc<JournalEntry>,
    /// How many bytes the journal has of it, which is about what it takes in memory.
    pub bytes: usize,
}

impl DurableCommit {
    /// The commit of an entry that nobody has encoded yet.
    pub fn of(entry: Arc<JournalEntry>) -> DurableCommit {
        let bytes = codec::encode(entry.as_ref()).len();
        DurableCommit { entry, bytes }
    }

    /// What the commit counts where commits wait in memory: one for each record, and more where
    /// records are large. A hundred thousand results of 64 KiB must not wait as easily as a hundred
    /// thousand numbers.
    pub fn weight(&self) -> usize {
        self.entry.records.len().max(self.bytes / RECORD_BYTES)
    }
}
