//! Compilation: a module becomes machine code in a process of its own, because what a compiler
//! takes of memory and time is decided by whoever has made the module.

use crate::sandbox::native_code::{NativeCode, UnusableCode};
use crate::sandbox::{LoadError, Program, Sandbox, engine};
use std::borrow::Cow;
use taskmaster_confined::{Failure, ProcessLimits, Work, run};
use wasmtime::Engine;

/// Memory that the compilation of one module may take, in MiB, where nothing else is said. The
/// largest known modules (Ruby, Python) take less than 1 GiB.
pub const MEMORY_MB_DEFAULT: u64 = 3 << 10;

/// Seconds of processor time that a compilation has in any case.
const PROCESSOR_S: u64 = 60;

/// Further seconds for each MiB of the module. A component of 60 MiB takes 50 s in all.
const PROCESSOR_S_PER_MIB: u64 = 3;

/// Bytes of machine code that any module may have.
const CODE_BYTES: usize = 64 << 20;

/// How many times longer than the module its machine code may be beyond that. It is two to five
/// times as long.
const CODE_TIMES: usize = 32;

/// Bytes of machine code that no module may exceed. They are in the runner's memory once.
const CODE_BYTES_MAX: usize = 1 << 30;

/// The limits of a compilation beside its memory. What was found under others need not hold.
pub fn limits_in_words() -> String {
    format!(
        "{PROCESSOR_S} s and {PROCESSOR_S_PER_MIB} s for each MiB; {CODE_BYTES} bytes of code and \
         {CODE_TIMES} times the module, {CODE_BYTES_MAX} at the most"
    )
}

/// Compiles a module, binary or text. The argument is the hash of the engine that will run it.
pub static COMPILE: Work = Work {
    name: "compile",
    run: |arguments, bytes| {
        let expected = arguments.first().map_or("", String::as_str);
        compile_here(expected, bytes).map_err(|error| error.to_string())
    },
};

/// Why there is no machine code of a module.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The module cannot be compiled, by this runner or another.
    #[error(transparent)]
    Module(#[from] LoadError),
    /// This machine cannot compile any module, or could not now.
    #[error("it could not be compiled here: {0}")]
    Machine(String),
}

impl From<UnusableCode> for CompileError {
    /// Of code that was just made for this engine.
    fn from(error: UnusableCode) -> CompileError {
        match error {
            // The pool has no room for what the module declares, such as a table that is too large.
            UnusableCode::Engine(error) => LoadError::Link(format!("{error:#}")).into(),
            UnusableCode::Forbidden(_) | UnusableCode::Checksum | UnusableCode::NotNative => {
                CompileError::Machine(error.to_string())
            }
        }
    }
}

/// Compiles `bytes` for `engine`. Blocks the calling thread until the end.
pub fn compile(engine: &Engine, bytes: &[u8], memory_mb: u64) -> Result<NativeCode, CompileError> {
    let mib = bytes.len().div_ceil(1 << 20) as u64;
    let code_bytes = CODE_BYTES.saturating_add(bytes.len().saturating_mul(CODE_TIMES));
    let limits = ProcessLimits {
        memory_bytes: memory_mb << 20,
        processor_s: PROCESSOR_S + PROCESSOR_S_PER_MIB * mib,
        output_bytes: code_bytes.min(CODE_BYTES_MAX),
    };
    let hash = engine::hash(engine);
    match run(&COMPILE, &[hash], bytes, &limits) {
        Ok(code) => Ok(NativeCode::of_compiler(code)),
        Err(Failure::Refused(why)) => Err(LoadError::Compile(why).into()),
        Err(Failure::Exceeded(excess)) => Err(LoadError::TooCostly(excess).into()),
        Err(Failure::Broken(why)) => Err(LoadError::CompilerFailed(why).into()),
        Err(failure @ (Failure::Killed(_) | Failure::NotStarted(_))) => {
            Err(CompileError::Machine(failure.to_string()))
        }
    }
}

impl Program {
    /// Compiles and links `bytes`, which are a binary module or its text form. Nothing is kept.
    pub fn compile(sandbox: &Sandbox, bytes: &[u8]) -> Result<Program, CompileError> {
        Program::compile_within(sandbox, bytes, MEMORY_MB_DEFAULT)
    }

    /// [`Program::compile`] with so much memory for the compiler.
    pub fn compile_within(
        sandbox: &Sandbox,
        bytes: &[u8],
        memory_mb: u64,
    ) -> Result<Program, CompileError> {
        let code = compile(sandbox.engine(), bytes, memory_mb)?;
        let compiled = code.load(sandbox.engine())?;
        Ok(Program::link(sandbox, &compiled)?)
    }
}

/// What the process of its own does.
fn compile_here(expected: &str, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let wasm = binary(bytes)?;
    let compiler = engine::compiler(expected).map_err(|error| LoadError::Compile(error.0))?;
    let code = if is_component(&wasm) {
        compiler.precompile_component(&wasm)
    } else {
        compiler.precompile_module(&wasm)
    };
    code.map_err(|error| LoadError::Compile(format!("{error:#}")))
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
