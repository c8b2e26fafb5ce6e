//! sled 0.34 on this machine's disk.

use super::{Batch, Pair, Shelf, StoreError};
use crate::disk;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Cache for pages. sled's own bookkeeping comes to several times that when a store is large.
const CACHE_BYTES: u64 = 64 << 20;

/// What sled may write for one batch beside the batch itself: pages made whole again, the rest of a
/// segment.
const WRITTEN_BYTES: u64 = 16 << 20;

/// What sled may write for each byte of a batch.
const WRITTEN_FOR_A_BYTE: u64 = 3;

/// Blocks that are taken from the disk ahead of what sled writes.
const RESERVED_BYTES: u64 = 48 << 20;

/// How often sled's own thread moves what lives in half-empty segments together, for half of this
/// time at the most. Without it a page is moved only when another is made whole again: under small
/// commits the file grew to five times what is in it. What is moved in one go is far less than
/// [`WRITTEN_BYTES`].
const TIDY_EVERY_MS: u64 = 200;

/// A sled store in one tree, so that every batch is atomic.
pub struct SledShelf {
    tree: sled::Db,
    /// sled's one large file, opened again: see [`SledShelf::sync`] and [`SledShelf::reserve`].
    file: File,
    folder: PathBuf,
}

impl SledShelf {
    /// Opens the store in `folder`, or makes one.
    pub fn open(folder: &Path) -> Result<SledShelf, StoreError> {
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
        remove_unfinished(folder).map_err(failed)?;
        let tree = config(folder)
            .open()
            .map_err(|error| open_error(&shown, error))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(folder.join("db"))
            .map_err(failed)?;
        Ok(SledShelf {
            tree,
            file,
            folder: folder.to_owned(),
        })
    }

    /// Makes sure that the disk has room for what sled writes for a batch of so many bytes, before
    /// sled hears of it: a write that fails inside sled ends it for good. Blocks are taken behind
    /// the end of its file, which they do not change; sled writes to the end of the file or over
    /// what is there, so nobody else can take them.
    fn reserve(&self, bytes: usize) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| {
            StoreError::Failed(format!("{}: {error}", self.folder.display()))
        };
        let wanted = WRITTEN_BYTES + WRITTEN_FOR_A_BYTE * bytes as u64;
        let is = self.file.metadata().map_err(failed)?;
        // Where the file has holes this is too little, and blocks that are there already are asked
        // for again.
        let behind = (is.blocks() * 512).saturating_sub(is.len());
        if behind >= wanted {
            return Ok(());
        }
        let full = || Err(StoreError::Full(disk::full(&self.folder)));
        match fallocate(
            &self.file,
            FallocateFlags::KEEP_SIZE,
            is.len(),
            wanted.max(RESERVED_BYTES),
        ) {
            Ok(()) => Ok(()),
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => full(),
            // A file system that takes no reservations: the best that can be done is to look.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                match disk::free_bytes(&self.folder) {
                    Ok(free) if free < wanted => full(),
                    _ => Ok(()),
                }
            }
            Err(Errno::INTR) => self.reserve(bytes),
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

/// Makes a store under another name and renames it when all of it is durable: a power cut leaves a
/// whole store or none. Files are durable only when the folders that name them are.
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
    tree.flush().map_err(self::failed)?;
    drop(tree);
    let finish = || {
        let_go(&unfinished.join("db"))?;
        for file in [
            unfinished.join("conf"),
            unfinished.join("db"),
            unfinished.clone(),
        ] {
            File::open(file)?.sync_all()?;
        }
        std::fs::rename(&unfinished, folder)?;
        let parent = folder
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
        // The data folder may be new as well.
        match parent
            .parent()
            .filter(|above| !above.as_os_str().is_empty())
        {
            Some(above) => File::open(above)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    };
    finish().map_err(failed)
}

/// sled takes a snapshot that it had not finished writing for the newest one, and then cannot open
/// the store (`get_snapshot_files` leaves out `.in___motion`, and what it writes is called
/// `.generating`). It needs none.
fn remove_unfinished(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "generating") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Waits until sled's own threads have let go of a store that was dropped a moment ago: till then
/// it is locked.
pub fn let_go(db: &Path) -> std::io::Result<()> {
    /// Long enough for a machine that is very busy.
    const PATIENCE: Duration = Duration::from_secs(30);
    let (file, began) = (File::open(db)?, Instant::now());
    loop {
        match file.try_lock() {
            Ok(()) => return file.unlock(),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
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

fn failed(error: sled::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

impl Shelf for SledShelf {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .tree
            .get(key)
            .map_err(failed)?
            .map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        back: bool,
        most: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let range = self.tree.range(from..to);
        let pair = |pair: sled::Result<(sled::IVec, sled::IVec)>| {
            pair.map(|(key, value)| (key.to_vec(), value.to_vec()))
                .map_err(failed)
        };
        if back {
            range.rev().take(most).map(pair).collect()
        } else {
            range.take(most).map(pair).collect()
        }
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.reserve(batch.bytes())?;
        let mut sled_batch = sled::Batch::default();
        for (key, value) in batch.0 {
            match value {
                Some(value) => sled_batch.insert(key, value),
                None => sled_batch.remove(key),
            }
        }
        self.tree.apply_batch(sled_batch).map_err(failed)
    }

    /// sled's `flush` ends with `sync_file_range`, which does not reach the disk
    /// (spacejam/sled#1452): the file needs an fdatasync of its own.
    fn sync(&self) -> Result<(), StoreError> {
        self.tree.flush().map_err(failed)?;
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
        let (folder, copy) = (scratch.path().join("store"), scratch.path().join("copy"));
        let shelf = SledShelf::open(&folder).unwrap();
        shelf
            .write(Batch(vec![(b"a".to_vec(), Some(b"value".to_vec()))]))
            .unwrap();
        shelf.sync().unwrap();
        // A copy, as the store itself stays locked for a moment after it is dropped.
        std::fs::create_dir(&copy).unwrap();
        for name in ["conf", "db"] {
            std::fs::copy(folder.join(name), copy.join(name)).unwrap();
        }
        std::fs::write(copy.join("snap.FFFFFFFFFFFFFFF0.generating"), "half").unwrap();
        assert!(SledShelf::open(&copy).unwrap().get(b"a").unwrap().is_some());
    }
}
