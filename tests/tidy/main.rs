//! The house rules that a machine can check. What breaks one is named with its file and line.
//!
//! `cargo test --test tidy -- --nocapture` prints today's number for each bound below.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

mod circles;
mod dependencies;
mod layout;
mod paths;
mod rust;
mod sources;
mod style;

/// Lines of a source. A longer file has more than one job.
const LINES_MAX: usize = 800;

// The bounds below are of the product's sources only. They are lowered when the number falls, and
// never raised.

/// Names of top-level types that stand in three files or more.
const NAMES_IN_THREE_FILES_MAX: usize = 0;

/// Bindings of several names to a tuple that is written beside them, `let (a, b) = (x, y);`, of
/// 1,000 lines of code.
const PACKINGS_OF_1000_MAX: f64 = 0.1;

/// Lines of code above 100 columns, of 100.
const WIDE_OF_100_MAX: f64 = 0.15;

/// Docs of fields that have three words or fewer, of 100 docs of fields.
const SHORT_FIELD_DOCS_OF_100_MAX: f64 = 8.5;

/// Comments that cannot be read alone, because they begin with a word that points elsewhere.
const POINTING_COMMENTS_MAX: usize = 0;

/// Comments that call a program he.
const PROGRAMS_CALLED_HE_MAX: usize = 0;

/// Functions of more than [`FUNCTION_LINES_MAX`] lines.
const LONG_FUNCTIONS_MAX: usize = 2;

/// What fits on a screen.
const FUNCTION_LINES_MAX: usize = 70;
