//! A blob on its way to the disk: it is hashed while it is written under a temporary name, then
//! synced, put into the bucket where blobs live in one, and renamed.
//!
//! The part of an upload that breaks off is kept for a day, so that a large upload goes on where it
//! was. An upload that the bucket does not accept at the moment is kept in the same way.

use crate::Blobs;
use crate::errors::{PutError, is_unavailable};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use taskmaster_protocol::{Hash, limits};

/// The beginning of the name of a file that is being written. The name ends with the blob's hash,
/// where that is known.
const UNFINISHED: &str = "unfinished-";

/// The beginning of the name of a part whose upload broke off. The blob's hash follows.
const PARTIAL: &str = "partial-";

/// How long such a part is kept.
const PARTIAL_KEPT: Duration = Duration::from_secs(86_400);

/// A larger blob is put into a bucket only after the bucket was asked whether it has the blob.
const ASK_FIRST_BYTES: u64 = 1 << 20;

/// Bytes hashed at a time when an upload goes on.
const CHUNK_BYTES: usize = 1 << 20;

/// A blob that is being written. When it is dropped before [`Upload::finish`], it is kept as a part
/// where its hash was named at the beginning, and removed otherwise.
#[derive(Debug)]
pub struct Upload {
    blobs: Blobs,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    bytes: u64,
    /// The path under which its part is kept if it breaks off.
    partial: Option<PathBuf>,
}

impl Blobs {
    /// Begins a blob that comes in parts.
    pub fn begin(&self) -> io::Result<Upload> {
        self.begin_as(self.temporary_path(""), None)
    }

    /// Begins the blob `hash`, or goes on with it behind the first `offset` bytes. Reads and hashes
    /// those.
    pub fn begin_at(&self, hash: Hash, offset: u64) -> Result<Upload, PutError> {
        let partial = self.partial_path(&hash);
        let path = self.temporary_path(&hash.to_string());
        if offset == 0 {
            return Ok(self.begin_as(path, Some(partial))?);
        }

        // The part belongs to whoever has renamed it.
        match fs::rename(&partial, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PutError::Offset(0));
            }
            renamed => renamed?,
        }
        let mut file = OpenOptions::new().read(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        let mut upload = Upload {
            blobs: self.clone(),
            path,
            file: file.try_clone()?,
            hasher: Sha256::new(),
            bytes,
            partial: Some(partial),
        };
        if bytes != offset {
            // The drop of the upload makes the file a part again.
            return Err(PutError::Offset(bytes));
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(upload),
                count => upload.hasher.update(&chunk[..count]),
            }
        }
    }

    fn begin_as(&self, path: PathBuf, partial: Option<PathBuf>) -> io::Result<Upload> {
        let file = File::create(&path)?;
        Ok(Upload {
            blobs: self.clone(),
            path,
            file,
            hasher: Sha256::new(),
            bytes: 0,
            partial,
        })
    }

    /// How many bytes are here of an upload of `hash` that broke off.
    pub fn partial_bytes(&self, hash: &Hash) -> u64 {
        length(&self.partial_path(hash))
    }

    fn partial_path(&self, hash: &Hash) -> PathBuf {
        self.root.join(format!("{PARTIAL}{hash}"))
    }

    pub(crate) fn temporary_path(&self, end: &str) -> PathBuf {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        self.root
            .join(format!("{UNFINISHED}{process}-{number}-{end}"))
    }

    /// After a crash: a file that was being written under a known hash becomes a part of that blob,
    /// and the other unfinished files are removed.
    pub(crate) fn clean_up_uploads(&self) -> io::Result<()> {
        for entry in fs::read_dir(&*self.root)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if let Some(rest) = name.strip_prefix(UNFINISHED) {
                match rest.rsplit('-').next().and_then(Hash::parse) {
                    Some(hash) => keep_part(&path, &self.partial_path(&hash)),
                    None => fs::remove_file(&path)?,
                }
            } else if name.starts_with(PARTIAL) && is_expired(&path) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes parts whose upload broke off more than a day ago.
    pub fn remove_expired_parts(&self) -> io::Result<()> {
        for entry in fs::read_dir(&*self.root)? {
            let entry = entry?;
            let is_part = entry.file_name().to_string_lossy().starts_with(PARTIAL);
            if is_part && is_expired(&entry.path()) {
                // This fails where somebody goes on with the upload at this moment and has renamed
                // the part.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn is_expired(path: &Path) -> bool {
    let age = |metadata: fs::Metadata| {
        SystemTime::now()
            .duration_since(metadata.modified()?)
            .map_err(io::Error::other)
    };
    fs::metadata(path)
        .and_then(age)
        .is_ok_and(|age| age > PARTIAL_KEPT)
}

/// Keeps the longer one of two parts of a blob.
fn keep_part(path: &Path, partial: &Path) {
    // The error is of no interest, because a part that cannot be kept is sent again.
    let _ = if length(path) > length(partial) {
        fs::rename(path, partial)
    } else {
        fs::remove_file(path)
    };
}

impl Upload {
    /// Takes the next part.
    pub fn write(&mut self, part: &[u8]) -> Result<(), PutError> {
        self.bytes = self.bytes.saturating_add(part.len() as u64);
        if self.bytes > limits::BLOB_BYTES_MAX {
            self.partial = None;
            return Err(PutError::TooLarge);
        }
        self.hasher.update(part);
        Ok(self.file.write_all(part)?)
    }

    /// Keeps what was written, durably, if its hash is `named`.
    pub fn finish(mut self, named: Hash) -> Result<(), PutError> {
        // No part of it is of use any more, unless the bucket is unavailable.
        let partial = self.partial.take();
        let is = Hash(self.hasher.clone().finalize().into());
        if is != named {
            return Err(PutError::WrongHash { named, is });
        }
        let kept = self.store_as(named);
        if kept.as_ref().is_err_and(is_unavailable) {
            self.partial = partial;
        }
        Ok(kept?)
    }

    /// Takes bytes that the caller has hashed.
    pub(crate) fn append_hashed(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Keeps what was written. Its hash must be `hash`.
    pub(crate) fn keep(self, hash: Hash) -> io::Result<()> {
        self.store_as(hash)
    }

    fn store_as(&self, hash: Hash) -> io::Result<()> {
        let bucket = self.blobs.bucket.as_deref();
        let _lock = bucket.map(|bucket| bucket.locks.lock(hash));
        if self.blobs.renew_file(&hash)? {
            return Ok(());
        }
        self.file.sync_all()?;
        if let Some(bucket) = bucket
            && (self.bytes <= ASK_FIRST_BYTES || !bucket.store.has(&hash)?)
        {
            bucket.store.put(&hash, &self.path, self.bytes)?;
        }
        self.blobs.rename_into_place(&self.path, &hash)?;
        if let Some(bucket) = bucket {
            let path = self.blobs.path(&hash);
            bucket.cache.file_added(self.bytes, &self.blobs.root, &path);
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        match self.partial.take() {
            Some(partial) if self.bytes > 0 => keep_part(&self.path, &partial),
            // The file is not there any more where the blob was kept.
            Some(_) | None => drop(fs::remove_file(&self.path)),
        }
    }
}
