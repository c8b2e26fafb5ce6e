//! The store on this machine's disk, in a sled 0.34 database.

use super::{KeyValue, KvStore, StoreError, WriteBatch};
use crate::disk;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of sled's page cache. When a store is large, sled's own bookkeeping takes several times as
/// much memory.
const CACHE_BYTES: u64 = 64 << 20;

/// Bytes that sled may write for one batch beside the batch itself: pages that it consolidates, and
/// the rest of a segment.
const WRITTEN_BYTES: u64 = 16 << 20;

/// Bytes that sled may write for each byte of a batch.
const WRITTEN_PER_BATCH_BYTE: u64 = 3;

/// Bytes of disk space that are reserved at once, ahead of what sled writes.
const RESERVED_BYTES: u64 = 48 << 20;

/// Milliseconds between two runs of sled's own thread, which moves the content of half-empty
/// segments together. A run takes half of this time at most, and moves far less than
/// [`WRITTEN_BYTES`]. Without the thread, sled moves a page only when it consolidates another one;
/// under small commits the file grew to five times its content.
const TIDY_EVERY_MS: u64 = 200;

/// What is told where sled has panicked over what it read.
pub const GAVE_UP: &str = "the store's engine gave up over what it read; its message stands above";

/// A store in one sled tree. One tree, because only then every batch is atomic.
pub struct SledStore {
    tree: sled::Db,
    /// sled's one large file, opened a second time, because `sync` must call fdatasync on it and
    /// `reserve` must allocate blocks for it.
    file: File,
    /// The folder of the database, for error texts and for the measure of free space.
    folder: PathBuf,
}

impl SledStore {
    /// Opens the store in `folder`, or creates one there.
    pub fn open(folder: &Path) -> Result<SledStore, StoreError> {
        let shown = folder.display().to_string();
        let failed = |error: std::io::Error| StoreError::Failed(format!("{shown}: {error}"));
        if !folder.join("db").exists() {
            if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(StoreError::Corrupt {
                    path: shown,
                    why: "its file `db` is missing".into(),
                });
            }
            create(folder)?;
        }
        remove_bad_snapshots(folder).map_err(failed)?;
        let tree = config(folder)
            .open()
            .map_err(|error| open_error(&shown, error))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(folder.join("db"))
            .map_err(failed)?;
        Ok(SledStore {
            tree,
            file,
            folder: folder.to_owned(),
        })
    }

    /// Makes sure that the disk has space for what sled writes for a batch of `batch_bytes`, before
    /// sled gets the batch, because a write that fails inside sled ends sled for good. Blocks are
    /// allocated behind the end of sled's file and do not change the file's length. sled writes at
    /// the end of the file or over existing content, so nobody else can take these blocks.
    fn reserve(&self, batch_bytes: usize) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| {
            StoreError::Failed(format!("{}: {error}", self.folder.display()))
        };
        let wanted = WRITTEN_BYTES + WRITTEN_PER_BATCH_BYTE * batch_bytes as u64;
        let metadata = self.file.metadata().map_err(failed)?;
        // Where the file has holes, this number is too small. Then blocks that are reserved already
        // are asked for again, which does no harm.
        let reserved = (metadata.blocks() * 512).saturating_sub(metadata.len());
        // A write beyond the limit would end sled for good, as on a full disk.
        if let Some(limit) = disk::file_bytes_max()
            && metadata.len().saturating_add(wanted) > limit
        {
            return Err(StoreError::Full(disk::limited_message(&self.folder, limit)));
        }
        if reserved >= wanted {
            return Ok(());
        }

        let full = || Err(StoreError::Full(disk::full_message(&self.folder)));
        match fallocate(
            &self.file,
            FallocateFlags::KEEP_SIZE,
            metadata.len(),
            wanted.max(RESERVED_BYTES),
        ) {
            Ok(()) => Ok(()),
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => full(),
            // On a file system without reservations, looking at the free space is the best that
            // can be done.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                match disk::free_bytes(&self.folder) {
                    Ok(free) if free < wanted => full(),
                    _ => Ok(()),
                }
            }
            Err(Errno::INTR) => self.reserve(batch_bytes),
            Err(other) => Err(failed(other.into())),
        }
    }
}

