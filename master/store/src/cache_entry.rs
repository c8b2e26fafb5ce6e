//! A kept answer as the view has it.

use crate::cache::{CacheTerms, KeyParts};
use crate::record::{Ended, TaskOutput};
use serde::{Deserialize, Serialize};
use taskmaster_protocol::{Hash, ModuleName, TaskId, Wall};

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
