//! `call`: one task, its result alone on stdout.

use crate::add;
use crate::cli::{CallOptions, Global};
use crate::client::Client;
use crate::output::Output;
use crate::trouble::{Trouble, exit};
use crate::waiting;
use crate::{fetch, inputs};
use taskmaster_protocol::{TaskState, TaskView};

/// Runs `call`. The exit code.
pub async fn run(options: &CallOptions, global: &Global) -> Result<u8, Trouble> {
    let mut document = add::document(&options.task)?;
    let target = global.target()?;
    let mut client = Client::connect(target.clone()).await?;
    document.inputs = inputs::of_options(target.clone(), &options.task.inputs).await?;
    let end = waiting::deadline(options.task.wait_timeout);
    let id = add::add(&mut client, document).await?;
    let task = waiting::until(
        end,
        &format!("task {id}"),
        waiting::task_end(&mut client, &id),
    )
    .await?;
    let view = add::read_view(&task)?;
    if let Some(folder) = &options.fetch {
        fetch::bring(&target, folder, &view.id, &view.outputs).await?;
    }
    print_result(&client, &view, &global.output()).await
}

/// Prints the result of an ended task, or why there is none. The exit code.
pub async fn print_result(
    client: &Client,
    view: &TaskView,
    output: &Output,
) -> Result<u8, Trouble> {
    if view.state != TaskState::Done {
        if output.wants_json()
            && let Some(error) = &view.error
        {
            let line = serde_json::json!({"error": {"code": error.kind, "message": error.message, "field": null, "line": null}});
            crate::output::chat(&line.to_string());
        } else {
            add::explain(view);
        }
        return Ok(add::exit_code(view));
    }
    if let Some(hash) = &view.result_blob {
        let bytes = client
            .blobs()
            .get(hash)
            .await
            .map_err(|error| Trouble::Local(error.to_string()))?;
        output.write(&bytes)?;
        return Ok(exit::OK);
    }
    output.line(&raw(view
        .result
        .as_ref()
        .map_or("null", |result| result.get())))?;
    Ok(exit::OK)
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
