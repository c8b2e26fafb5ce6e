//! Adds one task: makes its document of what was typed, puts its params and inputs, and waits until
//! it is durable.

use crate::cli::{GlobalOptions, TaskOptions};
use crate::client::{Client, ClientError, Target, read_answer};
use crate::error::CommandError;
use crate::feed::new_id;
use crate::fetch;
use crate::followed_task::task_end;
use crate::uploads;
use crate::waiting::{self, Awaited, reconnect};
use bytes::Bytes;
use std::io::Read;
use std::path::Path;
use taskmaster_protocol::message::Add;
use taskmaster_protocol::{
    CacheMode, CachePolicy, Dependency, FromMaster, Hash, Json, Refusal, RefusalCode, Requires,
    Retries, TaskDocument, TaskId, TaskView, ToMaster, When, limits, splice,
};
use taskmaster_transport::BlobError;
use tokio::time::Instant;

/// Characters of wrong params that an error shows.
const SHOWN_CHARS: usize = 40;

/// A task of the command line, with the client that adds it.
pub struct SubmittedTask {
    /// The id of the task.
    pub id: TaskId,
    /// The client that adds it.
    pub client: Client,
    /// Until when to wait for its end.
    pub deadline: Option<Instant>,
    target: Target,
    document: TaskDocument,
}

/// A task that has ended.
pub struct SubmittedTaskEnd {
    /// The task as the master wrote it.
    pub json: Json,
    /// The task as this version reads it.
    pub view: TaskView,
}

impl SubmittedTaskEnd {
    /// Reads a task that has ended.
    pub fn read(json: Json) -> Result<SubmittedTaskEnd, CommandError> {
        let view = read_answer(&json)?;
        Ok(SubmittedTaskEnd { json, view })
    }
}

impl SubmittedTask {
    /// Adds the task that the options describe, and waits until it is durable.
    pub async fn submit(
        options: &TaskOptions,
        global: &GlobalOptions,
    ) -> Result<SubmittedTask, CommandError> {
        let document = document(options)?;
        let mut task = SubmittedTask::prepare(document, options, global).await?;
        task.add().await?;
        Ok(task)
    }

    /// Connects, and puts the inputs. Nothing is added yet. `--wait-timeout` counts from the end of
    /// this.
    pub async fn prepare(
        mut document: TaskDocument,
        options: &TaskOptions,
        global: &GlobalOptions,
    ) -> Result<SubmittedTask, CommandError> {
        let target = global.target()?;
        let client = Client::connect(target.clone()).await?;
        document.inputs = uploads::of_options(target.clone(), &options.inputs).await?;
        Ok(SubmittedTask {
            id: take_id(&mut document)?,
            client,
            deadline: waiting::deadline(options.wait_timeout),
            target,
            document,
        })
    }

    /// Adds the task and waits until it is durable.
    pub async fn add(&mut self) -> Result<(), CommandError> {
        add(&mut self.client, self.document.clone()).await.map(drop)
    }

    /// Cancels the task, unless it has ended, and waits for its end.
    pub async fn cancel(&mut self) -> Result<SubmittedTaskEnd, CommandError> {
        self.client.cancel(vec![self.id.clone()], None).await?;
        let json = task_end(&mut self.client, &self.id).await?;
        SubmittedTaskEnd::read(json)
    }

    /// Brings the files of the ended task into `folder`, where that is given.
    pub async fn fetch(&self, end: &TaskView, folder: Option<&Path>) -> Result<(), CommandError> {
        if let Some(folder) = folder {
            fetch::fetch_outputs(&self.target, folder, &end.id, &end.outputs).await?;
        }
        Ok(())
    }

    /// Waits until the task has ended, and brings its files into `folder` where that is given.
    pub async fn wait(&mut self, folder: Option<&Path>) -> Result<SubmittedTaskEnd, CommandError> {
        let what = Awaited::task(&self.id);
        let end = task_end(&mut self.client, &self.id);
        let json = waiting::before(self.deadline, &what, end).await?;
        let end = SubmittedTaskEnd::read(json)?;
        self.fetch(&end.view, folder).await?;
        Ok(end)
    }
}

/// Adds a task and waits until it is durable. Where the connection breaks, the batch is sent again
/// with the number that it had, so that it is added once.
pub async fn add(client: &mut Client, mut document: TaskDocument) -> Result<TaskId, CommandError> {
    let id = take_id(&mut document)?;
    put_params(client, &mut document).await?;
    let message = ToMaster::Add(Add {
        batch: 1,
        job: None,
        hold: false,
        tasks: vec![Json::of(&document)],
    });
    client.send(&message);
    let mut rejection: Option<Refusal> = None;
    let mut others = Vec::new();
    loop {
        let text = match client.receive().await {
            Ok(text) => text,
            Err(lost @ ClientError::Lost(_)) => {
                reconnect(client, &lost).await?;
                client.send(&message);
                continue;
            }
            Err(other) => return Err(other.into()),
        };
        match FromMaster::decode(&text) {
            Ok(FromMaster::Rejected(rejected)) => {
                rejection = rejected.tasks.into_iter().next().map(|task| task.error);
            }
            Ok(FromMaster::Added(_)) => {
                client.put_back(others);
                return match rejection {
                    None => Ok(id),
                    Some(refusal) => Err(refusal.into()),
                };
            }
            Ok(FromMaster::Refused(refused)) => return Err(refused.error.into()),
            _ => others.push(text),
        }
    }
}

