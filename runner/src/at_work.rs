//! Which attempts are at work, in a file that outlives the process. A task may end the whole process
//! with everything in it, by taking all memory for example. The next process of the same runner
//! reads the file and tells the master, so that a task which does this again and again is found out.
//!
//! Most attempts are far too short to be written. An attempt is written when it has been at work for
//! [`WRITTEN_AFTER`]. After a process that died, every attempt is written before it starts, for
//! [`CAREFUL_FOR`], because the task that ended the process may have been too quick.

use crate::slots::queue::SlotNumber;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use taskmaster_console::long_lived;
use taskmaster_protocol::message::Attempt;

/// How long an attempt is at work before it is written. It bounds the number of writes to some
/// hundreds a second and slot.
const WRITTEN_AFTER: Duration = Duration::from_millis(20);

/// How long a process that follows one that died writes every attempt before it starts. The task
/// that ended the last process is sent again within seconds.
const CAREFUL_FOR: Duration = Duration::from_secs(300);

/// After this time nobody comes back for the file of a dead process.
const KEPT_FOR: Duration = Duration::from_secs(7 * 86_400);

/// Bytes of the place of one slot in the file: an attempt as JSON, filled up with spaces.
const PLACE_BYTES: usize = 512;

/// Bytes of a file that are read at most. It is the size for more slots than a runner may have.
const FILE_BYTES_MAX: u64 = 8_192 * PLACE_BYTES as u64;

/// An attempt on its slot.
struct Place {
    attempt: Attempt,
    since: Instant,
    is_written: bool,
}

struct Places {
    by_slot: Vec<Option<Place>>,
    /// Whether the watching thread waits for an attempt to begin.
    watcher_sleeps: bool,
    is_closed: bool,
    file: File,
}

/// The attempts that are at work in this process, and their file.
pub struct AttemptsAtWork {
    places: Mutex<Places>,
    began: Condvar,
    /// Until when each attempt is written before it starts.
    careful_until: Option<Instant>,
    path: PathBuf,
}

/// What a new process finds.
pub struct Opened {
    /// The file of this process.
    pub at_work: Arc<AttemptsAtWork>,
    /// What was at work in earlier processes of this runner, which died.
    pub lost: Vec<Attempt>,
}

