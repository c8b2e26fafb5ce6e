//! The folder of cached input files: `<cache>/inputs/ab/abcdef…`, each file read-only.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;
use taskmaster_protocol::Hash;
use taskmaster_transport::files::private_folder;

/// The file that is locked by the process that uses the folder.
const LOCK: &str = ".lock";

/// A folder that belongs to this process as long as this lives.
pub struct CacheFolder {
    path: PathBuf,
    lock: Mutex<File>,
}

/// A file that an earlier process left.
pub struct LeftFile {
    /// The hash that the file's name says.
    pub hash: Hash,
    /// The length of the file.
    pub bytes: u64,
    /// When the file was used last.
    pub modified: SystemTime,
}

impl CacheFolder {
    /// Takes `folder`, or `folder-2` if another process has that one, and so on.
    pub fn claim(folder: &Path) -> io::Result<CacheFolder> {
        let mut path = folder.to_owned();
        let mut number = 1;
        loop {
            private_folder(&path)?;
            let lock = File::create(path.join(LOCK))?;
            match lock.try_lock() {
                Ok(()) => {
                    let lock = Mutex::new(lock);
                    return Ok(CacheFolder { path, lock });
                }
                Err(fs::TryLockError::WouldBlock) => {}
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
            number += 1;
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            path = folder.with_file_name(format!("{name}-{number}"));
        }
    }

    /// Makes the folder anew, if somebody has removed it. Where another process has taken it
    /// meanwhile, both have it: its files are the same for both, and one that is gone is fetched.
    pub fn make_anew(&self) -> io::Result<()> {
        if self.path.join(LOCK).try_exists()? {
            return Ok(());
        }
        private_folder(&self.path)?;
        let lock = File::create(self.path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) | Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock;
        Ok(())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file of `hash` is, if it is in the cache.
    pub fn file(&self, hash: &Hash) -> PathBuf {
        let name = hash.to_string();
        self.path.join(name.get(..2).unwrap_or_default()).join(name)
    }

    /// A path for a file that is not whole yet.
    pub fn unfinished(&self) -> PathBuf {
        let name = uuid::Uuid::now_v7().simple();
        self.path.join(format!("{name}.tmp"))
    }

    /// Makes an unfinished file the file of `hash`: read-only, and seen only when it is whole.
    pub fn finish(unfinished: &Path, file: &Path) -> io::Result<()> {
        let mut permissions = fs::metadata(unfinished)?.permissions();
        permissions.set_readonly(true);
        fs::set_permissions(unfinished, permissions)?;
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::rename(unfinished, file)
    }

    /// What earlier processes left, the least recently used file first. Unfinished files are
    /// removed.
    pub fn left_files(&self) -> io::Result<Vec<LeftFile>> {
        let mut left = Vec::new();
        for below in fs::read_dir(&self.path)? {
            let below = below?;
            if !below.file_type()?.is_dir() {
                if below.file_name() != LOCK {
                    fs::remove_file(below.path())?;
                }
                continue;
            }
            for entry in fs::read_dir(below.path())? {
                let entry = entry?;
                if let Some(hash) = entry.file_name().to_str().and_then(Hash::parse) {
                    let metadata = entry.metadata()?;
                    left.push(LeftFile {
                        hash,
                        bytes: metadata.len(),
                        modified: metadata.modified()?,
                    });
                }
            }
        }
        left.sort_by_key(|file| file.modified);
        Ok(left)
    }
}
