//! How much disk a task takes, looked at while the task runs, because WASI has no quota of its own.
//! A task that takes more than it may is stopped. Between two looks it can write no more than a
//! disk takes in a tenth of a second.

use super::limits::{DISK_BYTES_MAX, FILES_MAX, LOOK_MS};
use super::stop::StopSwitch;
use super::tree::{TreeEntry, walk};
use crate::leaving::leave;
use rustix::fs::FileType;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use taskmaster_console::long_lived;

/// After a look the thread sleeps at least this many times as long as the look took. Folders with
/// many files take long to look through, so at most a tenth of a processor goes into it.
const SLEEP_PER_LOOK: u32 = 9;

/// File systems count blocks of this many bytes, whatever their own blocks are.
const BLOCK_BYTES: u64 = 512;

/// The bits of a file's mode that let somebody write into it.
const ANY_WRITE: u32 = 0o222;

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
    /// Files that were put there before the task began.
    inputs: u64,
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
                if let Some(text) = excess(&folder) {
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

    /// Uses the stop switch of a task when `path`, its folder, has too much in it beside the
    /// `inputs` files that were put there.
    pub fn watch(&self, path: &Path, inputs: usize, stop: &Arc<StopSwitch>) -> QuotaWatch<'_> {
        let key = self.watched.next.fetch_add(1, Ordering::Relaxed);
        let folder = WatchedFolder {
            path: path.to_owned(),
            inputs: inputs as u64,
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
            leave([thread]);
        }
    }
}

/// What is too much in a folder, if anything, as a sentence. Everything that has a name counts, at
/// whatever depth it lies and however it was made.
fn excess(watched: &WatchedFolder) -> Option<String> {
    let mut usage = FolderUsage::default();
    let mut found = None;
    // What cannot be read is seen at the next look.
    let _ = walk(&watched.path, |entry| {
        found = usage.add(entry, watched.inputs);
        if found.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    found
}

/// What a task has in its folder.
#[derive(Default)]
struct FolderUsage {
    bytes: u64,
    entries: u64,
}

impl FolderUsage {
    /// Counts an entry, and says what is too much from then on, beside `inputs` files that were put
    /// there.
    fn add(&mut self, entry: &TreeEntry<'_>, inputs: u64) -> Option<String> {
        let max_mib = DISK_BYTES_MAX >> 20;
        self.entries += 1;
        if self.entries > FILES_MAX + inputs {
            return Some(format!(
                "the task has more than the {FILES_MAX} files and folders that are allowed"
            ));
        }
        // A read-only file is an input: a link, which takes no disk. No guest can make a file
        // read-only, but it can make any number of links to one.
        let is_file = entry.kind() == FileType::RegularFile;
        if is_file && entry.stat.st_mode & ANY_WRITE == 0 {
            return None;
        }

        // A sparse file counts by its length where that alone is too much, because whoever copies
        // the file would fill a disk.
        let bytes = u64::try_from(entry.stat.st_size).unwrap_or(0);
        if bytes > DISK_BYTES_MAX {
            return Some(format!(
                "a file of the task has {} MiB, at most {max_mib} are allowed",
                bytes >> 20
            ));
        }
        self.bytes += u64::try_from(entry.stat.st_blocks).unwrap_or(0) * BLOCK_BYTES;
        (self.bytes > DISK_BYTES_MAX).then(|| {
            format!("the task's files take more than the {max_mib} MiB of disk that are allowed")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, mkdirat, openat};

    #[test]
    fn links_to_inputs_count_however_deep_they_lie() {
        let scratch = tempfile::tempdir().unwrap();
        let input = scratch.path().join("input");
        std::fs::write(&input, "x").unwrap();
        let mut permissions = std::fs::metadata(&input).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&input, permissions).unwrap();

        // 25 names of 200 bytes: more than a path may have.
        let path = scratch.path().join("task");
        std::fs::create_dir(&path).unwrap();
        let folder = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut here = openat(CWD, &path, folder, Mode::empty()).unwrap();
        let name = "f".repeat(200);
        for _ in 0..25 {
            mkdirat(&here, &name, Mode::RWXU).unwrap();
            here = openat(&here, &name, folder, Mode::empty()).unwrap();
        }
        let link = |n: u64| linkat(CWD, &input, &here, n.to_string(), AtFlags::empty()).unwrap();
        (25..FILES_MAX).for_each(link);
        let mut watched = WatchedFolder {
            path,
            inputs: 0,
            stop: Arc::default(),
        };
        assert_eq!(excess(&watched), None);
        link(FILES_MAX);
        let text = excess(&watched).unwrap();
        assert!(text.contains("more than the 20000 files"), "{text}");
        watched.inputs = 1;
        assert_eq!(excess(&watched), None, "inputs are put there by the runner");
    }
}
