//! sled 0.34 on this machine's disk.

use super::{Batch, Pair, Shelf, StoreError};
use std::fs::File;
use std::path::Path;

/// Cache for pages. sled's own bookkeeping comes to several times that when a store is large.
const CACHE_BYTES: u64 = 64 << 20;

/// A sled store in one tree, so that every batch is atomic.
pub struct SledShelf {
    tree: sled::Db,
    /// sled's one large file, opened again: see [`SledShelf::sync`].
    file: File,
}

impl SledShelf {
    /// Opens the store in `folder`, or makes one.
    pub fn open(folder: &Path) -> Result<SledShelf, StoreError> {
        let shown = folder.display().to_string();
        let failed = |error: std::io::Error| StoreError::Failed(format!("{shown}: {error}"));
        let is_new = !folder.join("db").exists();
        remove_unfinished(folder).map_err(failed)?;
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let tree = config.open().map_err(|error| open_error(&shown, error))?;
        let file = File::open(folder.join("db")).map_err(failed)?;
        let shelf = SledShelf { tree, file };
        if is_new {
            shelf.sync()?;
            sync_creation(folder).map_err(failed)?;
        }
        Ok(shelf)
    }
}

/// sled takes a snapshot that it had not finished writing for the newest one, and then cannot open the store
/// (`get_snapshot_files` leaves out `.in___motion`, and what it writes is called `.generating`). It needs none.
fn remove_unfinished(folder: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "generating") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Files are durable only when the folders that name them are: without this, an early power cut leaves a store that
/// does not open.
fn sync_creation(folder: &Path) -> std::io::Result<()> {
    File::open(folder.join("conf"))?.sync_all()?;
    File::open(folder.join("db"))?.sync_all()?;
    File::open(folder)?.sync_all()?;
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn open_error(folder: &str, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(io) if io.to_string().contains("lock") => StoreError::Locked(folder.to_owned()),
        sled::Error::Io(io) => StoreError::Failed(format!("{folder}: {io}")),
        other => StoreError::Corrupt { path: folder.to_owned(), why: other.to_string() },
    }
}

fn failed(error: sled::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

impl Shelf for SledShelf {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tree.get(key).map_err(failed)?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], to: &[u8], back: bool, most: usize) -> Result<Vec<Pair>, StoreError> {
        let range = self.tree.range(from..to);
        let pair = |pair: sled::Result<(sled::IVec, sled::IVec)>| {
            pair.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(failed)
        };
        if back { range.rev().take(most).map(pair).collect() } else { range.take(most).map(pair).collect() }
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut sled_batch = sled::Batch::default();
        for (key, value) in batch.0 {
            match value {
                Some(value) => sled_batch.insert(key, value),
                None => sled_batch.remove(key),
            }
        }
        self.tree.apply_batch(sled_batch).map_err(failed)
    }

    /// sled's `flush` ends with `sync_file_range`, which does not reach the disk (spacejam/sled#1452): the file needs
    /// an fdatasync of its own.
    fn sync(&self) -> Result<(), StoreError> {
        self.tree.flush().map_err(failed)?;
        self.file.sync_data().map_err(|error| StoreError::Failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::scratch::Scratch;

    #[test]
    fn a_snapshot_that_was_not_finished_keeps_nobody_from_opening() {
        let scratch = Scratch::new();
        let (folder, copy) = (scratch.join("store"), scratch.join("copy"));
        let shelf = SledShelf::open(&folder).unwrap();
        shelf.write(Batch(vec![(b"a".to_vec(), Some(b"value".to_vec()))])).unwrap();
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
