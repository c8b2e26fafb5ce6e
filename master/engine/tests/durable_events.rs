//! What is written and not safe yet is told to nobody, also by the journal.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

use std::sync::Arc;
use taskmaster_engine::durable_commit::DurableCommit;
use taskmaster_engine::events::EventFeed;
use taskmaster_protocol::Wall;
use taskmaster_store::codec;
use taskmaster_store::journal::{Journal, KvJournal};
use taskmaster_store::kv::{SharedStore, memory::MemoryStore};
use taskmaster_store::record::{JournalEntry, Record};

#[test]
fn the_journal_tells_of_no_event_that_is_not_published() {
    let store: SharedStore = Arc::new(MemoryStore::default());
    let mut journal = KvJournal::open(store.clone()).unwrap();
    let entry = |seq: u64| {
        let records = vec![Record::RunnerJoined {
            name: format!("r{seq}"),
        }];
        Arc::new(JournalEntry {
            first_seq: seq,
            time: Wall(0),
            records,
        })
    };
    journal
        .append(1, &codec::encode(entry(1).as_ref()))
        .unwrap();
    journal.sync().unwrap();
    // A master has started on it: its memory has no events. It is at its next commit, and the sync
    // is under way.
    let feed = EventFeed::new(1, store);
    journal
        .append(2, &codec::encode(entry(2).as_ref()))
        .unwrap();
    let told = |feed: &EventFeed| {
        feed.read_after(0)
            .unwrap()
            .iter()
            .map(|event| event.seq())
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&feed), [1]);
    assert!(feed.read_after(1).unwrap().is_empty());
    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let events = waiting.block_on(feed.after(0)).unwrap();
    assert_eq!(
        events.iter().map(|event| event.seq()).collect::<Vec<_>>(),
        [1]
    );
    feed.publish(&DurableCommit::of(entry(2)));
    assert_eq!(told(&feed), [1, 2]);
}
