//! Bytes by their hash, on this machine's disk: `<data>/blobs/ab/abcdef…`. A file is there whole and synced, or not
//! at all: it is written under a temporary name, synced, renamed, and its folder is synced.

use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use taskmaster_protocol::{Hash, limits};

/// Files being written have names that begin with this; what is left of them at a start is from a crash.
const UNFINISHED: &str = "unfinished-";

/// The blob folder. Clones share it.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: Arc<Path>,
    /// Numbers the temporary files of this process.
    next: Arc<AtomicU64>,
}

/// Why bytes were not kept under the name that was given for them.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// They have another hash.
    #[error("the bytes have the hash {is}, not {named}")]
    WrongHash {
        /// The name given.
        named: Hash,
        /// Their hash.
        is: Hash,
    },
    /// They are more than one blob may have.
    #[error("a blob may have at most {} bytes", limits::BLOB_BYTES_MAX)]
    TooLarge,
    /// The disk said no.
    #[error("the blob cannot be stored: {0}")]
    Io(#[from] io::Error),
}

impl Blobs {
    /// Opens `<data>/blobs`, makes it where it is missing, and removes what a crash left unfinished.
    pub fn open(data: &Path) -> io::Result<Blobs> {
        let root = data.join("blobs");
        fs::create_dir_all(&root)?;
        sync_folder(data)?;
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Blobs { root: root.into(), next: Arc::default() })
    }

    /// Whether a data folder holds blobs.
    pub fn any(data: &Path) -> bool {
        let is_folder = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.path().is_dir());
        fs::read_dir(data.join("blobs")).is_ok_and(|mut entries| entries.any(is_folder))
    }

    /// The data folder in which the blob folder is.
    pub fn data(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    /// Where the blob is, whether it exists or not.
    pub fn path(&self, hash: &Hash) -> PathBuf {
        let name = hash.to_string();
        self.root.join(name.get(..2).unwrap_or_default()).join(name)
    }

    /// Whether the blob is there.
    pub fn exists(&self, hash: &Hash) -> bool {
        self.path(hash).is_file()
    }

    /// The whole blob.
    pub fn get(&self, hash: &Hash) -> io::Result<Vec<u8>> {
        fs::read(self.path(hash))
    }

    /// Keeps `bytes` durably under their hash. Nothing is written where they are there already.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Hash> {
        let hash = Hash::of(bytes);
        self.put_hashed(hash, bytes)?;
        Ok(hash)
    }

    /// Like [`Blobs::put`], for bytes that the caller has hashed: a large module is hashed once.
    pub fn put_hashed(&self, hash: Hash, bytes: &[u8]) -> io::Result<()> {
        if self.exists(&hash) {
            return Ok(());
        }
        let mut upload = self.begin()?;
        upload.file.write_all(bytes)?;
        upload.keep(hash)
    }

    /// Begins a blob that comes in parts.
    pub fn begin(&self) -> io::Result<Upload> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(format!("{UNFINISHED}{}-{number}", std::process::id()));
        let file = File::create(&path)?;
        Ok(Upload { blobs: self.clone(), path, file, hasher: Sha256::new(), bytes: 0 })
    }
}

/// A blob that is being written; removed where it is dropped before [`Upload::finish`].
#[derive(Debug)]
pub struct Upload {
    blobs: Blobs,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    bytes: u64,
}

impl Upload {
    /// Takes the next part.
    pub fn write(&mut self, part: &[u8]) -> Result<(), PutError> {
        self.bytes = self.bytes.saturating_add(part.len() as u64);
        if self.bytes > limits::BLOB_BYTES_MAX {
            return Err(PutError::TooLarge);
        }
        self.hasher.update(part);
        Ok(self.file.write_all(part)?)
    }

    /// Keeps what was written, durably, if it is what `named` says.
    pub fn finish(self, named: Hash) -> Result<(), PutError> {
        let is = Hash(self.hasher.clone().finalize().into());
        if is != named {
            return Err(PutError::WrongHash { named, is });
        }
        if self.blobs.exists(&named) {
            return Ok(());
        }
        Ok(self.keep(named)?)
    }

    fn keep(self, hash: Hash) -> io::Result<()> {
        self.file.sync_all()?;
        let path = self.blobs.path(&hash);
        let folder = path.parent().unwrap_or(&self.blobs.root);
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            sync_folder(&self.blobs.root)?;
        }
        fs::rename(&self.path, &path)?;
        sync_folder(folder)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Gone already where it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

/// A name in a folder is durable when the folder is synced.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::scratch::Scratch;

    #[test]
    fn bytes_are_found_under_their_hash_also_after_a_new_start() {
        let scratch = Scratch::new();
        let hash = Blobs::open(scratch.path()).unwrap().put(b"abc").unwrap();
        assert_eq!(hash, Hash::of(b"abc"));
        let blobs = Blobs::open(scratch.path()).unwrap();
        assert!(blobs.exists(&hash) && !blobs.exists(&Hash::of(b"x")));
        assert_eq!(blobs.get(&hash).unwrap(), b"abc");
        assert_eq!(blobs.put(b"abc").unwrap(), hash);
    }

    #[test]
    fn what_was_left_unfinished_is_removed() {
        let scratch = Scratch::new();
        let blobs = Blobs::open(scratch.path()).unwrap();
        let mut upload = blobs.begin().unwrap();
        upload.write(b"half").unwrap();
        std::mem::forget(upload);
        let files = || fs::read_dir(scratch.path().join("blobs")).unwrap().count();
        assert_eq!(files(), 1);
        drop(blobs.begin().unwrap());
        assert_eq!(files(), 1);
        Blobs::open(scratch.path()).unwrap();
        assert_eq!(files(), 0);
    }

    #[test]
    fn a_wrong_hash_is_not_kept() {
        let scratch = Scratch::new();
        let blobs = Blobs::open(scratch.path()).unwrap();
        let named = Hash::of(b"other");
        let mut upload = blobs.begin().unwrap();
        upload.write(b"a").unwrap();
        upload.write(b"b").unwrap();
        assert!(matches!(upload.finish(named), Err(PutError::WrongHash { is, .. }) if is == Hash::of(b"ab")));
        assert!(!blobs.exists(&named) && !blobs.exists(&Hash::of(b"ab")));
    }
}
