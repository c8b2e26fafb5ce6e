//! Which process a runner's name belongs to. A second process under a connected runner's name is
//! not let in: it would take over what the first one holds, and the two would push each other out
//! for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use taskmaster_protocol::{Refusal, RefusalCode, limits};

/// Who has a name.
#[derive(Debug)]
struct NameOwner {
    /// The session's own name, which stands for the process; `None`: its `hello` had none.
    process: Option<String>,
    /// Counts the connections that have taken the name.
    connection: u64,
}

/// Names of connected runners. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct RunnerNames(Arc<Mutex<HashMap<String, NameOwner>>>);

/// A name that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct TakenName {
    names: RunnerNames,
    name: String,
    connection: u64,
}

impl RunnerNames {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, NameOwner>> {
        // Nothing between lock and unlock can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `name` for a process. A process that reconnects takes its own name over. Whoever names
    /// no process cannot show that a name is its own, and gets only one that nobody has.
    pub(super) fn take(&self, name: &str, process: Option<&str>) -> Result<TakenName, Refusal> {
        let mut names = self.lock();
        let owner = names.get(name);
        let is_same = |owner: &NameOwner| process.is_some() && owner.process.as_deref() == process;
        if owner.is_some_and(|owner| !is_same(owner)) {
            let seconds = limits::SILENT_MS_MAX.div_ceil(1_000);
            let text = format!(
                "a runner named `{name}` is connected already, from another process: give this one \
                 another --name; if that one has died, this is noticed within {seconds} s"
            );
            return Err(Refusal::new(RefusalCode::Unavailable, text).at("runner.name"));
        }
        let connection = owner.map_or(0, |owner| owner.connection + 1);
        names.insert(
            name.to_owned(),
            NameOwner {
                process: process.map(str::to_owned),
                connection,
            },
        );
        Ok(TakenName {
            names: self.clone(),
            name: name.to_owned(),
            connection,
        })
    }
}

impl Drop for TakenName {
    fn drop(&mut self) {
        let mut names = self.names.lock();
        // A newer connection of the process may have the name now.
        let owner = names.get(&self.name);
        if owner.is_some_and(|owner| owner.connection == self.connection) {
            names.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_one_process_while_it_is_connected() {
        let names = RunnerNames::default();
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
    }

    #[test]
    fn who_names_no_process_takes_no_name_that_somebody_has() {
        let names = RunnerNames::default();
        let named = names.take("r", Some("a")).unwrap();
        names.take("r", None).unwrap_err();
        drop(named);
        let nameless = names.take("r", None).unwrap();
        names.take("r", None).unwrap_err();
        names.take("r", Some("a")).unwrap_err();
        drop(nameless);
        names.take("r", Some("a")).unwrap();
    }
}
