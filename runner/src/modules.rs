//! Modules by version: fetched once, compiled once, kept in memory and on disk.
//!
//! What many attempts want at the same time is loaded once; they wait without blocking anybody
//! else. A failure is told to those who waited and not remembered: the next attempt tries again.

pub mod disk;

use crate::sandbox::{Compiled, LoadError, Program, Sandbox};
use bytes::Bytes;
use disk::Disk;
use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use taskmaster_protocol::{Hash, limits};
use tokio::sync::{Semaphore, watch};

/// Compiled modules kept in memory: each is some 10 KB to 100 MB of address space, most of it on
/// disk.
const IN_MEMORY_MAX: usize = 256;

/// Modules compiled at a time. Each compilation already uses every core.
const COMPILING_MAX: usize = 1;

/// A module, ready to run.
#[derive(Clone)]
pub struct Loaded {
    /// The program.
    pub program: Arc<Program>,
    /// Time spent compiling, µs; 0 where it came from a cache.
    pub compile_us: u64,
}

/// Fetches the bytes of a version; says in one sentence why not.
pub type Fetch =
    Arc<dyn Fn(Hash) -> Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send>> + Send + Sync>;

type Loading = watch::Receiver<Option<Result<Loaded, LoadError>>>;

enum Entry {
    Ready { program: Arc<Program>, used: u64 },
    Loading(Loading),
}

#[derive(Default)]
struct Table {
    entries: HashMap<Hash, Entry>,
    /// Counts uses, so that the least recently used one is known.
    uses: u64,
}

/// The modules of this runner.
pub struct Modules {
    sandbox: Arc<Sandbox>,
    disk: Arc<Disk>,
    fetch: Fetch,
    table: Mutex<Table>,
    compiling: Arc<Semaphore>,
}

impl Modules {
    /// Keeps native code in `folder`; gets what is not there through `fetch`.
    pub fn open(sandbox: Arc<Sandbox>, folder: &Path, fetch: Fetch) -> std::io::Result<Modules> {
        let disk = Arc::new(Disk::open(folder, sandbox.engine())?);
        let compiling = Arc::new(Semaphore::new(COMPILING_MAX));
        Ok(Modules {
            sandbox,
            disk,
            fetch,
            table: Mutex::default(),
            compiling,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole between two statements; a panic elsewhere does not spoil it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The module, if it is in memory.
    pub fn ready(&self, version: &Hash) -> Option<Arc<Program>> {
        let mut table = self.table();
        table.uses += 1;
        let now = table.uses;
        match table.entries.get_mut(version)? {
            Entry::Ready { program, used } => {
                *used = now;
                Some(program.clone())
            }
            Entry::Loading(_) => None,
        }
    }

    /// The module, wherever it is.
    pub async fn load(self: &Arc<Self>, version: Hash) -> Result<Loaded, LoadError> {
        if let Some(program) = self.ready(&version) {
            return Ok(Loaded {
                program,
                compile_us: 0,
            });
        }
        let mut loading = self.join_or_begin(version);
        let gone = || LoadError("the runner is ending".into());
        let result = loading
            .wait_for(Option::is_some)
            .await
            .map_err(|_| gone())?;
        result.clone().unwrap_or_else(|| Err(gone()))
    }

    fn join_or_begin(self: &Arc<Self>, version: Hash) -> Loading {
        let mut table = self.table();
        match table.entries.get(&version) {
            Some(Entry::Loading(loading)) => return loading.clone(),
            Some(Entry::Ready { program, .. }) => {
                return watch::channel(Some(Ok(Loaded {
                    program: program.clone(),
                    compile_us: 0,
                })))
                .1;
            }
            None => {}
        }
        let (tell, loading) = watch::channel(None);
        table
            .entries
            .insert(version, Entry::Loading(loading.clone()));
        drop(table);
        let modules = self.clone();
        tokio::spawn(async move {
            let result = modules.fetch_and_compile(version).await;
            modules.settle(version, &result);
            tell.send_replace(Some(result));
        });
        loading
    }

    fn settle(&self, version: Hash, result: &Result<Loaded, LoadError>) {
        let mut table = self.table();
        let Ok(loaded) = result else {
            table.entries.remove(&version);
            return;
        };
        table.uses += 1;
        let used = table.uses;
        table.entries.insert(
            version,
            Entry::Ready {
                program: loaded.program.clone(),
                used,
            },
        );
        if table.entries.len() > IN_MEMORY_MAX {
            let age = |entry: &Entry| {
                if let Entry::Ready { used, .. } = entry {
                    *used
                } else {
                    u64::MAX
                }
            };
            let oldest = table
                .entries
                .iter()
                .min_by_key(|(_, entry)| age(entry))
                .map(|(version, _)| *version);
            oldest.and_then(|version| table.entries.remove(&version));
        }
    }

    async fn fetch_and_compile(&self, version: Hash) -> Result<Loaded, LoadError> {
        let (sandbox, disk) = (self.sandbox.clone(), self.disk.clone());
        let kept = blocking(move || Ok(disk.read(sandbox.engine(), &version))).await?;
        if let Some(compiled) = kept {
            return Ok(Loaded {
                program: Arc::new(Program::link(&self.sandbox, &compiled)?),
                compile_us: 0,
            });
        }
        let bytes = (self.fetch)(version)
            .await
            .map_err(|why| LoadError(format!("it could not be fetched: {why}")))?;
        if bytes.len() as u64 > limits::MODULE_BYTES_MAX {
            let most = limits::MODULE_BYTES_MAX >> 20;
            return Err(LoadError(format!(
                "it has {} bytes, at most {most} MiB are allowed",
                bytes.len()
            )));
        }
        // The semaphore is never closed.
        let _turn = self.compiling.acquire().await.ok();
        let (sandbox, disk) = (self.sandbox.clone(), self.disk.clone());
        blocking(move || compile(&sandbox, &disk, &version, &bytes)).await
    }
}

fn compile(
    sandbox: &Sandbox,
    disk: &Disk,
    version: &Hash,
    bytes: &[u8],
) -> Result<Loaded, LoadError> {
    let began = Instant::now();
    let compiled = Compiled::of(sandbox.engine(), bytes)?;
    let compile_us = u64::try_from(began.elapsed().as_micros())
        .unwrap_or(u64::MAX)
        .max(1);
    let program = Arc::new(Program::link(sandbox, &compiled)?);
    if let Err(error) = disk.write(&compiled, version) {
        // It runs from memory just as well.
        tracing::warn!(
            "cannot keep the compiled module {}: {error}",
            version.short()
        );
    }
    Ok(Loaded {
        program,
        compile_us,
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(LoadError(format!("loading broke off: {error}"))))
}

#[cfg(test)]
mod tests;
