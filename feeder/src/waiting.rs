//! Waiting: until when, what cuts it short, and what people are told then.

use crate::cli::TimeSpan;
use crate::client::{Client, ClientError};
use crate::error::CommandError;
use crate::output::notice;
use taskmaster_protocol::{JobName, TaskId};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// The end of a wait that began now. `None`: it has no end.
pub fn deadline(timeout: Option<TimeSpan>) -> Option<Instant> {
    timeout.and_then(|span| Instant::now().checked_add(span.duration()))
}

/// What is waited for, in the words that people need when the wait is cut short.
pub struct Awaited {
    /// As in `task t1`.
    pub name: String,
    /// What to type to see how it ended.
    pub later: String,
    /// What to type to end it.
    pub cancel: String,
}

impl Awaited {
    /// A task.
    pub fn task(id: &TaskId) -> Awaited {
        Awaited {
            name: format!("task {id}"),
            later: format!("taskmaster tasks result {id}"),
            cancel: format!("taskmaster tasks cancel {id}"),
        }
    }

    /// A job.
    pub fn job(job: &JobName) -> Awaited {
        Awaited {
            name: format!("job {job}"),
            later: format!("taskmaster jobs wait {job}"),
            cancel: format!("taskmaster jobs cancel {job}"),
        }
    }

    /// What goes on, and how to come back to it or to end it.
    pub fn goes_on(&self) -> String {
        format!(
            "{} goes on: `{}` waits for it, `{}` ends it",
            self.name, self.later, self.cancel
        )
    }
}

/// What `future` gives, or an error once `deadline` has passed or a signal has come.
pub async fn before<T>(
    deadline: Option<Instant>,
    what: &Awaited,
    future: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, CommandError> {
    tokio::select! {
        biased;
        result = future => Ok(result?),
        () = passed(deadline) => Err(timed_out(what)),
        signal = stop_signal() => Err(CommandError::Interrupted {
            signal,
            text: what.goes_on(),
        }),
    }
}

/// Waits until `deadline` has passed. `None`: for ever.
pub async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The error of a wait whose deadline has passed.
pub fn timed_out(what: &Awaited) -> CommandError {
    let goes_on = what.goes_on();
    CommandError::TimedOut(format!("--wait-timeout passed; {goes_on}"))
}

/// Waits for Ctrl-C or SIGTERM, and gives the signal's number. Without a listener there is none to
/// wait for.
pub async fn stop_signal() -> u8 {
    async fn received(kind: SignalKind) -> u8 {
        match signal(kind) {
            Ok(mut listener) => {
                listener.recv().await;
                u8::try_from(kind.as_raw_value()).unwrap_or_default()
            }
            Err(_) => std::future::pending().await,
        }
    }
    tokio::select! {
        number = received(SignalKind::interrupt()) => number,
        number = received(SignalKind::terminate()) => number,
    }
}

/// Connects again after `lost`, and tells people so.
pub async fn reconnect(client: &mut Client, lost: &ClientError) -> Result<(), ClientError> {
    notice(&format!("{lost}; connecting again …"));
    client.reconnect().await?;
    notice("connected again");
    Ok(())
}
