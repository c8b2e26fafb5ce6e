//! What an attempt wants when it is done: tasks that it adds, and the task as which its own goes
//! on.
//!
//! Both travel with its report and are carried out in the turn of its end, so in one commit with
//! it: an attempt that failed, or that is void, adds nothing, and a report that is told again finds
//! its task ended.

use super::Engine;
use super::add::due_of;
use super::unmet::unknown_dependency;
use crate::facts::Fact;
use crate::inbox::{FollowUp, FollowUpTasks};
use crate::prepare::PreparedTask;
use std::collections::HashSet;
use std::sync::Arc;
use taskmaster_core::{Event, NewTask, Origin, RunnerKey, TaskKey};
use taskmaster_protocol::message::{Done, Failed, Log};
use taskmaster_protocol::{ErrorKind, Refusal, RefusalCode, TaskError, TaskId, limits};
use taskmaster_store::body::{AddedTask, TaskBody};

/// Tasks looked through for one that waits for the task that would go on: no turn is long.
const LOOKED_THROUGH_MAX: usize = 10_000;

impl Engine {
    /// An attempt ended with a result, and wants more.
    pub(super) fn done_with_wishes(
        &mut self,
        runner: RunnerKey,
        task: TaskKey,
        mut report: Done,
        wishes: FollowUpTasks,
    ) {
        if !self.core.report_counts(runner, task, report.attempt) {
            return self.attempt_done(runner, task, report);
        }
        // Before its end: its job must not be done in between.
        let refused = self.add_children(task, wishes.adds);
        refused
            .iter()
            .for_each(|line| write_line(&mut report.log, line));
        let Some(then) = wishes.then else {
            return self.attempt_done(runner, task, report);
        };
        let went_on = match refused.into_iter().next() {
            None => self
                .go_on(runner, task, &report, then)
                .map_err(|refusal| refusal.to_string()),
            // Its log is that of the attempt that ends it: nobody would read of this one.
            Some(line) => Err(line),
        };
        // What it has added stays; as its next try names the same ids, nothing is added twice.
        if let Err(why) = went_on {
            let text = format!("it cannot go on as the task of its `::then`: {why}");
            let Done {
                id,
                attempt,
                started_us,
                stats,
                log,
                ..
            } = report;
            let error = TaskError::new(ErrorKind::Output, text);
            self.attempt_failed(
                runner,
                task,
                Failed {
                    id,
                    attempt,
                    error,
                    started_us: Some(started_us),
                    stats,
                    log,
                },
            );
        }
    }

    /// Adds what can be added; why the others cannot, as lines for the log.
    fn add_children(&mut self, parent: TaskKey, children: Vec<FollowUp>) -> Vec<String> {
        if children.is_empty() {
            return Vec::new();
        }
        let (job, priority) = (
            self.facts.body(parent).job.clone(),
            self.facts.live(parent).priority,
        );
        let tasks = children
            .into_iter()
            .map(|child| child.of(priority))
            .collect();
        let outcomes = self.admit_all(tasks, Some(job)).into_iter().enumerate();
        outcomes
            .filter_map(|(i, outcome)| {
                Some(format!("task {} was not added: {}", i + 1, outcome.err()?))
            })
            .collect()
    }

