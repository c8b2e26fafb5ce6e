//! What is in a module's file, found out in a process of its own.

use crate::{Failure, ProcessLimits, Work, run};
use std::sync::{Condvar, Mutex, PoisonError};
use taskmaster_module::Inspection;
use taskmaster_protocol::Hash;

/// Looks into a module's file. The argument is the stem of the file's name.
pub static INSPECT: Work = Work {
    name: "inspect",
    run: |arguments, bytes| {
        let stem = arguments.first().map_or("", String::as_str);
        let inspection = taskmaster_module::inspect_content(stem, bytes);
        serde_json::to_vec(&inspection).map_err(|error| error.to_string())
    },
};

/// Memory of an inspection. The text form of a module of 100 MiB takes 1 GiB.
const MEMORY_BYTES_MAX: u64 = 3 << 30;

/// Seconds of an inspection, whatever the size. Modules of a few kilobytes take a millisecond.
const PROCESSOR_S: u64 = 10;

/// Bytes of what is told of a module: a thousand imports and exports, at most 4 KiB each.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// Processes that inspect at a time, on a machine with fewer processors.
const AT_A_TIME_MIN: usize = 2;

/// How many processes inspect now.
static INSPECTING: Mutex<usize> = Mutex::new(0);
static ONE_HAS_ENDED: Condvar = Condvar::new();

/// Why a file was not inspected, which is no fault of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the module was not checked: {0}")]
pub struct NotInspected(Failure);

/// [`taskmaster_module::inspect`] in a process of its own. What exceeds its limits is rejected with
/// the limit. Blocks the calling thread.
pub fn inspect(file_stem: &str, bytes: &[u8]) -> Result<Inspection, NotInspected> {
    // The hash is the module's identity, which no other process may choose.
    std::thread::scope(|scope| {
        let hasher = scope.spawn(|| Hash::of(bytes));
        let mut inspection = inspect_content(file_stem, bytes)?;
        inspection.check.version = Some(hasher.join().unwrap_or_else(|_| Hash::of(bytes)));
        Ok(inspection)
    })
}

fn inspect_content(file_stem: &str, bytes: &[u8]) -> Result<Inspection, NotInspected> {
    let _turn = Turn::take();
    let limits = ProcessLimits {
        memory_bytes: MEMORY_BYTES_MAX,
        processor_s: PROCESSOR_S + bytes.len().div_ceil(1 << 20) as u64,
        output_bytes: OUTPUT_BYTES_MAX,
    };
    let rejected = |why: String| Ok(Inspection::rejected(file_stem, bytes, why));
    match run(&INSPECT, &[file_stem.to_owned()], bytes, &limits) {
        Ok(answer) => match serde_json::from_slice(&answer) {
            Ok(inspection) => Ok(inspection),
            Err(error) => rejected(format!("what is in it cannot be told: {error}")),
        },
        Err(Failure::Exceeded(excess)) => rejected(format!("checking it took more {excess}")),
        Err(failure @ (Failure::Broken(_) | Failure::Refused(_))) => {
            rejected(format!("it cannot be checked: {failure}"))
        }
        Err(failure @ (Failure::Killed(_) | Failure::NotStarted(_))) => Err(NotInspected(failure)),
    }
}

/// The right to inspect a file, which few have at a time.
struct Turn;

impl Turn {
    fn take() -> Turn {
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        let most = most.max(AT_A_TIME_MIN);
        let now = INSPECTING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = ONE_HAS_ENDED
            .wait_while(now, |now| *now >= most)
            .unwrap_or_else(PoisonError::into_inner);
        *now += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *INSPECTING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ONE_HAS_ENDED.notify_one();
    }
}
