//! A store whose newest bytes are damaged after a kill. What was synced must be there, or the
//! master must say that it is not and what to do: never go on as if nothing had been. What was not
//! synced may be gone, and must harm nothing.

use crate::cluster::Cluster;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use taskmaster_harness::chance::Chance;
use taskmaster_harness::client::Client;
use taskmaster_harness::{setting, until};

/// The smallest thing that a disk writes at once.
const SECTOR: usize = 512;

/// What is done to the sectors of sled's file that were written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// None of them was written.
    Unwritten,
    /// Only some were.
    Some,
    /// Only the first ones were.
    First,
    /// The first ones were, the rest is empty.
    Torn,
    /// One bit in one of them is another.
    Flipped,
    /// The file ends in the middle of them.
    CutOff,
    /// The file is empty.
    Empty,
    /// The file is gone.
    Gone,
}

use Damage::{CutOff, Empty, First, Flipped, Gone, Some as SomeOf, Torn, Unwritten};

/// Copies of `data/store` beside it.
struct Copies {
    store: PathBuf,
    before: Vec<u8>,
    after: Vec<u8>,
    /// Sectors in which they differ.
    newest: Vec<usize>,
}

impl Copies {
    fn new(cluster: &Cluster, before: Vec<u8>) -> Copies {
        let store = cluster.folder.join("data/store");
        let after = fs::read(store.join("db")).unwrap();
        let newest: Vec<usize> = (0..after.len().div_ceil(SECTOR))
            .filter(|at| sector(&before, *at) != sector(&after, *at))
            .collect();
        assert!(!newest.is_empty(), "nothing was written");
        copy(&store, &store.with_file_name("copy"));
        Copies {
            store,
            before,
            after,
            newest,
        }
    }

    fn restore(&self) {
        fs::remove_dir_all(&self.store).unwrap();
        copy(&self.store.with_file_name("copy"), &self.store);
    }

    fn damage(&self, damage: Damage, chance: &mut Chance) {
        self.restore();
        let file = self.store.join("db");
        let mut bytes = self.after.clone();
        let first = chance.below(self.newest.len() as u64) as usize;
        match damage {
            Gone => return fs::remove_file(file).unwrap(),
            Empty => bytes.clear(),
            CutOff => {
                bytes.truncate(self.newest[first] * SECTOR + chance.below(SECTOR as u64) as usize)
            }
            Flipped => {
                let whole = sector(&self.after, self.newest[first]).len() as u64;
                bytes[self.newest[first] * SECTOR + chance.below(whole) as usize] ^=
                    1 << chance.below(8);
            }
            Unwritten => self
                .newest
                .iter()
                .for_each(|at| self.put(&mut bytes, *at, sector(&self.before, *at))),
            SomeOf => {
                let lost = self.newest.iter().filter(|_| chance.permille(500));
                lost.for_each(|at| self.put(&mut bytes, *at, sector(&self.before, *at)));
            }
            First => self.newest[first..]
                .iter()
                .for_each(|at| self.put(&mut bytes, *at, sector(&self.before, *at))),
            Torn => self.newest[first..]
                .iter()
                .for_each(|at| self.put(&mut bytes, *at, &[])),
        }
        fs::write(file, bytes).unwrap();
    }

    /// What was not there before is zero, as in a file that has grown and was not written.
    fn put(&self, bytes: &mut [u8], at: usize, sector: &[u8]) {
        let end = (at * SECTOR + SECTOR).min(bytes.len());
        for (index, byte) in bytes[at * SECTOR..end].iter_mut().enumerate() {
            *byte = sector.get(index).copied().unwrap_or(0);
        }
    }
}

