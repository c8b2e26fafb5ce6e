//! `runners list|show|drain`.

use super::rows::ask_rows;
use crate::cli::{GlobalOptions, RunnersCommand};
use crate::client::Client;
use crate::error::CommandError;
use crate::exit;
use crate::output::moments::{age, moment, moment_and_age};
use crate::output::table::TextTable;
use crate::output::{ListRows, Printer};
use taskmaster_protocol::message::{Operation, Query};
use taskmaster_protocol::shape::RunnerView;
use taskmaster_protocol::{RefusalCode, near};

/// Runs a `runners` command and gives the exit code.
pub async fn run(command: RunnersCommand, global: &GlobalOptions) -> Result<u8, CommandError> {
    let printer = global.printer();
    let mut client = Client::connect(global.target()?).await?;
    match command {
        RunnersCommand::List => {
            let runners = ask_rows(&mut client, Query::RUNNERS).await?;
            printer.list(&runners, |runner: &RunnerView| runner.runner.clone(), table)?;
        }
        RunnersCommand::Show { runner } => {
            let runners = ask_rows(&mut client, Query::RUNNERS).await?;
            show(&runner, &runners, &printer)?;
        }
        RunnersCommand::Drain { runner } => {
            let answer = client.operate(Operation::DrainRunner { runner }).await?;
            printer.confirm(&answer)?;
        }
    }
    Ok(exit::OK)
}

fn show(name: &str, runners: &ListRows<RunnerView>, printer: &Printer) -> Result<(), CommandError> {
    let mut rows = runners.raw.iter().zip(&runners.typed);
    let Some((answer, view)) = rows.find(|(_, view)| view.runner == name) else {
        let known = runners.typed.iter().map(|view| view.runner.as_str());
        let hint = near::hint(name, known);
        return Err(CommandError::refused(
            RefusalCode::UnknownRunner,
            format!("no runner `{name}`{hint}"),
        ));
    };
    printer.show(answer, name, || block(view))
}

fn table(runners: &[RunnerView]) -> TextTable {
    let mut table = TextTable::new(&[
        "RUNNER", "STATE", "USED", "SLOTS", "ATTEMPTS", "FINISHED", "JOINED", "AGE", "LABELS",
    ]);
    for runner in runners {
        table.row([
            runner.runner.clone(),
            runner.state.clone(),
            runner.used.to_string(),
            runner.slots.to_string(),
            runner.attempts.to_string(),
            runner.finished.to_string(),
            moment(Some(runner.joined)),
            age(runner.joined),
            labels(runner),
        ]);
    }
    table
}

fn labels(runner: &RunnerView) -> String {
    runner
        .offer
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn block(runner: &RunnerView) -> TextTable {
    let offer = &runner.offer;
    let modules: Vec<&str> = offer.modules.iter().map(|name| name.as_str()).collect();
    let mut block = TextTable::block();
    block.pair("runner", &runner.runner);
    block.pair("state", &runner.state);
    if let Some(fault) = &runner.fault {
        block.pair("fault", fault);
    }
    block.pair("slots", format!("{} of {} used", runner.used, runner.slots));
    block.pair("attempts", runner.attempts);
    block.pair("finished", runner.finished);
    block.pair("joined", moment_and_age(Some(runner.joined)));
    block.pair("labels", labels(runner));
    block.pair("env", offer.env.join(" "));
    block.pair("os", format!("{} {}", offer.os, offer.arch));
    block.pair("memory", format!("{} MiB", offer.memory_mb));
    block.pair("modules", modules.join(" "));
    block
}
