//! The one binary: it reads the command line and calls the command.

mod bench;
mod cli;
mod clock;
mod config;
mod demo;
mod documents;
mod log;
mod standalone;
mod store;
mod up;

use cli::{Cli, Command};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::ExitCode;
use taskmaster_confined::INSPECT;
use taskmaster_console::lines::{finish, tell};
use taskmaster_console::long_lived::{LongLived, tell_panics};
use taskmaster_feeder::{WRAP, exit};
use taskmaster_runner::cli::{run_file, signal as stop_signal};
use taskmaster_runner::compile::COMPILE;
use tokio::runtime::Runtime;
use tokio::signal::{self, unix::SignalKind};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else: a process that does one piece of work has no command line of a person.
    if let Some(code) = taskmaster_confined::answer(&[&INSPECT, &COMPILE, &WRAP]) {
        return code;
    }
    tell_panics();
    let _life = LongLived::named("main");
    let code = parse_and_run();
    finish();
    code
}

fn parse_and_run() -> ExitCode {
    let (cli, config) = match config::parse(std::env::args_os().collect()) {
        Ok(parsed) => parsed,
        Err(error) => {
            tell(format_args!("error: {error}"));
            return ExitCode::from(exit::USAGE);
        }
    };
    log::start(&cli.log);
    if let Some(text) = clock::wrong(std::time::SystemTime::now()) {
        tell(format_args!("error: {text}"));
        return ExitCode::FAILURE;
    }
    if serves(&cli.command) {
        raise_open_files();
    }
    if let Some(config) = config {
        config.warn_of_exposed_token();
    }

    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    else {
        tell("error: the system gives no threads");
        return ExitCode::FAILURE;
    };
    if let Err(error) = ignore_file_size_signal(&runtime) {
        tracing::warn!(%error, "a write beyond `ulimit -f` will end this process");
    }
    let code = run(cli, &runtime);
    // Threads that wait for stdin or a guest must not hold the process back.
    runtime.shutdown_background();
    code
}

/// The number of the signal on Linux, on every processor for which this program is built.
const SIGXFSZ: i32 = 25;

/// A write beyond the limit of `ulimit -f` is from now on an error like any other, where the signal
/// SIGXFSZ would end the process in the middle of it. The handler stays when its stream is dropped.
fn ignore_file_size_signal(runtime: &Runtime) -> std::io::Result<()> {
    let _guard = runtime.enter();
    signal::unix::signal(SignalKind::from_raw(SIGXFSZ)).map(drop)
}

/// Whether a command has connections and tasks without number. Others may start programs of the
/// user, which get their limits as they are.
fn serves(command: &Command) -> bool {
    matches!(
        command,
        Command::Up(_) | Command::Demo(_) | Command::Master(_) | Command::Runner(_)
    )
}

/// Lets this process have as many open files as the system allows it. The usual limit of 1,024 is
/// there for programs that use `select`, and a master has a connection for each client.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Where the system refuses, the limit stays as it is.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn run(cli: Cli, runtime: &Runtime) -> ExitCode {
    match cli.command {
        Command::Up(args) => runtime.block_on(up::up(args)),
        Command::Demo(args) => runtime.block_on(demo::demo(args)),
        Command::Master(args) => runtime.block_on(up::master(args)),
        Command::Runner(args) => {
            runtime.block_on(async { taskmaster_runner::cli::run(args, stop_signal()).await })
        }
        Command::Store(command) => runtime.block_on(store::store(command, &cli.global)),
        Command::Run(args) => run_file(args),
        Command::Completions { shell } => documents::completions(shell),
        Command::Man { folder } => documents::manual_pages(&folder),
        Command::Client(command) => runtime.block_on(bench::client(command, cli.global)),
    }
}
