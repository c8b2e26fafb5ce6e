//! Rounds over a store in memory and blobs in a folder.

use super::*;
use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;
use taskmaster_protocol::files::ListedFile;
use taskmaster_protocol::message::ResultRef;
use taskmaster_protocol::{
    AttemptId, FilePath, JobName, ModuleKind, ModuleName, TaskDocument, TaskId, TaskState, Wall,
};
use taskmaster_store::body::{AddedTask, Fingerprint, TaskBody};
use taskmaster_store::codec;
use taskmaster_store::journal::{Journal, KvJournal};
use taskmaster_store::kv::memory::MemoryStore;
use taskmaster_store::record::{
    self, Ended, JournalEntry, ModuleRecord, OutputBlobs, TaskEnd, TaskOutput, VersionRecord,
};

struct World {
    scratch: tempfile::TempDir,
    blobs: Blobs,
    store: SharedStore,
    journal: KvJournal,
    seq: u64,
    ordinal: u64,
}

impl World {
    fn new() -> World {
        let scratch = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(scratch.path()).unwrap();
        let store: SharedStore = Arc::new(MemoryStore::default());
        let journal = KvJournal::open(store.clone()).unwrap();
        World {
            scratch,
            blobs,
            store,
            journal,
            seq: 0,
            ordinal: 0,
        }
    }

    /// Begins its first round at once.
    fn collector(&self) -> BlobCollector {
        let mut collector = BlobCollector::new(
            self.blobs.clone(),
            self.store.clone(),
            DiskMonitor::default(),
        );
        collector.stage = CollectorStage::Resting {
            until: Instant::now(),
        };
        collector
    }

    /// A blob that was put long ago.
    fn old(&self, text: &str) -> Hash {
        let hash = self.blobs.put(text.as_bytes()).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(100_000);
        File::open(self.blobs.path(&hash))
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        hash
    }

    fn folder(&self, texts: &[&str]) -> Hash {
        let file = |text: &&str| {
            (
                FilePath::new(text).unwrap(),
                ListedFile {
                    sha256: self.old(text),
                    bytes: 1,
                },
            )
        };
        let listing = Listing {
            files: texts.iter().map(file).collect(),
        };
        self.old(std::str::from_utf8(&listing.encode()).unwrap())
    }

