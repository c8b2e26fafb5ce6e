//! `tasks list|show|result|logs|files|cancel|retry|set|why`.

use super::{moment, read};
use crate::add;
use crate::call::print_result;
use crate::cli::{Global, TasksCommand};
use crate::client::Client;
use crate::output::table::Table;
use crate::output::text::{bytes, plain, span};
use crate::output::{Format, Output};
use crate::trouble::{Trouble, exit};
use serde::Deserialize;
use std::collections::BTreeMap;
use taskmaster_protocol::message::{Cancel, ChangeTask, Log, Query, Retry};
use taskmaster_protocol::{
    FilePath, Hash, JobName, Json, ModuleName, TaskId, TaskState, TaskView, ToMaster, limits,
};

/// Runs a `tasks` command. The exit code.
pub async fn run(command: TasksCommand, global: &Global) -> Result<u8, Trouble> {
    let output = global.output();
    let mut client = Client::connect(global.target()?).await?;
    let client = &mut client;
    match command {
        TasksCommand::List {
            job,
            state,
            module,
            limit,
        } => {
            let (raw, typed) = list(client, job, state, module, limit).await?;
            output.list(&raw, &typed, |task: &TaskView| task.id.to_string(), table)?;
        }
        TasksCommand::Show { id } => {
            let answer = client.ask_raw(Query::Task { id: id.clone() }).await?;
            let view = add::read_view(&answer)?;
            output.show(&answer, id.as_str(), || block(&view))?;
        }
        TasksCommand::Result { id } => {
            let view: TaskView = client.ask(Query::Task { id }).await?;
            if !view.state.is_final() {
                return Err(add::no_result(&view));
            }
            return print_result(client, &view, &output).await;
        }
        TasksCommand::Logs { id } => print_log(&client.ask(Query::Logs { id }).await?, &output)?,
        TasksCommand::Files { id, fetch } => {
            let view = client.ask::<TaskView>(Query::Task { id }).await?;
            if let Some(folder) = fetch {
                crate::fetch::bring(&global.target()?, &folder, &view.id, &view.outputs).await?;
            }
            print_files(&view.outputs, &output)?;
        }
        TasksCommand::Cancel { ids, job } => cancel(client, ids, job, &output).await?,
        TasksCommand::Retry { ids } => {
            let answer = client
                .request(|reference| {
                    ToMaster::Retry(Retry {
                        reference,
                        ids: ids.clone(),
                    })
                })
                .await?;
            done(&answer, &output)?;
        }
        TasksCommand::Set {
            id,
            priority,
            delay,
        } => {
            let delay_ms = delay.map(|span| span.ms());
            let set = |reference| {
                ToMaster::Set(ChangeTask {
                    reference,
                    id: id.clone(),
                    priority,
                    delay_ms,
                })
            };
            done(&client.request(set).await?, &output)?;
        }
        TasksCommand::Why { id } => why(&client.ask_raw(Query::Why { id }).await?, &output)?,
    }
    Ok(exit::OK)
}

/// Cancels tasks or a job; prints what the master says of it with `-o json`.
pub async fn cancel(
    client: &mut Client,
    ids: Vec<TaskId>,
    job: Option<JobName>,
    output: &Output,
) -> Result<(), Trouble> {
    let cancel = |reference| {
        ToMaster::Cancel(Cancel {
            reference,
            ids: ids.clone(),
            job: job.clone(),
        })
    };
    done(&client.request(cancel).await?, output)
}

/// What was wished is durably done: the answer goes out only to scripts that want it.
pub(super) fn done(answer: &Json, output: &Output) -> Result<(), Trouble> {
    if output.wants_json() {
        output.line(&crate::output::text::one_line(answer.get()))
    } else {
        Ok(())
    }
}

#[derive(Deserialize)]
struct RawPage {
    rows: Vec<Json>,
    next: Option<String>,
}

