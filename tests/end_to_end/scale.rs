//! Many tasks with all that makes a scheduler slow, against as many plain ones.

use crate::harness::Master;
use crate::modules_text::echo;
use serde_json::{Value, json};
use std::time::Instant;

/// Tasks, as `TASKMASTER_E2E_TASKS` says; the issue's figure is 100,000.
fn many() -> usize {
    std::env::var("TASKMASTER_E2E_TASKS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

fn seconds(master: &Master, name: &str, line: impl Fn(usize) -> Value) -> f64 {
    let tasks = many();
    let lines: String = (0..tasks).map(|n| format!("{}\n", line(n))).collect();
    let file = master.folder.write(&format!("{name}.jsonl"), lines);
    let start = Instant::now();
    let ran = master.run(&["feed", &file, "--job", name, "--follow", "-o", "jsonl"]).with(0);
    assert_eq!(ran.out.lines().count(), tasks);
    start.elapsed().as_secs_f64()
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
    seconds(&master, "warm", |n| json!({"id": format!("warm{n}"), "module": "echo", "params": n}));
    let plain = seconds(&master, "plain", |n| json!({"id": format!("plain{n}"), "module": "echo", "params": n}));
    // Every second one waits for the one before it.
    let hard = seconds(&master, "hard", |n| {
        let mut label = serde_json::Map::new();
        label.insert(format!("class{}", n % classes), "yes".into());
        let waits_for: Vec<String> = if n % 2 == 1 { vec![format!("hard{}", n - 1)] } else { vec![] };
        json!({"id": format!("hard{n}"), "module": "echo", "params": n, "job": format!("job{}", n % jobs),
               "requires": {"labels": label}, "dependencies": waits_for})
    });
    println!(
        "{} tasks: plain {plain:.2} s, {jobs} jobs, {classes} classes, half blocked {hard:.2} s, ratio {:.2}",
        many(),
        plain / hard
    );
    assert!(plain / hard >= 0.5, "plain {plain:.2} s, the same with jobs, classes and dependencies {hard:.2} s");
}
