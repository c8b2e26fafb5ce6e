//! What one task may take of the machine, and the limiter that enforces it.

use wasmtime::ResourceLimiter;

/// Bytes of stdout that are kept in memory while a task runs. A task that writes more is ended. A
/// result is a value, not a file: larger output belongs into a file of the task.
pub const STDOUT_BYTES_MAX: usize = 64 << 20;

/// Bytes that a guest may move in one host call: one write of the largest stdout with some margin.
pub const HOSTCALL_BYTES_MAX: usize = STDOUT_BYTES_MAX + (16 << 20);

/// Elements of one table. The largest modules known (Ruby, Python) have tables of about 30,000
/// functions. Each element takes 8 bytes of address space in the pool.
pub const TABLE_ELEMENTS_MAX: usize = 200_000;

/// Tables of one module. Compilers make one, and hand-written modules seldom have more.
pub const TABLES_MAX: u32 = 4;

/// Core modules that one component instantiates. Compilers make one, and up to three small ones
/// that tie it to WASI. A component that was composed of others has those of all its parts.
pub const CORE_INSTANCES_MAX: u32 = 16;

/// Memories of one component. It has one for each program that was composed into it.
pub const MEMORIES_MAX: u32 = 4;

/// Tables of one component. It has one for each program, and one for what ties it to WASI.
pub const COMPONENT_TABLES_MAX: u32 = 16;

/// Memories in the pool, whatever the number of slots. Together they reserve 64 TiB, half of what a
/// process can address.
pub const MEMORIES_IN_POOL_MAX: u32 = 16_384;

/// Bytes of bookkeeping that the engine keeps for one instance: 32 for each function of the module.
pub const INSTANCE_BYTES_MAX: usize = 16 << 20;

/// Bytes of address space that the pool reserves for one linear memory: all that 32 bits reach. A
/// task may use as much of it as its `memory_mb` says.
pub const MEMORY_RESERVED_BYTES: usize = 4 << 30;

/// Instances in the pool: twice the slots, because the instance of one task is wiped while the next
/// one starts.
pub fn instances_in_pool(slots: u32) -> u32 {
    slots.saturating_mul(2).max(4)
}

/// Memories in the pool.
pub fn memories_in_pool(slots: u32) -> u32 {
    let count = instances_in_pool(slots);
    count
        .saturating_mul(MEMORIES_MAX)
        .min(MEMORIES_IN_POOL_MAX)
        .max(count)
}

/// Bytes of address space that the pool takes: nearly all of it is reserved for memories.
pub fn pool_bytes(slots: u32) -> u64 {
    u64::from(memories_in_pool(slots)) * MEMORY_RESERVED_BYTES as u64
}

/// Bytes of address space that a process needs beside its pool: threads, caches, compiled modules,
/// and in `taskmaster up` the master.
pub const SPACE_KEPT_BYTES: u64 = 16 << 30;

/// Bytes of address space that a memory has at first in a process without a pool. Most small
/// programs never grow beyond it.
pub const MEMORY_FIRST_BYTES: u64 = 2 << 20;

/// Bytes of address space beyond its length that such a memory gets where it has to grow. What is
/// beyond that is moved once more.
pub const MEMORY_GROWTH_BYTES: u64 = 16 << 20;

/// Bytes behind such a memory that nobody may touch.
pub const MEMORY_GUARD_BYTES: u64 = 64 << 10;

/// Bytes of a linear memory that stay resident between two tasks and are wiped by hand, because
/// page faults cost more.
pub const MEMORY_KEPT_BYTES: usize = 64 << 10;

/// Bytes of a table that stay resident between two tasks.
pub const TABLE_KEPT_BYTES: usize = 4 << 10;

/// Bytes of stack for guest code. Interpreters that recurse deeply need it, and it is small beside
/// linear memory.
pub const STACK_BYTES_MAX: usize = 1 << 20;

/// Bytes of the whole stack on which a guest and the host calls below it run.
pub const FIBER_BYTES: usize = STACK_BYTES_MAX + (1 << 20);

/// Bytes of disk that the files of one task may take, `/tmp` included. It is also the greatest
/// length of one file, sparse or not.
pub const DISK_BYTES_MAX: u64 = 1 << 30;

/// Files and folders of one task. Each costs the disk an inode, however short it is.
pub const FILES_MAX: u64 = 20_000;

/// How often the folders of running tasks are looked at, ms.
pub const LOOK_MS: u64 = 100;

/// Files that one task may have open at a time, where the process may have enough of them. Programs
/// that keep many files open, such as databases, have some hundred.
pub const OPEN_FILES_MAX: usize = 256;

/// Files that one task may have open in any case. A language's runtime opens a few at its start.
pub const OPEN_FILES_MIN: usize = 16;

/// Open files of this process that no task gets: its sockets, the files of its caches, uploads, and
/// in `taskmaster up` those of the master.
pub const OPEN_FILES_KEPT: u64 = 256;

/// Files that each of `slots` tasks may have open, in a process that may have `of_process`. Every
/// task has its share of them, so none can take what another one, or the process itself, needs.
pub fn open_files_each(of_process: Option<u64>, slots: u32) -> usize {
    let for_tasks = of_process
        .unwrap_or(u64::MAX)
        .saturating_sub(OPEN_FILES_KEPT);
    let share = for_tasks / u64::from(slots.max(1));
    usize::try_from(share)
        .unwrap_or(usize::MAX)
        .clamp(OPEN_FILES_MIN, OPEN_FILES_MAX)
}

