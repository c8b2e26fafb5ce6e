//! How much disk a task takes, looked at while it runs: WASI has no quota of its own. A task that
//! takes more than it may is stopped; between two looks it can write no more than a disk takes in a
//! tenth of a second.

use super::Control;
use super::limits::{DISK_BYTES_MAX, FILES_MAX, LOOK_MS};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The tasks that have a folder now, and the thread that looks at them; it sleeps while there is
/// none.
pub struct Quota {
    watched: Arc<Watched>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Watched {
    tasks: Mutex<HashMap<u64, (PathBuf, Arc<Control>)>>,
    next: AtomicU64,
    closed: AtomicBool,
}

/// Keeps a task's folder watched.
pub struct Watch<'a> {
    quota: &'a Quota,
    number: u64,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (PathBuf, Arc<Control>)>> {
        // Nothing between lock and unlock can panic.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_on(&self) {
        while !self.closed.load(Ordering::SeqCst) {
            let tasks: Vec<_> = self.lock().values().cloned().collect();
            if tasks.is_empty() {
                std::thread::park();
                continue;
            }
            let began = Instant::now();
            for (path, control) in tasks {
                if let Some(text) = over(&path) {
                    control.overdraw(text);
                }
            }
            // Folders with many files take long to look through: at most a tenth of a processor
            // goes into it.
            std::thread::sleep(Duration::from_millis(LOOK_MS).max(began.elapsed() * 9));
        }
    }
}

impl Quota {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Quota> {
        let watched = Arc::new(Watched::default());
        let looking = watched.clone();
        let thread = std::thread::Builder::new()
            .name("quota".into())
            .spawn(move || looking.look_on())?;
        Ok(Quota {
            watched,
            thread: Some(thread),
        })
    }

    /// Stops `control`'s task when what is in `path` becomes too much.
    pub fn watch(&self, path: &Path, control: &Arc<Control>) -> Watch<'_> {
        let number = self.watched.next.fetch_add(1, Ordering::Relaxed);
        let mut tasks = self.watched.lock();
        tasks.insert(number, (path.to_owned(), control.clone()));
        if let (1, Some(thread)) = (tasks.len(), &self.thread) {
            thread.thread().unpark();
        }
        Watch {
            quota: self,
            number,
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.quota.watched.lock().remove(&self.number);
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.watched.closed.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It waits for no guest.
            let _ = thread.join();
        }
    }
}

/// What is too much in `folder`, if anything. A sparse file counts by its length where that alone
/// is too much: whoever copies it would fill a disk.
fn over(folder: &Path) -> Option<String> {
    let (mut bytes, mut files) = (0_u64, 0_u64);
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        // What is gone by now takes no room.
        for entry in std::fs::read_dir(next).ok()?.flatten() {
            let Ok(about) = entry.metadata() else {
                continue;
            };
            // An input: a link, which takes no room. No guest can make a file that it cannot write
            // to.
            if about.is_file() && about.permissions().readonly() {
                continue;
            }
            files += 1;
            bytes += on_disk(&about);
            if about.is_dir() {
                folders.push(entry.path());
            }
            let mib = DISK_BYTES_MAX >> 20;
            if about.len() > DISK_BYTES_MAX {
                return Some(format!(
                    "a file of the task has {} MiB, at most {mib} are allowed",
                    about.len() >> 20
                ));
            }
            if bytes > DISK_BYTES_MAX {
                return Some(format!(
                    "the task's files take more than the {mib} MiB of disk that are allowed"
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

#[cfg(unix)]
fn on_disk(about: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(about) * 512
}

#[cfg(not(unix))]
fn on_disk(about: &std::fs::Metadata) -> u64 {
    about.len()
}
