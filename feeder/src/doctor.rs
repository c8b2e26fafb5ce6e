//! `doctor`: whether there is a master, whether it takes this client, and whether tasks can run
//! there. Each problem comes with what to do about it.

mod trial;

use crate::cli::GlobalOptions;
use crate::client::{Client, ClientError};
use crate::error::CommandError;
use crate::exit;
use crate::output::table::TextTable;
use crate::output::text::span;
use crate::output::{ListRows, OutputFormat, Printer};
use serde::Serialize;
use taskmaster_protocol::message::{Query, Status, Trouble, TroubleKind};
use taskmaster_protocol::shape::{ModuleState, ModuleView, RunnerView};
use taskmaster_protocol::{Json, PROTOCOL_VERSION};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    ok: bool,
    what: &'static str,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

impl Finding {
    fn good(what: &'static str, found: String) -> Finding {
        Finding {
            ok: true,
            what,
            found,
            advice: None,
        }
    }

    fn bad(what: &'static str, found: String, advice: &'static str) -> Finding {
        Finding {
            ok: false,
            what,
            found,
            advice: Some(advice),
        }
    }
}

/// Runs `doctor` and gives the exit code.
pub async fn run(global: &GlobalOptions) -> Result<u8, CommandError> {
    let target = global.target()?;
    let shown = target.shown();
    let token = if target.has_token() { "told" } else { "none" };
    let mut findings = Vec::new();
    let mut code = exit::OK;
    match Client::connect(target).await {
        Ok(mut client) => {
            findings.push(Finding::good("master", format!("answers at {shown}")));
            findings.push(Finding::good("token", format!("{token}, accepted")));
            findings.push(check_protocol(client.welcome().protocol));
            findings.extend(check_master(&mut client).await?);
            findings.push(trial::check_sandbox().await);
        }
        Err(error) => {
            let error = CommandError::from(error);
            code = error.exit_code();
            findings.push(Finding::bad("master", error.to_string(), advice(code)));
        }
    }
    if code == exit::OK && findings.iter().any(|finding| !finding.ok) {
        code = exit::ERROR;
    }
    // A report is for people, also where it goes into a file; scripts say -o.
    let format = global.output.unwrap_or(OutputFormat::Table);
    let rows = ListRows {
        raw: findings.iter().map(Json::of).collect(),
        typed: findings,
    };
    Printer::new(Some(format)).list(&rows, |finding| finding.what.to_owned(), table)?;
    Ok(code)
}

/// What to do where there is no connection, by the exit code of the failure.
fn advice(code: u8) -> &'static str {
    match code {
        exit::UNREACHABLE => "start one with `taskmaster up`, or set --url or TASKMASTER_URL",
        exit::USAGE => "write the address like ws://127.0.0.1:3232",
        _ => "check --token or TASKMASTER_TOKEN, and that both sides have the same version",
    }
}

fn check_protocol(protocol: u32) -> Finding {
    let found = format!("{protocol}; this program speaks {PROTOCOL_VERSION}");
    if protocol == PROTOCOL_VERSION {
        Finding::good("protocol", found)
    } else {
        Finding::bad(
            "protocol",
            found,
            "it works, without what is new: upgrade the older side",
        )
    }
}

async fn check_master(client: &mut Client) -> Result<Vec<Finding>, ClientError> {
    let status = client.ask(Query::Status).await?;
    let runners: Vec<RunnerView> = client.ask_list(Query::RUNNERS).await?;
    let modules: Vec<ModuleView> = client.ask_list(Query::MODULES).await?;
    let mut findings = vec![
        check_store(&status),
        check_runners(&runners),
        check_modules(&modules),
    ];
    let folder = |trouble: &&Trouble| trouble.kind == TroubleKind::TaskFolder;
    findings.extend(status.troubles.iter().filter(folder).map(|trouble| {
        let advice = "look at what it names; the master's log has more";
        Finding::bad("task folder", trouble.to_string(), advice)
    }));
    Ok(findings)
}

fn check_store(status: &Status) -> Finding {
    if let Some(trouble) = status.why_no_adds() {
        let advice = if trouble.kind == TroubleKind::DamagedStore {
            "stop the master and see what `taskmaster store check` says; what is sound comes out \
             with `store export` and goes into a new store with `store import`"
        } else {
            "free space on the master's disk, or let tasks that are queued end"
        };
        return Finding::bad("store", trouble.to_string(), advice);
    }
    let up = span(status.uptime_ms.saturating_mul(1_000));
    let found = format!(
        "durability {}, start {}, up for {up}",
        status.durability, status.epoch
    );
    Finding::good("store", found)
}

