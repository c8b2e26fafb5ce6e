//! Tasks in ten languages, from `taskmaster new` to a fleet: what each project gives is compared
//! with what this test computes by itself. With `TASKMASTER_TOOLCHAINS=1` only: `toolchains` beside
//! this file fetches half a gigabyte once. A toolchain that is missing is a failure then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

#[path = "../outside/harness.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod harness;

mod expected;
mod failures;
mod fleet;
mod loops;
mod projects;
mod table;
mod wrapped;
