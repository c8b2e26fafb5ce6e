//! A sample task: share prices. Params with a symbol's prices give its figures; params with a
//! summary draw the chart.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde::Deserialize;
use serde::de::IgnoredAny;

mod analysis;
mod axes;
mod chart;
mod date;
mod summary;
mod svg;
mod table;

/// Why a task fails.
enum RunError {
    /// The params are wrong and will be wrong the next time too.
    Params(String),
    /// The host did not take or give bytes.
    Host(io::Error),
}

/// Tells the runner not to retry.
const EXIT_BAD_PARAMS: u8 = 65;

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

/// The fields that tell one kind of params from the other.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct ParamsKind {
    summary: Option<IgnoredAny>,
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
        .write_all(result.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(RunError::Host)
}

fn compute(params: &[u8]) -> Result<String, String> {
    let kind: ParamsKind = typed(params)?;
    if kind.summary.is_some() {
        summary::draw(&typed(params)?)
    } else {
        analysis::figures(&typed(params)?)
    }
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
