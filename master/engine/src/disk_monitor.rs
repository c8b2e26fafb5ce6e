//! Watches the space on the disk. The threads that write to the disk share a [`DiskMonitor`], and the
//! monitor tells the engine about changes.
//!
//! There are two stages. When free space is low, requests that make the store grow are refused, and
//! accepted tasks run to their end. When a write finds the disk full, commits wait and runners keep
//! their results.

use crate::disk_space::DiskSpace;
use crate::inbox::Input;
use crate::store_damage::StoreDamage;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use taskmaster_store::disk::{AMPLE_BYTES, LOW_BYTES, StoreFile, free_bytes};
use taskmaster_store::kv::{KeyValue, KvStore, SharedStore, StoreError, WriteBatch};

/// How often free space is measured. The disk can become full between two looks, but only if it
/// fills by a gigabyte in that time, and even then nothing is lost.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The pause before a write that found the disk full is tried again.
pub const TRY_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct MeasuredSpace {
    /// Why free space counts as low; `None` while there is enough.
    low: Option<String>,
    /// The error of the last write, if it found the disk full.
    full: Option<String>,
    /// What is wrong with the store; `None` while nothing is known to be.
    damage: Option<String>,
}

impl MeasuredSpace {
    fn disk(&self) -> DiskSpace {
        match (&self.full, &self.damage, &self.low) {
            (Some(why), _, _) => DiskSpace::Full(why.clone()),
            (None, Some(why), _) => DiskSpace::Damaged(why.clone()),
            (None, None, Some(why)) => DiskSpace::Low(why.clone()),
            (None, None, None) => DiskSpace::Ample,
        }
    }
}

/// The measured space of the disk, and the locks around writing to the disk. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct DiskMonitor {
    state: Arc<Mutex<MeasuredSpace>>,
    /// The master ends, so writes do not wait for disk space any more.
    is_closed: Arc<AtomicBool>,
    /// Locked for each write to the view, and by a backup, which needs the view unchanged.
    view_lock: Arc<Mutex<()>>,
    /// Where all threads note damage of the store.
    damage: StoreDamage,
    /// How many backups are being sent. While there is one, no blob is removed.
    blob_holds: Arc<AtomicUsize>,
    /// Hears about changes; `None` in tools and tests without an engine.
    engine: Option<Sender<Input>>,
}

impl DiskMonitor {
    /// A monitor that tells `engine` about changes.
    pub fn new(engine: Sender<Input>) -> DiskMonitor {
        DiskMonitor {
            engine: Some(engine),
            ..DiskMonitor::default()
        }
    }

    fn measured_space(&self) -> MutexGuard<'_, MeasuredSpace> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present state of the disk.
    pub fn disk(&self) -> DiskSpace {
        self.measured_space().disk()
    }

    /// Changes the measured space. The engine is told under the lock, so that it hears about
    /// changes in their order.
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
            // The first to note it has logged it.
            DiskSpace::Damaged(_) => {}
            DiskSpace::Full(why) => {
                tracing::error!(%why, "nothing can be written; commits wait for room")
            }
        }
        if let Some(engine) = &self.engine {
            // The engine may have ended.
            let _ = engine.send(Input::DiskSpace(after));
        }
    }

    /// Notes how a write ended: `full` says why it found the disk full, or is `None`.
    pub fn record_write(&self, full: Option<String>) {
        if full.is_some() || self.measured_space().full.is_some() {
            self.change(|state| state.full = full);
        }
    }

    /// Notes that the fold has ended with an error. What is added from now on is only in the journal,
    /// which grows until the master ends.
    pub fn record_stopped_fold(&self, error: &StoreError) {
        if matches!(error, StoreError::Full(_)) {
            return tracing::warn!(%error, "the master ends before everything is folded");
        }
        self.damage
            .record_text(format!("the view can be folded no more: {error}"));
        self.look_for_damage();
    }

    /// Where damage of the store is noted.
    pub fn damage(&self) -> StoreDamage {
        self.damage.clone()
    }

    /// Takes over what was noted by threads that only read.
    fn look_for_damage(&self) {
        if self.measured_space().damage.is_none()
            && let Some(why) = self.damage.found()
        {
            self.change(|state| state.damage = Some(why));
        }
    }

    /// Locks the view: while the guard is held, nothing is folded, pruned or trimmed.
    pub fn lock_view(&self) -> MutexGuard<'_, ()> {
        self.view_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no blob be removed while the guard is held.
    pub fn hold_blobs(&self) -> BlobHold {
        self.blob_holds.fetch_add(1, Ordering::AcqRel);
        BlobHold(self.blob_holds.clone())
    }

    /// Whether no blob may be removed now.
    pub fn blobs_are_held(&self) -> bool {
        self.blob_holds.load(Ordering::Acquire) > 0
    }

    /// The master ends: no write waits for disk space any more.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Measures the disk that holds `folder` until the sender of `stop` is dropped, or until the
    /// store's file is gone.
    pub fn measure(&self, folder: &Path, file: &StoreFile, stop: &Receiver<()>) -> MeasureEnd {
        loop {
            if file.is_gone() {
                return MeasureEnd::StoreGone;
            }
            self.look_for_damage();
            // A file system that does not tell its free space has enough until a write fails.
            if let Ok(free) = free_bytes(folder) {
                self.record_free_bytes(folder, free);
            }
            if !matches!(
                stop.recv_timeout(LOOK_EVERY),
                Err(RecvTimeoutError::Timeout)
            ) {
                return MeasureEnd::Stopped;
            }
        }
    }

    /// Notes that `free` bytes are free on the disk that holds `folder`. Low space counts as low
    /// until there is ample space again.
    pub fn record_free_bytes(&self, folder: &Path, free: u64) {
        self.change(|state| {
            let wanted = if state.low.is_some() {
                AMPLE_BYTES
            } else {
                LOW_BYTES
            };
            state.low = (free < wanted).then(|| low_space(folder, free));
        });
    }
}

