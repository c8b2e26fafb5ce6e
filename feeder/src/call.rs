//! `call`: one task, with its result alone on stdout.

use crate::cli::{CallOptions, GlobalOptions};
use crate::ended::print_result;
use crate::error::CommandError;
use crate::submit::SubmittedTask;

/// Runs `call` and gives the exit code.
pub async fn run(options: &CallOptions, global: &GlobalOptions) -> Result<u8, CommandError> {
    let mut task = SubmittedTask::submit(&options.task, global).await?;
    let end = task.wait(options.fetch.as_deref()).await?;
    print_result(&task.client, &end.view, &global.printer()).await
}
