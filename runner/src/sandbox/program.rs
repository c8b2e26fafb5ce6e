//! A module that is compiled, linked and ready to be run any number of times, of whatever kind it
//! is.

use super::command::CommandModule;
use super::component::ComponentModule;
use super::engine::Sandbox;
use super::guest::Guest;
use super::loading::{CallOutcome, LoadError, ModuleNeeds};
use bytes::Bytes;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Store};

/// A module that the engine has compiled, not linked yet.
#[derive(Clone)]
pub enum CompiledModule {
    /// A core module, which must be a command.
    Core(Module),
    /// A component.
    Component(Component),
}

/// A module, ready to run.
pub struct Program {
    kind: ProgramKind,
    needs: ModuleNeeds,
}

enum ProgramKind {
    Command(CommandModule),
    Component(ComponentModule),
}

impl Program {
    /// Links what was compiled; refuses what could not run, with the reason.
    pub fn link(sandbox: &Sandbox, compiled: &CompiledModule) -> Result<Program, LoadError> {
        Ok(match compiled {
            CompiledModule::Core(module) => {
                let command = CommandModule::link(sandbox, module)?;
                Program {
                    needs: command.needs(),
                    kind: ProgramKind::Command(command),
                }
            }
            CompiledModule::Component(component) => {
                let component = ComponentModule::link(sandbox, component)?;
                Program {
                    needs: component.needs(),
                    kind: ProgramKind::Component(component),
                }
            }
        })
    }

    /// Compiles and links `bytes`, which are a binary module or its text form. Nothing is cached.
    pub fn compile(sandbox: &Sandbox, bytes: &[u8]) -> Result<Program, LoadError> {
        Program::link(sandbox, &CompiledModule::compile(sandbox.engine(), bytes)?)
    }

    /// What the module could use.
    pub fn needs(&self) -> ModuleNeeds {
        self.needs
    }

    /// Whether the module's stdout is its result. What other modules print belongs to the log,
    /// because they return their result.
    pub(super) fn prints_its_result(&self) -> bool {
        match &self.kind {
            ProgramKind::Command(_) => true,
            ProgramKind::Component(component) => component.is_command(),
        }
    }

    /// One run, in an instance of its own.
    pub(super) async fn call(
        &self,
        store: &mut Store<Guest>,
        params: Bytes,
    ) -> wasmtime::Result<CallOutcome> {
        match &self.kind {
            ProgramKind::Command(command) => {
                command.call(store).await.map(|()| CallOutcome::Stdout)
            }
            ProgramKind::Component(component) => component.call(store, &params).await,
        }
    }
}

impl CompiledModule {
    /// Compiles a file, on every processor.
    pub fn compile(engine: &Engine, bytes: &[u8]) -> Result<CompiledModule, LoadError> {
        let wasm = binary(bytes)?;
        // The file comes from outside. A fault of the compiler must end the loading of this module
        // and nothing else.
        catch_unwind(AssertUnwindSafe(|| compile(engine, &wasm)))
            .unwrap_or(Err(LoadError::CompilerPanicked))
    }
}

fn compile(engine: &Engine, wasm: &[u8]) -> Result<CompiledModule, LoadError> {
    let compiled = if is_component(wasm) {
        Component::new(engine, wasm).map(CompiledModule::Component)
    } else {
        Module::new(engine, wasm).map(CompiledModule::Core)
    };
    compiled.map_err(|error| LoadError::Compile(format!("{error:#}")))
}

/// The file's binary form: the file itself, or translated from text. What cannot be a module is
/// refused before any work.
fn binary(bytes: &[u8]) -> Result<Cow<'_, [u8]>, LoadError> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::Precompiled);
    }
    taskmaster_module::to_binary(bytes).map_err(LoadError::NotWasm)
}

/// Whether the header is that of a component. The engine judges the rest.
fn is_component(wasm: &[u8]) -> bool {
    matches!(wasm.get(4..8), Some([_, _, 1, 0]))
}
