//! A task as a command: params on stdin, result on stdout, everything else as lines of stderr.

use crate::Error;
use std::io::{Read, Write};

/// Reads params, runs the task, writes its result; ends the process where there is none.
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
        Err(Error::Retryable(why)) => (75, why),
        Err(Error::Permanent(why)) => (65, why),
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
    // Nobody reads it: no reason to fail.
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
