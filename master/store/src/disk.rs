//! The free space on the disk, and the error texts about a disk that is full.

use crate::kv::StoreError;
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

/// The file of a store, as it was when the master started. A master whose data folder is removed or
/// exchanged goes on writing into files that no next start will find.
#[derive(Debug, Clone)]
pub struct StoreFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl StoreFile {
    /// The file of the store in the data folder `data`.
    pub fn find(data: &Path) -> io::Result<StoreFile> {
        let path = data.join("store").join("db");
        let about = fs::metadata(&path)?;
        Ok(StoreFile {
            device: about.dev(),
            inode: about.ino(),
            path,
        })
    }

    /// Whether there is no such file any more, or another one. A disk that does not answer says
    /// nothing of that.
    pub fn is_gone(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(about) => about.dev() != self.device || about.ino() != self.inode,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// Bytes that a file of this process may have (`ulimit -f`); `None` where there is no limit.
pub fn file_bytes_max() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// The error text for a file that may grow no more.
pub fn limited_message(folder: &Path, limit: u64) -> String {
    format!(
        "no file of this process may have more than {} MiB (`ulimit -f`), and the store in {} would: \
         start the master with a higher limit",
        limit >> 20,
        folder.display()
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
