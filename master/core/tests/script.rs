//! The core told and asked in a small language. Each file in `cases/` holds cases: `# ` and a
//! sentence that is its name, lines that tell something, and under each, indented, what the core
//! answered. `UPDATE=1` writes the answers anew; read the difference before you believe it.
//!
//! | line | tells |
//! |---|---|
//! | `add a after=b,c:failed prio=5 job=x module=m slots=2 label=k:v env=X os=l arch=a mem=64 delay=1s at=5s retries=max/backoff/factor/longest on=trap jitter` | a task comes; `add a*9` adds `a0` to `a8`; `at` is by the wall clock, from its start |
//! | `reopen a` · `cancel a` · `cancel-job j` · `set a prio=1 delay=2s` | what clients want |
//! | `runner r slots=2 credits=8 held=a@1.1 …` · `late r` | a runner joined, or came back; the same, over a connection that it has replaced |
//! | `ask r credits=1 drain` · `heard r` · `answered r` · `cut r` | about its connection; `r'` is the one before the newest |
//! | `done r a 1.1 us=900` · `error r a exit=1` · `error r a kind=trap chance=0` · `return r a` | about an attempt; the newest sent where none is given; no time given: 10 ms |
//! | `continue r a 1.1 after=b module=n …` | the attempt ended, and its task goes on as another; what is given is as for `add` |
//! | `hold j by` · `release j by` · `gone by` · `pause j` · `resume j` · `pause-done j` (the engine keeps it for the next run) · `open m` · `close m` · `needs m secret=K folder=d http=h` (a runner has `secret` and `folder`; one that is `old=yes` offers nothing) | about jobs and modules |
//! | `end` · `tick 1s` · `wall 1s` · `back 1s` · `run` | the turn ends; time passes and it ends; the wall clock alone; both clocks run backwards; turns until nothing is left over |
//! | `restart` | another master starts |
//! | `state a b` · `why a` · `job j` · `next` · `facts r` | questions |

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod harness;

use harness::{Wanted, World, job_name, module_name, phrase, time as shown};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use taskmaster_core::explain::{Explanation, WaitsFor};
use taskmaster_core::{Due, Effect, Event, RunnerKey};
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{
    AttemptId, Capabilities, ErrorKind, EventKind, Retries, TaskError, TaskState, Wall, When, time,
};

/// The words of one line: `name`, then `key=value` in any order.
struct Line<'a> {
    words: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    fn read(text: &'a str) -> Line<'a> {
        let (options, words): (Vec<&str>, Vec<&str>) =
            text.split_whitespace().partition(|word| word.contains('='));
        Line {
            words,
            options: options
                .into_iter()
                .filter_map(|word| word.split_once('='))
                .collect(),
        }
    }

    fn word(&self, index: usize) -> &'a str {
        self.words
            .get(index)
            .copied()
            .unwrap_or_else(|| panic!("{:?} needs a word {index}", self.words))
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    fn all(&self, key: &str) -> Vec<&'a str> {
        self.options
            .iter()
            .filter(|(k, _)| *k == key)
            .flat_map(|(_, value)| value.split(','))
            .collect()
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.options
            .iter()
            .find(|(k, _)| *k == key)
            .map(|(_, value)| *value)
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.text(key).map(|text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{key}={text} is not a number"))
        })
    }

    fn duration(&self, key: &str) -> Option<u64> {
        self.text(key)
            .map(|text| time::parse_duration_us(text).expect("a duration"))
    }

    fn labels(&self) -> BTreeMap<String, String> {
        self.all("label")
            .iter()
            .filter_map(|l| l.split_once(':'))
            .map(|(k, v)| (k.into(), v.into()))
            .collect()
    }

    fn strings(&self, key: &str) -> Vec<String> {
        self.all(key).into_iter().map(String::from).collect()
    }

    fn capabilities(&self) -> Capabilities {
        let set = |key: &str| self.strings(key).into_iter().collect();
        Capabilities {
            http: set("http"),
            env: set("variable"),
            secrets: set("secret"),
            folders: set("folder"),
        }
    }
}

fn error_kind(text: &str) -> ErrorKind {
    kind_named(text).unwrap_or_else(|| panic!("no kind of error is {text}"))
}

