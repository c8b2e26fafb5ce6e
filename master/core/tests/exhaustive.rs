//! Every order of six events in small worlds of two tasks and two runners of one slot. The events are
//! results, errors, lost connections and new ones, lost runners, cancels, retries, and starts of a
//! master on what is durable. After every event the core must say what a model of a few dozen lines
//! says. After the last event the world is healed, and everything must end.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, in its helpers too"
)]

mod harness;

use harness::{Wanted, World, time};
use std::collections::BTreeMap;
use taskmaster_core::{Effect, Event, FinalState, RunnerKey, TaskKey};
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{AttemptId, ErrorKind, Retries, TaskError, TaskState, When};

const EVENTS: usize = 6;
const TASKS: [&str; 2] = ["a", "b"];
/// After how many failures a task is tried again.
const RETRIES: u32 = 1;
/// Longer than the grace period of a runner without a connection.
const GRACE_US: u64 = 1_100_000;

/// One thing that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// A runner reports a result.
    Done(usize),
    /// A runner reports an error.
    Fails(usize),
    /// A runner loses its connection, and works on.
    Disconnects(usize),
    /// A runner connects again.
    Returns(usize),
    /// A runner dies while it has no connection.
    Dies(usize),
    /// A task is cancelled.
    Cancel(usize),
    /// A task is opened again.
    Retry(usize),
    /// The grace period of a runner without a connection passes.
    Grace,
    /// The master dies, and another one starts.
    Restart,
}

/// What the model says of a task.
#[derive(Debug, Clone, Default)]
struct Expected {
    ended: Option<FinalState>,
    /// Whether the other task is open and this one waits for it.
    waits: bool,
    /// Failures counted.
    tries: u32,
    /// The last attempt whose failure is durable.
    failed: Option<AttemptId>,
    /// This attempt and older ones are void. A failed attempt becomes void when another master starts:
    /// until then, a success of an older one still counts.
    void: Option<AttemptId>,
}

/// The process of a runner.
#[derive(Debug, Clone, Default)]
struct Process {
    connection: Option<RunnerKey>,
    /// Whether the master counts on the runner: it is connected, or in its grace period.
    trusted: bool,
    /// The attempts that the runner holds, with the index of the task.
    held: Vec<(usize, AttemptId)>,
}

struct Play {
    world: World,
    /// How the second task depends on the first.
    after: Option<When>,
    expected: [Expected; 2],
    processes: [Process; 2],
    /// The last attempt that was sent of each task.
    last: BTreeMap<usize, AttemptId>,
}

impl Play {
    fn new(after: Option<When>) -> Play {
        let mut play = Play {
            world: World::new(),
            after,
            expected: Default::default(),
            processes: Default::default(),
            last: BTreeMap::new(),
        };
        for name in TASKS {
            let mut wanted = Wanted::new(name);
            wanted.retries = Some(Box::new(Retries {
                max: RETRIES,
                backoff_ms: 0,
                ..Retries::default()
            }));
            wanted.after = after
                .filter(|_| name == "b")
                .map(|when| ("a".to_owned(), when))
                .into_iter()
                .collect();
            play.world.add(wanted);
        }
        play.expected[1].waits = after.is_some();
        (0..2).for_each(|runner| play.back(runner));
        play.turn();
        play
    }

