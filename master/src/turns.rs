//! The threads round the engine: one drains the inbox and ends turns, one makes them durable and releases what waited
//! for that, one folds what is durable into the view. Commit, then speak.

use crate::config::Durability;
use crate::engine::{Engine, Release, Turn};
use crate::events::EventFeed;
use crate::inbox::Input;
use crate::journal::{AppendError, Journal};
use crate::record::{self, Entry};
use crate::steady::SteadyClock;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::Duration;
use taskmaster_protocol::ToMaster;

/// Tasks and reports taken in before a turn ends, so that no turn is long (about 10 ms).
const TURN_WEIGHT_MAX: usize = 4_096;

/// Records in one commit: above that a commit takes longer than its sync, and everybody waits for it.
const COMMIT_RECORDS_MAX: usize = 8_192;

/// Turns that may wait for the disk. Beyond that the engine waits too, and with it, by their flow control, feeders.
pub const TURNS_WAITING_MAX: usize = 64;

/// Turns inputs into turns until it is told to shut down or everybody who could tell it anything is gone.
pub fn run_engine(mut engine: Engine, inbox: &Receiver<Input>, turns: &SyncSender<Turn>, mut clock: SteadyClock) {
    let mut going = true;
    while going {
        let now = clock.now();
        let due = engine.next_deadline(now).map(|at| Duration::from_micros(at.saturating_sub(now.mono_us)));
        let first = match due {
            Some(due) => inbox.recv_timeout(clock.waiting(due)),
            None => inbox.recv_timeout(clock.waiting(Duration::from_secs(3_600))),
        };
        clock.woke();
        going = take_in(&mut engine, first, inbox, &mut clock);
        going &= end_turn(&mut engine, turns, &mut clock);
    }
}

/// Takes in what has come, up to a turn's weight. False: it is time to end.
fn take_in(
    engine: &mut Engine,
    first: Result<Input, RecvTimeoutError>,
    inbox: &Receiver<Input>,
    clock: &mut SteadyClock,
) -> bool {
    let mut input = match first {
        Ok(input) => input,
        Err(RecvTimeoutError::Timeout) => return true,
        Err(RecvTimeoutError::Disconnected) => return false,
    };
    let mut weight = 0;
    loop {
        if matches!(input, Input::Shutdown) {
            return false;
        }
        weight += weight_of(&input);
        engine.take(input, clock.now());
        match inbox.try_recv() {
            Ok(next) if weight < TURN_WEIGHT_MAX => input = next,
            // What was received beyond the weight begins the next turn.
            Ok(next) => {
                if matches!(next, Input::Shutdown) {
                    return false;
                }
                engine.take(next, clock.now());
                return true;
            }
            Err(_) => return true,
        }
    }
}

fn weight_of(input: &Input) -> usize {
    match input {
        Input::Add { tasks, .. } => tasks.len(),
        Input::Message { message: ToMaster::Done(reports), .. } => reports.len(),
        Input::Message { message: ToMaster::Failed(reports), .. } => reports.len(),
        _ => 1,
    }
}

/// Ends the turn; what needs no commit leaves at once. False: the writer is gone.
fn end_turn(engine: &mut Engine, turns: &SyncSender<Turn>, clock: &mut SteadyClock) -> bool {
    let mut turn = engine.end_turn(clock.now());
    for (outbox, message) in turn.now.drain(..) {
        // Whoever is gone does not hear it.
        let _ = outbox.send(message);
    }
    (turn.records.is_empty() && turn.after.is_empty()) || turns.send(turn).is_ok()
}

/// Makes turns durable, in order, several at a time, and releases what waited for them. Ends when the engine does, or
/// with the error after which nothing is known of the disk.
pub fn run_writer(
    turns: &Receiver<Turn>,
    journal: &mut dyn Journal,
    durability: Durability,
    events: &EventFeed,
    folds: &Sender<Arc<Entry>>,
) -> Result<(), AppendError> {
    let mut unsynced = false;
    loop {
        let first = match durability {
            Durability::Interval(every) if unsynced => match turns.recv_timeout(every) {
                Err(RecvTimeoutError::Timeout) => {
                    journal.sync()?;
                    unsynced = false;
                    continue;
                }
                received => received.ok(),
            },
            _ => turns.recv().ok(),
        };
        let Some(first) = first else { return journal.sync() };
        let mut together = vec![first];
        let mut records = together[0].records.len();
        while records < COMMIT_RECORDS_MAX {
            let Ok(turn) = turns.try_recv() else { break };
            records += turn.records.len();
            together.push(turn);
        }
        if records > 0 {
            commit(&mut together, journal, durability, events, folds)?;
            unsynced = true;
        }
        release(together);
    }
}

/// Makes turns durable together. Also a master's first turn, which raises the epoch, before anything can be sent in its
/// name.
pub fn commit(
    turns: &mut [Turn],
    journal: &mut dyn Journal,
    durability: Durability,
    events: &EventFeed,
    folds: &Sender<Arc<Entry>>,
) -> Result<(), AppendError> {
    let (first_seq, time) = (turns[0].first_seq, turns[0].time);
    let records = turns.iter_mut().flat_map(|turn| std::mem::take(&mut turn.records)).collect();
    let entry = Arc::new(Entry { first_seq, time, records });
    journal.append(journal.end() + 1, &record::encode(entry.as_ref()))?;
    if durability == Durability::Sync {
        journal.sync()?;
    }
    events.publish(&entry);
    // The fold ends after this thread.
    let _ = folds.send(entry);
    Ok(())
}

/// Says what waited. Consecutive acknowledgements and answers keep their order for each connection.
pub fn release(turns: Vec<Turn>) {
    for release in turns.into_iter().flat_map(|turn| turn.after) {
        match release {
            Release::Say(outbox, message) => drop(outbox.send(message)),
            Release::Reply(reply, answer) => drop(reply.send(answer)),
        }
    }
}
