//! Every order of six events in small worlds of two tasks and two runners of one slot: results,
//! errors, cuts and returns, lost runners, cancels, retries, crashes of the master with a start on
//! what is durable. After every event the core must say what a model of a few dozen lines says;
//! after the last, all is healed and must end.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod harness;

use harness::{Wanted, World, time};
use std::collections::BTreeMap;
use taskmaster_core::{Effect, Event, Final, RunnerKey, TaskKey};
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{AttemptId, ErrorKind, Retries, TaskError, TaskState, When};

const EVENTS: usize = 6;
const TASKS: [&str; 2] = ["a", "b"];
/// Failures that a task may have and be tried again.
const RETRIES: u32 = 1;
const GRACE_US: u64 = 1_100_000;

/// One thing that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// A runner reports what it holds: a result, or an error.
    Done(usize),
    Fails(usize),
    /// A runner's link is cut; it works on. It comes back. It dies while it is away.
    Cut(usize),
    Back(usize),
    Dies(usize),
    Cancel(usize),
    Retry(usize),
    /// Longer than the grace of a runner whose link is cut.
    Grace,
    Restart,
}

/// What a queue is, for one task.
#[derive(Debug, Clone, Default)]
struct Expected {
    ended: Option<Final>,
    /// The other task is open, and this one waits for it.
    waits: bool,
    tries: u32,
    /// The last attempt whose failure is durable.
    failed: Option<AttemptId>,
    /// Attempts up to this one are void: a master that knows of an older one in time still takes
    /// its success, another that starts does not.
    void: Option<AttemptId>,
}

/// A runner's process.
#[derive(Debug, Clone, Default)]
struct Process {
    link: Option<RunnerKey>,
    /// The master counts on it: it is connected, or was a moment ago.
    trusted: bool,
    held: Vec<(usize, AttemptId)>,
}

struct Play {
    world: World,
    /// How the second task depends on the first.
    after: Option<When>,
    expected: [Expected; 2],
    processes: [Process; 2],
    last: BTreeMap<usize, AttemptId>,
}