    fn go_on(
        &mut self,
        runner: RunnerKey,
        key: TaskKey,
        report: &Done,
        then: FollowUp,
    ) -> Result<(), Refusal> {
        let priority = self.facts.live(key).priority;
        let PreparedTask {
            document,
            references,
            wrong,
            ..
        } = *then.of(priority)?;
        self.usable_module(&document.module)?;
        wrong.map_or(Ok(()), Err)?;
        let wanted: Vec<&TaskId> = document
            .dependencies
            .iter()
            .map(|on| &on.on)
            .chain(&references)
            .collect();
        let unknown: Vec<TaskId> = wanted
            .iter()
            .filter(|id| matches!(self.facts.fact(id), Fact::Unknown))
            .map(|id| (*id).clone())
            .collect();
        if !unknown.is_empty() {
            return Err(unknown_dependency(unknown));
        }
        self.refuse_cycle(key, &wanted)?;
        if self
            .core
            .classes_full(&document.module.name, &document.requires)
        {
            let text = "too many different requirements are queued already";
            return Err(Refusal::new(RefusalCode::Unavailable, text).at("requires"));
        }
        let last = self.facts.body(key);
        let mut body = TaskBody::new(AddedTask {
            document,
            fingerprint: last.fingerprint,
            references,
            id: last.id.clone(),
            job: last.job.clone(),
            ordinal: last.ordinal,
            created: last.created,
        });
        let rare = body.extras.get_or_insert_default();
        rare.continued = true;
        // Counted from now, not from when the task was added.
        let until = rare
            .delay_ms
            .take()
            .map(|ms| self.now.wall.plus_us(ms * 1_000));
        rare.not_before = rare.not_before.max(until);
        self.share(&mut body);
        let body = Arc::new(body);
        let dependencies = self.dependencies_of(&body);
        let next = NewTask {
            key,
            ordinal: body.ordinal,
            job: body.job.clone(),
            module: body.module.clone(),
            requires: body.requires.as_ref().unwrap_or(&self.nothing).clone(),
            priority: body.priority,
            dependencies,
            due: due_of(&body, self.now),
            retries: body
                .extras
                .as_ref()
                .and_then(|rare| rare.retries.clone())
                .map(Box::new),
            origin: Origin::Added,
        };
        self.facts.continued(key, &last, body);
        if let Some(last) = self.facts.live_mut(key).last.as_mut() {
            last.failures = None;
        }
        let (attempt, run_us) = (report.attempt, report.stats.run_us);
        self.tell(Event::AttemptContinued {
            runner,
            attempt,
            run_us,
            next: Box::new(next),
        });
        Ok(())
    }

    /// Refuses to let a task wait for one that waits for it. Tasks that are added can wait for
    /// earlier ones only; this one is there already, and others may have been added that wait for
    /// it.
    fn refuse_cycle(&self, key: TaskKey, wanted: &[&TaskId]) -> Result<(), Refusal> {
        let id = self.facts.body(key).id.clone();
        let mut seen: HashSet<TaskId> = HashSet::new();
        let mut next: Vec<TaskId> = wanted.iter().map(|id| (*id).clone()).collect();
        while let Some(on) = next.pop() {
            if on == id {
                let text = format!("dependency cycle: what `{id}` would wait for waits for `{id}`");
                return Err(Refusal::new(RefusalCode::DependencyCycle, text)
                    .at("dependencies")
                    .about(vec![id]));
            }
            let Fact::Open(open) = self.facts.fact(&on) else {
                continue;
            };
            if !seen.insert(on) {
                continue;
            }
            if seen.len() > LOOKED_THROUGH_MAX {
                let text = format!(
                    "what `{id}` would wait for waits for more than {LOOKED_THROUGH_MAX} tasks itself"
                );
                return Err(Refusal::new(RefusalCode::TooLarge, text).at("dependencies"));
            }
            next.extend(
                self.facts
                    .body(open)
                    .dependencies()
                    .iter()
                    .map(|dependency| dependency.on.clone()),
            );
        }
        Ok(())
    }
}

impl FollowUp {
    /// The task, with its parent's priority where it says none of its own.
    fn of(self, priority: i32) -> Result<Box<PreparedTask>, Refusal> {
        let mut task = self.task?;
        if !self.has_priority {
            task.document.priority = priority;
        }
        task.of_task = true;
        Ok(task)
    }
}

/// A line at the end of a log, as far as one may be long.
fn write_line(log: &mut Log, line: &str) {
    let end = if log.tail.is_empty() {
        &mut log.head
    } else {
        &mut log.tail
    };
    if end.len() + line.len() < 2 * limits::LOG_PART_BYTES_MAX {
        end.push_str("taskmaster: ");
        end.push_str(line);
        end.push('\n');
    }
}
