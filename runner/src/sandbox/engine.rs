//! The one engine of the process, its pool of instances, its epoch ticker and its linkers.

use super::checked_calls::{self, WASI};
use super::files::{TaskFolder, TaskFolders};
use super::guest::Guest;
use super::quota::DiskQuota;
use super::{host, limits};
use rustix::process::{Resource, getrlimit};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;
use taskmaster_console::long_lived;
use wasmtime::component;
use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, Linker,
    PoolingAllocationConfig, Store, WasmBacktraceDetails,
};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{I32Exit, WasiCtx};

/// How often the epoch ticker looks whether its engine is gone, while no guest runs.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox could not be set up: {0}")]
pub struct SandboxError(pub String);

/// The engine with its pool and linkers, and the folders of tasks.
pub struct Sandbox {
    engine: Engine,
    linker: Linker<Guest>,
    component_linker: component::Linker<Guest>,
    /// The functions of WASI preview 1 that a command can import.
    functions: BTreeSet<String>,
    folders: TaskFolders,
    quota: DiskQuota,
    ticker: EpochTicker,
    open_files_max: usize,
}

impl Sandbox {
    /// A sandbox for `slots` tasks at a time. Their folders are made in `work`.
    pub fn new(slots: u32, work: &Path) -> Result<Sandbox, SandboxError> {
        let failed = |error: &dyn std::fmt::Display| SandboxError(error.to_string());
        let engine = engine(slots).map_err(|error| failed(&error))?;
        let linker = linker(&engine).map_err(|error| failed(&error))?;
        let component_linker = component_linker(&engine).map_err(|error| failed(&error))?;
        let functions = functions(&engine).map_err(|error| failed(&error))?;
        let folders = TaskFolders::open(work).map_err(|error| failed(&error))?;
        let quota = DiskQuota::start().map_err(|error| failed(&error))?;
        let ticker = EpochTicker::start(engine.weak()).map_err(|error| failed(&error))?;
        Ok(Sandbox {
            engine,
            linker,
            component_linker,
            functions,
            folders,
            quota,
            ticker,
            open_files_max: limits::open_files_each(getrlimit(Resource::Nofile).current, slots),
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

    /// Whether a command can import `function` of WASI preview 1.
    pub(super) fn knows(&self, function: &str) -> bool {
        self.functions.contains(function)
    }

    /// Must be held while guests run, because the epoch rises only then. Without it no timeout and
    /// no cancel takes effect in a guest that computes.
    pub fn keep_ticking(&self) -> TickGuard {
        self.ticker.keep_ticking()
    }

    /// A private folder that is removed when this process ends. If this process is killed, the next
    /// one removes it.
    pub fn scratch(&self) -> &Path {
        self.folders.base()
    }

    pub(super) fn quota(&self) -> &DiskQuota {
        &self.quota
    }

    /// Files that one guest may have open at a time.
    pub(super) fn open_files_max(&self) -> usize {
        self.open_files_max
    }

    /// A new folder for one task.
    pub(crate) fn make_folder(&self) -> std::io::Result<TaskFolder> {
        self.folders.make()
    }
}

/// A hash of wasmtime's version, its settings and the processor: code for an engine with another one
/// cannot be used.
pub fn hash(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut hasher);
    format!("{:016x}", hasher.finish())
}

/// An engine that compiles for the engine with this [`hash`]. It has no pool, which reserves much
/// address space and makes no difference to the code.
pub(crate) fn compiler(expected: &str) -> Result<Engine, SandboxError> {
    let mut as_with_pool = config(Some(1));
    as_with_pool.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    for config in [as_with_pool, config(None)] {
        let engine = Engine::new(&config).map_err(|error| SandboxError(error.to_string()))?;
        if hash(&engine) == expected {
            return Ok(engine);
        }
    }
    let text = format!("no compiler makes code for the engine {expected}");
    Err(SandboxError(text))
}

/// The engine with its pool, or without one where the address space is too small for it (`ulimit
/// -v`, as batch systems set it).
fn engine(slots: u32) -> wasmtime::Result<Engine> {
    let space = getrlimit(Resource::As).current;
    let needed = limits::pool_bytes(slots).saturating_add(limits::SPACE_KEPT_BYTES);
    let why = match space.filter(|space| *space < needed) {
        Some(space) => format!("`ulimit -v` allows {} MiB of addresses", space >> 20),
        None => match Engine::new(&config(Some(slots))) {
            Ok(engine) => return Ok(engine),
            Err(error) => format!("{error:#}"),
        },
    };
    tracing::warn!("no pool of instances, tasks will start and run more slowly: {why}");
    Engine::new(&config(None))
}

/// With the pool, copy-on-write and pages that stay resident, the start of a task costs 6 µs.
/// Without them it costs 50 µs.
fn config(pool_for: Option<u32>) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .memory_init_cow(true)
        // Where one part of a component calls another, the engine's own glue code has the memories
        // of both. A single module with several memories is still refused, by the master that
        // validates it and by the pool.
        .wasm_multi_memory(true)
        .max_wasm_stack(limits::STACK_BYTES_MAX)
        .async_stack_size(limits::FIBER_BYTES)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .parallel_compilation(true);
    let Some(slots) = pool_for else {
        // A memory takes the addresses that it uses, and each access is compared with its length.
        // The settings are part of the engine's hash, so compiled code is never taken for that of
        // an engine with a pool.
        config
            .memory_reservation(limits::MEMORY_FIRST_BYTES)
            .memory_reservation_for_growth(limits::MEMORY_GROWTH_BYTES)
            .memory_guard_size(limits::MEMORY_GUARD_BYTES)
            .guard_before_linear_memory(false)
            // Each thread of the compiler takes some MiB of addresses.
            .parallel_compilation(false);
        return config;
    };
    let count = limits::instances_in_pool(slots);
    let memories = limits::memories_in_pool(slots);
    let mut pool = PoolingAllocationConfig::new();
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
    config
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, Guest::enter_wasi)?;
    // wasmtime's own `proc_exit` refuses codes above 125, but a program may exit with any code.
    linker.allow_shadowing(true);
    linker.func_wrap(WASI, "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(I32Exit(code).into())
    })?;
    checked_calls::add_to_linker(&mut linker)?;
    Ok(linker)
}

