//! How guest code ended, from what the engine says of it.

use super::backtrace::frames;
use super::guest::Guest;
use super::limits::{self, DeniedGrowth, MemoryLimiter};
use super::loading::CallOutcome;
use super::stdio::OutputTooLarge;
use super::stop::StopReason;
use crate::fault::MachineFault;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::{I32Exit, ResourceTableError};

/// Limits of memory are told in MiB.
const MIB: usize = 1 << 20;

/// How guest code ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEnd {
    /// The guest returned, or called `proc_exit`.
    Exit(i32),
    /// The guest trapped: the reason, and the frames with the innermost first.
    Trap(String, Option<String>),
    /// The guest ran longer than its timeout.
    Timeout,
    /// The guest failed after it had been refused memory, or did not fit from the beginning.
    Memory(String),
    /// The guest was cancelled.
    Cancelled,
    /// The module could not be instantiated.
    Module(String),
    /// The guest wrote more than is kept, or did not make the files that it had to give back.
    Output(String),
    /// The task's inputs could not be put into its folder, on this machine or on any other.
    Input(String),
    /// This machine has failed, and not the guest.
    Machine(MachineFault),
    /// The params have another type than the function takes.
    Params(String),
    /// The guest returned an error: its text, and the exit code that a command would have had.
    Failed(String, i32),
}

/// How a call ended, with the result of a function.
pub(super) struct CallEnd {
    pub(super) end: GuestEnd,
    /// `None` where the result is what stands in stdout.
    pub(super) result: Option<String>,
}

/// Reads how a call ended. A guest that was refused memory and then fails has failed of that.
pub(super) fn end_of(result: wasmtime::Result<CallOutcome>, guest: &Guest) -> CallEnd {
    let end = match result {
        Ok(CallOutcome::Text(text)) if text.len() <= limits::STDOUT_BYTES_MAX => {
            return CallEnd {
                end: GuestEnd::Exit(0),
                result: Some(text),
            };
        }
        Ok(CallOutcome::Text(_)) => GuestEnd::Output(OutputTooLarge.to_string()),
        Ok(CallOutcome::Stdout) => GuestEnd::Exit(0),
        Ok(CallOutcome::Exit(code)) => end_by_code(code, &guest.limiter),
        Ok(CallOutcome::Failed(text, code)) => match guest.limiter.denied() {
            Some(denied) => GuestEnd::Memory(memory_text(denied, &guest.limiter)),
            None => GuestEnd::Failed(text, code),
        },
        Ok(CallOutcome::Params(text)) => GuestEnd::Params(text),
        Err(error) => end_by_error(&error, guest),
    };

    let end = match (end, guest.stop.quota_excess()) {
        (GuestEnd::Cancelled, Some(text)) => GuestEnd::Output(text.to_owned()),
        (end, _) => end,
    };
    CallEnd { end, result: None }
}

fn end_by_code(code: i32, limiter: &MemoryLimiter) -> GuestEnd {
    match limiter.denied() {
        Some(denied) if code != 0 => GuestEnd::Memory(memory_text(denied, limiter)),
        Some(_) | None => GuestEnd::Exit(code),
    }
}

fn end_by_error(error: &wasmtime::Error, guest: &Guest) -> GuestEnd {
    let limiter = &guest.limiter;
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return end_by_code(*code, limiter);
    }
    match error.downcast_ref::<StopReason>() {
        Some(StopReason::Cancelled) => return GuestEnd::Cancelled,
        Some(StopReason::Timeout) => return GuestEnd::Timeout,
        None => {}
    }
    if error.downcast_ref::<OutputTooLarge>().is_some() {
        return GuestEnd::Output(OutputTooLarge.to_string());
    }
    if let Some(denied) = limiter.denied() {
        return GuestEnd::Memory(memory_text(denied, limiter));
    }

    let trap = error.downcast_ref::<Trap>();
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(frames);
    if !guest.called && backtrace.is_none() && trap.is_none() {
        return GuestEnd::Module(format!(
            "the module could not be instantiated: {}",
            error.root_cause()
        ));
    }

    let reason = match trap {
        Some(trap) => trap.to_string(),
        None if has_too_many_open(error) => open_files_text(guest),
        None => error.root_cause().to_string(),
    };
    let reason = reason.trim_start_matches("wasm trap: ").to_owned();
    GuestEnd::Trap(reason, backtrace)
}

fn has_too_many_open(error: &wasmtime::Error) -> bool {
    matches!(
        error.downcast_ref::<ResourceTableError>(),
        Some(ResourceTableError::Full)
    )
}

fn open_files_text(guest: &Guest) -> String {
    let what = if guest.http.is_used() {
        "files and parts of HTTP requests"
    } else {
        "files"
    };
    let most = guest.open_files_max;
    format!("it has more than {most} {what} open at a time")
}

fn memory_text(denied: DeniedGrowth, limiter: &MemoryLimiter) -> String {
    match denied {
        DeniedGrowth::Memory { bytes } => format!(
            "the module asked for {} MiB of memory, its limit (`memory_mb`) is {}",
            bytes.div_ceil(MIB),
            limiter.limit_bytes() / MIB
        ),
        DeniedGrowth::MachineMemory { bytes } => format!(
            "the module asked for {} MiB of memory, within its limit (`memory_mb`) of {}, and this \
             machine did not have them: `ulimit -v` may allow the runner too few addresses",
            bytes.div_ceil(MIB),
            limiter.limit_bytes() / MIB
        ),
        DeniedGrowth::Table { elements } => format!(
            "the module asked for a table of {elements} elements, at most {} are allowed",
            limits::TABLE_ELEMENTS_MAX
        ),
    }
}
