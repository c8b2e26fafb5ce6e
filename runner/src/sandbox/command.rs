//! A WASI preview 1 command: what it imports, whether it would load, and one call of it.

use super::engine::WASI;
use super::program::{LoadError, Needs};
use super::{Guest, Sandbox};
use std::fmt::Write;
use wasmtime::{ExternType, InstancePre, Module, ModuleExport, Store};

/// The entry point of a command.
const START: &str = "_start";

/// Unknown imports listed in one refusal; the rest is counted.
const LISTED_MAX: usize = 20;

/// A command that is compiled, linked and ready to be instantiated any number of times.
pub struct Command {
    pre: InstancePre<Guest>,
    start: ModuleExport,
    needs: Needs,
}

impl Command {
    /// Links `module`; refuses what could not run, with the reason.
    pub fn link(sandbox: &Sandbox, module: &Module) -> Result<Command, LoadError> {
        refuse_unknown_imports(sandbox, module)?;
        let start = match module.get_export(START) {
            Some(ExternType::Func(ty)) if ty.params().len() == 0 && ty.results().len() == 0 => {
                module.get_export_index(START)
            }
            Some(_) => {
                return Err(LoadError(format!(
                    "its `{START}` is no function without parameters and results"
                )));
            }
            None => None,
        };
        let Some(start) = start else {
            return Err(LoadError(format!(
                "it exports no `{START}`: build it as a command (a program with `main`), not as a library"
            )));
        };
        let pre = sandbox
            .linker()
            .instantiate_pre(module)
            .map_err(|error| LoadError(format!("{error:#}")))?;
        Ok(Command {
            pre,
            start,
            needs: needs(module),
        })
    }

    /// What it could use.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// One run, from an instance of its own.
    pub(super) async fn call(&self, store: &mut Store<Guest>) -> wasmtime::Result<()> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        store.data_mut().called = true;
        let start = instance
            .get_module_export(&mut *store, &self.start)
            .and_then(wasmtime::Extern::into_func);
        let Some(start) = start else {
            wasmtime::bail!("its `{START}` is gone")
        };
        start.typed::<(), ()>(&*store)?.call_async(store, ()).await
    }
}

fn refuse_unknown_imports(sandbox: &Sandbox, module: &Module) -> Result<(), LoadError> {
    let known = |module: &str, name: &str| {
        // A definition is found by module and name; types are compared when it is linked.
        module == WASI && sandbox.knows(name)
    };
    let unknown: Vec<String> = module
        .imports()
        .filter(|import| !known(import.module(), import.name()))
        .map(|import| format!("`{}.{}`", import.module(), import.name()))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let mut text = format!(
        "it imports what no runner has: {}",
        unknown
            .iter()
            .take(LISTED_MAX)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ")
    );
    if unknown.len() > LISTED_MAX {
        let _ = write!(text, " and {} more", unknown.len() - LISTED_MAX);
    }
    text.push_str("; only WASI preview 1 (`wasi_snapshot_preview1`) can be imported");
    Err(LoadError(text))
}

fn needs(module: &Module) -> Needs {
    let imports =
        |wanted: &dyn Fn(&str) -> bool| module.imports().any(|import| wanted(import.name()));
    Needs {
        files: imports(&|name| name.starts_with("path_") || name == "fd_readdir"),
        args: imports(&|name| name.starts_with("args_")),
        env: imports(&|name| name.starts_with("environ_")),
    }
}
