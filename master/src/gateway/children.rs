//! Tasks that an attempt adds, read here as those of a feeder are, so that the engine's turns stay
//! short.

use super::{Gate, add};
use taskmaster_engine::inbox::{Child, Wishes};
use taskmaster_protocol::message::Done;
use taskmaster_protocol::{Json, Refusal, limits};

/// Takes out of a report what it wants added. `None`: nothing.
pub(super) async fn take(gate: &Gate, report: &mut Done) -> Result<Option<Wishes>, Refusal> {
    let (adds, then) = (std::mem::take(&mut report.adds), report.then.take());
    if adds.is_empty() && then.is_none() {
        return Ok(None);
    }
    let bytes: usize = adds.iter().chain(&then).map(|task| task.get().len()).sum();
    let all: Vec<Json> = adds.iter().chain(&then).cloned().collect();
    let has_priority: Vec<bool> = all.iter().map(has_priority).collect();
    let tasks = add::parsed(gate, all, bytes).await?;
    let mut children: Vec<Child> = tasks
        .into_iter()
        .zip(has_priority)
        .map(|(task, has_priority)| Child { task, has_priority })
        .collect();
    let then = then.and_then(|_| children.pop());
    Ok(Some(Wishes {
        adds: children,
        then,
    }))
}

/// Why a report's wishes are not taken at all: its runner holds no limits.
pub(super) fn excess(report: &Done) -> Option<String> {
    let bytes: usize = report
        .adds
        .iter()
        .chain(&report.then)
        .map(|task| task.get().len())
        .sum();
    let (tasks, most, bytes_most) = (
        report.adds.len(),
        limits::ADDS_MAX,
        2 * limits::ADDS_BYTES_MAX,
    );
    (tasks > most || bytes > bytes_most).then(|| {
        format!("its runner sent {tasks} tasks of {bytes} bytes to add; at most {most} and {bytes_most} are taken")
    })
}

fn has_priority(document: &Json) -> bool {
    #[derive(serde::Deserialize)]
    struct Probe {
        priority: Option<i32>,
    }
    document
        .read::<Probe>()
        .is_ok_and(|probe| probe.priority.is_some())
}