impl Play {
    fn new(after: Option<When>) -> Play {
        let (expected, processes) = (Default::default(), Default::default());
        let mut play = Play {
            world: World::new(),
            after,
            expected,
            processes,
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

    /// What can happen now.
    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (i, process) in self.processes.iter().enumerate() {
            match process.link {
                Some(_) if !process.held.is_empty() => {
                    moves.extend([Move::Done(i), Move::Fails(i), Move::Cut(i)])
                }
                Some(_) => moves.push(Move::Cut(i)),
                None if !process.held.is_empty() => moves.extend([Move::Back(i), Move::Dies(i)]),
                None => moves.push(Move::Back(i)),
            }
        }
        for (i, task) in self.expected.iter().enumerate() {
            match task.ended {
                None => moves.push(Move::Cancel(i)),
                Some(Final::Failed | Final::Cancelled) if self.world.key(TASKS[i]).is_none() => {
                    moves.push(Move::Retry(i));
                }
                Some(_) => {}
            }
        }
        if self
            .processes
            .iter()
            .any(|process| process.trusted && process.link.is_none())
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
            Move::Cut(runner) => {
                if let Some(link) = self.processes[runner].link.take() {
                    // Who holds nothing is not waited for.
                    self.processes[runner].trusted = !self.processes[runner].held.is_empty();
                    self.event(Event::RunnerCut { runner: link });
                }
            }
            Move::Back(runner) => self.back(runner),
            Move::Dies(runner) => self.processes[runner].held.clear(),
            Move::Cancel(task) => {
                let key = self.world.key(TASKS[task]).expect("an open task");
                self.ends(task, Final::Cancelled);
                self.event(Event::CancelWanted { task: key });
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
            again.ended = other.filter(|how| !how.meets(when)).map(|_| Final::Skipped);
        }
        let effects = self.world.reopen(TASKS[task]);
        self.follow(&effects);
    }

    fn restart(&mut self) {
        for process in &mut self.processes {
            (process.link, process.trusted) = (None, false);
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
            self.expected[1].ended = missed.map(|_| Final::Skipped);
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
        // What has ended while it was away is void; the engine says so.
        let world = &self.world;
        self.processes[runner]
            .held
            .retain(|(task, _)| world.key(TASKS[*task]).is_some());
        let (link, effects) = self.world.join(offer, 1, &held);
        (self.processes[runner].link, self.processes[runner].trusted) = (Some(link), true);
        self.follow(&effects);
    }

    fn pass(&mut self, us: u64) {
        let now = &mut self.world.now;
        (now.mono_us, now.wall) = (now.mono_us + us, now.wall.plus_us(us));
        for process in self
            .processes
            .iter_mut()
            .filter(|process| process.link.is_none())
        {
            process.trusted = false;
        }
        for link in self
            .processes
            .iter()
            .filter_map(|process| process.link)
            .collect::<Vec<_>>()
        {
            self.event(Event::RunnerHeard { runner: link });
        }
    }

    fn report(&mut self, runner: usize, well: bool) {
        let Some(link) = self.processes[runner].link else {
            return;
        };
        let (task, attempt) = self.processes[runner].held.remove(0);
        let expected = &self.expected[task];
        let counts = expected.ended.is_none() && !expected.waits && Some(attempt) > expected.void;
        let elsewhere = self
            .processes
            .iter()
            .any(|other| other.trusted && other.held.iter().any(|(held, _)| *held == task));
        // A newer one has failed since: it can only make good.
        let late = Some(attempt) < expected.failed;
        match (counts, well, elsewhere || late) {
            (true, true, _) => self.ends(task, Final::Done),
            (true, false, false) if expected.tries == RETRIES => self.ends(task, Final::Failed),
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
            false => {
                let (error, run_us, chance) = (Box::new(error), 1_000_000, 0);
                Event::AttemptFailed {
                    runner: link,
                    task,
                    attempt,
                    error,
                    run_us,
                    chance,
                }
            }
        });
    }

    fn ends(&mut self, task: usize, how: Final) {
        self.expected[task].ended = Some(how);
        self.expected[task].waits = false;
        if let Some(when) = self.after.filter(|_| task == 0 && self.expected[1].waits) {
            self.expected[1].waits = false;
            self.expected[1].ended = (!how.meets(when)).then_some(Final::Skipped);
        }
    }

    fn event(&mut self, event: Event) {
        let effects = self.world.event(event);
        self.follow(&effects);
    }

    /// What the core wants done is done: attempts arrive, what is to stop stops.
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
                        .find(|process| process.link == Some(*runner));
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
                        .filter(|process| process.link == Some(*runner))
                    {
                        process.held.retain(|other| *other != held);
                        stopped.push((*runner, *task, *attempt));
                    }
                }
                Effect::HangUp { runner } => {
                    self.processes
                        .iter_mut()
                        .filter(|p| p.link == Some(*runner))
                        .for_each(|p| p.link = None);
                }
                _ => {}
            }
        }
        for (runner, task, attempt) in stopped {
            let (error, run_us, chance) =
                (Box::new(TaskError::new(ErrorKind::Cancelled, "")), 0, 0);
            self.event(Event::AttemptFailed {
                runner,
                task,
                attempt,
                error,
                run_us,
                chance,
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

    fn agree(&self) {
        for (name, expected) in TASKS.iter().zip(&self.expected) {
            let state = self.world.state(name);
            match expected.ended {
                Some(how) => assert_eq!(state, how.state(), "{name}: {expected:?}"),
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

    /// All is well from now on: everything ends.
    fn heal(&mut self) {
        for _ in 0..20 {
            if self.expected.iter().all(|task| task.ended.is_some())
                && self.processes.iter().all(|p| p.held.is_empty())
            {
                return;
            }
            for runner in 0..2 {
                match (
                    self.processes[runner].link,
                    self.processes[runner].held.is_empty(),
                ) {
                    (None, _) => self.happens(Move::Back(runner)),
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

/// Plays every order of moves, as an odometer counts: each play tells how many moves there were at
/// each step.
fn play_all(after: Option<When>) -> u64 {
    let (mut path, mut plays) = (vec![0; EVENTS], 0);
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
