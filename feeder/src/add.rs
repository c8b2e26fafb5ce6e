//! `add`: one task, from options.

use crate::cli::{AddOptions, Global, TaskOptions};
use crate::client::Client;
use crate::feed::new_id;
use crate::inspect::tasks::block;
use crate::output::Format;
use crate::trouble::{Endings, Trouble, exit};
use crate::waiting;
use crate::{fetch, inputs};
use bytes::Bytes;
use std::io::Read;
use taskmaster_protocol::message::Add;
use taskmaster_protocol::{
    Dependency, FromMaster, Hash, Json, Refusal, RefusalCode, Requires, Retries, TaskDocument,
    TaskId, TaskView, ToMaster, When, limits, splice,
};
use taskmaster_transport::BlobError;

/// Runs `add`. The exit code.
pub async fn run(options: &AddOptions, global: &Global) -> Result<u8, Trouble> {
    let output = global.output();
    let mut document = document(&options.task)?;
    let target = global.target()?;
    let mut client = Client::connect(target.clone()).await?;
    document.inputs = inputs::of_options(target.clone(), &options.task.inputs).await?;
    let end = waiting::deadline(options.task.wait_timeout);
    let id = add(&mut client, document).await?;
    if !options.wait {
        match output.explicit() {
            Some(Format::Json | Format::Jsonl) => output.json(&serde_json::json!({"id": id}))?,
            _ => output.line(id.as_str())?,
        }
        return Ok(exit::OK);
    }
    let task = waiting::until(
        end,
        &format!("task {id}"),
        waiting::task_end(&mut client, &id),
    )
    .await?;
    let view = read_view(&task)?;
    if let Some(folder) = &options.fetch {
        fetch::bring(&target, folder, &view.id, &view.outputs).await?;
    }
    if output.explicit().is_none() && !output.is_terminal() {
        // A script reads the bare id, with and without --wait; why it failed goes to stderr.
        output.line(id.as_str())?;
        explain(&view);
    } else {
        output.show(&task, id.as_str(), || block(&view))?;
    }
    Ok(exit_code(&view))
}

/// Adds a task and waits until it is durable. Sent again, with the same number, where the link
/// breaks.
pub async fn add(client: &mut Client, mut document: TaskDocument) -> Result<TaskId, Trouble> {
    let id = match document.id.take() {
        Some(id) => id,
        None => TaskId::new(&new_id()).map_err(|error| Trouble::Local(error.to_string()))?,
    };
    document.id = Some(id.clone());
    put_params(client, &mut document).await?;
    let message = ToMaster::Add(Add {
        batch: 1,
        job: None,
        hold: false,
        tasks: vec![Json::of(&document)],
    });
    client.say(&message);
    let mut rejection: Option<Refusal> = None;
    loop {
        let text = match client.hear().await {
            Ok(text) => text,
            Err(lost @ Trouble::Lost(_)) => {
                client.reconnect(&lost).await?;
                client.say(&message);
                continue;
            }
            Err(other) => return Err(other),
        };
        match FromMaster::decode(&text) {
            Ok(FromMaster::Rejected(rejected)) => {
                rejection = rejected.tasks.into_iter().next().map(|task| task.error)
            }
            Ok(FromMaster::Added(_)) => {
                return rejection.map_or(Ok(id), |refusal| Err(refusal.into()));
            }
            Ok(FromMaster::Refused(refused)) => return Err(refused.error.into()),
            _ => {}
        }
    }
}

/// Puts large params as a blob, so that the document only names them.
async fn put_params(client: &mut Client, document: &mut TaskDocument) -> Result<(), Trouble> {
    let Some(params) = document.params.take_if(|params| is_large(params)) else {
        return Ok(());
    };
    let hash = Hash::of(params.get().as_bytes());
    document.params = Some(splice::of_blob(&hash));
    let params = Bytes::copy_from_slice(params.get().as_bytes());
    loop {
        let blobs = client.blobs();
        let put = blobs.upload(&hash, params.clone());
        tokio::pin!(put);
        // Meanwhile the master is heard, and so are its pings.
        let lost = loop {
            tokio::select! {
                done = &mut put => match done {
                    Ok(()) => return Ok(()),
                    Err(error @ BlobError::Unreachable { .. }) => break Trouble::Lost(error.to_string()),
                    Err(error) => return Err(Trouble::Local(format!("the params cannot be put: {error}"))),
                },
                heard = client.hear() => match heard {
                    Ok(_) => {}
                    Err(lost @ Trouble::Lost(_)) => break lost,
                    Err(other) => return Err(other),
                },
            }
        };
        client.reconnect(&lost).await?;
    }
}

fn is_large(params: &Json) -> bool {
    params.get().len() > limits::PARAMS_KEPT_BYTES_MAX
}

