//! `modules list|show|check|push|wrap|approve|rollback|pause|resume`.

mod blocks;

use super::rows::ask_rows;
use crate::cli::{GlobalOptions, ModulesCommand};
use crate::client::{Client, read_answer};
use crate::error::CommandError;
use crate::exit;
use crate::output::text::bytes;
use crate::output::{Printer, notice};
use crate::wrap;
use std::path::Path;
use taskmaster_console::terminal::plain;
use taskmaster_module::manifest::Manifest;
use taskmaster_protocol::message::{Operation, Query};
use taskmaster_protocol::shape::{ModuleCheck, ModuleView, ModuleWaiting};
use taskmaster_protocol::{Json, ModuleName, limits};

/// Runs a `modules` command and gives the exit code.
pub async fn run(command: ModulesCommand, global: &GlobalOptions) -> Result<u8, CommandError> {
    let printer = global.printer();
    match command {
        ModulesCommand::Check { file } => check(&file, &printer),
        ModulesCommand::Wrap { core, out } => wrap::run(&core, &out, &printer),
        ModulesCommand::List => {
            let modules = ask_rows(&mut connect(global).await?, Query::MODULES).await?;
            let name = |module: &ModuleView| module.name.to_string();
            printer.list(&modules, name, blocks::table)?;
            Ok(exit::OK)
        }
        ModulesCommand::Show { name } => {
            let query = Query::Module { name: name.clone() };
            let answer = connect(global).await?.ask_raw(query).await?;
            let view = read_answer(&answer)?;
            printer.show(&answer, name.as_str(), || blocks::module(&view))?;
            Ok(exit::OK)
        }
        ModulesCommand::Push { file } => push(&mut connect(global).await?, &file, &printer).await,
        ModulesCommand::Approve { name, version } => {
            let mut client = connect(global).await?;
            let operation = approval(&mut client, name, version).await?;
            operate(&mut client, operation, &printer).await
        }
        ModulesCommand::Rollback { name, version } => {
            let operation = Operation::RollbackModule { name, version };
            operate(&mut connect(global).await?, operation, &printer).await
        }
        ModulesCommand::Pause { name } => {
            let operation = Operation::PauseModule { name };
            operate(&mut connect(global).await?, operation, &printer).await
        }
        ModulesCommand::Resume { name } => {
            let operation = Operation::ResumeModule { name };
            operate(&mut connect(global).await?, operation, &printer).await
        }
    }
}

async fn connect(global: &GlobalOptions) -> Result<Client, CommandError> {
    Ok(Client::connect(global.target()?).await?)
}

async fn operate(
    client: &mut Client,
    operation: Operation,
    printer: &Printer,
) -> Result<u8, CommandError> {
    printer.confirm(&client.operate(operation).await?)?;
    Ok(exit::OK)
}

fn read_file(file: &Path) -> Result<Vec<u8>, CommandError> {
    let failed =
        |reason: String| CommandError::Local(format!("cannot read {}: {reason}", file.display()));
    let metadata = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?;
    if metadata.len() > limits::MODULE_BYTES_MAX {
        let is = bytes(metadata.len());
        let max = bytes(limits::MODULE_BYTES_MAX);
        return Err(failed(format!("it has {is}, a module has at most {max}")));
    }
    std::fs::read(file).map_err(|error| failed(error.to_string()))
}

/// Approves the capabilities that are shown here. The master refuses the approval if the module
/// asks for others by then.
async fn approval(
    client: &mut Client,
    name: ModuleName,
    version: Option<String>,
) -> Result<Operation, CommandError> {
    let view: ModuleView = client.ask(Query::Module { name: name.clone() }).await?;
    let is_meant = |waiting: &ModuleWaiting| {
        version
            .as_ref()
            .is_none_or(|prefix| waiting.version.to_string().starts_with(prefix.as_str()))
    };
    let waiting = view
        .waiting
        .filter(is_meant)
        .filter(|waiting| !waiting.asks.is_empty());
    if let Some(ModuleWaiting { version, asks, .. }) = &waiting {
        let version = version.short();
        notice(&plain(&format!(
            "{name} {version} may from now on reach {asks}"
        )));
    }
    Ok(Operation::ApproveModule {
        name,
        version,
        capabilities: waiting.map(|waiting| waiting.asks),
    })
}

/// Tells whether a file would load, without a master.
fn check(file: &Path, printer: &Printer) -> Result<u8, CommandError> {
    let stem = file
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut found = taskmaster_confined::inspect(&stem, &read_file(file)?)
        .map_err(|error| CommandError::Local(format!("{}: {error}", file.display())))?
        .check;
    add_manifest(&mut found, &file.with_extension("toml"))?;
    printer.show(&Json::of(&found), &found.name, || blocks::check(&found))?;
    Ok(if found.ok { exit::OK } else { exit::ERROR })
}

/// Adds what the manifest beside a module says, where there is one.
fn add_manifest(found: &mut ModuleCheck, manifest: &Path) -> Result<(), CommandError> {
    match std::fs::read_to_string(manifest).map(|text| Manifest::parse(&text)) {
        Ok(Ok(manifest)) => {
            found.description = Some(manifest.description).filter(|text| !text.is_empty());
            found.capabilities = manifest.capabilities;
        }
        Ok(Err(refusal)) if found.ok => {
            found.ok = false;
            found.error = Some(format!("the manifest {}: {refusal}", manifest.display()));
        }
        // What is wrong with the module itself is shown already.
        Ok(Err(_)) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            let text = format!("cannot read {}: {error}", manifest.display());
            return Err(CommandError::Local(text));
        }
    }
    Ok(())
}

/// Puts a file into the master's task folder.
async fn push(client: &mut Client, file: &Path, printer: &Printer) -> Result<u8, CommandError> {
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if !(name.ends_with(".wasm") || name.ends_with(".wat")) {
        return Err(CommandError::Usage(format!(
            "`{name}` is no module: its name must end with .wasm or .wat"
        )));
    }
    let body = read_file(file)?;
    let answer = client.blobs().put_module(name, body.into()).await?;
    let answer = std::str::from_utf8(&answer)
        .ok()
        .and_then(|text| Json::parse(text).ok());
    match answer {
        Some(answer) if printer.wants_json() => printer.line(&printer.one_line(answer.get()))?,
        _ => notice(&plain(&format!("pushed {name}"))),
    }
    Ok(exit::OK)
}
