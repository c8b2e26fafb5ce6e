//! What can happen at random.

use crate::harness::{Record, Wanted, job_name, module_name};
use crate::{JOBS, MODULES, Play};
use std::collections::{BTreeMap, BTreeSet};
use taskmaster_core::{Due, Event, FinalState, RunnerKey};
use taskmaster_protocol::{AttemptId, ErrorKind, Retries, TaskError, When};

impl Play {
    /// A task to be added.
    fn wanted(&mut self) -> Wanted {
        self.names += 1;
        let random = &mut self.random;
        let mut wanted = Wanted::new(&format!("t{}", self.names));
        wanted.job = (*random.of(&JOBS).expect("a job")).into();
        wanted.module = (*random.of(&MODULES).expect("a module")).into();
        wanted.priority = random.below(3) as i32;
        if random.one_in(4) {
            wanted.requires.slots = Some(1 + random.below(3) as u32);
        }
        if random.one_in(5) {
            let zone = ["x", "y"][random.below(2)].to_owned();
            wanted.requires.labels = BTreeMap::from([("zone".to_owned(), zone)]);
        }
        wanted.memory_mb = *random.of(&[100, 100, 100, 700, 3_000]).expect("a memory");
        let names: Vec<&String> = self.world.tasks.keys().collect();
        while random.one_in(3) {
            let Some(on) = random.of(&names) else { break };
            let when = [When::Done, When::Done, When::Failed, When::Settled][random.below(4)];
            wanted.after.push(((*on).clone(), when));
        }
        if random.one_in(6) {
            let us = random.below(3_000_000) as u64;
            let now = self.world.now;
            wanted.due = Some(if random.one_in(2) {
                Due::Mono(now.mono_us + us)
            } else {
                Due::Wall(now.wall.plus_us(us))
            });
        }
        if random.one_in(3) {
            wanted.equal = Some(["x", "y", "z"][random.below(3)].to_owned());
            wanted.timeout_ms = random.below(2) as u64;
        }
        if random.one_in(2) {
            let max = random.below(3) as u32;
            let backoff_ms = random.below(500) as u64;
            wanted.retries = Some(Box::new(Retries {
                max,
                backoff_ms,
                ..Retries::default()
            }));
        }
        wanted
    }

    /// The name of an open task.
    fn open_task(&mut self) -> Option<String> {
        let open: Vec<&String> = self
            .world
            .tasks
            .iter()
            .filter(|(_, r)| r.ended.is_none())
            .map(|(name, _)| name)
            .collect();
        self.random.of(&open).map(|name| (*name).clone())
    }

    /// One thing happens.
    pub fn step(&mut self) {
        match self.random.below(42) {
            0..10 => {
                let wanted = self.wanted();
                let shown = format!("add {wanted:?}");
                let effects = self.world.add(wanted);
                self.judge(&shown, &effects);
            }
            10..18 => self.report(),
            18..25 => self.turn(),
            25..28 => {
                let us = [1_000, 60_000, 300_000, 1_100_000, 5_000_000][self.random.below(5)];
                self.pass(us);
            }
            28..30 => self.connect(),
            30 => self.disconnect(),
            31 => self.change_a_task(),
            32 => self.change_a_job(),
            33 => self.update_a_runner(),
            34 => {
                let module = (*self.random.of(&MODULES).expect("a module")).to_owned();
                let open = self.world.closed.remove(&module);
                if !open {
                    self.world.closed.insert(module.clone());
                }
                self.event(Event::ModuleOpened {
                    module: module_name(&module),
                    open,
                });
            }
            35 => self.nonsense(),
            36 if self.random.one_in(3) => self.restart(),
            37 => self.reopen(),
            40 => {
                let word = ["x", "y", "z"][self.random.below(3)];
                if !self.world.answers.remove(word) && self.random.one_in(4) {
                    self.world.answers.insert(word.to_owned());
                }
            }
            _ => self.hear(),
        }
    }

    /// Time passes, and a turn ends.
    pub fn pass(&mut self, us: u64) {
        let now = &mut self.world.now;
        now.mono_us += us;
        now.wall = now.wall.plus_us(us);
        if us >= 9_000_000 {
            self.hear();
        }
        self.mirror_roster_wait();
        self.turn();
    }

