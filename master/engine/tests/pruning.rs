//! What the fold forgets of ended tasks, and what it must keep.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use taskmaster_engine::folding::Folding;
use taskmaster_engine::inbox::Input;
use taskmaster_engine::settings::Keep;
use taskmaster_protocol::{AttemptId, JobName, TaskDocument, TaskId, TaskState, Wall};
use taskmaster_store::body::{AddedTask, Fingerprint, TaskBody};
use taskmaster_store::codec;
use taskmaster_store::journal::{Journal, KvJournal};
use taskmaster_store::kv::{SharedStore, memory::MemoryStore};
use taskmaster_store::record::{Ended, JournalEntry, Record, TaskEnd};
use taskmaster_store::view;

fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

fn body(ordinal: u64) -> Arc<TaskBody> {
    let document = TaskDocument::parse(r#"{"module":"m"}"#).unwrap();
    Arc::new(TaskBody::new(AddedTask {
        document,
        fingerprint: Fingerprint::of("m"),
        references: Vec::new(),
        id: id(&format!("t{ordinal}")),
        job: JobName::new("j").unwrap(),
        ordinal,
        created: Wall(0),
        job_results: Vec::new(),
        lineage: None,
        cache: None,
    }))
}

fn ended(seq: u64, body: &TaskBody) -> Arc<Ended> {
    let attempt = AttemptId { epoch: 1, n: 1 };
    let end = TaskEnd::new(TaskState::Done, attempt, Wall(seq as i64));
    Arc::new(Ended::new(seq, body, end))
}

/// A view with `n` tasks that were added in one commit and ended in the next.
fn many(n: u64) -> SharedStore {
    let store: SharedStore = Arc::new(MemoryStore::default());
    let bodies: Vec<_> = (1..=n).map(body).collect();
    let added = bodies.iter().cloned().map(Record::Added).collect();
    let done = bodies
        .iter()
        .map(|body| Record::Ended(ended(n + body.ordinal, body)))
        .collect();
    let mut journal = KvJournal::open(store.clone()).unwrap();
    for (commit, first_seq, records) in [(1, 1, added), (2, n + 1, done)] {
        let entry = JournalEntry {
            first_seq,
            time: Wall(0),
            records,
        };
        journal.append(commit, &codec::encode(&entry)).unwrap();
    }
    view::catch_up(&store).unwrap();
    store
}

#[test]
fn what_is_too_old_or_too_many_is_forgotten_unless_the_engine_needs_it() {
    let store = many(100);
    let (engine, asked) = channel();
    // The engine of this test needs `t3`.
    let answering = std::thread::spawn(move || {
        while let Ok(Input::Prune { tasks, reply }) = asked.recv() {
            let free = tasks
                .into_iter()
                .filter(|task| task.ended.id != id("t3"))
                .collect();
            reply.send(free).unwrap();
        }
    });
    let keep = Keep {
        count: 40,
        time: Duration::MAX,
    };
    let mut folding = Folding::new(store.clone(), keep, engine);
    folding.prune(Wall(i64::MAX), 1_000).unwrap();
    drop(folding);
    answering.join().unwrap();
    let kept = |no: u64| {
        view::ended_task(store.as_ref(), &id(&format!("t{no}")))
            .unwrap()
            .is_some()
    };
    assert!(
        (61..=100).all(kept) && kept(3),
        "the newest 40, and the one that is needed"
    );
    assert!(!kept(1) && !kept(2) && !kept(60));
    assert_eq!(view::watermarks(store.as_ref()).unwrap().ended_count, 41);
    let listed = view::ended_before(store.as_ref(), u64::MAX, 1_000).unwrap();
    assert!(
        listed.len() == 41 && listed.iter().any(|task| task.ended.id == id("t3")),
        "the list has what is kept"
    );
}
