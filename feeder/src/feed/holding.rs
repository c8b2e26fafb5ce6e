//! Lines whose dependency has not come yet. They are held until it does or the input ends.

use super::line::{IdKey, Keys, Line};
use std::collections::{HashMap, HashSet};
use taskmaster_protocol::{Refusal, RefusalCode, TaskId, limits};

/// The held lines.
#[derive(Default)]
pub struct Holding {
    held: HashMap<u64, Held>,
    /// Which held lines wait for an id.
    waiting: HashMap<IdKey, Vec<u64>>,
    next: u64,
}

struct Held {
    line: Line,
    /// The ids that have not come, as the master named them.
    missing: Vec<(IdKey, TaskId)>,
}

impl Holding {
    /// How many lines are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Holds a line until all of `missing` have come. Refuses it where too many are held already.
    pub fn hold(&mut self, line: Line, missing: Vec<(IdKey, TaskId)>) -> Result<(), Refusal> {
        if self.held.len() >= limits::FEED_HELD_MAX {
            let max = limits::FEED_HELD_MAX;
            let name = missing.first().map_or("", |(_, id)| id.as_str());
            let text = format!(
                "unknown dependency `{name}`, and {max} lines are held back already: put tasks behind what they depend on"
            );
            return Err(refuse(&line, RefusalCode::UnknownDependency, text));
        }
        self.next += 1;
        for (key, _) in &missing {
            self.waiting.entry(*key).or_default().push(self.next);
        }
        self.held.insert(self.next, Held { line, missing });
        Ok(())
    }

    /// An id has come: gives the lines that wait for nothing any more, in the order in which they
    /// were held.
    pub fn came(&mut self, key: IdKey) -> Vec<Line> {
        let mut free = Vec::new();
        for slot in self.waiting.remove(&key).unwrap_or_default() {
            let Some(held) = self.held.get_mut(&slot) else {
                continue;
            };
            held.missing.retain(|(missing, _)| *missing != key);
            if held.missing.is_empty() {
                free.extend(self.held.remove(&slot).map(|held| held.line));
            }
        }
        free
    }

    /// The input has ended: nothing that is still missing will come. Why each held line is refused,
    /// by line.
    pub fn refuse_all(&mut self) -> Vec<Refusal> {
        self.waiting.clear();
        let held: Vec<Held> = std::mem::take(&mut self.held).into_values().collect();
        let by_key: HashMap<IdKey, usize> = held
            .iter()
            .enumerate()
            .filter(|(_, h)| h.line.named)
            .map(|(i, h)| (h.line.key, i))
            .collect();
        let cycles = cycles(&held, &by_key);
        let mut refusals: Vec<Refusal> = held
            .iter()
            .enumerate()
            .map(|(i, h)| match cycles.get(&i) {
                Some(ids) => {
                    let text = format!(
                        "dependency cycle: {}",
                        ids.iter()
                            .map(TaskId::as_str)
                            .collect::<Vec<_>>()
                            .join(" → ")
                    );
                    refuse(&h.line, RefusalCode::DependencyCycle, text).about(ids.clone())
                }
                None => refuse_unknown(h, &held, &by_key),
            })
            .collect();
        refusals.sort_by_key(|refusal| refusal.line);
        refusals
    }
}

fn refuse(line: &Line, code: RefusalCode, text: String) -> Refusal {
    Refusal {
        line: Some(line.number),
        ..Refusal::new(code, text).at("dependencies")
    }
}

fn refuse_unknown(h: &Held, held: &[Held], by_key: &HashMap<IdKey, usize>) -> Refusal {
    // An id that nobody wrote says more than one whose own line was refused.
    let ghost = h
        .missing
        .iter()
        .find(|(key, _)| !by_key.contains_key(key))
        .or(h.missing.first());
    let text = match ghost {
        Some((key, id)) => match by_key.get(key) {
            Some(other) => format!(
                "unknown dependency `{id}`: line {} was refused too",
                held[*other].line.number
            ),
            None => format!("unknown dependency `{id}`"),
        },
        None => "unknown dependency".to_owned(),
    };
    refuse(&h.line, RefusalCode::UnknownDependency, text)
        .about(h.missing.iter().map(|(_, id)| id.clone()).collect())
}

