//! The tree of commands.

use crate::{demo, log, up};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use taskmaster_feeder::cli::{without_master, without_url};
use taskmaster_feeder::{ClientCommand, GlobalOptions};
use taskmaster_master::cli::{EXAMPLES, MasterArgs, StoreCommand};
use taskmaster_master::config::MasterConfig;
use taskmaster_runner::cli::{RunArgs, RunnerArgs, grants};

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
            5 --wait-timeout passed · 6 no runner could ever qualify · 69 no master answers
            130, 143 a signal came while it waited · 141 the reader of stdout has gone"
)]
pub struct Cli {
    /// TOML file with options by their long names; the environment and the command line come first
    ///
    /// Options of every command stand at the top, those of a role in the table [master], [runner]
    /// or [up].
    #[arg(
        long,
        global = true,
        env = "TASKMASTER_CONFIG",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub global: GlobalOptions,
    #[command(flatten)]
    pub log: log::LogOptions,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Checks what the parser of the command line leaves to the roles. An error begins with the
    /// option, as in `--keep: ...`.
    pub fn check(&self) -> Result<(), String> {
        fn sentence(error: impl ToString) -> String {
            error.to_string()
        }
        match &self.command {
            Command::Master(args) => {
                MasterConfig::new(args.clone()).map_err(sentence)?;
            }
            Command::Up(args) => {
                MasterConfig::new(args.master.clone()).map_err(sentence)?;
                grants(&args.grants).map_err(sentence)?;
            }
            Command::Runner(args) => {
                args.clone().config().map_err(sentence)?;
            }
            Command::Demo(_)
            | Command::Store(_)
            | Command::Run(_)
            | Command::Completions { .. }
            | Command::Man { .. }
            | Command::Client(_) => {}
        }
        Ok(())
    }
}

/// Every command.
#[derive(Subcommand)]
pub enum Command {
    /// Start a master and a runner in one process: the quick start
    #[command(after_help = up::UP_HELP, args = without_url())]
    Up(up::UpArgs),
    /// Feed the built-in samples to a master of its own, show how it goes, leave two pictures
    #[command(after_help = demo::HELP, args = without_master())]
    Demo(demo::DemoArgs),
    /// Start a master alone
    #[command(after_help = EXAMPLES, args = without_url())]
    Master(MasterArgs),
    /// Start a runner alone
    Runner(RunnerArgs),
    /// Check, export, import and back up a master's store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Execute one module here, without a master
    #[command(args = without_master())]
    Run(RunArgs),
    /// Print the completion script of a shell: bash, zsh, fish, elvish, powershell
    #[command(
        args = without_master(),
        after_help = "Example:\n  taskmaster completions bash > /etc/bash_completion.d/taskmaster"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of all commands into a folder, for packages
    #[command(hide = true, args = without_master(), after_help = "Example:\n  taskmaster man target/man")]
    Man {
        /// Folder of the pages; made where it is missing
        folder: PathBuf,
    },
    #[command(flatten)]
    Client(ClientCommand),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }
}
