//! What the tests of the master's outside stand on: a folder removed at the end, and a fake engine.

use crate::events::EventFeed;
use crate::inbox::{Input, MasterHandle};
use crate::record::{Entry, Record};
use crate::store::{Reader, memory::MemoryShelf};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use taskmaster_protocol::{JobName, Wall};

pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("taskmaster-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A handle whose other end is a test.
pub(crate) fn fake_engine() -> (MasterHandle, std::sync::mpsc::Receiver<Input>) {
    let (inbox, inputs) = std::sync::mpsc::channel();
    let reader: Reader = Arc::new(MemoryShelf::default());
    let events = EventFeed::new(0, reader.clone());
    (
        MasterHandle {
            inbox,
            reader,
            events,
            epoch: 7,
            room: Default::default(),
        },
        inputs,
    )
}

/// A durable event of the fake engine: `job:done`.
pub(crate) fn log_job_done(handle: &MasterHandle, job: &str, run: u32) {
    let records = vec![Record::JobDone {
        job: JobName::new(job).unwrap(),
        run,
    }];
    handle.events.publish(&Arc::new(Entry {
        first_seq: handle.events.latest() + 1,
        time: Wall(0),
        records,
    }));
}