impl AttemptsAtWork {
    /// Reads and removes the files of earlier processes of the runner `name`, and begins one.
    pub fn open(folder: &Path, name: &str, slots: u32) -> std::io::Result<Opened> {
        std::fs::create_dir_all(folder)?;
        let mut lost = Vec::new();
        let mut found_any = false;
        for entry in std::fs::read_dir(folder)? {
            if let Some(attempts) = take_file_of_dead(&entry?.path(), name) {
                found_any = true;
                lost.extend(attempts);
            }
        }

        let path = folder.join(uuid::Uuid::now_v7().simple().to_string());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        file.try_lock().map_err(std::io::Error::from)?;
        write_place(&mut file, 0, &serde_json::to_string(name)?)?;

        let at_work = Arc::new(AttemptsAtWork {
            places: Mutex::new(Places {
                by_slot: (0..slots).map(|_| None).collect(),
                watcher_sleeps: false,
                is_closed: false,
                file,
            }),
            began: Condvar::new(),
            careful_until: found_any.then(|| Instant::now() + CAREFUL_FOR),
            path,
        });
        let watched = at_work.clone();
        long_lived::spawn("at-work", move || watched.watch())?;
        Ok(Opened { at_work, lost })
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing between lock and unlock can panic.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt begins on a slot.
    pub fn begin(&self, slot: SlotNumber, attempt: &Attempt) {
        let since = Instant::now();
        let writes_now = self.careful_until.is_some_and(|until| since < until);
        let mut places = self.lock();
        let place = Place {
            attempt: attempt.clone(),
            since,
            is_written: false,
        };
        let Some(empty) = places.by_slot.get_mut(slot.0) else {
            return;
        };
        *empty = Some(place);
        if writes_now {
            places.write(slot);
        }
        if std::mem::take(&mut places.watcher_sleeps) {
            self.began.notify_one();
        }
    }

    /// What was at work on a slot has ended.
    pub fn end(&self, slot: SlotNumber) {
        let mut places = self.lock();
        let ended = places.by_slot.get_mut(slot.0).and_then(Option::take);
        if ended.is_some_and(|place| place.is_written) {
            places.erase(slot);
        }
    }

    /// Writes what has been at work for long enough, until the file is closed.
    fn watch(&self) {
        let mut places = self.lock();
        while !places.is_closed {
            if places.by_slot.iter().all(Option::is_none) {
                places.watcher_sleeps = true;
                let woken = self.began.wait(places);
                places = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.began.wait_timeout(places, WRITTEN_AFTER);
            places = waited.unwrap_or_else(PoisonError::into_inner).0;
            let now = Instant::now();
            let long: Vec<SlotNumber> = places.long_at_work(now).collect();
            for slot in long {
                places.write(slot);
            }
        }
    }

    /// Removes the file: the process ends in order, and nothing is at work.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.began.notify_all();
        // A file that stays makes the next process write more often, and does no other harm.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Places {
    /// The slots whose attempts have been at work for [`WRITTEN_AFTER`] and are not written.
    fn long_at_work(&self, now: Instant) -> impl Iterator<Item = SlotNumber> {
        self.by_slot.iter().enumerate().filter_map(move |(i, at)| {
            let place = at.as_ref()?;
            let is_long = now.duration_since(place.since) >= WRITTEN_AFTER;
            (is_long && !place.is_written).then_some(SlotNumber(i))
        })
    }

    fn write(&mut self, slot: SlotNumber) {
        let Some(Some(place)) = self.by_slot.get_mut(slot.0) else {
            return;
        };
        place.is_written = true;
        // Whether the file can be written decides about nothing else: on a full disk a task that ends
        // the process is found out later.
        if let Ok(text) = serde_json::to_string(&place.attempt) {
            let _ = write_place(&mut self.file, 1 + slot.0, &text);
        }
    }

    fn erase(&mut self, slot: SlotNumber) {
        let _ = write_place(&mut self.file, 1 + slot.0, "");
    }
}

fn write_place(file: &mut File, place: usize, text: &str) -> std::io::Result<()> {
    if text.len() >= PLACE_BYTES {
        return Ok(());
    }
    let mut bytes = [b' '; PLACE_BYTES];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes[PLACE_BYTES - 1] = b'\n';
    file.seek(SeekFrom::Start((place * PLACE_BYTES) as u64))?;
    file.write_all(&bytes)
}

/// What was at work in a process of the runner `name` that is dead. Its file is removed. `None` for
/// the file of a process that lives, or of another runner.
fn take_file_of_dead(path: &Path, name: &str) -> Option<Vec<Attempt>> {
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    // A process that lives has locked its file.
    file.try_lock().ok()?;
    let mut bytes = Vec::new();
    (&file).take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;

    let mut places = bytes.chunks(PLACE_BYTES);
    let owner: Option<String> = places.next().and_then(read_place);
    if owner.as_deref() != Some(name) {
        let changed = file.metadata().and_then(|metadata| metadata.modified());
        let age = changed.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if age.is_ok_and(|age| age > KEPT_FOR) {
            let _ = std::fs::remove_file(path);
        }
        return None;
    }
    let _ = std::fs::remove_file(path);
    Some(places.filter_map(read_place).collect())
}

/// What stands in a place; `None` if it is empty, or was being written when the machine stopped.
fn read_place<T: serde::de::DeserializeOwned>(place: &[u8]) -> Option<T> {
    serde_json::from_slice(place).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{AttemptId, TaskId};

    fn attempt(id: &str) -> Attempt {
        Attempt {
            id: TaskId::new(id).unwrap(),
            attempt: AttemptId { epoch: 1, n: 1 },
        }
    }

    /// Lets go of the file's lock as the end of the process does, and leaves the file.
    fn die(opened: Opened) {
        let places = opened.at_work.lock();
        places.file.unlock().unwrap();
    }

    fn lost(folder: &Path, name: &str) -> Vec<Attempt> {
        let opened = AttemptsAtWork::open(folder, name, 2).unwrap();
        let lost = opened.lost.clone();
        opened.at_work.close();
        lost
    }

    #[test]
    fn what_was_at_work_for_long_is_known_to_the_next_process_of_the_same_runner() {
        let folder = tempfile::tempdir().unwrap();
        let first = AttemptsAtWork::open(folder.path(), "mill", 2).unwrap();
        first.at_work.begin(SlotNumber(0), &attempt("long"));
        std::thread::sleep(3 * WRITTEN_AFTER);
        first.at_work.begin(SlotNumber(1), &attempt("short"));
        first.at_work.end(SlotNumber(1));

        assert_eq!(lost(folder.path(), "mill"), [], "its process lives");
        die(first);
        assert_eq!(lost(folder.path(), "other"), [], "it is another runner's");
        assert_eq!(lost(folder.path(), "mill"), [attempt("long")]);
        assert_eq!(lost(folder.path(), "mill"), [], "it is told once");
    }

    #[test]
    fn after_a_death_each_attempt_is_written_before_it_starts() {
        let folder = tempfile::tempdir().unwrap();
        die(AttemptsAtWork::open(folder.path(), "mill", 2).unwrap());
        let second = AttemptsAtWork::open(folder.path(), "mill", 2).unwrap();
        second.at_work.begin(SlotNumber(0), &attempt("over"));
        second.at_work.end(SlotNumber(0));
        second.at_work.begin(SlotNumber(1), &attempt("quick"));
        die(second);
        assert_eq!(lost(folder.path(), "mill"), [attempt("quick")]);
    }

    #[test]
    fn a_process_that_ends_in_order_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let only = AttemptsAtWork::open(folder.path(), "mill", 1).unwrap();
        only.at_work.begin(SlotNumber(0), &attempt("a"));
        only.at_work.end(SlotNumber(0));
        only.at_work.close();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_spoilt_file_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x"), [0xff; 3 * PLACE_BYTES]).unwrap();
        std::fs::write(folder.path().join("y"), "\"mill\"").unwrap();
        assert_eq!(lost(folder.path(), "mill"), []);
    }
}