    /// The wait for the runners of an earlier epoch is over when all are back, or when 2 s have
    /// passed at the end of a turn.
    fn mirror_roster_wait(&mut self) {
        if self.world.now.mono_us >= 2_000_000 || self.world.roster.is_subset(&self.joined) {
            self.roster_wait_is_over = true;
        }
    }

    /// Something comes from every connected runner.
    pub fn hear(&mut self) {
        let connections: Vec<RunnerKey> = self
            .processes
            .iter()
            .filter_map(|process| process.connection)
            .collect();
        connections
            .into_iter()
            .for_each(|runner| self.event(Event::RunnerHeard { runner }));
    }

    /// A runner connects, maybe again: with what it holds, or as a new process that holds nothing.
    fn connect(&mut self) {
        let i = self.random.below(self.processes.len());
        let mut process = self.processes[i].clone();
        process.on_the_way.clear();
        if self.random.one_in(4) {
            process.held.clear();
        }
        process.draining = false;
        process.credits = 1 + self.random.below(9) as u32;
        let shown = format!("join {} {:?}", process.offer.name, process.held);
        let (runner, effects) =
            self.world
                .join(process.offer.clone(), process.credits, &process.held);
        process.connection = Some(runner);
        self.joined.insert(process.offer.name.clone());
        self.processes[i] = process;
        self.judge(&shown, &effects);
        self.mirror_roster_wait();
    }

    fn disconnect(&mut self) {
        let i = self.random.below(self.processes.len());
        if let Some(runner) = self.processes[i].connection.take() {
            self.processes[i].on_the_way.clear();
            self.event(Event::RunnerDisconnected { runner });
        }
    }

    /// A runner reports an attempt.
    fn report(&mut self) {
        let i = self.random.below(self.processes.len());
        let Some(runner) = self.processes[i].connection else {
            return;
        };
        if self.processes[i].held.is_empty() {
            return;
        }
        let at_work = self.processes[i].offer.slots as usize;
        let among = self.processes[i].held.len().min(at_work);
        let at = self.random.below(among);
        let (name, attempt) = self.processes[i].held.remove(at);
        let run_us = if self.random.one_in(2) {
            self.random.below(4_000)
        } else {
            self.random.below(400_000)
        } as u64;
        let Some(task) = self.world.key(&name) else {
            return;
        };
        let random = self.random.next() as u32;
        let failed = |kind, code| {
            let error = Box::new(TaskError {
                code,
                ..TaskError::new(kind, "")
            });
            Event::AttemptFailed {
                runner,
                task,
                attempt,
                error,
                run_us,
                random,
            }
        };
        let event = match self.random.below(12) {
            10 => failed(ErrorKind::Timeout, None),
            11 => return self.go_on(runner, &name, attempt),
            0 => failed(ErrorKind::Exit, Some(1)),
            1 => failed(ErrorKind::Exit, Some(64)),
            2 => failed(ErrorKind::Cancelled, None),
            3 => Event::AttemptReturned {
                runner,
                task,
                attempt,
            },
            _ => Event::AttemptDone {
                runner,
                task,
                attempt,
                run_us,
            },
        };
        self.event(event);
    }

    /// The attempt's task goes on as another one.
    fn go_on(&mut self, runner: RunnerKey, name: &str, attempt: AttemptId) {
        let mut wanted = self.wanted();
        // A task that goes on may wait for any other one, which could make a cycle.
        wanted.after.clear();
        let wanted = Wanted {
            name: name.to_owned(),
            equal: self.world.tasks[name].wanted.equal.clone(),
            ..wanted
        };
        let shown = format!("{name} goes on as {wanted:?}");
        let effects = self.world.go_on(runner, attempt, wanted);
        self.judge(&shown, &effects);
    }