fn kind_named(text: &str) -> Option<ErrorKind> {
    use ErrorKind::{Cancelled, Exit, Input, Memory, Module, Output, RunnerLost, Timeout, Trap};
    [
        Exit, Trap, Timeout, Memory, Cancelled, RunnerLost, Module, Input, Output,
    ]
    .into_iter()
    .find(|k| k.as_str() == text)
}

fn attempt(text: &str) -> Option<AttemptId> {
    let (epoch, n) = text.split_once('.')?;
    Some(AttemptId {
        epoch: epoch.parse().ok()?,
        n: n.parse().ok()?,
    })
}

struct Play {
    world: World,
    wall_start: Wall,
}

impl Play {
    fn new() -> Play {
        let world = World::new();
        Play {
            wall_start: world.now.wall,
            world,
        }
    }

    fn wanted(&self, name: &str, line: &Line) -> Wanted {
        let mut wanted = Wanted::new(name);
        wanted.job = line.text("job").unwrap_or("j").into();
        wanted.module = line.text("module").unwrap_or("m").into();
        wanted.priority = line.number("prio").unwrap_or(0);
        wanted.requires.slots = line.number("slots");
        wanted.requires.labels = line.labels();
        wanted.requires.env = line.strings("env");
        wanted.requires.os = line.text("os").map(Into::into);
        wanted.requires.arch = line.text("arch").map(Into::into);
        wanted.requires.memory_mb = line.number("mem");
        wanted.after = line.all("after").into_iter().map(dependency).collect();
        wanted.due = self.due(line);
        wanted.retries = line
            .text("retries")
            .map(|text| Box::new(policy(text, line)));
        wanted
    }

    fn due(&self, line: &Line) -> Option<Due> {
        let delay = line
            .duration("delay")
            .map(|us| Due::Mono(self.world.now.mono_us + us));
        delay.or_else(|| {
            line.duration("at")
                .map(|us| Due::Wall(self.wall_start.plus_us(us)))
        })
    }

    fn runner(&self, name: &str) -> RunnerKey {
        let last = usize::from(name.ends_with('\''));
        let of: Vec<&RunnerKey> = self
            .world
            .runners
            .iter()
            .filter(|(_, n)| *n == name.trim_end_matches('\''))
            .map(|(key, _)| key)
            .collect();
        **of.iter()
            .rev()
            .nth(last)
            .unwrap_or_else(|| panic!("no runner {name}"))
    }

    fn join(&mut self, line: &Line) -> Vec<Effect> {
        let modules = line.all("modules").into_iter().map(module_name).collect();
        let offer = Offer {
            name: line.word(1).into(),
            slots: line.number("slots").unwrap_or(1),
            labels: line.labels(),
            env: line.strings("env"),
            os: line.text("os").unwrap_or("linux").into(),
            arch: line.text("arch").unwrap_or("x86_64").into(),
            memory_mb: line.number("mem").unwrap_or(1_000),
            modules,
            capabilities: line.text("old").is_none().then(|| line.capabilities()),
        };
        let held = |text: &str| {
            text.split_once('@')
                .and_then(|(name, id)| Some((name.to_owned(), attempt(id)?)))
        };
        let held: Vec<_> = line
            .all("held")
            .into_iter()
            .map(|text| held(text).expect("task@epoch.n"))
            .collect();
        let credits = line.number("credits").unwrap_or(100);
        self.world.join(offer, credits, &held).1
    }

    fn report(&mut self, line: &Line) -> Vec<Effect> {
        let (runner, name) = (self.runner(line.word(1)), line.word(2));
        let Some(task) = self.world.key(name) else {
            return Vec::new();
        };
        let newest = self.world.tasks[name].last;
        let attempt = line
            .words
            .get(3)
            .map_or(newest, |text| attempt(text).expect("epoch.n"));
        let run_us = line.number("us").unwrap_or(10_000);
        let event = match line.word(0) {
            "done" => Event::AttemptDone {
                runner,
                task,
                attempt,
                run_us,
            },
            "return" => Event::AttemptReturned {
                runner,
                task,
                attempt,
            },
            _ => {
                let kind = error_kind(line.text("kind").unwrap_or("exit"));
                let error = TaskError {
                    code: line.number("exit"),
                    ..TaskError::new(kind, "")
                };
                let chance = line.number("chance").unwrap_or(u32::MAX);
                Event::AttemptFailed {
                    runner,
                    task,
                    attempt,
                    error: Box::new(error),
                    run_us,
                    chance,
                }
            }
        };
        self.world.event(event)
    }

