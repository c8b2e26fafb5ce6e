//! The master: keeps tasks, decides what runs where, and shows what happens.
//!
//! [`engine`] turns inputs into events of the core and its effects into records and messages;
//! [`turns`] commits, then speaks; [`journal`] and [`view`] keep; [`gateway`] and [`modules`] are
//! what the outside sees. [`master`] puts them together.

#![warn(missing_docs)]

pub mod blobs;
pub mod cli;
pub mod clock;
pub mod collecting;
pub mod config;
pub mod engine;
pub mod events;
pub mod folding;
pub mod gateway;
pub mod inbox;
pub mod interests;
pub mod interfaces;
pub mod journal;
pub mod lanes;
pub mod lookup;
pub mod master;
pub mod modules;
pub mod prepare;
pub mod record;
pub mod references;
pub mod room;
pub mod steady;
pub mod store;
pub mod turns;
pub mod upkeep;
pub mod view;
