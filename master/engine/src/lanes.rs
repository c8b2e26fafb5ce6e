//! Inputs that wait for the engine, in two lanes. Large batches wait in the bulk lane, and all other
//! inputs pass them in the express lane. The inputs of one connection keep their order.

use crate::inbox::{AdmissionPermit, ConnectionId, Input};
use std::collections::{HashMap, VecDeque};
use taskmaster_protocol::ToMaster;
use taskmaster_protocol::message::Operation;

/// The two lanes in which inputs wait for the engine.
#[derive(Default)]
pub struct Lanes {
    express: VecDeque<Input>,
    bulk: VecDeque<Input>,
    /// Inputs of each connection in the bulk lane; a connection without any has no entry. While a
    /// connection has inputs there, its next inputs wait there, too.
    in_bulk: HashMap<ConnectionId, usize>,
}

impl Lanes {
    /// Puts an input at the end of its lane.
    pub fn put(&mut self, input: Input) {
        let is_large = matches!(
            &input,
            Input::Add {
                permit: Some(AdmissionPermit::Bulk(_)),
                ..
            }
        );
        match connection_of(&input) {
            Some(connection) if is_large || self.in_bulk.contains_key(&connection) => {
                *self.in_bulk.entry(connection).or_default() += 1;
                self.bulk.push_back(input);
            }
            Some(_) | None => self.express.push_back(input),
        }
    }

    /// Takes the next input of the express lane.
    pub fn express(&mut self) -> Option<Input> {
        self.express.pop_front()
    }

    /// Takes the next input of the bulk lane.
    pub fn bulk(&mut self) -> Option<Input> {
        let input = self.bulk.pop_front()?;
        if let Some(connection) = connection_of(&input)
            && let Some(count) = self.in_bulk.get_mut(&connection)
        {
            *count -= 1;
            if *count == 0 {
                self.in_bulk.remove(&connection);
            }
        }
        Some(input)
    }

    /// Whether no input waits in either lane.
    pub fn is_empty(&self) -> bool {
        self.express.is_empty() && self.bulk.is_empty()
    }
}

/// Tasks, reports or attempts in an input, at least 1. The time that the engine takes for the input grows
/// with this number.
pub fn weight(input: &Input) -> usize {
    match input {
        Input::Add { tasks, .. } => tasks.len(),
        Input::Reports { reports, .. } => reports.len(),
        Input::Message { message, .. } => entries(message).max(1),
        Input::Connected { .. }
        | Input::Disconnected { .. }
        | Input::Heard { .. }
        | Input::Permit(_)
        | Input::Module { .. }
        | Input::Approved(_)
        | Input::Ask { .. }
        | Input::Folded { .. }
        | Input::Prune { .. }
        | Input::DiskSpace(_)
        | Input::Stop { .. }
        | Input::Shutdown => 1,
    }
}

/// Tasks or attempts that a message names.
fn entries(message: &ToMaster) -> usize {
    match message {
        ToMaster::Failed(reports) => reports.len(),
        ToMaster::Returned(attempts) => attempts.len(),
        ToMaster::Started(started) => started.len(),
        ToMaster::Progress(live) | ToMaster::Log(live) => live.len(),
        ToMaster::Partial(partials) => partials.len(),
        ToMaster::Compiled(compiled) => compiled.len(),
        ToMaster::Compiling(compiling) => compiling.len(),
        ToMaster::Request(request) => request.held.as_ref().map_or(0, Vec::len),
        ToMaster::Operate(operate) => match &operate.operation {
            Operation::DropAnswers { keys } => keys.len(),
            _ => 1,
        },
        ToMaster::Cancel(cancel) => cancel.ids.len(),
        ToMaster::Retry(retry) => retry.ids.len(),
        ToMaster::Hello(_)
        | ToMaster::Add(_)
        | ToMaster::Done(_)
        | ToMaster::Release(_)
        | ToMaster::Follow(_)
        | ToMaster::Set(_)
        | ToMaster::Watch(_)
        | ToMaster::Ask(_) => 1,
    }
}

/// The connection from which an input came, if the input must keep its place among the other inputs
/// of that connection.
pub(crate) fn connection_of(input: &Input) -> Option<ConnectionId> {
    match input {
        Input::Connected { connection, .. }
        | Input::Disconnected { connection }
        | Input::Message { connection, .. }
        | Input::Add { connection, .. }
        | Input::Reports { connection, .. } => Some(*connection),
        // A sign of life says the same before and after the other inputs of its connection.
        Input::Heard { .. }
        | Input::Permit(_)
        | Input::Module { .. }
        | Input::Approved(_)
        | Input::Ask { .. }
        | Input::Folded { .. }
        | Input::Prune { .. }
        | Input::DiskSpace(_)
        | Input::Stop { .. }
        | Input::Shutdown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    fn add(connection: u64, batch: u64, is_large: bool) -> Input {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let permit = if is_large {
            AdmissionPermit::Bulk(permit)
        } else {
            AdmissionPermit::Express(permit)
        };
        Input::Add {
            connection: ConnectionId(connection),
            batch,
            job: None,
            hold: false,
            answers: false,
            tasks: Vec::new(),
            permit: Some(permit),
        }
    }

    fn batch(input: Option<Input>) -> u64 {
        let Some(Input::Add { batch, .. }) = input else {
            panic!("{input:?}")
        };
        batch
    }

    #[test]
    fn small_batches_pass_large_ones_but_no_earlier_input_of_their_own_connection() {
        let mut lanes = Lanes::default();
        lanes.put(add(1, 10, true));
        lanes.put(add(2, 20, true));
        lanes.put(add(3, 30, false));
        lanes.put(add(1, 11, false));
        lanes.put(Input::Disconnected {
            connection: ConnectionId(2),
        });
        lanes.put(add(3, 31, false));
        assert_eq!(batch(lanes.express()), 30);
        assert_eq!(batch(lanes.express()), 31);
        assert!(lanes.express().is_none());
        assert_eq!(batch(lanes.bulk()), 10);
        assert_eq!(batch(lanes.bulk()), 20);
        assert_eq!(batch(lanes.bulk()), 11);
        // Connection 1 has no more inputs in the bulk lane.
        lanes.put(add(1, 12, false));
        assert_eq!(batch(lanes.express()), 12);
        assert!(matches!(lanes.bulk(), Some(Input::Disconnected { .. })));
        assert!(lanes.is_empty());
    }
}
