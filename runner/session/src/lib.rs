//! What a runner holds and owes, as a pure state machine. This crate has no IO, no clock, no
//! randomness and no async: time and chance come in as values, effects go out as values.
//!
//! ```text
//!            Start                      Ended                   task:ack
//! waiting ──────────► handed out ──────────────► finished ─────────────► forgotten
//!    │                    │                          ▲
//!    │ recall: returned   │ recall, while not begun: returned
//!    │                    │ the machine failed, not the task: returned
//!    └─ cancel ───────────┴─ cancel: stopped, finished as `cancelled`
//! ```
//!
//! A runner whose machine is sick returns what has not begun, takes nothing, and has the machine
//! looked at until it is well again.
//!
//! [`RunnerSession::handle`] is the only way in, and effects come out in order. The session stores
//! everything that the link must not forget. A result stays here until the master has acknowledged
//! it, whatever happens to the connection.

#![deny(missing_docs)]

mod health;

use health::MachineHealth;
use std::collections::{BTreeMap, VecDeque};
use taskmaster_protocol::message::{Assignment, Attempt, CreditRequest, Done, Failed, Log};
use taskmaster_protocol::{ErrorKind, TaskError, TaskStats, ToMaster, limits};

/// The first pause before a lost master is dialled again, µs. A restart of a master takes a few
/// such pauses.
const BACKOFF_FIRST_US: u64 = 50_000;

/// The longest pause between two dials, µs. A restarted master waits 2 s for its runners, so a
/// runner must be back within that time.
const BACKOFF_MAX_US: u64 = 1_000_000;

/// Attempts that the runner accepts beyond one for each slot. They are about 20 ms of work for the
/// smallest tasks; the master sends fewer where tasks last longer.
const CREDITS_BEYOND_SLOTS: u32 = 2_048;

/// What does not change while a runner lives.
#[derive(Debug, Clone, Copy)]
pub struct SessionSettings {
    /// How many tasks that take one slot run at a time.
    pub slots: u32,
    /// How many slots' worth of attempts are handed out beyond `slots`. The executor queues them,
    /// so that no slot waits for this state machine. With 0, [`SessionEffect::Start`] means that a
    /// slot is free and guest code starts now.
    pub ahead: u32,
}

/// How an attempt ended, as the master will be told.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The attempt has a result.
    Done(Done),
    /// The attempt has no result.
    Failed(Failed),
}

impl Ending {
    /// The attempt that ended.
    pub fn attempt(&self) -> Attempt {
        match self {
            Ending::Done(done) => Attempt {
                id: done.id.clone(),
                attempt: done.attempt,
            },
            Ending::Failed(failed) => Attempt {
                id: failed.id.clone(),
                attempt: failed.attempt,
            },
        }
    }

    /// A cancelled attempt of which no guest code ran.
    pub fn cancelled(attempt: Attempt) -> Ending {
        Ending::failed(
            attempt,
            TaskError::new(ErrorKind::Cancelled, "cancelled before it started"),
        )
    }

