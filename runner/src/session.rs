//! What a runner holds and owes, as a pure state machine: no IO, no clock, no randomness, no async.
//!
//! ```text
//!            Start                      Ended                   task:ack
//! waiting ──────────► handed out ──────────────► finished ─────────────► forgotten
//!    │                    │                          ▲
//!    │ recall: returned   │ recall, while not begun: returned
//!    └─ cancel ───────────┴─ cancel: stopped, finished as `cancelled`
//! ```
//!
//! One door in, [`Session::handle`]; effects come out in order. Everything the link must not forget
//! lives here: a result stays until the master acknowledged it, whatever happens to the connection.

use std::collections::{BTreeMap, VecDeque};
use taskmaster_protocol::message::{Assignment, Attempt, CreditRequest, Done, Failed};
use taskmaster_protocol::{ErrorKind, TaskError, TaskStats, ToMaster, limits};

/// The first pause before a lost master is dialled again, µs. A restart of a master takes a few of
/// these.
const BACKOFF_FIRST_US: u64 = 50_000;

/// The longest such pause, µs: a runner must be back within the 2 s that a restarted master waits
/// for it.
const BACKOFF_MAX_US: u64 = 1_000_000;

/// Attempts held beyond one for each slot: about 20 ms of the smallest tasks; the master sends
/// fewer where they last longer.
const CREDITS_BEYOND_SLOTS: u32 = 2_048;

/// What does not change while a runner lives.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Room for this many one-slot tasks at a time.
    pub slots: u32,
    /// Slots' worth of attempts handed out beyond `slots`, for the executor to queue so that no
    /// slot waits for this state machine. 0: [`Effect::Start`] means that a slot is free and guest
    /// code starts now.
    pub ahead: u32,
}

/// How an attempt ended, as it will be told.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// With a result.
    Done(Done),
    /// Without one.
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
    pub fn failed(Attempt { id, attempt }: Attempt, error: TaskError) -> Ending {
        let (started_us, stats, log) = (None, TaskStats::default(), Default::default());
        Ending::Failed(Failed {
            id,
            attempt,
            error,
            started_us,
            stats,
            log,
        })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The master said `welcome`.
    Connected,
    /// The connection is gone, or a dial failed. `jitter` is chance, 0..=1000 ‰ of the pause.
    Disconnected {
        /// Chance, so that a thousand runners do not come back in the same millisecond.
        jitter: u32,
    },
    /// Something, be it a pong, came from the master.
    Heard,
    /// `task:send`.
    Send(Vec<Assignment>),
    /// `task:recall`.
    Recall(Vec<Attempt>),
    /// `task:cancel`.
    Cancel(Vec<Attempt>),
    /// `task:ack`.
    Ack(Vec<Attempt>),
    /// Take no more and leave when done; running attempts are given back after `grace_us`, if there
    /// is such a limit.
    Drain {
        /// How long running attempts may go on.
        grace_us: Option<u64>,
    },
    /// Attempts ended.
    Ended(Vec<Ending>),
    /// The answer to [`Effect::TakeBack`]: those that had not begun, and now never will.
    TakenBack(Vec<Attempt>),
    /// Time has passed; see [`Session::next_deadline`].
    Tick,
}

/// What is to be done.
#[allow(
    clippy::large_enum_variant,
    reason = "an effect lives until it is carried out, and most are messages"
)]
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Dial a master; answer with `Connected` or `Disconnected`.
    Dial,
    /// Close the connection; answer with `Disconnected`.
    Hangup,
    /// Send a ping.
    Ping,
    /// Tell the master.
    Say(ToMaster),
    /// Prepare and run; first come, first served. Answer with `Ended`.
    Start(Box<Assignment>),
    /// Take these out of the executor's queue, where they have not begun; answer with `TakenBack`.
    TakeBack(Vec<Attempt>),
    /// Stop this attempt; answer with `Ended`.
    Stop(Attempt),
    /// Everything is delivered: close the connection and end.
    Leave,
}