fn check_runners(runners: &[RunnerView]) -> Finding {
    let connected: Vec<&RunnerView> = runners
        .iter()
        .filter(|runner| runner.state == "connected")
        .collect();
    let slots = connected
        .iter()
        .map(|runner| runner.slots)
        .fold(0, u32::saturating_add);
    let others = runners.len() - connected.len();
    let sick: Vec<String> = runners.iter().filter_map(sickness).collect();
    if !sick.is_empty() {
        return Finding::bad(
            "runners",
            format!(
                "{} connected with {slots} slots; {}",
                connected.len(),
                sick.join("; ")
            ),
            "mend that machine; its runner looks again by itself, every 30 s at the latest",
        );
    }
    if connected.is_empty() && others == 0 {
        return Finding::bad(
            "runners",
            "none".into(),
            "start one with `taskmaster runner`",
        );
    }
    if connected.is_empty() {
        return Finding::bad(
            "runners",
            format!("{others}, none that takes tasks"),
            "see `taskmaster runners list`; start one with `taskmaster runner`",
        );
    }
    let mut found = format!("{} connected with {slots} slots", connected.len());
    if others > 0 {
        found.push_str(&format!("; {others} absent or draining"));
    }
    Finding::good("runners", found)
}

/// What is wrong with the machine of a runner, if anything.
fn sickness(runner: &RunnerView) -> Option<String> {
    let fault = runner.fault.as_ref()?;
    Some(format!("`{}` is sick: {fault}", runner.runner))
}

fn check_modules(modules: &[ModuleView]) -> Finding {
    let is_usable = |module: &&ModuleView| {
        let is_lost = matches!(module.state, ModuleState::Removed | ModuleState::Failed);
        module.version.is_some() && !is_lost
    };
    let usable = modules.iter().filter(is_usable).count();
    let failed =
        |module: &ModuleView| Some(format!("{}: {}", module.name, module.failure.as_ref()?));
    if let Some(first) = modules.iter().find_map(failed) {
        let count = modules
            .iter()
            .filter(|module| module.failure.is_some())
            .count();
        return Finding::bad(
            "modules",
            format!("{usable} usable; {count} cannot be executed by any runner: {first}"),
            "see `taskmaster modules list` for all of them",
        );
    }
    let rejected: Vec<&str> = modules
        .iter()
        .filter(|module| module.error.is_some())
        .map(|module| module.name.as_str())
        .collect();
    if !rejected.is_empty() {
        let names = rejected.join(", ");
        return Finding::bad(
            "modules",
            format!("{usable} usable; the newest file of {names} was rejected"),
            "see `taskmaster modules show NAME` for the reason",
        );
    }
    if usable == 0 {
        return Finding::bad(
            "modules",
            "none".into(),
            "put a .wasm or .wat file into the master's task folder, \
             or use `taskmaster modules push FILE`",
        );
    }
    Finding::good("modules", format!("{usable} usable"))
}

fn table(findings: &[Finding]) -> TextTable {
    let mut table = TextTable::block();
    for finding in findings {
        let mark = if finding.ok { "ok" } else { "FAIL" };
        table.row([
            mark.to_owned(),
            finding.what.to_owned(),
            finding.found.clone(),
        ]);
        if let Some(advice) = finding.advice {
            table.row([String::new(), String::new(), format!("→ {advice}")]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_no_runner_can_execute_is_not_well() {
        let module = |failure: Option<&str>| -> ModuleView {
            let state = if failure.is_some() { "failed" } else { "ready" };
            let version = "0".repeat(64);
            serde_json::from_value(serde_json::json!({
                "name": "m", "version": version, "kind": "command", "state": state,
                "failure": failure,
            }))
            .unwrap()
        };
        assert!(check_modules(&[module(None)]).ok);
        let found = check_modules(&[module(None), module(Some("no code may be executed"))]);
        assert!(!found.ok);
        assert_eq!(
            found.found,
            "1 usable; 1 cannot be executed by any runner: m: no code may be executed"
        );
    }

    #[test]
    fn a_master_without_runners_or_modules_is_not_well() {
        assert!(!check_runners(&[]).ok);
        assert!(!check_modules(&[]).ok);
        assert!(check_protocol(PROTOCOL_VERSION).ok);
        assert!(!check_protocol(PROTOCOL_VERSION + 1).ok);
    }
}
