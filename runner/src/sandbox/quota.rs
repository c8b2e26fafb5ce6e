//! How much disk a task takes, looked at while the task runs, because WASI has no quota of its own.
//! A task that takes more than it may is stopped. Between two looks it can write no more than a
//! disk takes in a tenth of a second.

use super::limits::{DISK_BYTES_MAX, FILES_MAX, LOOK_MS};
use super::stop::StopSwitch;
use std::collections::HashMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use taskmaster_console::long_lived;

/// After a look the thread sleeps at least this many times as long as the look took. Folders with
/// many files take long to look through, so at most a tenth of a processor goes into it.
const SLEEP_PER_LOOK: u32 = 9;

/// The tasks that have a folder now, and the thread that looks at their folders.
pub struct DiskQuota {
    watched: Arc<WatchedFolders>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct WatchedFolders {
    folders: Mutex<HashMap<u64, WatchedFolder>>,
    /// The key of the next watch.
    next: AtomicU64,
    closed: AtomicBool,
}

#[derive(Clone)]
struct WatchedFolder {
    path: PathBuf,
    stop: Arc<StopSwitch>,
}

/// A task's folder is watched as long as this lives.
pub struct QuotaWatch<'a> {
    quota: &'a DiskQuota,
    key: u64,
}

impl WatchedFolders {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, WatchedFolder>> {
        // Nothing between lock and unlock can panic.
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the folders until the quota is dropped; sleeps while there are none.
    fn look_on(&self) {
        while !self.closed.load(Ordering::SeqCst) {
            let folders: Vec<WatchedFolder> = self.lock().values().cloned().collect();
            if folders.is_empty() {
                std::thread::park();
                continue;
            }

            let began = Instant::now();
            for folder in folders {
                if let Some(text) = excess(&folder.path) {
                    folder.stop.exceed_quota(text);
                }
            }
            let pause = Duration::from_millis(LOOK_MS).max(began.elapsed() * SLEEP_PER_LOOK);
            std::thread::sleep(pause);
        }
    }
}

impl DiskQuota {
    /// Starts the thread.
    pub fn start() -> std::io::Result<DiskQuota> {
        let watched = Arc::new(WatchedFolders::default());
        let looking = watched.clone();
        let thread = long_lived::spawn("quota", move || looking.look_on())?;
        Ok(DiskQuota {
            watched,
            thread: Some(thread),
        })
    }

    /// Uses the stop switch of a task when `path`, its folder, has too much in it.
    pub fn watch(&self, path: &Path, stop: &Arc<StopSwitch>) -> QuotaWatch<'_> {
        let key = self.watched.next.fetch_add(1, Ordering::Relaxed);
        let folder = WatchedFolder {
            path: path.to_owned(),
            stop: stop.clone(),
        };
        let mut folders = self.watched.lock();
        folders.insert(key, folder);
        if let (1, Some(thread)) = (folders.len(), &self.thread) {
            thread.thread().unpark();
        }
        QuotaWatch { quota: self, key }
    }
}

impl Drop for QuotaWatch<'_> {
    fn drop(&mut self) {
        self.quota.watched.lock().remove(&self.key);
    }
}

impl Drop for DiskQuota {
    fn drop(&mut self) {
        self.watched.closed.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread waits for no guest, so it ends soon.
            let _ = thread.join();
        }
    }
}

/// What is too much in `folder`, if anything, as a sentence. A sparse file counts by its length
/// where that alone is too much, because whoever copies the file would fill a disk.
fn excess(folder: &Path) -> Option<String> {
    let max_mib = DISK_BYTES_MAX >> 20;
    let mut bytes = 0_u64;
    let mut files = 0_u64;
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        // What the task has removed meanwhile takes no disk.
        for entry in std::fs::read_dir(next).ok()?.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            // A read-only file is an input: a link, which takes no disk. No guest can make a file
            // read-only.
            if metadata.is_file() && metadata.permissions().readonly() {
                continue;
            }

            files += 1;
            bytes += bytes_on_disk(&metadata);
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            if metadata.len() > DISK_BYTES_MAX {
                return Some(format!(
                    "a file of the task has {} MiB, at most {max_mib} are allowed",
                    metadata.len() >> 20
                ));
            }
            if bytes > DISK_BYTES_MAX {
                return Some(format!(
                    "the task's files take more than the {max_mib} MiB of disk that are allowed"
                ));
            }
            if files > FILES_MAX {
                return Some(format!(
                    "the task has more than the {FILES_MAX} files and folders that are allowed"
                ));
            }
        }
    }
    None
}

/// File systems count blocks of this many bytes, whatever their own blocks are.
#[cfg(unix)]
const BLOCK_BYTES: u64 = 512;

#[cfg(unix)]
fn bytes_on_disk(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * BLOCK_BYTES
}

#[cfg(not(unix))]
fn bytes_on_disk(metadata: &Metadata) -> u64 {
    metadata.len()
}