    /// An attempt that failed before guest code ran.
    pub fn failed(attempt: Attempt, error: TaskError) -> Ending {
        Ending::Failed(Failed {
            id: attempt.id,
            attempt: attempt.attempt,
            error,
            started_us: None,
            stats: TaskStats::default(),
            log: Log::default(),
        })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    /// The master said `welcome`.
    Connected,
    /// The connection is gone, or a dial failed.
    Disconnected {
        /// A random number from 0 to 1000, ‰ of the pause that chance decides. A thousand runners
        /// must not come back in the same millisecond.
        jitter: u32,
    },
    /// Something came from the master; a pong counts.
    Heard,
    /// `task:send`.
    Send(Vec<Assignment>),
    /// `task:recall`.
    Recall(Vec<Attempt>),
    /// `task:cancel`.
    Cancel(Vec<Attempt>),
    /// `task:ack`.
    Ack(Vec<Attempt>),
    /// The runner shall accept no more attempts, and leave when all are delivered.
    Drain {
        /// How long running attempts may go on before they are given back, µs. `None` is no limit.
        grace_us: Option<u64>,
    },
    /// Attempts ended.
    Ended(Vec<Ending>),
    /// An earlier process of this runner died while these attempts were at work. The master is told,
    /// as of any other ending.
    DiedAtWork(Vec<Attempt>),
    /// The answer to [`SessionEffect::TakeBack`]: the attempts that had not begun, and now never
    /// will.
    TakenBack(Vec<Attempt>),
    /// The machine, and not what was run on it, has failed: its disk is full or gone.
    MachineFailed {
        /// What is wrong, in one sentence.
        fault: String,
        /// Attempts that could not begin because of it. Others can run them.
        attempts: Vec<Attempt>,
    },
    /// The answer to [`SessionEffect::CheckMachine`]: what is still wrong, if anything.
    MachineChecked(Result<(), String>),
    /// Time has passed; see [`RunnerSession::next_deadline`].
    Tick,
}

/// What is to be done.
#[allow(
    clippy::large_enum_variant,
    reason = "an effect lives until it is carried out, and most are messages"
)]
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEffect {
    /// Dial a master; answer with `Connected` or `Disconnected`.
    Dial,
    /// Close the connection; answer with `Disconnected`.
    Hangup,
    /// Send a ping.
    Ping,
    /// Send a message to the master.
    Say(ToMaster),
    /// Prepare and run the attempt, first come, first served. Answer with `Ended`.
    Start(Box<Assignment>),
    /// Remove from the executor's queue those attempts that have not begun; answer with
    /// `TakenBack`.
    TakeBack(Vec<Attempt>),
    /// Stop this attempt; answer with `Ended`.
    Stop(Attempt),
    /// Try out whether the machine can run tasks again; answer with `MachineChecked`.
    CheckMachine,
    /// Everything is delivered: close the connection and end.
    Leave,
}

#[derive(Debug)]
enum AttemptState {
    /// In the session's own queue.
    Waiting(Box<Assignment>),
    /// With the executor, which prepares, queues or runs the attempt.
    HandedOut {
        /// The slots that the attempt takes, of those that the session may hand out.
        slots: u32,
    },
    /// The master has not acknowledged the ending yet.
    Finished(Box<Ending>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Down { dial_at_us: u64 },
    Dialling,
    Up { heard_us: u64, ping_at_us: u64 },
    Left,
}

/// The state machine of one runner.
#[derive(Debug)]
pub struct RunnerSession {
    settings: SessionSettings,
    attempts: BTreeMap<Attempt, AttemptState>,
    /// The `Waiting` attempts in the order in which they came. May name attempts that are gone.
    queue: VecDeque<Attempt>,
    /// The sum of the slots of all `HandedOut` attempts.
    slots_handed_out: u32,
    link: LinkState,
    /// The next pause between two dials, µs.
    backoff_us: u64,
    draining: bool,
    health: MachineHealth,
    /// When a draining runner gives back what still runs, µs.
    grace_ends_us: Option<u64>,
    /// The latest time that an event brought, µs.
    now_us: u64,
}

impl RunnerSession {
    /// A runner that has no attempts and is not connected. The first `Tick` dials.
    pub fn new(settings: SessionSettings) -> RunnerSession {
        RunnerSession {
            settings: SessionSettings {
                slots: settings.slots.clamp(1, limits::SLOTS_MAX),
                ..settings
            },
            attempts: BTreeMap::new(),
            queue: VecDeque::new(),
            slots_handed_out: 0,
            link: LinkState::Down { dial_at_us: 0 },
            backoff_us: BACKOFF_FIRST_US,
            draining: false,
            health: MachineHealth::new(),
            grace_ends_us: None,
            now_us: 0,
        }
    }

    /// How many attempts the session holds, finished ones included.
    pub fn held(&self) -> usize {
        self.attempts.len()
    }

    /// Whether the session holds `attempt`, in whatever state.
    pub fn holds(&self, attempt: &Attempt) -> bool {
        self.attempts.contains_key(attempt)
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        matches!(self.link, LinkState::Up { .. })
    }

    /// What is wrong with the machine; `None` while it is well.
    pub fn fault(&self) -> Option<&str> {
        self.health.fault()
    }

    fn takes_more(&self) -> bool {
        !self.draining && self.fault().is_none()
    }

    /// When `Tick` is wanted at the latest, µs. An earlier `Tick` does no harm.
    pub fn next_deadline(&self) -> Option<u64> {
        let link = match self.link {
            LinkState::Left => return None,
            LinkState::Dialling => None,
            LinkState::Down { dial_at_us } => Some(dial_at_us),
            LinkState::Up {
                heard_us,
                ping_at_us,
            } => Some(ping_at_us.min(silent_at_us(heard_us))),
        };
        link.into_iter()
            .chain(self.grace_ends_us)
            .chain(self.health.look_at_us())
            .min()
    }

