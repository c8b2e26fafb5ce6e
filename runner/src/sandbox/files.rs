//! The folders of tasks on this machine: made before, removed after, both empty in between.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Where this process makes its tasks' folders.
pub struct Folders {
    base: PathBuf,
    next: AtomicU64,
    /// Removing happens on a thread of its own: a task's slot does not wait for it. `None` ends it.
    sweep: mpsc::Sender<Option<PathBuf>>,
    sweeper: Option<JoinHandle<()>>,
    /// Held for as long as the process lives; whoever can take it knows that its owner is gone.
    lock: File,
}

/// The folder of one task, with its `/tmp`.
#[derive(Debug)]
pub struct TaskFolder {
    path: PathBuf,
    sweep: mpsc::Sender<Option<PathBuf>>,
}

impl Folders {
    /// Opens `work`, makes a part of it ours, and removes the parts of processes that are gone.
    pub fn open(work: &Path) -> io::Result<Folders> {
        private_folder(work)?;
        remove_abandoned(work);
        let name = uuid::Uuid::now_v7().simple().to_string();
        let lock = File::create(work.join(format!("{name}.lock")))?;
        lock.lock()?;
        let base = work.join(name);
        private_folder(&base)?;
        let (sweep, dirty) = mpsc::channel::<Option<PathBuf>>();
        let sweeper = std::thread::Builder::new()
            .name("sweeper".into())
            .spawn(move || {
                for path in dirty.into_iter().map_while(|path| path) {
                    remove(&path);
                }
            })?;
        Ok(Folders {
            base,
            next: AtomicU64::new(0),
            sweep,
            sweeper: Some(sweeper),
            lock,
        })
    }

    /// Where this process makes them.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// A new, empty folder.
    pub fn make(&self) -> io::Result<TaskFolder> {
        let path = self
            .base
            .join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let folder = TaskFolder {
            path,
            sweep: self.sweep.clone(),
        };
        fs::create_dir(&folder.path)?;
        fs::create_dir(folder.own())?;
        fs::create_dir(folder.tmp())?;
        Ok(folder)
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        // A folder whose files wait for a master that is away is there still: nobody waits for it,
        // it goes with the rest.
        let _ = self.sweep.send(None);
        if let Some(sweeper) = self.sweeper.take() {
            let _ = sweeper.join();
        }
        remove(&self.base);
        let _ = fs::remove_file(self.base.with_extension("lock"));
        let _ = self.lock.unlock();
    }
}

impl TaskFolder {
    /// Where everything of the task is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the task sees as `.` and `/`.
    pub fn own(&self) -> PathBuf {
        self.path.join("own")
    }

    /// What the task sees as `/tmp`.
    pub fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }
}

impl Drop for TaskFolder {
    fn drop(&mut self) {
        if let Err(mpsc::SendError(Some(path))) =
            self.sweep.send(Some(std::mem::take(&mut self.path)))
        {
            remove(&path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove a task's folder {}: {error}", path.display());
    }
}

fn remove_abandoned(work: &Path) {
    let Ok(entries) = fs::read_dir(work) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            remove(&path.with_extension(""));
            let _ = fs::remove_file(&path);
        }
    }
}

/// Makes a folder that only this user can enter.
pub fn private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_still_in_use_holds_up_no_end() {
        let work = std::env::temp_dir().join(format!(
            "taskmaster-folders-{}",
            uuid::Uuid::now_v7().simple()
        ));
        let folders = Folders::open(&work).unwrap();
        let (one, other) = (folders.make().unwrap(), folders.make().unwrap());
        fs::write(one.own().join("waits"), "").unwrap();
        drop(other);
        drop(folders);
        assert_eq!(fs::read_dir(&work).unwrap().count(), 0, "all is gone");
        drop(one);
        fs::remove_dir_all(&work).unwrap();
    }
}
