//! The folders of tasks on this machine. A folder is made before its task runs and removed after
//! it.

use super::tree::remove_tree;
use crate::leaving::leave;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
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
    lock: Mutex<File>,
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
        let base = work.join(uuid::Uuid::now_v7().simple().to_string());
        let lock = Mutex::new(make_base(&base)?);
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

    /// A new, empty folder. Where somebody has removed the folder of this process, it is made anew.
    pub fn make(&self) -> io::Result<TaskFolder> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = TaskFolder {
            path: self.base.join(number.to_string()),
            sweep: self.sweep.clone(),
        };
        match fs::create_dir(&folder.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_base_anew()?;
                fs::create_dir(&folder.path)?;
            }
            made => made?,
        }
        fs::create_dir(folder.own())?;
        fs::create_dir(folder.tmp())?;
        Ok(folder)
    }

    /// Makes the folder of this process anew, unless another slot has done so meanwhile. Two at a
    /// time would wait for each other: a process does not get a lock that it has.
    fn make_base_anew(&self) -> io::Result<()> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.base.is_dir() {
            return Ok(());
        }
        // The locked file may still be there, beside the folder that is gone.
        lock.unlock()?;
        *lock = make_base(&self.base)?;
        tracing::warn!("{} was gone, and is made anew", self.base.display());
        Ok(())
    }
}

/// Makes the folder of this process, and locks the file beside it.
fn make_base(base: &Path) -> io::Result<File> {
    private_folder(base)?;
    let lock = File::create(base.with_extension("lock"))?;
    lock.lock()?;
    Ok(lock)
}

impl Drop for TaskFolders {
    fn drop(&mut self) {
        // Some task folders may still be in use, because their files wait for a master that is
        // away. They are removed with the rest.
        let _ = self.sweep.send(None);
        if !leave(self.sweeper.take()) {
            // The next process on this machine removes the rest.
            return;
        }
        remove(&self.base);
        let _ = fs::remove_file(self.base.with_extension("lock"));
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
    if let Err(error) = remove_tree(path) {
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

    #[test]
    fn a_folder_that_somebody_removed_is_made_anew_and_still_belongs_to_this_process() {
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("work");
        let folders = TaskFolders::open(&path).unwrap();
        fs::remove_dir_all(&path).unwrap();
        let made = folders.make().unwrap();
        fs::write(made.own().join("kept"), "").unwrap();
        drop(TaskFolders::open(&path).unwrap());
        assert!(made.own().join("kept").exists(), "another process left it");
        drop(made);
        drop(folders);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn slots_that_find_the_folder_gone_at_the_same_time_do_not_wait_for_each_other() {
        const SLOTS: usize = 8;
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("work");
        let folders = std::sync::Arc::new(TaskFolders::open(&path).unwrap());
        let mut kept = Vec::new();
        for round in 0..20 {
            // The whole, or the folder alone, beside which the locked file stays.
            let gone = if round % 2 == 0 {
                &path
            } else {
                folders.base()
            };
            fs::remove_dir_all(gone).unwrap();
            let begin = std::sync::Arc::new(std::sync::Barrier::new(SLOTS));
            let (made, all) = mpsc::channel();
            for _ in 0..SLOTS {
                let folders = folders.clone();
                let begin = begin.clone();
                let made = made.clone();
                std::thread::spawn(move || {
                    begin.wait();
                    made.send(folders.make()).unwrap();
                });
            }
            for _ in 0..SLOTS {
                let patience = std::time::Duration::from_secs(20);
                let folder = all.recv_timeout(patience).expect("nobody waits for ever");
                let folder = folder.unwrap();
                assert!(folder.own().is_dir());
                kept.push(folder);
            }
        }
    }
}
