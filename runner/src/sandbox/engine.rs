//! The one engine of the process, its pool, its clock tick and its linker.

use super::files::Folders;
use super::quota::Quota;
use super::{Guest, Program, files::TaskFolder, host, http, limits};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;
use wasmtime::component;
use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, Linker,
    PoolingAllocationConfig,
};
use wasmtime::{Store, WasmBacktraceDetails};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{I32Exit, WasiCtx};

/// The module name of WASI preview 1.
pub const WASI: &str = "wasi_snapshot_preview1";

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox could not be set up: {0}")]
pub struct SandboxError(pub String);

/// Engine, pool, linker and task folders.
pub struct Sandbox {
    engine: Engine,
    linker: Linker<Guest>,
    component_linker: component::Linker<Guest>,
    /// The functions of WASI that can be imported.
    functions: BTreeSet<String>,
    folders: Folders,
    quota: Quota,
    ticker: Ticker,
}

impl Sandbox {
    /// Room for `slots` tasks at a time; their folders are made in `work`.
    pub fn new(slots: u32, work: &Path) -> Result<Sandbox, SandboxError> {
        let failed = |error: &dyn std::fmt::Display| SandboxError(error.to_string());
        let engine = match Engine::new(&config(Some(slots))) {
            Ok(engine) => engine,
            // A limit on address space (`ulimit -v`): slower, but it works.
            Err(error) => {
                tracing::warn!("no pool of instances, tasks will start more slowly: {error:#}");
                Engine::new(&config(None)).map_err(|error| failed(&error))?
            }
        };
        let linker = linker(&engine).map_err(|error| failed(&error))?;
        let component_linker = component_linker(&engine).map_err(|error| failed(&error))?;
        let functions = functions(&engine).map_err(|error| failed(&error))?;
        let folders = Folders::open(work).map_err(|error| failed(&error))?;
        let quota = Quota::start().map_err(|error| failed(&error))?;
        let ticker = Ticker::start(engine.weak()).map_err(|error| failed(&error))?;
        Ok(Sandbox {
            engine,
            linker,
            component_linker,
            functions,
            folders,
            quota,
            ticker,
        })
    }

    /// wasmtime's engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn linker(&self) -> &Linker<Guest> {
        &self.linker
    }

    pub(super) fn component_linker(&self) -> &component::Linker<Guest> {
        &self.component_linker
    }

    pub(super) fn knows(&self, function: &str) -> bool {
        self.functions.contains(function)
    }

    /// Must be held while guests run: only then does the engine's clock tick.
    pub fn busy(&self) -> Busy {
        self.ticker.busy()
    }

    /// A private folder that is removed when this process ends, or by the next one where it is
    /// killed.
    pub fn scratch(&self) -> &Path {
        self.folders.base()
    }

    pub(super) fn quota(&self) -> &Quota {
        &self.quota
    }

    /// A folder for a task, where its module could use one.
    pub(super) fn folder_for(&self, program: &Program) -> std::io::Result<Option<TaskFolder>> {
        if program.needs().files {
            self.folders.make().map(Some)
        } else {
            Ok(None)
        }
    }
}

/// The figures behind these settings are in LIMITS: pool, copy-on-write and kept pages make a start
/// cost 6 µs, not 50.
fn config(pool_for: Option<u32>) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .memory_init_cow(true)
        // Where one part of a component calls another, the engine's own glue has the memories of
        // both. A module of its own that has several is refused when it is dropped, and by the
        // pool.
        .wasm_multi_memory(true)
        .max_wasm_stack(limits::STACK_BYTES_MAX)
        .async_stack_size(limits::FIBER_BYTES)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .parallel_compilation(true);
    if let Some(slots) = pool_for {
        // Twice, because one task's slot is wiped while the next one starts.
        let count = slots.saturating_mul(2).max(4);
        let mut pool = PoolingAllocationConfig::new();
        let memories = count
            .saturating_mul(limits::MEMORIES_MAX)
            .min(limits::MEMORIES_IN_POOL_MAX)
            .max(count);
        pool.total_core_instances(count.saturating_mul(limits::CORE_INSTANCES_MAX))
            .total_component_instances(count)
            .total_memories(memories)
            .total_tables(count.saturating_mul(limits::COMPONENT_TABLES_MAX))
            .total_stacks(count)
            .max_core_instances_per_component(limits::CORE_INSTANCES_MAX)
            .max_memories_per_component(limits::MEMORIES_MAX)
            .max_tables_per_component(limits::COMPONENT_TABLES_MAX)
            .max_component_instance_size(limits::INSTANCE_BYTES_MAX)
            .max_memories_per_module(1)
            .max_tables_per_module(limits::TABLES_MAX)
            .table_elements(limits::TABLE_ELEMENTS_MAX)
            .max_memory_size(limits::MEMORY_RESERVED_BYTES)
            .max_core_instance_size(limits::INSTANCE_BYTES_MAX)
            .linear_memory_keep_resident(limits::MEMORY_KEPT_BYTES)
            .table_keep_resident(limits::TABLE_KEPT_BYTES)
            .pagemap_scan(Enabled::Auto);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |guest: &mut Guest| &mut guest.wasi)?;
    // wasmtime's own refuses codes above 125; a program may exit with any.
    linker.allow_shadowing(true);
    linker.func_wrap(WASI, "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(I32Exit(code).into())
    })?;
    Ok(linker)
}

fn component_linker(engine: &Engine) -> wasmtime::Result<component::Linker<Guest>> {
    let mut linker = component::Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    http::add_to_linker(&mut linker)?;
    host::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Read from a linker like ours, over a store that needs no guest.
fn functions(engine: &Engine) -> wasmtime::Result<BTreeSet<String>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |wasi: &mut WasiP1Ctx| wasi)?;
    let mut store = Store::new(engine, WasiCtx::builder().build_p1());
    Ok(linker
        .iter(&mut store)
        .map(|(_, name, _)| name.to_owned())
        .collect())
}

/// Raises the engine's epoch every 2 ms while guests run, and sleeps while none does.
struct Ticker {
    busy: Arc<AtomicUsize>,
    thread: Thread,
}

/// Keeps the ticker going.
pub struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ticker {
    fn start(engine: EngineWeak) -> std::io::Result<Ticker> {
        let busy = Arc::new(AtomicUsize::new(0));
        let count = busy.clone();
        let thread = std::thread::Builder::new()
            .name("epoch".into())
            .spawn(move || {
                // Ends with the engine; looks for that once a second when idle.
                while let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    if count.load(Ordering::SeqCst) == 0 {
                        std::thread::park_timeout(Duration::from_secs(1));
                    } else {
                        std::thread::sleep(Duration::from_millis(limits::EPOCH_MS));
                    }
                }
            })?;
        Ok(Ticker {
            busy,
            thread: thread.thread().clone(),
        })
    }

    fn busy(&self) -> Busy {
        // Only the first one wakes it: a system call at most every 2 ms.
        if self.busy.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Busy(self.busy.clone())
    }
}
