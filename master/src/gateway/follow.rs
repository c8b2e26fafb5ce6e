//! `task:follow`: tells a feeder of tasks that end, by job from a seq on, or by ids each once; and of
//! their partial results, where it asks for them.

pub(super) mod jobs;
pub(super) mod partials;
pub(super) mod tasks;

use taskmaster_protocol::FromMaster;
use taskmaster_protocol::message::TasksEnded;
use tokio::sync::mpsc;

/// Tasks in one message, and about how many bytes: a message ends with the task that reaches them.
/// They bound what waits for somebody who does not read.
const MESSAGE_TASKS: usize = 500;
const MESSAGE_BYTES: usize = 256 << 10;

/// To the session's writer.
type Side = mpsc::Sender<FromMaster>;

/// The session is over.
struct SessionOver;

async fn send(side: &Side, message: FromMaster) -> Result<(), SessionOver> {
    side.send(message).await.map_err(|_| SessionOver)
}

async fn send_final(side: &Side, message: TasksEnded) -> Result<(), SessionOver> {
    send(side, FromMaster::Final(message)).await
}