    /// Takes in what happened at `now_us` and appends what is to be done. `now_us` is monotonic: a
    /// step back is ignored.
    pub fn handle(&mut self, event: SessionEvent, now_us: u64, effects: &mut Vec<SessionEffect>) {
        self.now_us = self.now_us.max(now_us);
        if self.link == LinkState::Left {
            return;
        }

        match event {
            SessionEvent::Connected => self.connected(effects),
            SessionEvent::Disconnected { jitter } => self.disconnected(jitter),
            SessionEvent::Heard => self.heard(),
            SessionEvent::Send(sends) => self.send(sends, effects),
            SessionEvent::Recall(attempts) => self.recall(attempts, effects),
            SessionEvent::Cancel(attempts) => self.cancel(attempts, effects),
            SessionEvent::Ack(attempts) => self.ack(attempts),
            SessionEvent::Drain { grace_us } => self.drain(grace_us, effects),
            SessionEvent::Ended(endings) => self.ended(endings, effects),
            SessionEvent::DiedAtWork(attempts) => self.died_at_work(attempts, effects),
            SessionEvent::TakenBack(attempts) => self.taken_back(attempts, effects),
            SessionEvent::MachineFailed { fault, attempts } => {
                self.machine_failed(fault, attempts, effects);
            }
            SessionEvent::MachineChecked(found) => self.machine_checked(found, effects),
            SessionEvent::Tick => {}
        }

        if self.health.begin_look(self.now_us) {
            effects.push(SessionEffect::CheckMachine);
        }
        self.keep_link(effects);
        self.hand_out(effects);
        self.leave_if_done(effects);
    }

    fn say(&self, message: ToMaster, effects: &mut Vec<SessionEffect>) {
        // Without a connection nothing is lost: a new one begins with everything that is held.
        if self.is_up() {
            effects.push(SessionEffect::Say(message));
        }
    }

    fn request(&self, held: Option<Vec<Attempt>>) -> ToMaster {
        let credits = (self.settings.slots + CREDITS_BEYOND_SLOTS).min(limits::CREDITS_MAX);
        ToMaster::Request(CreditRequest {
            credits: if self.takes_more() { credits } else { 0 },
            held,
            draining: self.draining,
            fault: self.fault().map(str::to_owned),
        })
    }

    fn connected(&mut self, effects: &mut Vec<SessionEffect>) {
        self.link = LinkState::Up {
            heard_us: self.now_us,
            ping_at_us: self.now_us + limits::PING_MS * 1_000,
        };
        self.backoff_us = BACKOFF_FIRST_US;

        let held = self.attempts.keys().cloned().collect();
        self.say(self.request(Some(held)), effects);

        let finished = self.attempts.values().filter_map(|state| match state {
            AttemptState::Finished(ending) => Some((**ending).clone()),
            AttemptState::Waiting(_) | AttemptState::HandedOut { .. } => None,
        });
        self.tell(finished.collect(), effects);
    }

    fn disconnected(&mut self, jitter: u32) {
        let half_us = self.backoff_us / 2;
        let pause_us = half_us + half_us * u64::from(jitter.min(1_000)) / 1_000;
        self.link = LinkState::Down {
            dial_at_us: self.now_us + pause_us,
        };
        self.backoff_us = (self.backoff_us * 2).min(BACKOFF_MAX_US);
    }

    fn heard(&mut self) {
        if let LinkState::Up { heard_us, .. } = &mut self.link {
            *heard_us = self.now_us;
        }
    }

    fn send(&mut self, sends: Vec<Assignment>, effects: &mut Vec<SessionEffect>) {
        let mut returned = Vec::new();
        for mut send in sends {
            let attempt = Attempt {
                id: send.id.clone(),
                attempt: send.attempt,
            };
            if self.attempts.contains_key(&attempt) {
                continue;
            }
            // The master had sent the attempt before it read that this runner accepts no more.
            if !self.takes_more() {
                returned.push(attempt);
                continue;
            }
            send.slots = send.slots.clamp(1, self.settings.slots);
            self.queue.push_back(attempt.clone());
            self.attempts
                .insert(attempt, AttemptState::Waiting(Box::new(send)));
        }
        if !returned.is_empty() {
            self.say(ToMaster::Returned(returned), effects);
        }
    }

