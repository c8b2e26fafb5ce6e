//! The ledger against a master that is played by hand.

use super::*;
use taskmaster_protocol::{Json, ToMaster};

fn welcome() -> Welcome {
    Welcome {
        protocol: 1,
        epoch: 1,
        seq: 0,
        message_bytes_max: 1 << 25,
        batch_tasks_max: 3,
        leader: None,
    }
}

/// A ledger that is fed by ids.
struct Feed {
    ledger: Ledger,
    hasher: IdHasher,
    lines: u64,
}

impl Feed {
    fn new() -> Feed {
        let hasher = IdHasher::default();
        let job = JobName::new("j").unwrap();
        Feed {
            ledger: Ledger::new(job, hasher.clone(), true, &welcome()),
            hasher,
            lines: 0,
        }
    }

    fn push(&mut self, ids: &[&str]) {
        for id in ids {
            self.lines += 1;
            let text = format!(r#"{{"id":"{id}","module":"echo"}}"#);
            let line = FeedLine::read(self.lines, text, &self.hasher, String::new);
            self.ledger.push(line.unwrap());
        }
    }

    /// The ids of the next batch, read as a master reads them.
    fn send(&mut self) -> Vec<String> {
        let Some(text) = self.ledger.next_batch() else {
            return Vec::new();
        };
        let ToMaster::Add(add) = ToMaster::decode(&text).unwrap() else {
            panic!("not an add")
        };
        assert!(add.hold);
        assert_eq!(add.job, JobName::new("j").ok());
        let id = |task: &Json| {
            let task: serde_json::Value = task.read().unwrap();
            task["id"].as_str().unwrap().to_owned()
        };
        add.tasks.iter().map(id).collect()
    }

    fn reject(&mut self, batch: u64, index: usize, code: RefusalCode, ids: &[&str]) -> Vec<String> {
        let ids = ids.iter().map(|id| TaskId::new(id).unwrap()).collect();
        let error = Refusal::new(code, "no").about(ids);
        let refusals = self.ledger.rejected(Rejected {
            batch,
            tasks: vec![Rejection { index, error }],
        });
        refusals.iter().map(Refusal::to_string).collect()
    }

    fn add(&mut self, batch: u64) -> BatchOutcome {
        self.ledger.added(Added {
            batch,
            ids: Vec::new(),
            known: Vec::new(),
            ended: Vec::new(),
            answers: Vec::new(),
        })
    }
}

#[test]
fn batches_are_numbered_bounded_and_resent_as_they_were() {
    let mut feed = Feed::new();
    let ids: Vec<String> = (0..40).map(|i| format!("t{i}")).collect();
    feed.push(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(feed.send(), ["t0", "t1", "t2"]);
    (1..limits::BATCHES_IN_FLIGHT_MAX).for_each(|_| assert_eq!(feed.send().len(), 3));
    assert!(feed.send().is_empty(), "eight are unanswered");
    let before: Vec<_> = feed.ledger.unanswered().collect();
    assert_eq!(feed.add(1).jobs, [JobName::new("j").unwrap()]);
    assert_eq!(feed.ledger.unanswered().collect::<Vec<_>>(), before[1..]);
    assert_eq!(
        feed.add(1),
        BatchOutcome::default(),
        "the answer to a resend comes twice"
    );
    assert_eq!(feed.ledger.added, 3);
    assert_eq!(feed.send().len(), 3);
}

#[test]
fn a_forward_reference_is_held_until_its_id_is_taken() {
    let mut feed = Feed::new();
    feed.push(&["a"]);
    feed.send();
    assert_eq!(
        feed.reject(1, 0, RefusalCode::UnknownDependency, &["b"]),
        [""; 0]
    );
    assert_eq!(
        feed.reject(1, 0, RefusalCode::UnknownDependency, &["b"]),
        [""; 0],
        "told twice"
    );
    feed.add(1);
    assert_eq!(feed.ledger.held_lines(), 1);
    assert_eq!(feed.ledger.open_tasks(), 0);
    assert_eq!(feed.ledger.added, 0);
    feed.push(&["b"]);
    assert_eq!(feed.send(), ["b"]);
    feed.add(2);
    assert_eq!(feed.send(), ["a"]);
    feed.add(3);
    assert_eq!(feed.ledger.held_lines(), 0);
    assert_eq!(feed.ledger.open_tasks(), 2);
    assert_eq!(feed.ledger.added, 2);
    assert!(feed.ledger.is_answered());
}

#[test]
fn a_chain_that_is_held_is_sent_in_its_order_at_once() {
    let mut feed = Feed::new();
    feed.push(&["a", "b"]);
    feed.send();
    assert_eq!(
        feed.reject(1, 0, RefusalCode::UnknownDependency, &["b"]),
        [""; 0]
    );
    assert_eq!(
        feed.reject(1, 1, RefusalCode::UnknownDependency, &["c"]),
        [""; 0]
    );
    feed.add(1);
    feed.push(&["c"]);
    feed.send();
    feed.add(2);
    assert_eq!(feed.send(), ["b", "a"]);
}

#[test]
fn lines_of_a_circle_are_not_sent_for_ever() {
    let mut feed = Feed::new();
    feed.push(&["a"]);
    feed.send();
    feed.push(&["b"]);
    feed.send();
    assert_eq!(
        feed.reject(1, 0, RefusalCode::UnknownDependency, &["b"]),
        [""; 0]
    );
    assert_eq!(
        feed.reject(2, 0, RefusalCode::UnknownDependency, &["a"]),
        [""; 0]
    );
    [1, 2].iter().for_each(|batch| drop(feed.add(*batch)));
    assert!(feed.ledger.is_answered() && feed.send().is_empty());
    let refusals: Vec<String> = feed
        .ledger
        .refuse_held()
        .iter()
        .map(Refusal::to_string)
        .collect();
    assert_eq!(
        refusals,
        [
            "line 1: dependency cycle: a → b → a",
            "line 2: dependency cycle: b → a → b"
        ]
    );
    assert_eq!(feed.ledger.refused, 2);
    assert_eq!(feed.ledger.added, 0);
    assert_eq!(feed.ledger.open_tasks(), 0);
}

#[test]
fn what_the_master_has_forgotten_is_not_asked_for_again() {
    let mut feed = Feed::new();
    feed.push(&["b"]);
    feed.send();
    feed.add(1);
    feed.push(&["a"]);
    feed.send();
    assert_eq!(
        feed.reject(2, 0, RefusalCode::UnknownDependency, &["b"]),
        ["line 2: no"]
    );
}

#[test]
fn a_second_line_of_an_id_neither_waits_nor_ends_the_first() {
    let mut feed = Feed::new();
    feed.push(&["a", "a", "a"]);
    feed.send();
    assert_eq!(
        feed.reject(1, 1, RefusalCode::IdConflict, &[]),
        ["line 2: no"]
    );
    feed.add(1);
    assert_eq!(feed.ledger.open_tasks(), 1);
    assert_eq!(feed.ledger.added, 2);
    assert!(feed.ledger.task_ended("a", TaskState::Done));
    assert!(!feed.ledger.task_ended("a", TaskState::Done));
    assert_eq!(
        feed.ledger.ends,
        EndCounts {
            done: 1,
            ..EndCounts::default()
        }
    );
}

#[test]
fn a_master_in_need_is_asked_again() {
    let mut feed = Feed::new();
    feed.push(&["a"]);
    feed.send();
    assert_eq!(feed.reject(1, 0, RefusalCode::Unavailable, &[]), [""; 0]);
    feed.add(1);
    assert!(feed.ledger.take_unavailable().is_some());
    assert!(feed.ledger.take_unavailable().is_none());
    assert!(!feed.ledger.is_answered());
    assert!(feed.ledger.has_deferred());
    feed.ledger.retry_deferred();
    assert_eq!(feed.send(), ["a"]);
}
