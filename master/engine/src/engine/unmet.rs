//! Documents of a batch that wait for others of the same batch, and why those that nothing lets in
//! are refused.

use crate::prepare::Prepared;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use taskmaster_protocol::{Refusal, RefusalCode, TaskId};

/// Ids of a cycle that are named: every member of it is told, and the answer must fit into a
/// message.
const CYCLE_TOLD: usize = 10;

/// Documents that wait for others of their batch. Each is tried again once, when the last of these
/// has come: a document may name thousands.
#[derive(Default)]
pub(super) struct Deferred {
    /// By its place in the batch; and for how many ids it waits.
    tasks: BTreeMap<usize, (Box<Prepared>, usize)>,
    /// Who waits for an id.
    by_missing: HashMap<TaskId, Vec<usize>>,
}

impl Deferred {
    /// Keeps a document until all of `missing` have come.
    pub(super) fn hold(&mut self, index: usize, task: Box<Prepared>, missing: BTreeSet<TaskId>) {
        self.tasks.insert(index, (task, missing.len()));
        for id in missing {
            self.by_missing.entry(id).or_default().push(index);
        }
    }

    /// A task of the batch was taken: the documents that waited for nothing else.
    pub(super) fn came(&mut self, id: &TaskId) -> Vec<(usize, Box<Prepared>)> {
        let mut free = Vec::new();
        for index in self.by_missing.remove(id).unwrap_or_default() {
            if let Some((_, open)) = self.tasks.get_mut(&index) {
                *open -= 1;
                if *open == 0 {
                    free.extend(self.tasks.remove(&index).map(|(task, _)| (index, task)));
                }
            }
        }
        free
    }

    /// Refusals for what is left: those on a cycle, or that wait for one, name it; the others what
    /// they miss.
    pub(super) fn refuse(self, known: impl Fn(&TaskId) -> bool) -> Vec<(usize, Refusal)> {
        let missing_of = |task: &Prepared| -> Vec<TaskId> {
            let wanted = task
                .document
                .dependencies
                .iter()
                .map(|dependency| &dependency.on)
                .chain(&task.references);
            wanted.filter(|id| !known(id)).cloned().collect()
        };
        let missing: BTreeMap<&TaskId, Vec<TaskId>> = self
            .tasks
            .values()
            .map(|(task, _)| (&task.id, missing_of(task)))
            .collect();
        let cycles = cycles(&missing);
        let refusal = |task: &Prepared| match cycles.get(&task.id) {
            Some(cycle) => cycle.clone(),
            None => unknown_dependency(missing.get(&task.id).cloned().unwrap_or_default()),
        };
        self.tasks
            .iter()
            .map(|(index, (task, _))| (*index, refusal(task)))
            .collect()
    }
}

pub(super) fn unknown_dependency(ids: Vec<TaskId>) -> Refusal {
    let shown: Vec<String> = ids.iter().take(5).map(|id| format!("`{id}`")).collect();
    let more = if ids.len() > 5 {
        format!(" and {} more", ids.len() - 5)
    } else {
        String::new()
    };
    let text = format!(
        "unknown dependency {}{more}: no task of that id has been added",
        shown.join(", ")
    );
    Refusal::new(RefusalCode::UnknownDependency, text)
        .at("dependencies")
        .about(ids)
}

/// For each task the cycle that one reaches by always following the first missing dependency, if
/// one does. Each task is visited once.
fn cycles<'a>(missing: &'a BTreeMap<&'a TaskId, Vec<TaskId>>) -> BTreeMap<&'a TaskId, Refusal> {
    let next = |id: &TaskId| missing.get(id)?.iter().find(|id| missing.contains_key(id));
    let mut found: BTreeMap<&TaskId, Option<Refusal>> = BTreeMap::new();
    for start in missing.keys() {
        let (mut path, mut places) = (Vec::new(), BTreeMap::new());
        let mut at = Some(*start);
        let end = loop {
            let Some(id) = at else { break None };
            if let Some(end) = found.get(id) {
                break end.clone();
            }
            if let Some(place) = places.insert(id, path.len()) {
                break path.get(place..).map(|cycle: &[&TaskId]| cycle_of(cycle));
            }
            path.push(id);
            at = next(id);
        };
        found.extend(path.into_iter().map(|id| (id, end.clone())));
    }
    found
        .into_iter()
        .filter_map(|(id, end)| end.map(|end| (id, end)))
        .collect()
}

