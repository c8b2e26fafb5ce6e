//! `cache list|show|why|stats|purge|salt`.

use super::listing::{ListFilter, ListPages};
use super::rows::read_rows;
use crate::cli::{CacheCommand, GlobalOptions, KeptAnswerOptions};
use crate::client::{Client, read_answer};
use crate::error::CommandError;
use crate::exit;
use crate::output::moments::moment_and_age;
use crate::output::table::TextTable;
use crate::output::text::{bytes, span, thousands};
use crate::output::{OutputFormat, Printer, notice};
use serde::Deserialize;
use serde_json::json;
use taskmaster_console::lines::tell;
use taskmaster_console::terminal::plain;
use taskmaster_protocol::message::{
    CacheOutcome, CacheReason, CacheStats, KeptAnswerFilter, KeptAnswerView, Operation, Query,
};
use taskmaster_protocol::shape::ModuleView;
use taskmaster_protocol::{Hash, Json, ModuleName, Salt, TaskId, limits};

/// Runs a `cache` command and gives the exit code.
pub async fn run(command: CacheCommand, global: &GlobalOptions) -> Result<u8, CommandError> {
    let printer = global.printer();
    let mut client = Client::connect(global.target()?).await?;
    let client = &mut client;
    match command {
        CacheCommand::List { which, limit } => {
            list(client, filter(which), limit, &printer).await?;
        }
        CacheCommand::Show { key } => {
            let answer = client.ask_raw(Query::KeptAnswer { key }).await?;
            let view: KeptAnswerView = read_answer(&answer)?;
            printer.show(&answer, &view.key.to_string(), || block(&view))?;
        }
        CacheCommand::Why { id } => why(client, id, &printer).await?,
        CacheCommand::Stats => {
            let answer = client.ask_raw(Query::CacheStats).await?;
            let stats = read_answer(&answer)?;
            printer.show(&answer, "", || stats_block(&stats))?;
        }
        CacheCommand::Purge { which, all: _ } => purge(client, filter(which), &printer).await?,
        CacheCommand::Salt {
            module,
            salt: None,
            remove: false,
        } => print_salt(client, module, &printer).await?,
        CacheCommand::Salt { module, salt, .. } => {
            set_salt(client, module, salt, &printer).await?;
        }
    }
    Ok(exit::OK)
}

fn filter(which: KeptAnswerOptions) -> KeptAnswerFilter {
    let KeptAnswerOptions {
        module,
        key,
        runner,
        since,
        until,
    } = which;
    KeptAnswerFilter {
        module,
        key,
        runner,
        since: since.map(|time| time.wall()),
        until: until.map(|time| time.wall()),
    }
}

/// Prints the list, and says on stderr where it was cut.
async fn list(
    client: &mut Client,
    filter: KeptAnswerFilter,
    limit: usize,
    printer: &Printer,
) -> Result<(), CommandError> {
    let mut pages = ListPages::new(ListFilter::KeptAnswers(filter));
    let mut raw = Vec::new();
    // One more than is printed tells whether there are more.
    while raw.len() <= limit {
        match pages.next(client, limit + 1 - raw.len()).await? {
            Some(rows) => raw.extend(rows),
            None => break,
        }
    }
    let has_more = raw.len() > limit;
    raw.truncate(limit);
    let rows = read_rows(raw)?;
    printer.list(&rows, |row: &KeptAnswerView| row.key.to_string(), table)?;
    if has_more {
        notice(&format!(
            "the first {limit} are listed, and there are more: raise --limit"
        ));
    }
    Ok(())
}

fn table(rows: &[KeptAnswerView]) -> TextTable {
    let mut table = TextTable::new(&["KEY", "MODULE", "VERSION", "AGE", "LEFT", "SIZE", "TASK"]);
    for row in rows {
        table.row([
            row.key.short(),
            row.module.to_string(),
            row.version
                .map(|version| version.short())
                .unwrap_or_default(),
            seconds(row.age_s),
            seconds(row.left_s),
            bytes(row.bytes),
            row.task.to_string(),
        ]);
    }
    table
}

fn seconds(count: u64) -> String {
    format!("{} s", thousands(count))
}

