//! `modules list|show|check|push|approve|rollback|pause|resume`.

use super::tasks::done;
use super::{moment, read, rows};
use crate::cli::{Global, ModulesCommand};
use crate::client::Client;
use crate::output::table::Table;
use crate::output::text::{bytes, plain};
use crate::output::{Output, chat};
use crate::trouble::{Trouble, exit};
use std::path::Path;
use taskmaster_module::manifest::Manifest;
use taskmaster_protocol::message::{Operation, Query};
use taskmaster_protocol::shape::{ModuleCheck, ModuleKind, ModuleState, ModuleView, ModuleWaiting};
use taskmaster_protocol::{Capabilities, Json, ModuleName, limits};

/// Imports and exports that a table lists; `-o json` has more.
const LISTED_MAX: usize = 50;

/// Runs a `modules` command. The exit code.
pub async fn run(command: ModulesCommand, global: &Global) -> Result<u8, Trouble> {
    let output = global.output();
    match &command {
        ModulesCommand::Check { file } => return check(file, &output),
        ModulesCommand::Wrap { core, out } => return crate::wrap::run(core, out, &output),
        _ => {}
    }
    let mut client = Client::connect(global.target()?).await?;
    let client = &mut client;
    let operation = match command {
        ModulesCommand::List => {
            let (raw, typed) = rows(client, Query::Modules).await?;
            output.list(
                &raw,
                &typed,
                |module: &ModuleView| module.name.to_string(),
                table,
            )?;
            return Ok(exit::OK);
        }
        ModulesCommand::Show { name } => {
            let answer = client.ask_raw(Query::Module { name: name.clone() }).await?;
            let view = read(&answer)?;
            output.show(&answer, name.as_str(), || block(&view))?;
            return Ok(exit::OK);
        }
        ModulesCommand::Check { file } => return check(&file, &output),
        ModulesCommand::Wrap { core, out } => return crate::wrap::run(&core, &out, &output),
        ModulesCommand::Push { file } => return push(client, &file, &output).await,
        ModulesCommand::Approve { name, version } => approval(client, name, version).await?,
        ModulesCommand::Rollback { name, version } => Operation::RollbackModule { name, version },
        ModulesCommand::Pause { name } => Operation::PauseModule { name },
        ModulesCommand::Resume { name } => Operation::ResumeModule { name },
    };
    done(&client.operate(operation).await?, &output)?;
    Ok(exit::OK)
}

fn read_file(file: &Path) -> Result<Vec<u8>, Trouble> {
    let fail = |why: String| Trouble::Local(format!("cannot read {}: {why}", file.display()));
    let size = std::fs::metadata(file)
        .map_err(|error| fail(error.to_string()))?
        .len();
    if size > limits::MODULE_BYTES_MAX {
        return Err(fail(format!(
            "it has {}, a module has at most {}",
            bytes(size),
            bytes(limits::MODULE_BYTES_MAX)
        )));
    }
    std::fs::read(file).map_err(|error| fail(error.to_string()))
}

/// Approves what is shown here: the master refuses it where the module asks for something else by
/// then.
async fn approval(
    client: &mut Client,
    name: ModuleName,
    version: Option<String>,
) -> Result<Operation, Trouble> {
    let view: ModuleView = read(&client.ask_raw(Query::Module { name: name.clone() }).await?)?;
    let meant = |waiting: &ModuleWaiting| {
        version
            .as_ref()
            .is_none_or(|pin| waiting.version.to_string().starts_with(pin.as_str()))
    };
    let waiting = view
        .waiting
        .filter(meant)
        .filter(|waiting| !waiting.asks.is_empty());
    if let Some(ModuleWaiting { version, asks, .. }) = &waiting {
        chat(&plain(&format!(
            "{name} {} may from now on reach {asks}",
            version.short()
        )));
    }
    Ok(Operation::ApproveModule {
        name,
        version,
        capabilities: waiting.map(|waiting| waiting.asks),
    })
}

/// Says whether a file would load. Needs no master.
fn check(file: &Path, output: &Output) -> Result<u8, Trouble> {
    let stem = file
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut found: ModuleCheck = taskmaster_module::inspect(&stem, &read_file(file)?).check;
    let beside = file.with_extension("toml");
    match std::fs::read_to_string(&beside).map(|text| Manifest::parse(&text)) {
        Ok(Ok(manifest)) => {
            found.description = Some(manifest.description).filter(|text| !text.is_empty());
            found.capabilities = manifest.capabilities;
        }
        Ok(Err(refusal)) if found.ok => {
            found.ok = false;
            found.error = Some(format!("the manifest {}: {refusal}", beside.display()));
        }
        Ok(Err(_)) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Trouble::Local(format!(
                "cannot read {}: {error}",
                beside.display()
            )));
        }
    }
    let name = found.name.clone();
    output.show(&Json::of(&found), &name, || check_block(&found))?;
    Ok(if found.ok { exit::OK } else { exit::ERROR })
}

