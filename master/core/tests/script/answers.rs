//! What the core answers, as text.

use crate::harness::{job_name, phrase, time};
use crate::line::Line;
use crate::play::Play;
use std::fmt::Write as _;
use taskmaster_core::{Due, Effect, Explanation, RunnerKey, WaitsFor};
use taskmaster_protocol::{EventKind, TaskState};

/// More effects than this are counted by sort, not listed.
const LISTED_MAX: usize = 24;

impl Play {
    /// The answer to a question.
    pub fn answer(&self, line: &Line) -> String {
        let world = &self.world;
        match line.word(0) {
            "state" => {
                let states: Vec<String> = line.words[1..]
                    .iter()
                    .map(|name| format!("{name} {}", world.state(name).as_str()))
                    .collect();
                states.join(", ")
            }
            "next" => match world.core.next_deadline(world.now) {
                None => "never".into(),
                Some(at) if at <= world.now.mono_us => "at once".into(),
                Some(at) => format!("in {}", time(at - world.now.mono_us)),
            },
            "facts" => format!("{:?}", world.core.runner_facts(self.runner(line.word(1)))),
            "job" => match world.core.job(&job_name(line.word(1))) {
                None => "not held".into(),
                Some(job) => {
                    let mut text = format!(
                        "run {}, {}",
                        job.run,
                        if job.open { "open" } else { "done" }
                    );
                    let _ = write!(text, ", total {}", job.counts.total);
                    for state in TaskState::ALL
                        .into_iter()
                        .filter(|state| job.counts.of(*state) > 0)
                    {
                        let _ = write!(text, ", {} {}", state.as_str(), job.counts.of(state));
                    }
                    text
                }
            },
            _ => match world
                .key(line.word(1))
                .and_then(|key| world.core.explain(key))
            {
                None => "not held".into(),
                Some(explanation) => self.why(&explanation),
            },
        }
    }

    fn why(&self, explanation: &Explanation) -> String {
        let name = |key: &RunnerKey| self.world.runners[key].clone();
        match explanation {
            Explanation::Blocked { open } => format!("waits for {open} dependencies"),
            Explanation::Delayed {
                until: Due::Mono(us),
                tries,
            } => {
                format!(
                    "waits {} more, tries {tries}",
                    time(us - self.world.now.mono_us)
                )
            }
            Explanation::Delayed {
                until: Due::Wall(wall),
                tries,
            } => {
                format!(
                    "waits for {} by the wall clock, tries {tries}",
                    time(wall.since_us(self.wall_start))
                )
            }
            Explanation::Assigned { held } => {
                let by = |runner: &Option<RunnerKey>| {
                    runner.as_ref().map_or("a lost runner".into(), name)
                };
                let held: Vec<String> = held
                    .iter()
                    .map(|(attempt, runner)| format!("{attempt} on {}", by(runner)))
                    .collect();
                held.join(", ")
            }
            Explanation::Joined { of: Some(of) } => {
                format!("waits for the answer of {}", self.world.names[of])
            }
            Explanation::Joined { of: None } => "is about to be ready".into(),
            Explanation::Ended(how) => how.task_state().as_str().into(),
            Explanation::Ready(WaitsFor::Reserved {
                runner,
                needs,
                free,
                needs_memory_mb,
                free_memory_mb,
            }) => {
                if u64::from(*needs_memory_mb) <= *free_memory_mb {
                    format!("{} keeps slots: {free} of {needs} are free", name(runner))
                } else {
                    format!(
                        "{} keeps memory: {free_memory_mb} of {needs_memory_mb} MiB are free",
                        name(runner)
                    )
                }
            }
            Explanation::Ready(WaitsFor::Slots {
                runners,
                slots,
                used,
                short_of_memory,
                ahead,
            }) => {
                let memory = if *short_of_memory > 0 {
                    format!(", {short_of_memory} short of memory")
                } else {
                    String::new()
                };
                format!(
                    "{used} of {slots} slots on {runners} runners are taken{memory}, {ahead} tasks \
                     ahead"
                )
            }
            Explanation::Ready(other) => format!("{other:?}"),
        }
    }

    /// The effects of one line, as phrases. Many effects are counted by sort.
    pub fn show(&self, effects: &[Effect]) -> Vec<String> {
        let shown: Vec<&Effect> = effects
            .iter()
            .filter(|effect| {
                !matches!(
                    effect,
                    Effect::Announce {
                        kind: EventKind::TaskAssigned,
                        ..
                    }
                )
            })
            .collect();
        let phrases = shown.iter().map(|effect| phrase(&self.world, effect));
        if shown.len() <= LISTED_MAX {
            return phrases.collect();
        }
        let mut counts: Vec<(String, usize)> = Vec::new();
        for phrase in phrases {
            let sort = phrase
                .split_once(' ')
                .map_or(String::new(), |(_, rest)| sort_of(rest));
            match counts.iter_mut().find(|(other, _)| *other == sort) {
                Some((_, count)) => *count += 1,
                None => counts.push((sort, 1)),
            }
        }
        counts
            .into_iter()
            .map(|(sort, count)| format!("{count} × {sort}"))
            .collect()
    }
}

/// A phrase without the task's name and the numbers, in which effects of one sort differ.
fn sort_of(rest: &str) -> String {
    let words: Vec<&str> = rest
        .split(' ')
        .filter(|word| !word.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    words.join(" ")
}