    /// The moves that can happen now.
    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (i, process) in self.processes.iter().enumerate() {
            match process.connection {
                Some(_) if !process.held.is_empty() => {
                    moves.extend([Move::Done(i), Move::Fails(i), Move::Disconnects(i)])
                }
                Some(_) => moves.push(Move::Disconnects(i)),
                None if !process.held.is_empty() => moves.extend([Move::Returns(i), Move::Dies(i)]),
                None => moves.push(Move::Returns(i)),
            }
        }
        for (i, task) in self.expected.iter().enumerate() {
            match task.ended {
                None => moves.push(Move::Cancel(i)),
                Some(FinalState::Failed | FinalState::Cancelled)
                    if self.world.key(TASKS[i]).is_none() =>
                {
                    moves.push(Move::Retry(i));
                }
                Some(_) => {}
            }
        }
        if self
            .processes
            .iter()
            .any(|process| process.trusted && process.connection.is_none())
        {
            moves.push(Move::Grace);
        }
        moves.push(Move::Restart);
        moves
    }

    fn happens(&mut self, what: Move) {
        match what {
            Move::Done(runner) => self.report(runner, true),
            Move::Fails(runner) => self.report(runner, false),
            Move::Disconnects(runner) => {
                if let Some(link) = self.processes[runner].connection.take() {
                    // The master does not wait for a runner that holds nothing.
                    self.processes[runner].trusted = !self.processes[runner].held.is_empty();
                    self.event(Event::RunnerDisconnected { runner: link });
                }
            }
            Move::Returns(runner) => self.back(runner),
            Move::Dies(runner) => self.processes[runner].held.clear(),
            Move::Cancel(task) => {
                let key = self.world.key(TASKS[task]).expect("an open task");
                self.ends(task, FinalState::Cancelled);
                self.event(Event::CancelRequested { task: key });
            }
            Move::Retry(task) => self.retry(task),
            Move::Grace => self.pass(GRACE_US),
            Move::Restart => self.restart(),
        }
        self.turn();
        self.agree();
    }

    fn retry(&mut self, task: usize) {
        let other = self.expected[0].ended;
        let void = self.last.get(&task).copied();
        let again = &mut self.expected[task];
        *again = Expected {
            void,
            ..Expected::default()
        };
        if let Some(when) = self.after.filter(|_| task == 1) {
            again.waits = other.is_none();
            again.ended = other
                .filter(|how| !how.meets(when))
                .map(|_| FinalState::Skipped);
        }
        let effects = self.world.reopen(TASKS[task]);
        self.follow(&effects);
    }

    fn restart(&mut self) {
        for process in &mut self.processes {
            process.connection = None;
            process.trusted = false;
        }
        for task in &mut self.expected {
            task.void = task.void.max(task.failed);
        }
        let open = self.expected[0].ended.is_none();
        if let Some(when) = self.after
            && self.expected[1].ended.is_none()
        {
            self.expected[1].waits = open;
            let missed = self.expected[0].ended.filter(|how| !how.meets(when));
            self.expected[1].ended = missed.map(|_| FinalState::Skipped);
        }
        let effects = self.world.restart();
        self.follow(&effects);
    }

    fn back(&mut self, runner: usize) {
        let held: Vec<(String, AttemptId)> = self.processes[runner]
            .held
            .iter()
            .map(|(task, attempt)| (TASKS[*task].to_owned(), *attempt))
            .collect();
        let offer = Offer {
            name: format!("r{runner}"),
            slots: 1,
            ..Offer::default()
        };
        // Attempts of tasks that ended meanwhile are void, and the engine says so.
        let world = &self.world;
        self.processes[runner]
            .held
            .retain(|(task, _)| world.key(TASKS[*task]).is_some());
        let (connection, effects) = self.world.join(offer, 1, &held);
        self.processes[runner].connection = Some(connection);
        self.processes[runner].trusted = true;
        self.follow(&effects);
    }

    fn pass(&mut self, us: u64) {
        let now = &mut self.world.now;
        now.mono_us += us;
        now.wall = now.wall.plus_us(us);
        for process in self
            .processes
            .iter_mut()
            .filter(|process| process.connection.is_none())
        {
            process.trusted = false;
        }
        for link in self
            .processes
            .iter()
            .filter_map(|process| process.connection)
            .collect::<Vec<_>>()
        {
            self.event(Event::RunnerHeard { runner: link });
        }
    }

    fn report(&mut self, runner: usize, well: bool) {
        let Some(link) = self.processes[runner].connection else {
            return;
        };
        let (task, attempt) = self.processes[runner].held.remove(0);
        let expected = &self.expected[task];
        let counts = expected.ended.is_none() && !expected.waits && Some(attempt) > expected.void;
        let elsewhere = self
            .processes
            .iter()
            .any(|other| other.trusted && other.held.iter().any(|(held, _)| *held == task));
        // If a newer attempt has failed since, only a success of this one counts.
        let late = Some(attempt) < expected.failed;
        match (counts, well, elsewhere || late) {
            (true, true, _) => self.ends(task, FinalState::Done),
            (true, false, false) if expected.tries == RETRIES => {
                self.ends(task, FinalState::Failed)
            }
            (true, false, false) => {
                self.expected[task].tries += 1;
                let failed = &mut self.expected[task].failed;
                *failed = (*failed).max(Some(attempt));
            }
            _ => {}
        }
        let Some(task) = self.world.key(TASKS[task]) else {
            return;
        };
        let error = TaskError {
            code: Some(1),
            ..TaskError::new(ErrorKind::Exit, "")
        };
        self.event(match well {
            true => Event::AttemptDone {
                runner: link,
                task,
                attempt,
                run_us: 1_000_000,
            },
            false => Event::AttemptFailed {
                runner: link,
                task,
                attempt,
                error: Box::new(error),
                run_us: 1_000_000,
                random: 0,
            },
        });
    }

    fn ends(&mut self, task: usize, how: FinalState) {
        self.expected[task].ended = Some(how);
        self.expected[task].waits = false;
        if let Some(when) = self.after.filter(|_| task == 0 && self.expected[1].waits) {
            self.expected[1].waits = false;
            self.expected[1].ended = (!how.meets(when)).then_some(FinalState::Skipped);
        }
    }

    fn event(&mut self, event: Event) {
        let effects = self.world.event(event);
        self.follow(&effects);
    }

    /// Carries effects out: attempts arrive at runners, and those that are to stop end as cancelled.
    fn follow(&mut self, effects: &[Effect]) {
        let index = |world: &World, key: &TaskKey| usize::from(world.names[key] == TASKS[1]);
        let mut stopped = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send {
                    runner,
                    task,
                    attempt,
                } => {
                    let task = index(&self.world, task);
                    let twice = self
                        .processes
                        .iter()
                        .any(|p| p.trusted && p.held.iter().any(|(held, _)| *held == task));
                    assert!(!twice, "{} is sent while it runs", TASKS[task]);
                    assert!(
                        !self.expected[task].waits,
                        "{} is sent too early",
                        TASKS[task]
                    );
                    self.last.insert(task, *attempt);
                    let process = self
                        .processes
                        .iter_mut()
                        .find(|process| process.connection == Some(*runner));
                    let process = process.expect("it is sent over a link");
                    process.held.push((task, *attempt));
                    assert_eq!(process.held.len(), 1, "a runner of one slot holds one");
                }
                Effect::Stop {
                    runner,
                    task,
                    attempt,
                } => {
                    let held = (index(&self.world, task), *attempt);
                    for process in self
                        .processes
                        .iter_mut()
                        .filter(|process| process.connection == Some(*runner))
                    {
                        process.held.retain(|other| *other != held);
                        stopped.push((*runner, *task, *attempt));
                    }
                }
                Effect::Disconnect { runner } => {
                    self.processes
                        .iter_mut()
                        .filter(|p| p.connection == Some(*runner))
                        .for_each(|p| p.connection = None);
                }
                Effect::Store(_)
                | Effect::Recall { .. }
                | Effect::Announce { .. }
                | Effect::LookUpAnswer(_)
                | Effect::ForgetSharedRun(_)
                | Effect::Forget(_) => {}
            }
        }
        for (runner, task, attempt) in stopped {
            self.event(Event::AttemptFailed {
                runner,
                task,
                attempt,
                error: Box::new(TaskError::new(ErrorKind::Cancelled, "")),
                run_us: 0,
                random: 0,
            });
        }
    }

    fn turn(&mut self) {
        loop {
            self.event(Event::TurnEnded);
            if !self.world.busy() {
                return;
            }
        }
    }

    /// The core must say of each task what the model says.
    fn agree(&self) {
        for (name, expected) in TASKS.iter().zip(&self.expected) {
            let state = self.world.state(name);
            match expected.ended {
                Some(how) => assert_eq!(state, how.task_state(), "{name}: {expected:?}"),
                None => {
                    assert!(!state.is_final(), "{name} is {state:?}: {expected:?}");
                    assert_eq!(
                        state == TaskState::Blocked,
                        expected.waits,
                        "{name} is {state:?}: {expected:?}"
                    );
                }
            }
        }
    }

    /// Heals the world: runners return and report results, until everything has ended.
    fn heal(&mut self) {
        for _ in 0..20 {
            if self.expected.iter().all(|task| task.ended.is_some())
                && self.processes.iter().all(|p| p.held.is_empty())
            {
                return;
            }
            for runner in 0..2 {
                match (
                    self.processes[runner].connection,
                    self.processes[runner].held.is_empty(),
                ) {
                    (None, _) => self.happens(Move::Returns(runner)),
                    (Some(_), false) => self.happens(Move::Done(runner)),
                    (Some(_), true) => {}
                }
            }
            self.happens(Move::Grace);
        }
        panic!(
            "after {}, not all has ended: {:?}",
            time(20 * GRACE_US),
            self.expected
        );
    }
}

