//! Reads a module file and says what it is: its kind, its version, what it imports, and whether a runner would load
//! it. Validation is not compilation: nothing is executed, nothing is translated, a large file takes under a second.
//!
//! The master calls it when a file is dropped, `taskmaster modules check` without any master; both say the same.

#![deny(missing_docs)]

mod command;
mod features;
pub mod manifest;
mod text;
mod validate;
mod wasi;

pub use text::to_binary;

use taskmaster_protocol::shape::ModuleCheck;
use taskmaster_protocol::{Hash, ModuleKind, ModuleName};

/// What `bytes`, the content of a file called `file_stem.wasm` or `file_stem.wat`, is. Never fails: what is wrong
/// stands in `error`, as a sentence.
pub fn inspect(file_stem: &str, bytes: &[u8]) -> ModuleCheck {
    let mut check = ModuleCheck {
        ok: false,
        name: file_stem.to_owned(),
        kind: None,
        version: None,
        imports: Vec::new(),
        error: None,
    };
    // Hashing takes as long as a third of the validation: side by side where there is much.
    let outcome = std::thread::scope(|scope| {
        let hasher = (bytes.len() >= validate::PARALLEL_BYTES_MIN).then(|| scope.spawn(|| Hash::of(bytes)));
        let outcome = judge(bytes, &mut check);
        let hashed = hasher.and_then(|thread| thread.join().ok());
        check.version = Some(hashed.unwrap_or_else(|| Hash::of(bytes)));
        outcome
    });
    // The name comes last: what is wrong inside the file is the better news.
    let outcome = outcome.and_then(|()| ModuleName::new(file_stem).map(drop).map_err(|error| error.to_string()));
    check.ok = outcome.is_ok();
    check.error = outcome.err();
    check
}

fn judge(bytes: &[u8], check: &mut ModuleCheck) -> Result<(), String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let binary = to_binary(bytes)?;
    match text::layer(&binary)? {
        text::Layer::Component => {
            check.kind = Some(ModuleKind::Component);
            Err("components are not supported yet; build it as a WASI preview 1 command (target wasm32-wasip1)".into())
        }
        text::Layer::Module => {
            let outline = validate::validate(&binary)?;
            check.imports = outline.imports.iter().map(|import| import.name.clone()).collect();
            check.kind = outline.exports.iter().any(|export| export.name == "_start").then_some(ModuleKind::Command);
            command::check(&outline)
        }
    }
}
