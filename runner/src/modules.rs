//! Modules by version: fetched once, compiled once, then kept in memory and on disk.

pub mod disk;
mod refused;

use crate::cache::{LoadAbandoned, SingleFlightCache};
use crate::compile::{CompileError, compile};
use crate::fetch::{FetchBytes, FetchError};
use crate::sandbox::{LoadError, Program, Sandbox, engine};
use disk::ModuleDiskCache;
use refused::RefusedModules;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use taskmaster_protocol::{Hash, limits};
use tokio::sync::Semaphore;

/// Compiled modules kept in memory. Each takes 10 KB to 100 MB of address space, and most of that
/// is mapped from disk.
const IN_MEMORY_MAX: usize = 256;

/// Modules compiled at a time, as far as there are processors: one that takes long must not hold up
/// all others. Each may take as much memory as `--compile-memory` says.
const COMPILATIONS_MAX: usize = 8;

/// Modules compiled at a time, on a machine with fewer processors.
const COMPILATIONS_MIN: usize = 2;

/// A module, ready to run.
#[derive(Clone)]
pub struct LoadedModule {
    /// The program.
    pub program: Arc<Program>,
    /// Time spent compiling, µs; 0 where the module came from a cache.
    pub compile_us: u64,
}

/// Why a module is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// The master did not send it.
    #[error("it could not be fetched: {0}")]
    Fetch(FetchError),
    /// The file is too long to be compiled.
    #[error(
        "it has {0} bytes, at most {max} MiB are allowed",
        max = limits::MODULE_BYTES_MAX >> 20
    )]
    TooLarge(usize),
    /// The sandbox cannot run it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// This machine cannot compile it or execute it now, whatever the module is.
    #[error("{0}")]
    Machine(String),
    /// The thread that read or compiled it panicked.
    #[error("loading broke off: {0}")]
    BrokeOff(String),
    /// The runner is ending.
    #[error(transparent)]
    Abandoned(#[from] LoadAbandoned),
}

impl ModuleError {
    /// Whether the runner is at fault, and not the module.
    pub fn is_of_the_runner(&self) -> bool {
        match self {
            ModuleError::Machine(_) | ModuleError::BrokeOff(_) | ModuleError::Abandoned(_) => true,
            ModuleError::Fetch(_) | ModuleError::TooLarge(_) | ModuleError::Load(_) => false,
        }
    }
}

impl From<CompileError> for ModuleError {
    fn from(error: CompileError) -> ModuleError {
        match error {
            CompileError::Module(error) => ModuleError::Load(error),
            error @ CompileError::Machine(_) => ModuleError::Machine(error.to_string()),
        }
    }
}

/// The modules of this runner.
pub struct ModuleCache {
    sandbox: Arc<Sandbox>,
    disk: Arc<ModuleDiskCache>,
    fetch: FetchBytes,
    loaded: Arc<SingleFlightCache<Hash, LoadedModule, ModuleError>>,
    compiling: Semaphore,
    compile_memory_mb: u64,
    /// Versions that took more than a compilation may take.
    refused: Arc<RefusedModules>,
}

impl ModuleCache {
    /// A cache that keeps native code in `folder` and fetches what is not there. A compilation may
    /// take `compile_memory_mb` MiB.
    pub fn open(
        sandbox: Arc<Sandbox>,
        folder: &Path,
        fetch: FetchBytes,
        compile_memory_mb: u64,
    ) -> std::io::Result<ModuleCache> {
        let disk = ModuleDiskCache::open(folder, sandbox.engine())?;
        let engine = engine::hash(sandbox.engine());
        let refused = RefusedModules::new(folder, engine, compile_memory_mb);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(ModuleCache {
            sandbox,
            disk: Arc::new(disk),
            fetch,
            loaded: SingleFlightCache::new(IN_MEMORY_MAX),
            compiling: Semaphore::new(processors.clamp(COMPILATIONS_MIN, COMPILATIONS_MAX)),
            compile_memory_mb,
            refused: Arc::new(refused),
        })
    }

    /// The module, if it is in memory.
    pub fn ready(&self, version: &Hash) -> Option<Arc<Program>> {
        Some(self.loaded.ready(version)?.program)
    }

    /// The module, wherever it is.
    pub async fn load(self: &Arc<Self>, version: Hash) -> Result<LoadedModule, ModuleError> {
        if let Some(program) = self.ready(&version) {
            return Ok(LoadedModule {
                program,
                compile_us: 0,
            });
        }
        let modules = self.clone();
        let load = async move { modules.fetch_and_compile(version).await };
        self.loaded.join_or_begin(version, load).result().await
    }

    async fn fetch_and_compile(&self, version: Hash) -> Result<LoadedModule, ModuleError> {
        let sandbox = self.sandbox.clone();
        let disk = self.disk.clone();
        let refused = self.refused.clone();
        let on_disk = blocking(move || {
            let compiled = disk
                .read(sandbox.engine(), &version)
                .map_err(|error| ModuleError::Machine(error.to_string()))?;
            match refused.why(&version).filter(|_| compiled.is_none()) {
                Some(error) => Err(error.into()),
                None => Ok(compiled),
            }
        });
        if let Some(compiled) = on_disk.await? {
            return Ok(LoadedModule {
                program: Arc::new(Program::link(&self.sandbox, &compiled)?),
                compile_us: 0,
            });
        }

        let bytes = (self.fetch)(version).await.map_err(ModuleError::Fetch)?;
        if bytes.len() as u64 > limits::MODULE_BYTES_MAX {
            return Err(ModuleError::TooLarge(bytes.len()));
        }

        // Waiting cannot fail, because the semaphore is never closed.
        let _turn = self.compiling.acquire().await.ok();
        let job = Compilation {
            sandbox: self.sandbox.clone(),
            disk: self.disk.clone(),
            refused: self.refused.clone(),
            memory_mb: self.compile_memory_mb,
            version,
        };
        blocking(move || job.run(&bytes)).await
    }
}

/// The compilation of one version.
struct Compilation {
    sandbox: Arc<Sandbox>,
    disk: Arc<ModuleDiskCache>,
    refused: Arc<RefusedModules>,
    memory_mb: u64,
    version: Hash,
}

impl Compilation {
    fn run(&self, bytes: &[u8]) -> Result<LoadedModule, ModuleError> {
        let began = Instant::now();
        let code = compile(self.sandbox.engine(), bytes, self.memory_mb).inspect_err(|error| {
            if let CompileError::Module(error) = error {
                self.refused.remember(self.version, error);
            }
        })?;
        // 0 would mean that the module was not compiled.
        let compile_us = u64::try_from(began.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        let compiled = code
            .load(self.sandbox.engine())
            .map_err(CompileError::from)?;
        let program = Arc::new(Program::link(&self.sandbox, &compiled)?);
        if let Err(error) = self.disk.write(&code, &self.version) {
            // The module runs from memory just as well.
            tracing::warn!(
                "cannot keep the compiled module {}: {error}",
                self.version.short()
            );
        }
        Ok(LoadedModule {
            program,
            compile_us,
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ModuleError> + Send + 'static,
) -> Result<T, ModuleError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(ModuleError::BrokeOff(error.to_string())))
}

#[cfg(test)]
mod tests;
