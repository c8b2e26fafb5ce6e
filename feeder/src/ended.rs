//! A task that has ended, as commands show it: its result, its error, its exit code.

use crate::client::Client;
use crate::error::CommandError;
use crate::exit::{self, EndCounts};
use crate::output::moments::moment_and_age;
use crate::output::table::TextTable;
use crate::output::text::{bytes, span};
use crate::output::{Printer, notice};
use serde_json::json;
use taskmaster_console::terminal::plain;
use taskmaster_protocol::shape::AnswerSource;
use taskmaster_protocol::shape::PartialView;
use taskmaster_protocol::{RefusalCode, TaskState, TaskView};

/// The exit code that an ended task stands for.
pub fn exit_code(task: &TaskView) -> u8 {
    let mut counts = EndCounts::default();
    counts.count(task.state);
    counts.exit_code()
}

/// Prints the result of an ended task, or why there is none, and gives the exit code.
pub async fn print_result(
    client: &Client,
    task: &TaskView,
    printer: &Printer,
) -> Result<u8, CommandError> {
    if task.state != TaskState::Done {
        print_failure(task, printer);
        return Ok(exit_code(task));
    }
    if let Some(hash) = &task.result_blob {
        let bytes = client.blobs().get(hash).await?;
        printer.write(&bytes)?;
    } else {
        let result = task.result.as_ref().map_or("null", |result| result.get());
        printer.line(&raw(result))?;
    }
    Ok(exit::OK)
}

fn print_failure(task: &TaskView, printer: &Printer) {
    match &task.error {
        Some(error) if printer.wants_json() => {
            let error = json!({
                "code": error.kind,
                "message": error.message,
                "field": null,
                "line": null,
            });
            notice(&json!({"error": error}).to_string());
        }
        _ => explain(task),
    }
}

/// Tells people on stderr why an ended task has no result. A task that is done has one.
pub fn explain(task: &TaskView) {
    if task.state == TaskState::Done {
        return;
    }
    let mut line = format!("task {} {}", task.id, task.state.as_str());
    if let Some(error) = &task.error {
        line.push_str(&format!(": {}: {}", error.kind.as_str(), error.message));
        if let Some(backtrace) = &error.backtrace {
            line.push_str(&format!("\n{}", backtrace.trim_end()));
        }
    }
    notice(&plain(&line));
}

/// The refusal of a question for the result of a task that has not ended.
pub fn no_result(task: &TaskView) -> CommandError {
    let state = task.state.as_str();
    CommandError::refused(
        RefusalCode::WrongState,
        format!("task {} has no result yet: it is {state}", task.id),
    )
}

/// A task as names and values.
pub fn block(task: &TaskView) -> TextTable {
    let mut block = TextTable::block();
    block.pair("id", &task.id);
    block.pair("state", task.state.as_str());
    block.pair("module", &task.module);
    block.pair_if("version", task.version.map(|version| version.short()));
    block.pair("job", &task.job);
    block.pair("priority", task.priority);
    block.pair("attempt", task.attempt);
    block.pair_if("runner", task.runner.as_ref());
    block.pair("created", moment_and_age(Some(task.created)));
    block.pair("started", moment_and_age(task.started));
    block.pair("finished", moment_and_age(task.finished));
    block.pair_if("result", task.result.as_ref().map(|result| result.get()));
    block.pair_if("result blob", task.result_blob);
    if let Some(partial) = &task.partial {
        let PartialView { attempt, n, .. } = partial;
        let given = moment_and_age(Some(partial.time));
        block.pair("partial", partial.value.get());
        block.pair("given", format!("{given}, number {n} of attempt {attempt}"));
    }
    block.pair_if("answer", task.cached.as_ref().map(source));
    if let Some(error) = &task.error {
        let kind = error.kind.as_str();
        block.pair("error", format!("{kind}: {}", error.message));
        block.pair_if("exit code", error.code);
        let backtrace = error.backtrace.as_deref().unwrap_or_default();
        block.pairs("backtrace", backtrace.lines().map(str::to_owned));
    }
    if let Some(stats) = &task.stats {
        block.pair("ran for", span(stats.run_us));
        block.pair("memory", bytes(stats.memory_bytes));
    }
    block
}

/// Where the answer of a task comes from that did not run.
fn source(cached: &AnswerSource) -> String {
    let AnswerSource {
        from,
        age_s,
        joined,
    } = cached;
    if *joined {
        format!("shared with task {from}, which ran")
    } else {
        format!("kept from task {from}, {age_s} s old")
    }
}

/// A JSON string as its text, any other JSON as it is.
fn raw(json: &str) -> String {
    if json.starts_with('"') {
        serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
    } else {
        json.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_is_raw_and_json_is_as_it_was_written() {
        for (json, printed) in [
            (r#""a\nb""#, "a\nb"),
            ("{\"a\": 1.50}", "{\"a\": 1.50}"),
            ("null", "null"),
            ("7", "7"),
        ] {
            assert_eq!(super::raw(json), printed);
        }
    }
}
