//! Follow-up tasks: the tasks that an attempt adds when it is done, and the task as which its own
//! task continues.
//!
//! Follow-up tasks come with the attempt's report. They are added in the turn in which the attempt
//! ends, so that one commit has both. Therefore an attempt that fails or is void adds nothing, and
//! when a report is sent again, its task has already ended.

use super::Engine;
use super::add::due_of;
use super::unmet::unknown_dependency;
use crate::facts::DependencyState;
use crate::inbox::{FollowUp, FollowUpTasks};
use crate::prepare::PreparedTask;
use std::collections::HashSet;
use std::sync::Arc;
use taskmaster_core::{Event, Origin, RunnerKey, TaskKey};
use taskmaster_protocol::message::{Done, Failed, Log};
use taskmaster_protocol::{ErrorKind, Refusal, RefusalCode, TaskError, TaskId, limits};
use taskmaster_store::body::{AddedTask, Lineage, TaskBody};

/// Tasks that the search for a dependency cycle looks at before it gives up, so that no turn is long.
const LOOKED_THROUGH_MAX: usize = 10_000;

impl Engine {
    /// An attempt ended with a result that asks for follow-up tasks.
    pub(super) fn done_with_follow_ups(
        &mut self,
        runner: RunnerKey,
        task: TaskKey,
        mut report: Done,
        follow_ups: FollowUpTasks,
    ) {
        if !self.core.report_counts(runner, task, report.attempt) {
            return self.attempt_done(runner, task, report);
        }
        if let Err(error) = self.may_add_children(task, follow_ups.adds.len()) {
            return self.attempt_failed(runner, task, failed_report(report, error));
        }
        if !follow_ups.adds.is_empty()
            && let Some(last) = self.facts.live_mut(task).last.as_mut()
        {
            last.adds_tasks = true;
        }
        // The tasks are added before the attempt ends, so that its job is not done in between.
        let refusals = self.add_children(task, follow_ups.adds);
        refusals
            .iter()
            .for_each(|line| write_line(&mut report.log, line));
        let Some(then) = follow_ups.then else {
            return self.attempt_done(runner, task, report);
        };
        let continued = match refusals.into_iter().next() {
            None => self
                .continue_as(runner, task, &report, then)
                .map_err(|refusal| refusal.to_string()),
            // A task keeps only the log of its last attempt, so that nobody would read these lines
            // if the task continued.
            Some(line) => Err(line),
        };
        // The tasks that were added stay. The next attempt names the same ids, so nothing is added
        // twice.
        if let Err(why) = continued {
            let text = format!("it cannot go on as the task of its `::then`: {why}");
            let error = TaskError::new(ErrorKind::Output, text);
            self.attempt_failed(runner, task, failed_report(report, error));
        }
    }

    /// Whether an attempt may add this many tasks. If not now, the attempt fails and is tried later;
    /// otherwise what feeders may not add would come in by way of tasks.
    fn may_add_children(&self, parent: TaskKey, count: usize) -> Result<(), TaskError> {
        if count == 0 {
            return Ok(());
        }
        let lineage = self.facts.body(parent).lineage_of_child();
        if lineage.depth > limits::ADDED_DEPTH_MAX {
            let text = format!(
                "the tasks that it adds are refused: {} tasks have added each other one after the \
                 other, and no more may",
                limits::ADDED_DEPTH_MAX
            );
            return Err(TaskError {
                code: Some(65),
                ..TaskError::new(ErrorKind::Output, text)
            });
        }
        let open = self.facts.open_descendants(lineage.root);
        let refusal = if open + count > limits::ADDED_OPEN_MAX {
            let text = format!(
                "{open} tasks that have not ended come from one task by `::add`, and at most {} may",
                limits::ADDED_OPEN_MAX
            );
            Some(Refusal::new(RefusalCode::Unavailable, text))
        } else {
            let priority = self.facts.live(parent).priority;
            self.disk_refusal().or_else(|| self.queue_full(priority))
        };
        let Some(refusal) = refusal else {
            return Ok(());
        };
        let text = format!("the tasks that it adds cannot be taken now: {refusal}");
        Err(TaskError {
            code: Some(75),
            ..TaskError::new(ErrorKind::Output, text)
        })
    }

    /// Adds the tasks that can be added. Returns why the others cannot, as lines for the log.
    fn add_children(&mut self, parent: TaskKey, children: Vec<FollowUp>) -> Vec<String> {
        if children.is_empty() {
            return Vec::new();
        }
        let job = self.facts.body(parent).job.clone();
        let priority = self.facts.live(parent).priority;
        let lineage = self.facts.body(parent).lineage_of_child();
        let tasks = children
            .into_iter()
            .map(|child| child.inherited(priority, lineage))
            .collect();
        let outcomes = self
            .admit_all(tasks, Some(job), false)
            .into_iter()
            .enumerate();
        outcomes
            .filter_map(|(i, outcome)| {
                Some(format!("task {} was not added: {}", i + 1, outcome.err()?))
            })
            .collect()
    }

