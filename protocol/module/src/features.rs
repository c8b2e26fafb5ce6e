//! The WebAssembly proposals that the engine of the runners has.

use wasmparser::WasmFeatures;

/// What wasmtime 48 enables by default on x86-64 with the workspace's cargo features
/// (`Config::features` in its `config.rs`): WebAssembly 3 without what needs the cargo features
/// `gc` (reference types beyond `funcref`, exceptions) and `threads` (shared memory, atomics), and
/// components without their async part. A feature that is enabled here and not in the engine would
/// let a file pass that no runner can compile, so that both change together.
pub(crate) const ENGINE: WasmFeatures = WasmFeatures::WASM3
    .union(WasmFeatures::COMPONENT_MODEL)
    .difference(WasmFeatures::GC_TYPES)
    .difference(WasmFeatures::EXCEPTIONS)
    .difference(WasmFeatures::THREADS);

/// The name of a proposal, and what a person can do to build without it.
const NAMES: &[(WasmFeatures, &str)] = &[
    (
        WasmFeatures::LEGACY_EXCEPTIONS,
        "legacy exceptions (build without them, for example -fno-exceptions)",
    ),
    (
        WasmFeatures::EXCEPTIONS,
        "exceptions (build without them, for example -fno-exceptions or panic=abort)",
    ),
    (
        WasmFeatures::THREADS,
        "threads (shared memory and atomics; build without -pthread)",
    ),
    (
        WasmFeatures::SHARED_EVERYTHING_THREADS,
        "shared-everything threads",
    ),
    (
        WasmFeatures::GC_TYPES,
        "garbage-collected types (externref, structs, arrays)",
    ),
    (
        WasmFeatures::CM_ASYNC,
        "async components (WASI 0.3; build without async, for WASI 0.2)",
    ),
    (WasmFeatures::STACK_SWITCHING, "stack switching"),
    (WasmFeatures::CUSTOM_PAGE_SIZES, "custom page sizes"),
    (WasmFeatures::WIDE_ARITHMETIC, "wide arithmetic"),
    (WasmFeatures::MEMORY_CONTROL, "memory control"),
    (WasmFeatures::CUSTOM_DESCRIPTORS, "custom descriptors"),
    (WasmFeatures::COMPACT_IMPORTS, "compact imports"),
];

/// The names of the proposals in `missing`, for people.
pub(crate) fn names(missing: WasmFeatures) -> Vec<String> {
    let listed = |feature: WasmFeatures| {
        NAMES
            .iter()
            .find(|(known, _)| *known == feature)
            .map(|(_, name)| *name)
    };
    missing
        .iter_names()
        .map(|(name, feature)| {
            listed(feature).map_or_else(|| name.to_lowercase().replace('_', " "), str::to_owned)
        })
        .collect()
}
