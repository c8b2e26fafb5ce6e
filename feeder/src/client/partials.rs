//! Partial results that a client was told: each is shown once, also across reconnects.

use std::collections::HashMap;
use taskmaster_protocol::TaskId;
use taskmaster_protocol::message::PartialResult;

/// The last partial result of each open task.
#[derive(Debug, Default)]
pub struct SeenPartials(HashMap<TaskId, LastSeen>);

#[derive(Debug)]
struct LastSeen {
    attempt: u32,
    n: u64,
}

impl SeenPartials {
    /// The partial result as it is to be shown: `restart` and `missed` are counted from the last one
    /// that was. `None`: it was shown before, as the master tells the newest one again after a
    /// reconnect.
    pub fn take(&mut self, partial: PartialResult) -> Option<PartialResult> {
        let now = LastSeen {
            attempt: partial.attempt,
            n: partial.n,
        };
        let Some(last) = self.0.get_mut(&partial.id) else {
            self.0.insert(partial.id.clone(), now);
            return Some(PartialResult {
                restart: false,
                ..partial
            });
        };
        let is_same = last.attempt == now.attempt;
        if is_same && now.n <= last.n {
            return None;
        }
        let missed = if is_same {
            now.n - last.n - 1
        } else {
            partial.missed
        };
        *last = now;
        Some(PartialResult {
            restart: !is_same,
            missed,
            ..partial
        })
    }

    /// The task has ended.
    pub fn forget(&mut self, id: &str) {
        // Most tasks give none.
        if !self.0.is_empty() {
            self.0.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::{Json, Wall};

    #[test]
    fn each_is_shown_once_and_what_was_missed_meanwhile_is_counted() {
        let mut seen = SeenPartials::default();
        let mut shown = |attempt, n, restart, missed| {
            let told = seen.take(PartialResult {
                id: TaskId::new("t").unwrap(),
                attempt,
                n,
                restart,
                missed,
                time: Wall(0),
                value: Json::null(),
            });
            told.map(|it| (it.restart, it.missed))
        };
        assert_eq!(shown(2, 3, true, 0), Some((false, 0)));
        assert_eq!(shown(2, 4, false, 0), Some((false, 0)));
        assert_eq!(shown(2, 4, true, 0), None, "again after a reconnect");
        assert_eq!(shown(2, 7, true, 0), Some((false, 2)));
        assert_eq!(shown(3, 2, true, 1), Some((true, 1)));
        assert_eq!(shown(3, 3, false, 0), Some((false, 0)));
    }
}
