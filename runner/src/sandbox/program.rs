//! A module that is compiled, linked and ready to be run any number of times, of whatever kind it
//! is.

use super::command::Command;
use super::component::Component;
use super::{Guest, Sandbox};
use bytes::Bytes;
use wasmtime::{Engine, Module, Store};

/// Why a module cannot be run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(pub String);

/// What a module could use, judged by its imports: what it cannot use is not made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Its folder and `/tmp`.
    pub files: bool,
    /// argv.
    pub args: bool,
    /// The environment.
    pub env: bool,
}

/// What the engine made of a file.
#[derive(Clone)]
pub enum Compiled {
    /// Of a core module.
    Module(Module),
    /// Of a component.
    Component(wasmtime::component::Component),
}

/// A module, ready to run.
pub struct Program {
    kind: Kind,
    needs: Needs,
}

enum Kind {
    Command(Command),
    Component(Component),
}

/// How a run ended that did not trap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The result is what stands in stdout.
    Stdout,
    /// This is the result, as text.
    Text(String),
    /// It said that it failed, without more.
    Exit(i32),
    /// It said that it failed and why; the exit code that a command would have had.
    Failed(String, i32),
    /// Its params have another type than its function takes.
    Params(String),
}

impl Program {
    /// Links what was compiled; refuses what could not run, with the reason.
    pub fn link(sandbox: &Sandbox, compiled: &Compiled) -> Result<Program, LoadError> {
        Ok(match compiled {
            Compiled::Module(module) => {
                let command = Command::link(sandbox, module)?;
                Program {
                    needs: command.needs(),
                    kind: Kind::Command(command),
                }
            }
            Compiled::Component(component) => {
                let component = Component::link(sandbox, component)?;
                Program {
                    needs: component.needs(),
                    kind: Kind::Component(component),
                }
            }
        })
    }

    /// Compiles and links `wasm`, or text that is a module; nothing is cached.
    pub fn compile(sandbox: &Sandbox, bytes: &[u8]) -> Result<Program, LoadError> {
        Program::link(sandbox, &Compiled::of(sandbox.engine(), bytes)?)
    }

    /// What it could use.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Whether its stdout is its result. What others print is log: they give their result back.
    pub(super) fn prints_its_result(&self) -> bool {
        match &self.kind {
            Kind::Command(_) => true,
            Kind::Component(component) => component.is_command(),
        }
    }

    /// One run, from an instance of its own.
    pub(super) async fn call(
        &self,
        store: &mut Store<Guest>,
        params: Bytes,
    ) -> wasmtime::Result<Answer> {
        match &self.kind {
            Kind::Command(command) => command.call(store).await.map(|()| Answer::Stdout),
            Kind::Component(component) => component.call(store, &params).await,
        }
    }
}

impl Compiled {
    /// Compiles a file, on every processor.
    pub fn of(engine: &Engine, bytes: &[u8]) -> Result<Compiled, LoadError> {
        let wasm = binary(bytes)?;
        // The file is somebody else's: where the compiler has a fault, that is the end of this
        // module and of nothing else.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compile(engine, &wasm)))
            .unwrap_or_else(|_| {
                Err(LoadError(
                    "the compiler failed on it, which is a fault of the compiler".into(),
                ))
            })
    }
}

fn compile(engine: &Engine, wasm: &[u8]) -> Result<Compiled, LoadError> {
    let failed = |error: wasmtime::Error| LoadError(format!("{error:#}"));
    if is_component(wasm) {
        return wasmtime::component::Component::new(engine, wasm)
            .map(Compiled::Component)
            .map_err(failed);
    }
    Module::new(engine, wasm)
        .map(Compiled::Module)
        .map_err(failed)
}

/// The file's binary form: itself, or translated from text. What cannot be a module is refused
/// before any work.
fn binary(bytes: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, LoadError> {
    if Engine::detect_precompiled(bytes).is_some() {
        // Native code: only the cache's own folder may bring that.
        return Err(LoadError(
            "it is a precompiled module (.cwasm), which is never accepted; give the .wasm itself"
                .into(),
        ));
    }
    taskmaster_module::to_binary(bytes).map_err(LoadError)
}

/// Whether the header is that of a component. The rest is the engine's to judge.
fn is_component(wasm: &[u8]) -> bool {
    matches!(wasm.get(4..8), Some([_, _, 1, 0]))
}
