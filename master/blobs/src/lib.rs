//! Bytes by their hash, on this machine's disk: `<data>/blobs/ab/abcdef…`. A file is there whole
//! and synced, or not at all: it is written under a temporary name, synced, renamed, and its folder
//! is synced.
//!
//! Where blobs live in a bucket (`--blobs`), uploads arrive in the folder, and the folder is a
//! cache of the bucket. A file gets its name in the folder only after the bucket has it, and a blob
//! that is not in the folder is fetched. So a file in the folder always holds what its name says,
//! and any file may be removed at any time.

pub mod address;
mod bucket;
mod cache;
mod connector;
pub mod errors;
#[cfg(test)]
mod folder_tests;
mod location;
mod locks;
pub mod memory;
mod removal;
#[cfg(test)]
mod tests;
pub mod upload;

pub use address::BucketAddress;
pub use cache::CACHE_BYTES_DEFAULT;
pub use errors::{AddressError, OpenError, PutError, is_unavailable};
pub use upload::Upload;

use bucket::BucketStore;
use cache::FolderCache;
use locks::{BlobLocks, RecentUse};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};
use taskmaster_protocol::Hash;

/// How long a blob is kept after somebody has put it or asked for it. Whoever asks is about to name
/// the blob in a task, and within this time that task has been added or never will be. A feed that
/// holds lines back for longer puts their inputs again.
pub const GRACE: Duration = Duration::from_secs(3_600);

/// Reading a cached file renews its time at most once per this interval.
const READ_NOTED_INTERVAL: Duration = Duration::from_secs(60);

/// How often a file is fetched for one reader. The cache may remove it before it is opened.
const FETCHES_MAX: u32 = 3;

/// The blobs of a data folder. Clones share them. The functions block; with a bucket they block
/// until it answers.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: Arc<Path>,
    /// The number of the next temporary file of this process.
    next_temporary: Arc<AtomicU64>,
    /// Held for writing while a blob is removed, and for reading while one is noted as used. So
    /// nobody removes a blob between "it is there" and "it is used".
    removal: Arc<RwLock<()>>,
    /// How long a blob is kept after its last use: [`GRACE`], or less in tests.
    grace: Duration,
    /// The bucket in which the blobs live, if not in the folder.
    bucket: Option<Arc<Bucket>>,
}

/// What blobs in a bucket need besides the folder.
#[derive(Debug)]
struct Bucket {
    store: BucketStore,
    locks: BlobLocks,
    recent: RecentUse,
    cache: FolderCache,
}

impl Blobs {
    /// Opens `<data>/blobs`, makes it where it is missing, and cleans up what a crash left
    /// unfinished.
    pub fn open(data: &Path) -> io::Result<Blobs> {
        let root = data.join("blobs");
        fs::create_dir_all(&root)?;
        sync_folder(data)?;
        let blobs = Blobs {
            root: root.into(),
            next_temporary: Arc::default(),
            removal: Arc::default(),
            grace: GRACE,
            bucket: None,
        };
        blobs.clean_up_uploads()?;
        Ok(blobs)
    }

    /// These blobs in a bucket. At most `cache_bytes` of their files stay in the folder. Every blob
    /// of the folder must be in the bucket already.
    fn with_bucket(self, store: BucketStore, cache_bytes: u64) -> io::Result<Blobs> {
        let cache = FolderCache::new(&self.root, cache_bytes)?;
        let bucket = Bucket {
            store,
            locks: BlobLocks::default(),
            recent: RecentUse::new(),
            cache,
        };
        Ok(Blobs {
            bucket: Some(Arc::new(bucket)),
            ..self
        })
    }

    /// These blobs with another time than [`GRACE`].
    pub fn with_grace(self, grace: Duration) -> Blobs {
        Blobs { grace, ..self }
    }

    /// How long a blob is kept after its last use.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// The address of the bucket in which the blobs live.
    pub fn bucket_name(&self) -> Option<&str> {
        self.bucket.as_ref().map(|bucket| bucket.store.name())
    }