    fn continued(&mut self, line: &Line) -> Vec<Effect> {
        let (runner, name) = (self.runner(line.word(1)), line.word(2));
        let newest = self.world.tasks[name].last;
        let attempt = line
            .words
            .get(3)
            .map_or(newest, |text| attempt(text).expect("epoch.n"));
        let wanted = self.wanted(name, line);
        self.world.go_on(runner, attempt, wanted)
    }

    /// What one line tells, or the answer to what it asks.
    fn line(&mut self, text: &str) -> Result<Vec<Effect>, String> {
        let line = Line::read(text);
        let job = |i: usize| job_name(line.word(i));
        let by = |i: usize| line.word(i).into();
        let event = match line.word(0) {
            "add" => return Ok(self.add(&line)),
            "runner" => return Ok(self.join(&line)),
            "done" | "error" | "return" => return Ok(self.report(&line)),
            "continue" => return Ok(self.continued(&line)),
            "reopen" => return Ok(self.world.reopen(line.word(1))),
            "cancel-job" => return Ok(self.world.cancel_job(line.word(1))),
            "restart" => return Ok(self.world.restart()),
            "tick" | "wall" | "back" | "run" => return Ok(self.pass(&line)),
            "state" | "why" | "job" | "next" | "facts" => return Err(self.answer(&line)),
            "pause-done" => {
                self.world
                    .jobs
                    .get_mut(line.word(1))
                    .expect("a known job")
                    .past
                    .paused = true;
                return Ok(Vec::new());
            }
            "late" => {
                let (runner, name) = (RunnerKey(0), line.word(1).to_owned());
                self.world.runners.insert(runner, name.clone());
                let offer = Box::new(Offer {
                    name,
                    slots: 1,
                    ..Offer::default()
                });
                Event::RunnerJoined {
                    runner,
                    offer,
                    credits: 1,
                    answers: true,
                    held: Vec::new(),
                }
            }
            "end" => Event::TurnEnded,
            "cancel" => match self.world.key(line.word(1)) {
                Some(task) => Event::CancelWanted { task },
                None => return Ok(Vec::new()),
            },
            "set" => {
                let task = self.world.key(line.word(1)).expect("an open task");
                Event::TaskSet {
                    task,
                    priority: line.number("prio"),
                    due: self.due(&line),
                }
            }
            "ask" => {
                let (runner, credits) = (
                    self.runner(line.word(1)),
                    line.number("credits").unwrap_or(100),
                );
                Event::RunnerAsked {
                    runner,
                    credits,
                    draining: line.has("drain"),
                }
            }
            "answered" => Event::RecallAnswered {
                runner: self.runner(line.word(1)),
            },
            "heard" => Event::RunnerHeard {
                runner: self.runner(line.word(1)),
            },
            "cut" => Event::RunnerCut {
                runner: self.runner(line.word(1)),
            },
            "hold" => {
                let mut effects = self.world.open_job(line.word(1));
                effects.extend(self.world.event(Event::JobHeld {
                    job: job(1),
                    by: by(2),
                    restored: false,
                }));
                return Ok(effects);
            }
            "release" => Event::JobReleased {
                job: job(1),
                by: by(2),
            },
            "gone" => Event::HolderLost { by: by(1) },
            "pause" => Event::JobPaused {
                job: job(1),
                paused: true,
            },
            "resume" => Event::JobPaused {
                job: job(1),
                paused: false,
            },
            "open" | "close" => {
                let open = line.word(0) == "open";
                if open {
                    self.world.closed.remove(line.word(1))
                } else {
                    self.world.closed.insert(line.word(1).into())
                };
                Event::ModuleOpened {
                    module: module_name(line.word(1)),
                    open,
                }
            }
            "needs" => Event::ModuleNeeds {
                module: module_name(line.word(1)),
                needs: Arc::new(line.capabilities()),
            },
            word => panic!("{word} means nothing"),
        };
        Ok(self.world.event(event))
    }

    fn add(&mut self, line: &Line) -> Vec<Effect> {
        match line.word(1).split_once('*') {
            None => self.world.add(self.wanted(line.word(1), line)),
            Some((name, n)) => {
                let n: usize = n.parse().expect("a number of tasks");
                (0..n)
                    .flat_map(|i| self.world.add(self.wanted(&format!("{name}{i}"), line)))
                    .collect()
            }
        }
    }