fn check_block(found: &ModuleCheck) -> Table {
    let mut block = Table::new(&[]);
    block.pair("name", &found.name);
    block.pair("loads", if found.ok { "yes" } else { "no" });
    block.pair("kind", kind(found.kind));
    block.pair(
        "version",
        found
            .version
            .map_or(String::new(), |version| version.to_string()),
    );
    block.pair("error", found.error.clone().unwrap_or_default());
    block.pair("description", found.description.clone().unwrap_or_default());
    block.pair("asks for", some(&found.capabilities));
    contents(found, &mut block);
    block
}

fn some(capabilities: &Capabilities) -> String {
    if capabilities.is_empty() {
        String::new()
    } else {
        capabilities.to_string()
    }
}

/// What is in a module's file.
fn contents(found: &ModuleCheck, block: &mut Table) {
    block.pair("size", bytes(found.bytes));
    let said = [
        ("calls", &found.entry),
        ("language", &found.language),
        ("made by", &found.toolchain),
        ("may reach", &found.reach),
    ];
    for (name, value) in said {
        block.pair(name, value.as_deref().unwrap_or_default());
    }
    for (name, all) in [("imports", &found.imports), ("exports", &found.exports)] {
        for (i, one) in all.iter().take(LISTED_MAX).enumerate() {
            block.row([
                if i == 0 {
                    name.to_owned()
                } else {
                    String::new()
                },
                one.clone(),
            ]);
        }
        if all.len() > LISTED_MAX {
            block.row([
                String::new(),
                format!("and {} more", all.len() - LISTED_MAX),
            ]);
        }
    }
}

/// Puts a file into the master's task folder.
async fn push(client: &mut Client, file: &Path, output: &Output) -> Result<u8, Trouble> {
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
        .to_owned();
    if !(name.ends_with(".wasm") || name.ends_with(".wat")) {
        return Err(Trouble::Usage(format!(
            "`{name}` is no module: its name must end with .wasm or .wat"
        )));
    }
    let body = read_file(file)?;
    let answer = client
        .blobs()
        .put_module(&name, body.into())
        .await
        .map_err(|error| Trouble::Local(error.to_string()))?;
    match std::str::from_utf8(&answer)
        .ok()
        .and_then(|text| Json::parse(text).ok())
    {
        Some(answer) if output.wants_json() => {
            output.line(&crate::output::text::one_line(answer.get()))?
        }
        _ => chat(&plain(&format!("pushed {name}"))),
    }
    Ok(exit::OK)
}

fn kind(kind: Option<ModuleKind>) -> &'static str {
    match kind {
        Some(ModuleKind::Command) => "command",
        Some(ModuleKind::Component) => "component",
        None => "",
    }
}

fn state(state: ModuleState) -> &'static str {
    match state {
        ModuleState::Compiling => "compiling",
        ModuleState::Ready => "ready",
        ModuleState::Waiting => "waiting",
        ModuleState::Rejected => "rejected",
        ModuleState::Removed => "removed",
        ModuleState::Paused => "paused",
    }
}

fn table(modules: &[ModuleView]) -> Table {
    let mut table = Table::new(&["MODULE", "STATE", "KIND", "VERSION", "NOTE"]);
    for module in modules {
        table.row([
            module.name.to_string(),
            state(module.state).to_owned(),
            kind(module.kind).to_owned(),
            module
                .version
                .map_or(String::new(), |version| version.short()),
            note(module),
        ]);
    }
    table
}

/// What is wrong with it, or what it waits for.
fn note(module: &ModuleView) -> String {
    let why = module.waiting.as_ref().map(|waiting| waiting.why.clone());
    module.error.clone().or(why).unwrap_or_default()
}

fn block(module: &ModuleView) -> Table {
    let mut block = Table::new(&[]);
    block.pair("module", &module.name);
    block.pair("state", state(module.state));
    block.pair("kind", kind(module.kind));
    block.pair(
        "version",
        module
            .version
            .map_or(String::new(), |version| version.to_string()),
    );
    block.pair("error", module.error.clone().unwrap_or_default());
    block.pair(
        "waiting",
        module
            .waiting
            .as_ref()
            .map(|waiting| waiting.why.clone())
            .unwrap_or_default(),
    );
    block.pair(
        "description",
        module.description.clone().unwrap_or_default(),
    );
    block.pair("has", some(&module.capabilities));
    for (i, version) in module.versions.iter().enumerate() {
        let held = if version.held { ", held back" } else { "" };
        let (runners, size) = (version.runners.len(), bytes(version.bytes));
        let compiled = version
            .compile_us
            .map_or(String::new(), |us| format!(" (compiled in {})", lasted(us)));
        let text = format!(
            "{}  {}  {size}, on {runners} runners{compiled}, {} attempts{held}",
            version.version.short(),
            moment(Some(version.seen)),
            version.attempts
        );
        block.row([
            if i == 0 {
                "versions".to_owned()
            } else {
                String::new()
            },
            text,
        ]);
    }
    if let Some(check) = &module.check {
        contents(check, &mut block);
    }
    block
}

fn lasted(us: u64) -> String {
    if us < 1_000_000 {
        format!("{} ms", us.div_ceil(1_000))
    } else {
        format!("{:.1} s", us as f64 / 1e6)
    }
}
