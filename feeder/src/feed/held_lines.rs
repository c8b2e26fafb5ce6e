//! Lines that wait for a dependency which has not come yet. They are held until it comes, or until
//! the input ends.

use super::line::{FeedLine, IdHasher, LineIdHash};
use std::collections::{HashMap, HashSet};
use taskmaster_protocol::{Refusal, RefusalCode, TaskId, limits};

/// Ids of a circle that its refusal names; a longer circle is shown by its beginning.
const CIRCLE_IDS_MAX: usize = 20;

/// The lines that are held.
#[derive(Default)]
pub(super) struct HeldLines {
    /// By the order in which they were held.
    lines: HashMap<u64, HeldLine>,
    /// Which lines wait for an id.
    waiting: HashMap<LineIdHash, Vec<u64>>,
    /// The number of the line that was held last.
    last: u64,
}

struct HeldLine {
    line: FeedLine,
    /// Never empty.
    missing: Vec<MissingId>,
}

/// An id that has not come.
pub(super) struct MissingId {
    pub(super) hash: LineIdHash,
    /// As the master names it.
    id: TaskId,
}

impl MissingId {
    pub(super) fn of(ids: &[TaskId], hasher: &IdHasher) -> Vec<MissingId> {
        let missing = |id: &TaskId| MissingId {
            hash: hasher.hash(id.as_str()),
            id: id.clone(),
        };
        ids.iter().map(missing).collect()
    }
}

impl HeldLines {
    /// How many lines are held.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Holds a line until all of `missing` have come. Refuses it where too many are held already.
    pub(super) fn hold(&mut self, line: FeedLine, missing: Vec<MissingId>) -> Result<(), Refusal> {
        let max = limits::FEED_HELD_MAX;
        if self.lines.len() >= max {
            let id = missing.first().map_or("", |missing| missing.id.as_str());
            let text = format!(
                "unknown dependency `{id}`, and {max} lines are held back already: \
                 put tasks behind what they depend on"
            );
            return Err(refusal(&line, RefusalCode::UnknownDependency, text));
        }
        self.last += 1;
        for missing in &missing {
            self.waiting
                .entry(missing.hash)
                .or_default()
                .push(self.last);
        }
        self.lines.insert(self.last, HeldLine { line, missing });
        Ok(())
    }

    /// The master has taken an id. Gives the lines that now wait for nothing, in the order in which
    /// they were held.
    pub(super) fn id_taken(&mut self, id: LineIdHash) -> Vec<FeedLine> {
        let mut ready = Vec::new();
        for number in self.waiting.remove(&id).unwrap_or_default() {
            let Some(held) = self.lines.get_mut(&number) else {
                continue;
            };
            held.missing.retain(|missing| missing.hash != id);
            if held.missing.is_empty() {
                ready.extend(self.lines.remove(&number).map(|held| held.line));
            }
        }
        ready
    }

    /// The input has ended, so nothing that is missing will come. Gives why each held line is
    /// refused, in the order of the input.
    pub(super) fn refuse_all(&mut self) -> Vec<Refusal> {
        self.waiting.clear();
        let lines = std::mem::take(&mut self.lines).into_values().collect();
        let graph = HeldGraph::new(lines);
        let circles = graph.circles();
        let refuse = |(index, held): (usize, &HeldLine)| match circles.get(&index) {
            Some(circle) => refuse_circle(&held.line, circle),
            None => graph.refuse_unknown(held),
        };
        let mut refusals: Vec<Refusal> = graph.lines.iter().enumerate().map(refuse).collect();
        refusals.sort_by_key(|refusal| refusal.line);
        refusals
    }
}

/// Held lines and what they wait for.
struct HeldGraph {
    lines: Vec<HeldLine>,
    /// Index of the line that has an id.
    by_id: HashMap<LineIdHash, usize>,
}

/// A line on the way of the search for circles.
struct Step {
    index: usize,
    /// Which of the line's missing ids is looked at next.
    next: usize,
}

impl HeldGraph {
    fn new(lines: Vec<HeldLine>) -> HeldGraph {
        let by_id = lines
            .iter()
            .enumerate()
            .filter(|(_, held)| held.line.has_own_id)
            .map(|(index, held)| (held.line.id, index))
            .collect();
        HeldGraph { lines, by_id }
    }

    fn refuse_unknown(&self, held: &HeldLine) -> Refusal {
        // An id that no line has explains more than one whose own line was refused.
        let shown = held
            .missing
            .iter()
            .find(|missing| !self.by_id.contains_key(&missing.hash))
            .or(held.missing.first());
        let text = match shown {
            Some(MissingId { hash, id }) => match self.by_id.get(hash) {
                Some(index) => {
                    let number = self.lines[*index].line.number;
                    format!("unknown dependency `{id}`: line {number} was refused too")
                }
                None => format!("unknown dependency `{id}`"),
            },
            None => "unknown dependency".to_owned(),
        };
        let ids = held.missing.iter().map(|missing| missing.id.clone());
        refusal(&held.line, RefusalCode::UnknownDependency, text).about(ids.collect())
    }