    fn pass(&mut self, line: &Line) -> Vec<Effect> {
        let us = line
            .words
            .get(1)
            .map_or(0, |text| time::parse_duration_us(text).expect("a duration"));
        let now = &mut self.world.now;
        match line.word(0) {
            "tick" => (now.mono_us, now.wall) = (now.mono_us + us, now.wall.plus_us(us)),
            "wall" => now.wall = now.wall.plus_us(us),
            "back" => {
                (now.mono_us, now.wall) =
                    (now.mono_us.saturating_sub(us), Wall(now.wall.0 - us as i64))
            }
            _ => {}
        }
        let mut effects = self.world.turn();
        while line.word(0) == "run" && self.world.busy() {
            effects.extend(self.world.turn());
        }
        effects
    }

    fn answer(&self, line: &Line) -> String {
        let world = &self.world;
        match line.word(0) {
            "state" => {
                let states: Vec<String> = line.words[1..]
                    .iter()
                    .map(|name| format!("{name} {}", world.state(name).as_str()))
                    .collect();
                states.join(", ")
            }
            "next" => match world.core.next_deadline(world.now) {
                None => "never".into(),
                Some(at) if at <= world.now.mono_us => "at once".into(),
                Some(at) => format!("in {}", shown(at - world.now.mono_us)),
            },
            "facts" => format!("{:?}", world.core.runner_facts(self.runner(line.word(1)))),
            "job" => match world.core.job(&job_name(line.word(1))) {
                None => "not held".into(),
                Some(job) => {
                    let mut text = format!(
                        "run {}, {}",
                        job.run,
                        if job.open { "open" } else { "done" }
                    );
                    let _ = write!(text, ", total {}", job.counts.total);
                    for state in TaskState::ALL
                        .into_iter()
                        .filter(|state| job.counts.of(*state) > 0)
                    {
                        let _ = write!(text, ", {} {}", state.as_str(), job.counts.of(state));
                    }
                    text
                }
            },
            _ => match world
                .key(line.word(1))
                .and_then(|key| world.core.explain(key))
            {
                None => "not held".into(),
                Some(explanation) => self.why(&explanation),
            },
        }
    }

    fn why(&self, explanation: &Explanation) -> String {
        let name = |key: &RunnerKey| self.world.runners[key].clone();
        match explanation {
            Explanation::Blocked { open } => format!("waits for {open} dependencies"),
            Explanation::Delayed {
                until: Due::Mono(us),
                tries,
            } => {
                format!(
                    "waits {} more, tries {tries}",
                    shown(us - self.world.now.mono_us)
                )
            }
            Explanation::Delayed {
                until: Due::Wall(wall),
                tries,
            } => {
                format!(
                    "waits for {} by the wall clock, tries {tries}",
                    shown(wall.since_us(self.wall_start))
                )
            }
            Explanation::Assigned { held } => {
                let by = |runner: &Option<RunnerKey>| {
                    runner.as_ref().map_or("a lost runner".into(), name)
                };
                let held: Vec<String> = held
                    .iter()
                    .map(|(attempt, runner)| format!("{attempt} on {}", by(runner)))
                    .collect();
                held.join(", ")
            }
            Explanation::Ended(how) => how.state().as_str().into(),
            Explanation::Ready(WaitsFor::Reserved {
                runner,
                needs,
                free,
            }) => {
                format!("{} keeps slots: {free} of {needs} are free", name(runner))
            }
            Explanation::Ready(WaitsFor::Slots {
                runners,
                slots,
                used,
                ahead,
            }) => {
                format!(
                    "{used} of {slots} slots on {runners} runners are taken, {ahead} tasks ahead"
                )
            }
            Explanation::Ready(other) => format!("{other:?}"),
        }
    }

    /// Effects as one indented line each event's worth; many of the same sort are counted.
    fn show(&self, effects: &[Effect]) -> Vec<String> {
        let shown: Vec<&Effect> = effects
            .iter()
            .filter(|effect| {
                !matches!(
                    effect,
                    Effect::Show {
                        kind: EventKind::TaskAssigned,
                        ..
                    }
                )
            })
            .collect();
        let phrases = shown.iter().map(|effect| phrase(&self.world, effect));
        if shown.len() <= 24 {
            return phrases.collect();
        }
        let mut counts: Vec<(String, usize)> = Vec::new();
        for phrase in phrases {
            let sort = phrase
                .split_once(' ')
                .map_or(String::new(), |(_, rest)| sort_of(rest));
            match counts.iter_mut().find(|(s, _)| *s == sort) {
                Some((_, n)) => *n += 1,
                None => counts.push((sort, 1)),
            }
        }
        counts
            .into_iter()
            .map(|(sort, n)| format!("{n} × {sort}"))
            .collect()
    }
}

