//! `modules wrap`: a core module that exports `run` by the canonical ABI, as compilers for C, Go,
//! Rust or Zig make it, becomes a component of the world in tasks/wit. What it imports of WASI
//! preview 1 is tied to WASI 0.2.

use crate::output::{Output, chat, text::bytes};
use crate::trouble::{Trouble, exit};
use std::path::Path;
use wasi_preview1_component_adapter_provider as adapter;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The world, as tools for JavaScript and Python want it in a file.
pub(crate) const WIT: &str = include_str!("../../tasks/wit/task.wit");

/// Runs `modules wrap`. The exit code.
pub(crate) fn run(core: &Path, out: &Path, output: &Output) -> Result<u8, Trouble> {
    let named = |path: &Path, why: &dyn std::fmt::Display| {
        Trouble::Local(format!("{}: {why}", path.display()))
    };
    let read = std::fs::read(core).map_err(|error| named(core, &error))?;
    let component = component(&read).map_err(|why| named(core, &why))?;
    // Beside its place and renamed: whoever watches the file sees it whole.
    let beside = out.with_extension("wasm.new");
    std::fs::write(&beside, &component).map_err(|error| named(&beside, &error))?;
    std::fs::rename(&beside, out).map_err(|error| named(out, &error))?;
    if output.wants_json() {
        output.json(&serde_json::json!({"file": out, "bytes": component.len()}))?;
    } else {
        chat(&format!(
            "{}: a component, {}",
            out.display(),
            bytes(component.len() as u64)
        ));
    }
    Ok(exit::OK)
}

/// The component that `core`, binary or text, becomes; else what is wrong with it.
fn component(core: &[u8]) -> Result<Vec<u8>, String> {
    let mut module = taskmaster_module::to_binary(core)?.into_owned();
    if module.get(4..8) != Some(&[1, 0, 0, 0]) {
        return Err("it is a component already: it can be used as it is".into());
    }
    encode(&mut module).map_err(|error| {
        format!("no component of the world taskmaster:task can be made of it: {error}")
    })
}

fn encode(module: &mut Vec<u8>) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::fmt::Display| format!("{error:#}");
    let mut resolve = Resolve::default();
    let package = resolve
        .push_str("task.wit", WIT)
        .map_err(|error| text(&error))?;
    let world = resolve
        .select_world(&[package], Some("task"))
        .map_err(|error| text(&error))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
        .map_err(|error| text(&error))?;
    let encoder = ComponentEncoder::default()
        .validate(true)
        // The Go runtime cannot allocate before it has started, and what ties it to WASI needs
        // memory by then.
        .realloc_via_memory_grow(true)
        .module(module)
        .map_err(|error| text(&error))?;
    let encoder = encoder
        .adapter(
            adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
            adapter::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
        )
        .map_err(|error| text(&error));
    encoder?.encode().map_err(|error| text(&error))
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
        assert!(component(&made).unwrap_err().contains("already"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (from, to, word) in [
            (r#"(export "run")"#, "", "run"),
            (r#"(export "memory")"#, "", "memory"),
            ("\"progress\"", "\"advance\"", "advance"),
            ("(module", "(module (", "line 2"),
        ] {
            let error = component(CORE.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
