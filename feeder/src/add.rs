//! `add`: one task, described by options.

use crate::cli::{AddOptions, GlobalOptions};
use crate::ended::{block, exit_code, explain};
use crate::error::CommandError;
use crate::exit;
use crate::output::OutputFormat;
use crate::submit::SubmittedTask;

/// Runs `add` and gives the exit code.
pub async fn run(options: &AddOptions, global: &GlobalOptions) -> Result<u8, CommandError> {
    let printer = global.printer();
    let mut task = SubmittedTask::submit(&options.task, global).await?;
    if !options.wait {
        match printer.requested() {
            Some(OutputFormat::Json | OutputFormat::Jsonl) => {
                printer.json(&serde_json::json!({"id": task.id}))?;
            }
            Some(OutputFormat::Table | OutputFormat::Quiet) | None => {
                printer.line(task.id.as_str())?;
            }
        }
        return Ok(exit::OK);
    }
    let end = task.wait(options.fetch.as_deref()).await?;
    if printer.requested().is_none() && !printer.is_terminal() {
        // A script reads the bare id, with and without --wait.
        printer.line(task.id.as_str())?;
        explain(&end.view);
    } else {
        printer.show(&end.json, task.id.as_str(), || block(&end.view))?;
    }
    Ok(exit_code(&end.view))
}
