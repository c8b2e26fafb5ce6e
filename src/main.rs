//! The one binary: the tree of commands, and one call for each.

mod demo;
mod log;
mod store;
mod up;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use taskmaster_feeder::{ClientCommand, GlobalOptions};
use taskmaster_runner::cli::{RunArgs, RunnerArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Work spread over machines: tasks in WebAssembly, pushed to runners, never lost once
/// acknowledged.
///
/// Drop a module (.wasm or .wat) into the task folder, feed it work from any script, watch it run
/// on every machine you own. `taskmaster demo` shows it in a minute; `taskmaster up` is a master
/// and a runner in one process.
#[derive(Parser)]
#[command(
    name = "taskmaster",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  taskmaster up                                  a master and a runner here, modules in ./tasks
  taskmaster call echo --params '{\"n\":1}'        one task, its result on stdout
  taskmaster feed tasks.jsonl --follow           many tasks, one JSON line as each ends

Exit codes: 0 ok · 1 error · 2 usage · 3 a waited task failed or was skipped · 4 none failed, some were cancelled
            5 --wait-timeout passed · 6 no runner could ever qualify · 69 no master answers"
)]
struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(flatten)]
    log: log::LogOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a master and a runner in one process: the quick start
    #[command(after_help = up::UP_HELP)]
    Up(up::UpArgs),
    /// Feed the built-in samples to a master of its own, show how it goes, leave two pictures
    #[command(after_help = demo::HELP)]
    Demo(demo::DemoArgs),
    /// Start a master alone
    #[command(after_help = taskmaster_master::cli::EXAMPLES)]
    Master(taskmaster_master::cli::MasterArgs),
    /// Start a runner alone
    Runner(RunnerArgs),
    /// Check, export, import and back up a master's store
    #[command(subcommand)]
    Store(taskmaster_master::cli::StoreCommand),
    /// Execute one module here, without a master
    Run(RunArgs),
    /// Print the completion script of a shell: bash, zsh, fish, elvish, powershell
    #[command(
        after_help = "Example:\n  taskmaster completions bash > /etc/bash_completion.d/taskmaster"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    #[command(flatten)]
    Client(ClientCommand),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::start(&cli.log);
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    else {
        eprintln!("error: the system gives no threads");
        return ExitCode::FAILURE;
    };
    let code = match cli.command {
        Command::Up(args) => runtime.block_on(up::up(args)),
        Command::Demo(args) => runtime.block_on(demo::demo(args)),
        Command::Master(args) => runtime.block_on(up::master(args)),
        Command::Runner(args) => runtime.block_on(taskmaster_runner::cli::run(
            args,
            taskmaster_runner::cli::signal(),
        )),
        Command::Store(command) => runtime.block_on(store::store(command, &cli.global)),
        Command::Run(args) => taskmaster_runner::cli::run_file(args),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "taskmaster",
                &mut std::io::stdout(),
            );
            ExitCode::SUCCESS
        }
        Command::Client(command) => runtime.block_on(up::client(command, cli.global)),
    };
    // Threads that wait for stdin or a guest must not hold the process back.
    runtime.shutdown_background();
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }
}
