//! A task as a component of the world taskmaster:task, by the canonical ABI: one export, its
//! allocator, and the host's functions. By hand, because it is little, and a generator of bindings
//! takes longer to compile than all else.

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
    fn host_add(task: *const u8, length: usize, answer: *mut Answer);
    #[link_name = "then"]
    fn host_then(task: *const u8, length: usize, answer: *mut Answer);
}

/// `result<string, string>`, and `result<_, string>`, whose text stands in the same place.
#[repr(C)]
struct Answer {
    failed: u8,
    text: *mut u8,
    length: usize,
}

/// Runs the task. Gives back the address of its result, which lives as long as the instance: it
/// serves one task.
pub fn entry(
    params: *mut u8,
    length: usize,
    task: impl FnOnce(&str) -> Result<String, Error>,
) -> *const u8 {
    // SAFETY: the caller hands over `length` bytes of UTF-8 that it allocated with `cabi_realloc`.
    let params = unsafe { String::from_raw_parts(params, length, length) };
    // `result<string, error>`, where an error is a variant of two strings: which of the two, which
    // of its cases, the text.
    let ending = match task(&params) {
        Ok(text) => {
            let (at, length) = kept(text);
            [0, at, length, 0]
        }
        Err(Error::Retryable(why)) => {
            let (at, length) = kept(why);
            [1, 0, at, length]
        }
        Err(Error::Permanent(why)) => {
            let (at, length) = kept(why);
            [1, 1, at, length]
        }
    };
    Box::into_raw(Box::new(ending)).cast()
}

/// The address and the length of a text that stays.
fn kept(text: String) -> (usize, usize) {
    let text = Box::leak(text.into_boxed_str());
    (text.as_ptr().expose_provenance(), text.len())
}

/// A library for this target begins without anybody who prepares it, and the linker would do so at
/// the first call of an export: within `cabi_realloc`, where nothing may be asked of the host yet.
#[cfg(all(target_os = "wasi", target_env = "p1"))]
#[unsafe(export_name = "_initialize")]
extern "C" fn initialize() {
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }
    // SAFETY: whoever makes an instance calls this once, before all else.
    unsafe { __wasm_call_ctors() }
}

/// What the caller allocates its arguments with.
#[unsafe(export_name = "cabi_realloc")]
extern "C" fn cabi_realloc(old: *mut u8, was: usize, align: usize, size: usize) -> *mut u8 {
    if size == 0 {
        return std::ptr::without_provenance_mut(align);
    }
    // SAFETY: the canonical ABI calls with an alignment that is a power of two, and with what this
    // function gave before.
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
    // SAFETY: the host reads so many bytes at this address.
    unsafe { host_progress(fraction, note.as_ptr(), note.len()) }
}

pub(crate) fn partial(json: &str) {
    // SAFETY: as above.
    unsafe { host_partial(json.as_ptr(), json.len()) }
}

pub(crate) fn log(line: &str) {
    // SAFETY: as above.
    unsafe { host_log(line.as_ptr(), line.len()) }
}

pub(crate) fn add(document: &str) -> Result<(), String> {
    ask(document, host_add)
}

pub(crate) fn then(document: &str) -> Result<(), String> {
    ask(document, host_then)
}

fn ask(
    document: &str,
    of: unsafe extern "C" fn(*const u8, usize, *mut Answer),
) -> Result<(), String> {
    let mut answer = Answer {
        failed: 0,
        text: std::ptr::null_mut(),
        length: 0,
    };
    // SAFETY: the host reads so many bytes, and writes an answer.
    unsafe { of(document.as_ptr(), document.len(), &raw mut answer) };
    if answer.failed == 0 {
        return Ok(());
    }
    // SAFETY: where it failed there is a text, allocated with `cabi_realloc`.
    Err(unsafe { String::from_raw_parts(answer.text, answer.length, answer.length) })
}
