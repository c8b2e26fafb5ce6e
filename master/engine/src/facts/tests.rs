//! Compares the facts with a map. Tasks are added, end, are opened again, folded and forgotten in
//! any order, and after each step every id must be what the map says.

use super::*;
use crate::folding;
use std::collections::BTreeSet;
use taskmaster_protocol::{AttemptId, TaskDocument};
use taskmaster_store::body::{AddedTask, Fingerprint};
use taskmaster_store::codec;
use taskmaster_store::journal::{Journal, KvJournal};
use taskmaster_store::kv::memory::MemoryStore;
use taskmaster_store::kv::{KeyValue, WriteBatch};
use taskmaster_store::record::{EndExtras, JournalEntry, Record, TaskEnd};

/// How many ids there are: so few that each is used again and again.
const IDS: u64 = 9;

/// xorshift64*.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

/// What the map knows of an id.
#[derive(Debug, Clone)]
enum Model {
    Open {
        key: TaskKey,
        ordinal: u64,
        dependency: Option<TaskId>,
    },
    Ended {
        /// The task's key while the core still has it.
        key: Option<TaskKey>,
        ended: Arc<Ended>,
    },
}

struct World {
    facts: Facts,
    store: SharedStore,
    journal: KvJournal,
    model: BTreeMap<TaskId, Model>,
    ordinals: BTreeMap<TaskKey, u64>,
    /// Ended tasks that the fold may forget and has not forgotten yet.
    allowed: Vec<EndedTask>,
    /// Records of the turn that has not ended.
    records: Vec<Record>,
    first_seq: u64,
    seq: u64,
    ordinal: u64,
}

fn id(n: u64) -> TaskId {
    TaskId::new(&format!("t{n}")).unwrap()
}

impl World {
    fn new() -> World {
        let store: SharedStore = Arc::new(MemoryStore::default());
        World {
            facts: Facts::new(store.clone(), 0, 0).unwrap(),
            journal: KvJournal::open(store.clone()).unwrap(),
            store,
            model: BTreeMap::new(),
            ordinals: BTreeMap::new(),
            allowed: Vec::new(),
            records: Vec::new(),
            first_seq: 1,
            seq: 0,
            ordinal: 0,
        }
    }

    fn record(&mut self, record: Record) {
        self.seq += u64::from(record.event().is_some());
        self.records.push(record);
    }

