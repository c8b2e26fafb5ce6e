//! A module that is compiled, linked and ready to be run any number of times, of whatever kind it
//! is.

use super::command::CommandModule;
use super::component::ComponentModule;
use super::engine::Sandbox;
use super::guest::Guest;
use super::loading::{CallOutcome, LoadError, ModuleNeeds};
use bytes::Bytes;
use wasmtime::component::Component;
use wasmtime::{Module, Store};

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
