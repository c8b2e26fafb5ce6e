//! The loop around the engine: it drains the inbox, ends turns, and hands them to the writer.

use crate::committing::Behind;
use crate::engine::{Engine, Turn};
use crate::inbox::Input;
use crate::lanes::{self, Lanes};
use crate::steady::SteadyClock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// Tasks and reports taken in before a turn ends, so that no turn is long (a few ms): what is
/// urgent waits for one.
const TURN_WEIGHT_MAX: usize = 512;

/// The longest sleep of an engine that has nothing to do.
const IDLE: Duration = Duration::from_secs(3_600);

/// Turns inputs into turns until it is told to shut down or everybody who could tell it anything is
/// gone.
pub fn run_engine(
    mut engine: Engine,
    inbox: &Receiver<Input>,
    turns: &SyncSender<Turn>,
    behind: &Behind,
    mut clock: SteadyClock,
) {
    let mut lanes = Lanes::default();
    let mut going = true;
    while going {
        if lanes.is_empty() {
            let now = clock.now();
            let due = engine
                .next_deadline(now)
                .map(|at| Duration::from_micros(at.saturating_sub(now.mono_us)));
            let due = due.map_or(IDLE, |due| if due.is_zero() { behind.pace() } else { due });
            match inbox.recv_timeout(clock.waiting(due)) {
                Ok(first) => lanes.put(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => going = false,
            }
            clock.woke();
        }
        going &= take_in(&mut engine, &mut lanes, inbox, &mut clock);
        going &= end_turn(&mut engine, turns, behind, &mut clock);
    }
}

/// Takes in what has come, up to a turn's weight: large batches when nothing else is there, but one
/// in each turn. False: it is time to end.
fn take_in(
    engine: &mut Engine,
    lanes: &mut Lanes,
    inbox: &Receiver<Input>,
    clock: &mut SteadyClock,
) -> bool {
    let (mut weight, mut has_bulk) = (0, false);
    while weight < TURN_WEIGHT_MAX {
        inbox.try_iter().for_each(|input| lanes.put(input));
        let input = match lanes.express() {
            Some(input) => input,
            None => match lanes.bulk() {
                Some(input) => {
                    has_bulk = true;
                    input
                }
                None => return true,
            },
        };
        if matches!(input, Input::Shutdown) {
            return false;
        }
        weight += lanes::weight(&input);
        engine.take(input, clock.now());
    }
    if !has_bulk && let Some(input) = lanes.bulk() {
        engine.take(input, clock.now());
    }
    true
}

/// Ends the turn; what needs no commit leaves at once. False: the writer is gone.
fn end_turn(
    engine: &mut Engine,
    turns: &SyncSender<Turn>,
    behind: &Behind,
    clock: &mut SteadyClock,
) -> bool {
    let mut turn = engine.end_turn(clock.now());
    for (outbox, message) in turn.now.drain(..) {
        // Whoever is gone does not hear it.
        let _ = outbox.send(message);
    }
    if turn.records.is_empty() && turn.after.is_empty() {
        return true;
    }
    behind.turns.fetch_add(1, Relaxed);
    turns.send(turn).is_ok()
}
