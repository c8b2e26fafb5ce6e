//! Explains in one sentence why a task is in its state.

use super::Engine;
use crate::answer::TaskReason;
use crate::facts::DependencyState;
use taskmaster_core::{Due, TaskKey};
use taskmaster_core::{Explanation, WaitsFor};
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::{Capabilities, ModuleName, TaskState, Wall};
use taskmaster_store::body::TaskBody;
use taskmaster_store::record::ModuleRecord;

/// Sick runners that one sentence names.
const SICK_SHOWN_MAX: usize = 3;

impl Engine {
    /// Why a task that the core has is in its state: `{"state":…,"why":"one sentence"}`.
    pub(super) fn why(&self, key: TaskKey) -> TaskReason {
        let state = self
            .core
            .task(key)
            .map_or(TaskState::Ready, |task| task.state().task_state());
        let why = match self.core.explain(key) {
            Some(explanation) => self.sentence(key, explanation),
            None => "it has just ended".into(),
        };
        TaskReason { state, why }
    }

    fn sentence(&self, key: TaskKey, explanation: Explanation) -> String {
        match explanation {
            Explanation::Blocked { open } => self.blocked(key, open),
            Explanation::Delayed { until, tries } => {
                let at = self.wall(until);
                match tries {
                    0 => format!("it may not start before {at}"),
                    n => format!(
                        "{} failed; the next try starts at {at}{}",
                        counted(n.into(), "attempt"),
                        self.last_error(key)
                    ),
                }
            }
            Explanation::Ready(waits) => self.waits(key, waits),
            Explanation::Joined { of: Some(of) } => format!(
                "an equal task, `{}`, is at work; its answer will be the answer of this one",
                self.facts.body(of).id
            ),
            Explanation::Joined { of: None } => "a kept answer is looked for".into(),
            Explanation::Assigned { held } => {
                let on = |runner| {
                    self.runner_name(runner)
                        .map_or("a runner that is away".into(), |name| {
                            format!("runner `{name}`")
                        })
                };
                let attempts: Vec<String> = held
                    .into_iter()
                    .filter_map(|(attempt, runner)| {
                        Some(format!("attempt {} is with {}", attempt.n, on(runner?)))
                    })
                    .collect();
                attempts.join(", ")
            }
            Explanation::Ended(how) => {
                format!(
                    "it is {}; what still runs of it is being stopped",
                    how.task_state().as_str()
                )
            }
        }
    }

    fn blocked(&self, key: TaskKey, open: u32) -> String {
        let body = self.facts.body(key);
        let waits_for: Vec<String> = body
            .dependencies()
            .iter()
            .filter_map(
                |dependency| match self.dependency_state(&body, &dependency.on) {
                    Ok(DependencyState::Open(on)) => {
                        let state = self
                            .core
                            .task(on)
                            .map_or("open", |task| task.state().task_state().as_str());
                        Some(format!("`{}` ({state})", dependency.on))
                    }
                    Ok(DependencyState::Ended { .. } | DependencyState::Unknown) => None,
                    Err(error) => Some(format!("`{}` ({error})", dependency.on)),
                },
            )
            .chain(self.waits_beside_tasks(key, &body))
            .take(3)
            .collect();
        let more = if open as usize > waits_for.len() {
            " and others"
        } else {
            ""
        };
        format!(
            "it waits for {}: {}{more}",
            counted(open.into(), "dependency"),
            waits_for.join(", ")
        )
    }

    pub(super) fn waits(&self, key: TaskKey, waits: WaitsFor) -> String {
        let body = self.facts.body(key);
        match waits {
            WaitsFor::Roster => {
                "the master has just started and waits for runners that may still hold attempts"
                    .into()
            }
            WaitsFor::Stopping => "the master is stopping: it runs after the next start".into(),
            WaitsFor::JobPaused => format!(
                "its job `{0}` is paused; `jobs resume {0}` lets it go on",
                body.job
            ),
            WaitsFor::JobCancel => format!(
                "older tasks of its job `{}` are being cancelled; it goes on when all are",
                body.job
            ),
            WaitsFor::ModuleClosed => self.module_closed(&body.module),
            WaitsFor::NoRunner => "no runner is connected".into(),
            WaitsFor::NoneSuits { connected } => format!(
                "none of {} takes it: it runs `{}`{}{}",
                counted(connected as u64, "connected runner"),
                body.module,
                self.not_offered(&body.module),
                required(&body),
            ),
            WaitsFor::Reserved {
                runner,
                needs,
                free,
                needs_memory_mb,
                free_memory_mb,
            } => {
                let name = self.runner_name(runner).unwrap_or_else(|| "?".into());
                if u64::from(needs_memory_mb) <= free_memory_mb {
                    format!(
                        "runner `{name}` keeps its slots for it: {free} of the {needs} that it needs \
                         are free"
                    )
                } else {
                    format!(
                        "it waits for memory: runner `{name}` keeps its memory for it, and \
                         {free_memory_mb} MiB of the {needs_memory_mb} MiB that it may take \
                         (`memory_mb`) are free"
                    )
                }
            }
            WaitsFor::Slots {
                runners,
                slots,
                used,
                short_of_memory,
                ahead,
            } => {
                format!(
                    "it waits for {}: {used} of {} on {} are taken, and {} may come before it{}",
                    slot_or_memory(short_of_memory),
                    counted(slots, "slot"),
                    counted(runners as u64, "runner"),
                    counted(ahead, "task"),
                    self.sick_ones(),
                )
            }
        }
    }