#[derive(Debug)]
enum State {
    Waiting(Box<Assignment>),
    /// With the executor, which prepares, queues or runs it. Holds the slots that it takes.
    Handed(u32),
    Finished(Box<Ending>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Dial at this time.
    Down {
        dial_at_us: u64,
    },
    Dialling,
    Up {
        heard_us: u64,
        ping_at_us: u64,
    },
    Left,
}

/// The state machine.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    held: BTreeMap<Attempt, State>,
    /// Keys of `Waiting`, in the order of their coming; may name some that are gone.
    queue: VecDeque<Attempt>,
    handed_slots: u32,
    line: Line,
    backoff_us: u64,
    draining: bool,
    give_up_us: Option<u64>,
    now_us: u64,
}

impl Session {
    /// A runner that has nothing and is not connected. The first `Tick` dials.
    pub fn new(settings: Settings) -> Session {
        Session {
            settings: Settings {
                slots: settings.slots.clamp(1, limits::SLOTS_MAX),
                ..settings
            },
            held: BTreeMap::new(),
            queue: VecDeque::new(),
            handed_slots: 0,
            line: Line::Down { dial_at_us: 0 },
            backoff_us: BACKOFF_FIRST_US,
            draining: false,
            give_up_us: None,
            now_us: 0,
        }
    }

    /// How many attempts it holds, finished ones included.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether `attempt` is held, in whatever state.
    pub fn holds(&self, attempt: &Attempt) -> bool {
        self.held.contains_key(attempt)
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        matches!(self.line, Line::Up { .. })
    }

    /// When `Tick` is wanted at the latest, µs; it may come earlier.
    pub fn next_deadline(&self) -> Option<u64> {
        let line = match self.line {
            Line::Down { dial_at_us } => Some(dial_at_us),
            Line::Up {
                heard_us,
                ping_at_us,
            } => Some(ping_at_us.min(heard_us + limits::SILENT_MS_MAX * 1_000)),
            Line::Dialling | Line::Left => None,
        };
        match self.line {
            Line::Left => None,
            _ => line.into_iter().chain(self.give_up_us).min(),
        }
    }

    /// Takes in what happened at `now_us` (monotonic; a step back is ignored) and appends what is
    /// to be done.
    pub fn handle(&mut self, event: Event, now_us: u64, effects: &mut Vec<Effect>) {
        self.now_us = self.now_us.max(now_us);
        if self.line == Line::Left {
            return;
        }
        match event {
            Event::Connected => self.connected(effects),
            Event::Disconnected { jitter } => self.disconnected(jitter),
            Event::Heard => self.heard(),
            Event::Send(sends) => self.send(sends, effects),
            Event::Recall(attempts) => self.recall(attempts, effects),
            Event::Cancel(attempts) => self.cancel(attempts, effects),
            Event::Ack(attempts) => self.ack(attempts),
            Event::Drain { grace_us } => self.drain(grace_us, effects),
            Event::Ended(endings) => self.ended(endings, effects),
            Event::TakenBack(attempts) => self.taken_back(attempts, effects),
            Event::Tick => {}
        }
        self.keep_line(effects);
        self.hand_out(effects);
        self.leave_if_done(effects);
    }

    fn say(&self, message: ToMaster, effects: &mut Vec<Effect>) {
        // What is said to nobody is not lost: a new connection begins with everything that is held.
        if self.is_up() {
            effects.push(Effect::Say(message));
        }
    }

    fn request(&self, held: Option<Vec<Attempt>>) -> ToMaster {
        let credits = (self.settings.slots + CREDITS_BEYOND_SLOTS).min(limits::CREDITS_MAX);
        ToMaster::Request(CreditRequest {
            credits: if self.draining { 0 } else { credits },
            held,
            draining: self.draining,
        })
    }

