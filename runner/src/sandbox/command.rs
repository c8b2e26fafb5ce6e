//! A WASI preview 1 command: its imports, whether it would load, and one call of it.

use super::checked_calls::WASI;
use super::engine::Sandbox;
use super::guest::Guest;
use super::loading::{LoadError, ModuleNeeds, UnknownImports};
use wasmtime::{ExternType, InstancePre, Module, ModuleExport, Store};

/// The entry point of a command.
const START: &str = "_start";

/// A command that is compiled, linked and ready to be instantiated any number of times.
pub struct CommandModule {
    pre: InstancePre<Guest>,
    start: ModuleExport,
    needs: ModuleNeeds,
}

impl CommandModule {
    /// Links `module`; refuses what could not run, with the reason.
    pub fn link(sandbox: &Sandbox, module: &Module) -> Result<CommandModule, LoadError> {
        refuse_unknown_imports(sandbox, module)?;

        let start = match module.get_export(START) {
            Some(ExternType::Func(ty)) if ty.params().len() == 0 && ty.results().len() == 0 => {
                module.get_export_index(START)
            }
            Some(_) => return Err(LoadError::EntryPointType(START)),
            None => None,
        };
        let Some(start) = start else {
            return Err(LoadError::NoEntryPoint(START));
        };

        let pre = sandbox
            .linker()
            .instantiate_pre(module)
            .map_err(|error| LoadError::Link(format!("{error:#}")))?;
        Ok(CommandModule {
            pre,
            start,
            needs: needs(module),
        })
    }

    /// What the command could use.
    pub fn needs(&self) -> ModuleNeeds {
        self.needs
    }

    /// One run, in an instance of its own.
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
    // Only names are compared here. Types are compared when the module is linked.
    let known = |module: &str, name: &str| module == WASI && sandbox.knows(name);
    let unknown: Vec<String> = module
        .imports()
        .filter(|import| !known(import.module(), import.name()))
        .map(|import| format!("`{}.{}`", import.module(), import.name()))
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(LoadError::UnknownImports(UnknownImports(unknown)))
    }
}

fn needs(module: &Module) -> ModuleNeeds {
    let imports =
        |wanted: &dyn Fn(&str) -> bool| module.imports().any(|import| wanted(import.name()));
    ModuleNeeds {
        files: imports(&|name| name.starts_with("path_") || name == "fd_readdir"),
        args: imports(&|name| name.starts_with("args_")),
        env: imports(&|name| name.starts_with("environ_")),
    }
}
