//! A blob on its way to the disk: written under a temporary name while it is hashed, synced, put
//! into the object store where blobs live in one, renamed.
//!
//! What a broken connection leaves is kept for a day, so that a large upload goes on where it was;
//! and so is what an object store does not take at the moment.

use super::{Blobs, is_away};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use taskmaster_protocol::{Hash, limits};

/// Files being written have names that begin with this and end with the hash they shall have, where
/// it is known.
pub(super) const UNFINISHED: &str = "unfinished-";

/// What an upload left that broke off, under this and its hash.
pub(super) const PARTIAL: &str = "partial-";

/// What broke off longer ago is not gone on with.
pub(super) const PARTIAL_KEPT: Duration = Duration::from_secs(86_400);

/// What is larger is put into an object store only when that does not have it.
const ASKED_FROM: u64 = 1 << 20;

/// Bytes hashed at a time when an upload goes on.
const CHUNK: usize = 1 << 20;

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
    /// An upload cannot go on where its client wants to.
    #[error("{0} bytes of it are here, so it goes on there")]
    Offset(u64),
    /// The disk said no.
    #[error("the blob cannot be stored: {0}")]
    Io(#[from] io::Error),
}

/// A blob that is being written; what is dropped before [`Upload::finish`] is kept as a part of it,
/// where its hash was named at the beginning, and else removed.
#[derive(Debug)]
pub struct Upload {
    blobs: Blobs,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    bytes: u64,
    /// Where its part is kept if it breaks off.
    partial: Option<PathBuf>,
}

impl Blobs {
    /// Begins a blob that comes in parts.
    pub fn begin(&self) -> io::Result<Upload> {
        let path = self.temporary("");
        let file = File::create(&path)?;
        Ok(Upload {
            blobs: self.clone(),
            path,
            file,
            hasher: Sha256::new(),
            bytes: 0,
            partial: None,
        })
    }

    /// Begins the blob `hash`, or goes on with it behind the first `offset` bytes. Reads and hashes
    /// those.
    pub fn begin_at(&self, hash: Hash, offset: u64) -> Result<Upload, PutError> {
        let (partial, path) = (self.partial(&hash), self.temporary(&hash.to_string()));
        if offset == 0 {
            let file = File::create(&path)?;
            let hasher = Sha256::new();
            return Ok(Upload {
                blobs: self.clone(),
                path,
                file,
                hasher,
                bytes: 0,
                partial: Some(partial),
            });
        }
        // Whoever renames it has it alone.
        match fs::rename(&partial, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PutError::Offset(0));
            }
            other => other?,
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
            // Dropped, it is a part again.
            return Err(PutError::Offset(bytes));
        }
        let mut part = vec![0; CHUNK];
        loop {
            match file.read(&mut part)? {
                0 => return Ok(upload),
                n => upload.hasher.update(&part[..n]),
            }
        }
    }

    /// How many bytes are here of an upload of `hash` that broke off.
    pub fn part_of(&self, hash: &Hash) -> u64 {
        fs::metadata(self.partial(hash)).map_or(0, |about| about.len())
    }

    fn partial(&self, hash: &Hash) -> PathBuf {
        self.root.join(format!("{PARTIAL}{hash}"))
    }

    pub(super) fn temporary(&self, end: &str) -> PathBuf {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.root
            .join(format!("{UNFINISHED}{}-{number}-{end}", std::process::id()))
    }

    /// After a crash: what was being written under a known name is a part of it, the rest is
    /// removed.
    pub(super) fn tidy_up(&self) -> io::Result<()> {
        for entry in fs::read_dir(&*self.root)? {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let name = name.to_string_lossy();
            if let Some(rest) = name.strip_prefix(UNFINISHED) {
                match rest.rsplit('-').next().and_then(Hash::parse) {
                    Some(hash) => keep_part(&path, &self.partial(&hash)),
                    None => fs::remove_file(&path)?,
                }
            } else if name.starts_with(PARTIAL) && is_old(&path) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes what broke off a day ago.
    pub fn remove_old_parts(&self) -> io::Result<()> {
        for entry in fs::read_dir(&*self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) && is_old(&entry.path()) {
                // Somebody may go on with it at this moment; then it has another name.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

fn is_old(path: &Path) -> bool {
    let age = |about: fs::Metadata| {
        SystemTime::now()
            .duration_since(about.modified()?)
            .map_err(io::Error::other)
    };
    fs::metadata(path)
        .and_then(age)
        .is_ok_and(|age| age > PARTIAL_KEPT)
}

/// Of two parts of the same blob the longer one is of more use.
fn keep_part(path: &Path, partial: &Path) {
    let length = |path: &Path| fs::metadata(path).map_or(0, |about| about.len());
    let is_longer = length(path) > length(partial);
    // What cannot be kept is sent again.
    let _ = if is_longer {
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

    /// Keeps what was written, durably, if it is what `named` says.
    pub fn finish(mut self, named: Hash) -> Result<(), PutError> {
        // Whatever comes of it, no part of it is of use: unless all that is wanting is the object
        // store.
        let partial = self.partial.take();
        let is = Hash(self.hasher.clone().finalize().into());
        if is != named {
            return Err(PutError::WrongHash { named, is });
        }
        let kept = self.keep_as(named);
        if kept.as_ref().is_err_and(is_away) {
            self.partial = partial;
        }
        Ok(kept?)
    }

    /// Takes bytes whose hash is known.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Keeps what was written under the hash that it has.
    pub(super) fn keep(self, hash: Hash) -> io::Result<()> {
        self.keep_as(hash)
    }

    fn keep_as(&self, hash: Hash) -> io::Result<()> {
        let far = self.blobs.far.as_deref();
        let _turn = far.map(|far| far.turns.take(hash));
        if self.blobs.is_here(&hash)? {
            return Ok(());
        }
        self.file.sync_all()?;
        if let Some(far) = far
            && (self.bytes <= ASKED_FROM || !far.home.has(&hash)?)
        {
            far.home.put(&hash, &self.path, self.bytes)?;
        }
        self.blobs.name(&self.path, &hash)?;
        if let Some(far) = far {
            far.cache
                .grew(self.bytes, &self.blobs.root, &self.blobs.path(&hash));
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        match self.partial.take() {
            Some(partial) if self.bytes > 0 => keep_part(&self.path, &partial),
            // Gone already where it was kept.
            _ => drop(fs::remove_file(&self.path)),
        }
    }
}
