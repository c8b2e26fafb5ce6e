//! The blob folder as a cache of an object store: at most so many bytes of files, and those go
//! first that nobody has read for longest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use taskmaster_protocol::Hash;

/// What the cache may take unless its keeper says something else: 10 GiB.
pub const CACHE_BYTES_DEFAULT: u64 = 10 << 30;

/// Where it is full, so much of it is left: looking at every file is not worth it for a single one.
const LEFT_PERCENT: u64 = 90;

#[derive(Debug)]
pub(super) struct Cache {
    most: u64,
    /// Bytes in it, by what was added since they were last counted.
    holds: AtomicU64,
    /// Taken by who makes room.
    clearing: Mutex<()>,
}

/// Every blob in a blob folder: its path, and what the system says of it.
pub(super) fn files(root: &Path) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
    let mut files = Vec::new();
    for folder in fs::read_dir(root)? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            match entry.metadata() {
                Ok(about) => files.push((entry.path(), about)),
                // Removed since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(files)
}

/// The blob that a file in a blob folder is; `None`: it is another file.
pub(super) fn hash_of(path: &Path) -> Option<Hash> {
    path.file_name()?.to_str().and_then(Hash::parse)
}

impl Cache {
    pub(super) fn of(root: &Path, most: u64) -> io::Result<Cache> {
        let holds = files(root)?.iter().map(|(_, about)| about.len()).sum();
        Ok(Cache {
            most,
            holds: AtomicU64::new(holds),
            clearing: Mutex::default(),
        })
    }

    /// So many bytes came; `newest` is where, and stays for who asked for it.
    pub(super) fn grew(&self, bytes: u64, root: &Path, newest: &Path) {
        if self.holds.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.most {
            return;
        }
        let Ok(_alone) = self.clearing.try_lock() else {
            return;
        };
        match make_room(root, self.most / 100 * LEFT_PERCENT, newest) {
            Ok(left) => self.holds.store(left, Ordering::Relaxed),
            Err(error) => tracing::warn!("no room is made in the blob folder: {error}"),
        }
    }
}

/// Removes files until at most so many bytes are left; how many are.
fn make_room(root: &Path, most: u64, newest: &Path) -> io::Result<u64> {
    let mut files = files(root)?;
    let mut left: u64 = files.iter().map(|(_, about)| about.len()).sum();
    files.sort_by_key(|(_, about)| about.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    for (path, about) in files {
        if left <= most {
            break;
        }
        if path == newest {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => left -= about.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => left -= about.len(),
            Err(error) => return Err(error),
        }
    }
    Ok(left)
}
