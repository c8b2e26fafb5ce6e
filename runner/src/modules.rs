//! Modules by version: fetched once, compiled once, then kept in memory and on disk.

pub mod disk;

use crate::cache::{LoadAbandoned, SingleFlightCache};
use crate::fetch::{FetchBytes, FetchError};
use crate::sandbox::{CompiledModule, LoadError, Program, Sandbox};
use disk::ModuleDiskCache;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use taskmaster_protocol::{Hash, limits};
use tokio::sync::Semaphore;

/// Compiled modules kept in memory. Each takes 10 KB to 100 MB of address space, and most of that
/// is mapped from disk.
const IN_MEMORY_MAX: usize = 256;

/// Modules compiled at a time. Each compilation uses every core already.
const COMPILATIONS_MAX: usize = 1;

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
    /// The thread that read or compiled it panicked.
    #[error("loading broke off: {0}")]
    BrokeOff(String),
    /// The runner is ending.
    #[error(transparent)]
    Abandoned(#[from] LoadAbandoned),
}

/// The modules of this runner.
pub struct ModuleCache {
    sandbox: Arc<Sandbox>,
    disk: Arc<ModuleDiskCache>,
    fetch: FetchBytes,
    loaded: Arc<SingleFlightCache<Hash, LoadedModule, ModuleError>>,
    compiling: Semaphore,
}

impl ModuleCache {
    /// A cache that keeps native code in `folder` and fetches what is not there.
    pub fn open(
        sandbox: Arc<Sandbox>,
        folder: &Path,
        fetch: FetchBytes,
    ) -> std::io::Result<ModuleCache> {
        let disk = ModuleDiskCache::open(folder, sandbox.engine())?;
        Ok(ModuleCache {
            sandbox,
            disk: Arc::new(disk),
            fetch,
            loaded: SingleFlightCache::new(IN_MEMORY_MAX),
            compiling: Semaphore::new(COMPILATIONS_MAX),
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
        let on_disk = blocking(move || Ok(disk.read(sandbox.engine(), &version))).await?;
        if let Some(compiled) = on_disk {
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
        let sandbox = self.sandbox.clone();
        let disk = self.disk.clone();
        blocking(move || compile(&sandbox, &disk, &version, &bytes)).await
    }
}

fn compile(
    sandbox: &Sandbox,
    disk: &ModuleDiskCache,
    version: &Hash,
    bytes: &[u8],
) -> Result<LoadedModule, ModuleError> {
    let began = Instant::now();
    let compiled = CompiledModule::compile(sandbox.engine(), bytes)?;
    // 0 would mean that the module was not compiled.
    let compile_us = u64::try_from(began.elapsed().as_micros())
        .unwrap_or(u64::MAX)
        .max(1);
    let program = Arc::new(Program::link(sandbox, &compiled)?);
    if let Err(error) = disk.write(&compiled, version) {
        // The module runs from memory just as well.
        tracing::warn!(
            "cannot keep the compiled module {}: {error}",
            version.short()
        );
    }
    Ok(LoadedModule {
        program,
        compile_us,
    })
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