    /// Ends an attempt, and lets its task continue as the task `then`.
    fn continue_as(
        &mut self,
        runner: RunnerKey,
        key: TaskKey,
        report: &Done,
        then: FollowUp,
    ) -> Result<(), Refusal> {
        let priority = self.facts.live(key).priority;
        let lineage = self.facts.body(key).lineage_of_child();
        let then = then.inherited(priority, lineage)?;
        self.check_continuation(key, &then)?;
        let job = self.facts.body(key).job.clone();
        let job_results = self.bind_jobs(&then.references.jobs, &job)?;
        let PreparedTask {
            document,
            references,
            ..
        } = *then;
        let last = self.facts.body(key);
        let mut body = TaskBody::new(AddedTask {
            document,
            fingerprint: last.fingerprint,
            references: references.tasks,
            job_results,
            id: last.id.clone(),
            job: last.job.clone(),
            ordinal: last.ordinal,
            created: last.created,
            lineage: last.lineage(),
            cache: None,
        });
        let extras = body.extras.get_or_insert_default();
        extras.continued = true;
        // The delay counts from now, and not from the time at which the task was added.
        let until = extras
            .delay_ms
            .take()
            .map(|ms| self.now.wall.plus_us(ms * 1_000));
        extras.not_before = extras.not_before.max(until);
        self.share_values(&mut body);
        let body = Arc::new(body);
        let dependencies = self.dependencies_of(&body)?;
        let due = due_of(&body, self.now);
        let next = self.new_task(key, &body, dependencies, due, Origin::Added);
        if !self.core.is_held_elsewhere(key, report.attempt) {
            self.facts.continued(key, &last, body.clone());
            if let Some(last) = self.facts.live_mut(key).last.as_mut() {
                last.failures = None;
            }
        }
        self.tell(Event::AttemptContinued {
            runner,
            attempt: report.attempt,
            run_us: report.stats.run_us,
            next: Box::new(next),
        });
        self.remember_waits(key, &body);
        Ok(())
    }

    /// Checks whether the task of `key` may continue as the task `then`.
    fn check_continuation(&self, key: TaskKey, then: &PreparedTask) -> Result<(), Refusal> {
        let document = &then.document;
        self.usable_module(&document.module)?;
        if let Some(refusal) = &then.wrong {
            return Err(refusal.clone());
        }
        let dependencies: Vec<&TaskId> = document
            .dependencies
            .iter()
            .map(|dependency| &dependency.on)
            .chain(&then.references.tasks)
            .collect();
        let unknown = self.facts.unknown_of(dependencies.iter().copied())?;
        if !unknown.is_empty() {
            return Err(unknown_dependency(unknown));
        }
        self.refuse_cycle(key, &dependencies)?;
        if self.core.classes_full(
            &document.module.name,
            &document.requires,
            self.memory_mb(document.memory_mb),
        ) {
            let text = "too many different requirements are queued already";
            return Err(Refusal::new(RefusalCode::Unavailable, text).at("requires"));
        }
        Ok(())
    }

    /// Refuses dependencies through which a task would depend on itself. A new task cannot do so,
    /// because it depends only on earlier tasks. But other tasks may depend on a task that continues.
    fn refuse_cycle(&self, key: TaskKey, dependencies: &[&TaskId]) -> Result<(), Refusal> {
        let id = self.facts.body(key).id.clone();
        let mut seen: HashSet<TaskId> = HashSet::new();
        let mut next: Vec<TaskId> = dependencies.iter().map(|id| (*id).clone()).collect();
        while let Some(on) = next.pop() {
            if on == id {
                let text = format!("dependency cycle: what `{id}` would wait for waits for `{id}`");
                return Err(Refusal::new(RefusalCode::DependencyCycle, text)
                    .at("dependencies")
                    .about(vec![id]));
            }
            let DependencyState::Open(open) = self.facts.state_of(&on)? else {
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
    /// The task, with its lineage, and with the priority of its parent if its document names none.
    fn inherited(self, priority: i32, lineage: Lineage) -> Result<Box<PreparedTask>, Refusal> {
        let mut task = self.task?;
        if !self.has_priority {
            task.document.priority = priority;
        }
        task.lineage = Some(lineage);
        Ok(task)
    }
}

/// The report of an attempt that has a result and failed all the same.
fn failed_report(report: Done, error: TaskError) -> Failed {
    Failed {
        id: report.id,
        attempt: report.attempt,
        error,
        started_us: Some(report.started_us),
        stats: report.stats,
        log: report.log,
    }
}

/// Adds a line to the end of a log, unless the log is too long already.
pub(super) fn write_line(log: &mut Log, line: &str) {
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