fn block(view: &KeptAnswerView) -> TextTable {
    let mut block = TextTable::block();
    block.pair("key", view.key);
    block.pair("module", &view.module);
    block.pair_if("version", view.version.map(|version| version.short()));
    block.pair("task", &view.task);
    block.pair("attempt", view.attempt);
    block.pair_if("runner", view.runner.as_ref());
    block.pair("made by", format!("taskmaster {}", view.engine));
    block.pair(
        "limits",
        format!("{}, {} MiB", span(view.timeout_ms * 1_000), view.memory_mb),
    );
    block.pair("kept since", moment_and_age(Some(view.stored)));
    block.pair("left", seconds(view.left_s));
    block.pair("size", bytes(view.bytes));
    block.pair_if("result", view.result.as_ref().map(|result| result.get()));
    block.pair_if("result blob", view.result_blob);
    let files = view.outputs.iter();
    block.pairs(
        "files",
        files.map(|(path, hash)| format!("{path} {}", hash.short())),
    );
    let parts = view.parts.iter();
    block.pairs("key of", parts.map(|(name, part)| format!("{name} {part}")));
    block
}

async fn why(client: &mut Client, id: TaskId, printer: &Printer) -> Result<(), CommandError> {
    let answer = client.ask_raw(Query::CacheWhy { id }).await?;
    if printer.wants_json() {
        return printer.line(&printer.one_line(answer.get()));
    }
    let reason: CacheReason = read_answer(&answer)?;
    let outcome = match reason.outcome {
        CacheOutcome::Hit => "hit",
        CacheOutcome::Joined => "joined",
        CacheOutcome::Miss => "miss",
        CacheOutcome::NotLookedUp => "not looked up",
    };
    printer.line(&plain(&format!("{outcome}: {}", reason.why)))
}

fn stats_block(stats: &CacheStats) -> TextTable {
    let CacheStats {
        entries,
        bytes: kept_bytes,
        bytes_max,
        hits,
        misses,
        joined,
        kept,
        doubtful,
        evicted,
    } = stats;
    let mut block = TextTable::block();
    block.pair("entries", thousands(*entries));
    block.pair(
        "size",
        format!(
            "{} of {} (--cache-mb)",
            bytes(*kept_bytes),
            bytes(*bytes_max)
        ),
    );
    block.pair("hits", thousands(*hits));
    block.pair("misses", thousands(*misses));
    block.pair("joined", thousands(*joined));
    block.pair("kept", thousands(*kept));
    block.pair("doubtful", thousands(*doubtful));
    block.pair("evicted", thousands(*evicted));
    block
}

/// Drops all answers of a list. Those that are kept meanwhile may stay.
async fn purge(
    client: &mut Client,
    filter: KeptAnswerFilter,
    printer: &Printer,
) -> Result<(), CommandError> {
    #[derive(Deserialize)]
    struct Row {
        key: Hash,
    }
    #[derive(Deserialize)]
    struct Dropped {
        dropped: u64,
    }
    let mut dropped = 0;
    let mut pages = ListPages::new(ListFilter::KeptAnswers(filter));
    while let Some(rows) = pages.next(client, limits::KEYS_DROPPED_MAX).await? {
        if rows.is_empty() {
            continue;
        }
        let rows = read_rows::<Row>(rows)?.typed;
        let keys = rows.into_iter().map(|row| row.key).collect();
        let answer = client.operate(Operation::DropAnswers { keys }).await?;
        dropped += read_answer::<Dropped>(&answer)?.dropped;
    }
    tell(format_args!("dropped: {}", thousands(dropped)));
    printer.confirm(&Json::of(&json!({ "dropped": dropped })))
}

async fn print_salt(
    client: &mut Client,
    name: ModuleName,
    printer: &Printer,
) -> Result<(), CommandError> {
    let view: ModuleView = client.ask(Query::Module { name: name.clone() }).await?;
    match (printer.requested(), view.salt) {
        (Some(OutputFormat::Json | OutputFormat::Jsonl), salt) => {
            printer.json(&json!({ "salt": salt }))
        }
        (Some(OutputFormat::Table | OutputFormat::Quiet) | None, Some(salt)) => {
            printer.line(&plain(&salt))
        }
        (Some(OutputFormat::Table | OutputFormat::Quiet) | None, None) => {
            notice(&format!("the module `{name}` has no salt"));
            Ok(())
        }
    }
}

async fn set_salt(
    client: &mut Client,
    name: ModuleName,
    salt: Option<Salt>,
    printer: &Printer,
) -> Result<(), CommandError> {
    let operation = Operation::SaltModule { name, salt };
    printer.confirm(&client.operate(operation).await?)
}
