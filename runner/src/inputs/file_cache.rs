//! Input files by hash, on disk. The least recently used files go when all together are larger than
//! the cache may be. A task that has a link to a file keeps it all the same.

use super::cache_folder::CacheFolder;
use super::guard;
use crate::cache::{LoadAbandoned, PendingLoad, SingleFlightCache};
use crate::fault::MachineFault;
use crate::fetch::{FetchError, FetchFile};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use taskmaster_protocol::Hash;
use taskmaster_transport::files::hash_file;
use tokio::sync::Semaphore;

/// Files fetched at a time.
const FETCHES_MAX: usize = 8;

/// Why a file could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileCacheError {
    /// The file could not be fetched.
    #[error("the input {0} could not be fetched: {1}")]
    Fetch(Hash, FetchError),
    /// The file could not be put into the cache.
    #[error("the input {0} could not be kept: {1}")]
    Store(Hash, String),
    /// The runner is ending.
    #[error(transparent)]
    Abandoned(#[from] LoadAbandoned),
}

impl FileCacheError {
    /// The fault of this machine, where the task is not to blame.
    pub fn fault(&self) -> Option<MachineFault> {
        let what = |hash: &Hash| format!("the input {hash} could not be kept");
        match self {
            FileCacheError::Fetch(hash, FetchError::Local(why))
            | FileCacheError::Store(hash, why) => Some(MachineFault::under_task(what(hash), why)),
            FileCacheError::Fetch(_, FetchError::Remote(_)) | FileCacheError::Abandoned(_) => None,
        }
    }
}

/// A file of the cache.
struct CachedFile {
    bytes: u64,
    /// When the file was used last, by the count of uses.
    used: u64,
    /// Attempts that need the file now.
    pins: u32,
    /// Whether this process has seen that the hash is right. What an earlier process left may have
    /// been spoilt by a power cut.
    sound: bool,
}

#[derive(Default)]
pub(super) struct FileIndex {
    files: HashMap<Hash, CachedFile>,
    /// The length of all files together.
    pub(super) bytes: u64,
    /// Counts uses, so that the least recently used file is known.
    uses: u64,
}

/// The input files of this runner.
pub struct InputFileCache {
    folder: CacheFolder,
    bytes_max: u64,
    fetch: FetchFile,
    index: Mutex<FileIndex>,
    /// The loads that go on now.
    loads: Arc<SingleFlightCache<Hash, Arc<PinnedFiles>, FileCacheError>>,
    fetching: Semaphore,
    /// Whether tasks may get links; see [`guard`].
    links: bool,
}

/// Files that stay in the cache as long as this lives.
pub struct PinnedFiles {
    cache: Arc<InputFileCache>,
    hashes: Vec<Hash>,
}

impl Drop for PinnedFiles {
    fn drop(&mut self) {
        let mut index = self.cache.index();
        for hash in &self.hashes {
            if let Some(file) = index.files.get_mut(hash) {
                file.pins = file.pins.saturating_sub(1);
            }
        }
        self.cache.remove_beyond(&mut index);
    }
}

impl InputFileCache {
    /// See [`super::TaskInputs::open`].
    pub(super) fn open(
        folder: &Path,
        bytes_max: u64,
        fetch: FetchFile,
    ) -> io::Result<InputFileCache> {
        let folder = CacheFolder::claim(folder)?;
        let links = guard::holds(folder.path());
        if !links {
            tracing::warn!(
                "read-only files can be written in {}: \
                 each task gets copies of its inputs, not links",
                folder.path().display()
            );
        }

        let mut index = FileIndex::default();
        for left in folder.left_files()? {
            index.uses += 1;
            index.bytes += left.bytes;
            let file = CachedFile {
                bytes: left.bytes,
                used: index.uses,
                pins: 0,
                sound: false,
            };
            index.files.insert(left.hash, file);
        }
        let cache = InputFileCache {
            folder,
            bytes_max,
            fetch,
            index: Mutex::new(index),
            loads: SingleFlightCache::new(0),
            fetching: Semaphore::new(FETCHES_MAX),
            links,
        };
        cache.remove_beyond(&mut cache.index());
        Ok(cache)
    }

    pub(super) fn index(&self) -> MutexGuard<'_, FileIndex> {
        // The index is whole between two statements, so a panic elsewhere does not spoil it.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a file is, if it is in the cache.
    pub(super) fn path(&self, hash: &Hash) -> PathBuf {
        self.folder.file(hash)
    }

    /// The folder of the files.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes the folder anew, if somebody has removed it.
    pub(super) fn make_anew(&self) -> io::Result<()> {
        self.folder.make_anew()
    }

    /// Forgets those of `hashes` whose files are not there any more, so that the next task that
    /// names one has it fetched. Somebody may have cleaned the folder.
    pub(super) fn forget_lost(&self, hashes: impl IntoIterator<Item = Hash>) {
        let mut index = self.index();
        for hash in hashes {
            if matches!(self.path(&hash).try_exists(), Ok(false))
                && let Some(file) = index.files.remove(&hash)
            {
                index.bytes -= file.bytes;
            }
        }
    }

