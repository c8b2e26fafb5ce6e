//! `modules wrap`: makes a component of a core module that exports `run` by the canonical ABI, as
//! compilers for C, Go, Rust or Zig make it. The component's world is the one in tasks/wit. What
//! the module imports of WASI preview 1 is tied to WASI 0.2.

use crate::error::CommandError;
use crate::exit;
use crate::output::text::bytes;
use crate::output::{Printer, notice};
use serde_json::json;
use std::fmt::Display;
use std::path::Path;
use taskmaster_confined::{ProcessLimits, Work};
use thiserror::Error;
use wasi_preview1_component_adapter_provider as adapter;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The world that components are made for.
const WIT: &str = include_str!("../../tasks/wit/task.wit");

/// Makes the component, in a process of its own.
pub static WRAP: Work = Work {
    name: "wrap",
    run: |_, core| component(core).map_err(|error| error.to_string()),
};

/// What that process may take. A component is little longer than its core module.
const LIMITS: ProcessLimits = ProcessLimits {
    memory_bytes: 4 << 30,
    processor_s: 120,
    output_bytes: 1 << 30,
};

/// Why no component can be made.
#[derive(Debug, Error)]
enum WrapError {
    /// The file is no module in either of WebAssembly's forms.
    #[error("{0}")]
    NotAModule(String),
    #[error("it is a component already: it can be used as it is")]
    AlreadyAComponent,
    /// The imports and exports are not those of the world.
    #[error("no component of the world taskmaster:task can be made of it: {0}")]
    DoesNotFit(String),
}

/// Runs `modules wrap` and gives the exit code.
pub fn run(core: &Path, out: &Path, printer: &Printer) -> Result<u8, CommandError> {
    let failed = |path: &Path, error: &dyn Display| {
        CommandError::Local(format!("{}: {error}", path.display()))
    };
    let read = std::fs::read(core).map_err(|error| failed(core, &error))?;
    let component = taskmaster_confined::run(&WRAP, &[], &read, &LIMITS)
        .map_err(|error| failed(core, &error))?;
    // The component is renamed into its place, so a program that watches the file sees it whole.
    let partial = out.with_extension("wasm.new");
    std::fs::write(&partial, &component).map_err(|error| failed(&partial, &error))?;
    std::fs::rename(&partial, out).map_err(|error| failed(out, &error))?;
    if printer.wants_json() {
        printer.json(&json!({"file": out, "bytes": component.len()}))?;
    } else {
        let size = bytes(component.len() as u64);
        notice(&format!("{}: a component, {size}", out.display()));
    }
    Ok(exit::OK)
}

/// The component that `core`, binary or text, becomes.
fn component(core: &[u8]) -> Result<Vec<u8>, WrapError> {
    let mut module = taskmaster_module::to_binary(core)
        .map_err(WrapError::NotAModule)?
        .into_owned();
    if module.get(4..8) != Some(&[1, 0, 0, 0]) {
        return Err(WrapError::AlreadyAComponent);
    }
    encode(&mut module)
}

fn encode(module: &mut Vec<u8>) -> Result<Vec<u8>, WrapError> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("task.wit", WIT).map_err(does_not_fit)?;
    let world = resolve
        .select_world(&[package], Some("task"))
        .map_err(does_not_fit)?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
        .map_err(does_not_fit)?;
    ComponentEncoder::default()
        .validate(true)
        // The Go runtime cannot allocate before it has started, and the adapter needs memory by
        // then.
        .realloc_via_memory_grow(true)
        .module(module)
        .and_then(|encoder| {
            encoder.adapter(
                adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                adapter::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )
        })
        .and_then(|mut encoder| encoder.encode())
        .map_err(does_not_fit)
}

/// With all of its causes: the first says only which step failed.
fn does_not_fit(error: impl Display) -> WrapError {
    WrapError::DoesNotFit(format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_module::inspect;

    const CORE: &str = r#"(module
      (import "taskmaster:task/host@1.0.0" "progress" (func (param f32 i32 i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
      (func (export "run") (param i32 i32) (result i32) (i32.const 0)))"#;

    #[test]
    fn a_core_module_becomes_a_component_that_loads() {
        let made = component(CORE.as_bytes()).unwrap();
        let check = inspect("made", &made).check;
        assert!(check.ok, "{:?}", check.error);
        assert_eq!(
            check.entry.as_deref(),
            Some("run, of the world taskmaster:task")
        );
        assert!(
            component(&made)
                .unwrap_err()
                .to_string()
                .contains("already")
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (from, to, word) in [
            (r#"(export "run")"#, "", "run"),
            (r#"(export "memory")"#, "", "memory"),
            ("\"progress\"", "\"advance\"", "advance"),
            ("(module", "(module (", "line 2"),
        ] {
            let broken = CORE.replacen(from, to, 1);
            let error = component(broken.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
