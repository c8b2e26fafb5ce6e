//! Effects as text, for the cases and for failures.

use super::World;
use taskmaster_core::{DurableChange, Effect, EndReason, RunnerKey, TaskKey};

/// An effect as a phrase. `r'` is a connection of runner `r` that the runner has replaced.
pub fn phrase(world: &World, effect: &Effect) -> String {
    let task = |key: &TaskKey| world.names[key].clone();
    let runner = |key: &RunnerKey| {
        let name = &world.runners[key];
        let newest = world
            .runners
            .iter()
            .rev()
            .find(|(_, n)| *n == name)
            .map(|(key, _)| key);
        if newest == Some(key) {
            name.clone()
        } else {
            format!("{name}'")
        }
    };
    match effect {
        Effect::Send {
            runner: to,
            task: key,
            attempt,
        } => format!("{} → {} {attempt}", task(key), runner(to)),
        Effect::Recall {
            runner: from,
            attempts,
        } => {
            let listed: Vec<String> = attempts
                .iter()
                .map(|(key, attempt)| format!("{} {attempt}", task(key)))
                .collect();
            format!("recall from {}: {}", runner(from), listed.join(" + "))
        }
        Effect::Stop {
            runner: on,
            task: key,
            attempt,
        } => format!("stop {} {attempt} on {}", task(key), runner(on)),
        Effect::Disconnect { runner: key } => format!("hang up {}", runner(key)),
        Effect::Announce {
            kind,
            task: Some(key),
            ..
        } => format!("{} {}", task(key), kind.as_str().replace("task:", "")),
        Effect::Announce {
            kind, runner: key, ..
        } => {
            format!(
                "{} {}",
                key.as_ref().map(runner).unwrap_or_default(),
                kind.as_str().replace("runner:", "")
            )
        }
        Effect::LookUpAnswer(key) => format!("{} looked up", task(key)),
        Effect::ForgetSharedRun(_) => "run over".into(),
        Effect::Forget(key) => format!("{} forgotten", task(key)),
        Effect::Store(change) => change_phrase(world, change),
    }
}

fn change_phrase(world: &World, change: &DurableChange) -> String {
    let name = |key: &TaskKey| world.names[key].clone();
    match change {
        DurableChange::Added(key) => format!("{} added", name(key)),
        DurableChange::Reopened(key) => format!("{} reopened", name(key)),
        DurableChange::Continued(key, fence) => {
            format!("{} goes on, void up to {fence}", name(key))
        }
        DurableChange::Ended {
            task,
            state,
            why,
            attempt,
        } => {
            let how = state.task_state().as_str();
            match why {
                EndReason::Report => format!("{} {how} by {attempt}", name(task)),
                EndReason::Cancelled => format!("{} {how}", name(task)),
                EndReason::Dependency(on, was) => format!(
                    "{} {how}, {} {}",
                    name(task),
                    name(on),
                    was.task_state().as_str()
                ),
                EndReason::EarlierDependency(i, was) => format!(
                    "{} {how}, dependency {i} {} before",
                    name(task),
                    was.task_state().as_str()
                ),
                EndReason::ToldDependency => format!("{} {how}, as told", name(task)),
                EndReason::Poison => format!("{} {how}, poison", name(task)),
                EndReason::KeptAnswer => format!("{} {how} by a kept answer", name(task)),
                EndReason::SharedRun(by) => format!("{} {how} by {}", name(task), name(by)),
            }
        }
        DurableChange::Retrying {
            task,
            attempt,
            tries,
            lost,
            wait_us,
            runner_lost,
        } => {
            let why = if *runner_lost { "runner lost" } else { "error" };
            format!(
                "{} retrying after {attempt}: {why}, tries {tries} lost {lost}, wait {}",
                name(task),
                time(*wait_us)
            )
        }
        DurableChange::Set {
            task,
            priority,
            wait_us,
        } => {
            let wait = wait_us
                .map(|us| format!(" wait {}", time(us)))
                .unwrap_or_default();
            format!("{} set priority {priority}{wait}", name(task))
        }
        DurableChange::JobOpened(job) => format!("job {job} opened"),
        DurableChange::JobDone(job) => format!("job {job} done"),
        DurableChange::JobHeld { job, by, held } => format!(
            "job {job} {} {by}",
            if *held { "held by" } else { "let go by" }
        ),
        DurableChange::JobPaused { job, paused } => {
            format!("job {job} {}", if *paused { "paused" } else { "resumed" })
        }
        DurableChange::JobCancelled { job, up_to: 0 } => format!("job {job} cancel carried out"),
        DurableChange::JobCancelled { job, .. } => format!("job {job} cancel wanted"),
        DurableChange::RunnerJoined(runner) => format!("{runner} joined"),
        DurableChange::RunnerLost(runner) => format!("{runner} lost"),
    }
}

/// A duration in microseconds, in the greatest unit that shows it whole.
pub fn time(us: u64) -> String {
    if us.is_multiple_of(1_000_000) {
        format!("{}s", us / 1_000_000)
    } else if us.is_multiple_of(1_000) {
        format!("{}ms", us / 1_000)
    } else {
        format!("{us}us")
    }
}
