//! The binary from outside, as people and scripts use it: real processes, real sockets, real kills.
//!
//! Every test has a master of its own on a free port with everything in a folder of its own, so all
//! may run at once. Nothing sleeps for a fixed time and hopes: what must come is waited for, under
//! a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

mod answers;
mod bad_input;
mod cache;
mod calls;
mod capabilities;
mod components;
mod config;
mod confined;
mod crashes;
mod damage;
mod dependencies;
mod directives;
mod disk;
mod feeds;
mod files;
mod first_hour;
mod guests;
mod help;
mod hostile;
mod large;
mod limits;
mod lines;
mod links;
mod lists;
mod main_job;
mod manifests;
mod modules;
mod object_store;
mod outputs;
mod params;
mod partials;
mod programs;
mod requirements;
mod samples;
mod scale;
mod shutdown;
mod sick;
mod store;

/// Tasks of a large feed.
fn many() -> usize {
    taskmaster_harness::setting("TASKMASTER_E2E_TASKS").unwrap_or(20_000)
}