    fn connected(&mut self, effects: &mut Vec<Effect>) {
        self.line = Line::Up {
            heard_us: self.now_us,
            ping_at_us: self.now_us + limits::PING_MS * 1_000,
        };
        self.backoff_us = BACKOFF_FIRST_US;
        self.say(
            self.request(Some(self.held.keys().cloned().collect())),
            effects,
        );
        let finished = self.held.values().filter_map(|state| match state {
            State::Finished(ending) => Some((**ending).clone()),
            State::Waiting(_) | State::Handed(_) => None,
        });
        self.tell(finished.collect(), effects);
    }

    fn disconnected(&mut self, jitter: u32) {
        let pause =
            self.backoff_us / 2 + self.backoff_us / 2 * u64::from(jitter.min(1_000)) / 1_000;
        self.line = Line::Down {
            dial_at_us: self.now_us + pause,
        };
        self.backoff_us = (self.backoff_us * 2).min(BACKOFF_MAX_US);
    }

    fn heard(&mut self) {
        if let Line::Up { heard_us, .. } = &mut self.line {
            *heard_us = self.now_us;
        }
    }

    fn send(&mut self, sends: Vec<Assignment>, effects: &mut Vec<Effect>) {
        let mut returned = Vec::new();
        for mut send in sends {
            let attempt = Attempt {
                id: send.id.clone(),
                attempt: send.attempt,
            };
            if self.held.contains_key(&attempt) {
                continue;
            }
            // Crossed our word on the wire that we take no more.
            if self.draining {
                returned.push(attempt);
                continue;
            }
            send.slots = send.slots.clamp(1, self.settings.slots);
            self.queue.push_back(attempt.clone());
            self.held.insert(attempt, State::Waiting(Box::new(send)));
        }
        if !returned.is_empty() {
            self.say(ToMaster::Returned(returned), effects);
        }
    }

    fn recall(&mut self, attempts: Vec<Attempt>, effects: &mut Vec<Effect>) {
        let (mut returned, mut handed) = (Vec::new(), Vec::new());
        for attempt in attempts {
            match self.held.get(&attempt) {
                Some(State::Waiting(_)) => {
                    self.held.remove(&attempt);
                    returned.push(attempt);
                }
                Some(State::Handed(_)) => handed.push(attempt),
                Some(State::Finished(_)) | None => {}
            }
        }
        if handed.is_empty() {
            self.say(ToMaster::Returned(returned), effects);
            return;
        }
        if !returned.is_empty() {
            self.say(ToMaster::Returned(returned), effects);
        }
        effects.push(Effect::TakeBack(handed));
    }

    fn taken_back(&mut self, attempts: Vec<Attempt>, effects: &mut Vec<Effect>) {
        for attempt in &attempts {
            if let Some(State::Handed(slots)) = self.held.get(attempt) {
                self.handed_slots = self.handed_slots.saturating_sub(*slots);
                self.held.remove(attempt);
            }
        }
        self.say(ToMaster::Returned(attempts), effects);
    }

    fn cancel(&mut self, attempts: Vec<Attempt>, effects: &mut Vec<Effect>) {
        let mut dropped = Vec::new();
        for attempt in attempts {
            match self.held.get(&attempt) {
                Some(State::Waiting(_)) => {
                    let ending = Ending::cancelled(attempt.clone());
                    self.held
                        .insert(attempt, State::Finished(Box::new(ending.clone())));
                    dropped.push(ending);
                }
                Some(State::Handed(_)) => effects.push(Effect::Stop(attempt)),
                Some(State::Finished(_)) => {
                    self.held.remove(&attempt);
                }
                None => {}
            }
        }
        self.tell(dropped, effects);
    }

    fn ack(&mut self, attempts: Vec<Attempt>) {
        for attempt in attempts {
            if matches!(self.held.get(&attempt), Some(State::Finished(_))) {
                self.held.remove(&attempt);
            }
        }
    }