/// Plays every order of moves and returns how many there are. The orders are counted as by an
/// odometer, because each play tells how many moves there were at each step.
fn play_all(after: Option<When>) -> u64 {
    let mut path = vec![0; EVENTS];
    let mut plays = 0;
    loop {
        let mut told = Vec::new();
        let choices = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut play = Play::new(after);
            let mut choices = Vec::new();
            for step in &path {
                let moves = play.moves();
                choices.push(moves.len());
                told.push(moves[*step]);
                play.happens(moves[*step]);
            }
            play.heal();
            choices
        }));
        let choices = choices.unwrap_or_else(|_| panic!("b after a {after:?}: {told:?} breaks it"));
        plays += 1;
        let Some(step) = (0..EVENTS)
            .rev()
            .find(|step| path[*step] + 1 < choices[*step])
        else {
            return plays;
        };
        path[step] += 1;
        path[step + 1..].fill(0);
    }
}

#[test]
fn every_order_of_six_events_agrees_with_the_model() {
    let worlds = [
        None,
        Some(When::Done),
        Some(When::Failed),
        Some(When::Settled),
    ];
    let plays: Vec<u64> = std::thread::scope(|scope| {
        let playing: Vec<_> = worlds
            .into_iter()
            .map(|after| scope.spawn(move || play_all(after)))
            .collect();
        playing
            .into_iter()
            .map(|play| play.join().expect("it holds"))
            .collect()
    });
    println!("{plays:?} orders of {EVENTS} events");
}