    /// The master waits for an answer, even if nothing can be returned.
    fn recall(&mut self, attempts: Vec<Attempt>, effects: &mut Vec<SessionEffect>) {
        let mut returned = Vec::new();
        let mut handed_out = Vec::new();
        for attempt in attempts {
            match self.attempts.get(&attempt) {
                Some(AttemptState::Waiting(_)) => {
                    self.attempts.remove(&attempt);
                    returned.push(attempt);
                }
                Some(AttemptState::HandedOut { .. }) => handed_out.push(attempt),
                Some(AttemptState::Finished(_)) | None => {}
            }
        }

        if handed_out.is_empty() {
            self.say(ToMaster::Returned(returned), effects);
            return;
        }
        if !returned.is_empty() {
            self.say(ToMaster::Returned(returned), effects);
        }
        effects.push(SessionEffect::TakeBack(handed_out));
    }

    fn taken_back(&mut self, attempts: Vec<Attempt>, effects: &mut Vec<SessionEffect>) {
        for attempt in &attempts {
            if let Some(AttemptState::HandedOut { slots }) = self.attempts.get(attempt) {
                self.slots_handed_out = self.slots_handed_out.saturating_sub(*slots);
                self.attempts.remove(attempt);
            }
        }
        self.say(ToMaster::Returned(attempts), effects);
    }

    /// The master must know that this runner takes nothing before it hears of the attempts.
    /// Otherwise it would send them here again.
    fn machine_failed(
        &mut self,
        fault: String,
        attempts: Vec<Attempt>,
        effects: &mut Vec<SessionEffect>,
    ) {
        let is_news = self.health.failed(fault, self.now_us);
        if is_news {
            self.say(self.request(None), effects);
        }
        if !attempts.is_empty() {
            self.taken_back(attempts, effects);
        }
        if is_news {
            self.give_back(effects);
        }
    }

    fn machine_checked(&mut self, found: Result<(), String>, effects: &mut Vec<SessionEffect>) {
        if self.health.looked(found, self.now_us) {
            self.say(self.request(None), effects);
        }
    }

    fn cancel(&mut self, attempts: Vec<Attempt>, effects: &mut Vec<SessionEffect>) {
        let mut cancelled = Vec::new();
        for attempt in attempts {
            match self.attempts.get(&attempt) {
                Some(AttemptState::Waiting(_)) => {
                    let ending = Ending::cancelled(attempt.clone());
                    let finished = AttemptState::Finished(Box::new(ending.clone()));
                    self.attempts.insert(attempt, finished);
                    cancelled.push(ending);
                }
                Some(AttemptState::HandedOut { .. }) => effects.push(SessionEffect::Stop(attempt)),
                Some(AttemptState::Finished(_)) => {
                    self.attempts.remove(&attempt);
                }
                None => {}
            }
        }
        self.tell(cancelled, effects);
    }

    fn ack(&mut self, attempts: Vec<Attempt>) {
        for attempt in attempts {
            if matches!(self.attempts.get(&attempt), Some(AttemptState::Finished(_))) {
                self.attempts.remove(&attempt);
            }
        }
    }

    fn ended(&mut self, endings: Vec<Ending>, effects: &mut Vec<SessionEffect>) {
        let mut told = Vec::with_capacity(endings.len());
        for ending in endings {
            let Some(state) = self.attempts.get_mut(&ending.attempt()) else {
                continue;
            };
            let AttemptState::HandedOut { slots } = *state else {
                continue;
            };
            self.slots_handed_out = self.slots_handed_out.saturating_sub(slots);
            *state = AttemptState::Finished(Box::new(ending.clone()));
            told.push(ending);
        }
        self.tell(told, effects);
    }

    fn died_at_work(&mut self, attempts: Vec<Attempt>, effects: &mut Vec<SessionEffect>) {
        let mut endings = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            if self.attempts.contains_key(&attempt) {
                continue;
            }
            let text = "the runner's process died while the attempt was at work";
            let error = TaskError::new(ErrorKind::RunnerLost, text);
            let ending = Ending::failed(attempt.clone(), error);
            let finished = AttemptState::Finished(Box::new(ending.clone()));
            self.attempts.insert(attempt, finished);
            endings.push(ending);
        }
        self.tell(endings, effects);
    }

