//! Which runner's name belongs to which process: a second process under a name that is connected is
//! not let in. It would take over what the first one holds, and the two would push each other out
//! for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use taskmaster_protocol::{Refusal, RefusalCode, limits};

/// The session of whoever has the name, and which of its connections has it.
type Owner = (Option<String>, u64);

/// Names of connected runners. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Arc<Mutex<HashMap<String, Owner>>>);

/// A name, taken for as long as this lives.
#[derive(Debug)]
pub(super) struct Taken {
    names: Names,
    name: String,
    number: u64,
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Owner>> {
        // Nothing between lock and unlock can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `name` for the process that calls itself `session`. One that reconnects takes its own
    /// name over; a runner that names no session is as it was in version 1: the newest connection
    /// has the name.
    pub(super) fn take(&self, name: &str, session: Option<&str>) -> Result<Taken, Refusal> {
        let mut names = self.lock();
        let last = names.get(name);
        if let (Some((Some(owner), _)), Some(session)) = (last, session)
            && owner != session
        {
            let s = limits::SILENT_MS_MAX.div_ceil(1_000);
            let text = format!(
                "a runner named `{name}` is connected already, from another process: give this one another --name; \
                 if that one has died, this is noticed within {s} s"
            );
            return Err(Refusal::new(RefusalCode::Unavailable, text).at("runner.name"));
        }
        let number = last.map_or(0, |(_, number)| number + 1);
        names.insert(name.to_owned(), (session.map(str::to_owned), number));
        Ok(Taken {
            names: self.clone(),
            name: name.to_owned(),
            number,
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut names = self.names.lock();
        // A newer connection of the same process has it now.
        if names
            .get(&self.name)
            .is_some_and(|(_, number)| *number == self.number)
        {
            names.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_one_process_while_it_is_connected() {
        let names = Names::default();
        let first = names.take("r", Some("a")).unwrap();
        let refusal = names.take("r", Some("b")).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Unavailable);
        assert!(
            refusal.message.contains("`r`") && refusal.message.contains("10 s"),
            "{refusal}"
        );
        let again = names.take("r", Some("a")).unwrap();
        drop(first);
        names.take("r", Some("b")).unwrap_err();
        drop(again);
        drop(names.take("r", Some("b")).unwrap());
        let old = names.take("r", None).unwrap();
        drop((names.take("r", Some("c")).unwrap(), old));
    }
}