/// A phrase without the numbers that differ.
fn sort_of(rest: &str) -> String {
    let words: Vec<&str> = rest
        .split(' ')
        .filter(|word| !word.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    words.join(" ")
}

fn dependency(text: &str) -> (String, When) {
    match text.split_once(':') {
        None => (text.into(), When::Done),
        Some((on, "failed")) => (on.into(), When::Failed),
        Some((on, "settled")) => (on.into(), When::Settled),
        Some((on, _)) => (on.into(), When::Done),
    }
}

fn policy(text: &str, line: &Line) -> Retries {
    let parts: Vec<&str> = text.split('/').collect();
    let ms = |i: usize, usual: u64| {
        parts.get(i).map_or(usual, |text| {
            time::parse_duration_us(text).expect("a duration") / 1_000
        })
    };
    let on: Vec<ErrorKind> = line.all("on").into_iter().map(error_kind).collect();
    Retries {
        max: parts[0].parse().expect("a number of retries"),
        backoff_ms: ms(1, 1_000),
        factor: parts
            .get(2)
            .map_or(2.0, |text| text.parse().expect("a factor")),
        max_backoff_ms: ms(3, 60_000),
        jitter: line.has("jitter"),
        on: (!on.is_empty()).then_some(on),
    }
}

/// Plays a script and gives it back with the core's answers under each line.
fn play(script: &str) -> String {
    let mut play = Play::new();
    let mut told = String::new();
    for line in script.lines().filter(|line| !line.starts_with(' ')) {
        let _ = writeln!(told, "{line}");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let answers = match play.line(line) {
            Ok(effects) => play.show(&effects),
            Err(answer) => vec![answer],
        };
        if !answers.is_empty() {
            let _ = writeln!(told, "    {}", answers.join("; "));
        }
    }
    let broken = play.world.core.check();
    assert!(broken.is_empty(), "{broken:#?}");
    told
}

/// Plays the lines of a script and compares what the core answered.
fn check(script: &str, expected: &str) {
    let told = play(script);
    if told == expected {
        return;
    }
    let title = script.lines().next().unwrap_or_default();
    let (line, got) = told
        .lines()
        .chain([""])
        .enumerate()
        .find(|(i, line)| expected.lines().nth(*i) != Some(line))
        .unwrap_or_default();
    let wanted = expected.lines().nth(line).unwrap_or_default();
    panic!("{title}\nline {line}: expected\n{wanted}\ngot\n{got}\n\nthe whole:\n{told}");
}

/// Every case of a file; they are parted by their titles.
fn check_file(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut cases: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("# ") || cases.is_empty() {
            cases.push(String::new());
        }
        if let Some(case) = cases.last_mut() {
            let _ = writeln!(case, "{line}");
        }
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "the switch of a test, not of the core"
    )]
    if std::env::var("UPDATE").is_ok() {
        let told: String = cases.iter().map(|case| play(case)).collect();
        std::fs::write(&path, told).expect("the cases are written");
        return;
    }
    cases.iter().for_each(|case| check(case, case));
}

macro_rules! files {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            check_file(concat!(stringify!($name), ".txt"));
        }
    )* };
}

files! {
    states dependencies retries continues cancels runners restarts fairness slots classes capabilities prefetch jobs clocks
}

