//! Waits for the end of a task, however long it takes: a connection that breaks is made again.

use crate::cli::TimeSpan;
use crate::client::{Client, ClientError};
use crate::error::CommandError;
use crate::output::notice;
use crate::wire::{FinalMessage, FinalTask, HotMessage, read_hot};
use taskmaster_protocol::message::Follow;
use taskmaster_protocol::{FromMaster, Json, TaskId, ToMaster};
use tokio::time::Instant;

/// The end of a wait that began now. `None`: it has no end.
pub fn deadline(timeout: Option<TimeSpan>) -> Option<Instant> {
    timeout.and_then(|span| Instant::now().checked_add(span.duration()))
}

/// What `future` gives, or an error once `deadline` has passed. `what` is what goes on then.
pub async fn before<T>(
    deadline: Option<Instant>,
    what: &str,
    future: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, CommandError> {
    let Some(deadline) = deadline else {
        return Ok(future.await?);
    };
    match tokio::time::timeout_at(deadline, future).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(CommandError::TimedOut(format!(
            "--wait-timeout passed; {what} goes on"
        ))),
    }
}

/// Connects again after `lost`, and tells people so.
pub async fn reconnect(client: &mut Client, lost: &ClientError) -> Result<(), ClientError> {
    notice(&format!("{lost}; connecting again …"));
    client.reconnect().await?;
    notice("connected again");
    Ok(())
}

/// Waits until a task has ended, and gives it as the master wrote it.
pub async fn task_end(client: &mut Client, id: &TaskId) -> Result<Json, ClientError> {
    let follow = ToMaster::Follow(Follow {
        job: None,
        ids: vec![id.clone()],
        since: None,
    });
    client.send(&follow);
    loop {
        let text = match client.receive().await {
            Ok(text) => text,
            Err(lost @ ClientError::Lost(_)) => {
                reconnect(client, &lost).await?;
                client.send(&follow);
                continue;
            }
            Err(other) => return Err(other),
        };
        if let Some(HotMessage::Final(message)) = read_hot(&text) {
            if let Some(task) = find(id, &message) {
                return Ok(task);
            }
        } else if let Ok(FromMaster::Refused(refused)) = FromMaster::decode(&text) {
            return Err(refused.error.into());
        }
    }
}

fn find(id: &TaskId, message: &FinalMessage<'_>) -> Option<Json> {
    let task = message.tasks.iter().find(|task| {
        serde_json::from_str::<FinalTask<'_>>(task.get())
            .is_ok_and(|ended| ended.id.0 == id.as_str())
    })?;
    Json::parse(task.get()).ok()
}
