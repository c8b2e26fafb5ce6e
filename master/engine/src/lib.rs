//! The master's decisions. [`engine`] turns inputs into events of the core, and the core's effects
//! into records, messages and answers. [`turns`] is the loop around the engine, [`committing`] makes
//! turns durable and then sends their answers, [`folding`] brings the view up to date, and
//! [`events`] keeps the events for watchers.
//!
//! This crate opens no file and no socket. It reads and writes only through the key-value store of
//! `taskmaster-store`.

pub mod answer;
pub mod cache;
pub mod clock;
pub mod committing;
pub mod components;
pub mod disk_monitor;
pub mod disk_space;
pub mod durable_commit;
pub mod engine;
pub mod events;
mod facts;
pub mod folding;
mod follower_map;
pub mod inbox;
pub mod interests;
pub mod lanes;
pub mod lookup;
pub mod page;
pub mod partials;
pub mod prepare;
mod recorded_end;
pub mod settings;
pub mod sick_runners;
pub mod steady;
pub mod store_damage;
pub mod turns;
mod waits;
