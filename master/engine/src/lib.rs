//! The master's decisions. [`engine`] turns inputs into events of the core, and the core's effects
//! into records, messages and answers. [`turns`] is the loop around it, [`committing`] makes turns
//! durable and then speaks, [`folding`] brings the view up to date, [`events`] tells watchers.
//!
//! This crate opens no file and no socket: what it reads and writes goes through the key-value
//! store of `taskmaster-store`.

pub mod clock;
pub mod committing;
pub mod components;
pub mod engine;
pub mod events;
mod facts;
pub mod folding;
pub mod inbox;
pub mod interests;
pub mod lanes;
pub mod lookup;
pub mod prepare;
pub mod room;
pub mod settings;
pub mod steady;
pub mod turns;
