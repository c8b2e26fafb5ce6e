//! Kept answers: what a task says about keeping its answer, and the answer as the view keeps it.

use crate::record::{Ended, TaskOutput};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use taskmaster_protocol::{CacheMode, Hash, ModuleName, TaskId, Wall};

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

/// An answer that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheEntry {
    /// The key.
    pub key: Hash,
    /// The task that ran.
    pub task: TaskId,
    /// The number of the attempt that made the answer.
    pub attempt: u32,
    /// The runner of that attempt.
    pub runner: Option<String>,
    /// The module.
    pub module: ModuleName,
    /// The version of the module that ran.
    pub version: Option<Hash>,
    /// The release of Taskmaster by which the answer was made.
    pub engine: String,
    /// How long the attempt could have run, in milliseconds.
    pub timeout_ms: u64,
    /// How much memory the attempt could have had, in MiB.
    pub memory_mb: u32,
    /// The answer.
    pub result: TaskOutput,
    /// The seq of the event that told of the end of the run.
    pub seq: u64,
    /// When the run ended.
    pub stored: Wall,
    /// The time from which on the answer is too old.
    pub expires: Wall,
    /// The parts of the key.
    pub parts: KeyParts,
    /// Bytes of the blobs that the answer names.
    #[serde(default)]
    pub blob_bytes: u64,
}

impl CacheEntry {
    /// The answer that the end of a task leaves; `None` where it leaves none.
    pub fn of(ended: &Ended) -> Option<CacheEntry> {
        let terms = ended.end.extras.as_ref()?.kept.as_deref()?;
        let result = ended.end.result.as_ref()?;
        let CacheTerms {
            key,
            ttl_s,
            timeout_ms,
            memory_mb,
            engine,
            parts,
            blob_bytes,
            former_expires: _,
        } = terms;
        let ttl_us = ttl_s.saturating_mul(1_000_000);
        Some(CacheEntry {
            key: *key,
            task: ended.id.clone(),
            attempt: ended.end.attempt.n,
            runner: ended.end.runner.as_deref().map(str::to_owned),
            module: ended.module.clone(),
            version: ended.end.version,
            engine: engine.clone(),
            timeout_ms: *timeout_ms,
            memory_mb: *memory_mb,
            result: result.clone(),
            seq: ended.seq,
            stored: ended.end.finished,
            expires: ended.end.finished.plus_us(ttl_us),
            parts: parts.clone(),
            blob_bytes: *blob_bytes,
        })
    }
}
