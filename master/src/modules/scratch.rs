//! A handle whose engine is a test.

use crate::handle::MasterHandle;
use std::sync::Arc;
use taskmaster_engine::events::EventFeed;
use taskmaster_engine::inbox::Input;
use taskmaster_protocol::{JobName, Wall};
use taskmaster_store::kv::{Reader, memory::MemoryShelf};
use taskmaster_store::record::{Entry, Record};

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
