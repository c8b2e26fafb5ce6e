//! What is known of the space on the disk, shared by who measures it, who writes to the disk, and the
//! engine, which is told of changes.
//!
//! There are two marks. Below the first, what makes the store grow for others is refused, and what
//! was accepted goes on to its end. Below the second nothing can be written: commits wait, and
//! runners keep their results.

use crate::disk_space::DiskSpace;
use crate::inbox::Input;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use taskmaster_store::disk::{AMPLE_BYTES, LOW_BYTES, free_bytes};
use taskmaster_store::kv::{KeyValue, KvStore, SharedStore, StoreError, WriteBatch};

/// How often free space is measured: the disk would have to fill by a gigabyte in it to get past
/// both marks unseen, and even then nothing is lost.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often a write that found no room is tried again.
pub const TRY_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct MeasuredSpace {
    low: Option<String>,
    full: Option<String>,
}

impl MeasuredSpace {
    fn disk(&self) -> DiskSpace {
        match (&self.full, &self.low) {
            (Some(why), _) => DiskSpace::Full(why.clone()),
            (None, Some(why)) => DiskSpace::Low(why.clone()),
            (None, None) => DiskSpace::Ample,
        }
    }
}

/// What is known of the disk, shared by who measures it, who writes to it and who tells of it.
/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct DiskMonitor {
    state: Arc<Mutex<MeasuredSpace>>,
    over: Arc<AtomicBool>,
    /// Held while the view is written, and by who needs it to stand still.
    still: Arc<Mutex<()>>,
    engine: Option<Sender<Input>>,
}

impl DiskMonitor {
    /// Changes are told to `engine`.
    pub fn new(engine: Sender<Input>) -> DiskMonitor {
        DiskMonitor {
            engine: Some(engine),
            ..DiskMonitor::default()
        }
    }

    fn measured_space(&self) -> MutexGuard<'_, MeasuredSpace> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands now.
    pub fn disk(&self) -> DiskSpace {
        self.measured_space().disk()
    }

    /// Changes what is known. The engine is told while the lock is held, so that it hears changes
    /// in their order.
    fn change(&self, change: impl FnOnce(&mut MeasuredSpace)) {
        let mut state = self.measured_space();
        let before = state.disk();
        change(&mut state);
        let after = state.disk();
        if std::mem::discriminant(&before) == std::mem::discriminant(&after) {
            return;
        }
        match &after {
            DiskSpace::Ample => {
                tracing::warn!("there is room on the disk again: everything is taken")
            }
            DiskSpace::Low(why) => tracing::warn!(%why, "adds are refused"),
            DiskSpace::Full(why) => {
                tracing::error!(%why, "nothing can be written; commits wait for room")
            }
        }
        if let Some(engine) = &self.engine {
            // The engine may have ended.
            let _ = engine.send(Input::DiskSpace(after));
        }
    }

    /// A write found no room, or (`None`) found some.
    pub fn written(&self, full: Option<String>) {
        if full.is_some() || self.measured_space().full.is_some() {
            self.change(|state| state.full = full);
        }
    }

    /// As long as this is held, nothing is folded, pruned or trimmed.
    pub fn stand_still(&self) -> MutexGuard<'_, ()> {
        self.still.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for room any more: the master ends.
    pub fn close(&self) {
        self.over.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Measures the disk that holds `folder` until nobody holds the other end of `stop`.
    pub fn measure(&self, folder: &Path, stop: &Receiver<()>) {
        loop {
            // A file system that does not tell is one that has room until a write says otherwise.
            if let Ok(free) = free_bytes(folder) {
                self.measured(folder, free);
            }
            if !matches!(
                stop.recv_timeout(LOOK_EVERY),
                Err(RecvTimeoutError::Timeout)
            ) {
                return;
            }
        }
    }

    /// The disk that holds `folder` has so many bytes free.
    pub fn measured(&self, folder: &Path, free: u64) {
        self.change(|state| {
            let mark = if state.low.is_some() {
                AMPLE_BYTES
            } else {
                LOW_BYTES
            };
            state.low = (free < mark).then(|| low(folder, free));
        });
    }
}

fn low(folder: &Path, free: u64) -> String {
    let (free, mark) = (free >> 20, AMPLE_BYTES >> 20);
    let folder = folder.display();
    format!(
        "the disk that holds {folder} is full: {free} MiB are free, and what is left is kept for the results of what was added before; make room until {mark} MiB are free, then it goes on by itself"
    )
}

/// A store for who can wait: a write that finds no room is tried again until there is some.
pub struct PatientStore {
    store: SharedStore,
    room: DiskMonitor,
}

impl PatientStore {
    /// Over `store`, until `room` is closed.
    pub fn new(store: SharedStore, room: DiskMonitor) -> PatientStore {
        PatientStore { store, room }
    }
}

impl KvStore for PatientStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reversed: bool,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        self.store.scan(from, to, reversed, limit)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        loop {
            let still = self.room.stand_still();
            let written = self.store.write(batch.clone());
            drop(still);
            match written {
                Err(StoreError::Full(_)) if !self.room.is_over() => std::thread::sleep(TRY_EVERY),
                written => return written,
            }
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn the_marks_are_crossed_once_each_way() {
        let (engine, told) = channel();
        let room = DiskMonitor::new(engine);
        let folder = Path::new("/data");
        let said = || match told.try_recv() {
            Ok(Input::DiskSpace(disk)) => Some(disk),
            _ => None,
        };
        room.measured(folder, AMPLE_BYTES);
        assert_eq!(said(), None, "nothing has changed");
        room.measured(folder, LOW_BYTES - 1);
        assert!(
            said()
                .unwrap()
                .refusal()
                .unwrap()
                .contains("/data is full: 127 MiB are free")
        );
        room.measured(folder, LOW_BYTES + 1);
        assert_eq!(said(), None, "between the marks it stays as it is");
        room.written(Some("no room".into()));
        assert_eq!(said(), Some(DiskSpace::Full("no room".into())));
        room.measured(folder, AMPLE_BYTES);
        assert_eq!(said(), None, "only a write shows that there is room");
        room.written(None);
        assert_eq!(
            (said(), room.disk()),
            (Some(DiskSpace::Ample), DiskSpace::Ample)
        );
    }
}
