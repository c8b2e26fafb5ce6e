//! Reads a module file and says what it is: its kind, its version, what it imports, what a task
//! calls in it, and whether a runner would load it. The file is validated and not compiled: nothing
//! is executed or translated, and a large file takes less than a second.
//!
//! The master inspects a file when it is dropped, and `taskmaster modules check` inspects one
//! without a master; both find the same. Both do it in a process of its own, by the crate
//! `taskmaster-confined`, because a file is made by strangers. The types of a component's function are read here, too.
//! [`Signature::arguments`] is the only place where params are compared with them: by the master
//! when a task is added, and by a runner when the task is run.

mod arguments;
mod command;
mod component;
mod entry;
mod features;
mod host;
pub mod manifest;
mod nesting;
mod path;
mod producers;
mod reach;
mod shallow;
mod signature;
mod text;
mod type_budget;
mod validate;
mod wasi;
mod wasi2;

pub use arguments::{ParamsStage, WitValue};
pub use entry::{EntryPoint, ExportedFunction};
pub use signature::{Signature, WitType};
pub use text::to_binary;
pub use type_budget::TypeBudget;

use serde::{Deserialize, Serialize};
use taskmaster_protocol::shape::ModuleCheck;
use taskmaster_protocol::{Hash, ModuleKind, ModuleName};

/// Imports and exports that are listed. The lists are shown to people and kept for each version, so
/// that they must end somewhere.
const LISTED_MAX: usize = 1_000;

/// Bytes of a name in these lists, and of a sentence about what is wrong. A file may have names of
/// 100,000 bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// What a module file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// What people and scripts are told.
    pub check: ModuleCheck,
    /// What a task calls in the file; `None` where no runner would load it.
    pub entry: Option<EntryPoint>,
}

/// The interfaces of WASI 0.2 that runners have, with their functions.
pub fn wasi_interfaces() -> &'static [(&'static str, &'static [&'static str])] {
    wasi2::INTERFACES
}

impl Inspection {
    /// What is said of a file that could not be looked into, with the reason as a sentence.
    pub fn rejected(file_stem: &str, bytes: &[u8], error: String) -> Inspection {
        let check = ModuleCheck {
            bytes: bytes.len() as u64,
            error: Some(error),
            ..ModuleCheck::of(file_stem)
        };
        Inspection { check, entry: None }
    }
}

/// Inspects `bytes`, the content of a file called `file_stem.wasm` or `file_stem.wat`. What is
/// wrong with the file stands in the `error` of the check, as a sentence.
pub fn inspect(file_stem: &str, bytes: &[u8]) -> Inspection {
    // Hashing takes a third of the time of the validation. A large file is hashed beside it.
    std::thread::scope(|scope| {
        let hasher =
            (bytes.len() >= validate::PARALLEL_BYTES_MIN).then(|| scope.spawn(|| Hash::of(bytes)));
        let mut inspection = inspect_content(file_stem, bytes);
        let hashed = hasher.and_then(|thread| thread.join().ok());
        inspection.check.version = Some(hashed.unwrap_or_else(|| Hash::of(bytes)));
        inspection
    })
}

/// [`inspect`] without the file's hash.
pub fn inspect_content(file_stem: &str, bytes: &[u8]) -> Inspection {
    let mut check = ModuleCheck {
        bytes: bytes.len() as u64,
        ..ModuleCheck::of(file_stem)
    };
    let outcome = judge(bytes, &mut check);
    // The name is checked last, because what is wrong inside the file helps people more.
    let named = |entry| {
        ModuleName::new(file_stem)
            .map(|_| entry)
            .map_err(|error| error.to_string())
    };
    let outcome = outcome.and_then(named);
    check.ok = outcome.is_ok();
    check.reach = Some(reach::reach(&check.imports)).filter(|_| check.ok);
    for names in [&mut check.imports, &mut check.exports] {
        names.truncate(LISTED_MAX);
        names.iter_mut().for_each(cut);
    }
    let entry = match outcome {
        Ok(entry) => {
            check.entry = Some(entry.describe());
            Some(entry)
        }
        Err(error) => {
            check.error = Some(error);
            None
        }
    };
    for text in [&mut check.error, &mut check.entry] {
        text.iter_mut().for_each(cut);
    }
    Inspection { check, entry }
}

/// Cuts a text for people that is too long for them.
fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
}

fn judge(bytes: &[u8], check: &mut ModuleCheck) -> Result<EntryPoint, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let binary = to_binary(bytes)?;
    let layer = text::layer(&binary)?;
    check.kind = matches!(layer, text::Layer::Component).then_some(ModuleKind::Component);
    let found = validate::validate(&binary)?;
    check.language = found.producers.language();
    check.toolchain = found.producers.toolchain();
    match layer {
        text::Layer::Component => {
            check.imports = found
                .component_imports
                .iter()
                .map(|name| (*name).to_owned())
                .collect();
            check.exports = component::exports(&found);
            component::check(&found)
        }
        text::Layer::Module => {
            let outline = found.outline();
            check.imports = outline
                .imports
                .into_iter()
                .map(|import| import.name)
                .collect();
            check.exports = outline
                .exports
                .into_iter()
                .map(|export| export.name)
                .collect();
            check.kind = check
                .exports
                .iter()
                .any(|export| export == "_start")
                .then_some(ModuleKind::Command);
            command::check(&found.outline()).map(|()| EntryPoint::Start)
        }
    }
}
