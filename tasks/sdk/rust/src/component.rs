//! A task as a component of the world taskmaster:task, by the canonical ABI: one export, its
//! allocator, and the host's functions. The bindings are written by hand, because they are short
//! and a generator of bindings takes longer to compile than everything else.

use crate::Error;
use std::alloc::{Layout, alloc, realloc};

#[link(wasm_import_module = "taskmaster:task/host@1.0.0")]
unsafe extern "C" {
    #[link_name = "progress"]
    fn host_progress(fraction: f32, note: *const u8, length: usize);
    #[link_name = "partial"]
    fn host_partial(value: *const u8, length: usize);
    #[link_name = "log"]
    fn host_log(text: *const u8, length: usize);
    #[link_name = "add"]
    fn host_add(task: *const u8, length: usize, answer: *mut HostAnswer);
    #[link_name = "then"]
    fn host_then(task: *const u8, length: usize, answer: *mut HostAnswer);
}

/// A `result<string, string>`, or a `result<_, string>`, whose text stands in the same place.
#[repr(C)]
struct HostAnswer {
    failed: u8,
    text: *mut u8,
    length: usize,
}

/// Runs the task. Returns the address of its result. The result is never freed, because an instance
/// serves one task only.
pub fn entry(
    params: *mut u8,
    length: usize,
    task: impl FnOnce(&str) -> Result<String, Error>,
) -> *const u8 {
    // SAFETY: the caller hands over `length` bytes of UTF-8 that it allocated with `cabi_realloc`.
    let params = unsafe { String::from_raw_parts(params, length, length) };
    // The layout of `result<string, error>`, where an error is a variant of two strings: the case
    // of the result, the case of the error, the text.
    let result = match task(&params) {
        Ok(text) => {
            let text = LeakedText::of(text);
            [0, text.address, text.length, 0]
        }
        Err(Error::Retryable(why)) => {
            let why = LeakedText::of(why);
            [1, 0, why.address, why.length]
        }
        Err(Error::Permanent(why)) => {
            let why = LeakedText::of(why);
            [1, 1, why.address, why.length]
        }
    };
    Box::into_raw(Box::new(result)).cast()
}

/// Where a text lies that is never freed.
struct LeakedText {
    address: usize,
    /// In bytes.
    length: usize,
}

impl LeakedText {
    fn of(text: String) -> LeakedText {
        let text = Box::leak(text.into_boxed_str());
        LeakedText {
            address: text.as_ptr().expose_provenance(),
            length: text.len(),
        }
    }
}

/// Runs the constructors of the C library. Without this export the linker would run them at the
/// first call of another export, which is `cabi_realloc`, where the host must not be called yet.
#[cfg(all(target_os = "wasi", target_env = "p1"))]
#[unsafe(export_name = "_initialize")]
extern "C" fn initialize() {
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }
    // SAFETY: the host calls this once, before everything else.
    unsafe { __wasm_call_ctors() }
}

/// Allocates memory for the arguments that the host passes.
#[unsafe(export_name = "cabi_realloc")]
extern "C" fn cabi_realloc(old: *mut u8, was: usize, align: usize, size: usize) -> *mut u8 {
    if size == 0 {
        return std::ptr::without_provenance_mut(align);
    }
    // SAFETY: the canonical ABI passes an alignment that is a power of two, and an address and a
    // size that this function returned before.
    let new = unsafe {
        let layout = Layout::from_size_align_unchecked(if was == 0 { size } else { was }, align);
        if was == 0 {
            alloc(layout)
        } else {
            realloc(old, layout, size)
        }
    };
    if new.is_null() {
        std::process::abort();
    }
    new
}

pub(crate) fn progress(fraction: f32, note: &str) {
    // SAFETY: the host reads `note.len()` bytes at this address.
    unsafe { host_progress(fraction, note.as_ptr(), note.len()) }
}

pub(crate) fn partial(json: &str) {
    // SAFETY: the host reads `json.len()` bytes at this address.
    unsafe { host_partial(json.as_ptr(), json.len()) }
}

pub(crate) fn log(line: &str) {
    // SAFETY: the host reads `line.len()` bytes at this address.
    unsafe { host_log(line.as_ptr(), line.len()) }
}

pub(crate) fn add(document: &str) -> Result<(), String> {
    call_host(host_add, document)
}

pub(crate) fn then(document: &str) -> Result<(), String> {
    call_host(host_then, document)
}

fn call_host(
    function: unsafe extern "C" fn(*const u8, usize, *mut HostAnswer),
    document: &str,
) -> Result<(), String> {
    let mut answer = HostAnswer {
        failed: 0,
        text: std::ptr::null_mut(),
        length: 0,
    };
    // SAFETY: the host reads `document.len()` bytes at this address, and writes an answer.
    unsafe { function(document.as_ptr(), document.len(), &raw mut answer) };
    if answer.failed == 0 {
        return Ok(());
    }
    // SAFETY: a call that failed has a text, which the host allocated with `cabi_realloc`.
    Err(unsafe { String::from_raw_parts(answer.text, answer.length, answer.length) })
}
