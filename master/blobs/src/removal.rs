//! Which blobs nobody has used for long, and how they are removed.

use crate::locks::BlobLock;
use crate::{Blobs, Bucket, cache};
use std::fs;
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{PoisonError, RwLockWriteGuard};
use std::time::Duration;
use taskmaster_protocol::Hash;

impl Blobs {
    /// The answer of [`Blobs::expired`]. Those of a bucket are listed on a thread of their own,
    /// because to list a million objects takes minutes.
    pub fn find_expired(&self) -> Receiver<io::Result<Vec<Hash>>> {
        let (sender, expired) = channel();
        let blobs = self.clone();
        let find = move || drop(sender.send(blobs.expired()));
        if self.bucket.is_none() {
            find();
        } else if let Err(error) = std::thread::Builder::new()
            .name("old blobs".into())
            .spawn(find)
        {
            tracing::warn!("blobs are not looked for: {error}");
        }
        expired
    }

    /// Blobs that nobody has put or asked for within the grace, sorted.
    pub fn expired(&self) -> io::Result<Vec<Hash>> {
        let mut expired: Vec<Hash> = match &self.bucket {
            None => {
                let files = cache::blob_files(&self.root)?;
                files
                    .iter()
                    .filter(|file| is_older(&file.metadata, self.grace))
                    .filter_map(cache::BlobFile::hash)
                    .collect()
            }
            Some(bucket) => {
                bucket.recent.forget_older(self.grace);
                if bucket.recent.covers_all(self.grace) {
                    return Ok(Vec::new());
                }
                let mut all = bucket.store.list()?;
                all.retain(|hash| !bucket.recent.is_recent(hash, self.grace));
                all
            }
        };
        expired.sort_unstable();
        expired.dedup();
        Ok(expired)
    }

    /// Removes blobs, but not those that somebody has put or asked for within the grace. Returns
    /// how many are gone.
    pub fn remove(&self, hashes: &[Hash]) -> io::Result<u64> {
        match &self.bucket {
            Some(bucket) => self.remove_from_bucket(bucket, hashes),
            None => {
                hashes.iter().try_fold(
                    0,
                    |gone, hash| Ok(gone + u64::from(self.remove_file(hash)?)),
                )
            }
        }
    }

    fn remove_from_bucket(&self, bucket: &Bucket, hashes: &[Hash]) -> io::Result<u64> {
        // Whoever holds the lock of a blob needs the blob.
        let mut locks: Vec<BlobLock<'_>> = hashes
            .iter()
            .filter_map(|hash| bucket.locks.try_lock(*hash))
            .collect();
        {
            let _alone = self.begin_removal();
            locks.retain(|lock| !bucket.recent.is_recent(&lock.hash(), self.grace));
            for lock in &locks {
                match fs::remove_file(self.path(&lock.hash())) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }

        // The removal lock is free again, so only those who want one of these blobs wait for the
        // bucket.
        let gone: Vec<Hash> = locks.iter().map(BlobLock::hash).collect();
        bucket.store.remove(&gone)?;
        Ok(gone.len() as u64)
    }

    /// Removes a file from the folder. False where it is in use.
    fn remove_file(&self, hash: &Hash) -> io::Result<bool> {
        let _alone = self.begin_removal();
        let path = self.path(hash);
        match fs::metadata(&path) {
            Ok(metadata) if !is_older(&metadata, self.grace) => return Ok(false),
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn begin_removal(&self) -> RwLockWriteGuard<'_, ()> {
        self.removal.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file was last used longer ago than `grace`. A time in the future is of a clock that
/// was set back, so the file counts as used lately.
fn is_older(metadata: &fs::Metadata, grace: Duration) -> bool {
    metadata
        .modified()
        .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age >= grace))
}
