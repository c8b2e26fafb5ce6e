//! A task is one function: a type that serde reads goes in, a type that serde writes comes out.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use taskmaster::Error;
//!
//! #[derive(Deserialize)]
//! struct Params {
//!     numbers: Vec<f64>,
//! }
//!
//! #[derive(Serialize)]
//! struct Mean {
//!     mean: f64,
//! }
//!
//! taskmaster::task!(mean);
//!
//! fn mean(params: Params) -> Result<Mean, Error> {
//!     if params.numbers.is_empty() {
//!         return Err(Error::permanent("numbers: at least one is wanted"));
//!     }
//!     taskmaster::progress(0.5, "half way");
//!     Ok(Mean { mean: params.numbers.iter().sum::<f64>() / params.numbers.len() as f64 })
//! }
//! # fn call(params: &str) -> Result<String, Error> { taskmaster::call(mean, params) }
//! # assert_eq!(call(r#"{"numbers":[1,2]}"#).ok().as_deref(), Some(r#"{"mean":1.5}"#));
//! # assert!(call(r#"{"numbers":[]}"#).is_err());
//! ```
//!
//! Without the feature `component` the macro makes a `main` that reads params from stdin and writes
//! the result to stdout; with it the export `run`, of which `taskmaster modules wrap` makes a
//! component. The function is the same.
//!
//! # Errors
//!
//! Params that the type does not take are a permanent failure that names the field:
//! `params.numbers[1]: invalid type: string "2", expected f64`. A function that gives back an
//! [`Error`] decides whether trying again helps. Any other error becomes one that is tried again, so
//! that `?` does what one expects. A panic is a failure with its message and a backtrace; a task
//! that panicked is not tried again.
//!
//! # Limits
//!
//! Params have at most 64 MiB, a task at most the memory that its `memory_mb` says. Objects may lie
//! 128 deep in each other. A text of [`progress`] or [`log`] is one line: line ends become blanks.

#![cfg_attr(not(feature = "component"), deny(unsafe_code))]

#[cfg(not(feature = "component"))]
#[path = "command.rs"]
mod speech;
#[cfg(feature = "component")]
#[path = "component.rs"]
mod speech;

mod place;

#[doc(hidden)]
pub use speech::entry;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;

/// Why a task failed, and whether trying again may help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The task is tried again, as often as its `retries` say.
    Retryable(String),
    /// The task is not tried again.
    Permanent(String),
}

impl Error {
    /// An error after which trying again is of no use.
    pub fn permanent(why: impl Display) -> Error {
        Error::Permanent(why.to_string())
    }

    /// An error after which trying again may help.
    pub fn retryable(why: impl Display) -> Error {
        Error::Retryable(why.to_string())
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Error {
        Error::Retryable(error.to_string())
    }
}

/// Tells watchers how far the task is, from 0 to 1, with a note. Never stored.
pub fn progress(fraction: f32, note: &str) {
    speech::progress(fraction, &line(note));
}

/// Shows watchers a first part of the result. Never stored.
pub fn partial(value: &impl Serialize) -> Result<(), Error> {
    speech::partial(&serde_json::to_string(value)?);
    Ok(())
}

/// Writes a line into the task's log.
pub fn log(text: &str) {
    speech::log(&line(text));
}

/// Adds a task when this one is done; `document` is a task document such as
/// `json!({"module": "resize", "params": 3})`. For a document that is wrong a component gets an
/// error, and a command gets a warning in its log.
pub fn add(document: &impl Serialize) -> Result<(), Error> {
    speech::add(&serde_json::to_string(document)?).map_err(Error::Permanent)
}

/// Lets this task go on as another one when it is done: the result of the task in `document`
/// becomes the result of this one.
pub fn then(document: &impl Serialize) -> Result<(), Error> {
    speech::then(&serde_json::to_string(document)?).map_err(Error::Permanent)
}

/// Runs a task with params as JSON text and returns its result as JSON text: for tests of a task,
/// and for the macro.
pub fn call<P, R, E>(task: impl FnOnce(P) -> Result<R, E>, params: &str) -> Result<String, Error>
where
    P: DeserializeOwned,
    R: Serialize,
    E: Into<Error>,
{
    let params = serde_json::from_str(params)
        .map_err(|wrong| Error::Permanent(place::named(params, &wrong)))?;
    let result = task(params).map_err(Into::into)?;
    Ok(serde_json::to_string(&result)?)
}

/// Makes a function the task of this crate, in its `lib.rs`.
///
/// As a command, call what it makes: `fn main() { my_crate::main() }`.
#[cfg(not(feature = "component"))]
#[macro_export]
macro_rules! task {
    ($function:path) => {
        /// The command: params from stdin, the result to stdout.
        pub fn main() {
            $crate::entry(|params| $crate::call($function, params))
        }
    };
}

/// Makes a function the task of this crate, in its `lib.rs`.
#[cfg(feature = "component")]
#[macro_export]
macro_rules! task {
    ($function:path) => {
        #[unsafe(export_name = "run")]
        extern "C" fn taskmaster_run(params: *mut u8, length: usize) -> *const u8 {
            $crate::entry(params, length, |params| $crate::call($function, params))
        }
    };
}

/// A text on one line.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Params {
        #[serde(default)]
        rows: Vec<Row>,
    }

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        width: u8,
    }

    fn widths(params: Params) -> Result<u32, Error> {
        Ok(params.rows.iter().map(|row| u32::from(row.width)).sum())
    }

    #[test]
    fn wrong_params_name_the_field() {
        for (params, place, why) in [
            (
                r#"{"rows":[{"width":1},{"width":"8"}]}"#,
                "params.rows[1].width",
                "invalid type: string \"8\", expected u8",
            ),
            (
                r#"{"rows":[{"width":300}]}"#,
                "params.rows[0].width",
                "invalid value: integer `300`, expected u8",
            ),
            (
                r#"{"rows":[{"width":1}, {}]}"#,
                "params.rows[1]",
                "missing field `width`",
            ),
            (
                r#"{"rows":[{"widht":1}]}"#,
                "params.rows[0].widht",
                "unknown field `widht`",
            ),
            (r#"{"rows":{"a":[1]}}"#, "params.rows", "invalid type: map"),
            ("7", "params", "invalid type: integer"),
            (
                "{\"rows\":[\n {\"width\":\n true}]}",
                "params.rows[0].width",
                "invalid type: boolean",
            ),
        ] {
            let Err(Error::Permanent(text)) = call(widths, params) else {
                panic!("{params} is taken")
            };
            assert!(
                text.starts_with(&format!("{place}: {why}")),
                "{params}: {text}"
            );
        }
        assert_eq!(
            call(widths, r#"{"rows":[{"width":3},{"width":4}]}"#),
            Ok("7".to_owned())
        );
    }

    #[test]
    fn other_errors_are_tried_again() {
        let read = |_: Params| -> Result<u8, Error> { Ok("x".parse::<u8>()?) };
        assert_eq!(
            call(read, "{}"),
            Err(Error::Retryable("invalid digit found in string".to_owned()))
        );
    }
}
