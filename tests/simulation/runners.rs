//! Runners: the real session, with guest code that takes some time and ends in some way. Runners are
//! killed, drained and cut off, and come back.

use crate::chance::Chance;
use crate::master::MODULES;
use crate::network::{Client, Parcel};
use crate::world::{Happening, MS, SECOND, World};
use std::collections::{BTreeMap, BTreeSet};
use taskmaster_protocol::message::{Assignment, Attempt, Done, Failed, Offer, ResultRef, Started};
use taskmaster_protocol::{
    ErrorKind, FromMaster, Json, ModuleName, TaskError, TaskId, TaskStats, ToMaster,
};
use taskmaster_runner_session::{
    Ending, RunnerSession, SessionEffect, SessionEvent, SessionSettings,
};

/// An attempt whose guest code runs.
#[derive(Debug)]
struct Running {
    slots: u32,
    since: u64,
    stopping: bool,
}

pub struct Runner {
    pub offer: Offer,
    /// How many attempts the runner holds at most: fewer than the session would take, so that the
    /// limit matters.
    credits: u32,
    /// The number of the process: things that were planned for an earlier one do not happen.
    pub process: u32,
    /// `None` while no process runs.
    pub session: Option<RunnerSession>,
    pub link: Option<u64>,
    /// How many times the process was connected.
    pub connects: u32,
    /// Until when no dial gets through, so that others are given the attempts meanwhile.
    pub away_until: u64,
    /// When the last connection was made.
    pub back_at: u64,
    /// Until when the process is stopped.
    pub asleep_until: u64,
    pub tick_at: Option<u64>,
    running: BTreeMap<Attempt, Running>,
    /// Attempts that came over this connection and have not ended.
    here: BTreeSet<Attempt>,
    draining: bool,
    /// How many times longer the guest code takes here.
    slow: u64,
}

impl Runner {
    /// The first runner suits every task, so that every task can run.
    pub fn new(index: usize, chance: &mut Chance) -> Runner {
        let first = index == 0;
        let slots = if first {
            chance.within(3, 6)
        } else {
            chance.within(1, 4)
        } as u32;
        let labels = if first || chance.permille(300) {
            BTreeMap::from([("zone".into(), "x".into())])
        } else {
            BTreeMap::new()
        };
        let only = if first || chance.permille(700) {
            None
        } else {
            chance
                .of(&MODULES)
                .and_then(|name| ModuleName::new(name).ok())
        };
        let offer = Offer {
            name: format!("r{index}"),
            slots,
            labels,
            modules: only.into_iter().collect(),
            ..Offer::default()
        };
        Runner {
            offer,
            credits: slots + chance.within(0, 6) as u32,
            process: 0,
            session: None,
            link: None,
            connects: 0,
            away_until: 0,
            back_at: 0,
            asleep_until: 0,
            tick_at: None,
            running: BTreeMap::new(),
            here: BTreeSet::new(),
            draining: false,
            slow: if chance.permille(200) { 10 } else { 1 },
        }
    }

    pub fn held(&self) -> usize {
        self.session.as_ref().map_or(0, RunnerSession::held)
    }
}

impl World {
    /// Starts a new process, sometimes under a new name.
    pub fn runner_starts(&mut self, index: usize) {
        let renamed = self.chance.permille(300);
        let runner = &mut self.runners[index];
        if runner.session.is_some() {
            return;
        }
        runner.process += 1;
        if renamed {
            runner.offer.name = format!("r{index}.{}", runner.process);
        }
        runner.session = Some(RunnerSession::new(SessionSettings {
            slots: runner.offer.slots,
            ahead: 0,
        }));
        runner.draining = false;
        runner.connects = 0;
        runner.tick_at = None;
        runner.asleep_until = 0;
        let name = runner.offer.name.clone();
        self.note("runner starts", || name);
        self.tell_runner(index, SessionEvent::Tick);
    }

    /// The process ends without having said anything.
    pub fn kill_runner(&mut self, index: usize) {
        self.note("runner is killed", || index.to_string());
        self.runner_ends(index);
    }

    fn runner_ends(&mut self, index: usize) {
        let runner = &mut self.runners[index];
        runner.session = None;
        runner.running.clear();
        runner.here.clear();
        if let Some(link) = runner.link {
            self.hang_up(link);
        }
        let after = self.chance.spread(MS, 4 * SECOND);
        self.plan(after, Happening::RunnerStarts { runner: index });
    }

    pub fn drain_runner(&mut self, index: usize) {
        let grace_us = self
            .chance
            .permille(500)
            .then(|| self.chance.spread(MS, SECOND));
        self.runners[index].draining = true;
        self.tell_runner(index, SessionEvent::Drain { grace_us });
    }

    pub fn runner_tick(&mut self, index: usize, process: u32) {
        let runner = &mut self.runners[index];
        if runner.process == process && runner.tick_at == Some(self.now) {
            runner.tick_at = None;
            self.tell_runner(index, SessionEvent::Tick);
        }
    }

