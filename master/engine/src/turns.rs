//! The loop around the engine. It takes inputs in, ends turns, and hands the turns to the commit
//! writer.

use crate::committing::CommitLag;
use crate::engine::{Engine, Turn};
use crate::inbox::Input;
use crate::lanes::{self, Lanes};
use crate::steady::SteadyClock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// Tasks and reports taken in before a turn ends, about. A turn then takes a few milliseconds, which
/// is how long an urgent input waits.
const TURN_WEIGHT_MAX: usize = 512;

/// How long an engine without inputs and deadlines sleeps at most.
const IDLE: Duration = Duration::from_secs(3_600);

/// Runs the engine until an input tells it to shut down, or until nobody can send inputs any more.
pub fn run_engine(
    mut engine: Engine,
    inbox: &Receiver<Input>,
    turns: &SyncSender<Turn>,
    lag: &CommitLag,
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
            // A deadline that has passed means that the engine has more to do of a long job.
            let due = due.map_or(IDLE, |due| if due.is_zero() { lag.pace() } else { due });
            match inbox.recv_timeout(clock.waiting(due)) {
                Ok(first) => lanes.put(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => going = false,
            }
            clock.woke();
        }
        going &= take_in(&mut engine, &mut lanes, inbox, &mut clock);
        going &= end_turn(&mut engine, turns, lag, &mut clock);
    }
}

/// Takes inputs in until the turn is full. Large batches are taken while the express lane is empty,
/// and at least one in each turn. Returns false if the master shuts down.
fn take_in(
    engine: &mut Engine,
    lanes: &mut Lanes,
    inbox: &Receiver<Input>,
    clock: &mut SteadyClock,
) -> bool {
    let mut weight = 0;
    let mut has_bulk = false;
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

/// Ends the turn. Messages that need no commit leave at once; a turn without anything else does not
/// go to the writer. Returns false if the writer has ended.
fn end_turn(
    engine: &mut Engine,
    turns: &SyncSender<Turn>,
    lag: &CommitLag,
    clock: &mut SteadyClock,
) -> bool {
    let mut turn = engine.end_turn(clock.now());
    for (outbox, message) in turn.now.drain(..) {
        // The connection may have been closed.
        let _ = outbox.send(message);
    }
    if turn.records.is_empty() && turn.after.is_empty() {
        return true;
    }
    lag.turns.fetch_add(1, Relaxed);
    turns.send(turn).is_ok()
}
