//! The master's outside and its beginning: [`gateway`] is the port that everybody connects to,
//! [`modules`] the task folder, [`upkeep`] what is done to a store at rest, [`collecting`] the end of
//! blobs that nothing names. [`master`] puts them together with the engine, the store and the blobs.

pub mod cli;
pub mod collecting;
pub mod config;
pub mod gateway;
pub mod handle;
pub mod interfaces;
pub mod master;
pub mod modules;
pub mod upkeep;