    pub fn runner_loses_link(&mut self, index: usize) {
        let jitter = self.chance.below(1_001) as u32;
        self.runners[index].link = None;
        self.tell_runner(index, SessionEvent::Disconnected { jitter });
    }

    pub fn runner_hears(&mut self, index: usize, link: u64, parcel: Parcel) {
        if self.runners[index].link != Some(link) {
            return;
        }
        self.tell_runner(index, SessionEvent::Heard);
        let Parcel::Text(text) = parcel else { return };
        let event = match FromMaster::decode(&text) {
            Ok(FromMaster::Welcome(_)) => {
                let runner = &mut self.runners[index];
                runner.connects += 1;
                runner.back_at = self.now;
                runner.here.clear();
                self.links
                    .entry(link)
                    .and_modify(|link| link.welcomed = true);
                SessionEvent::Connected
            }
            Ok(FromMaster::Send(sends)) => {
                let here = sends.iter().map(|send| Attempt {
                    id: send.id.clone(),
                    attempt: send.attempt,
                });
                self.runners[index].here.extend(here);
                self.count_credits(index);
                SessionEvent::Send(sends)
            }
            Ok(FromMaster::Recall(attempts)) => SessionEvent::Recall(attempts),
            Ok(FromMaster::Cancel(attempts)) => SessionEvent::Cancel(attempts),
            Ok(FromMaster::Ack(attempts)) => SessionEvent::Ack(attempts),
            Ok(FromMaster::Drain(())) => SessionEvent::Drain { grace_us: None },
            Ok(_) => return,
            Err(refusal) => {
                return self.oracle.broken = Some(format!("{text} cannot be read: {refusal}"));
            }
        };
        self.tell_runner(index, event);
    }

    fn count_credits(&mut self, index: usize) {
        let runner = &self.runners[index];
        let within = runner.draining || runner.here.len() <= runner.credits as usize;
        self.oracle.claim(within, || {
            format!(
                "{} was sent {:?}, and takes {}",
                runner.offer.name, runner.here, runner.credits
            )
        });
    }

    /// Tells the session of an event, and carries its effects out.
    fn tell_runner(&mut self, index: usize, event: SessionEvent) {
        let Some(session) = &mut self.runners[index].session else {
            return;
        };
        let mut effects = Vec::new();
        session.handle(event, self.now, &mut effects);
        for effect in effects {
            self.runner_does(index, effect);
        }
        let now = self.now;
        let runner = &mut self.runners[index];
        let Some(at) = runner
            .session
            .as_ref()
            .and_then(RunnerSession::next_deadline)
        else {
            return;
        };
        let at = at.max(now + 1);
        if runner.tick_at.is_none_or(|planned| planned > at) {
            runner.tick_at = Some(at);
            let process = runner.process;
            self.plan(
                at - now,
                Happening::Tick {
                    runner: index,
                    process,
                },
            );
        }
    }

    fn runner_does(&mut self, index: usize, effect: SessionEffect) {
        let client = Client::Runner(index);
        let process = self.runners[index].process;
        match effect {
            SessionEffect::Dial => self.dial(client, process),
            SessionEffect::Hangup => {
                if let Some(link) = self.runners[index].link {
                    self.hang_up(link);
                }
                self.runner_loses_link(index);
            }
            SessionEffect::Ping => {
                if let Some(link) = self.runners[index].link {
                    self.post(link, true, Parcel::Ping);
                }
            }
            SessionEffect::Say(message) => self.runner_says(index, message),
            SessionEffect::Start(send) if self.machine_fails() => {
                let attempt = Attempt {
                    id: send.id,
                    attempt: send.attempt,
                };
                self.note("no disk", || format!("{} on r{index}", attempt.id));
                let failed = SessionEvent::MachineFailed {
                    fault: "no disk".into(),
                    attempts: vec![attempt],
                };
                self.tell_runner(index, failed);
            }
            SessionEffect::Start(send) => self.guest_starts(index, *send),
            // Every attempt that the session hands out runs at once, so nothing can be taken back.
            SessionEffect::TakeBack(_) => {
                self.tell_runner(index, SessionEvent::TakenBack(Vec::new()))
            }
            SessionEffect::Stop(attempt) => {
                let after = self.chance.within(10, 100 * MS);
                if let Some(running) = self.runners[index].running.get_mut(&attempt) {
                    running.stopping = true;
                    self.plan(
                        after,
                        Happening::Ends {
                            runner: index,
                            process,
                            attempt,
                        },
                    );
                }
            }
            SessionEffect::CheckMachine => {
                let found = if self.machine_fails() {
                    Err("still no disk".into())
                } else {
                    Ok(())
                };
                self.tell_runner(index, SessionEvent::MachineChecked(found));
            }
            SessionEffect::Leave => {
                self.note("runner leaves", || index.to_string());
                self.runner_ends(index);
            }
        }
    }

    /// Whether the machine of a runner fails an attempt now.
    fn machine_fails(&mut self) -> bool {
        !self.healed && self.chance.permille(self.swarm.sickening)
    }