    fn body(&mut self, inputs: &str) -> Arc<TaskBody> {
        self.ordinal += 1;
        let document =
            TaskDocument::parse(&format!(r#"{{"module":"m","inputs":{{{inputs}}}}}"#)).unwrap();
        Arc::new(TaskBody::new(AddedTask {
            document,
            fingerprint: Fingerprint::of(inputs),
            references: Vec::new(),
            id: TaskId::new(&format!("t{}", self.ordinal)).unwrap(),
            job: JobName::new("j").unwrap(),
            ordinal: self.ordinal,
            created: Wall(0),
            job_results: Vec::new(),
            lineage: None,
            cache: None,
        }))
    }

    fn end(&self, body: &TaskBody, result: Hash, output: Hash) -> Record {
        let outputs: OutputBlobs = [(FilePath::new("out").unwrap(), output)].into();
        let attempt = AttemptId { epoch: 1, n: 1 };
        let end = TaskEnd {
            result: Some(TaskOutput::new(ResultRef::Blob(result), outputs)),
            ..TaskEnd::new(TaskState::Done, attempt, Wall(0))
        };
        Record::Ended(Arc::new(Ended::new(self.seq + 1, body, end)))
    }

    /// Commits and folds.
    fn fold(&mut self, records: Vec<Record>) {
        let entry = JournalEntry {
            first_seq: self.seq + 1,
            time: Wall(0),
            records,
        };
        self.seq += record::events_of(&entry.records);
        self.journal
            .append(self.journal.end() + 1, &codec::encode(&entry))
            .unwrap();
        view::catch_up(&self.store).unwrap();
    }

    /// A long time passes.
    fn age(&self) {
        for hash in self
            .blobs
            .clone()
            .with_grace(Duration::ZERO)
            .expired()
            .unwrap()
        {
            let long_ago = SystemTime::now() - Duration::from_secs(100_000);
            File::open(self.blobs.path(&hash))
                .unwrap()
                .set_modified(long_ago)
                .unwrap();
        }
    }

    fn there(&self, hash: Hash) -> bool {
        self.blobs.exists(&hash)
    }
}

fn to_its_end(collector: &mut BlobCollector) {
    while collector.step(&mut std::iter::empty()).unwrap() != CollectorStep::Rest {}
}

fn file(hash: Hash) -> String {
    format!(r#""a":{{"sha256":"{hash}"}}"#)
}

#[test]
fn what_nothing_names_goes_and_everything_else_stays() {
    let mut world = World::new();
    let [open_input, ended_input, result, output, version] =
        ["1", "2", "3", "4", "5"].map(|text| world.old(text));
    let folder = world.folder(&["x", "y"]);
    let open = world.body(&format!(
        r#"{},"d":{{"folder":"{folder}"}}"#,
        file(open_input)
    ));
    let ended = world.body(&file(ended_input));
    let seen = VersionRecord {
        version,
        kind: ModuleKind::Command,
        bytes: 1,
        seen: Wall(0),
        held: false,
    };
    let module = Box::new(ModuleRecord {
        versions: vec![seen],
        ..ModuleRecord::default()
    });
    let name = ModuleName::new("m").unwrap();
    world.fold(vec![
        Record::Added(open),
        Record::Added(ended.clone()),
        Record::Module {
            name,
            event: None,
            record: module,
        },
    ]);
    let record = world.end(&ended, result, output);
    world.fold(vec![record]);
    let lost = [world.old("lost"), world.folder(&["z"]), Hash::of(b"z")];
    let young = world.blobs.put(b"young").unwrap();
    to_its_end(&mut world.collector());
    assert!(lost.iter().all(|hash| !world.there(*hash)));
    let kept = [
        open_input,
        ended_input,
        result,
        output,
        version,
        folder,
        Hash::of(b"x"),
        Hash::of(b"y"),
        young,
    ];
    assert!(kept.iter().all(|hash| world.there(*hash)));
    // A store whose view is empty, as after everything was pruned.
    let bare = World {
        store: Arc::new(MemoryStore::default()),
        ..world
    };
    to_its_end(&mut bare.collector());
    assert_eq!(
        kept.map(|hash| bare.there(hash)),
        [false, false, false, false, false, false, false, false, true]
    );
}

#[test]
fn what_is_named_again_while_it_is_collected_stays() {
    for at in ["renewed", "put again", "added", "opened again", "waiting"] {
        let mut world = World::new();
        let hash = world.old("again");
        let inside = world.folder(&["in"]);
        let body = world.body(&format!(r#"{},"d":{{"folder":"{inside}"}}"#, file(hash)));
        let unneeded = world.old("unneeded");
        let mut collector = world.collector();
        let waiting = [Record::Added(body.clone())];
        let first: &[Record] = if at == "waiting" { &waiting } else { &[] };
        collector.step(&mut std::iter::once(first)).unwrap();
        loop {
            let CollectorStage::Working(round) = &collector.stage else {
                panic!("{at}: it has ended")
            };
            if matches!(round.position, RoundPosition::Removing { .. }) {
                break;
            }
            collector.step(&mut std::iter::empty()).unwrap();
        }
        let fence = AttemptId { epoch: 1, n: 1 };
        match at {
            "renewed" => {
                assert!(
                    [hash, inside, Hash::of(b"in")]
                        .iter()
                        .all(|hash| world.blobs.renew(hash).unwrap())
                );
            }
            "put again" => {
                world.blobs.put(b"again").unwrap();
                world.blobs.put(&world.blobs.get(&inside).unwrap()).unwrap();
                world.blobs.put(b"in").unwrap();
            }
            "added" => collector.committed(&[Record::Added(body)]),
            "opened again" => {
                let reopened = Record::Reopened {
                    body,
                    fence,
                    ended_seq: 1,
                    former_state: TaskState::Failed,
                    skipped_for: None,
                };
                collector.committed(&[reopened]);
            }
            _ => {}
        }
        to_its_end(&mut collector);
        assert!(!world.there(unneeded), "{at}");
        assert!(
            [hash, inside, Hash::of(b"in")]
                .iter()
                .all(|hash| world.there(*hash)),
            "{at}"
        );
        drop(world.scratch);
    }
}

#[test]
fn where_a_folder_cannot_be_read_nothing_goes() {
    let mut world = World::new();
    let spoilt = world.old("no listing");
    let body = world.body(&format!(r#""d":{{"folder":"{spoilt}"}}"#));
    world.fold(vec![Record::Added(body)]);
    let unneeded = world.old("unneeded");
    to_its_end(&mut world.collector());
    assert!(world.there(unneeded));
}

/// Tasks come, end, are opened again and pruned, in any order with the steps of rounds; now and
/// then the process starts anew. Whatever the view names is there at any time, and what nothing
/// names goes in the end.
#[test]
fn at_random_what_is_needed_is_always_there() {
    for seed in 1..=10_u64 {
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = move |n: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance % n
        };
        let mut world = World::new();
        let mut collector = world.collector();
        let mut open: Vec<(Arc<TaskBody>, Hash)> = Vec::new();
        let mut ended: Vec<(Arc<TaskBody>, Vec<Hash>)> = Vec::new();
        for _ in 0..120 {
            let mut records = Vec::new();
            match draw(9) {
                0 | 1 => {
                    // As the gateway does: put or renewed, then named.
                    let hash = world.old(&format!("in{}", draw(6)));
                    assert!(world.blobs.renew(&hash).unwrap());
                    let body = world.body(&file(hash));
                    open.push((body.clone(), hash));
                    records.push(Record::Added(body));
                }
                2 | 3 if !open.is_empty() => {
                    let (body, input) = open.swap_remove(draw(open.len() as u64) as usize);
                    let [result, output] =
                        ["r", "o"].map(|kind| world.old(&format!("{kind}{}", body.ordinal % 5)));
                    assert!(
                        world.blobs.renew(&result).unwrap() && world.blobs.renew(&output).unwrap()
                    );
                    records.push(world.end(&body, result, output));
                    ended.push((body, vec![input, result, output]));
                }
                4 if !ended.is_empty() => {
                    let (body, named) = ended.swap_remove(draw(ended.len() as u64) as usize);
                    let stored = view::ended_task(world.store.as_ref(), &body.id)
                        .unwrap()
                        .unwrap();
                    let fence = AttemptId { epoch: 1, n: 1 };
                    let seq = stored.ended.seq;
                    open.push((body.clone(), named[0]));
                    records.push(Record::Reopened {
                        body,
                        fence,
                        ended_seq: seq,
                        former_state: TaskState::Done,
                        skipped_for: None,
                    });
                }
                5 if !ended.is_empty() => {
                    let (body, _) = ended.swap_remove(0);
                    let stored = view::ended_task(world.store.as_ref(), &body.id)
                        .unwrap()
                        .unwrap();
                    taskmaster_engine::folding::forget(&world.store, &[stored]).unwrap();
                }
                6 => collector = world.collector(),
                7 => world.age(),
                _ => {
                    for _ in 0..draw(30) {
                        if collector.step(&mut std::iter::empty()).unwrap() == CollectorStep::Rest {
                            collector = world.collector();
                        }
                    }
                }
            }
            if !records.is_empty() {
                collector.committed(&records);
                world.fold(records);
            }
            let named = open
                .iter()
                .map(|(_, hash)| hash)
                .chain(ended.iter().flat_map(|(_, named)| named));
            named
                .for_each(|hash| assert!(world.there(*hash), "seed {seed}: blob {hash} is needed"));
        }
        // Long after.
        let everything = || {
            world
                .blobs
                .clone()
                .with_grace(Duration::ZERO)
                .expired()
                .unwrap()
        };
        world.age();
        to_its_end(&mut world.collector());
        let needed: HashSet<Hash> = open
            .iter()
            .map(|(_, hash)| *hash)
            .chain(ended.iter().flat_map(|(_, named)| named.clone()))
            .collect();
        let left: HashSet<Hash> = everything().into_iter().collect();
        assert_eq!(left, needed, "seed {seed}");
    }
}

#[test]
fn what_nothing_names_goes_from_an_object_store_and_its_being_away_ends_a_round() {
    let mut world = World::new();
    let store = Arc::new(taskmaster_blobs::memory::SwitchableStore::default());
    world.blobs = taskmaster_blobs::memory::blobs_in_memory(world.scratch.path(), &store, 1 << 30)
        .unwrap()
        .with_grace(Duration::ZERO);
    let [named, listed, orphan] =
        ["named", "listed", "orphan"].map(|text| world.blobs.put(text.as_bytes()).unwrap());
    let body = world.body(&format!(r#""a":{{"sha256":"{named}"}}"#));
    let listing = Listing {
        files: [(
            FilePath::new("x").unwrap(),
            ListedFile {
                sha256: listed,
                bytes: 6,
            },
        )]
        .into_iter()
        .collect(),
    };
    let folder = world.blobs.put(&listing.encode()).unwrap();
    let other = world.body(&format!(r#""f":{{"folder":"{folder}"}}"#));
    world.fold(vec![Record::Added(body), Record::Added(other)]);
    store.switch_off();
    let mut collector = world.collector();
    until_rest(&mut collector);
    store.switch_on();
    std::thread::sleep(Duration::from_millis(1_100));
    assert!(world.there(orphan));
    let mut collector = world.collector();
    until_rest(&mut collector);
    assert_eq!(
        [named, listed, folder, orphan].map(|hash| world.there(hash)),
        [true, true, true, false]
    );
}

/// An object store is asked on another thread: a step may have nothing to do yet.
fn until_rest(collector: &mut BlobCollector) {
    while collector.step(&mut std::iter::empty()).unwrap() != CollectorStep::Rest {
        std::thread::sleep(Duration::from_millis(1));
    }
}
