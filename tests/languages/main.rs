//! Tasks in ten languages, from `taskmaster new` to a fleet: what each project gives is compared
//! with what this test computes by itself. Tests that need compilers are ignored; where they are asked
//! for, `toolchains` beside this file fetches half a gigabyte once, or those that the variable
//! `TOOLCHAINS` names.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

mod expected;
mod failures;
mod fleet;
mod loops;
mod projects;
mod table;
mod wrapped;