/// The states and moves that the diagram in `state.rs` draws: lines are followed from a state's
/// word to an arrow's head, cell by cell.
fn drawn(picture: &[Vec<char>]) -> std::collections::BTreeSet<(String, String)> {
    let at = |row: usize, col: usize| {
        picture
            .get(row)
            .and_then(|line| line.get(col))
            .copied()
            .unwrap_or(' ')
    };
    let word = |row: usize, col: usize| {
        let mut start = col;
        while start > 0 && at(row, start - 1).is_alphabetic() {
            start -= 1;
        }
        (start..)
            .map(|c| at(row, c))
            .take_while(|c| c.is_alphabetic())
            .collect::<String>()
    };
    let mut moves = std::collections::BTreeSet::new();
    for (row, line) in picture.iter().enumerate() {
        for col in 0..line.len() {
            let from = word(row, col);
            if !TaskState::ALL.iter().any(|state| state.as_str() == from) {
                continue;
            }
            // (row, column, step down, step right) of a line that leaves the word, to the right or
            // downwards.
            let mut ways = vec![(row + 1, col, 1, 0)];
            if !at(row, col + 1).is_alphabetic() {
                ways.push((row, col + 3, 0, 1));
            }
            while let Some((row, col, down, right)) = ways.pop() {
                let go = |down: isize, right: isize| {
                    (
                        row.wrapping_add_signed(down),
                        col.wrapping_add_signed(right),
                        down,
                        right,
                    )
                };
                match (at(row, col), down, right) {
                    ('│', 1 | -1, _) | ('─', _, 1 | -1) => ways.push(go(down, right)),
                    ('┤', 1, _) => ways.extend([go(1, 0), go(0, -1)]),
                    ('┴', _, -1) => ways.extend([go(-1, 0), go(0, -1)]),
                    ('└', _, -1) => ways.push(go(-1, 0)),
                    ('▲', -1, _) => drop(moves.insert((from.clone(), word(row - 1, col)))),
                    ('▼', 1, _) => drop(moves.insert((from.clone(), word(row + 1, col)))),
                    ('►', _, 1) => drop(moves.insert((from.clone(), word(row, col + 3)))),
                    _ => {}
                }
            }
        }
    }
    moves
}

#[test]
fn the_diagram_draws_the_states_and_the_moves_that_are_legal() {
    use taskmaster_core::{Final, State};
    let source = include_str!("../src/state.rs");
    let picture: Vec<Vec<char>> = source
        .lines()
        .skip_while(|line| !line.contains("```text"))
        .skip(1)
        .take_while(|line| !line.contains("```"))
        .map(|line| line.trim_start_matches("//!").chars().collect())
        .collect();
    let text: String = picture
        .iter()
        .flat_map(|line| line.iter().chain([&'\n']))
        .collect();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphabetic()).collect();
    for state in TaskState::ALL {
        assert!(
            words.contains(&state.as_str()),
            "the diagram does not name {}",
            state.as_str()
        );
    }
    let mut moves = drawn(&picture);
    assert!(text.contains("cancelled ◄── from any open state"));
    for state in TaskState::ALL.into_iter().filter(|state| !state.is_final()) {
        moves.insert((state.as_str().into(), "cancelled".into()));
    }
    // What the picture leaves out, each with its reason.
    for (from, to, _why) in [
        ("blocked", "blocked", "one dependency of several is met"),
        ("blocked", "ready", "there is no time to wait for"),
        ("delayed", "delayed", "another time was set"),
        (
            "ready",
            "delayed",
            "a time was set; an attempt of a lost runner reports its error",
        ),
        (
            "ready",
            "ready",
            "a runner keeps its slots for it, or does no longer",
        ),
        ("delayed", "assigned", "a runner comes back with an attempt"),
        ("delayed", "done", "a late success"),
        ("ready", "done", "a late success"),
        ("delayed", "failed", "a late error was the last"),
        ("ready", "failed", "a late error was the last"),
        ("assigned", "assigned", "nothing changes"),
        (
            "assigned",
            "blocked",
            "it goes on as a task that waits for others",
        ),
    ] {
        assert!(
            moves.insert((from.into(), to.into())),
            "{from} to {to} is drawn"
        );
    }
    let states = [
        State::Blocked { open: 1 },
        State::Delayed,
        State::Ready { reserved: false },
        State::Assigned,
        State::Ended(Final::Done),
        State::Ended(Final::Failed),
        State::Ended(Final::Cancelled),
        State::Ended(Final::Skipped),
    ];
    assert_eq!(states.map(State::name), TaskState::ALL);
    for (from, to) in states
        .iter()
        .flat_map(|from| states.iter().map(move |to| (*from, *to)))
    {
        let (from_name, to_name) = (from.name().as_str(), to.name().as_str());
        let is_drawn = moves.contains(&(from_name.into(), to_name.into()));
        assert_eq!(
            from.may_become(to),
            is_drawn,
            "{from_name} to {to_name}, drawn: {is_drawn}"
        );
    }
}
