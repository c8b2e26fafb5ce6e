//! Executes one WebAssembly module in isolation: each task gets a fresh store and instance from a
//! pool.
//!
//! [`Sandbox`] is the one engine of the process. [`Program`] is a module of any kind that is ready
//! to run. [`run`] executes a [`Work`] on the calling thread and reports how it ended. Nothing here
//! knows of masters, links or slots.

mod backtrace;
mod checked_calls;
pub mod command;
pub mod component;
pub mod directive;
pub mod ending;
pub mod engine;
pub mod files;
pub mod follow_ups;
pub mod guest;
mod host;
mod http;
pub mod limits;
pub mod live;
pub mod loading;
pub mod log;
pub mod native_code;
pub mod outputs;
pub mod program;
pub mod quota;
pub mod running;
pub mod stdio;
pub mod stop;
pub mod tree;
mod typed;
pub mod work;

pub use ending::GuestEnd;
pub use engine::{Sandbox, SandboxError};
pub use follow_ups::FollowUps;
pub use live::{LiveEvent, LiveListener};
pub use loading::{LoadError, ModuleNeeds};
pub use outputs::{OutputFile, OutputFiles};
pub use program::{CompiledModule, Program};
pub use running::{RunReport, run};
pub use stop::StopSwitch;
pub use work::{Work, WorkFiles};

#[cfg(test)]
mod tests;
