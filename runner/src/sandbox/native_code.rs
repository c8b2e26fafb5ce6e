//! Machine code of a module: made by the compiler in a process of its own, kept on disk, and taken
//! into the engine. Whoever takes code into the engine executes it sooner or later, so that code is
//! taken from two places only: from our own compiler's process, and from the cache's own folder.

use super::program::CompiledModule;
use std::path::Path;
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

/// Machine code that the compiler has just made.
pub struct NativeCode(Vec<u8>);

/// Why machine code cannot be taken into the engine. It is a fault of this machine, or of the file
/// on disk, and none of the module.
#[derive(Debug, thiserror::Error)]
pub enum UnusableCode {
    /// The file on disk is not what was written there.
    #[error("its checksum is wrong")]
    Checksum,
    /// The bytes are something else.
    #[error("it is no native code")]
    NotNative,
    /// The system lets no program execute what it has made itself.
    #[error(
        "this system does not let a program execute machine code that it has made ({0:#}); a \
         service or container may forbid it, as MemoryDenyWriteExecute=yes does"
    )]
    Forbidden(wasmtime::Error),
    /// The code is for another engine, or the engine cannot take it.
    #[error("{0:#}")]
    Engine(wasmtime::Error),
}

impl UnusableCode {
    fn of(error: wasmtime::Error) -> UnusableCode {
        // EACCES where the kernel itself forbids it, EPERM where a filter of system calls does.
        let denied = ["os error 13", "os error 1)"];
        let text = format!("{error:#}");
        if denied.iter().any(|words| text.contains(words)) {
            return UnusableCode::Forbidden(error);
        }
        UnusableCode::Engine(error)
    }
}

impl NativeCode {
    /// What came out of the compiler, and from nowhere else.
    pub(crate) fn of_compiler(code: Vec<u8>) -> NativeCode {
        NativeCode(code)
    }

    /// The code, as it is kept on disk.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes the code into the engine.
    #[allow(
        unsafe_code,
        reason = "native code can be loaded in no other way; see the comment inside"
    )]
    pub fn load(&self, engine: &Engine) -> Result<CompiledModule, UnusableCode> {
        // SAFETY: only `of_compiler` makes such a value, from what wasmtime's compiler gave back in
        // a process of this program's own file, over a pipe that nobody else has. What a module
        // could make that process say is as bad as what its code could do here: the process is
        // behind the same compiler as the code. wasmtime itself checks that engine and version
        // match.
        let compiled = unsafe {
            match Engine::detect_precompiled(&self.0) {
                Some(Precompiled::Module) => {
                    Module::deserialize(engine, &self.0).map(CompiledModule::Core)
                }
                Some(Precompiled::Component) => {
                    Component::deserialize(engine, &self.0).map(CompiledModule::Component)
                }
                None => return Err(UnusableCode::NotNative),
            }
        };
        compiled.map_err(UnusableCode::of)
    }
}

/// Maps code from a file of the cache's folder. The caller has compared its checksum.
#[allow(
    unsafe_code,
    reason = "native code can be mapped in no other way; see the comment inside"
)]
pub(crate) fn map(engine: &Engine, path: &Path) -> Result<CompiledModule, UnusableCode> {
    // SAFETY: `ModuleDiskCache::write` wrote the file from a `NativeCode`. Only this user can enter
    // the folder (0700). Nothing that came over a network is ever placed in it under such a name
    // (`compile` refuses precompiled files). The checksum beside the file was just compared, and
    // wasmtime itself checks that engine and version match. Files are replaced by a rename and
    // never changed in place, so the mapping stays what it was.
    let compiled = unsafe {
        match Engine::detect_precompiled_file(path) {
            Ok(Some(Precompiled::Module)) => {
                Module::deserialize_file(engine, path).map(CompiledModule::Core)
            }
            Ok(Some(Precompiled::Component)) => {
                Component::deserialize_file(engine, path).map(CompiledModule::Component)
            }
            Ok(None) => return Err(UnusableCode::NotNative),
            Err(error) => Err(error),
        }
    };
    compiled.map_err(UnusableCode::of)
}
