//! `up` and `master`: they serve until a signal comes.

use crate::standalone::{RUNNER_NAME, Standalone, StandaloneRunner};
use clap::Args;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;
use taskmaster_console::lines::{exit, say};
use taskmaster_console::long_lived;
use taskmaster_feeder::exit::USAGE;
use taskmaster_master::cli::MasterArgs;
use taskmaster_master::config::MasterConfig;
use taskmaster_master::master::Master;
use taskmaster_runner::cli::{CompileArgs, grants, pair, second_signal, signal};
use taskmaster_runner::grants::GrantArgs;

/// The end of `up --help`.
pub const UP_HELP: &str = "\
Examples:
  taskmaster up
      Listens on 127.0.0.1:3232, keeps its data in ./taskmaster-data, takes modules from ./tasks.
  taskmaster up --listen 0.0.0.0:3232
      For other machines too: makes a token and prints the line to paste on a second machine.

When it is ready it prints `listening on ws://...` on stderr. SIGTERM or Ctrl-C stops it: it takes and starts no more,
lets running tasks finish (see --grace), and ends. A second signal ends it at once. What was acknowledged is kept.
Exit codes: 0 ended by a signal · 1 it cannot start or go on, or a second signal · 2 usage";

/// `taskmaster up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub master: MasterArgs,
    /// How many tasks its runner executes at a time; 0: it has no runner [default: the number of
    /// processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=4096))]
    pub slots: Option<u32>,
    /// Its runner's name, unique among runners
    #[arg(long, default_value = RUNNER_NAME)]
    pub name: String,
    /// A label of its runner, which tasks can require (repeatable)
    #[arg(long = "label", value_name = "K=V", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    #[command(flatten)]
    pub grants: GrantArgs,
    #[command(flatten)]
    pub compile: CompileArgs,
}

/// `taskmaster up`.
pub async fn up(args: UpArgs) -> ExitCode {
    let config = match MasterConfig::new(args.master) {
        Ok(config) => config,
        Err(error) => return usage(error),
    };
    let runner = match grants(&args.grants) {
        Ok(grants) => StandaloneRunner {
            name: args.name,
            slots: args.slots,
            labels: args.labels.into_iter().collect(),
            env: args.grants.env,
            grants,
            compile: args.compile,
        },
        Err(error) => return usage(error),
    };
    let grace = config.grace;
    match Standalone::start(config, runner, announce).await {
        Ok(standalone) => ended(standalone.run(signalled(grace)).await),
        Err(error) => failure(error),
    }
}

/// `taskmaster master`.
pub async fn master(args: MasterArgs) -> ExitCode {
    let config = match MasterConfig::new(args) {
        Ok(config) => config,
        Err(error) => return usage(error),
    };
    let grace = config.grace;
    match Master::start(config).await {
        Ok(master) => {
            announce(&master);
            ended(master.run(signalled(grace)).await)
        }
        Err(error) => failure(error),
    }
}

fn announce(master: &Master) {
    say(format_args!(
        "modules are taken from {}, data are kept in {} ({})",
        master.tasks.display(),
        master.data.display(),
        master.found
    ));
    say(format_args!("listening on ws://{}", master.address));
    if let Some(invitation) = &master.invitation {
        say(format_args!("on another machine:  {}", invitation.line));
        if invitation.lacks_address {
            say("in place of ADDRESS stands the address under which that machine reaches this one");
        }
        say("clients there take the same --url and --token");
    }
}

/// Waits for the signal to stop in order. From then on, a second signal ends the process at once.
async fn signalled(grace: Duration) {
    signal().await;
    // Before the message, because whoever reads it may send the second signal at once.
    let second_signal = second_signal();
    say(format_args!(
        "stopping: running tasks may go on for {grace:?}; a second signal ends it at once"
    ));
    long_lived::spawn_task("second signal", async {
        second_signal.await;
        say("ended by a second signal");
        // What was acknowledged is on disk; guests run on threads that nobody waits for.
        exit(1);
    });
}

fn ended<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(error),
    }
}

fn failure(error: impl Display) -> ExitCode {
    say(format_args!("error: {error}"));
    ExitCode::FAILURE
}

fn usage(error: impl Display) -> ExitCode {
    say(format_args!("error: {error}"));
    ExitCode::from(USAGE)
}
