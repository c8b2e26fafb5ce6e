//! Waits for one task, or for a job, for as long as it takes: a link that breaks is made again.

use crate::cli::Span;
use crate::client::Client;
use crate::trouble::Trouble;
use crate::wire::{Finals, Hot, hot};
use taskmaster_protocol::message::Follow;
use taskmaster_protocol::{FromMaster, Json, TaskId, ToMaster};
use tokio::time::Instant;

/// Until when to wait.
pub(crate) fn deadline(timeout: Option<Span>) -> Option<Instant> {
    timeout.and_then(|span| Instant::now().checked_add(span.duration()))
}

/// `future`, but not beyond `end`.
pub(crate) async fn until<T>(
    end: Option<Instant>,
    what: &str,
    future: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let Some(end) = end else { return future.await };
    match tokio::time::timeout_at(end, future).await {
        Ok(result) => result,
        Err(_) => Err(Trouble::TimedOut(format!(
            "--wait-timeout passed; {what} goes on"
        ))),
    }
}

/// The task as it was when it had ended, as the master wrote it.
pub(crate) async fn task_end(client: &mut Client, id: &TaskId) -> Result<Json, Trouble> {
    let follow = ToMaster::Follow(Follow {
        job: None,
        ids: vec![id.clone()],
        since: None,
    });
    client.say(&follow);
    loop {
        let text = match client.hear().await {
            Ok(text) => text,
            Err(lost @ Trouble::Lost(_)) => {
                client.reconnect(&lost).await?;
                client.say(&follow);
                continue;
            }
            Err(other) => return Err(other),
        };
        if let Some(Hot::Finals(finals)) = hot(&text) {
            if let Some(task) = find(&finals, id) {
                return Ok(task);
            }
        } else if let Ok(FromMaster::Refused(refused)) = FromMaster::decode(&text) {
            return Err(refused.error.into());
        }
    }
}

fn find(finals: &Finals<'_>, id: &TaskId) -> Option<Json> {
    let task = finals.tasks.iter().find(|task| {
        serde_json::from_str::<crate::wire::Ended<'_>>(task.get())
            .is_ok_and(|ended| ended.id.0 == id.as_str())
    })?;
    Json::parse(task.get()).ok()
}
