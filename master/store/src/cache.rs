//! What a task says about keeping its answer, and on which terms the answer is kept.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use taskmaster_protocol::{CacheMode, Hash, Wall};

/// What a document asks for, with the part of the key that the document makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRequest {
    /// Whether a kept answer is looked up.
    pub mode: CacheMode,
    /// How long the answer is kept, in seconds; 0 where the task sets the time while it runs.
    pub ttl_s: u64,
    /// The hash of all parts of the key that the document makes. `None` where that is in doubt, so
    /// that the answer is neither looked up nor kept.
    pub document: Option<Hash>,
    /// Why the key is in doubt, as the end of a sentence; `None` where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// The parts of a key by their names, each as a short hash. They tell how two keys differ.
pub type KeyParts = BTreeMap<String, String>;

/// On which terms the answer of a task that ended is kept. It is a part of the record of the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheTerms {
    /// The key.
    pub key: Hash,
    /// How long the answer is kept, in seconds from the end of the run.
    pub ttl_s: u64,
    /// How long the attempt could have run, in milliseconds.
    pub timeout_ms: u64,
    /// How much memory the attempt could have had, in MiB.
    pub memory_mb: u32,
    /// The release of Taskmaster by which the answer was made.
    pub engine: String,
    /// The parts of the key.
    pub parts: KeyParts,
    /// Bytes of the blobs that the answer names.
    #[serde(default)]
    pub blob_bytes: u64,
    /// Until when the answer was kept whose place this one takes; `None` where it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_expires: Option<Wall>,
}
