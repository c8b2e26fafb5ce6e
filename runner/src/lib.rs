//! A runner takes tasks from a master over a WebSocket and executes them as WebAssembly, each in a
//! sandbox of its own.
//!
//! [`link`] keeps the connection around [`taskmaster_runner_session`], which decides and does
//! nothing else. [`prepare`] gets what an attempt needs. [`slots`] are the threads that run it.
//! [`sandbox`] is where guest code lives. [`outcome`] says what the end of an attempt means. A
//! runner keeps nothing but caches on disk, and never runs anything but WebAssembly.

pub mod at_work;
mod cache;
pub mod cli;
pub mod compile;
pub mod fault;
pub mod fetch;
pub mod grants;
pub mod inputs;
mod leaving;
pub mod link;
pub mod modules;
pub mod outcome;
pub mod prepare;
pub mod sandbox;
mod self_check;
pub mod slots;

pub use cli::{RunArgs, RunnerArgs};
pub use link::{RunnerConfig, RunnerError, serve};
