//! What runners have said of modules that they cannot compile or execute.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmaster_protocol::Hash;

/// Versions of which failures are remembered, far more than are in use.
const VERSIONS_MAX: usize = 4_096;

/// The failures of runners, by version and by the name of the runner.
#[derive(Debug, Default)]
pub(super) struct FailedCompilations(BTreeMap<Hash, BTreeMap<Arc<str>, FailedCompilation>>);

/// Why one runner cannot compile or execute a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailedCompilation {
    /// What the runner said, as a sentence.
    pub(super) error: String,
    /// Whether the runner is at fault, and not the module.
    pub(super) runner_fault: bool,
}

impl FailedCompilations {
    /// A runner has failed. `known` gives the versions that are still of interest.
    pub(super) fn failed(
        &mut self,
        version: Hash,
        runner: Arc<str>,
        failure: FailedCompilation,
        known: impl FnOnce() -> BTreeSet<Hash>,
    ) {
        if self.0.len() >= VERSIONS_MAX {
            let known = known();
            self.0.retain(|version, _| known.contains(version));
        }
        self.0.entry(version).or_default().insert(runner, failure);
    }

    /// A runner has compiled the version after all.
    pub(super) fn compiled(&mut self, version: &Hash, runner: &str) {
        if let Some(runners) = self.0.get_mut(version) {
            runners.remove(runner);
        }
    }

    /// Why none of the connected `runners` can execute the version, as a sentence; `None` where one
    /// of them has not said so.
    pub(super) fn why_none_can(
        &self,
        version: &Hash,
        runners: &BTreeSet<Arc<str>>,
    ) -> Option<String> {
        let failures = self.0.get(version)?;
        let mut said = Vec::new();
        for runner in runners {
            said.push((runner, failures.get(runner)?));
        }
        // A fault of the module is the better answer: it holds for every runner that will come.
        let of_module = said.iter().find(|(_, failure)| !failure.runner_fault);
        let (runner, failure) = of_module.or(said.first())?;
        Some(match failure.runner_fault {
            false => format!("runner `{runner}` cannot compile it: {}", failure.error),
            true => format!(
                "runner `{runner}` cannot execute any module: {}",
                failure.error
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_cannot_be_run_when_every_connected_runner_has_said_so() {
        let version = Hash([1; 32]);
        let names: BTreeSet<Arc<str>> = ["a".into(), "b".into()].into();
        let first: BTreeSet<Arc<str>> = ["a".into()].into();
        let mut failures = FailedCompilations::default();
        let mut fails = |runner: &str, error: &str, runner_fault| {
            let failure = FailedCompilation {
                error: error.into(),
                runner_fault,
            };
            failures.failed(version, runner.into(), failure, BTreeSet::new);
            failures.why_none_can(&version, &names)
        };
        assert_eq!(fails("a", "no code", true), None, "b may still do it");
        let both = fails("b", "too long", false);
        assert_eq!(
            both.as_deref(),
            Some("runner `b` cannot compile it: too long"),
            "the module's own fault is told first"
        );
        assert_eq!(
            failures.why_none_can(&version, &first).as_deref(),
            Some("runner `a` cannot execute any module: no code")
        );
        failures.compiled(&version, "a");
        assert_eq!(failures.why_none_can(&version, &names), None);
        assert_eq!(failures.why_none_can(&version, &BTreeSet::new()), None);
        assert_eq!(failures.why_none_can(&Hash([2; 32]), &names), None);
    }
}
