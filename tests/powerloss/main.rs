//! The power goes out: what a disk may hold then is built from what a real master wrote and synced,
//! and opened with the real binary. Everything that was acknowledged must be there, and what was
//! never acknowledged may be there or not.
//!
//! A recorder in C (`harness/recorder.c`, loaded with LD_PRELOAD) writes down every change and every sync
//! of the master's files. This test adds marks to the same log when a client was told that tasks
//! are safe. For a crash after any number of entries, what was synced is on the disk; of the rest a
//! [`Policy`] says what is.
//!
//! `POWERLOSS_STATES=2000 cargo test --release --test powerloss` builds more states, `SEED` others.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

mod disk;

use disk::{Disk, Entry, Policy};
use std::collections::BTreeMap;
use std::path::Path;
use taskmaster_harness::chance::Chance;
use taskmaster_harness::{Folder, Master, recorder, run, setting};

/// Batches fed; every other one is waited for.
const BATCHES: usize = 16;

/// Tasks in a batch.
const TASKS: usize = 24;

fn module(master: &Master) {
    let text = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 64) "\"well\"")
        (func (export "_start") (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 6))
          (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    master.drop_module("well.wat", text);
}

/// Runs a master from its first start on, kills and starts it again in between, and gives what was
/// written down.
fn record(folder: &Folder) -> Vec<Entry> {
    let log = folder.join("log");
    let library = recorder::compile(folder);
    let mut master = Master::with_settings(
        "master",
        &[],
        &[
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("RECORDER_LOG", log.to_str().unwrap()),
        ],
        "RECORDER_ROOT",
    );
    module(&master);
    let mut runner = master.runner("r", &["--slots", "2"]);
    for batch in 0..BATCHES {
        let ids: Vec<String> = (0..TASKS).map(|task| format!("t{batch}-{task}")).collect();
        let filling = "f".repeat(batch * 400);
        let line = |id: &String| {
            format!("{{\"id\":\"{id}\",\"module\":\"well\",\"params\":\"{filling}\"}}\n")
        };
        let file = master
            .folder
            .write("batch.jsonl", ids.iter().map(line).collect::<String>());
        let waited = batch % 2 == 1;
        let mut args = vec!["feed", &file];
        args.extend(waited.then_some("--wait"));
        master.run(&args).with(0);
        let told = ids.iter().map(|id| {
            if waited {
                format!("{id} done\n")
            } else {
                format!("{id}\n")
            }
        });
        disk::mark(&log, &told.collect::<String>());
        if batch == BATCHES / 2 {
            master.process.kill();
            master.start_again();
        }
    }
    runner.kill();
    assert_eq!(master.process.terminate(), Some(0));
    let root = master.folder.join("data");
    let entries = disk::read(&log, &root);
    check_recorder(&entries, &root, folder);
    entries
}

/// With nothing lost, the disk must be as it really is: else the recorder has missed something.
fn check_recorder(entries: &[Entry], root: &Path, folder: &Folder) {
    let image = folder.join("whole");
    Disk::after(entries).write(&image, Policy::All, &mut Chance::new(1));
    for name in ["store/db", "store/conf", "store/synced"] {
        let (real, built) = (
            std::fs::read(root.join(name)).unwrap(),
            std::fs::read(image.join(name)).unwrap(),
        );
        assert!(
            real == built,
            "{name} is not what was recorded: {} bytes, not {}",
            built.len(),
            real.len()
        );
    }
}

/// Opens one state with the binary; what is wrong with it.
fn judge(folder: &Folder, image: &Path, told: &BTreeMap<String, bool>) -> Option<String> {
    let data = image.to_str().unwrap();
    if !image.join("store").join("db").exists() {
        return (!told.is_empty()).then(|| "there is no store".to_owned());
    }
    let check = run(folder, &["store", "check", "--data", data], &[], "");
    if check.code != 0 {
        return Some(format!("`store check`: {}", check.err));
    }
    let export = run(folder, &["store", "export", "--data", data], &[], "");
    if export.code != 0 {
        return Some(format!("`store export`: {}", export.err));
    }
    let mut held: BTreeMap<String, bool> = BTreeMap::new();
    for line in export.lines() {
        let (ended, open) = (&line["ended"], &line["open"]);
        if let Some(id) = ended["body"]["id"].as_str().or(open["body"]["id"].as_str()) {
            let done = ended["ended"]["end"]["state"] == "done"
                && ended["ended"]["end"]["result"]["json"] == "well";
            held.insert(id.to_owned(), done);
        }
    }
    let lost = told
        .iter()
        .find(|(id, done)| held.get(*id).is_none_or(|has| **done && !has));
    lost.map(|(id, done)| {
        format!(
            "{id} was told to be {}: {:?}",
            if *done { "done" } else { "added" },
            held.get(id)
        )
    })
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let folder = Folder::new();
    let entries = record(&folder);
    let states: u64 = setting("POWERLOSS_STATES").unwrap_or(40);
    let seed: u64 = setting("SEED").unwrap_or(1);
    let first_told = entries.iter().position(Entry::is_mark).unwrap() as u64;
    let mut chance = Chance::new(seed);
    let mut built: BTreeMap<&str, u64> = BTreeMap::new();
    for state in 0..states {
        let policy = Policy::EACH[(state % Policy::EACH.len() as u64) as usize];
        // Every fifth in the time before anything was acknowledged: the creation of the store.
        let last = entries.len() as u64;
        let cut = if state % 5 == 4 {
            chance.within(1, first_told)
        } else {
            chance.within(first_told, last)
        };
        let entries = &entries[..cut as usize];
        let image = folder.join("image");
        Disk::after(entries).write(&image, policy, &mut chance);
        if let Some(wrong) = judge(&folder, &image, &disk::told(entries)) {
            panic!(
                "SEED={seed}, state {state}: after {cut} entries, {}: {wrong}",
                policy.name()
            );
        }
        *built.entry(policy.name()).or_default() += 1;
        std::fs::remove_dir_all(&image).unwrap();
    }
    eprintln!(
        "{} entries recorded; opened with everything acknowledged: {built:?}",
        entries.len()
    );
}

/// The states must be worth something: where the last sync is taken back, tasks are missed.
#[test]
fn a_sync_that_does_nothing_is_found() {
    let folder = Folder::new();
    let entries = record(&folder);
    let unsynced: Vec<Entry> = entries
        .iter()
        .filter(|entry| !entry.is_sync_of("store/db"))
        .cloned()
        .collect();
    let image = folder.join("image");
    Disk::after(&unsynced).write(&image, Policy::Nothing, &mut Chance::new(1));
    assert!(judge(&folder, &image, &disk::told(&unsynced)).is_some());
}
