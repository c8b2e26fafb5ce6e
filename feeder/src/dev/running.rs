//! One run of a project's module: by a master, or, where none answers, by this binary's own
//! sandbox.

use super::project::Project;
use crate::client::{Client, Target};
use crate::inspect::tasks::cancel;
use crate::output::text::plain;
use crate::output::{Output, chat};
use crate::trouble::{Trouble, exit};
use crate::{add, call, inputs, waiting};
use bytes::Bytes;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use taskmaster_protocol::message::{Log, Query};
use taskmaster_protocol::{Hash, Json, ModuleRef, Retries, TaskDocument, TaskId};

/// How long a master is looked for: most often it is on this machine, or there is none.
const PATIENCE: Duration = Duration::from_millis(300);

/// Where runs take place.
pub(super) struct Runs {
    target: Target,
    output: Output,
    /// The task that was waited for when something changed: nobody wants its result any more.
    open: Option<TaskId>,
}

impl Runs {
    /// By the masters of `target`, if one answers.
    pub(super) fn new(target: Target, output: Output) -> Runs {
        Runs {
            target,
            output,
            open: None,
        }
    }

    /// Runs the module once, and shows its log and its result. The exit code that stands for how it
    /// ended.
    pub(super) async fn run(
        &mut self,
        project: &Project,
        params: Option<&Json>,
    ) -> Result<u8, Trouble> {
        let params = match params {
            Some(params) => Some(params.clone()),
            None => project.params()?,
        };
        match Client::connect_within(self.target.clone(), PATIENCE).await {
            Ok(mut client) => self.there(&mut client, project, params).await,
            Err(Trouble::Unreachable(_)) => here(project, params).await,
            Err(other) => Err(other),
        }
    }

    async fn there(
        &mut self,
        client: &mut Client,
        project: &Project,
        params: Option<Json>,
    ) -> Result<u8, Trouble> {
        if let Some(id) = self.open.take() {
            // It may have ended meanwhile.
            let _ = cancel(client, vec![id], None, &Output::new(None)).await;
        }
        let file = project.module()?;
        let local = |why: String| Trouble::Local(format!("{}: {why}", file.display()));
        let bytes = std::fs::read(&file).map_err(|error| local(error.to_string()))?;
        let check = taskmaster_module::inspect(project.name().as_str(), &bytes).check;
        if let Some(error) = check.error {
            return Err(local(error));
        }
        let hash = Hash::of(&bytes);
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let put = client.blobs().put_module(&name, Bytes::from(bytes)).await;
        put.map_err(|error| Trouble::Local(error.to_string()))?;
        // This version and no other, whoever else drops one meanwhile.
        let module = ModuleRef::parse(&format!("{}@sha256:{hash}", project.name()));
        let module = module.map_err(|error| Trouble::Local(error.to_string()))?;
        let mut document = TaskDocument::new(module);
        document.params = params;
        document.retries = Some(Retries {
            max: 0,
            ..Retries::default()
        });
        document.inputs = inputs::of_options(self.target.clone(), &project.inputs()).await?;
        let began = Instant::now();
        let id = add::add(client, document).await?;
        self.open = Some(id.clone());
        let task = waiting::task_end(client, &id).await?;
        self.open = None;
        let took = began.elapsed();
        let view = add::read_view(&task)?;
        show_log(&client.ask(Query::Logs { id }).await?);
        let code = call::print_result(client, &view, &self.output).await?;
        let runner = view.runner.as_deref().unwrap_or("nobody");
        chat(&plain(&format!(
            "{}: {} in {took:.1?} by runner {runner}",
            project.name(),
            view.state.as_str()
        )));
        Ok(code)
    }
}

fn show_log(log: &Log) {
    let text = format!(
        "{}{}{}",
        log.head,
        if log.dropped > 0 { "\n…\n" } else { "" },
        log.tail
    );
    text.lines().for_each(|line| chat(&plain(line)));
}

async fn here(project: &Project, params: Option<Json>) -> Result<u8, Trouble> {
    let own = std::env::current_exe().map_err(|error| Trouble::Local(error.to_string()))?;
    let mut command = Command::new(own);
    command
        .current_dir(project.folder())
        .stdin(Stdio::null())
        .arg("run")
        .arg(project.module()?);
    if let Some(params) = params {
        command
            .arg("--params")
            .arg("-")
            .stdin(file_with(params.get())?);
    }
    for (path, file) in project.inputs() {
        command
            .arg("--input")
            .arg(format!("{path}={}", file.display()));
    }
    chat("no master answers: it runs here");
    let status = ended(command).await?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(exit::ERROR))
}

/// A file that holds `text` and has no name any more: params may be longer than an argument can be.
fn file_with(text: &str) -> Result<Stdio, Trouble> {
    let path =
        std::env::temp_dir().join(format!("taskmaster-dev-{}", uuid::Uuid::now_v7().simple()));
    std::fs::write(&path, text)?;
    let file = std::fs::File::open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file.into())
}

/// How a command ended. It is killed where nobody waits for it any more.
pub(super) async fn ended(mut command: Command) -> Result<ExitStatus, Trouble> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| Trouble::Local(format!("{program}: {error}"));
    let mut child = Child(command.spawn().map_err(failed)?);
    loop {
        if let Some(status) = child.0.try_wait().map_err(failed)? {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A process that does not outlive the wish for it.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        // It has ended already, mostly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