    fn ended(&mut self, endings: Vec<Ending>, effects: &mut Vec<Effect>) {
        let mut news = Vec::with_capacity(endings.len());
        for ending in endings {
            let attempt = ending.attempt();
            let Some(state @ State::Handed(_)) = self.held.get_mut(&attempt) else {
                continue;
            };
            if let State::Handed(slots) = *state {
                self.handed_slots = self.handed_slots.saturating_sub(slots);
            }
            *state = State::Finished(Box::new(ending.clone()));
            news.push(ending);
        }
        self.tell(news, effects);
    }

    /// One message of each kind for everything that ended.
    fn tell(&self, endings: Vec<Ending>, effects: &mut Vec<Effect>) {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
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

    fn drain(&mut self, grace_us: Option<u64>, effects: &mut Vec<Effect>) {
        if let Some(grace) = grace_us {
            let limit = self.now_us.saturating_add(grace);
            self.give_up_us = Some(self.give_up_us.map_or(limit, |earlier| earlier.min(limit)));
        }
        if !self.draining {
            self.draining = true;
            self.say(self.request(None), effects);
            // Others can run at once what has not begun here.
            let open = self
                .held
                .iter()
                .filter(|(_, state)| !matches!(state, State::Finished(_)));
            let open: Vec<Attempt> = open.map(|(attempt, _)| attempt.clone()).collect();
            if !open.is_empty() {
                self.recall(open, effects);
            }
        }
    }

    fn keep_line(&mut self, effects: &mut Vec<Effect>) {
        match &mut self.line {
            Line::Down { dial_at_us } if *dial_at_us <= self.now_us => {
                self.line = Line::Dialling;
                effects.push(Effect::Dial);
            }
            Line::Up { heard_us, .. }
                if *heard_us + limits::SILENT_MS_MAX * 1_000 <= self.now_us =>
            {
                // Until `Disconnected` comes, nothing more is said into the dead line.
                self.line = Line::Dialling;
                effects.push(Effect::Hangup);
            }
            Line::Up { ping_at_us, .. } if *ping_at_us <= self.now_us => {
                *ping_at_us = self.now_us + limits::PING_MS * 1_000;
                effects.push(Effect::Ping);
            }
            _ => {}
        }
    }

    /// First come, first served: an attempt that needs more slots than are free holds up those
    /// behind it, so that it is not passed by for ever.
    fn hand_out(&mut self, effects: &mut Vec<Effect>) {
        let room = self.settings.slots.saturating_add(self.settings.ahead);
        while let Some(attempt) = self.queue.front() {
            let Some(state @ State::Waiting(_)) = self.held.get_mut(attempt) else {
                self.queue.pop_front();
                continue;
            };
            let State::Waiting(send) = &*state else {
                return;
            };
            let slots = send.slots;
            if self.handed_slots + slots > room {
                return;
            }
            self.handed_slots += slots;
            if let State::Waiting(send) = std::mem::replace(state, State::Handed(slots)) {
                effects.push(Effect::Start(send));
            }
            self.queue.pop_front();
        }
    }

    fn leave_if_done(&mut self, effects: &mut Vec<Effect>) {
        if !self.draining {
            return;
        }
        if self.held.is_empty() {
            self.line = Line::Left;
            effects.push(Effect::Leave);
        } else if self.give_up_us.is_some_and(|limit| limit <= self.now_us) {
            let open = self
                .held
                .iter()
                .filter(|(_, state)| !matches!(state, State::Finished(_)));
            let open: Vec<Attempt> = open.map(|(attempt, _)| attempt.clone()).collect();
            effects.extend(open.iter().cloned().map(Effect::Stop));
            if !open.is_empty() {
                self.say(ToMaster::Returned(open), effects);
            }
            self.line = Line::Left;
            effects.push(Effect::Leave);
        }
    }
}

#[cfg(test)]
mod tests;
