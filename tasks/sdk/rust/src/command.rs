//! A task as a command: params on stdin, result on stdout, everything else as lines of stderr.

use crate::Error;
use std::io::{Read, Write};

/// The exit code after which the runner tries again.
const EXIT_RETRYABLE: i32 = 75;

/// The exit code after which the runner does not try again.
const EXIT_PERMANENT: i32 = 65;

/// Reads params, runs the task and writes its result. A failure ends the process.
pub fn entry(task: impl FnOnce(&str) -> Result<String, Error>) {
    let mut params = String::new();
    let read = std::io::stdin().read_to_string(&mut params);
    let result = match read {
        Ok(0) => task("null"),
        Ok(_) => task(&params),
        Err(error) => Err(error.into()),
    };
    let written = result.and_then(|result| Ok(std::io::stdout().write_all(result.as_bytes())?));
    let (code, why) = match written {
        Ok(()) => return,
        Err(Error::Retryable(why)) => (EXIT_RETRYABLE, why),
        Err(Error::Permanent(why)) => (EXIT_PERMANENT, why),
    };
    log(&crate::line(&why));
    std::process::exit(code);
}

pub(crate) fn progress(fraction: f32, note: &str) {
    log(&format!("::progress {fraction} {note}"));
}

pub(crate) fn partial(json: &str) {
    log(&format!("::partial {json}"));
}

pub(crate) fn log(line: &str) {
    // A task does not fail because nobody reads its log.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

pub(crate) fn add(document: &str) -> Result<(), String> {
    log(&format!("::add {document}"));
    Ok(())
}

pub(crate) fn then(document: &str) -> Result<(), String> {
    log(&format!("::then {document}"));
    Ok(())
}