async fn list(
    client: &mut Client,
    job: Option<JobName>,
    state: Option<TaskState>,
    module: Option<ModuleName>,
    limit: usize,
) -> Result<(Vec<Json>, Vec<TaskView>), Trouble> {
    let (mut raw, mut after) = (Vec::new(), None);
    while raw.len() < limit {
        let page_rows = (limit - raw.len()).min(limits::PAGE_ROWS_MAX);
        let (job, module) = (job.clone(), module.clone());
        let page: RawPage = client
            .ask(Query::Tasks {
                job,
                state,
                module,
                limit: page_rows,
                after,
            })
            .await?;
        raw.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    raw.truncate(limit);
    let typed = raw.iter().map(read).collect::<Result<_, _>>()?;
    Ok((raw, typed))
}

fn table(tasks: &[TaskView]) -> Table {
    let mut table = Table::new(&[
        "ID", "STATE", "MODULE", "JOB", "PRIORITY", "ATTEMPT", "CREATED", "NOTE",
    ]);
    for task in tasks {
        table.row([
            task.id.to_string(),
            task.state.as_str().to_owned(),
            task.module.to_string(),
            task.job.to_string(),
            task.priority.to_string(),
            task.attempt.to_string(),
            moment(Some(task.created)),
            match (&task.error, &task.note) {
                (_, Some(note)) => note.clone(),
                (Some(error), None) => format!("{}: {}", error.kind.as_str(), error.message),
                (None, None) => String::new(),
            },
        ]);
    }
    table
}

/// A task as names and values.
pub fn block(task: &TaskView) -> Table {
    let mut block = Table::new(&[]);
    block.pair("id", &task.id);
    block.pair("state", task.state.as_str());
    block.pair("module", &task.module);
    block.pair(
        "version",
        task.version
            .map_or(String::new(), |version| version.short()),
    );
    block.pair("job", &task.job);
    block.pair("priority", task.priority);
    block.pair("attempt", task.attempt);
    block.pair("runner", task.runner.clone().unwrap_or_default());
    block.pair("created", moment(Some(task.created)));
    block.pair("started", moment(task.started));
    block.pair("finished", moment(task.finished));
    block.pair(
        "result",
        task.result
            .as_ref()
            .map_or(String::new(), |result| result.get().to_owned()),
    );
    block.pair(
        "result blob",
        task.result_blob
            .map_or(String::new(), |hash| hash.to_string()),
    );
    if let Some(error) = &task.error {
        block.pair(
            "error",
            format!("{}: {}", error.kind.as_str(), error.message),
        );
        block.pair(
            "exit code",
            error.code.map_or(String::new(), |code| code.to_string()),
        );
        for (i, line) in error
            .backtrace
            .iter()
            .flat_map(|text| text.lines())
            .enumerate()
        {
            block.row([
                if i == 0 {
                    "backtrace".to_owned()
                } else {
                    String::new()
                },
                line.to_owned(),
            ]);
        }
    }
    if let Some(stats) = &task.stats {
        block.pair("ran for", span(stats.run_us));
        block.pair("memory", bytes(stats.memory_bytes));
    }
    block
}

fn print_log(log: &Log, output: &Output) -> Result<(), Trouble> {
    if output.wants_json() {
        return output.json(log);
    }
    let mut text = log.head.clone();
    if log.dropped > 0 {
        text.push_str(&format!("\n… {} left out …\n", bytes(log.dropped)));
    }
    text.push_str(&log.tail);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    // On a terminal a log must not move the cursor or rename the window.
    if output.is_terminal() {
        output.write(plain(&text).as_bytes())
    } else {
        output.write(text.as_bytes())
    }
}

fn print_files(files: &BTreeMap<FilePath, Hash>, output: &Output) -> Result<(), Trouble> {
    let raw: Vec<Json> = files
        .iter()
        .map(|(path, hash)| Json::of(&serde_json::json!({"path": path, "sha256": hash})))
        .collect();
    let typed: Vec<(&FilePath, &Hash)> = files.iter().collect();
    output.list(
        &raw,
        &typed,
        |(path, _)| path.to_string(),
        |files| {
            let mut table = Table::new(&["PATH", "SHA256"]);
            files
                .iter()
                .for_each(|(path, hash)| table.row([path.to_string(), hash.to_string()]));
            table
        },
    )
}

fn why(answer: &Json, output: &Output) -> Result<(), Trouble> {
    #[derive(Deserialize)]
    struct Why {
        why: String,
    }
    match output.explicit() {
        Some(Format::Json | Format::Jsonl) => {
            output.line(&crate::output::text::one_line(answer.get()))
        }
        _ => output.line(&plain(&read::<Why>(answer)?.why)),
    }
}