/// For each held line that waits for itself, by way of others: the ids of that circle, the first
/// one again at the end.
fn cycles(held: &[Held], by_key: &HashMap<IdKey, usize>) -> HashMap<usize, Vec<TaskId>> {
    let mut found = HashMap::new();
    let mut finished = HashSet::new();
    for start in 0..held.len() {
        // The way from `start`, and for each place on it the next of its missing ids to look at.
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        let mut on_way: HashMap<usize, usize> = HashMap::from([(start, 0)]);
        if finished.contains(&start) {
            continue;
        }
        while let Some((at, next)) = way.last_mut() {
            let (here, look) = (*at, *next);
            *next += 1;
            let Some((key, _)) = held[here].missing.get(look) else {
                on_way.remove(&here);
                finished.insert(here);
                way.pop();
                continue;
            };
            let Some(&there) = by_key.get(key) else {
                continue;
            };
            if let Some(&from) = on_way.get(&there) {
                note_circle(held, &way[from..], &mut found);
            } else if !finished.contains(&there) {
                on_way.insert(there, way.len());
                way.push((there, 0));
            }
        }
    }
    found
}

fn note_circle(held: &[Held], circle: &[(usize, usize)], found: &mut HashMap<usize, Vec<TaskId>>) {
    /// A longer circle is shown by its beginning.
    const SHOWN_MAX: usize = 20;
    let ids: Vec<TaskId> = circle
        .iter()
        .filter_map(|(i, _)| TaskId::new(&held[*i].line.id()).ok())
        .collect();
    for (turn, (i, _)) in circle.iter().enumerate() {
        found.entry(*i).or_insert_with(|| {
            let from = turn.min(ids.len());
            ids[from..]
                .iter()
                .chain(&ids[..from])
                .take(SHOWN_MAX)
                .chain(ids.get(from))
                .cloned()
                .collect()
        });
    }
}

/// The keys of ids.
pub fn keyed(ids: Vec<TaskId>, keys: &Keys) -> Vec<(IdKey, TaskId)> {
    ids.into_iter()
        .map(|id| (keys.of(id.as_str()), id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, id: &str, keys: &Keys) -> Line {
        Line {
            number,
            key: keys.of(id),
            named: true,
            job: None,
            text: format!(r#"{{"id":"{id}"}}"#),
            has_inputs: false,
        }
    }

    fn hold(lines: &[(&str, &[&str])]) -> (Holding, Keys) {
        let (mut holding, keys) = (Holding::default(), Keys::default());
        for (i, (id, missing)) in lines.iter().enumerate() {
            let missing = missing.iter().map(|id| TaskId::new(id).unwrap()).collect();
            holding
                .hold(line(i as u64 + 1, id, &keys), keyed(missing, &keys))
                .unwrap();
        }
        (holding, keys)
    }

    #[test]
    fn a_line_is_free_when_all_it_waits_for_has_come() {
        let (mut holding, keys) = hold(&[("a", &["x", "y"]), ("b", &["y"])]);
        assert!(holding.came(keys.of("x")).is_empty());
        let free: Vec<u64> = holding
            .came(keys.of("y"))
            .iter()
            .map(|line| line.number)
            .collect();
        assert_eq!(free, [1, 2]);
        assert_eq!(holding.len(), 0);
    }

    #[test]
    fn what_remains_is_refused_with_its_reason() {
        let (mut holding, _) = hold(&[
            ("x", &["y"]),
            ("y", &["x"]),
            ("z", &["x"]),
            ("g", &["ghost"]),
            ("s", &["s"]),
            ("h", &["g", "ghost"]),
        ]);
        let shown: Vec<String> = holding
            .refuse_all()
            .iter()
            .map(Refusal::to_string)
            .collect();
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
        let lines: Vec<(&str, [&str; 1])> = ids
            .windows(2)
            .map(|pair| (pair[0].as_str(), [pair[1].as_str()]))
            .collect();
        let lines: Vec<(&str, &[&str])> = lines
            .iter()
            .map(|(id, missing)| (*id, missing.as_slice()))
            .collect();
        let (mut holding, _) = hold(&lines);
        assert_eq!(holding.refuse_all().len(), 50_000);
    }
}
