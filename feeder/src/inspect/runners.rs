//! `runners list|show|drain`.

use super::tasks::done;
use super::{moment, rows};
use crate::cli::{Global, RunnersCommand};
use crate::client::Client;
use crate::output::table::Table;
use crate::trouble::{Trouble, exit};
use taskmaster_protocol::message::{Operation, Query};
use taskmaster_protocol::shape::RunnerView;
use taskmaster_protocol::{RefusalCode, near};

/// Runs a `runners` command. The exit code.
pub async fn run(command: RunnersCommand, global: &Global) -> Result<u8, Trouble> {
    let output = global.output();
    let mut client = Client::connect(global.target()?).await?;
    match command {
        RunnersCommand::List => {
            let (raw, typed) = rows(&mut client, Query::Runners).await?;
            output.list(
                &raw,
                &typed,
                |runner: &RunnerView| runner.runner.clone(),
                table,
            )?;
        }
        RunnersCommand::Show { runner } => {
            let (raw, typed) = rows::<RunnerView>(&mut client, Query::Runners).await?;
            let Some((answer, view)) = raw
                .iter()
                .zip(&typed)
                .find(|(_, view)| view.runner == runner)
            else {
                let hint = near::hint(&runner, typed.iter().map(|view| view.runner.as_str()));
                return Err(Trouble::refused(
                    RefusalCode::UnknownRunner,
                    format!("no runner `{runner}`{hint}"),
                ));
            };
            output.show(answer, &runner, || block(view))?;
        }
        RunnersCommand::Drain { runner } => done(
            &client.operate(Operation::DrainRunner { runner }).await?,
            &output,
        )?,
    }
    Ok(exit::OK)
}

fn table(runners: &[RunnerView]) -> Table {
    let mut table = Table::new(&[
        "RUNNER", "STATE", "USED", "SLOTS", "ATTEMPTS", "FINISHED", "JOINED", "LABELS",
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

fn block(runner: &RunnerView) -> Table {
    let mut block = Table::new(&[]);
    block.pair("runner", &runner.runner);
    block.pair("state", &runner.state);
    block.pair("slots", format!("{} of {} used", runner.used, runner.slots));
    block.pair("attempts", runner.attempts);
    block.pair("finished", runner.finished);
    block.pair("joined", moment(Some(runner.joined)));
    block.pair("labels", labels(runner));
    block.pair("env", runner.offer.env.join(" "));
    block.pair("os", format!("{} {}", runner.offer.os, runner.offer.arch));
    block.pair("memory", format!("{} MiB", runner.offer.memory_mb));
    block.pair(
        "modules",
        runner
            .offer
            .modules
            .iter()
            .map(|name| name.as_str())
            .collect::<Vec<_>>()
            .join(" "),
    );
    block
}
