//! A sample task: the Mandelbrot set. Params with a window give a slice of its rows; params with
//! slices, the picture.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde::Deserialize;

mod palette;
mod png;
mod progress;
mod slice;
mod stitch;

/// Why a task fails.
enum RunError {
    /// The params are wrong and will be wrong the next time too.
    Params(String),
    /// The host did not take or give bytes.
    Host(io::Error),
}

/// Tells the runner not to retry.
const EXIT_BAD_PARAMS: u8 = 65;

/// A picture of more pixels than this would not fit into a task's usual memory beside its slices.
const PIXELS_MAX: u64 = 1 << 26;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Params(message)) => {
            report(&message);
            ExitCode::from(EXIT_BAD_PARAMS)
        }
        Err(RunError::Host(error)) => {
            report(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), RunError> {
    let mut params = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut params)
        .map_err(RunError::Host)?;
    let result = compute(&params).map_err(RunError::Params)?;
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(&result)
        .and_then(|()| stdout.flush())
        .map_err(RunError::Host)
}

fn compute(params: &[u8]) -> Result<Vec<u8>, String> {
    if mentions(params, b"\"stitch\"") || mentions(params, b"\"slices\"") {
        stitch::picture(&typed(params)?)
    } else {
        slice::compute(&typed(params)?)
    }
}

/// Whether a name stands in the params. A window holds nothing but numbers, so that a search in the
/// text can tell the two kinds apart; to parse the params for that as well would add 8 KB to the
/// module.
fn mentions(params: &[u8], name: &[u8]) -> bool {
    params.windows(name.len()).any(|text| text == name)
}

/// Reads params as a type; the message for wrong ones names the field.
fn typed<'a, T: Deserialize<'a>>(params: &'a [u8]) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(params);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| format!("params: {error}"))?;
    deserializer
        .end()
        .map_err(|error| format!("params: {error}"))?;
    Ok(value)
}

/// A line of the log. A host that does not listen is no reason to fail.
fn report(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}
