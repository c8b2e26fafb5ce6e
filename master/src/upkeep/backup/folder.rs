//! The folder of a backup while it is made. It has another name until all of it is there.

use super::BackupSummary;
use crate::config;
use crate::upkeep::{UpkeepError, open_sled};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use taskmaster_blobs::Blobs;
use taskmaster_protocol::Hash;
use taskmaster_store::journal::SyncedMark;
use taskmaster_store::kv::sled;
use taskmaster_store::kv::{KeyValue, SharedStore, WriteBatch};

/// Bytes of pairs that are written at once.
const BATCH_BYTES: usize = 1 << 20;

/// Bytes of a blob that are copied at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// A backup that is being made. What there is of it is removed when this is dropped before
/// [`BackupFolder::finish`], because nobody must take half a copy for a whole one.
pub(super) struct BackupFolder {
    to: PathBuf,
    unfinished: PathBuf,
    /// `None` once the store is closed.
    store: Option<SharedStore>,
    blobs: Blobs,
    batch: WriteBatch,
    batch_bytes: usize,
    records: u64,
    blobs_copied: u64,
}

impl BackupFolder {
    /// Begins a backup that will be the folder `to`, which must be empty or not exist.
    pub fn begin(to: &Path) -> Result<BackupFolder, UpkeepError> {
        let to = std::path::absolute(to).map_err(UpkeepError::file(to))?;
        match fs::read_dir(&to).map(|mut entries| entries.next().is_some()) {
            Ok(true) => return Err(UpkeepError::NotEmpty(to)),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(UpkeepError::File(to, error)),
        }
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".unfinished");
        let unfinished = to.with_file_name(name);
        if unfinished.exists() {
            // It was left by a command that was ended in the middle.
            fs::remove_dir_all(&unfinished).map_err(UpkeepError::file(&unfinished))?;
        }
        config::make_private_folder(&unfinished).map_err(UpkeepError::file(&unfinished))?;
        let mut folder = BackupFolder {
            blobs: Blobs::open(&unfinished).map_err(UpkeepError::file(&unfinished))?,
            to,
            unfinished,
            store: None,
            batch: WriteBatch::default(),
            batch_bytes: 0,
            records: 0,
            blobs_copied: 0,
        };
        folder.store = Some(open_sled(&folder.store_folder())?);
        Ok(folder)
    }

    fn store_folder(&self) -> PathBuf {
        self.unfinished.join("store")
    }

    /// Takes the next pair of the store.
    pub fn pair(&mut self, pair: KeyValue) -> Result<(), UpkeepError> {
        self.records += 1;
        self.batch_bytes += pair.key.len() + pair.value.len();
        self.batch.put(pair.key, pair.value);
        if self.batch_bytes >= BATCH_BYTES {
            self.write_pairs()?;
        }
        Ok(())
    }

    fn write_pairs(&mut self) -> Result<(), UpkeepError> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if let Some(store) = &self.store {
            store.write(batch)?;
        }
        Ok(())
    }

    /// Takes a blob, whose bytes must be what its name says.
    pub fn blob(&mut self, hash: Hash, bytes: &mut dyn Read) -> Result<(), UpkeepError> {
        let failed = |error: io::Error| UpkeepError::Blob(hash, error.to_string());
        let mut upload = self.blobs.begin().map_err(failed)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match bytes.read(&mut chunk).map_err(failed)? {
                0 => break,
                count => upload
                    .write(&chunk[..count])
                    .map_err(|error| UpkeepError::Blob(hash, error.to_string()))?,
            }
        }
        upload
            .finish(hash)
            .map_err(|error| UpkeepError::Blob(hash, error.to_string()))?;
        self.blobs_copied += 1;
        Ok(())
    }

    /// Makes the backup durable and gives it its name. It has everything up to `commit`.
    pub fn finish(mut self, commit: u64) -> Result<BackupSummary, UpkeepError> {
        self.write_pairs()?;
        let folder = self.store_folder();
        if let Some(store) = self.store.take() {
            store.sync()?;
        }
        // The commit is durable in the store, so it is durable in the copy, too.
        SyncedMark::open(&folder, commit)?.set(commit);
        let parent = self.to.parent().unwrap_or(Path::new("/"));
        sled::wait_until_unlocked(&folder.join("db"))
            .and_then(|()| File::open(&folder)?.sync_all())
            .and_then(|()| File::open(&self.unfinished)?.sync_all())
            .and_then(|()| fs::rename(&self.unfinished, &self.to))
            .and_then(|()| File::open(parent)?.sync_all())
            .map_err(UpkeepError::file(&self.to))?;
        Ok(BackupSummary {
            to: self.to.clone(),
            commit,
            records: self.records,
            blobs: self.blobs_copied,
        })
    }
}

impl Drop for BackupFolder {
    fn drop(&mut self) {
        // After a finish there is no folder of this name.
        let _ = fs::remove_dir_all(&self.unfinished);
    }
}