    /// Sends at most one message of each kind, whatever the number of endings.
    fn tell(&self, endings: Vec<Ending>, effects: &mut Vec<SessionEffect>) {
        let mut done = Vec::new();
        let mut failed = Vec::new();
        for ending in endings {
            match ending {
                Ending::Done(one) => done.push(one),
                Ending::Failed(one) => failed.push(one),
            }
        }
        if !done.is_empty() {
            self.say(ToMaster::Done(done), effects);
        }
        if !failed.is_empty() {
            self.say(ToMaster::Failed(failed), effects);
        }
    }

    fn drain(&mut self, grace_us: Option<u64>, effects: &mut Vec<SessionEffect>) {
        if let Some(grace_us) = grace_us {
            let ends_us = self.now_us.saturating_add(grace_us);
            let earlier_us = self.grace_ends_us.unwrap_or(u64::MAX);
            self.grace_ends_us = Some(ends_us.min(earlier_us));
        }
        if self.draining {
            return;
        }

        self.draining = true;
        self.say(self.request(None), effects);
        self.give_back(effects);
    }

    /// Gives back what has not begun. Other runners can start it at once.
    fn give_back(&mut self, effects: &mut Vec<SessionEffect>) {
        let unfinished = self.unfinished();
        if !unfinished.is_empty() {
            self.recall(unfinished, effects);
        }
    }

    fn unfinished(&self) -> Vec<Attempt> {
        self.attempts
            .iter()
            .filter(|(_, state)| !matches!(state, AttemptState::Finished(_)))
            .map(|(attempt, _)| attempt.clone())
            .collect()
    }

    fn keep_link(&mut self, effects: &mut Vec<SessionEffect>) {
        match &mut self.link {
            LinkState::Down { dial_at_us } => {
                if *dial_at_us <= self.now_us {
                    self.link = LinkState::Dialling;
                    effects.push(SessionEffect::Dial);
                }
            }
            LinkState::Up {
                heard_us,
                ping_at_us,
            } => {
                if silent_at_us(*heard_us) <= self.now_us {
                    // Until `Disconnected` comes, nothing more is said into the dead connection.
                    self.link = LinkState::Dialling;
                    effects.push(SessionEffect::Hangup);
                } else if *ping_at_us <= self.now_us {
                    *ping_at_us = self.now_us + limits::PING_MS * 1_000;
                    effects.push(SessionEffect::Ping);
                }
            }
            LinkState::Dialling | LinkState::Left => {}
        }
    }

    /// First come, first served: an attempt that needs more slots than are free holds up those
    /// behind it. Otherwise small attempts could pass it for ever.
    fn hand_out(&mut self, effects: &mut Vec<SessionEffect>) {
        let slots_max = self.settings.slots.saturating_add(self.settings.ahead);
        while let Some(attempt) = self.queue.front() {
            let Some(state @ AttemptState::Waiting(_)) = self.attempts.get_mut(attempt) else {
                self.queue.pop_front();
                continue;
            };
            let AttemptState::Waiting(send) = &*state else {
                return;
            };
            let slots = send.slots;
            if self.slots_handed_out + slots > slots_max {
                return;
            }

            self.slots_handed_out += slots;
            let handed_out = AttemptState::HandedOut { slots };
            if let AttemptState::Waiting(send) = std::mem::replace(state, handed_out) {
                effects.push(SessionEffect::Start(send));
            }
            self.queue.pop_front();
        }
    }

    fn leave_if_done(&mut self, effects: &mut Vec<SessionEffect>) {
        if !self.draining {
            return;
        }
        let grace_is_over = self
            .grace_ends_us
            .is_some_and(|ends_us| ends_us <= self.now_us);
        if !self.attempts.is_empty() && !grace_is_over {
            return;
        }

        let unfinished = self.unfinished();
        effects.extend(unfinished.iter().cloned().map(SessionEffect::Stop));
        if !unfinished.is_empty() {
            self.say(ToMaster::Returned(unfinished), effects);
        }
        self.link = LinkState::Left;
        effects.push(SessionEffect::Leave);
    }
}

/// When a master that was last heard at `heard_us` counts as gone.
fn silent_at_us(heard_us: u64) -> u64 {
    heard_us + limits::SILENT_MS_MAX * 1_000
}

#[cfg(test)]
mod tests;
