//! Measures what a warm no-op task costs on a slot's thread, sandbox and outcome included:
//! `cargo run --release -p taskmaster-runner --example warm`.

#![expect(
    clippy::print_stdout,
    reason = "an example that prints what it measures"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use taskmaster_protocol::message::Attempt;
use taskmaster_protocol::{AttemptId, TaskId};
use taskmaster_runner::at_work::AttemptsAtWork;
use taskmaster_runner::sandbox::{Program, Sandbox, StopSwitch, Work};
use taskmaster_runner::slots::queue::{QueuedWork, Room};
use taskmaster_runner::slots::{SlotEvent, SlotParts, Slots};

const TASKS: usize = 50_000;

/// Copies stdin to stdout.
const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 4096))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// A component that gives back a number.
const FUNCTION: &str = r#"(component
  (core module $m (func (export "f") (param i32) (result i32) (local.get 0)))
  (core instance $i (instantiate $m))
  (func (export "f") (param "n" u32) (result u32) (canon lift (core func $i "f"))))"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("taskmaster-warm-{}", std::process::id()));
    let empty = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
    let body = "(call $ok (local.get $at) (local.get $length))";
    let task = include_str!("../src/sandbox/component/task.wat")
        .replace("DATA", "")
        .replace("BODY", body);
    let command = include_str!("../src/sandbox/component/command.wat");
    let modules = [
        ("empty", empty),
        ("echo", ECHO),
        ("one function", FUNCTION),
        ("taskmaster:task, echo", &task),
        ("wasi:cli/run, echo", command),
    ];
    for (name, text) in modules {
        for slots in [1, 2] {
            let us = measure(&folder, slots, text)?;
            println!("{name}, {slots} slot(s): {us:.1} µs a task and slot");
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn measure(
    folder: &std::path::Path,
    slots: u32,
    text: &str,
) -> Result<f64, Box<dyn std::error::Error>> {
    let sandbox = Arc::new(Sandbox::new(slots, folder)?);
    let program = Arc::new(Program::compile(&sandbox, text.as_bytes())?);
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let main = std::thread::current();
    let opened = AttemptsAtWork::open(&folder.join("at-work"), "warm", slots)?;
    let pool = Slots::start(SlotParts {
        offered: Room {
            slots,
            memory_mb: u64::MAX / 2,
        },
        sandbox: sandbox.clone(),
        listener: Arc::new(move |event| {
            if matches!(event, SlotEvent::Ended(_))
                && (count.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(TASKS)
            {
                main.unpark();
            }
        }),
        at_work: opened.at_work,
    })?;
    let id = TaskId::new("t")?;
    let mut best = f64::MAX;
    for round in 1..=5 {
        let ready = (0..TASKS).map(|n| QueuedWork {
            work: Work {
                attempt: Attempt {
                    id: id.clone(),
                    attempt: AttemptId {
                        epoch: 1,
                        n: n as u32,
                    },
                },
                program: program.clone(),
                input: bytes::Bytes::from_static(b"{\"n\":1}"),
                args: Vec::new(),
                env: Vec::new(),
                granted: Default::default(),
                timeout: Duration::from_secs(10),
                memory_mb: 64,
                files: Default::default(),
                stop: Arc::new(StopSwitch::default()),
                listener: Arc::new(|_, _| {}),
            },
            slots: 1,
        });
        let ready = ready.collect();
        let began = Instant::now();
        pool.push(ready);
        while ended.load(Ordering::Relaxed) < round * TASKS {
            std::thread::park_timeout(Duration::from_secs(1));
        }
        best = best.min(began.elapsed().as_secs_f64() * 1e6 / TASKS as f64 * f64::from(slots));
    }
    Ok(best)
}