    fn add(&mut self, id: TaskId, on: Option<TaskId>) {
        self.ordinal += 1;
        let on_text = on.as_ref().map_or(String::new(), |on| format!("\"{on}\""));
        let text = format!(r#"{{"module":"m","dependencies":[{on_text}]}}"#);
        let document = TaskDocument::parse(&text).unwrap();
        let body = Arc::new(TaskBody::new(AddedTask {
            document,
            fingerprint: Fingerprint::of(&text),
            references: Vec::new(),
            id: id.clone(),
            job: JobName::new("j").unwrap(),
            ordinal: self.ordinal,
            created: Wall(0),
            job_results: Vec::new(),
            lineage: None,
            cache: None,
        }));
        let was_pruned = self.facts.stop_pruning(&id);
        self.record(Record::Added(body.clone()));
        let key = self.facts.opened(body.clone(), 0);
        if was_pruned {
            self.facts.reopened(id.clone(), self.seq);
        }
        self.opens(id, key, body.ordinal, on);
    }

    fn opens(&mut self, id: TaskId, key: TaskKey, ordinal: u64, dependency: Option<TaskId>) {
        self.ordinals.insert(key, ordinal);
        let open = Model::Open {
            key,
            ordinal,
            dependency,
        };
        self.model.insert(id, open);
    }

    fn end(&mut self, id: TaskId, key: TaskKey, state: TaskState, skipped_for: Option<TaskId>) {
        let body = self.facts.body(key);
        let attempt = AttemptId { epoch: 1, n: 0 };
        let skipped = skipped_for.map(|on| EndExtras {
            skipped_for: Some(on),
            ..EndExtras::default()
        });
        let end = TaskEnd {
            extras: skipped.map(Box::new),
            ..TaskEnd::new(state, attempt, Wall(1))
        };
        let ended = Arc::new(Ended::new(self.seq + 1, &body, end));
        self.record(Record::Ended(ended.clone()));
        self.facts.ended(key, ended.clone());
        let key = Some(key);
        self.model.insert(id, Model::Ended { key, ended });
    }

    fn forget(&mut self, id: &TaskId, key: TaskKey) {
        self.facts.forget(key);
        self.ordinals.remove(&key);
        if let Some(Model::Ended { key, .. }) = self.model.get_mut(id) {
            *key = None;
        }
    }

    fn reopen(&mut self, id: TaskId, ended: &Ended) {
        let known = match self.facts.known(&id) {
            Some(Known::Ended(stored)) => stored.clone(),
            Some(other) => panic!("`{id}` is {other:?}"),
            None => self.facts.ended_in_view(&id).unwrap().unwrap(),
        };
        assert_eq!(known.ended.seq, ended.seq);
        self.record(Record::Reopened {
            body: known.body.clone(),
            fence: ended.end.last_sent,
            ended_seq: ended.seq,
            former_state: ended.end.state,
            skipped_for: ended.end.skipped_for().cloned(),
        });
        self.facts.reopened(id.clone(), self.seq);
        let dependency = known.body.dependencies().first().map(|on| on.on.clone());
        let ordinal = known.body.ordinal;
        let key = self.facts.opened(known.body, 0);
        self.opens(id, key, ordinal, dependency);
    }

    /// Ends the turn and makes it durable.
    fn commit(&mut self) {
        self.facts.turn_ended(self.seq, self.ordinal);
        if self.records.is_empty() {
            return;
        }
        let entry = JournalEntry {
            first_seq: self.first_seq,
            time: Wall(0),
            records: std::mem::take(&mut self.records),
        };
        let next = self.journal.end() + 1;
        self.journal.append(next, &codec::encode(&entry)).unwrap();
        self.first_seq = self.seq + 1;
    }

    fn fold(&mut self) {
        self.forget_allowed();
        self.commit();
        view::catch_up(&self.store).unwrap();
        self.facts.view_has(self.seq);
    }

    /// The fold forgets the tasks that it was allowed to forget, as it does before it folds or asks
    /// again.
    fn forget_allowed(&mut self) {
        let allowed = std::mem::take(&mut self.allowed);
        folding::forget(&self.store, &allowed).unwrap();
    }

    /// The fold asks which tasks it may forget, and forgets them at once or later.
    fn prune(&mut self, chance: &mut Chance) {
        self.forget_allowed();
        let asked = view::ended_from(self.store.as_ref(), 0, 3).unwrap();
        let allowed = self.facts.prunable(asked.clone(), Wall(2), |_| false);
        let named: BTreeSet<TaskId> = self
            .model
            .values()
            .filter_map(|task| match task {
                Model::Open { dependency, .. } => dependency.clone(),
                Model::Ended { .. } => None,
            })
            .collect();
        for task in &allowed {
            let id = &task.ended.id;
            assert!(!named.contains(id), "`{id}` is named by an open task");
            let is_newest = matches!(self.model.get(id),
                Some(Model::Ended { ended, .. }) if ended.seq == task.ended.seq);
            if is_newest {
                self.model.remove(id);
            }
        }
        self.allowed = allowed;
        if chance.below(2) == 0 {
            self.forget_allowed();
        }
    }

    fn step(&mut self, chance: &mut Chance) {
        let id = id(chance.below(IDS));
        match (self.model.get(&id).cloned(), chance.below(10)) {
            (_, 0) => self.commit(),
            (_, 1) => self.fold(),
            (_, 2) => self.prune(chance),
            (None, _) => {
                let known: Vec<TaskId> = self.model.keys().cloned().collect();
                let at = chance.below(known.len() as u64 + 1) as usize;
                self.add(id, known.get(at).cloned());
            }
            (
                Some(Model::Open {
                    key, dependency, ..
                }),
                n,
            ) => {
                let skipped = dependency.filter(|_| n % 2 == 0);
                let state = if skipped.is_some() {
                    TaskState::Skipped
                } else {
                    TaskState::Failed
                };
                self.end(id, key, state, skipped);
            }
            (Some(Model::Ended { key: Some(key), .. }), _) => self.forget(&id, key),
            (Some(Model::Ended { key: None, ended }), n) if n < 6 => self.reopen(id, &ended),
            (Some(Model::Ended { .. }), _) => {}
        }
    }

    fn check(&self) {
        for n in 0..IDS {
            let id = id(n);
            let wanted = match self.model.get(&id) {
                None => DependencyState::Unknown,
                Some(Model::Open { key, .. }) => DependencyState::Open(*key),
                Some(Model::Ended { ended, .. }) => DependencyState::Ended {
                    state: final_of(ended.end.state),
                    ordinal: ended.ordinal,
                },
            };
            assert_eq!(self.facts.state_of(&id), Ok(wanted), "`{id}`");
            self.check_dependency_state(&id, wanted);
            let skipped: BTreeSet<TaskId> = self
                .facts
                .skipped_for(&id)
                .unwrap()
                .into_iter()
                .map(|stored| stored.ended.id.clone())
                .collect();
            // Tasks that the core still has are not opened again.
            let wanted = self.model.iter().filter(|(_, task)| {
                matches!(task, Model::Ended { key: None, ended }
                    if ended.end.skipped_for() == Some(&id))
            });
            let wanted: BTreeSet<TaskId> = wanted.map(|(id, _)| id.clone()).collect();
            assert_eq!(skipped, wanted, "skipped for `{id}`");
        }
        let open = self
            .model
            .values()
            .filter(|task| matches!(task, Model::Open { .. }));
        assert_eq!(self.facts.open_count(), open.count());
    }

    /// If the task of a dependency's id was added later than the dependent, the dependency is no
    /// longer kept.
    fn check_dependency_state(&self, on: &TaskId, state: DependencyState) {
        let ordinal_of = |key: TaskKey| self.ordinals[&key];
        let ordinal = match state {
            DependencyState::Open(key) => ordinal_of(key),
            DependencyState::Ended { ordinal, .. } => ordinal,
            DependencyState::Unknown => return,
        };
        for task in self.model.values() {
            let Model::Open {
                key, ordinal: own, ..
            } = task
            else {
                continue;
            };
            let wanted = if ordinal < *own {
                state
            } else {
                DependencyState::Unknown
            };
            let body = self.facts.body(*key);
            assert_eq!(
                self.facts.dependency_state(&body, on, ordinal_of),
                Ok(wanted),
                "`{on}`"
            );
        }
    }
}

#[test]
fn whatever_happens_every_id_is_what_a_map_says_it_is() {
    for seed in 1..=200 {
        let mut chance = Chance(seed);
        let mut world = World::new();
        for _ in 0..300 {
            world.step(&mut chance);
            world.check();
        }
    }
}

#[test]
fn a_job_that_the_core_does_not_hold_is_what_it_was_until_the_view_has_it() {
    let mut world = World::new();
    let name = JobName::new("j").unwrap();
    assert_eq!(world.facts.idle_job(&name), Ok(None));
    let record = JobRecord {
        run: 3,
        ..JobRecord::default()
    };
    world.facts.set_idle_job(name.clone(), 7, record.clone());
    world.facts.view_has(6);
    assert_eq!(world.facts.idle_job(&name), Ok(Some(record)));
    world.facts.view_has(7);
    assert_eq!(world.facts.idle_job_in_memory(&name), None);
    world
        .facts
        .set_idle_job(name.clone(), 9, JobRecord::default());
    world.facts.job_opened(&name);
    assert_eq!(world.facts.idle_job(&name), Ok(None));
}

#[test]
fn what_cannot_be_read_is_never_unknown_and_is_told() {
    let mut chance = Chance(7);
    let mut world = World::new();
    for _ in 0..300 {
        world.step(&mut chance);
    }
    world.fold();
    let in_view: Vec<TaskId> = (world.model.keys())
        .filter(|id| world.facts.known(id).is_none())
        .cloned()
        .collect();
    assert!(!in_view.is_empty(), "the view has no ended task");
    let damage = StoreDamage::default();
    world.facts.report_damage_to(damage.clone());
    let blocks = world.store.scan(b"e", b"f", false, usize::MAX).unwrap();
    let mut batch = WriteBatch::default();
    for KeyValue { key, mut value } in blocks {
        value[9] ^= 16;
        batch.put(key, value);
    }
    world.store.write(batch).unwrap();
    for id in &in_view {
        let told = world.facts.state_of(id).unwrap_err().to_string();
        assert!(told.contains("checksum"), "`{id}`: {told}");
    }
    assert!(damage.found().is_some_and(|why| why.contains("checksum")));

    // Where the list of runs cannot be read, nobody knows of any id that it is new.
    let mut batch = WriteBatch::default();
    batch.put(b"!runs\0\0".to_vec(), b"spoilt".to_vec());
    world.store.write(batch).unwrap();
    world.facts.view_has(world.seq);
    assert!(
        world
            .facts
            .ended_in_view(&TaskId::new("never-seen").unwrap())
            .is_err()
    );
}
