//! Tasks that an attempt adds. They are parsed here as a feeder's tasks are, so that the engine's
//! turns stay short.

use super::{GatewayState, add};
use serde::Deserialize;
use taskmaster_engine::inbox::{DoneReport, FollowUp, FollowUpTasks};
use taskmaster_protocol::message::Done;
use taskmaster_protocol::{Json, Refusal, limits};

/// Parses the follow-up tasks of each report. Where that breaks off, the attempt adds nothing. Its
/// own log does not tell this, so the master's log does.
pub(super) async fn read(state: &GatewayState, reports: Vec<Done>) -> Vec<DoneReport> {
    let mut read = Vec::with_capacity(reports.len());
    for mut done in reports {
        let follow_ups = take(state, &mut done).await.unwrap_or_else(|error| {
            tracing::error!(task = %done.id, %error, "the tasks that it adds cannot be read");
            None
        });
        read.push(DoneReport {
            done,
            follow_ups: follow_ups.map(Box::new),
        });
    }
    read
}

/// Takes the follow-up tasks out of a report. `None` where it has none.
async fn take(state: &GatewayState, report: &mut Done) -> Result<Option<FollowUpTasks>, Refusal> {
    let mut documents = std::mem::take(&mut report.adds);
    let has_then = report.then.is_some();
    documents.extend(report.then.take());
    if documents.is_empty() {
        return Ok(None);
    }

    let have_priority: Vec<bool> = documents.iter().map(has_priority).collect();
    let tasks = add::parse_all(state, documents).await?;
    let mut adds: Vec<FollowUp> = tasks
        .into_iter()
        .zip(have_priority)
        .map(|(task, has_priority)| FollowUp { task, has_priority })
        .collect();
    let then = if has_then { adds.pop() } else { None };
    Ok(Some(FollowUpTasks { adds, then }))
}

/// Why a report's follow-up tasks are not taken at all, if so: its runner did not check their
/// limits.
pub(super) fn fault(report: &Done) -> Option<String> {
    let tasks = report.adds.len();
    let bytes: usize = report
        .adds
        .iter()
        .chain(&report.then)
        .map(|task| task.get().len())
        .sum();
    let tasks_max = limits::ADDS_MAX;
    let bytes_max = 2 * limits::ADDS_BYTES_MAX;
    (tasks > tasks_max || bytes > bytes_max).then(|| {
        format!(
            "its runner sent {tasks} tasks of {bytes} bytes to add; at most {tasks_max} and \
             {bytes_max} are taken"
        )
    })
}

/// Whether a document says a priority. If it does not, the task has that of its parent.
fn has_priority(document: &Json) -> bool {
    #[derive(Deserialize)]
    struct PriorityField {
        priority: Option<i32>,
    }
    document
        .read::<PriorityField>()
        .is_ok_and(|document| document.priority.is_some())
}
