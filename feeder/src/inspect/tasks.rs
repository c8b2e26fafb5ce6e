//! `tasks list|show|result|logs|files|cancel|retry|set|why`.

use super::listing::{ListFilter, ListPages, RestOfList, TaskListFilter};
use super::many::{self, ChosenTasks, ManyAction};
use super::rows::read_rows;
use crate::cli::{GlobalOptions, TasksCommand};
use crate::client::{Client, read_answer};
use crate::ended::{block, no_result, print_result};
use crate::error::CommandError;
use crate::exit;
use crate::fetch::{OutputHashes, fetch_outputs};
use crate::output::moments::{age, moment};
use crate::output::table::TextTable;
use crate::output::text::bytes;
use crate::output::{ListRows, OutputFormat, Printer, notice};
use serde::Deserialize;
use taskmaster_console::terminal::plain;
use taskmaster_protocol::message::{Log, Query};
use taskmaster_protocol::{FilePath, Hash, Json, TaskView};

/// Runs a `tasks` command and gives the exit code.
pub async fn run(command: TasksCommand, global: &GlobalOptions) -> Result<u8, CommandError> {
    let printer = global.printer();
    let mut client = Client::connect(global.target()?).await?;
    let client = &mut client;
    match command {
        TasksCommand::List {
            job,
            state,
            module,
            limit,
        } => {
            let filter = TaskListFilter { job, state, module };
            list(client, filter, limit, &printer).await?;
        }
        TasksCommand::Show { id } => {
            let answer = client.ask_raw(Query::Task { id: id.clone() }).await?;
            let view = read_answer(&answer)?;
            printer.show(&answer, id.as_str(), || block(&view))?;
        }
        TasksCommand::Result { id } => {
            let view: TaskView = client.ask(Query::Task { id }).await?;
            if !view.state.is_final() {
                return Err(no_result(&view));
            }
            return print_result(client, &view, &printer).await;
        }
        TasksCommand::Logs { id } => {
            print_log(&client.ask(Query::Logs { id }).await?, &printer)?;
        }
        TasksCommand::Files { id, fetch } => {
            let view: TaskView = client.ask(Query::Task { id }).await?;
            if let Some(folder) = fetch {
                fetch_outputs(client.target(), &folder, &view.id, &view.outputs).await?;
            }
            print_files(&view.outputs, &printer)?;
        }
        TasksCommand::Cancel { ids, job, state } => {
            let chosen = ChosenTasks { ids, job, state };
            return many::change(client, ManyAction::Cancel, chosen, &printer).await;
        }
        TasksCommand::Retry { ids, job, state } => {
            let chosen = ChosenTasks { ids, job, state };
            return many::change(client, ManyAction::Retry, chosen, &printer).await;
        }
        TasksCommand::Set {
            id,
            priority,
            delay,
        } => {
            let delay_ms = delay.map(|span| span.ms());
            printer.confirm(&client.set(id, priority, delay_ms).await?)?;
        }
        TasksCommand::Why { id } => {
            print_why(&client.ask_raw(Query::Why { id }).await?, &printer)?;
        }
    }
    Ok(exit::OK)
}

/// Prints the list, and says on stderr where it was cut.
async fn list(
    client: &mut Client,
    filter: TaskListFilter,
    limit: usize,
    printer: &Printer,
) -> Result<(), CommandError> {
    let mut pages = ListPages::new(ListFilter::Tasks(filter));
    let mut raw = Vec::new();
    while raw.len() < limit {
        match pages.next(client, limit - raw.len()).await? {
            Some(rows) => raw.extend(rows),
            None => break,
        }
    }
    raw.truncate(limit);
    let rest = pages.rest(client).await?;
    let tasks = read_rows(raw)?;
    printer.list(&tasks, |task: &TaskView| task.id.to_string(), table)?;
    let more = match rest {
        RestOfList::Nothing => return Ok(()),
        RestOfList::More => "there are more",
        RestOfList::Unknown => "there may be more",
    };
    let shown = tasks.typed.len();
    notice(&format!(
        "the first {shown} are listed, and {more}: raise --limit"
    ));
    Ok(())
}

fn table(tasks: &[TaskView]) -> TextTable {
    let mut table = TextTable::new(&[
        "ID", "STATE", "MODULE", "JOB", "PRIORITY", "ATTEMPT", "CREATED", "AGE", "NOTE",
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
            age(task.created),
            note(task),
        ]);
    }
    table
}

fn note(task: &TaskView) -> String {
    match (&task.note, &task.error) {
        (Some(note), _) => note.clone(),
        (None, Some(error)) => format!("{}: {}", error.kind.as_str(), error.message),
        (None, None) => String::new(),
    }
}

fn print_log(log: &Log, printer: &Printer) -> Result<(), CommandError> {
    if printer.wants_json() {
        return printer.json(log);
    }
    let mut text = log.head.clone();
    if log.dropped > 0 {
        text.push_str(&format!("\n… {} left out …\n", bytes(log.dropped)));
    }
    text.push_str(&log.tail);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    printer.write(text.as_bytes())
}

fn print_files(files: &OutputHashes, printer: &Printer) -> Result<(), CommandError> {
    let json = |(path, hash)| Json::of(&serde_json::json!({"path": path, "sha256": hash}));
    let rows: ListRows<(&FilePath, &Hash)> = ListRows {
        raw: files.iter().map(json).collect(),
        typed: files.iter().collect(),
    };
    printer.list(&rows, |(path, _)| path.to_string(), file_table)
}

fn file_table(files: &[(&FilePath, &Hash)]) -> TextTable {
    let mut table = TextTable::new(&["PATH", "SHA256"]);
    for (path, hash) in files {
        table.row([path.to_string(), hash.to_string()]);
    }
    table
}

fn print_why(answer: &Json, printer: &Printer) -> Result<(), CommandError> {
    #[derive(Deserialize)]
    struct Why {
        why: String,
    }
    match printer.requested() {
        Some(OutputFormat::Json | OutputFormat::Jsonl) => {
            printer.line(&printer.one_line(answer.get()))
        }
        Some(OutputFormat::Table | OutputFormat::Quiet) | None => {
            printer.line(&plain(&read_answer::<Why>(answer)?.why))
        }
    }
}
