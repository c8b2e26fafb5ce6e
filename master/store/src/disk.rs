//! The free space on the disk, and the error texts about a disk that is full.

use crate::kv::StoreError;
use std::io;
use std::path::Path;

/// Adds are refused when fewer bytes are free, because the results of tasks that were added before
/// must still fit.
pub const LOW_BYTES: u64 = 128 << 20;

/// Adds are accepted again when this many bytes are free. It is more than [`LOW_BYTES`], so that the
/// master does not change its mind with every write.
pub const AMPLE_BYTES: u64 = 160 << 20;

/// The error text for a disk that accepts no more writes.
pub fn full_message(folder: &Path) -> String {
    format!(
        "the disk that holds {} is full: nothing can be written to it; make room until {} MiB are free, then it goes on by itself",
        folder.display(),
        AMPLE_BYTES >> 20
    )
}

/// Bytes that this user may still write to the disk that holds `folder`.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stats = rustix::fs::statvfs(folder)?;
    Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
}

/// Refuses to open a store on a disk that is nearly full, because opening a store writes to it.
pub fn check_space_to_start(folder: &Path) -> Result<(), StoreError> {
    /// Bytes of the snapshot that sled writes when it opens a store. Later writes are covered by
    /// the reservation before each batch.
    const START_BYTES: u64 = 8 << 20;

    match free_bytes(folder) {
        Ok(free) if free < START_BYTES => Err(StoreError::Full(format!(
            "the disk that holds {} is full: {} MiB are free, and a master needs {} MiB to start. Nothing was changed; make room and start it again",
            folder.display(),
            free >> 20,
            START_BYTES >> 20
        ))),
        // Where the free space is not known, the start itself shows whether there is enough.
        Ok(_) | Err(_) => Ok(()),
    }
}
