//! What has come and waits for the engine, in two lanes: a crowd's large batches, and everything
//! else, which goes past them. What one client says keeps its order.

use crate::inbox::{Input, Pass, SessionNo};
use std::collections::{HashMap, VecDeque};
use taskmaster_protocol::ToMaster;

/// The lanes.
#[derive(Default)]
pub struct Lanes {
    express: VecDeque<Input>,
    bulk: VecDeque<Input>,
    /// Inputs of each connection that wait in the lane of large batches. What it says next waits
    /// there, too.
    behind: HashMap<SessionNo, usize>,
}

impl Lanes {
    /// Takes an input in.
    pub fn put(&mut self, input: Input) {
        let is_large = matches!(
            &input,
            Input::Add {
                pass: Some(Pass::Bulk(_)),
                ..
            }
        );
        match session_of(&input) {
            Some(session) if is_large || self.behind.contains_key(&session) => {
                *self.behind.entry(session).or_default() += 1;
                self.bulk.push_back(input);
            }
            _ => self.express.push_back(input),
        }
    }

    /// The next input that goes past large batches.
    pub fn express(&mut self) -> Option<Input> {
        self.express.pop_front()
    }

    /// The next of the others.
    pub fn bulk(&mut self) -> Option<Input> {
        let input = self.bulk.pop_front()?;
        if let Some(session) = session_of(&input)
            && let Some(count) = self.behind.get_mut(&session)
        {
            *count -= 1;
            if *count == 0 {
                self.behind.remove(&session);
            }
        }
        Some(input)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.express.is_empty() && self.bulk.is_empty()
    }
}

/// Tasks or reports in an input: about how long the engine is busy with it.
pub fn weight(input: &Input) -> usize {
    match input {
        Input::Add { tasks, .. } => tasks.len(),
        Input::Message {
            message: ToMaster::Done(reports),
            ..
        } => reports.len(),
        Input::Message {
            message: ToMaster::Failed(reports),
            ..
        } => reports.len(),
        _ => 1,
    }
}

/// Whose words an input is, where it matters what else they said.
fn session_of(input: &Input) -> Option<SessionNo> {
    match input {
        Input::Connected { session, .. }
        | Input::Disconnected { session }
        | Input::Message { session, .. }
        | Input::Add { session, .. }
        | Input::Wishes { session, .. } => Some(*session),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    fn add(session: u64, batch: u64, is_large: bool) -> Input {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let pass = if is_large {
            Pass::Bulk(permit)
        } else {
            Pass::Express(permit)
        };
        Input::Add {
            session: SessionNo(session),
            batch,
            job: None,
            hold: false,
            tasks: Vec::new(),
            pass: Some(pass),
        }
    }

    fn batch(input: Option<Input>) -> u64 {
        let Some(Input::Add { batch, .. }) = input else {
            panic!("{input:?}")
        };
        batch
    }

    #[test]
    fn small_ones_go_past_a_crowd_but_not_past_what_their_own_session_said() {
        let mut lanes = Lanes::default();
        lanes.put(add(1, 10, true));
        lanes.put(add(2, 20, true));
        lanes.put(add(3, 30, false));
        lanes.put(add(1, 11, false));
        lanes.put(Input::Disconnected {
            session: SessionNo(2),
        });
        lanes.put(add(3, 31, false));
        assert_eq!(batch(lanes.express()), 30);
        assert_eq!(batch(lanes.express()), 31);
        assert!(lanes.express().is_none());
        assert_eq!(batch(lanes.bulk()), 10);
        assert_eq!(batch(lanes.bulk()), 20);
        assert_eq!(batch(lanes.bulk()), 11);
        // Session 1 has nothing more in that lane.
        lanes.put(add(1, 12, false));
        assert_eq!(batch(lanes.express()), 12);
        assert!(matches!(lanes.bulk(), Some(Input::Disconnected { .. })));
        assert!(lanes.is_empty());
    }
}
