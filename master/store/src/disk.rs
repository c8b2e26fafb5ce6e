//! Free space on the disk, measured, and the sentences about a disk that has none.

use crate::kv::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// Adds are refused when less is free: the results of what was added before must find room.
pub const LOW_BYTES: u64 = 128 << 20;

/// Adds are taken again when so much is free; more than [`LOW_BYTES`], so that it does not go to
/// and fro.
pub const AMPLE_BYTES: u64 = 160 << 20;

/// The sentence for a disk that takes nothing more.
pub fn full(folder: &Path) -> String {
    let (folder, mark) = (folder.display(), AMPLE_BYTES >> 20);
    format!(
        "the disk that holds {folder} is full: nothing can be written to it; make room until {mark} MiB are free, then it goes on by itself"
    )
}

/// Bytes that this user may still write to the disk that holds `folder`.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let told = rustix::fs::statvfs(folder)?;
    Ok(told.f_bavail.saturating_mul(told.f_frsize))
}

/// Says no before a master is opened on a disk without room: opening writes.
pub fn wanted_at_start(folder: &Path) -> Result<(), StoreError> {
    /// A snapshot that sled writes when it opens; for what comes then, it reserves.
    const START_BYTES: u64 = 8 << 20;
    match free_bytes(folder) {
        Ok(free) if free < START_BYTES => {
            let (free, wanted, folder) = (free >> 20, START_BYTES >> 20, PathBuf::from(folder));
            let why = format!(
                "the disk that holds {} is full: {free} MiB are free, and a master needs {wanted} MiB to start. Nothing was changed; make room and start it again",
                folder.display()
            );
            Err(StoreError::Full(why))
        }
        _ => Ok(()),
    }
}