fn component_linker(engine: &Engine) -> wasmtime::Result<component::Linker<Guest>> {
    let mut linker = component::Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    // Only outgoing requests: `wasi:http/types` and `wasi:http/outgoing-handler`.
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    host::add_to_linker(&mut linker)?;
    linker.allow_shadowing(true);
    checked_calls::add_to_component_linker(&mut linker)?;
    Ok(linker)
}

/// The names of WASI's functions, read from a linker whose store needs no guest.
fn functions(engine: &Engine) -> wasmtime::Result<BTreeSet<String>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |wasi: &mut WasiP1Ctx| wasi)?;
    let mut store = Store::new(engine, WasiCtx::builder().build_p1());
    Ok(linker
        .iter(&mut store)
        .map(|(_, name, _)| name.to_owned())
        .collect())
}

/// Raises the engine's epoch every [`limits::EPOCH_MS`] while guests run, and sleeps while none
/// does.
struct EpochTicker {
    /// How many [`TickGuard`]s there are.
    guards: Arc<AtomicUsize>,
    thread: Thread,
}

/// Keeps the engine's epoch rising as long as this lives.
pub struct TickGuard(Arc<AtomicUsize>);

impl Drop for TickGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl EpochTicker {
    fn start(engine: EngineWeak) -> std::io::Result<EpochTicker> {
        let guards = Arc::new(AtomicUsize::new(0));
        let count = guards.clone();
        let thread = long_lived::spawn("epoch", move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                if count.load(Ordering::SeqCst) == 0 {
                    std::thread::park_timeout(IDLE_LOOK);
                } else {
                    std::thread::sleep(Duration::from_millis(limits::EPOCH_MS));
                }
            }
        })?;
        Ok(EpochTicker {
            guards,
            thread: thread.thread().clone(),
        })
    }

    fn keep_ticking(&self) -> TickGuard {
        // Only the first guard wakes the thread, so that a system call is made at most once per
        // epoch.
        if self.guards.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        TickGuard(self.guards.clone())
    }
}