/// What the system says where it has no more memory or addresses for a process.
const NO_MEMORY_ERROR: &str = "os error 12";

/// How often running guests look at their stop switch and their deadline, ms. A guest must stop
/// within 100 ms.
pub const EPOCH_MS: u64 = 2;

/// Growth that a guest asked for and was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeniedGrowth {
    /// Linear memory, beyond the limit of the task.
    Memory {
        /// Bytes that all memories of the guest would have had together.
        bytes: usize,
    },
    /// Linear memory within the limit of the task, which this machine did not have.
    MachineMemory {
        /// Bytes that all memories of the guest would have had together.
        bytes: usize,
    },
    /// A table.
    Table {
        /// Elements that the table would have had.
        elements: usize,
    },
}

/// Bounds one guest's memory and tables, and remembers the last refusal. A guest that fails after a
/// refusal has failed of it. The memories of a component count together.
#[derive(Debug)]
pub struct MemoryLimiter {
    limit_bytes: usize,
    used_bytes: usize,
    peak_bytes: usize,
    denied: Option<DeniedGrowth>,
    /// The last growth that was allowed here. The machine may still fail it.
    allowed: Option<AllowedGrowth>,
}

/// What is to be taken back when an allowed growth fails.
#[derive(Debug)]
struct AllowedGrowth {
    used_bytes_before: usize,
    peak_bytes_before: usize,
}

impl MemoryLimiter {
    /// A limiter for a task with this `memory_mb`.
    pub fn new(memory_mb: u32) -> MemoryLimiter {
        let limit_bytes = usize::try_from(memory_mb)
            .unwrap_or(usize::MAX)
            .saturating_mul(1 << 20);
        MemoryLimiter {
            limit_bytes: limit_bytes.min(MEMORY_RESERVED_BYTES),
            used_bytes: 0,
            peak_bytes: 0,
            denied: None,
            allowed: None,
        }
    }

    /// The most memory that the guest may have, bytes.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// The most memory that the guest had, bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes as u64
    }

    /// What the guest was refused last, if anything.
    pub fn denied(&self) -> Option<DeniedGrowth> {
        self.denied
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The module itself forbids growth beyond its own maximum: that is no refusal of ours.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let all = self
            .used_bytes
            .saturating_sub(current)
            .saturating_add(desired);
        if all > self.limit_bytes {
            self.denied = Some(DeniedGrowth::Memory { bytes: all });
            return Ok(false);
        }
        self.allowed = Some(AllowedGrowth {
            used_bytes_before: self.used_bytes,
            peak_bytes_before: self.peak_bytes,
        });
        self.used_bytes = all;
        self.peak_bytes = self.peak_bytes.max(all);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // The engine also says so of what it refuses without asking here, as beyond 32 bits.
        if !error.root_cause().to_string().contains(NO_MEMORY_ERROR) {
            return Ok(());
        }
        if let Some(allowed) = self.allowed.take() {
            let bytes = self.used_bytes;
            self.denied = Some(DeniedGrowth::MachineMemory { bytes });
            self.used_bytes = allowed.used_bytes_before;
            self.peak_bytes = allowed.peak_bytes_before;
        }
        Ok(())
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The pool's limit comes as a maximum, too, and that is a refusal of ours.
        if maximum.is_some_and(|maximum| desired > maximum && maximum < TABLE_ELEMENTS_MAX) {
            return Ok(false);
        }
        if desired > TABLE_ELEMENTS_MAX {
            self.denied = Some(DeniedGrowth::Table { elements: desired });
            return Ok(false);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_that_the_machine_fails_is_refused_memory_and_is_not_counted() {
        const MIB: usize = 1 << 20;
        let no_memory = || wasmtime::Error::msg("Cannot allocate memory (os error 12)");
        let mut limiter = MemoryLimiter::new(64);
        assert!(limiter.memory_growing(0, 8 * MIB, None).unwrap());
        assert!(limiter.memory_growing(8 * MIB, 40 * MIB, None).unwrap());
        limiter.memory_grow_failed(no_memory()).unwrap();
        let bytes = 40 * MIB;
        assert_eq!(
            limiter.denied(),
            Some(DeniedGrowth::MachineMemory { bytes })
        );
        assert_eq!(limiter.peak_bytes(), 8 << 20);
        // As much as was free before is still allowed.
        assert!(limiter.memory_growing(8 * MIB, 64 * MIB, None).unwrap());

        // What the type of a memory forbids is no matter of the machine.
        let mut limiter = MemoryLimiter::new(64);
        assert!(limiter.memory_growing(0, 8 * MIB, None).unwrap());
        let beyond = wasmtime::Error::msg("memory growth exceeds memory type's limits");
        limiter.memory_grow_failed(beyond).unwrap();
        assert_eq!((limiter.denied(), limiter.peak_bytes()), (None, 8 << 20));
    }

    #[test]
    fn tasks_share_what_the_process_can_spare() {
        assert_eq!(open_files_each(None, 4), OPEN_FILES_MAX);
        assert_eq!(open_files_each(Some(1_048_576), 64), OPEN_FILES_MAX);
        assert_eq!(open_files_each(Some(1_024), 8), 96);
        assert_eq!(open_files_each(Some(1_024), 4_096), OPEN_FILES_MIN);
        assert_eq!(open_files_each(Some(64), 1), OPEN_FILES_MIN);
    }
}