fn cycle_of(cycle: &[&TaskId]) -> Refusal {
    let told: Vec<TaskId> = cycle
        .iter()
        .take(CYCLE_TOLD)
        .map(|id| (*id).clone())
        .collect();
    let names: Vec<&str> = told.iter().map(TaskId::as_str).collect();
    let more = if cycle.len() > told.len() {
        format!(" → {} more", cycle.len() - told.len())
    } else {
        String::new()
    };
    let text = format!(
        "dependency cycle: {}{more} → {}",
        names.join(" → "),
        names.first().unwrap_or(&"")
    );
    Refusal::new(RefusalCode::DependencyCycle, text)
        .at("dependencies")
        .about(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::prepare;
    use taskmaster_protocol::Json;

    fn deferred(tasks: &[(String, Vec<String>)]) -> Deferred {
        let mut deferred = Deferred::default();
        for (index, (id, on)) in tasks.iter().enumerate() {
            let json = serde_json::json!({ "id": id, "module": "echo", "dependencies": on });
            let missing = on.iter().map(|id| TaskId::new(id).unwrap()).collect();
            deferred.hold(index, Box::new(prepare(&Json::of(&json)).unwrap()), missing);
        }
        deferred
    }

    fn refusals(tasks: &[(&str, &[&str])]) -> Vec<String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let tasks: Vec<(String, Vec<String>)> = tasks
            .iter()
            .map(|(id, on)| ((*id).to_owned(), owned(on)))
            .collect();
        deferred(&tasks)
            .refuse(|_| false)
            .into_iter()
            .map(|(_, refusal)| refusal.message)
            .collect()
    }

    #[test]
    fn a_cycle_is_told_to_its_members_and_to_who_waits_for_one() {
        let told = refusals(&[
            ("a", &["b"]),
            ("b", &["c"]),
            ("c", &["b"]),
            ("d", &["ghost"]),
            ("e", &["d"]),
        ]);
        assert!(
            told[0].contains("cycle: b → c → b") && told[1] == told[0] && told[2] == told[0],
            "{told:?}"
        );
        assert!(
            told[3].contains("unknown dependency `ghost`")
                && told[4].contains("unknown dependency `d`"),
            "{told:?}"
        );
    }

    #[test]
    fn a_document_is_tried_again_once_when_all_have_come() {
        let on = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let mut deferred =
            deferred(&[("z".into(), on(&["a", "b", "a"])), ("y".into(), on(&["z"]))]);
        let id = |id| TaskId::new(id).unwrap();
        assert!(deferred.came(&id("a")).is_empty() && deferred.came(&id("a")).is_empty());
        let free = deferred.came(&id("b"));
        assert_eq!((free.len(), free[0].0, free[0].1.id.as_str()), (1, 0, "z"));
        assert_eq!(deferred.came(&id("z"))[0].0, 1);
        assert!(deferred.refuse(|_| false).is_empty());
    }

    #[test]
    fn the_longest_chain_and_the_longest_cycle_are_refused_at_once() {
        let name = |n: usize| format!("{n:0>120}");
        for (last, code) in [
            (name(0), RefusalCode::DependencyCycle),
            ("ghost".into(), RefusalCode::UnknownDependency),
        ] {
            let chain: Vec<(String, Vec<String>)> = (0..4_096)
                .map(|n| {
                    (
                        name(n),
                        vec![if n == 4_095 {
                            last.clone()
                        } else {
                            name(n + 1)
                        }],
                    )
                })
                .collect();
            let refused = deferred(&chain).refuse(|_| false);
            assert!(
                refused.len() == 4_096 && refused.iter().all(|(_, refusal)| refusal.code == code)
            );
            let bytes: usize = refused
                .iter()
                .map(|(_, refusal)| refusal.message.len())
                .sum();
            assert!(bytes < 64 << 20, "{bytes}");
        }
    }
}
