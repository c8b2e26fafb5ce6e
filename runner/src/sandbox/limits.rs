//! What one task may take of the machine, and the limiter that enforces it.

use wasmtime::ResourceLimiter;

/// Bytes of stdout that are kept in memory while a task runs; more ends the task. A result is a
/// value, not a file: larger output belongs into the task's folder.
pub const STDOUT_BYTES_MAX: usize = 64 << 20;

/// Bytes that a guest may move in one host call: one write of the largest stdout, and no more than
/// that twice over.
pub const HOSTCALL_BYTES_MAX: usize = STDOUT_BYTES_MAX + (16 << 20);

/// Elements of one table: the largest modules known (Ruby, Python) have about 30,000 functions in
/// theirs. Each takes 8 bytes of address space in the pool.
pub const TABLE_ELEMENTS_MAX: usize = 200_000;

/// Tables of one module; compilers make one, hand-written modules seldom more.
pub const TABLES_MAX: u32 = 4;

/// Core modules that one component instantiates: compilers make one and up to three small ones that
/// tie it to WASI; a component that was composed of others has as many of each.
pub const CORE_INSTANCES_MAX: u32 = 16;

/// Memories of one component: one for each program that was composed into it.
pub const MEMORIES_MAX: u32 = 4;

/// Tables of one component: one for each program, one for what ties it to WASI.
pub const COMPONENT_TABLES_MAX: u32 = 16;

/// Memories in the pool, whatever the number of slots: together they reserve 64 TiB, half of what a
/// process can address.
pub const MEMORIES_IN_POOL_MAX: u32 = 16_384;

/// Bytes of bookkeeping that the engine keeps for one instance; grows with a module's functions (32
/// bytes each).
pub const INSTANCE_BYTES_MAX: usize = 16 << 20;

/// Bytes of linear memory that a slot of the pool reserves in the address space: all that 32 bits
/// reach. What a task really gets is its own `memory_mb`.
pub const MEMORY_RESERVED_BYTES: usize = 4 << 30;

/// Bytes of memory that a slot of the pool keeps between two tasks and wipes by hand: page faults
/// cost more than that.
pub const MEMORY_KEPT_BYTES: usize = 64 << 10;

/// The same for tables.
pub const TABLE_KEPT_BYTES: usize = 4 << 10;

/// Bytes of stack for guest code: what deep recursion in interpreters needs, and small beside
/// linear memory.
pub const STACK_BYTES_MAX: usize = 1 << 20;

/// Bytes of the whole stack on which a guest and the host calls below it run.
pub const FIBER_BYTES: usize = STACK_BYTES_MAX + (1 << 20);

/// Bytes of disk that the files of one task may take, `/tmp` included; also the length of one file,
/// sparse or not.
pub const DISK_BYTES_MAX: u64 = 1 << 30;

/// Files and folders of one task: each costs the disk an inode, however short it is.
pub const FILES_MAX: u64 = 20_000;

/// How often the folders of running tasks are looked at, ms.
pub const LOOK_MS: u64 = 100;

/// Files that one task may have open at a time: each is one of this process, which needs others for
/// its sockets. A `ulimit -n` of 1,024 is enough for three such tasks.
pub const OPEN_FILES_MAX: usize = 256;

/// How often running guests look at their cancel switch and their deadline, ms. Well below the 100
/// ms promised.
pub const EPOCH_MS: u64 = 2;

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Linear memory of so many bytes.
    Memory(usize),
    /// A table of so many elements.
    Table(usize),
}

/// Bounds one guest's memory and tables, and remembers the last refusal: a guest that fails later
/// failed of it. The memories of a component count together.
#[derive(Debug)]
pub struct Limiter {
    limit_bytes: usize,
    used_bytes: usize,
    peak_bytes: usize,
    denied: Option<Denied>,
}

impl Limiter {
    /// For a task with this `memory_mb`.
    pub fn new(memory_mb: u32) -> Limiter {
        let limit_bytes = usize::try_from(memory_mb)
            .unwrap_or(usize::MAX)
            .saturating_mul(1 << 20);
        Limiter {
            limit_bytes: limit_bytes.min(MEMORY_RESERVED_BYTES),
            used_bytes: 0,
            peak_bytes: 0,
            denied: None,
        }
    }

    /// The most memory that the guest may have, bytes.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// The most memory that it had, bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes as u64
    }

    /// What it was refused last, if anything.
    pub fn denied(&self) -> Option<Denied> {
        self.denied
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Beyond the module's own maximum the refusal is the module's wish, not ours.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let all = self
            .used_bytes
            .saturating_sub(current)
            .saturating_add(desired);
        if all > self.limit_bytes {
            self.denied = Some(Denied::Memory(all));
            return Ok(false);
        }
        self.used_bytes = all;
        self.peak_bytes = self.peak_bytes.max(all);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The pool's own limit comes as a maximum, too.
        if maximum.is_some_and(|maximum| desired > maximum && maximum < TABLE_ELEMENTS_MAX) {
            return Ok(false);
        }
        if desired > TABLE_ELEMENTS_MAX {
            self.denied = Some(Denied::Table(desired));
            return Ok(false);
        }
        Ok(true)
    }
}
