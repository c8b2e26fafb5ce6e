//! Tests that compare the view with what was folded into it: lists, reopening, pruning, and values
//! longer than one part.

use super::*;
use crate::body::{AddedTask, Fingerprint};
use crate::codec;
use crate::journal::{Journal, KvJournal};
use crate::kv::{SharedStore, WriteBatch, memory::MemoryStore};
use crate::record::{self, EndExtras, JournalEntry, Record, TaskOutput};
use std::collections::BTreeMap;
use taskmaster_protocol::{Json, TaskDocument, TaskState};

fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

fn body(ordinal: u64, name: &str) -> Arc<TaskBody> {
    let document = TaskDocument::parse(r#"{"module":"m","params":[1]}"#).unwrap();
    Arc::new(TaskBody::new(AddedTask {
        document,
        fingerprint: Fingerprint::of(name),
        references: Vec::new(),
        id: id(name),
        job: JobName::new("j").unwrap(),
        ordinal,
        created: Wall(0),
        job_results: Vec::new(),
        lineage: None,
        cache: None,
    }))
}

fn ended(
    seq: u64,
    body: &TaskBody,
    state: TaskState,
    result: &str,
    skipped_for: Option<&str>,
) -> Arc<Ended> {
    let attempt = AttemptId { epoch: 1, n: 1 };
    let extras = skipped_for.map(|on| EndExtras {
        skipped_for: Some(id(on)),
        ..EndExtras::default()
    });
    let end = TaskEnd {
        result: Some(TaskOutput::Json(Json::string(result))),
        extras: extras.map(Box::new),
        ..TaskEnd::new(state, attempt, Wall(seq as i64))
    };
    Arc::new(Ended::new(seq, body, end))
}

/// A journal on a memory store, one commit for each list of records.
fn world(commits: Vec<Vec<Record>>) -> SharedStore {
    let store: SharedStore = Arc::new(MemoryStore::default());
    let mut journal = KvJournal::open(store.clone()).unwrap();
    let mut first_seq = 1;
    for (n, records) in commits.into_iter().enumerate() {
        let events = record::events_of(&records);
        let entry = JournalEntry {
            first_seq,
            time: Wall(0),
            records,
        };
        journal
            .append(n as u64 + 1, &codec::encode(&entry))
            .unwrap();
        first_seq += events;
    }
    journal.sync().unwrap();
    store
}

/// `n` tasks, added in one commit and ended in the next.
fn many(n: u64) -> SharedStore {
    let bodies: Vec<_> = (1..=n)
        .map(|ordinal| body(ordinal, &format!("t{ordinal}")))
        .collect();
    let added = bodies
        .iter()
        .map(|body| Record::Added(body.clone()))
        .collect();
    let done = bodies
        .iter()
        .map(|body| Record::Ended(ended(n + body.ordinal, body, TaskState::Done, "r", None)))
        .collect();
    let store = world(vec![added, done]);
    catch_up(&store).unwrap();
    store
}

fn open_ids(store: &SharedStore) -> Vec<(String, i32)> {
    let mut found = Vec::new();
    open_tasks(store.as_ref(), &mut |body, task| {
        found.push((body.id.to_string(), task.priority));
        Ok(())
    })
    .unwrap();
    found
}

#[test]
fn ended_tasks_are_listed_newest_first_page_by_page() {
    let store = many(100);
    let mut before = u64::MAX;
    let mut seen = Vec::new();
    loop {
        let page = ended_before(store.as_ref(), before, 30).unwrap();
        let Some(last) = page.last() else { break };
        before = last.ended.seq;
        seen.extend(page.into_iter().map(|task| task.ended.id.to_string()));
    }
    let wanted: Vec<String> = (1..=100)
        .rev()
        .map(|ordinal| format!("t{ordinal}"))
        .collect();
    assert_eq!(seen, wanted);
    assert_eq!(
        ended_from(store.as_ref(), 0, 10).unwrap()[0].ended.id,
        id("t1")
    );
    assert_eq!(
        ended_from(store.as_ref(), 150, 1).unwrap()[0].ended.id,
        id("t50")
    );
    assert_eq!(
        job(store.as_ref(), &JobName::new("j").unwrap())
            .unwrap()
            .unwrap()
            .ended,
        [100, 0, 0, 0]
    );
}

#[test]
fn an_open_task_lives_through_folds_and_long_values_come_back_whole() {
    let open = body(1, "open");
    let long = body(2, "long");
    let text = "x".repeat(3 * VALUE_BYTES_MAX);
    let store = world(vec![
        vec![
            Record::Started { epoch: 7 },
            Record::Added(open.clone()),
            Record::Added(long.clone()),
        ],
        vec![Record::Set {
            ordinal: 1,
            priority: 9,
            due: None,
        }],
        vec![Record::Ended(ended(3, &long, TaskState::Done, &text, None))],
    ]);
    catch_up(&store).unwrap();
    let restored = restore(store.as_ref()).unwrap();
    assert_eq!(
        (
            restored.watermarks.epoch,
            restored.watermarks.ordinal,
            restored.watermarks.seq
        ),
        (7, 2, 3)
    );
    assert_eq!(open_ids(&store), [("open".to_owned(), 9)]);
    open_tasks(store.as_ref(), &mut |_, task| {
        assert_eq!(
            task.fence,
            AttemptId { epoch: 7, n: 0 },
            "earlier attempts were sent for another task of that id"
        );
        Ok(())
    })
    .unwrap();
    let stored = ended_task(store.as_ref(), &long.id).unwrap().unwrap();
    assert_eq!(
        stored.ended.end.result,
        Some(TaskOutput::Json(Json::string(&text)))
    );
    assert_eq!(
        ended_task(store.as_ref(), &id("lon")).unwrap(),
        None,
        "the beginning of an id is another id"
    );
}

#[test]
fn a_reopened_task_is_open_and_no_longer_ended() {
    let cause = body(1, "cause");
    let skipped = body(2, "skipped");
    let failed = ended(3, &cause, TaskState::Failed, "", None);
    let store = world(vec![
        vec![Record::Added(cause.clone()), Record::Added(skipped.clone())],
        vec![
            Record::Ended(failed.clone()),
            Record::Ended(ended(4, &skipped, TaskState::Skipped, "", Some("cause"))),
        ],
    ]);
    catch_up(&store).unwrap();
    assert_eq!(
        skipped_for(store.as_ref(), &cause.id).unwrap(),
        std::slice::from_ref(&skipped.id)
    );
    let mut fold = Fold::begin(store.clone()).unwrap();
    let reopened = |body: &Arc<TaskBody>, ended_seq, former_state, skipped_for| Record::Reopened {
        body: body.clone(),
        fence: AttemptId { epoch: 1, n: 1 },
        ended_seq,
        former_state,
        skipped_for,
    };
    let records = vec![
        reopened(&cause, 3, TaskState::Failed, None),
        reopened(&skipped, 4, TaskState::Skipped, Some(cause.id.clone())),
    ];
    fold.take(&JournalEntry {
        first_seq: 5,
        time: Wall(0),
        records,
    })
    .unwrap();
    fold.write().unwrap();
    assert_eq!(open_ids(&store).len(), 2);
    let mut dues = Vec::new();
    open_tasks(store.as_ref(), &mut |_, task| {
        dues.push(task.due);
        Ok(())
    })
    .unwrap();
    assert_eq!(
        dues,
        [Some(Wall(0)); 2],
        "a document's delay is over, whatever the clock says at the next start"
    );
    assert_eq!(ended_task(store.as_ref(), &cause.id).unwrap(), None);
    assert_eq!(skipped_for(store.as_ref(), &cause.id).unwrap(), []);
    assert_eq!(
        job(store.as_ref(), &cause.job).unwrap().unwrap().ended,
        [0; 4]
    );
}

/// Folds commits one by one from what is in memory, as the folding thread does.
struct Folder {
    store: SharedStore,
    seq: u64,
}

impl Folder {
    fn new() -> Folder {
        Folder {
            store: Arc::new(MemoryStore::default()),
            seq: 0,
        }
    }

    fn fold(&mut self, records: Vec<Record>) {
        let events = record::events_of(&records);
        let entry = JournalEntry {
            first_seq: self.seq + 1,
            time: Wall(0),
            records,
        };
        self.seq += events;
        // The steps are small, because a commit need not be folded as a whole.
        loop {
            let mut fold = Fold::begin(self.store.clone()).unwrap();
            let over = fold.take_until(&entry, 3).unwrap();
            fold.write().unwrap();
            if over {
                return assert_eq!(watermarks(self.store.as_ref()).unwrap().seq, self.seq);
            }
        }
    }
}

#[test]
fn thousands_of_small_folds_leave_every_task_to_be_found() {
    let mut folder = Folder::new();
    let mut known = EndedIndex::with_filters(folder.store.as_ref()).unwrap();
    let mut ordinal = 0;
    for round in 0..600u64 {
        let bodies: Vec<_> = (0..=round % 40)
            .map(|n| body(ordinal + n + 1, &format!("t{}", ordinal + n + 1)))
            .collect();
        ordinal += bodies.len() as u64;
        folder.fold(
            bodies
                .iter()
                .map(|body| Record::Added(body.clone()))
                .collect(),
        );
        let seq = folder.seq;
        let end = |(n, body): (usize, &Arc<TaskBody>)| {
            Record::Ended(ended(seq + n as u64 + 1, body, TaskState::Done, "r", None))
        };
        folder.fold(bodies.iter().enumerate().map(end).collect());
        if round % 7 == 0 {
            known.renew(folder.store.as_ref()).unwrap();
        }
        // The index has not read the newest list of runs, and still finds all tasks that it knew.
        let asked = id(&format!("t{}", ordinal / 3 + 1));
        if round > 20 {
            assert!(
                ended_task_by_index(folder.store.as_ref(), &mut known, &asked)
                    .unwrap()
                    .is_some(),
                "round {round}"
            );
        }
        assert_eq!(
            ended_task_by_index(
                folder.store.as_ref(),
                &mut known,
                &id(&format!("new{round}"))
            )
            .unwrap(),
            None
        );
    }
    known.renew(folder.store.as_ref()).unwrap();
    for n in 1..=ordinal {
        let asked = id(&format!("t{n}"));
        let found = ended_task_by_index(folder.store.as_ref(), &mut known, &asked)
            .unwrap()
            .unwrap();
        assert_eq!(
            (found.body.ordinal, found.ended.id.clone()),
            (n, asked.clone())
        );
        assert_eq!(
            ended_task(folder.store.as_ref(), &asked).unwrap(),
            Some(found)
        );
    }
    let keys = |from: &[u8], to: &[u8]| {
        folder
            .store
            .scan(from, to, false, usize::MAX)
            .unwrap()
            .len() as u64
    };
    assert!(
        keys(b"e", b"f") < ordinal / 5,
        "ended tasks share blocks: {} for {ordinal}",
        keys(b"e", b"f")
    );
    assert!(
        keys(b"i", b"j") < ordinal / 40,
        "entries share buckets: {} for {ordinal}",
        keys(b"i", b"j")
    );
    assert_eq!(keys(b"o", b"p"), 0, "no open task is left");
}

/// When the power fails, a task that was being pruned may come back, and by then its id may belong to
/// another task. However runs were merged meanwhile, a look-up finds the newest.
#[test]
fn of_two_ends_of_one_id_the_newest_is_found() {
    for again in 1..24 {
        let mut folder = Folder::new();
        let mut newest = 0;
        for round in 0..60u64 {
            let name = if round == 0 || round == again {
                "twice".into()
            } else {
                format!("t{round}")
            };
            let body = body(round + 1, &name);
            folder.fold(vec![Record::Added(body.clone())]);
            let seq = folder.seq + 1;
            if name == "twice" {
                newest = seq;
            }
            folder.fold(vec![Record::Ended(ended(
                seq,
                &body,
                TaskState::Done,
                "r",
                None,
            ))]);
            let found = ended_task(folder.store.as_ref(), &id("twice"))
                .unwrap()
                .unwrap();
            assert_eq!(
                found.ended.seq, newest,
                "added again in round {again}, asked in round {round}"
            );
        }
    }
}

#[test]
fn open_tasks_end_in_any_order_and_come_back_to_their_place() {
    let mut folder = Folder::new();
    let bodies: Vec<_> = (1..=200)
        .map(|ordinal| body(ordinal, &format!("t{ordinal}")))
        .collect();
    folder.fold(
        bodies
            .iter()
            .map(|body| Record::Added(body.clone()))
            .collect(),
    );
    let of = |ordinal: u64| &bodies[ordinal as usize - 1];
    let mut ends = BTreeMap::new();
    for ordinal in (1..=200).filter(|ordinal| ordinal % 3 != 0).rev() {
        let seq = folder.seq + 1;
        ends.insert(ordinal, seq);
        folder.fold(vec![Record::Ended(ended(
            seq,
            of(ordinal),
            TaskState::Failed,
            "",
            None,
        ))]);
    }
    let again = |ordinal: u64| Record::Reopened {
        body: of(ordinal).clone(),
        fence: AttemptId { epoch: 1, n: 1 },
        ended_seq: ends[&ordinal],
        former_state: TaskState::Failed,
        skipped_for: None,
    };
    folder.fold([1, 100, 200, 77].into_iter().map(again).collect());
    folder.fold(vec![Record::Added(body(201, "t201"))]);
    let mut wanted: Vec<u64> = (1..=201)
        .filter(|ordinal| ordinal % 3 == 0 || [1, 77, 100, 200].contains(ordinal))
        .collect();
    wanted.dedup();
    let ids: Vec<String> = wanted.iter().map(|ordinal| format!("t{ordinal}")).collect();
    assert_eq!(
        open_ids(&folder.store)
            .into_iter()
            .map(|(id, _)| id)
            .collect::<Vec<_>>(),
        ids
    );
    assert_eq!(ended_task(folder.store.as_ref(), &id("t77")).unwrap(), None);
    assert!(
        ended_task(folder.store.as_ref(), &id("t76"))
            .unwrap()
            .is_some()
    );
    assert_eq!(
        watermarks(folder.store.as_ref()).unwrap().ended_count,
        134 - 4
    );
}

#[test]
fn a_store_of_another_format_is_refused_with_a_sentence() {
    let store = many(1);
    let key = crate::kv::part_key(b"!marks", 0);
    let mut value = store.get(&key).unwrap().unwrap();
    value[0] = codec::FORMAT + 1;
    let mut batch = crate::kv::WriteBatch::default();
    batch.put(key, value);
    store.write(batch).unwrap();
    let refused = catch_up(&store).unwrap_err().to_string();
    assert!(
        refused.contains("is of format 2") && refused.contains("No task in it was changed"),
        "{refused}"
    );
}

/// The pairs of a view, by key.
type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// All pairs of the view.
fn pairs(store: &SharedStore) -> Pairs {
    store
        .scan(&[], &[0xff], false, usize::MAX)
        .unwrap()
        .into_iter()
        .filter(|pair| pair.key[0] != b'J')
        .map(|pair| (pair.key, pair.value))
        .collect()
}

fn put(store: &SharedStore, key: &[u8], value: Option<Vec<u8>>) {
    let mut batch = WriteBatch::default();
    match value {
        Some(value) => batch.put(key.to_vec(), value),
        None => batch.remove(key.to_vec()),
    }
    store.write(batch).unwrap();
}

/// Three folds over tasks that end, are skipped, stay open, and over one with a long result.
fn folded_often() -> (SharedStore, Vec<Pairs>) {
    let store: SharedStore = Arc::new(MemoryStore::default());
    let mut journal = KvJournal::open(store.clone()).unwrap();
    let mut states = Vec::new();
    let mut seq = 1;
    for round in 0..3u64 {
        let bodies: Vec<_> = (1..=60)
            .map(|n| body(round * 60 + n, &format!("t{round}-{n}")))
            .collect();
        let mut records = vec![Record::Started {
            epoch: round as u32 + 1,
        }];
        records.extend(bodies.iter().map(|body| Record::Added(body.clone())));
        let long = "x".repeat(2 * VALUE_BYTES_MAX);
        for (n, body) in bodies.iter().enumerate().take(50) {
            let (state, result, cause) = match n {
                0 => (TaskState::Done, long.as_str(), None),
                1..5 => (TaskState::Skipped, "", Some("cause")),
                _ => (TaskState::Done, "r", None),
            };
            let seq = seq + 60 + n as u64;
            records.push(Record::Ended(ended(seq, body, state, result, cause)));
        }
        let entry = JournalEntry {
            first_seq: seq,
            time: Wall(0),
            records,
        };
        seq += 110;
        journal.append(round + 1, &codec::encode(&entry)).unwrap();
        catch_up(&store).unwrap();
        verify(store.as_ref()).unwrap();
        states.push(pairs(&store));
    }
    (store, states)
}

#[test]
fn a_value_that_is_missing_spoilt_or_older_than_the_others_is_noticed() {
    let (store, states) = folded_often();
    let now = states.last().unwrap();
    assert!(now.len() > 20, "{} values", now.len());
    for (key, value) in now {
        let shown = String::from_utf8_lossy(key);
        // Where a store was written before there were digests, nothing can be said.
        if !key.starts_with(b"!digest") {
            put(&store, key, None);
            assert!(verify(store.as_ref()).is_err(), "`{shown}` is missing");
        }
        for byte in 0..value.len() {
            let mut spoilt = value.clone();
            spoilt[byte] ^= 1 << (byte % 8);
            put(&store, key, Some(spoilt));
            assert!(verify(store.as_ref()).is_err(), "byte {byte} of `{shown}`");
            if byte > 64 && byte % 97 != 0 {
                break;
            }
        }
        let older = states.iter().filter_map(|state| state.get(key));
        for older in older.filter(|older| *older != value) {
            put(&store, key, Some(older.clone()));
            assert!(verify(store.as_ref()).is_err(), "`{shown}` is older");
        }
        put(&store, key, Some(value.clone()));
        verify(store.as_ref()).unwrap();
    }
}

#[test]
fn the_digest_follows_whatever_is_folded_and_pruned() {
    let (store, _) = folded_often();
    let oldest = ended_from(store.as_ref(), 0, 40).unwrap();
    let mut fold = Fold::begin(store.clone()).unwrap();
    fold.prune(&oldest).unwrap();
    fold.write().unwrap();
    verify(store.as_ref()).unwrap();
    // A view without a digest was written by an earlier program. The next fold counts it.
    put(&store, b"!digest\0\0", None);
    Fold::begin(store.clone()).unwrap().write().unwrap();
    verify(store.as_ref()).unwrap();
    put(
        &store,
        &pairs(&store).into_keys().next_back().unwrap(),
        None,
    );
    assert!(verify(store.as_ref()).is_err());
}

#[test]
fn a_part_of_the_index_that_is_lost_is_told_and_not_looked_for_without_end() {
    let (store, states) = folded_often();
    let buckets = states.last().unwrap().keys().filter(|key| key[0] == b'i');
    for key in buckets {
        put(&store, key, None);
    }
    let told = ended_task(store.as_ref(), &id("t0-9"))
        .unwrap_err()
        .to_string();
    assert!(told.contains("is missing"), "{told}");
}

#[test]
fn every_kept_task_is_found_where_most_are_pruned_before_their_index_is_merged() {
    const ADDED: u64 = 3_000;
    const KEPT: usize = 100;
    let store: SharedStore = Arc::new(MemoryStore::default());
    let mut journal = KvJournal::open(store.clone()).unwrap();
    for round in 0..40 {
        let bodies: Vec<_> = (1..=ADDED)
            .map(|n| body(round * ADDED + n, &format!("r{round}-{n}")))
            .collect();
        let first_seq = round * 2 * ADDED + 1;
        let mut records: Vec<Record> = bodies.iter().cloned().map(Record::Added).collect();
        records.extend(
            bodies
                .iter()
                .zip(first_seq + ADDED..)
                .map(|(body, seq)| Record::Ended(ended(seq, body, TaskState::Done, "r", None))),
        );
        let entry = JournalEntry {
            first_seq,
            time: Wall(0),
            records,
        };
        journal.append(round + 1, &codec::encode(&entry)).unwrap();
        catch_up(&store).unwrap();

        let mut old = ended_from(store.as_ref(), 0, usize::MAX).unwrap();
        old.truncate(old.len() - KEPT);
        let mut fold = Fold::begin(store.clone()).unwrap();
        fold.prune(&old).unwrap();
        fold.write().unwrap();
        for n in ADDED - KEPT as u64 + 1..=ADDED {
            let name = format!("r{round}-{n}");
            let found = ended_task(store.as_ref(), &id(&name)).unwrap();
            assert!(found.is_some(), "{name}, kept and not found");
        }
    }
}

#[test]
fn a_journal_with_a_hole_is_folded_by_nobody() {
    let commits = (1..=4)
        .map(|epoch| vec![Record::Started { epoch }])
        .collect();
    let store = world(commits);
    let third = store.scan(b"J", b"K", false, usize::MAX).unwrap().remove(2);
    put(&store, &third.key, None);
    for told in [
        catch_up(&store).unwrap_err(),
        crate::journal::verify(&store).unwrap_err(),
    ] {
        assert!(
            told.to_string().contains("commit 3: it is missing"),
            "{told}"
        );
    }
    // A journal that ends before the view would take its next commits for folded ones.
    let store = many(3);
    for pair in store
        .scan(b"J", b"K", false, usize::MAX)
        .unwrap()
        .into_iter()
        .skip(1)
    {
        put(&store, &pair.key, None);
    }
    let told = catch_up(&store).unwrap_err().to_string();
    assert!(
        told.contains("ends at commit 1, and the view at commit 2"),
        "{told}"
    );
}

#[test]
fn the_ends_of_a_run_are_found_by_job_until_one_of_them_is_pruned() {
    let job = JobName::new("j").unwrap();
    let bodies: Vec<_> = (1..=300)
        .map(|ordinal| body(ordinal, &format!("task-{ordinal}")))
        .collect();
    let opened = |run| Record::JobOpened {
        job: job.clone(),
        run,
    };
    let done = |run| Record::JobDone {
        job: job.clone(),
        run,
    };
    // Two runs: of 100 tasks, and of 200 in two folds.
    let mut commits = Vec::new();
    let mut seq = 0;
    for (run, bodies) in [(1, &bodies[..100]), (2, &bodies[100..])] {
        let added = bodies.iter().map(|body| Record::Added(body.clone()));
        commits.push([opened(run)].into_iter().chain(added).collect());
        seq += 1 + bodies.len() as u64;
        for bodies in bodies.chunks(100) {
            let ends = bodies.iter().map(|body| {
                seq += 1;
                Record::Ended(ended(seq, body, TaskState::Done, "r", None))
            });
            commits.push(ends.collect());
        }
        commits.push(vec![done(run)]);
        seq += 1;
    }
    let store = world(commits);
    catch_up(&store).unwrap();
    let of_run = |run| {
        let found = job_ends(store.as_ref(), &job, run, usize::MAX).unwrap();
        let mut ordinals: Vec<u64> = found.ends.iter().map(|end| end.ordinal).collect();
        ordinals.sort_unstable();
        let is_named = |end: &JobEnd| end.id.as_str() == format!("task-{}", end.ordinal);
        assert!(found.ends.iter().all(is_named));
        (ordinals, found.from_beginning)
    };
    assert_eq!(of_run(1), ((1..=100).collect(), true));
    assert_eq!(of_run(2), ((101..=300).collect(), true));

    let prune = |range: std::ops::Range<usize>| {
        let ended: Vec<EndedTask> = bodies[range]
            .iter()
            .map(|body| ended_task(store.as_ref(), &body.id).unwrap().unwrap())
            .collect();
        let mut fold = Fold::begin(store.clone()).unwrap();
        fold.prune(&ended).unwrap();
        fold.write().unwrap();
        verify(store.as_ref()).unwrap();
    };
    prune(0..1);
    assert!(!of_run(1).1);
    assert_eq!(of_run(2), ((101..=300).collect(), true));
    prune(1..100);
    assert_eq!(of_run(1), (vec![], false));
    assert_eq!(of_run(2), ((101..=300).collect(), true));
    prune(100..300);
    let left = store.scan(b"k", b"l", false, usize::MAX).unwrap();
    assert_eq!(left, []);
}