    /// Whether a data folder holds any blobs.
    pub fn has_any(data: &Path) -> bool {
        let is_folder =
            |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.path().is_dir());
        fs::read_dir(data.join("blobs")).is_ok_and(|mut entries| entries.any(is_folder))
    }

    /// The path of the blob's file, whether it exists or not.
    pub fn path(&self, hash: &Hash) -> PathBuf {
        let name = hash.to_string();
        let folder = name.get(..2).unwrap_or_default();
        self.root.join(folder).join(name)
    }

    /// Whether the blob is there. Where the bucket does not answer it counts as missing.
    pub fn exists(&self, hash: &Hash) -> bool {
        self.path(hash).is_file()
            || self
                .bucket
                .as_ref()
                .is_some_and(|bucket| bucket.store.has(hash).unwrap_or(false))
    }

    /// The blob's file, at its beginning. It is fetched first where it is not in the folder.
    pub fn file(&self, hash: &Hash) -> io::Result<File> {
        let path = self.path(hash);
        let Some(bucket) = &self.bucket else {
            return File::open(&path);
        };
        let mut fetches = 0;
        loop {
            match File::open(&path) {
                Ok(file) => {
                    let last_read = file.metadata()?.modified()?;
                    let age = last_read.elapsed();
                    if age.is_ok_and(|age| age > READ_NOTED_INTERVAL) {
                        file.set_modified(SystemTime::now())?;
                    }
                    return Ok(file);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && fetches < FETCHES_MAX => {
                    self.fetch(bucket, hash, &path)?;
                    fetches += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The whole blob.
    pub fn get(&self, hash: &Hash) -> io::Result<Vec<u8>> {
        let mut file = self.file(hash)?;
        let mut bytes = Vec::with_capacity(usize::try_from(file.metadata()?.len()).unwrap_or(0));
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(bytes)
    }

    /// Fetches a blob into the folder. One thread fetches it, and all others who want it wait.
    fn fetch(&self, bucket: &Bucket, hash: &Hash, path: &Path) -> io::Result<()> {
        let _lock = bucket.locks.lock(*hash);
        if path.is_file() {
            return Ok(());
        }
        let unfinished = self.temporary_path("");
        let fetched = bucket
            .store
            .fetch(hash, &unfinished)
            .and_then(|bytes| self.rename_into_place(&unfinished, hash).map(|()| bytes));
        match fetched {
            Ok(bytes) => {
                bucket.cache.file_added(bytes, &self.root, path);
                Ok(())
            }
            Err(error) => {
                // The file may not exist, because the bucket may not have answered at all.
                let _ = fs::remove_file(&unfinished);
                Err(error)
            }
        }
    }

    /// Keeps `bytes` durably under their hash. Writes nothing where the blob is there already.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Hash> {
        let hash = Hash::of(bytes);
        self.put_hashed(hash, bytes)?;
        Ok(hash)
    }

    /// Like [`Blobs::put`], for bytes that the caller has hashed, so that a large module is hashed
    /// once.
    pub fn put_hashed(&self, hash: Hash, bytes: &[u8]) -> io::Result<()> {
        if self.renew_file(&hash)? {
            return Ok(());
        }
        let mut upload = self.begin()?;
        upload.append_hashed(bytes)?;
        upload.keep(hash)
    }

    fn hold_off_removal(&self) -> RwLockReadGuard<'_, ()> {
        self.removal.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a whole, synced file its name, durably.
    fn rename_into_place(&self, unfinished: &Path, hash: &Hash) -> io::Result<()> {
        let path = self.path(hash);
        let folder = path.parent().unwrap_or(&self.root);
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            sync_folder(&self.root)?;
        }
        {
            let _no_removal = self.hold_off_removal();
            fs::rename(unfinished, &path)?;
            self.note_use([*hash]);
        }
        sync_folder(folder)
    }

    fn note_use(&self, hashes: impl IntoIterator<Item = Hash>) {
        if let Some(bucket) = &self.bucket {
            bucket.recent.note(hashes);
        }
    }

    /// Whether the blob is there. If so, it is kept for at least half of the grace, so that a task
    /// can name it.
    pub fn renew(&self, hash: &Hash) -> io::Result<bool> {
        Ok(self.renew_all(&[*hash])?.first().copied().unwrap_or(false))
    }

    /// [`Blobs::renew`] for many blobs: a bucket is asked for all of them together.
    pub fn renew_all(&self, hashes: &[Hash]) -> io::Result<Vec<bool>> {
        let mut is_there = hashes
            .iter()
            .map(|hash| self.renew_file(hash))
            .collect::<io::Result<Vec<bool>>>()?;
        let Some(bucket) = &self.bucket else {
            return Ok(is_there);
        };
        let missing: Vec<usize> = (0..hashes.len())
            .filter(|index| !is_there[*index])
            .collect();
        if missing.is_empty() {
            return Ok(is_there);
        }
        let asked: Vec<Hash> = missing.iter().map(|index| hashes[*index]).collect();

        // The use is noted before the bucket is asked. So a removal that begins later leaves these
        // blobs, and the answer waits for a removal that has begun.
        {
            let _no_removal = self.hold_off_removal();
            self.note_use(asked.iter().copied());
        }
        for hash in &asked {
            drop(bucket.locks.lock(*hash));
        }
        let in_bucket = bucket.store.has_all(&asked)?;
        for (index, is) in missing.into_iter().zip(in_bucket) {
            is_there[index] = is;
        }
        Ok(is_there)
    }

    /// Whether the blob's file is in the folder. If so, it counts as used now.
    fn renew_file(&self, hash: &Hash) -> io::Result<bool> {
        let _no_removal = self.hold_off_removal();
        let path = self.path(hash);
        let modified = match fs::metadata(&path) {
            Ok(metadata) => metadata.modified()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        self.note_use([*hash]);

        // A file that many tasks name is touched only once in half of the grace.
        let age = modified.elapsed();
        if age.is_ok_and(|age| age > self.grace / 2) {
            match File::open(&path) {
                Ok(file) => file.set_modified(SystemTime::now())?,
                // The cache has removed the file meanwhile; the bucket has it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.bucket.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether each of these blobs is where it lives. A file of the cache does not count, because
    /// only what is in the bucket lasts.
    pub fn exist_durably(&self, hashes: &[Hash]) -> io::Result<Vec<bool>> {
        match &self.bucket {
            Some(bucket) => bucket.store.has_all(hashes),
            None => {
                let is_file = |hash: &Hash| self.path(hash).is_file();
                Ok(hashes.iter().map(is_file).collect())
            }
        }
    }

    /// The hashes of all blobs, wherever they live.
    pub fn all(&self) -> io::Result<Vec<Hash>> {
        match &self.bucket {
            Some(bucket) => bucket.store.list(),
            None => cache::blobs_in(&self.root),
        }
    }

    /// A file for this process only, in the blob folder. It has no name, so that nothing is left of
    /// it when it is closed.
    pub fn scratch_file(&self) -> io::Result<File> {
        let path = self.temporary_path("");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        fs::remove_file(path)?;
        Ok(file)
    }
}

/// Makes new names in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