    fn runner_says(&mut self, index: usize, mut message: ToMaster) {
        let runner = &mut self.runners[index];
        match &mut message {
            ToMaster::Request(request) => {
                request.credits = request.credits.min(runner.credits);
                runner.draining |= request.draining;
            }
            ToMaster::Done(reports) => reports.iter().for_each(|done| {
                runner.here.remove(&Attempt {
                    id: done.id.clone(),
                    attempt: done.attempt,
                });
            }),
            ToMaster::Failed(reports) => reports.iter().for_each(|failed| {
                runner.here.remove(&Attempt {
                    id: failed.id.clone(),
                    attempt: failed.attempt,
                });
            }),
            ToMaster::Returned(attempts) => attempts
                .iter()
                .for_each(|attempt| _ = runner.here.remove(attempt)),
            _ => {}
        }
        if let Some(link) = runner.link {
            self.post(link, true, Parcel::Text(message.encode()));
        }
    }

    fn guest_starts(&mut self, index: usize, send: Assignment) {
        let attempt = Attempt {
            id: send.id,
            attempt: send.attempt,
        };
        let runner = &mut self.runners[index];
        let run = self.chance.spread(100, self.swarm.run) * runner.slow;
        let last = runner.running.insert(
            attempt.clone(),
            Running {
                slots: send.slots,
                since: self.now,
                stopping: false,
            },
        );
        let used: u32 = runner.running.values().map(|running| running.slots).sum();
        self.oracle
            .claim(last.is_none(), || format!("{attempt:?} is started twice"));
        self.oracle.claim(used <= runner.offer.slots, || {
            format!("{} uses {used} slots", runner.offer.name)
        });
        self.oracle.guest_starts(&attempt);
        let process = runner.process;
        let link = runner.link;
        self.prepare(&attempt.id);
        self.note("runs", || {
            format!("{} {} on r{index}", attempt.id, attempt.attempt)
        });
        if let Some(link) = link.filter(|_| run > 20 * MS) {
            let Attempt { id, attempt } = attempt.clone();
            let started = ToMaster::Started(vec![Started {
                id,
                attempt,
                started_us: self.plain_clock().wall.0,
            }]);
            self.post(link, true, Parcel::Text(started.encode()));
        }
        self.plan(
            run,
            Happening::Ends {
                runner: index,
                process,
                attempt,
            },
        );
    }

    /// Asks for the results that the task's parameters name, if there is a master to ask.
    fn prepare(&mut self, id: &TaskId) {
        let body = self
            .oracle
            .pending
            .tasks
            .get(id)
            .map(|fate| fate.body.clone());
        let Some(references) = body
            .map(|body| body.references().to_vec())
            .filter(|ids| !ids.is_empty())
        else {
            return;
        };
        let awake = self
            .master
            .as_ref()
            .is_some_and(|master| master.asleep_until <= self.now);
        if awake && let Err(text) = self.ask_results(references) {
            self.oracle.claim(false, || text);
        }
    }

    /// The guest code of an attempt ends.
    pub fn attempt_ends(&mut self, index: usize, process: u32, attempt: Attempt) {
        let runner = &mut self.runners[index];
        if runner.process != process {
            return;
        }
        let Some(running) = runner.running.remove(&attempt) else {
            return;
        };
        let ending = self.ending(index, attempt, &running);
        self.oracle.guest_ends(&ending);
        self.tell_runner(index, SessionEvent::Ended(vec![ending]));
    }

    /// How guest code ends: mostly with a result, which names the attempt.
    fn ending(
        &mut self,
        index: usize,
        Attempt { id, attempt }: Attempt,
        running: &Running,
    ) -> Ending {
        let stats = TaskStats {
            run_us: self.now - running.since,
            ..TaskStats::default()
        };
        let started_us = self.plain_clock().wall.0;
        // A stopped attempt sometimes ends on its own in the same moment.
        let stopped = running.stopping && self.chance.permille(800);
        if stopped || self.chance.permille(self.swarm.failing) {
            let (kind, code) = match self.chance.below(6) {
                _ if stopped => (ErrorKind::Cancelled, None),
                0 => (ErrorKind::Trap, None),
                1 => (ErrorKind::Exit, Some(65)),
                2 => (ErrorKind::Timeout, None),
                _ => (ErrorKind::Exit, Some(1)),
            };
            let error = TaskError {
                code,
                ..TaskError::new(kind, format!("{id} {attempt} on {index}"))
            };
            return Ending::Failed(Failed {
                id,
                attempt,
                error,
                started_us: Some(started_us),
                stats,
                log: Default::default(),
            });
        }
        let result = ResultRef::Json(Json::string(&format!("{id} {attempt} on {index}")));
        Ending::Done(Done {
            id,
            attempt,
            result,
            outputs: Default::default(),
            started_us,
            stats,
            cache_s: None,
            log: Default::default(),
            adds: Default::default(),
            then: Default::default(),
        })
    }
}
