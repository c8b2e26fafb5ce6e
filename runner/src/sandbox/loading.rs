//! What the loading of a module finds: why it cannot run, what it could use, and how a call ends.

use std::fmt;
use taskmaster_confined::Excess;

/// What is said where a compilation needs more memory than it may have.
const RAISE_MEMORY: &str = "; --compile-memory raises it";

/// Unknown imports that one refusal lists; the rest is counted.
const IMPORTS_LISTED_MAX: usize = 20;

/// Why a module cannot be run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file is native code. Only the cache's own folder may bring that.
    #[error("it is a precompiled module (.cwasm), which is never accepted; give the .wasm itself")]
    Precompiled,
    /// The file is neither WebAssembly nor text that is a module.
    #[error("{0}")]
    NotWasm(String),
    /// The compiler refused the file.
    #[error("{0}")]
    Compile(String),
    /// Its compilation was stopped.
    #[error(
        "compiling it took more {0}{hint}",
        hint = if matches!(.0, Excess::Memory(_)) { RAISE_MEMORY } else { "" }
    )]
    TooCostly(Excess),
    /// The compiler panicked, or gave up.
    #[error("the compiler failed on it, which is a fault of the compiler: {0}")]
    CompilerFailed(String),
    /// The module's imports or exports do not fit what runners have.
    #[error("{0}")]
    Link(String),
    /// The command imports functions that no runner has.
    #[error(
        "it imports what no runner has: {0}; \
         only WASI preview 1 (`wasi_snapshot_preview1`) can be imported"
    )]
    UnknownImports(UnknownImports),
    /// The command has no entry point.
    #[error("it exports no `{0}`: build it as a command (a program with `main`), not as a library")]
    NoEntryPoint(&'static str),
    /// The command's entry point takes or returns something.
    #[error("its `{0}` is no function without parameters and results")]
    EntryPointType(&'static str),
    /// The component has no function that can be called with params.
    #[error("{0}")]
    NoFunction(String),
    /// The component exports the function under a name that the engine does not find.
    #[error("its `{0}` cannot be found")]
    FunctionNotFound(String),
}

/// The imports of a command that no runner has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownImports(pub Vec<String>);

impl fmt::Display for UnknownImports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = &self.0[..self.0.len().min(IMPORTS_LISTED_MAX)];
        f.write_str(&listed.join(", "))?;
        if self.0.len() > listed.len() {
            write!(f, " and {} more", self.0.len() - listed.len())?;
        }
        Ok(())
    }
}

/// What a module could use, judged by its imports. What a module cannot use is not made for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModuleNeeds {
    /// The task's folder and `/tmp`.
    pub files: bool,
    /// The arguments of the command line.
    pub args: bool,
    /// The environment.
    pub env: bool,
}

/// How a call ended that did not trap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallOutcome {
    /// The call succeeded, and stdout is the result.
    Stdout,
    /// The call succeeded, and this text is the result.
    Text(String),
    /// The guest said that it failed, and nothing else.
    Exit(i32),
    /// The guest said that it failed and why. The number is the exit code that a command would have
    /// had.
    Failed(String, i32),
    /// The params have another type than the function takes.
    Params(String),
}
