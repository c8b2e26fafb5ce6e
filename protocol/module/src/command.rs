//! What a command of WASI preview 1 must export, and may import.

use crate::validate::{ExternItem, ExternShape, Outline};
use crate::wasi;

/// Names in one sentence. More would hide what the sentence says.
const NAMED_MAX: usize = 100;

/// Checks that the module can be run as a command. The error says what it lacks.
pub(crate) fn check(outline: &Outline) -> Result<(), String> {
    check_imports(&outline.imports)?;
    let export = |name: &str| {
        outline
            .exports
            .iter()
            .find(|export| export.field == name)
            .map(|export| &export.shape)
    };
    match export("_start") {
        Some(ExternShape::Function(params, results)) if params.is_empty() && results.is_empty() => {
        }
        Some(ExternShape::Function(..)) => {
            return Err("`_start` must take no parameters and give no results".into());
        }
        Some(_) => return Err("the export `_start` is no function".into()),
        None if export("_initialize").is_some() => return Err(REACTOR.into()),
        None => return Err(START.into()),
    }
    match export("memory") {
        Some(ExternShape::Memory) => Ok(()),
        Some(_) => Err("the export `memory` is no memory".into()),
        None if outline.imports.is_empty() => Ok(()),
        None => Err(
            "it imports WASI and does not export its `memory`, through which WASI speaks".into(),
        ),
    }
}

const START: &str = "it exports no `_start`: a task is a command, \
                     a program with a main function built for wasm32-wasip1";

const REACTOR: &str = "it exports `_initialize` and no `_start`: it is a library (a reactor); \
                       build it as a command, a program with a main function";

fn check_imports(imports: &[ExternItem]) -> Result<(), String> {
    let mut unknown = Vec::new();
    let mut differing = Vec::new();
    for import in imports {
        let known = if import.module == wasi::MODULE {
            wasi::signature(&import.field)
        } else {
            None
        };
        match (known, &import.shape) {
            (None, _) => unknown.push(import.name.clone()),
            (Some((params, results)), ExternShape::Function(p, r))
                if p == params && r == results => {}
            (Some(_), _) => differing.push(import.name.clone()),
        }
    }
    if !unknown.is_empty() {
        let nothing_else = "a command may import only functions of wasi_snapshot_preview1";
        return Err(format!(
            "unknown imports: {}; {nothing_else}",
            list(&unknown)
        ));
    }
    if !differing.is_empty() {
        return Err(format!(
            "imports with another type than WASI preview 1 has: {}",
            list(&differing)
        ));
    }
    Ok(())
}

/// Names for one sentence, at most a hundred of them.
pub(crate) fn list(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMED_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
