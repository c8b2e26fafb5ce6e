//! The client side of taskmaster: a library that speaks to a master, and every client command.
//!
//! This crate never executes a module and keeps nothing on disk: the master keeps what must outlast
//! the process. (`dev` calls the binary itself where there is no master.)

#![deny(missing_docs)]

pub mod cli;
pub mod client;
pub mod exit;

mod add;
mod bench;
mod call;
mod dev;
mod doctor;
mod ended;
mod error;
mod feed;
mod fetch;
mod followed_task;
mod inspect;
mod new;
mod output;
mod submit;
mod top;
mod uploads;
mod waiting;
mod watch;
mod wire;
mod wrap;

pub use cli::{ClientCommand, GlobalOptions};
pub use wrap::WRAP;

use std::pin::Pin;

/// Runs a client command and gives its exit code (see [`exit`]). An error is written to stderr
/// here.
///
/// The future is boxed, so that crates which call it do not compile all commands again.
pub fn run<'a>(
    command: ClientCommand,
    global: &'a GlobalOptions,
) -> Pin<Box<dyn Future<Output = u8> + 'a>> {
    Box::pin(run_command(command, global))
}

async fn run_command(command: ClientCommand, global: &GlobalOptions) -> u8 {
    let result = match command {
        ClientCommand::Add(options) => add::run(&options, global).await,
        ClientCommand::Call(options) => call::run(&options, global).await,
        ClientCommand::Feed(options) => feed::run(&options, global).await,
        ClientCommand::Tasks(command) => inspect::tasks::run(command, global).await,
        ClientCommand::Jobs(command) => inspect::jobs::run(command, global).await,
        ClientCommand::Modules(command) => inspect::modules::run(command, global).await,
        ClientCommand::Runners(command) => inspect::runners::run(command, global).await,
        ClientCommand::Cache(command) => inspect::cache::run(command, global).await,
        ClientCommand::Watch(options) => watch::run(&options, global).await,
        ClientCommand::Top(options) => top::run(&options, global).await,
        ClientCommand::Bench(options) => bench::run(&options, global).await,
        ClientCommand::New(options) => new::run(&options, global),
        ClientCommand::Dev(options) => dev::run(&options, global).await,
        ClientCommand::Doctor(_) => doctor::run(global).await,
    };
    result.unwrap_or_else(|error| {
        global.printer().error(&error);
        error.exit_code()
    })
}