    fn change_a_task(&mut self) {
        let Some(task) = self.open_task().and_then(|name| self.world.key(&name)) else {
            return;
        };
        if self.random.one_in(3) {
            return self.event(Event::CancelRequested { task });
        }
        let priority = self.random.one_in(2).then(|| self.random.below(4) as i32);
        let delay = self.random.below(2_000_000) as u64;
        let due = self
            .random
            .one_in(2)
            .then_some(Due::Mono(self.world.now.mono_us + delay));
        self.event(Event::TaskSet {
            task,
            priority,
            due,
        });
    }

    fn change_a_job(&mut self) {
        let job = (*self.random.of(&JOBS).expect("a job")).to_owned();
        let by = format!("s{}", self.random.below(2));
        let session = by.as_str().into();
        match self.random.below(6) {
            0 if self.random.one_in(3) => {
                let effects = self.world.cancel_job(&job);
                self.judge("cancel a job", &effects);
            }
            1 | 2 if self.world.jobs.contains_key(&job) => {
                let paused = !self.world.jobs[&job].stored.paused;
                self.event(Event::JobPaused {
                    job: job_name(&job),
                    paused,
                });
            }
            3 => {
                let effects = self.world.open_job(&job);
                self.judge("open a job", &effects);
                self.event(Event::JobHeld {
                    job: job_name(&job),
                    by: session,
                    restored: false,
                });
            }
            4 => self.event(Event::HolderLost { by: session }),
            _ => self.event(Event::JobReleased {
                job: job_name(&job),
                by: session,
            }),
        }
    }

    fn update_a_runner(&mut self) {
        let i = self.random.below(self.processes.len());
        let Some(runner) = self.processes[i].connection else {
            return;
        };
        let credits = self.random.below(9) as u32;
        let draining = self.random.one_in(5);
        self.processes[i].credits = credits;
        self.processes[i].draining |= draining;
        self.event(Event::RunnerUpdated {
            runner,
            credits,
            draining,
        });
    }

    /// A runner reports what cannot be.
    fn nonsense(&mut self) {
        let connections: Vec<RunnerKey> = self.world.runners.keys().copied().collect();
        let (Some(runner), Some(name)) = (self.random.of(&connections).copied(), self.open_task())
        else {
            return;
        };
        let Some(task) = self.world.key(&name) else {
            return;
        };
        let attempt = AttemptId {
            epoch: self.world.epoch,
            n: 1_000 + self.random.below(3) as u32,
        };
        match self.random.below(3) {
            0 => self.event(Event::AttemptDone {
                runner,
                task,
                attempt,
                run_us: u64::MAX,
            }),
            1 => self.event(Event::AttemptReturned {
                runner,
                task,
                attempt,
            }),
            _ => self.event(Event::RunnerDisconnected {
                runner: RunnerKey(u64::MAX),
            }),
        }
    }

    fn reopen(&mut self) {
        let again = |record: &Record| {
            matches!(
                record.ended,
                Some(FinalState::Failed | FinalState::Cancelled | FinalState::Skipped)
            )
        };
        // An open task goes on whose dependency was met and is opened again, which this model does
        // not know. So nothing is opened again that an open task names.
        let needed: BTreeSet<&String> = self
            .world
            .tasks
            .values()
            .filter(|record| record.ended.is_none())
            .flat_map(|record| record.wanted.after.iter().map(|(on, _)| on))
            .collect();
        let free = |(name, record): &(&String, &Record)| {
            again(record) && record.key.is_none() && !needed.contains(name)
        };
        let ended: Vec<String> = self
            .world
            .tasks
            .iter()
            .filter(free)
            .map(|(name, _)| name.clone())
            .collect();
        let Some(name) = self.random.of(&ended).cloned() else {
            return;
        };
        let effects = self.world.reopen(&name);
        self.judge(&format!("reopen {name}"), &effects);
    }

    /// The master dies, and another one starts. Runners keep what they hold, and have to come back.
    fn restart(&mut self) {
        self.processes.iter_mut().for_each(|process| {
            process.connection = None;
            process.on_the_way.clear();
        });
        self.joined.clear();
        self.roster_wait_is_over = self.world.roster.is_empty();
        let effects = self.world.restart();
        self.judge("restart", &effects);
        self.mirror_roster_wait();
    }
}
