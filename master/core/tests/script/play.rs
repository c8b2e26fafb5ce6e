//! Tells the core what the lines of a case say.

use crate::harness::{Wanted, World, job_name, module_name};
use crate::line::{Line, attempt, dependency, error_kind, policy};
use std::sync::Arc;
use taskmaster_core::{DependsOn, Due, Effect, Event, FinalState, RunnerKey};
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{AttemptId, TaskError, Wall, When, time};

/// What comes of a line.
pub enum Outcome {
    /// The effects of what the line tells.
    Effects(Vec<Effect>),
    /// The answer to what the line asks.
    Answer(String),
}

/// A case that is being played.
pub struct Play {
    pub world: World,
    /// The time of the wall clock when the case began.
    pub wall_start: Wall,
}

impl Play {
    pub fn new() -> Play {
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
        wanted.memory_mb = line.number("memory").unwrap_or(0);
        wanted.after = line.all("after").into_iter().map(dependency).collect();
        wanted.told = line.number("told").unwrap_or(0);
        wanted.due = self.due(line);
        wanted.equal = line.text("equal").map(Into::into);
        wanted.timeout_ms = line.number("timeout").unwrap_or(0);
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

    /// The newest connection of a runner, or the one before it for a name with a quote.
    pub fn runner(&self, name: &str) -> RunnerKey {
        let back = usize::from(name.ends_with('\''));
        let of: Vec<&RunnerKey> = self
            .world
            .runners
            .iter()
            .filter(|(_, n)| *n == name.trim_end_matches('\''))
            .map(|(key, _)| key)
            .collect();
        **of.iter()
            .rev()
            .nth(back)
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
        self.world.process = line.text("process").map(Into::into);
        let credits = line.number("credits").unwrap_or(100);
        self.world.join(offer, credits, &held).1
    }

    fn report(&mut self, line: &Line) -> Vec<Effect> {
        let runner = self.runner(line.word(1));
        let name = line.word(2);
        let Some(task) = self.world.key(name) else {
            return Vec::new();
        };
        let attempt = self.reported_attempt(line, name);
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
                let random = line.number("chance").unwrap_or(u32::MAX);
                Event::AttemptFailed {
                    runner,
                    task,
                    attempt,
                    error: Box::new(error),
                    run_us,
                    random,
                }
            }
        };
        self.world.event(event)
    }

    /// The attempt that a line names, or the newest one that was sent.
    fn reported_attempt(&self, line: &Line, name: &str) -> AttemptId {
        let newest = self.world.tasks[name].last;
        line.words
            .get(3)
            .map_or(newest, |text| attempt(text).expect("epoch.n"))
    }

    fn continued(&mut self, line: &Line) -> Vec<Effect> {
        let runner = self.runner(line.word(1));
        let name = line.word(2);
        let attempt = self.reported_attempt(line, name);
        let wanted = self.wanted(name, line);
        self.world.go_on(runner, attempt, wanted)
    }

    /// Plays one line, which tells something or asks something.
    pub fn line(&mut self, text: &str) -> Outcome {
        let line = Line::read(text);
        let job = |i: usize| job_name(line.word(i));
        let by = |i: usize| line.word(i).into();
        let event = match line.word(0) {
            "add" => return Outcome::Effects(self.add(&line)),
            "runner" => return Outcome::Effects(self.join(&line)),
            "done" | "error" | "return" => return Outcome::Effects(self.report(&line)),
            "continue" => return Outcome::Effects(self.continued(&line)),
            "reopen" => return Outcome::Effects(self.world.reopen(line.word(1))),
            "cancel-job" => return Outcome::Effects(self.world.cancel_job(line.word(1))),
            "restart" => return Outcome::Effects(self.world.restart()),
            "tick" | "wall" | "back" | "run" => return Outcome::Effects(self.pass(&line)),
            "state" | "why" | "job" | "next" | "facts" => {
                return Outcome::Answer(self.answer(&line));
            }
            "pause-done" => {
                self.world
                    .jobs
                    .get_mut(line.word(1))
                    .expect("a known job")
                    .stored
                    .paused = true;
                return Outcome::Effects(Vec::new());
            }
            "late" => {
                let runner = RunnerKey(0);
                let name = line.word(1).to_owned();
                self.world.runners.insert(runner, name.clone());
                let offer = Box::new(Offer {
                    name,
                    slots: 1,
                    ..Offer::default()
                });
                Event::RunnerJoined {
                    runner,
                    process: offer.name.as_str().into(),
                    offer,
                    credits: 1,
                    held: Vec::new(),
                }
            }
            "keep" => {
                self.world.answers.insert(line.word(1).into());
                return Outcome::Effects(Vec::new());
            }
            "drop" => {
                self.world.answers.remove(line.word(1));
                return Outcome::Effects(Vec::new());
            }
            "end" => Event::TurnEnded,
            "cancel" => match self.world.key(line.word(1)) {
                Some(task) => Event::CancelRequested { task },
                None => return Outcome::Effects(Vec::new()),
            },
            "told" => {
                let task = self.world.key(line.word(1)).expect("a task of the core");
                let is = match (line.word(2), self.world.key(line.word(2))) {
                    ("done", _) => DependsOn::Ended(FinalState::Done, When::Done),
                    ("failed", _) => DependsOn::Ended(FinalState::Failed, When::Done),
                    (_, on) => DependsOn::Open(on.expect("an open task"), When::Done),
                };
                Event::DependencyTold { task, is }
            }
            "set" => {
                let task = self.world.key(line.word(1)).expect("an open task");
                Event::TaskSet {
                    task,
                    priority: line.number("prio"),
                    due: self.due(&line),
                }
            }
            "ask" => Event::RunnerUpdated {
                runner: self.runner(line.word(1)),
                credits: line.number("credits").unwrap_or(100),
                draining: line.has("drain"),
            },
            "answered" => Event::RecallAnswered {
                runner: self.runner(line.word(1)),
            },
            "heard" => Event::RunnerHeard {
                runner: self.runner(line.word(1)),
            },
            "cut" => Event::RunnerDisconnected {
                runner: self.runner(line.word(1)),
            },
            "hold" => {
                let mut effects = self.world.open_job(line.word(1));
                effects.extend(self.world.event(Event::JobHeld {
                    job: job(1),
                    by: by(2),
                    restored: false,
                }));
                return Outcome::Effects(effects);
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
            "needs" => Event::ModuleNeedsChanged {
                module: module_name(line.word(1)),
                needs: Arc::new(line.capabilities()),
            },
            word => panic!("{word} means nothing"),
        };
        Outcome::Effects(self.world.event(event))
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
            "tick" => {
                now.mono_us += us;
                now.wall = now.wall.plus_us(us);
            }
            "wall" => now.wall = now.wall.plus_us(us),
            "back" => {
                now.mono_us = now.mono_us.saturating_sub(us);
                now.wall = Wall(now.wall.0 - us as i64);
            }
            _ => {}
        }
        let mut effects = self.world.turn();
        while line.word(0) == "run" && self.world.busy() {
            effects.extend(self.world.turn());
        }
        effects
    }
}
