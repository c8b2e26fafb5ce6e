//! The folders of tasks on this machine. A folder is made before its task runs and removed after
//! it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use taskmaster_console::long_lived;
use taskmaster_transport::files::private_folder;

/// The folder in which this process makes its tasks' folders.
pub struct TaskFolders {
    base: PathBuf,
    next: AtomicU64,
    /// A thread of its own removes folders, so that no slot waits for that. `None` ends the thread.
    sweep: mpsc::Sender<Option<PathBuf>>,
    sweeper: Option<JoinHandle<()>>,
    /// Locked as long as the process lives. Another process that can lock it knows that this one is
    /// gone.
    lock: File,
}

/// The folder of one task, `/tmp` included. It is removed when this is dropped.
#[derive(Debug)]
pub struct TaskFolder {
    path: PathBuf,
    sweep: mpsc::Sender<Option<PathBuf>>,
}

impl TaskFolders {
    /// Makes a folder for this process in `work`, and removes those of processes that are gone.
    pub fn open(work: &Path) -> io::Result<TaskFolders> {
        private_folder(work)?;
        remove_abandoned(work);
        let name = uuid::Uuid::now_v7().simple().to_string();
        let lock = File::create(work.join(format!("{name}.lock")))?;
        lock.lock()?;
        let base = work.join(name);
        private_folder(&base)?;
        let (sweep, dirty) = mpsc::channel::<Option<PathBuf>>();
        let sweeper = long_lived::spawn("sweeper", move || {
            for path in dirty.into_iter().map_while(|path| path) {
                remove(&path);
            }
        })?;
        Ok(TaskFolders {
            base,
            next: AtomicU64::new(0),
            sweep,
            sweeper: Some(sweeper),
            lock,
        })
    }

    /// The folder of this process.
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

impl Drop for TaskFolders {
    fn drop(&mut self) {
        // Some task folders may still be in use, because their files wait for a master that is
        // away. They are removed with the rest.
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
    /// The folder that holds both [`TaskFolder::own`] and [`TaskFolder::tmp`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_still_in_use_holds_up_no_end() {
        let work = tempfile::tempdir().unwrap();
        let folders = TaskFolders::open(work.path()).unwrap();
        let one = folders.make().unwrap();
        let other = folders.make().unwrap();
        fs::write(one.own().join("waits"), "").unwrap();
        drop(other);
        drop(folders);
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0, "all is gone");
        drop(one);
    }
}
