//! Many tasks: with all that makes a scheduler slow, against as many plain ones; waiting,
//! cancelled, long over.

use crate::many;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use taskmaster_harness::wat::echo;
use taskmaster_harness::{Master, until};

fn seconds(master: &Master, name: &str, line: impl Fn(usize) -> Value) -> f64 {
    seconds_of(master, name, many(), line)
}

/// How long so many tasks take, from the first add to the last durable end that the feeder knows
/// of.
fn seconds_of(master: &Master, name: &str, tasks: usize, line: impl Fn(usize) -> Value) -> f64 {
    let lines: String = (0..tasks).map(|n| format!("{}\n", line(n))).collect();
    let file = master.folder.write(&format!("{name}.jsonl"), lines);
    let start = Instant::now();
    let ran = master
        .run(&["feed", &file, "--job", name, "--follow", "-o", "jsonl"])
        .with(0);
    assert_eq!(ran.out.lines().count(), tasks);
    start.elapsed().as_secs_f64()
}

/// A task of many jobs and classes; every second one waits for the one before it.
fn hard_task(n: usize, jobs: usize, classes: usize) -> Value {
    let mut label = serde_json::Map::new();
    label.insert(format!("class{}", n % classes), "yes".into());
    let waits_for: Vec<String> = if n % 2 == 1 {
        vec![format!("hard{}", n - 1)]
    } else {
        vec![]
    };
    json!({"id": format!("hard{n}"), "module": "echo", "params": n, "job": format!("job{}", n % jobs),
           "requires": {"labels": label}, "dependencies": waits_for})
}

/// Adds tasks that nobody runs, and waits until the master is done with them.
fn queue(master: &Master, name: &str, line: impl Fn(usize) -> Value) {
    let lines: String = (0..many()).map(|n| format!("{}\n", line(n))).collect();
    let file = master.folder.write(&format!("{name}.jsonl"), lines);
    master.run(&["feed", &file, "--job", name]).with(0);
    settle(master);
}

/// Waits until a master that has nothing to do does nothing: it has folded what came.
fn settle(master: &Master) {
    let mut last = u64::MAX;
    until("a master at rest", || {
        std::thread::sleep(Duration::from_secs(1));
        let ticks = ticks(master);
        // An idle second costs less than 50 ms.
        std::mem::replace(&mut last, ticks).wrapping_add(5) >= ticks
            && last != u64::MAX
            && ticks > 0
    });
}

/// A number from a file of `/proc/PID`.
fn process_text(master: &Master, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{file}", master.process.id())).unwrap()
}

/// Hundredths of a second of CPU.
fn ticks(master: &Master) -> u64 {
    let stat = process_text(master, "stat");
    let numbers: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    numbers[11].parse::<u64>().unwrap() + numbers[12].parse::<u64>().unwrap()
}

