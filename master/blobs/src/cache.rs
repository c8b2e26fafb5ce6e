//! The blob folder as a cache of a bucket: it may take a number of bytes, and the files that nobody
//! has read for longest are removed first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use taskmaster_protocol::Hash;

/// Bytes that the cache may take unless the user says something else.
pub const CACHE_BYTES_DEFAULT: u64 = 10 << 30;

/// A full cache is emptied down to this share of its size, so that not every new file makes it look
/// at all others.
const KEPT_PERCENT: u64 = 90;

#[derive(Debug)]
pub(crate) struct FolderCache {
    bytes_max: u64,
    /// Bytes in it: as they were last counted, and what was added since.
    bytes: AtomicU64,
    /// Held by the thread that makes space.
    making_space: Mutex<()>,
}

/// A file in a blob folder.
pub(crate) struct BlobFile {
    pub(crate) path: PathBuf,
    pub(crate) metadata: fs::Metadata,
}

impl BlobFile {
    /// The blob that the file is, unless it is some other file.
    pub(crate) fn hash(&self) -> Option<Hash> {
        self.path.file_name()?.to_str().and_then(Hash::parse)
    }
}

/// Every file in a blob folder, but those of uploads.
pub(crate) fn blob_files(root: &Path) -> io::Result<Vec<BlobFile>> {
    let mut files = Vec::new();
    for folder in fs::read_dir(root)? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) => files.push(BlobFile {
                    path: entry.path(),
                    metadata,
                }),
                // Removed since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(files)
}

/// The blobs in a blob folder.
pub(crate) fn blobs_in(root: &Path) -> io::Result<Vec<Hash>> {
    let files = blob_files(root)?;
    Ok(files.iter().filter_map(BlobFile::hash).collect())
}

impl FolderCache {
    pub(crate) fn new(root: &Path, bytes_max: u64) -> io::Result<FolderCache> {
        let bytes = bytes_of(&blob_files(root)?);
        Ok(FolderCache {
            bytes_max,
            bytes: AtomicU64::new(bytes),
            making_space: Mutex::default(),
        })
    }

    /// Counts a new file and makes space where the cache is full. The new file stays for whoever
    /// asked for it.
    pub(crate) fn file_added(&self, bytes: u64, root: &Path, file: &Path) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.bytes_max {
            return;
        }
        let Ok(_alone) = self.making_space.try_lock() else {
            return;
        };
        match make_space(root, self.bytes_max / 100 * KEPT_PERCENT, file) {
            Ok(left) => self.bytes.store(left, Ordering::Relaxed),
            Err(error) => tracing::warn!("no room is made in the blob folder: {error}"),
        }
    }
}

fn bytes_of(files: &[BlobFile]) -> u64 {
    files.iter().map(|file| file.metadata.len()).sum()
}

/// Removes files until at most `bytes_max` are left, but never `newest`. Returns the bytes that are
/// left.
fn make_space(root: &Path, bytes_max: u64, newest: &Path) -> io::Result<u64> {
    let mut files = blob_files(root)?;
    let mut left = bytes_of(&files);
    files.sort_by_key(|file| file.metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    for file in files {
        if left <= bytes_max {
            break;
        }
        if file.path == newest {
            continue;
        }
        match fs::remove_file(&file.path) {
            Ok(()) => left -= file.metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => left -= file.metadata.len(),
            Err(error) => return Err(error),
        }
    }
    Ok(left)
}
