//! `call`: one task, with its result alone on stdout.

mod status;

use crate::cli::{CallOptions, GlobalOptions};
use crate::client::ClientError;
use crate::ended::print_result;
use crate::error::CommandError;
use crate::followed_task::{FollowedTask, TaskNews, watch_progress};
use crate::output::{Printer, notice};
use crate::submit::{self, SubmittedTask, SubmittedTaskEnd};
use crate::waiting::{Awaited, passed, stop_signal, timed_out};
use status::CallStatus;
use std::pin::pin;
use std::time::Duration;
use taskmaster_protocol::RefusalCode;
use taskmaster_protocol::message::PartialResult;
use tokio::time::Instant;

/// How long the end of a task that was cancelled is waited for.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// Runs `call` and gives the exit code.
pub async fn run(options: &CallOptions, global: &GlobalOptions) -> Result<u8, CommandError> {
    // This may read stdin, in which no signal is listened to.
    let document = submit::document(&options.task)?;
    let mut signal = pin!(stop_signal());
    let mut task = tokio::select! {
        biased;
        signal = &mut signal => {
            let text = "nothing was added".to_owned();
            return Err(CommandError::Interrupted { signal, text });
        }
        task = SubmittedTask::prepare(document, &options.task, global) => task?,
    };
    let printer = global.printer();
    let mut status = CallStatus::new(&task.id, &printer);
    let mut call = Call {
        options,
        printer,
        status: &mut status,
    };
    let ended = tokio::select! {
        biased;
        signal = &mut signal => Err(signal),
        ended = call.until_end(&mut task) => Ok(ended),
    };
    status.clear();
    let end = match ended {
        Ok(end) => end?,
        Err(signal) if options.detach || options.task.id.is_some() => {
            let text = Awaited::task(&task.id).goes_on();
            return Err(CommandError::Interrupted { signal, text });
        }
        Err(signal) => cancel(&mut task, signal).await?,
    };
    task.fetch(&end.view, options.fetch.as_deref()).await?;
    print_result(&task.client, &end.view, &printer).await
}

/// A call while it is waited for.
struct Call<'a> {
    options: &'a CallOptions,
    printer: Printer,
    status: &'a mut CallStatus,
}

impl Call<'_> {
    /// Adds the task and waits for its end.
    async fn until_end(
        &mut self,
        task: &mut SubmittedTask,
    ) -> Result<SubmittedTaskEnd, CommandError> {
        let is_shown = self.status.is_shown();
        let watch = is_shown.then(|| watch_progress(&task.client, &task.id));
        task.add().await?;
        let deadline = task.deadline;
        let mut followed = FollowedTask::begin(&mut task.client, &task.id, self.options.partials);
        if let Some(watch) = watch {
            followed.keep_watching(watch);
        }
        loop {
            let end = tokio::select! {
                biased;
                end = self.step(&mut followed) => end?,
                () = passed(deadline) => {
                    self.status.clear();
                    return Err(timed_out(&Awaited::task(&task.id)));
                }
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Takes what comes next, and gives the end once it is there.
    async fn step(
        &mut self,
        followed: &mut FollowedTask<'_>,
    ) -> Result<Option<SubmittedTaskEnd>, CommandError> {
        let news = tokio::select! {
            biased;
            news = followed.next() => news,
            () = self.status.due() => {
                followed.ask_why();
                self.status.asked();
                return Ok(None);
            }
        };
        match news {
            Ok(TaskNews::Ended(json)) => return Ok(Some(SubmittedTaskEnd::read(json)?)),
            Ok(TaskNews::Partial(partial)) => self.print_partial(&partial)?,
            Ok(TaskNews::Why(why)) => self.status.why(why),
            Ok(TaskNews::Progress(progress)) => self.status.progress(progress),
            Ok(TaskNews::Attempt) => self.status.new_attempt(),
            Err(lost @ ClientError::Lost(_)) => {
                self.status.clear();
                followed.reconnect(&lost).await?;
                self.status.reconnected();
            }
            Err(other) => return Err(other.into()),
        }
        Ok(None)
    }

    fn print_partial(&mut self, partial: &PartialResult) -> Result<(), CommandError> {
        self.status.clear();
        if partial.restart {
            notice(&format!(
                "attempt {} begins again: what came before is void",
                partial.attempt
            ));
        }
        if partial.missed > 0 {
            notice(&format!("{} partial results were missed", partial.missed));
        }
        self.printer
            .line(&self.printer.one_line(partial.value.get()))
    }
}

/// Cancels the task of a call that `signal` ended, and gives its end: it may have ended before.
async fn cancel(task: &mut SubmittedTask, signal: u8) -> Result<SubmittedTaskEnd, CommandError> {
    let what = Awaited::task(&task.id);
    let cancelled = tokio::select! {
        biased;
        signal = stop_signal() => Err(CommandError::Interrupted {
            signal,
            text: what.goes_on(),
        }),
        cancelled = task.cancel() => cancelled,
        () = passed(Some(Instant::now() + CANCEL_PATIENCE)) => {
            let text = format!("the master does not answer; {}", what.goes_on());
            Err(CommandError::Interrupted { signal, text })
        }
    };
    let text = match &cancelled {
        Err(CommandError::Client(ClientError::Refused(refusal)))
            if refusal.code == RefusalCode::UnknownTask =>
        {
            "nothing was added".to_owned()
        }
        Err(CommandError::Client(error)) => {
            format!("it could not be cancelled ({error}); {}", what.goes_on())
        }
        Ok(_) | Err(_) => return cancelled,
    };
    Err(CommandError::Interrupted { signal, text })
}