fn sector(bytes: &[u8], at: usize) -> &[u8] {
    bytes
        .get(at * SECTOR..)
        .map_or(&[], |rest| &rest[..rest.len().min(SECTOR)])
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Adds tasks with ids of these numbers, and waits until they are acknowledged.
fn add(cluster: &Cluster, numbers: std::ops::Range<u64>) {
    let mut client = Client::dial(&cluster.url, None).unwrap();
    for (batch, no) in (1..).zip(numbers) {
        let task = json!({"id": format!("t{no}"), "module": "echo", "params": "x".repeat(300), "job": "tail"});
        client
            .say("task:add", json!({"batch": batch, "tasks": [task]}))
            .unwrap();
        let answer = client.hear(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!(answer["event"], "task:added", "{answer}");
    }
}

/// Starts on what there is: the number of tasks that are there, or what the master says as it ends.
fn start(cluster: &mut Cluster) -> Result<u64, String> {
    cluster.start_master();
    until("a master that is ready or has ended", || {
        cluster.master.said().contains("listening on ws://") || cluster.master.has_ended()
    });
    if cluster.master.has_ended() {
        assert_eq!(
            cluster.master.exit_code(),
            Some(1),
            "{}",
            cluster.master.said()
        );
        return Err(cluster.master.said());
    }
    let total = cluster.job("tail")["total"].as_u64().unwrap_or(0);
    cluster.kill_master();
    Ok(total)
}

#[test]
fn a_store_that_has_lost_what_was_synced_is_refused_with_what_to_do() {
    let mut chance = Chance::new(setting("SEED").unwrap_or(1));
    let mut cluster = Cluster::new(0);
    cluster.wait_ready();
    add(&cluster, 0..50);
    cluster.kill_master();
    let before = fs::read(cluster.folder.join("data/store/db")).unwrap();
    cluster.start_master();
    cluster.wait_ready();
    add(&cluster, 50..100);
    cluster.kill_master();
    let copies = Copies::new(&cluster, before);
    let (mut refused, mut whole) = (0, 0);
    for round in 0..setting("TAILS").unwrap_or(4) {
        for damage in [Unwritten, SomeOf, First, Torn, Flipped, CutOff, Empty, Gone] {
            copies.damage(damage, &mut chance);
            match start(&mut cluster) {
                // What is damaged need not be needed: an older copy of a page, a word of sled's
                // own.
                Ok(100) => whole += 1,
                Ok(found) => {
                    panic!(
                        "{damage:?}, round {round}: 100 tasks were acknowledged, and it starts with {found}"
                    )
                }
                Err(said) => {
                    refused += 1;
                    let path = copies.store.to_str().unwrap();
                    assert!(!said.contains("panicked"), "{damage:?}: {said}");
                    assert!(
                        said.contains(path.rsplit_once("data/").unwrap().1),
                        "{damage:?} names no folder: {said}"
                    );
                    assert!(
                        said.contains("Restore a copy"),
                        "{damage:?} does not say what to do: {said}"
                    );
                }
            }
        }
    }
    println!("{refused} damaged stores were refused, {whole} had everything");
    assert!(refused > 0, "no damage was felt");
    // What the message says to do does help.
    copies.restore();
    assert_eq!(start(&mut cluster), Ok(100));
}

#[test]
fn a_store_that_has_lost_only_what_was_not_synced_opens() {
    let mut chance = Chance::new(setting("SEED").unwrap_or(1));
    // Nothing is synced between a stop and the next.
    let mut cluster = Cluster::with(0, &["--durability", "interval:60000"]);
    cluster.wait_ready();
    add(&cluster, 0..50);
    assert_eq!(
        cluster.master.terminate(),
        Some(0),
        "{}",
        cluster.master.said()
    );
    cluster.start_master();
    cluster.wait_ready();
    let before = fs::read(cluster.folder.join("data/store/db")).unwrap();
    add(&cluster, 50..100);
    cluster.kill_master();
    let copies = Copies::new(&cluster, before);
    let mut found = Vec::new();
    for round in 0..setting("TAILS").unwrap_or(4) {
        for damage in [Unwritten, SomeOf, First] {
            copies.damage(damage, &mut chance);
            let tasks = start(&mut cluster)
                .unwrap_or_else(|said| panic!("{damage:?}, round {round}: {said}"));
            assert!(
                (50..=100).contains(&tasks),
                "{damage:?}, round {round}: 50 were synced, {tasks} are there"
            );
            found.push(tasks);
        }
    }
    println!("50 tasks were synced, 50 were not; there were {found:?}");
}
