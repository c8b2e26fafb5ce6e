//! What is measured, and whether it is flat.

use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use taskmaster_harness::client::Client;
use taskmaster_harness::feeder::Served;
use taskmaster_harness::ledger::Ledger;
use taskmaster_harness::witness::Witness;
use taskmaster_harness::{Master, Process};

/// Tasks by how they ended, as a watcher hears it.
#[derive(Default)]
pub struct Counter {
    pub done: AtomicU64,
    pub failed: AtomicU64,
    pub cancelled: AtomicU64,
    pub retried: AtomicU64,
    pub other: AtomicU64,
}

/// Counts durable events until `stop`. A link that is lost is a fault here: nothing was done to it.
pub fn count(url: &str, counter: &Counter, witness: &Witness, ledger: &Ledger, stop: &AtomicBool) {
    let mut client = Client::dial(url, None).unwrap();
    let filter = json!({"events": ["task:done", "task:failed", "task:cancelled", "task:retrying", "task:skipped"]});
    client
        .say("watch", json!({"filter": filter, "since": 0}))
        .unwrap();
    while !stop.load(Ordering::Relaxed) {
        let message = match client.hear(Duration::from_millis(50)) {
            Ok(Some(message)) => message,
            Ok(None) => continue,
            Err(error) => return ledger.complain(format!("a watcher was cut off: {error}")),
        };
        if message["event"] == "watch:gap" {
            ledger.complain(format!(
                "a watcher that keeps up has missed something: {message}"
            ));
        }
        for event in message["data"].as_array().into_iter().flatten() {
            let number = match event["event"].as_str().unwrap_or_default() {
                "task:done" => &counter.done,
                "task:failed" => &counter.failed,
                "task:cancelled" => &counter.cancelled,
                "task:retrying" => &counter.retried,
                _ => &counter.other,
            };
            number.fetch_add(1, Ordering::Relaxed);
            let ours = event["task"]
                .as_str()
                .is_some_and(|task| task.starts_with('f') && !task.starts_with("feed"));
            if ours && event["event"] != "task:retrying" {
                witness.seen().load_ended += 1;
            }
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Sample {
    pub at: Duration,
    pub master_mib: f64,
    pub runner_mib: f64,
    pub store_mib: f64,
    pub data_mib: f64,
    pub cache_mib: f64,
    pub done: u64,
    pub adds: u64,
    pub add_p50_ms: f64,
    pub add_p99_ms: f64,
    pub call_ms: f64,
}

pub struct Sampler<'a> {
    master: &'a Master,
    runner: &'a Process,
    counter: &'a Counter,
    served: &'a Served,
    began: Instant,
    last: (Instant, u64),
    pub samples: Vec<Sample>,
}

impl<'a> Sampler<'a> {
    pub fn new(
        master: &'a Master,
        runner: &'a Process,
        counter: &'a Counter,
        served: &'a Served,
    ) -> Sampler<'a> {
        println!(
            "  min  master MiB  runner MiB  store MiB  data MiB  cache MiB  done/s   done  failed  cancelled  retried  add p50/p99 ms  call ms"
        );
        let began = Instant::now();
        Sampler {
            master,
            runner,
            counter,
            served,
            began,
            last: (began, 0),
            samples: Vec::new(),
        }
    }

    pub fn sample(&mut self) {
        let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let mut waits = std::mem::take(&mut *self.served.waits_us.lock().unwrap());
        waits.sort_unstable();
        let part = |part: f64| {
            waits
                .get((waits.len() as f64 * part) as usize)
                .copied()
                .unwrap_or(0) as f64
                / 1_000.0
        };
        let call = Instant::now();
        self.master.still_works();
        let sample = Sample {
            at: self.began.elapsed(),
            master_mib: resident_mib(self.master.process.id()),
            runner_mib: resident_mib(self.runner.id()),
            store_mib: folder_mib(&self.master.folder.join("data/store")),
            data_mib: folder_mib(&self.master.folder.join("data")),
            cache_mib: folder_mib(&self.master.folder.join("runner-cache")),
            done: number(&self.counter.done),
            adds: number(&self.served.tasks),
            add_p50_ms: part(0.5),
            add_p99_ms: part(0.99),
            call_ms: call.elapsed().as_secs_f64() * 1_000.0,
        };
        let (since, before) = std::mem::replace(&mut self.last, (Instant::now(), sample.done));
        println!(
            "{:5.1} {:11.0} {:11.0} {:10.0} {:9.0} {:10.1} {:7.0} {:6} {:7} {:10} {:8} {:7.1}/{:<7.1} {:8.0}",
            sample.at.as_secs_f64() / 60.0,
            sample.master_mib,
            sample.runner_mib,
            sample.store_mib,
            sample.data_mib,
            sample.cache_mib,
            (sample.done - before) as f64 / since.elapsed().as_secs_f64(),
            sample.done,
            number(&self.counter.failed),
            number(&self.counter.cancelled),
            number(&self.counter.retried),
            sample.add_p50_ms,
            sample.add_p99_ms,
            sample.call_ms,
        );
        self.samples.push(sample);
    }
}

/// Memory that a process has now.
fn resident_mib(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1_024.0
}

/// What a folder takes on the disk; files may go while it is read.
fn folder_mib(folder: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(folder) else {
        return 0.0;
    };
    let size = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => folder_mib(&entry.path()),
        _ => entry
            .metadata()
            .map_or(0.0, |is| is.blocks() as f64 * 512.0 / 1_048_576.0),
    };
    entries.flatten().map(size).sum()
}

/// The last quarter needs no more than the one before it, but for a tenth and some MiB of coming
/// and going.
pub fn judge(samples: &[Sample]) {
    let quarter = samples.len() / 4;
    let (third, last) = (&samples[2 * quarter..3 * quarter], &samples[3 * quarter..]);
    let mut wrong: BTreeMap<&str, String> = BTreeMap::new();
    type Value = fn(&Sample) -> f64;
    let series: [(&str, Value); 4] = [
        ("memory of the master", |sample| sample.master_mib),
        ("memory of the runner", |sample| sample.runner_mib),
        ("disk", |sample| sample.data_mib),
        ("cache of compiled modules", |sample| sample.cache_mib),
    ];
    for (name, value) in series {
        let highest = |samples: &[Sample]| samples.iter().map(value).fold(0.0, f64::max);
        let (before, after) = (highest(third), highest(last));
        println!(
            "{name}: at the most {before:.0} MiB in the third quarter, {after:.0} MiB in the last"
        );
        if after > before * 1.1 + 16.0 {
            wrong.insert(name, format!("{before:.0} → {after:.0} MiB"));
        }
    }
    assert!(wrong.is_empty(), "it grows: {wrong:?}");
}

#[test]
fn what_grows_is_found() {
    let sample = |index: u64| Sample {
        at: Duration::from_secs(index),
        master_mib: 300.0 + (index % 7) as f64,
        runner_mib: 50.0,
        store_mib: 0.0,
        data_mib: 10.0 * index as f64,
        cache_mib: 1.0,
        done: 0,
        adds: 0,
        add_p50_ms: 0.0,
        add_p99_ms: 0.0,
        call_ms: 0.0,
    };
    let growing: Vec<Sample> = (0..40).map(sample).collect();
    let flat: Vec<Sample> = growing
        .iter()
        .map(|sample| Sample {
            data_mib: 400.0,
            ..sample.clone()
        })
        .collect();
    judge(&flat);
    let found = std::panic::catch_unwind(|| judge(&growing)).unwrap_err();
    assert!(found.downcast_ref::<String>().unwrap().contains("disk"));
}