/// The id of a document, which gets one where it has none.
fn take_id(document: &mut TaskDocument) -> Result<TaskId, CommandError> {
    let id = match document.id.take() {
        Some(id) => id,
        None => TaskId::new(&new_id()).map_err(|error| CommandError::Local(error.to_string()))?,
    };
    document.id = Some(id.clone());
    Ok(id)
}

/// Puts large params as a blob, so that the document only names them.
async fn put_params(client: &mut Client, document: &mut TaskDocument) -> Result<(), CommandError> {
    let Some(params) = document.params.take_if(|params| is_large(params)) else {
        return Ok(());
    };
    let bytes = Bytes::copy_from_slice(params.get().as_bytes());
    let hash = Hash::of(&bytes);
    document.params = Some(splice::of_blob(&hash));
    loop {
        let blobs = client.blobs();
        let put = blobs.upload(&hash, bytes.clone());
        tokio::pin!(put);
        // While the blob is on its way the master's pings must be answered.
        let lost = loop {
            tokio::select! {
                result = &mut put => match result {
                    Ok(()) => return Ok(()),
                    Err(error @ BlobError::Unreachable { .. }) => {
                        break ClientError::Lost(error.to_string());
                    }
                    Err(error) => {
                        let text = format!("the params cannot be put: {error}");
                        return Err(CommandError::Local(text));
                    }
                },
                received = client.receive() => match received {
                    Ok(_) => {}
                    Err(lost @ ClientError::Lost(_)) => break lost,
                    Err(other) => return Err(other.into()),
                },
            }
        };
        reconnect(client, &lost).await?;
    }
}

fn is_large(params: &Json) -> bool {
    params.get().len() > limits::PARAMS_KEPT_BYTES_MAX
}

/// The document that the options describe, without its inputs.
pub fn document(options: &TaskOptions) -> Result<TaskDocument, CommandError> {
    let mut document = TaskDocument::new(options.module.0.clone());
    document.id.clone_from(&options.id);
    document.params = options.params.as_deref().map(params).transpose()?;
    document.args.clone_from(&options.args);
    document.env = options.env.iter().cloned().collect();
    document.outputs = (!options.outputs.is_empty()).then(|| options.outputs.clone());
    document.job.clone_from(&options.job);
    document.priority = options.priority.unwrap_or(0);
    document.dependencies = options.after.iter().map(after_done).collect();
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
    document.cache = cache_policy(options);
    check(&mut document)?;
    Ok(document)
}

/// What the options say about kept answers; `None` leaves it to the manifest of the module.
fn cache_policy(options: &TaskOptions) -> Option<CachePolicy> {
    if options.no_cache {
        return Some(CachePolicy::OFF);
    }
    let mode = if options.refresh {
        CacheMode::Refresh
    } else {
        CacheMode::Use
    };
    options.cache.map(|time| CachePolicy {
        mode,
        ttl_s: time.ms().div_ceil(1_000),
    })
}

fn after_done(id: &TaskId) -> Dependency {
    Dependency {
        on: id.clone(),
        when: When::Done,
    }
}

/// Finds what the master would refuse, before anything is connected.
fn check(document: &mut TaskDocument) -> Result<(), CommandError> {
    // Large params go as a blob, so they have a limit of their own.
    let large = document.params.take_if(|params| is_large(params));
    TaskDocument::parse(Json::of(document).get())?;
    let Some(params) = large else { return Ok(()) };
    let is = params.get().len();
    let max = limits::PARAMS_BYTES_MAX;
    if is > max {
        let text = format!(
            "field `params` has {is} bytes, at most {max} are allowed; \
             larger input belongs in a file"
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text)
            .at("params")
            .into());
    }
    document.params = Some(params);
    Ok(())
}

/// Params as they were typed, or what comes on stdin for `-`.
fn params(typed: &str) -> Result<Json, CommandError> {
    if typed != "-" {
        return Json::from_bytes(typed.as_bytes()).map_err(|error| {
            let shown: String = typed.trim().chars().take(SHOWN_CHARS).collect();
            CommandError::Usage(format!(
                "--params {error}: `{shown}`; quote it for the shell, \
                 as in --params '{{\"width\": 200}}', and text as in --params '\"hello\"'"
            ))
        });
    }
    let mut read = Vec::new();
    std::io::stdin()
        .read_to_end(&mut read)
        .map_err(|error| CommandError::Local(format!("cannot read stdin: {error}")))?;
    Json::from_bytes(&read)
        .map_err(|error| CommandError::Usage(format!("what came on stdin {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ClientCommand;
    use crate::exit;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: ClientCommand,
    }

    fn document_of(args: &str) -> Result<String, CommandError> {
        let words = ["t", "add"].into_iter().chain(args.split_whitespace());
        let ClientCommand::Add(options) = Cli::parse_from(words).command else {
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
                concat!(
                    r#"{"id":"a","module":"echo","priority":-3,"dependencies":["#,
                    r#"{"on":"b","when":"done"},{"on":"c","when":"done"}],"job":"j"}"#,
                ),
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
            assert_eq!(document_of(args).unwrap(), expected, "{args}");
        }
        let usage = document_of("echo --params hello").unwrap_err();
        assert_eq!(usage.exit_code(), exit::USAGE);
        assert!(usage.to_string().contains("'\"hello\"'"), "{usage}");
        let refused = document_of("echo --memory-mb 0").unwrap_err();
        assert_eq!(refused.exit_code(), exit::ERROR);
    }
}
