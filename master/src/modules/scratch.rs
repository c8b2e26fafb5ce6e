//! A master's handle without an engine, for tests.

use crate::handle::MasterHandle;
use std::sync::Arc;
use taskmaster_engine::durable_commit::DurableCommit;
use taskmaster_engine::events::EventFeed;
use taskmaster_engine::inbox::Input;
use taskmaster_protocol::{JobName, Wall};
use taskmaster_store::kv::{SharedStore, memory::MemoryStore};
use taskmaster_store::record::{JournalEntry, Record};

/// A handle, and what it tells the engine.
pub(crate) fn fake_engine() -> (MasterHandle, std::sync::mpsc::Receiver<Input>) {
    let (inbox, inputs) = std::sync::mpsc::channel();
    let reader: SharedStore = Arc::new(MemoryStore::default());
    let events = EventFeed::new(0, reader.clone());
    let handle = MasterHandle {
        inbox,
        reader,
        events,
        epoch: 7,
        room: Default::default(),
        sick_runners: Default::default(),
    };
    (handle, inputs)
}

/// Publishes a durable event, `job:done`.
pub(crate) fn log_job_done(handle: &MasterHandle, job: &str, run: u32) {
    let records = vec![Record::JobDone {
        job: JobName::new(job).unwrap(),
        run,
    }];
    let entry = JournalEntry {
        first_seq: handle.events.latest() + 1,
        time: Wall(0),
        records,
    };
    handle.events.publish(&DurableCommit::of(entry.into()));
}