/// The document that the options describe.
pub fn document(options: &TaskOptions) -> Result<TaskDocument, Trouble> {
    let mut document = TaskDocument::new(options.module.0.clone());
    document.id.clone_from(&options.id);
    document.params = options.params.as_deref().map(params).transpose()?;
    document.args.clone_from(&options.args);
    document.env = options.env.iter().cloned().collect();
    document.outputs = (!options.outputs.is_empty()).then(|| options.outputs.clone());
    document.job.clone_from(&options.job);
    document.priority = options.priority.unwrap_or(0);
    document.dependencies = options
        .after
        .iter()
        .map(|on| Dependency {
            on: on.clone(),
            when: When::Done,
        })
        .collect();
    document.requires = Requires {
        labels: options.labels.iter().cloned().collect(),
        slots: options.slots,
        ..Requires::default()
    };
    document.timeout_ms = options.task_timeout.map(|span| span.ms());
    document.memory_mb = options.memory_mb;
    document.retries = options.retries.map(|max| Retries {
        max,
        ..Retries::default()
    });
    document.delay_ms = options.delay.map(|span| span.ms());
    document.not_before = options.not_before;
    // The master checks it as well; here the mistake is found before anything is connected.
    let large = document.params.take_if(|params| is_large(params));
    TaskDocument::parse(Json::of(&document).get())?;
    if let Some(params) = large {
        let (is, max) = (params.get().len(), limits::PARAMS_BYTES_MAX);
        if is > max {
            let text = format!(
                "field `params` has {is} bytes, at most {max} are allowed; larger input belongs in a file"
            );
            return Err(Refusal::new(RefusalCode::TooLarge, text)
                .at("params")
                .into());
        }
        document.params = Some(params);
    }
    Ok(document)
}

/// Params as they were typed, or stdin for `-`.
fn params(text: &str) -> Result<Json, Trouble> {
    let mut read = String::new();
    let (text, place) = if text == "-" {
        std::io::stdin()
            .read_to_string(&mut read)
            .map_err(|e| Trouble::Local(format!("cannot read stdin: {e}")))?;
        (read.trim(), "what came on stdin")
    } else {
        (text.trim(), "--params")
    };
    Json::parse(text).map_err(|error| {
        let shown: String = text.chars().take(40).collect();
        Trouble::Usage(format!(
            "{place} is not JSON: {error}: `{shown}`; quote it for the shell, as in --params '{{\"width\": 200}}', and text as in --params '\"hello\"'"
        ))
    })
}

/// Reads what the master says of a task.
pub fn read_view(task: &Json) -> Result<TaskView, Trouble> {
    task.read()
        .map_err(|error| Trouble::Local(format!("the master's answer cannot be read: {error}")))
}

/// The exit code that an ended task stands for.
pub fn exit_code(view: &TaskView) -> u8 {
    let mut endings = Endings::default();
    endings.count(view.state);
    endings.exit_code()
}

/// Says on stderr why a task has no result.
pub fn explain(view: &TaskView) {
    if view.state == taskmaster_protocol::TaskState::Done {
        return;
    }
    let state = view.state.as_str();
    let mut line = format!("task {} {state}", view.id);
    if let Some(error) = &view.error {
        line = format!("{line}: {}: {}", error.kind.as_str(), error.message);
        if let Some(backtrace) = &error.backtrace {
            line = format!("{line}\n{}", backtrace.trim_end());
        }
    }
    crate::output::chat(&crate::output::text::plain(&line));
}

/// The refusal of what cannot be answered yet.
pub fn no_result(view: &TaskView) -> Trouble {
    let text = format!(
        "task {} has no result yet: it is {}",
        view.id,
        view.state.as_str()
    );
    Trouble::refused(RefusalCode::WrongState, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn of(args: &str) -> Result<String, Trouble> {
        let words = ["t", "add"].into_iter().chain(args.split_whitespace());
        let Command::Add(options) = Cli::parse_from(words).command else {
            panic!("not add")
        };
        document(&options.task).map(|document| Json::of(&document).get().to_owned())
    }

    #[test]
    fn options_become_a_document() {
        for (args, expected) in [
            ("echo", r#"{"module":"echo"}"#),
            (
                "echo --params [1,2.50]",
                r#"{"module":"echo","params":[1,2.50]}"#,
            ),
            (
                "echo --id a --job j --after b --after c --priority -3",
                r#"{"id":"a","module":"echo","priority":-3,"dependencies":[{"on":"b","when":"done"},{"on":"c","when":"done"}],"job":"j"}"#,
            ),
            (
                "echo --delay 5s --task-timeout 300ms --memory-mb 64",
                r#"{"module":"echo","timeout_ms":300,"memory_mb":64,"delay_ms":5000}"#,
            ),
            (
                "echo --label zone=eu --slots 2",
                r#"{"module":"echo","requires":{"labels":{"zone":"eu"},"slots":2}}"#,
            ),
        ] {
            assert_eq!(of(args).unwrap(), expected, "{args}");
        }
        let usage = of("echo --params hello").unwrap_err();
        assert_eq!(usage.exit_code(), exit::USAGE);
        assert!(usage.to_string().contains("'\"hello\"'"), "{usage}");
        assert_eq!(
            of("echo --memory-mb 0").unwrap_err().exit_code(),
            exit::ERROR
        );
    }
}