/// Resident memory in KiB.
fn memory_kib(master: &Master) -> u64 {
    let status = process_text(master, "status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Seconds of a restart.
fn restart(master: &mut Master) -> f64 {
    assert_eq!(master.process.terminate(), Some(0));
    let start = Instant::now();
    master.start_again();
    start.elapsed().as_secs_f64()
}

#[test]
fn a_long_queue_is_small_and_comes_back() {
    let mut master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    let empty = memory_kib(&master);
    queue(&master, "hard", |n| hard_task(n, 1_000, 50));
    let queued = memory_kib(&master).saturating_sub(empty);
    let seconds = restart(&mut master);
    let restored = memory_kib(&master).saturating_sub(empty);
    println!(
        "{} queued: {queued} KiB, after a restart of {seconds:.1} s {restored} KiB",
        many()
    );
    // sled's cache and what the allocator keeps of the burst, then a kilobyte a task.
    let most = 500_000 + many() as u64;
    assert!(
        queued < most && restored < most,
        "{queued} and {restored} KiB for {} tasks",
        many()
    );
    assert!(seconds < 20.0 + many() as f64 / 20_000.0, "{seconds:.1} s");
    let (first, last) = (
        master.task("hard0"),
        master.task(&format!("hard{}", many() - 1)),
    );
    assert_eq!(
        (&first["state"], &last["state"]),
        (&json!("ready"), &json!("blocked"))
    );
    let open = master
        .json(&["jobs", "list"])
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["total"].as_u64().unwrap())
        .sum::<u64>();
    assert_eq!(open as usize, many());
}

#[test]
fn cancelling_a_large_job_delays_nobody_else() {
    let master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    queue(
        &master,
        "large",
        |n| json!({"id": format!("w{n}"), "module": "echo", "requires": {"labels": {"no": "one"}}}),
    );
    let _runner = master.runner("r", &["--slots", "1"]);
    let call = || {
        let start = Instant::now();
        master.run(&["call", "echo", "--params", "1"]).with(0);
        start.elapsed()
    };
    call();
    let idle = (0..20).map(|_| call()).max().unwrap();
    let cancelling = master.spawn(&["tasks", "cancel", "--job", "large"]);
    let mut slowest = Duration::ZERO;
    until("the end of the cancel", || {
        slowest = slowest.max(call());
        master.job("large")["cancelled"] == many()
    });
    drop(cancelling);
    println!(
        "a call takes {idle:.0?} at most, {slowest:.0?} while {} tasks are cancelled",
        many()
    );
    assert!(
        slowest < idle * 10 + Duration::from_secs(2),
        "{slowest:?}, {idle:?} before"
    );
}

#[test]
fn history_costs_no_memory_and_no_start() {
    let mut master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    let runner = master.runner("r", &["--slots", "2"]);
    seconds(
        &master,
        "past",
        |n| json!({"id": format!("past{n}"), "module": "echo", "params": n}),
    );
    settle(&master);
    drop(runner);
    let seconds = restart(&mut master);
    let memory = memory_kib(&master);
    println!(
        "{} in the past: a start of {seconds:.1} s, {memory} KiB",
        many()
    );
    assert!(
        seconds < 20.0 && memory < 200_000,
        "{seconds:.1} s, {memory} KiB"
    );
    assert_eq!(master.task("past0")["result"], json!(0));
    // The same document is known, another one of the same id is refused.
    let again = |params: usize| {
        master.run_with(
            &["feed", "-", "--job", "past"],
            &format!(
                "{}\n",
                json!({"id": "past7", "module": "echo", "params": params})
            ),
        )
    };
    again(7).with(0);
    assert!(again(8).with(1).err.contains("past7"));
}

#[test]
fn jobs_requirements_and_blocked_tasks_cost_little() {
    let mut labels: Vec<String> = vec!["--slots".into(), "1".into()];
    (0..50).for_each(|n| labels.extend(["--label".into(), format!("class{n}=yes")]));
    let master = Master::with("master", &[]);
    master.drop_module("echo.wat", echo());
    let _runner = master.runner("r", &labels.iter().map(String::as_str).collect::<Vec<_>>());
    let (jobs, classes) = (1_000, 50);
    // The first feed pays for a cold start: it is not measured.
    seconds(
        &master,
        "warm",
        |n| json!({"id": format!("warm{n}"), "module": "echo", "params": n}),
    );
    let plain = seconds(
        &master,
        "plain",
        |n| json!({"id": format!("plain{n}"), "module": "echo", "params": n}),
    );
    let hard = seconds(&master, "hard", |n| hard_task(n, jobs, classes));
    println!(
        "{} tasks: plain {plain:.2} s, {jobs} jobs, {classes} classes, half blocked {hard:.2} s, ratio {:.2}",
        many(),
        plain / hard
    );
    assert!(
        plain / hard >= 0.5,
        "plain {plain:.2} s, the same with jobs, classes and dependencies {hard:.2} s"
    );
    // And hardly slower than when only a thousand plain ones wait.
    let few = |round: usize| {
        let name = format!("few{round}");
        seconds_of(
            &master,
            &name,
            1_000,
            |n| json!({"id": format!("{name}-{n}"), "module": "echo", "params": n}),
        )
    };
    let few: f64 = (0..5).map(few).sum::<f64>() / 5.0;
    let (of_many, of_few) = (many() as f64 / hard, 1_000.0 / few);
    println!(
        "{of_many:.0} of these a second, {of_few:.0} of a thousand plain ones: {:.2}",
        of_many / of_few
    );
    assert!(
        of_many >= 0.9 * of_few,
        "{of_many:.0} a second against {of_few:.0}"
    );
}
