//! What the tests of the binary share: starting it, talking to it, loading it, and writing down what
//! it promised and what it did.
//!
//! Nothing here is shared with the product's own code: a mistake in one would hide in the other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code: a broken promise ends the test"
)]
pub mod chance;
pub mod client;
pub mod feeder;
pub mod ledger;
pub mod recorder;
pub mod s3;
pub mod socket;
pub mod wasm;
pub mod wat;
pub mod witness;

mod folder;
mod master;
mod process;
mod settings;
mod terminal;
mod time;
mod waiting;

pub use folder::Folder;
pub use master::Master;
pub use process::{Process, Ran, binary, command, json_lines, run};
pub use settings::setting;
pub use terminal::on_terminal;
pub use time::{micros, micros_between};
pub use waiting::{PATIENCE, until, wait_for};
