//! Documents of a batch that depend on other documents of the same batch, and the refusals of those
//! that cannot be added in the end.

use crate::prepare::PreparedTask;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use taskmaster_protocol::{Refusal, RefusalCode, TaskId};

/// Ids that a refusal because of a cycle names at most. Each task of the cycle gets this refusal,
/// and all of them must fit into one message.
const CYCLE_IDS_MAX: usize = 10;

/// Ids that a refusal because of unknown dependencies names at most.
const UNKNOWN_IDS_MAX: usize = 5;

/// Documents that wait for other documents of their batch. Each document is tried again only once,
/// when the last document for which it waits is added, because it may depend on thousands.
#[derive(Default)]
pub(super) struct DeferredDocuments {
    /// The documents by their places in the batch.
    tasks: BTreeMap<usize, DeferredDocument>,
    /// The places of the documents that wait for an id.
    by_missing: HashMap<TaskId, Vec<usize>>,
}

struct DeferredDocument {
    task: Box<PreparedTask>,
    /// For how many ids the document waits.
    missing: usize,
}

impl DeferredDocuments {
    /// Keeps a document until the tasks of all ids in `missing` are added.
    pub(super) fn defer(
        &mut self,
        index: usize,
        task: Box<PreparedTask>,
        missing: BTreeSet<TaskId>,
    ) {
        let document = DeferredDocument {
            task,
            missing: missing.len(),
        };
        self.tasks.insert(index, document);
        for id in missing {
            self.by_missing.entry(id).or_default().push(index);
        }
    }

    /// Notes that a task of the batch is added. Returns the documents that waited only for this
    /// task, with their places in the batch.
    pub(super) fn task_added(&mut self, id: &TaskId) -> Vec<(usize, Box<PreparedTask>)> {
        let mut ready = Vec::new();
        for index in self.by_missing.remove(id).unwrap_or_default() {
            if let Some(document) = self.tasks.get_mut(&index) {
                document.missing -= 1;
                if document.missing == 0 {
                    let document = self.tasks.remove(&index);
                    ready.extend(document.map(|document| (index, document.task)));
                }
            }
        }
        ready
    }

    /// Refusals of the documents that are left, with their places in the batch. If a document is on
    /// a cycle or depends on one, its refusal names the cycle, and otherwise the unknown ids.
    pub(super) fn refuse(self, known: impl Fn(&TaskId) -> bool) -> Vec<(usize, Refusal)> {
        let missing_of = |task: &PreparedTask| -> Vec<TaskId> {
            let wanted = task
                .document
                .dependencies
                .iter()
                .map(|dependency| &dependency.on)
                .chain(&task.references.tasks);
            wanted.filter(|id| !known(id)).cloned().collect()
        };
        let missing: BTreeMap<&TaskId, Vec<TaskId>> = self
            .tasks
            .values()
            .map(|document| (&document.task.id, missing_of(&document.task)))
            .collect();
        let cycles = cycles(&missing);
        let refusal = |task: &PreparedTask| match cycles.get(&task.id) {
            Some(cycle) => cycle.clone(),
            None => unknown_dependency(missing.get(&task.id).cloned().unwrap_or_default()),
        };
        self.tasks
            .iter()
            .map(|(index, document)| (*index, refusal(&document.task)))
            .collect()
    }
}

pub(super) fn unknown_dependency(ids: Vec<TaskId>) -> Refusal {
    let shown: Vec<String> = ids
        .iter()
        .take(UNKNOWN_IDS_MAX)
        .map(|id| format!("`{id}`"))
        .collect();
    let more = if ids.len() > UNKNOWN_IDS_MAX {
        format!(" and {} more", ids.len() - UNKNOWN_IDS_MAX)
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

/// For each task the refusal that names the cycle which is reached by following each task's first
/// missing dependency in the batch. Tasks that reach no cycle are left out. Each task is visited
/// once.
fn cycles<'a>(missing: &'a BTreeMap<&'a TaskId, Vec<TaskId>>) -> BTreeMap<&'a TaskId, Refusal> {
    let next = |id: &TaskId| missing.get(id)?.iter().find(|id| missing.contains_key(id));
    let mut found: BTreeMap<&TaskId, Option<Refusal>> = BTreeMap::new();
    for start in missing.keys() {
        let mut path = Vec::new();
        let mut places = BTreeMap::new();
        let mut at = Some(*start);
        let end = loop {
            let Some(id) = at else { break None };
            if let Some(end) = found.get(id) {
                break end.clone();
            }
            if let Some(place) = places.insert(id, path.len()) {
                break path
                    .get(place..)
                    .map(|cycle: &[&TaskId]| cycle_refusal(cycle));
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

fn cycle_refusal(cycle: &[&TaskId]) -> Refusal {
    let shown: Vec<TaskId> = cycle
        .iter()
        .take(CYCLE_IDS_MAX)
        .map(|id| (*id).clone())
        .collect();
    let names: Vec<&str> = shown.iter().map(TaskId::as_str).collect();
    let more = if cycle.len() > shown.len() {
        format!(" → {} more", cycle.len() - shown.len())
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
        .about(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::prepare;
    use taskmaster_protocol::Json;

    fn deferred(tasks: &[(String, Vec<String>)]) -> DeferredDocuments {
        let mut deferred = DeferredDocuments::default();
        for (index, (id, on)) in tasks.iter().enumerate() {
            let json = serde_json::json!({ "id": id, "module": "echo", "dependencies": on });
            let missing = on.iter().map(|id| TaskId::new(id).unwrap()).collect();
            deferred.defer(index, Box::new(prepare(&Json::of(&json)).unwrap()), missing);
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
    fn a_cycle_is_told_to_its_members_and_to_their_dependents() {
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
        assert!(
            deferred.task_added(&id("a")).is_empty() && deferred.task_added(&id("a")).is_empty()
        );
        let free = deferred.task_added(&id("b"));
        assert_eq!((free.len(), free[0].0, free[0].1.id.as_str()), (1, 0, "z"));
        assert_eq!(deferred.task_added(&id("z"))[0].0, 1);
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
