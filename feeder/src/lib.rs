//! The client side of taskmaster: a library that speaks to a master, and every client command.
//!
//! This crate never executes a module and keeps nothing on disk: what must outlast the process is
//! the master's. (`dev` calls the binary itself where there is no master.)

#![deny(missing_docs)]

pub mod add;
pub mod bench;
pub mod call;
pub mod cli;
pub mod client;
mod dev;
pub mod doctor;
pub mod feed;
mod fetch;
pub mod inputs;
mod inspect;
mod new;
pub mod output;
pub mod top;
pub mod trouble;
pub mod watch;
pub mod wire;

mod waiting;
mod wrap;

use std::pin::Pin;

pub use bench::{BenchReport, bench};
pub use cli::{BenchOptions, Command, Global};
pub use trouble::{Trouble, exit};

/// Runs a client command and gives its exit code. What goes wrong is said on stderr here.
///
/// The future is in a box: whoever calls this crate would else compile all of it again.
pub fn run<'a>(command: Command, global: &'a Global) -> Pin<Box<dyn Future<Output = u8> + 'a>> {
    Box::pin(running(command, global))
}

async fn running(command: Command, global: &Global) -> u8 {
    let result = match command {
        Command::Add(options) => add::run(&options, global).await,
        Command::Call(options) => call::run(&options, global).await,
        Command::Feed(options) => feed::run(&options, global).await,
        Command::Tasks(command) => inspect::tasks::run(command, global).await,
        Command::Jobs(command) => inspect::jobs::run(command, global).await,
        Command::Modules(command) => inspect::modules::run(command, global).await,
        Command::Runners(command) => inspect::runners::run(command, global).await,
        Command::Watch(options) => watch::run(&options, global).await,
        Command::Top(options) => top::run(&options, global).await,
        Command::Bench(options) => bench::run(&options, global).await,
        Command::New(options) => new::run(&options, global),
        Command::Dev(options) => dev::run(&options, global).await,
        Command::Doctor(_) => doctor::run(global).await,
    };
    result.unwrap_or_else(|trouble| {
        global.output().complain(&trouble);
        trouble.exit_code()
    })
}
