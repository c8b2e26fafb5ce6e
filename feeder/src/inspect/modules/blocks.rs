//! Modules as tables, and as names and values.

use crate::output::moments::moment_and_age;
use crate::output::table::TextTable;
use crate::output::text::bytes;
use taskmaster_protocol::Capabilities;
use taskmaster_protocol::shape::{ModuleCheck, ModuleKind, ModuleState, ModuleVersion, ModuleView};

/// Imports and exports that a block lists; `-o json` has all.
const LISTED_MAX: usize = 50;

/// Modules, one a row.
pub fn table(modules: &[ModuleView]) -> TextTable {
    let mut table = TextTable::new(&["MODULE", "STATE", "KIND", "VERSION", "NOTE"]);
    for module in modules {
        let version = module.version.map(|version| version.short());
        table.row([
            module.name.to_string(),
            state(module.state).to_owned(),
            kind(module.kind).to_owned(),
            version.unwrap_or_default(),
            note(module),
        ]);
    }
    table
}

/// One module with its versions.
pub fn module(module: &ModuleView) -> TextTable {
    let waiting = module.waiting.as_ref();
    let mut block = TextTable::block();
    block.pair("module", &module.name);
    block.pair("state", state(module.state));
    block.pair("kind", kind(module.kind));
    block.pair_if("version", module.version);
    block.pair_if("error", module.error.as_ref());
    block.pair_if("failure", module.failure.as_ref());
    block.pair_if("waiting", waiting.map(|waiting| &waiting.why));
    block.pair_if("salt", module.salt.as_ref());
    block.pair_if("description", module.description.as_ref());
    block.pair("has", listed(&module.capabilities));
    block.pairs("versions", module.versions.iter().map(version));
    if let Some(check) = &module.check {
        push_contents(&mut block, check);
    }
    block
}

/// A file that may become a module.
pub fn check(found: &ModuleCheck) -> TextTable {
    let mut block = TextTable::block();
    block.pair("name", &found.name);
    block.pair("loads", if found.ok { "yes" } else { "no" });
    block.pair("kind", kind(found.kind));
    block.pair_if("version", found.version);
    block.pair_if("error", found.error.as_ref());
    block.pair_if("description", found.description.as_ref());
    block.pair("asks for", listed(&found.capabilities));
    push_contents(&mut block, found);
    block
}

/// Adds what was found in a module's file.
fn push_contents(block: &mut TextTable, found: &ModuleCheck) {
    block.pair("size", bytes(found.bytes));
    block.pair_if("calls", found.entry.as_ref());
    block.pair_if("language", found.language.as_ref());
    block.pair_if("made by", found.toolchain.as_ref());
    block.pair_if("may reach", found.reach.as_ref());
    push_names(block, "imports", &found.imports);
    push_names(block, "exports", &found.exports);
}

fn push_names(block: &mut TextTable, heading: &str, names: &[String]) {
    block.pairs(heading, names.iter().take(LISTED_MAX).cloned());
    if names.len() > LISTED_MAX {
        let more = names.len() - LISTED_MAX;
        block.row([String::new(), format!("and {more} more")]);
    }
}

fn listed(capabilities: &Capabilities) -> String {
    if capabilities.is_empty() {
        String::new()
    } else {
        capabilities.to_string()
    }
}

fn version(version: &ModuleVersion) -> String {
    let compiled = match version.compile_us {
        Some(us) => format!(" (compiled in {})", compile_time(us)),
        None => String::new(),
    };
    format!(
        "{}  {}  {}, on {} runners{compiled}, {} attempts{}",
        version.version.short(),
        moment_and_age(Some(version.seen)),
        bytes(version.bytes),
        version.runners.len(),
        version.attempts,
        if version.held { ", held back" } else { "" },
    )
}

fn compile_time(us: u64) -> String {
    if us < 1_000_000 {
        format!("{} ms", us.div_ceil(1_000))
    } else {
        format!("{:.1} s", us as f64 / 1e6)
    }
}

/// What is wrong with a module, or what it waits for.
fn note(module: &ModuleView) -> String {
    let waiting = module.waiting.as_ref().map(|waiting| waiting.why.clone());
    let failure = module.failure.clone();
    module
        .error
        .clone()
        .or(failure)
        .or(waiting)
        .unwrap_or_default()
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
        ModuleState::Failed => "failed",
        ModuleState::Waiting => "waiting",
        ModuleState::Rejected => "rejected",
        ModuleState::Removed => "removed",
        ModuleState::Paused => "paused",
    }
}