    /// Why no task of a module is sent.
    fn module_closed(&self, module: &ModuleName) -> String {
        match self.modules.get(module) {
            Some(record) if record.present && !record.paused => {
                match self.modules.in_use(module, record) {
                    Some(_) => self.not_compiled(module),
                    None => self.not_approved(module, record),
                }
            }
            Some(record) if record.present => {
                format!("its module `{module}` is paused; `modules resume {module}` lets it go on")
            }
            _ => format!("the file of its module `{module}` is gone from the task folder"),
        }
    }

    /// A clause for each of the first runners that take nothing because their machines are sick.
    fn sick_ones(&self) -> String {
        let sick = self.connections.values().filter_map(|connection| {
            let name = connection.runner.as_ref()?;
            let fault = connection.fault.as_ref()?;
            Some(format!(
                "; runner `{name}` is sick and takes nothing: {fault}"
            ))
        });
        sick.take(SICK_SHOWN_MAX).collect()
    }

    /// Why no version of a module may be used.
    fn not_approved(&self, module: &ModuleName, record: &ModuleRecord) -> String {
        let why = self
            .modules
            .waiting(module, record)
            .map_or("no version of it may be used".into(), |it| it.why);
        format!("its module `{module}` waits for approval: {why}")
    }

    /// The capabilities of a module that no connected runner offers, and the options with which a
    /// runner offers them; empty if a runner offers them.
    fn not_offered(&self, module: &ModuleName) -> String {
        let needs = self.modules.granted(module);
        let offers = self
            .connections
            .values()
            .filter(|connection| connection.joined)
            .filter_map(|s| s.offer.as_ref());
        let lacks: Vec<Capabilities> = offers.map(|offer| offer.lacks(&needs)).collect();
        let everywhere = lacks
            .iter()
            .cloned()
            .reduce(|all, one| all.beyond(&all.beyond(&one)));
        // If each capability is offered by some runner, but not all of them by one, the sentence
        // names what the first incomplete runner lacks.
        let lacking = everywhere.filter(|lacking| !lacking.is_empty());
        let Some(lacking) =
            lacking.or_else(|| lacks.into_iter().find(|lacking| !lacking.is_empty()))
        else {
            return String::new();
        };
        let options = [
            (!lacking.http.is_empty(), "a newer version"),
            (!lacking.env.is_empty(), "--env NAME"),
            (!lacking.secrets.is_empty(), "--secrets FILE"),
            (!lacking.folders.is_empty(), "--folder NAME=DIR"),
        ];
        let options: Vec<&str> = options
            .into_iter()
            .filter(|(is_lacking, _)| *is_lacking)
            .map(|(_, option)| option)
            .collect();
        format!(
            ", which needs {lacking} (a runner offers that with {})",
            options.join(" ")
        )
    }

    /// Why no runner has compiled a large module yet.
    fn not_compiled(&self, module: &ModuleName) -> String {
        let runners = self
            .connections
            .values()
            .filter_map(|connection| connection.offer.as_ref());
        let needs = self.modules.granted(module);
        let takes = |offer: &&Offer| {
            (offer.modules.is_empty() || offer.modules.contains(module))
                && offer.lacks(&needs).is_empty()
        };
        match (runners.clone().filter(takes).count(), runners.count()) {
            (0, 0) => "no runner is connected".into(),
            (0, all) => {
                let all = counted(all as u64, "connected runner");
                format!(
                    "none of {all} takes it: it runs `{module}`{}",
                    self.not_offered(module)
                )
            }
            _ => format!(
                "its module `{module}` is being compiled; it is large, and no runner has it ready yet"
            ),
        }
    }

    fn wall(&self, due: Due) -> Wall {
        match due {
            Due::Wall(wall) => wall,
            Due::Mono(us) => self.now.wall.plus_us(us.saturating_sub(self.now.mono_us)),
        }
    }

    fn last_error(&self, key: TaskKey) -> String {
        let error = self
            .facts
            .live(key)
            .last
            .as_deref()
            .and_then(crate::facts::LastAttempt::error);
        error.map_or(String::new(), |error| {
            format!(" ({}: {})", error.kind.as_str(), error.message)
        })
    }
}

/// A number with its noun, in the plural where that is right.
fn counted(n: u64, what: &str) -> String {
    let plural = what
        .strip_suffix('y')
        .map_or_else(|| format!("{what}s"), |stem| format!("{stem}ies"));
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {plural}")
    }
}

/// What a task requires, as the end of a sentence.
fn required(body: &TaskBody) -> String {
    let requires = body.requires.as_ref();
    let text = requires.map(|requires| serde_json::to_string(requires).unwrap_or_default());
    text.filter(|text| text != "{}")
        .map_or(String::new(), |text| format!(" and requires {text}"))
}

/// What a task waits for where so many runners have the slots for it and not the memory.
fn slot_or_memory(short_of_memory: usize) -> String {
    match short_of_memory {
        0 => "a slot".into(),
        1 => "memory: 1 runner has a slot free, and not the memory".into(),
        _ => format!("memory: {short_of_memory} runners have a slot free, and not the memory"),
    }
}