fn config(folder: &Path) -> sled::Config {
    sled::Config::new()
        .path(folder)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(TIDY_EVERY_MS))
        .mode(sled::Mode::HighThroughput)
}

/// Creates a store under another name and renames it when all of it is durable, so that a power cut
/// leaves a whole store or none.
fn create(folder: &Path) -> Result<(), StoreError> {
    let shown = folder.display().to_string();
    let failed = |error: std::io::Error| open_error(&shown, sled::Error::Io(error));
    let unfinished = folder.with_extension("new");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(failed)?;
    }
    let tree = config(&unfinished)
        .open()
        .map_err(|error| open_error(&shown, error))?;
    tree.flush()
        .map_err(|error| store_error(&unfinished, error))?;
    drop(tree);
    publish(&unfinished, folder).map_err(failed)
}

/// Makes the new store in `unfinished` durable and renames it to `folder`. A file is durable only
/// when the folders that name it are durable as well.
fn publish(unfinished: &Path, folder: &Path) -> std::io::Result<()> {
    wait_until_unlocked(&unfinished.join("db"))?;
    for file in [
        unfinished.join("conf"),
        unfinished.join("db"),
        unfinished.to_owned(),
    ] {
        File::open(file)?.sync_all()?;
    }
    std::fs::rename(unfinished, folder)?;

    let parent = folder
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()?;
    // The data folder itself may be new, so the folder above it is made durable as well.
    let above = parent
        .parent()
        .filter(|above| !above.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(above)?.sync_all()
}

/// Removes snapshots that sled had not finished writing, and spoilt ones. sled takes the first kind for
/// its newest snapshot and then cannot open the store: its `get_snapshot_files` leaves out
/// `.in___motion`, but the unfinished files are called `.generating`. A snapshot only saves time: sled
/// opens a store without any from its log.
fn remove_bad_snapshots(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_snapshot = path.file_stem().is_some_and(|stem| stem == "snap");
        let is_unfinished = path.extension().is_some_and(|end| end == "generating");
        if is_unfinished || (is_snapshot && !is_sound_snapshot(&std::fs::read(&path)?)) {
            tracing::warn!(path = %path.display(), "a snapshot is not whole; the store is read from its log");
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Whether a snapshot ends with its checksum. Behind the content there are eight bytes with a length,
/// and the checksum.
fn is_sound_snapshot(bytes: &[u8]) -> bool {
    let Some((rest, checksum)) = bytes.split_last_chunk::<4>() else {
        return false;
    };
    let Some((content, _)) = rest.split_last_chunk::<8>() else {
        return false;
    };
    !content.is_empty() && crc32fast::hash(content).to_le_bytes() == *checksum
}

/// Waits until the database file `db` is unlocked. After a store is dropped, sled's own threads hold
/// the lock for a moment longer.
pub fn wait_until_unlocked(db: &Path) -> std::io::Result<()> {
    /// Long enough for a machine that is very busy.
    const TIMEOUT: Duration = Duration::from_secs(30);
    let file = File::open(db)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return file.unlock(),
            Err(TryLockError::WouldBlock) if began.elapsed() < TIMEOUT => {
                std::thread::sleep(Duration::from_millis(5))
            }
            Err(TryLockError::WouldBlock) => {
                return Err(std::io::Error::other("sled does not let go of its lock"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn open_error(folder: &str, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(io) if io.to_string().contains("lock") => {
            StoreError::Locked(folder.to_owned())
        }
        sled::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => StoreError::Full(
            format!("the disk that holds {folder} is full; make room and start it again"),
        ),
        sled::Error::Io(io) => StoreError::Failed(format!("{folder}: {io}")),
        other => StoreError::Corrupt {
            path: folder.to_owned(),
            why: other.to_string(),
        },
    }
}

/// What an error of sled means for the store in `folder`. Only errors of the operating system may go
/// away by themselves; everything else that sled finds is damage.
fn store_error(folder: &Path, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(io) => StoreError::Failed(io.to_string()),
        other => StoreError::Corrupt {
            path: folder.display().to_string(),
            why: other.to_string(),
        },
    }
}

impl SledStore {
    /// Runs `work` on the tree. sled panics over some of what it reads from a damaged file, and such a
    /// panic is damage like any other.
    fn guarded<T>(&self, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, StoreError> {
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| work(&self.tree)));
        done.map_err(|_| StoreError::Corrupt {
            path: self.folder.display().to_string(),
            why: GAVE_UP.into(),
        })?
        .map_err(|error| store_error(&self.folder, error))
    }
}

impl KvStore for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded(|tree| Ok(tree.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reversed: bool,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let pair = |pair: sled::Result<(sled::IVec, sled::IVec)>| {
            pair.map(|(key, value)| KeyValue {
                key: key.to_vec(),
                value: value.to_vec(),
            })
        };
        self.guarded(|tree| {
            let range = tree.range(from..to);
            if reversed {
                range.rev().take(limit).map(pair).collect()
            } else {
                range.take(limit).map(pair).collect()
            }
        })
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.reserve(batch.bytes())?;
        let mut sled_batch = sled::Batch::default();
        for entry in batch.entries {
            match entry.value {
                Some(value) => sled_batch.insert(entry.key, value),
                None => sled_batch.remove(entry.key),
            }
        }
        self.guarded(|tree| tree.apply_batch(sled_batch))
    }

    /// sled's `flush` ends with `sync_file_range`, which does not reach the disk
    /// (spacejam/sled#1452), so the file needs an fdatasync of its own.
    fn sync(&self) -> Result<(), StoreError> {
        self.guarded(|tree| tree.flush())?;
        self.file
            .sync_data()
            .map_err(|error| StoreError::Failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_was_not_finished_keeps_nobody_from_opening() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("store");
        let copy = scratch.path().join("copy");
        let store = SledStore::open(&folder).unwrap();
        let mut batch = WriteBatch::default();
        batch.put(b"a".to_vec(), b"value".to_vec());
        store.write(batch).unwrap();
        store.sync().unwrap();

        // A copy is opened, because the store itself stays locked for a moment after its drop.
        std::fs::create_dir(&copy).unwrap();
        for name in ["conf", "db"] {
            std::fs::copy(folder.join(name), copy.join(name)).unwrap();
        }
        std::fs::write(copy.join("snap.FFFFFFFFFFFFFFF0.generating"), "half").unwrap();
        assert!(SledStore::open(&copy).unwrap().get(b"a").unwrap().is_some());
    }

    #[test]
    fn a_spoilt_snapshot_costs_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("store");
        let snapshots = || -> Vec<PathBuf> {
            let entries = std::fs::read_dir(&folder).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path());
            paths
                .filter(|path| path.file_stem().is_some_and(|stem| stem == "snap"))
                .collect()
        };
        for round in 0..4u8 {
            let store = SledStore::open(&folder).unwrap();
            for before in 0..round {
                assert_eq!(store.get(&[before]).unwrap(), Some(vec![7]));
            }
            let mut batch = WriteBatch::default();
            batch.put(vec![round], vec![7]);
            store.write(batch).unwrap();
            store.sync().unwrap();
            drop(store);
            wait_until_unlocked(&folder.join("db")).unwrap();
            for snapshot in snapshots() {
                let mut bytes = std::fs::read(&snapshot).unwrap();
                assert!(is_sound_snapshot(&bytes));
                match round {
                    1 => bytes.clear(),
                    2 => bytes.truncate(bytes.len() - 3),
                    _ => bytes[0] ^= 1,
                }
                std::fs::write(snapshot, bytes).unwrap();
            }
        }
        assert!(
            !snapshots().is_empty(),
            "sled writes one at each start but the first"
        );
    }
}
