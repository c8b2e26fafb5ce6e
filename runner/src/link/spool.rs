//! Results that wait to be uploaded: in memory while they are few, on disk when they are many. A
//! master may be away for long, and every slot works on meanwhile.

use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of results that wait in memory: one of the largest, or many small ones.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// Bytes of results and output files that wait on disk. A runner that nobody listens to must not
/// fill its disk, so an attempt that ends beyond this fails as `output`, and the task's retries
/// apply.
const DISK_BYTES_MAX: u64 = 8 << 30;

/// The results that wait.
#[derive(Debug)]
pub struct ResultSpool {
    folder: PathBuf,
    usage: Mutex<SpoolUsage>,
}

#[derive(Debug, Default)]
struct SpoolUsage {
    memory_bytes: u64,
    disk_bytes: u64,
    /// How many files were ever made; the next one is named by it.
    files: u64,
}

/// Why a result cannot wait.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Too much waits already.
    #[error(
        "{mib} MiB of results wait for the master already; a runner keeps {max} MiB at most",
        mib = .disk_bytes >> 20,
        max = DISK_BYTES_MAX >> 20
    )]
    Full {
        /// Bytes that wait on disk.
        disk_bytes: u64,
    },
    /// The file could not be written.
    #[error("the result cannot be kept in {}: {error}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// One result that waits. Dropping it removes its file and frees its share of the spool.
#[derive(Debug)]
pub struct SpooledResult {
    storage: Storage,
    bytes: u64,
    spool: Arc<ResultSpool>,
}

#[derive(Debug)]
enum Storage {
    Memory(Bytes),
    Disk(PathBuf),
}

/// A share of the disk for files that stay where they are until they are uploaded. Dropping it
/// frees the share.
#[derive(Debug)]
pub struct SpoolReservation {
    bytes: u64,
    spool: Arc<ResultSpool>,
}

impl ResultSpool {
    /// A spool that makes its files in `folder`, which belongs to this process alone.
    pub fn new(folder: &Path) -> ResultSpool {
        ResultSpool {
            folder: folder.to_owned(),
            usage: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, SpoolUsage> {
        // Nothing between lock and unlock can panic.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts files that stay where they are until they are uploaded.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<SpoolReservation, SpoolError> {
        let mut usage = self.lock();
        if usage.disk_bytes + bytes > DISK_BYTES_MAX {
            let disk_bytes = usage.disk_bytes;
            return Err(SpoolError::Full { disk_bytes });
        }
        usage.disk_bytes += bytes;
        Ok(SpoolReservation {
            bytes,
            spool: self.clone(),
        })
    }

    /// Keeps `bytes`, on disk where memory has its share. May write a file, so it must not be
    /// called on a thread that must not wait.
    pub fn keep(self: &Arc<Self>, bytes: Bytes) -> Result<SpooledResult, SpoolError> {
        let size = bytes.len() as u64;
        let storage = match self.assign(size)? {
            None => Storage::Memory(bytes.clone()),
            Some(path) => Storage::Disk(path),
        };
        let result = SpooledResult {
            storage,
            bytes: size,
            spool: self.clone(),
        };
        if let Storage::Disk(path) = &result.storage {
            std::fs::write(path, &bytes).map_err(|error| SpoolError::Write {
                path: path.clone(),
                error,
            })?;
        }
        Ok(result)
    }

    /// Counts a result of `size` bytes. A path comes back where it belongs on disk.
    fn assign(&self, size: u64) -> Result<Option<PathBuf>, SpoolError> {
        let mut usage = self.lock();
        if usage.memory_bytes + size <= MEMORY_BYTES_MAX {
            usage.memory_bytes += size;
            return Ok(None);
        }
        if usage.disk_bytes + size > DISK_BYTES_MAX {
            let disk_bytes = usage.disk_bytes;
            return Err(SpoolError::Full { disk_bytes });
        }
        usage.disk_bytes += size;
        usage.files += 1;
        Ok(Some(self.folder.join(format!("spooled-{}", usage.files))))
    }
}

impl SpooledResult {
    /// The result.
    pub async fn bytes(&self) -> io::Result<Bytes> {
        match &self.storage {
            Storage::Memory(bytes) => Ok(bytes.clone()),
            Storage::Disk(path) => tokio::fs::read(path).await.map(Bytes::from),
        }
    }
}

impl Drop for SpooledResult {
    fn drop(&mut self) {
        let mut usage = self.spool.lock();
        match &self.storage {
            Storage::Memory(_) => usage.memory_bytes -= self.bytes,
            Storage::Disk(path) => {
                usage.disk_bytes -= self.bytes;
                // Where this fails, the file is removed with the folder of this process.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Drop for SpoolReservation {
    fn drop(&mut self) {
        self.spool.lock().disk_bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_results_wait_on_disk_and_leave_nothing_there() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(ResultSpool::new(folder.path()));
        let files = || std::fs::read_dir(folder.path()).unwrap().count();
        let large = Bytes::from(vec![7; 40 << 20]);
        let first = spool.keep(large.clone()).unwrap();
        assert_eq!(files(), 0);
        let second = spool.keep(large.clone()).unwrap();
        assert_eq!((files(), second.bytes().await.unwrap() == large), (1, true));
        drop(first);
        let third = spool.keep(large.clone()).unwrap();
        assert_eq!(
            (files(), third.bytes().await.unwrap() == large),
            (1, true),
            "memory has room again"
        );
        spool.lock().disk_bytes = DISK_BYTES_MAX;
        let refused = spool.keep(large).unwrap_err().to_string();
        assert!(refused.contains("8192 MiB"), "{refused}");
        let refused = spool.reserve(1).unwrap_err().to_string();
        assert!(refused.contains("8192 MiB"), "{refused}");
        spool.lock().disk_bytes = DISK_BYTES_MAX - 1;
        drop(spool.reserve(1).unwrap());
        drop((second, third));
        assert_eq!((files(), spool.lock().memory_bytes), (0, 0));
    }
}