/// Why a disk is measured no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeasureEnd {
    /// The master ends.
    Stopped,
    /// The store's file was removed, or another one was put in its place.
    StoreGone,
}

/// While it is held, no blob is removed.
#[derive(Debug)]
pub struct BlobHold(Arc<AtomicUsize>);

impl Drop for BlobHold {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why adds are refused while `free` bytes are free.
fn low_space(folder: &Path, free: u64) -> String {
    let free = free >> 20;
    let ample = AMPLE_BYTES >> 20;
    let folder = folder.display();
    format!(
        "the disk that holds {folder} is full: {free} MiB are free, and what is left is kept for \
         the results of what was added before; make room until {ample} MiB are free, then it goes \
         on by itself"
    )
}

/// A store whose writes wait for disk space: a write that finds the disk full is tried again until
/// it succeeds. For threads that may wait, such as the fold.
pub struct PatientStore {
    store: SharedStore,
    disk: DiskMonitor,
}

impl PatientStore {
    /// Writes to `store`, and gives up on a full disk when `disk` is closed.
    pub fn new(store: SharedStore, disk: DiskMonitor) -> PatientStore {
        PatientStore { store, disk }
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
            let view = self.disk.lock_view();
            let result = self.store.write(batch.clone());
            drop(view);
            match result {
                Err(StoreError::Full(_)) if !self.disk.is_closed() => {
                    std::thread::sleep(TRY_EVERY);
                }
                result => return result,
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
    fn damage_of_the_store_refuses_adds_until_the_end() {
        let (engine, told) = channel();
        let monitor = DiskMonitor::new(engine);
        let why = || StoreError::Failed("a fold that cannot go on".into());
        monitor.record_stopped_fold(&StoreError::Full("the master ends".into()));
        assert!(told.try_recv().is_err() && monitor.damage().found().is_none());
        monitor.record_stopped_fold(&why());
        monitor.record_stopped_fold(&StoreError::Failed("another one".into()));
        let Ok(Input::DiskSpace(DiskSpace::Damaged(text))) = told.try_recv() else {
            panic!("the engine was not told");
        };
        assert!(
            text.contains("folded no more") && text.contains("cannot go on"),
            "{text}"
        );
        assert!(told.try_recv().is_err(), "it is told once");
        assert_eq!(monitor.damage().found(), Some(text.clone()));
        monitor.record_free_bytes(Path::new("/data"), LOW_BYTES - 1);
        assert_eq!(monitor.disk(), DiskSpace::Damaged(text));
    }

    #[test]
    fn each_change_is_told_once() {
        let (engine, told) = channel();
        let monitor = DiskMonitor::new(engine);
        let folder = Path::new("/data");
        let change = || match told.try_recv() {
            Ok(Input::DiskSpace(disk)) => Some(disk),
            _ => None,
        };
        monitor.record_free_bytes(folder, AMPLE_BYTES);
        assert_eq!(change(), None, "nothing has changed");
        monitor.record_free_bytes(folder, LOW_BYTES - 1);
        assert!(
            change()
                .unwrap()
                .refusal()
                .unwrap()
                .contains("/data is full: 127 MiB are free")
        );
        monitor.record_free_bytes(folder, LOW_BYTES + 1);
        assert_eq!(change(), None, "between the two limits the state stays");
        monitor.record_write(Some("no space".into()));
        assert_eq!(change(), Some(DiskSpace::Full("no space".into())));
        monitor.record_free_bytes(folder, AMPLE_BYTES);
        assert_eq!(change(), None, "only a write shows that there is space");
        monitor.record_write(None);
        assert_eq!(
            (change(), monitor.disk()),
            (Some(DiskSpace::Ample), DiskSpace::Ample)
        );
    }
}
