//! Large results that wait to be put: in memory while they are few, on disk when they are many. A
//! master may be away for long, and every slot works on meanwhile.

use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of results that wait in memory: one of the largest, or many small ones.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// Bytes of results that wait on disk. What ends beyond that fails as `output`, and is tried again
/// by its retries: a runner that nobody listens to must not fill its disk.
const DISK_BYTES_MAX: u64 = 8 << 30;

/// What waits.
#[derive(Debug)]
pub struct Owed {
    folder: PathBuf,
    amounts: Mutex<Amounts>,
}

#[derive(Debug, Default)]
struct Amounts {
    memory: u64,
    disk: u64,
    files: u64,
}

/// One result; its room is free again, and its file gone, when this is dropped.
#[derive(Debug)]
pub struct Kept {
    place: Place,
    bytes: u64,
    owed: Arc<Owed>,
}

#[derive(Debug)]
enum Place {
    Memory(Bytes),
    Disk(PathBuf),
}

impl Owed {
    /// Files are made in `folder`, which belongs to this process alone.
    pub fn new(folder: &Path) -> Owed {
        Owed {
            folder: folder.to_owned(),
            amounts: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Amounts> {
        // Nothing between lock and unlock can panic.
        self.amounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts files that stay where they are until they are put.
    pub fn wait(self: &Arc<Owed>, bytes: u64) -> Result<Waiting, String> {
        let mut amounts = self.lock();
        if amounts.disk + bytes > DISK_BYTES_MAX {
            return Err(too_much(amounts.disk));
        }
        amounts.disk += bytes;
        Ok(Waiting {
            bytes,
            owed: self.clone(),
        })
    }

    /// Keeps `bytes`, on disk where memory has its share. May write a file: not for a thread that
    /// must not wait.
    pub fn keep(self: &Arc<Owed>, bytes: Bytes) -> Result<Kept, String> {
        let size = bytes.len() as u64;
        let path = {
            let mut amounts = self.lock();
            if amounts.memory + size <= MEMORY_BYTES_MAX {
                amounts.memory += size;
                None
            } else if amounts.disk + size <= DISK_BYTES_MAX {
                amounts.disk += size;
                amounts.files += 1;
                Some(self.folder.join(format!("owed-{}", amounts.files)))
            } else {
                return Err(too_much(amounts.disk));
            }
        };
        let kept = |place| Kept {
            place,
            bytes: size,
            owed: self.clone(),
        };
        let Some(path) = path else {
            return Ok(kept(Place::Memory(bytes)));
        };
        let kept = kept(Place::Disk(path.clone()));
        match std::fs::write(&path, &bytes) {
            Ok(()) => Ok(kept),
            Err(error) => Err(format!(
                "the result cannot be kept in {}: {error}",
                path.display()
            )),
        }
    }
}

/// Room on the disk for files that wait to be put; free again when this is dropped.
#[derive(Debug)]
pub struct Waiting {
    bytes: u64,
    owed: Arc<Owed>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.owed.lock().disk -= self.bytes;
    }
}

impl Kept {
    /// The result.
    pub async fn bytes(&self) -> io::Result<Bytes> {
        match &self.place {
            Place::Memory(bytes) => Ok(bytes.clone()),
            Place::Disk(path) => tokio::fs::read(path).await.map(Bytes::from),
        }
    }
}

fn too_much(disk: u64) -> String {
    let (is, max) = (disk >> 20, DISK_BYTES_MAX >> 20);
    format!("{is} MiB of results wait for the master already; a runner keeps {max} MiB at most")
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut amounts = self.owed.lock();
        match &self.place {
            Place::Memory(_) => amounts.memory -= self.bytes,
            Place::Disk(path) => {
                amounts.disk -= self.bytes;
                // The folder is removed with the process at the latest.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_results_wait_on_disk_and_leave_nothing_there() {
        let folder =
            std::env::temp_dir().join(format!("taskmaster-owed-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir_all(&folder).unwrap();
        let owed = Arc::new(Owed::new(&folder));
        let files = || std::fs::read_dir(&folder).unwrap().count();
        let large = Bytes::from(vec![7; 40 << 20]);
        let first = owed.keep(large.clone()).unwrap();
        assert_eq!(files(), 0);
        let second = owed.keep(large.clone()).unwrap();
        assert_eq!((files(), second.bytes().await.unwrap() == large), (1, true));
        drop(first);
        let third = owed.keep(large.clone()).unwrap();
        assert_eq!(
            (files(), third.bytes().await.unwrap() == large),
            (1, true),
            "memory has room again"
        );
        owed.lock().disk = DISK_BYTES_MAX;
        let refused = owed.keep(large).unwrap_err();
        assert!(refused.contains("8192 MiB"), "{refused}");
        let refused = owed.wait(1).unwrap_err();
        assert!(refused.contains("8192 MiB"), "{refused}");
        owed.lock().disk = DISK_BYTES_MAX - 1;
        drop(owed.wait(1).unwrap());
        drop((second, third));
        assert_eq!((files(), owed.lock().memory), (0, 0));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