    /// Whether tasks get links to cached files, and not copies.
    pub(super) fn links(&self) -> bool {
        self.links
    }

    /// Makes sure that files are in the cache, and that they stay.
    pub(super) async fn pin(
        self: &Arc<Self>,
        hashes: BTreeSet<Hash>,
    ) -> Result<Vec<Arc<PinnedFiles>>, FileCacheError> {
        let mut present = PinnedFiles {
            cache: self.clone(),
            hashes: Vec::with_capacity(hashes.len()),
        };
        let missing = self.pin_present(hashes, &mut present);

        // All loads begin at once; the semaphore bounds how many files are fetched at a time.
        let begin = |hash| {
            let cache = self.clone();
            let load = async move { cache.load(hash).await };
            self.loads.join_or_begin(hash, load)
        };
        let loads: Vec<PendingLoad<_, _>> = missing.into_iter().map(begin).collect();
        let mut pinned = vec![Arc::new(present)];
        for load in loads {
            pinned.push(load.result().await?);
        }
        Ok(pinned)
    }

    /// Pins the files that are here and sound, and returns the others.
    fn pin_present(&self, hashes: BTreeSet<Hash>, pinned: &mut PinnedFiles) -> Vec<Hash> {
        let mut index = self.index();
        index.uses += 1;
        let now = index.uses;
        let mut missing = Vec::new();
        for hash in hashes {
            match index.files.get_mut(&hash) {
                Some(file) if file.sound => {
                    file.used = now;
                    file.pins += 1;
                    pinned.hashes.push(hash);
                }
                Some(_) | None => missing.push(hash),
            }
        }
        missing
    }

    /// Fetches a file, or looks whether what an earlier process left is sound.
    pub(super) async fn load(
        self: &Arc<Self>,
        hash: Hash,
    ) -> Result<Arc<PinnedFiles>, FileCacheError> {
        // Another load may have ended after its waiters looked and before this one began. The file
        // has pins then, which a second `keep` would forget.
        let mut present = PinnedFiles {
            cache: self.clone(),
            hashes: Vec::with_capacity(1),
        };
        if self.pin_present([hash].into(), &mut present).is_empty() {
            return Ok(Arc::new(present));
        }

        let path = self.path(&hash);
        let is_left = self.index().files.contains_key(&hash);
        if is_left {
            let left = path.clone();
            let hashed = tokio::task::spawn_blocking(move || hash_file(&left)).await;
            if let Ok(Ok((found, bytes))) = hashed
                && found == hash
            {
                // The next process reads from the time that the file was used. Where this fails,
                // the file only goes a little early.
                let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                return Ok(self.keep(hash, bytes));
            }
            let mut index = self.index();
            if let Some(file) = index.files.remove(&hash) {
                index.bytes -= file.bytes;
            }
        }

        // Waiting cannot fail, because the semaphore is never closed.
        let _turn = self.fetching.acquire().await.ok();
        let unfinished = self.folder.unfinished();
        self.make_anew()
            .map_err(|error| FileCacheError::Store(hash, error.to_string()))?;
        let bytes = (self.fetch)(hash, unfinished.clone())
            .await
            .map_err(|why| FileCacheError::Fetch(hash, why))?;
        let finished =
            tokio::task::spawn_blocking(move || CacheFolder::finish(&unfinished, &path)).await;
        match finished {
            Ok(Ok(())) => Ok(self.keep(hash, bytes)),
            Ok(Err(error)) => Err(FileCacheError::Store(hash, error.to_string())),
            Err(error) => Err(FileCacheError::Store(hash, error.to_string())),
        }
    }

    /// Counts a sound file, which is pinned from the beginning.
    fn keep(self: &Arc<Self>, hash: Hash, bytes: u64) -> Arc<PinnedFiles> {
        let mut index = self.index();
        index.uses += 1;
        let file = CachedFile {
            bytes,
            used: index.uses,
            pins: 1,
            sound: true,
        };
        let before = index.files.insert(hash, file);
        index.bytes -= before.map_or(0, |before| before.bytes);
        index.bytes += bytes;
        self.remove_beyond(&mut index);
        drop(index);
        Arc::new(PinnedFiles {
            cache: self.clone(),
            hashes: vec![hash],
        })
    }

    /// Removes the least recently used files until the rest is small enough. Files that an attempt
    /// needs now stay.
    fn remove_beyond(&self, index: &mut FileIndex) {
        while index.bytes > self.bytes_max {
            let unpinned = index.files.iter().filter(|(_, file)| file.pins == 0);
            let oldest = unpinned
                .min_by_key(|(_, file)| file.used)
                .map(|(hash, _)| *hash);
            let Some(hash) = oldest else { return };
            let Some(file) = index.files.remove(&hash) else {
                return;
            };
            index.bytes -= file.bytes;
            if let Err(error) = fs::remove_file(self.path(&hash)) {
                tracing::warn!("the input {hash} cannot be removed from the cache: {error}");
            }
        }
    }
}
