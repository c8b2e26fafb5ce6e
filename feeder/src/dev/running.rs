//! One run of a project's module: by a master, or, where none answers, by this binary's own
//! sandbox.

use super::process;
use super::project::Project;
use crate::client::{Client, ClientError, Target, read_answer};
use crate::ended::print_result;
use crate::error::CommandError;
use crate::exit;
use crate::followed_task::task_end;
use crate::output::{Printer, notice};
use crate::{submit, uploads};
use bytes::Bytes;
use std::time::{Duration, Instant};
use taskmaster_console::terminal::plain;
use taskmaster_protocol::message::{Log, Query};
use taskmaster_protocol::{Hash, Json, ModuleRef, Retries, TaskDocument, TaskId, TaskView};
use tokio::process::Command;

/// How long a master is looked for. Most often it is on this machine, or there is none.
const CONNECT_PATIENCE: Duration = Duration::from_millis(300);

/// Runs a project again and again.
pub(super) struct ProjectRunner {
    target: Target,
    printer: Printer,
    /// The task that was waited for when a file changed. Nobody wants its result any more.
    abandoned: Option<TaskId>,
}

impl ProjectRunner {
    /// Runs the project at the masters of `target`, if one answers.
    pub(super) fn new(target: Target, printer: Printer) -> ProjectRunner {
        ProjectRunner {
            target,
            printer,
            abandoned: None,
        }
    }

    /// Runs the module once, prints its log and its result, and gives the exit code that stands for
    /// its end. `params` replace those of params.json.
    pub(super) async fn run(
        &mut self,
        project: &Project,
        params: Option<&Json>,
    ) -> Result<u8, CommandError> {
        let params = match params {
            Some(params) => Some(params.clone()),
            None => project.params()?,
        };
        match Client::connect_within(self.target.clone(), CONNECT_PATIENCE).await {
            Ok(mut client) => self.run_at_master(&mut client, project, params).await,
            Err(ClientError::Unreachable { .. }) => run_here(project, params).await,
            Err(other) => Err(other.into()),
        }
    }

    async fn run_at_master(
        &mut self,
        client: &mut Client,
        project: &Project,
        params: Option<Json>,
    ) -> Result<u8, CommandError> {
        if let Some(id) = self.abandoned.take() {
            // It may have ended meanwhile.
            let _ = client.cancel(vec![id], None).await;
        }
        let mut document = TaskDocument::new(push_module(client, project).await?);
        document.params = params;
        document.retries = Some(Retries {
            max: 0,
            ..Retries::default()
        });
        document.inputs = uploads::of_options(self.target.clone(), &project.inputs()).await?;

        let began = Instant::now();
        let id = submit::add(client, document).await?;
        self.abandoned = Some(id.clone());
        let task = task_end(client, &id).await?;
        self.abandoned = None;
        let took = began.elapsed();

        let task: TaskView = read_answer(&task)?;
        print_log(&client.ask(Query::Logs { id }).await?);
        let code = print_result(client, &task, &self.printer).await?;
        let name = project.name();
        let state = task.state.as_str();
        let runner = task.runner.as_deref().unwrap_or("nobody");
        notice(&plain(&format!(
            "{name}: {state} in {took:.1?} by runner {runner}"
        )));
        Ok(code)
    }
}

/// Puts the module into the master's task folder, and gives the reference that names this version
/// and no other, whoever else puts one there meanwhile.
async fn push_module(client: &Client, project: &Project) -> Result<ModuleRef, CommandError> {
    let file = project.module()?;
    let failed = |reason: String| CommandError::Local(format!("{}: {reason}", file.display()));
    let bytes = std::fs::read(&file).map_err(|error| failed(error.to_string()))?;
    let found = taskmaster_confined::inspect(project.name().as_str(), &bytes);
    let found = found.map_err(|error| failed(error.to_string()))?;
    if let Some(error) = found.check.error {
        return Err(failed(error));
    }
    let hash = Hash::of(&bytes);
    let file_name = file
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    client
        .blobs()
        .put_module(&file_name, Bytes::from(bytes))
        .await?;
    ModuleRef::parse(&format!("{}@sha256:{hash}", project.name()))
        .map_err(|error| CommandError::Local(error.to_string()))
}

fn print_log(log: &Log) {
    let gap = if log.dropped > 0 { "\n…\n" } else { "" };
    let text = format!("{}{gap}{}", log.head, log.tail);
    text.lines().for_each(|line| notice(&plain(line)));
}

async fn run_here(project: &Project, params: Option<Json>) -> Result<u8, CommandError> {
    let own = std::env::current_exe().map_err(|error| CommandError::Local(error.to_string()))?;
    let mut command = Command::new(own);
    command
        .current_dir(project.folder())
        .arg("run")
        .arg(project.module()?);
    if params.is_some() {
        // Params may be longer than an argument can be.
        command.arg("--params").arg("-");
    }
    for (path, file) in project.inputs() {
        let input = format!("{path}={}", file.display());
        command.arg("--input").arg(input);
    }
    notice("no master answers: it runs here");
    let status = process::run(command, params.as_ref().map(Json::get)).await?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(exit::ERROR))
}
