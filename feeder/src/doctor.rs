//! `doctor`: is there a master, does it take us, can tasks run there. Each finding with what to do
//! about it.

use crate::cli::Global;
use crate::client::Client;
use crate::output::table::Table;
use crate::trouble::{Trouble, exit};
use serde::Serialize;
use taskmaster_protocol::message::{Query, Status};
use taskmaster_protocol::shape::{ModuleState, ModuleView, RunnerView};
use taskmaster_protocol::{Json, PROTOCOL_VERSION};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    ok: bool,
    what: &'static str,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// Runs `doctor`. The exit code.
pub async fn run(global: &Global) -> Result<u8, Trouble> {
    let target = global.target()?;
    let shown = target.shown();
    let token = if target.has_token() { "told" } else { "none" };
    let mut findings = Vec::new();
    let mut code = exit::OK;
    match Client::connect(target).await {
        Ok(mut client) => {
            let protocol = client.welcome().protocol;
            findings.push(well("master", format!("answers at {shown}")));
            findings.push(well("token", format!("{token}, accepted")));
            findings.push(version(protocol));
            look(&mut client, &mut findings).await?;
        }
        Err(trouble) => {
            code = trouble.exit_code();
            let advice = match code {
                exit::UNREACHABLE => {
                    "start one with `taskmaster up`, or set --url or TASKMASTER_URL"
                }
                exit::USAGE => "write the address like ws://127.0.0.1:3232",
                _ => "check --token or TASKMASTER_TOKEN, and that both sides have the same version",
            };
            findings.push(ill("master", trouble.to_string(), advice));
        }
    }
    if code == exit::OK && findings.iter().any(|finding| !finding.ok) {
        code = exit::ERROR;
    }
    let raw: Vec<Json> = findings.iter().map(Json::of).collect();
    // A report is for people also where it goes into a file; scripts say -o.
    let output = match global.output {
        Some(_) => global.output(),
        None => crate::output::Output::new(Some(crate::output::Format::Table)),
    };
    output.list(&raw, &findings, |finding| finding.what.to_owned(), table)?;
    Ok(code)
}

fn well(what: &'static str, found: String) -> Finding {
    Finding {
        ok: true,
        what,
        found,
        advice: None,
    }
}

fn ill(what: &'static str, found: String, advice: &str) -> Finding {
    Finding {
        ok: false,
        what,
        found,
        advice: Some(advice.to_owned()),
    }
}

fn version(protocol: u32) -> Finding {
    let found = format!("{protocol}; this program speaks {PROTOCOL_VERSION}");
    if protocol == PROTOCOL_VERSION {
        well("protocol", found)
    } else {
        ill(
            "protocol",
            found,
            "it works, without what is new: upgrade the older side",
        )
    }
}

async fn look(client: &mut Client, findings: &mut Vec<Finding>) -> Result<(), Trouble> {
    let status: Status = client.ask(Query::Status).await?;
    let up = crate::output::text::span(status.uptime_ms.saturating_mul(1_000));
    findings.push(match status.refusing {
        None => well(
            "store",
            format!(
                "durability {}, start {}, up for {up}",
                status.durability, status.epoch
            ),
        ),
        Some(why) => ill(
            "store",
            format!("adds are refused: {why}"),
            "free space on the master's disk, or let tasks that are queued end",
        ),
    });
    let runners: Vec<RunnerView> = client.ask(Query::Runners).await?;
    findings.push(judge_runners(&runners));
    let modules: Vec<ModuleView> = client.ask(Query::Modules).await?;
    findings.push(judge_modules(&modules));
    Ok(())
}

fn judge_runners(runners: &[RunnerView]) -> Finding {
    let able: Vec<&RunnerView> = runners
        .iter()
        .filter(|runner| runner.state == "connected")
        .collect();
    let slots: u32 = able
        .iter()
        .map(|runner| runner.slots)
        .fold(0, u32::saturating_add);
    let found = format!("{} connected with {slots} slots", able.len());
    match runners.len() - able.len() {
        0 if able.is_empty() => ill(
            "runners",
            "none".into(),
            "start one with `taskmaster runner`",
        ),
        0 => well("runners", found),
        others if able.is_empty() => ill(
            "runners",
            format!("{others}, none that takes tasks"),
            "see `taskmaster runners list`; start one with `taskmaster runner`",
        ),
        others => well("runners", format!("{found}; {others} absent or draining")),
    }
}

fn judge_modules(modules: &[ModuleView]) -> Finding {
    let usable = modules
        .iter()
        .filter(|module| module.version.is_some() && module.state != ModuleState::Removed)
        .count();
    let broken: Vec<&str> = modules
        .iter()
        .filter(|module| module.error.is_some())
        .map(|module| module.name.as_str())
        .collect();
    match (usable, broken.as_slice()) {
        (0, []) => ill(
            "modules",
            "none".into(),
            "put a .wasm or .wat file into the master's task folder, or use `taskmaster modules push FILE`",
        ),
        (_, []) => well("modules", format!("{usable} usable")),
        (_, names) => {
            let found = format!(
                "{usable} usable; the newest file of {} was rejected",
                names.join(", ")
            );
            ill(
                "modules",
                found,
                "see `taskmaster modules show NAME` for the reason",
            )
        }
    }
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new(&[]);
    for finding in findings {
        let mark = if finding.ok { "ok" } else { "FAIL" };
        table.row([
            mark.to_owned(),
            finding.what.to_owned(),
            finding.found.clone(),
        ]);
        if let Some(advice) = &finding.advice {
            table.row([String::new(), String::new(), format!("→ {advice}")]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_without_runners_or_modules_is_not_well() {
        assert!(!judge_runners(&[]).ok && !judge_modules(&[]).ok);
        assert!(version(PROTOCOL_VERSION).ok && !version(PROTOCOL_VERSION + 1).ok);
    }
}