    /// For each line that waits for itself, by way of others: the ids of that circle, from the
    /// line's own to its own again. A search in depth that needs no stack, because a chain may have
    /// as many lines as can be held.
    fn circles(&self) -> HashMap<usize, Vec<TaskId>> {
        let mut circles = HashMap::new();
        let mut finished: HashSet<usize> = HashSet::new();
        for start in 0..self.lines.len() {
            if finished.contains(&start) {
                continue;
            }
            let mut way = vec![Step {
                index: start,
                next: 0,
            }];
            let mut place_on_way: HashMap<usize, usize> = HashMap::from([(start, 0)]);
            while let Some(step) = way.last_mut() {
                let index = step.index;
                let Some(missing) = self.lines[index].missing.get(step.next) else {
                    place_on_way.remove(&index);
                    finished.insert(index);
                    way.pop();
                    continue;
                };
                step.next += 1;
                let Some(&target) = self.by_id.get(&missing.hash) else {
                    continue;
                };
                if let Some(&place) = place_on_way.get(&target) {
                    self.add_circle(&way[place..], &mut circles);
                } else if !finished.contains(&target) {
                    place_on_way.insert(target, way.len());
                    way.push(Step {
                        index: target,
                        next: 0,
                    });
                }
            }
        }
        circles
    }

    fn add_circle(&self, circle: &[Step], circles: &mut HashMap<usize, Vec<TaskId>>) {
        let ids: Vec<TaskId> = circle
            .iter()
            .filter_map(|step| TaskId::new(&self.lines[step.index].line.id_text()).ok())
            .collect();
        for (turn, step) in circle.iter().enumerate() {
            circles.entry(step.index).or_insert_with(|| {
                let (before, from) = ids.split_at(turn.min(ids.len()));
                from.iter()
                    .chain(before)
                    .take(CIRCLE_IDS_MAX)
                    .chain(from.first())
                    .cloned()
                    .collect()
            });
        }
    }
}

fn refuse_circle(line: &FeedLine, circle: &[TaskId]) -> Refusal {
    let ids: Vec<&str> = circle.iter().map(TaskId::as_str).collect();
    let text = format!("dependency cycle: {}", ids.join(" → "));
    refusal(line, RefusalCode::DependencyCycle, text).about(circle.to_vec())
}

fn refusal(line: &FeedLine, code: RefusalCode, text: String) -> Refusal {
    Refusal {
        line: Some(line.number),
        ..Refusal::new(code, text).at("dependencies")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, id: &str, hasher: &IdHasher) -> FeedLine {
        FeedLine {
            number,
            id: hasher.hash(id),
            has_own_id: true,
            job: None,
            text: format!(r#"{{"id":"{id}"}}"#),
            has_inputs: false,
        }
    }

    /// Holds lines of these ids, each with what it waits for.
    fn hold(lines: &[(&str, &[&str])], hasher: &IdHasher) -> HeldLines {
        let mut held = HeldLines::default();
        for (i, (id, missing)) in lines.iter().enumerate() {
            let missing: Vec<TaskId> = missing.iter().map(|id| TaskId::new(id).unwrap()).collect();
            let line = line(i as u64 + 1, id, hasher);
            held.hold(line, MissingId::of(&missing, hasher)).unwrap();
        }
        held
    }

    #[test]
    fn a_line_is_ready_when_all_it_waits_for_has_come() {
        let hasher = IdHasher::default();
        let mut held = hold(&[("a", &["x", "y"]), ("b", &["y"])], &hasher);
        assert!(held.id_taken(hasher.hash("x")).is_empty());
        let ready = held.id_taken(hasher.hash("y"));
        let ready: Vec<u64> = ready.iter().map(|line| line.number).collect();
        assert_eq!(ready, [1, 2]);
        assert_eq!(held.len(), 0);
    }

    #[test]
    fn what_remains_is_refused_with_its_reason() {
        let lines: [(&str, &[&str]); 6] = [
            ("x", &["y"]),
            ("y", &["x"]),
            ("z", &["x"]),
            ("g", &["ghost"]),
            ("s", &["s"]),
            ("h", &["g", "ghost"]),
        ];
        let refusals = hold(&lines, &IdHasher::default()).refuse_all();
        let shown: Vec<String> = refusals.iter().map(Refusal::to_string).collect();
        assert_eq!(
            shown,
            [
                "line 1: dependency cycle: x → y → x",
                "line 2: dependency cycle: y → x → y",
                "line 3: unknown dependency `x`: line 1 was refused too",
                "line 4: unknown dependency `ghost`",
                "line 5: dependency cycle: s → s",
                "line 6: unknown dependency `ghost`",
            ]
        );
    }

    #[test]
    fn a_long_chain_costs_no_stack() {
        let ids: Vec<String> = (0..=50_000).map(|i| format!("t{i}")).collect();
        let hasher = IdHasher::default();
        let mut held = HeldLines::default();
        for (i, pair) in ids.windows(2).enumerate() {
            let missing = [TaskId::new(&pair[1]).unwrap()];
            let line = line(i as u64 + 1, &pair[0], &hasher);
            held.hold(line, MissingId::of(&missing, &hasher)).unwrap();
        }
        assert_eq!(held.refuse_all().len(), 50_000);
    }
}
