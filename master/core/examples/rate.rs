//! How fast the core alone is: the time to add a task, the time to send it and take its report, and
//! the memory of a waiting task.
//!
//! `cargo run --release -p taskmaster-core --example rate`

#![expect(
    clippy::print_stdout,
    reason = "an example that prints what it measures"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use taskmaster_core::StoredJob;
use taskmaster_core::{DependsOn, Effect, Event, NewTask, Origin, RunnerKey, Scheduler, TaskKey};
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{JobName, ModuleName, Now, Wall, When};

const TASKS: u32 = 100_000;
const BATCH: u32 = 1_000;

/// An allocator that counts the allocated bytes.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

#[allow(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; this one only counts and passes on"
)]
// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Run {
    core: Scheduler,
    now: Now,
    effects: Vec<Effect>,
    jobs: Vec<JobName>,
    modules: Vec<ModuleName>,
    runners: u64,
    done: u32,
    /// Stands for the memory that the engine, the journal and the sockets use between two turns.
    other_memory: Vec<u64>,
}

impl Run {
    fn new(jobs: usize, classes: usize, runners: u64) -> Run {
        let jobs = (0..jobs)
            .filter_map(|i| JobName::new(&format!("job{i}")).ok())
            .collect();
        let modules = (0..classes)
            .filter_map(|i| ModuleName::new(&format!("module{i}")).ok())
            .collect();
        let now = Now {
            mono_us: 1,
            wall: Wall(1),
        };
        let mut run = Run {
            core: Scheduler::new(1),
            now,
            effects: Vec::new(),
            jobs,
            modules,
            runners,
            done: 0,
            other_memory: vec![1; 1 << 22],
        };
        for job in run.jobs.clone() {
            run.tell(Event::JobOpened {
                job: job.clone(),
                stored: StoredJob::default(),
                restored: false,
            });
            run.tell(Event::JobHeld {
                job,
                by: "s".into(),
                restored: false,
            });
        }
        run
    }

    fn tell(&mut self, event: Event) {
        self.core.handle(event, self.now, &mut self.effects);
    }

    /// Fills the caches of the processor with other things.
    fn fill_caches(&mut self) {
        self.other_memory
            .iter_mut()
            .step_by(8)
            .for_each(|word| *word = word.wrapping_mul(3));
    }

    /// Adds all tasks. If half are to be blocked, each task of the second half waits for one of the
    /// first.
    fn add(&mut self, half_blocked: bool) {
        for i in 0..TASKS {
            let first = i.checked_sub(TASKS / 2).filter(|_| half_blocked);
            let dependencies = first
                .map(|i| DependsOn::Open(TaskKey(i), When::Done))
                .into_iter()
                .collect();
            let task = NewTask {
                key: TaskKey(i),
                ordinal: u64::from(i) + 1,
                job: self.jobs[i as usize % self.jobs.len()].clone(),
                module: self.modules[i as usize % self.modules.len()].clone(),
                requires: Default::default(),
                memory_mb: 512,
                priority: 0,
                dependencies,
                due: None,
                retries: None,
                is_cached: false,
                origin: Origin::Added,
            };
            self.tell(Event::TaskOpened(Box::new(task)));
            if i % BATCH == BATCH - 1 {
                self.tell(Event::TurnEnded);
                self.effects.clear();
            }
        }
    }

    /// Runners of a hundred slots each take all tasks, and report theirs at once in each turn. Returns
    /// the time that the core took.
    fn work(&mut self) -> Duration {
        for runner in 1..=self.runners {
            let offer = Box::new(Offer {
                name: format!("runner{runner}"),
                slots: 100,
                ..Offer::default()
            });
            let runner = RunnerKey(runner);
            self.tell(Event::RunnerJoined {
                runner,
                process: "process".into(),
                offer,
                credits: 100,
                held: Vec::new(),
            });
        }
        let mut time = timed(|| self.tell(Event::TurnEnded));
        while self.done < TASKS {
            let effects = std::mem::take(&mut self.effects);
            self.fill_caches();
            time += timed(|| {
                for effect in &effects {
                    if let Effect::Send {
                        runner,
                        task,
                        attempt,
                    } = *effect
                    {
                        self.done += 1;
                        self.now.mono_us += 1;
                        self.tell(Event::AttemptDone {
                            runner,
                            task,
                            attempt,
                            run_us: 100,
                        });
                    }
                }
                self.tell(Event::TurnEnded);
            });
        }
        time
    }
}

#[allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a measurement reads a clock; the core does not"
)]
fn timed(work: impl FnOnce()) -> Duration {
    let start = std::time::Instant::now();
    work();
    start.elapsed()
}

/// Prints the best of several runs, and returns the nanoseconds to send a task and take its report.
fn measure(name: &str, jobs: usize, classes: usize, half_blocked: bool) -> f64 {
    let mut adding = Duration::MAX;
    let mut working = Duration::MAX;
    let mut bytes = 0;
    for _ in 0..7 {
        let mut run = Run::new(jobs, classes, 2);
        let before = BYTES.load(Relaxed);
        adding = adding.min(timed(|| run.add(half_blocked)));
        run.effects = Vec::new();
        bytes = (BYTES.load(Relaxed) - before) / TASKS as usize;
        working = working.min(run.work());
        assert!(run.core.check().is_empty() && run.core.tasks_len() == 0);
    }
    let each = |time: Duration| time.as_nanos() as f64 / f64::from(TASKS);
    println!(
        "{name}: {:.0} ns to add, {:.0} ns to send and end, {bytes} bytes a task",
        each(adding),
        each(working)
    );
    each(working)
}

fn main() {
    let plain = measure("1 job, 1 class", 1, 1, false);
    let mixed = measure("1,000 jobs, 50 classes, half blocked", 1_000, 50, true);
    println!("ratio {:.2}", plain / mixed);
}
