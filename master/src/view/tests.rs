//! The view against what was folded into it: lists, reopening, pruning, values longer than one part.

use super::*;
use crate::config::Keep;
use crate::folding::{Folding, catch_up};
use crate::inbox::Input;
use crate::journal::{Journal, ShelfJournal};
use crate::store::memory::MemoryShelf;
use std::sync::mpsc::channel;
use std::time::Duration;
use taskmaster_protocol::message::ResultRef;
use taskmaster_protocol::{Json, TaskDocument, TaskState};

fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

fn body(no: u64, name: &str) -> Arc<TaskBody> {
    let document = TaskDocument::parse(r#"{"module":"m","params":[1]}"#).unwrap();
    Arc::new(TaskBody::new(document, [0; 16], Vec::new(), (no, Wall(0)), (id(name), JobName::new("j").unwrap())))
}

fn ended(seq: u64, body: &TaskBody, state: TaskState, result: &str, because: Option<&str>) -> Arc<Ended> {
    Arc::new(Ended {
        seq,
        id: body.id.clone(),
        no: body.no,
        module: body.module.clone(),
        job: body.job.clone(),
        priority: 0,
        created: Wall(0),
        state,
        attempt: AttemptId { epoch: 1, n: 1 },
        last_sent: AttemptId { epoch: 1, n: 1 },
        version: None,
        runner: None,
        result: Some(ResultRef::Json(Json::string(result))),
        error: None,
        started: None,
        finished: Wall(seq as i64),
        stats: None,
        log: None,
        because: because.map(id),
    })
}

/// A journal on a memory store, one commit for each list of records.
fn world(commits: Vec<Vec<Record>>) -> Reader {
    let shelf: Reader = Arc::new(MemoryShelf::default());
    let mut journal = ShelfJournal::open(shelf.clone()).unwrap();
    let mut first_seq = 1;
    for (n, records) in commits.into_iter().enumerate() {
        let events = records.iter().filter(|record| record.event().is_some()).count() as u64;
        let entry = Entry { first_seq, time: Wall(0), records };
        journal.append(n as u64 + 1, &record::encode(&entry)).unwrap();
        first_seq += events;
    }
    journal.sync().unwrap();
    shelf
}

/// `n` tasks, added in one commit and ended in the next.
fn many(n: u64) -> Reader {
    let bodies: Vec<_> = (1..=n).map(|no| body(no, &format!("t{no}"))).collect();
    let added = bodies.iter().map(|body| Record::Added(body.clone())).collect();
    let done = bodies.iter().map(|body| Record::Ended(ended(n + body.no, body, TaskState::Done, "r", None))).collect();
    let shelf = world(vec![added, done]);
    catch_up(&shelf).unwrap();
    shelf
}

#[test]
fn ended_tasks_are_listed_newest_first_page_by_page() {
    let shelf = many(100);
    let mut before = u64::MAX;
    let mut seen = Vec::new();
    loop {
        let page = ended_before(shelf.as_ref(), before, 30).unwrap();
        let Some((last, _)) = page.last() else { break };
        before = *last;
        seen.extend(page.into_iter().map(|(_, id)| id.to_string()));
    }
    let wanted: Vec<String> = (1..=100).rev().map(|no| format!("t{no}")).collect();
    assert_eq!(seen, wanted);
    assert_eq!(ended_first(shelf.as_ref(), 10).unwrap()[0].1, id("t1"));
    assert_eq!(job(shelf.as_ref(), &JobName::new("j").unwrap()).unwrap().unwrap().ended, [100, 0, 0, 0]);
}

#[test]
fn an_open_task_lives_through_folds_and_long_values_come_back_whole() {
    let (open, long) = (body(1, "open"), body(2, "long"));
    let text = "x".repeat(3 * VALUE_BYTES_MAX);
    let shelf = world(vec![
        vec![Record::Started { epoch: 7 }, Record::Added(open.clone()), Record::Added(long.clone())],
        vec![Record::Set { no: 1, priority: 9, due: None }],
        vec![Record::Ended(ended(3, &long, TaskState::Done, &text, None))],
    ]);
    catch_up(&shelf).unwrap();
    let restored = restore(shelf.as_ref()).unwrap();
    assert_eq!((restored.marks.epoch, restored.marks.no, restored.marks.seq), (7, 2, 3));
    assert_eq!(restored.tasks.iter().map(|task| (&task.body.id, task.priority)).collect::<Vec<_>>(), [(&open.id, 9)]);
    let stored = stored(shelf.as_ref(), &long.id).unwrap().unwrap();
    assert_eq!(stored.ended.result, Some(ResultRef::Json(Json::string(&text))));
    assert_eq!(super::stored(shelf.as_ref(), &id("lon")).unwrap(), None, "the beginning of an id is another id");
}

#[test]
fn a_reopened_task_is_open_and_no_longer_ended() {
    let (cause, skipped) = (body(1, "cause"), body(2, "skipped"));
    let failed = ended(3, &cause, TaskState::Failed, "", None);
    let shelf = world(vec![
        vec![Record::Added(cause.clone()), Record::Added(skipped.clone())],
        vec![Record::Ended(failed.clone()), Record::Ended(ended(4, &skipped, TaskState::Skipped, "", Some("cause")))],
    ]);
    catch_up(&shelf).unwrap();
    assert_eq!(skipped_for(shelf.as_ref(), &cause.id).unwrap(), std::slice::from_ref(&skipped.id));
    let mut fold = Fold::begin(shelf.clone()).unwrap();
    let reopened = |body: &Arc<TaskBody>, seq, was, because| Record::Reopened {
        body: body.clone(),
        fence: AttemptId { epoch: 1, n: 1 },
        ended: seq,
        was,
        because,
    };
    let records = vec![
        reopened(&cause, 3, TaskState::Failed, None),
        reopened(&skipped, 4, TaskState::Skipped, Some(cause.id.clone())),
    ];
    fold.take(&Entry { first_seq: 5, time: Wall(0), records }).unwrap();
    fold.write().unwrap();
    assert_eq!(restore(shelf.as_ref()).unwrap().tasks.len(), 2);
    assert_eq!(stored(shelf.as_ref(), &cause.id).unwrap(), None);
    assert_eq!(skipped_for(shelf.as_ref(), &cause.id).unwrap(), []);
    assert_eq!(job(shelf.as_ref(), &cause.job).unwrap().unwrap().ended, [0; 4]);
}

#[test]
fn what_is_too_old_or_too_many_is_forgotten_unless_the_engine_needs_it() {
    let shelf = many(100);
    let (engine, asked) = channel();
    // The engine of this test needs `t3`.
    let answering = std::thread::spawn(move || {
        while let Ok(Input::Prune { tasks, reply }) = asked.recv() {
            let free = tasks.into_iter().filter(|task| task.ended.id != id("t3")).collect();
            reply.send(free).unwrap();
        }
    });
    let keep = Keep { count: 40, time: Duration::MAX };
    let folding = Folding::new(shelf.clone(), keep, engine);
    folding.prune(Wall(i64::MAX)).unwrap();
    drop(folding);
    answering.join().unwrap();
    let kept = |no: u64| stored(shelf.as_ref(), &id(&format!("t{no}"))).unwrap().is_some();
    assert!((61..=100).all(kept) && kept(3), "the newest 40, and the one that is needed");
    assert!(!kept(1) && !kept(2) && !kept(60));
    assert_eq!(marks(shelf.as_ref()).unwrap().ended, 41);
    let listed = ended_before(shelf.as_ref(), u64::MAX, 1_000).unwrap();
    assert!(
        listed.len() < 100 && listed.iter().any(|(_, id)| id.as_str() == "t3"),
        "blocks without a kept task are gone"
    );
}
