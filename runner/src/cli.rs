//! The commands `taskmaster runner` and `taskmaster run`.

mod local;
mod values;

pub use local::{RunArgs, run_file};
pub use values::pair;

use crate::compile::MEMORY_MB_DEFAULT;
use crate::grants::{GrantArgs, GrantError, Grants};
use crate::inputs::CACHE_BYTES_DEFAULT;
use crate::link::{RunnerConfig, RunnerError, SendFuture, serve};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use taskmaster_console::lines::{exit, say};
use taskmaster_machine::memory_bytes;
use taskmaster_protocol::message::Offer;
use taskmaster_protocol::token::{self, BadToken};
use taskmaster_protocol::{ModuleName, limits};
use taskmaster_transport::{Address, BadAddress};
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal as listen};
use values::duration;

/// The exit code of a wrong argument.
const USAGE: u8 = 2;

/// Execute tasks that a master sends.
///
/// Connects to a master, takes tasks and executes them as WebAssembly, each in a sandbox: a task
/// sees its params on stdin, a folder of its own, a clock and random numbers, and nothing else of
/// this machine.
///
/// A runner may be started before its master, and stays when the master is restarted: it reconnects
/// for ever, and delivers what it finished meanwhile. On SIGTERM or Ctrl-C it takes no more, gives
/// back what has not begun, lets running tasks finish (see --grace) and leaves with exit code 0. A
/// second signal ends it at once.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  taskmaster runner                                      the master on this machine, all processors
  taskmaster runner --url ws://10.0.0.5:3232 --slots 4 --label gpu=no
  TASKMASTER_TOKEN=… taskmaster runner --modules resize,thumbnail

Exit codes: 0 left after a signal or a drain · 1 refused by the master, not able to start, or a second signal
            2 usage")]
pub struct RunnerArgs {
    /// Where the master listens; several, separated by commas, are tried in turn
    // Text, as every command of the binary has it under this name.
    #[arg(
        long,
        env = "TASKMASTER_URL",
        value_name = "URL",
        default_value = "ws://127.0.0.1:3232"
    )]
    pub url: String,
    /// The token that the master wants
    #[arg(
        long,
        env = "TASKMASTER_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// The runner's name, unique among runners [default: the host's name and some random digits]
    #[arg(long)]
    pub name: Option<String>,
    /// How many tasks it executes at a time [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::SLOTS_MAX)))]
    pub slots: Option<u32>,
    /// A label that tasks can require (repeatable)
    #[arg(long = "label", value_name = "K=V", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// What modules may be given.
    #[command(flatten)]
    pub grants: GrantArgs,
    /// The only modules that it takes, separated by commas [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub modules: Vec<ModuleName>,
    /// Where compiled modules, input files and the folders of running tasks are [default:
    /// $XDG_CACHE_HOME/taskmaster]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// How much of input files it keeps there for other tasks, MiB; what was not used for longest
    /// goes first
    #[arg(long, value_name = "N", default_value_t = CACHE_BYTES_DEFAULT >> 20, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub input_cache_mb: u64,
    /// What a module may take to be compiled.
    #[command(flatten)]
    pub compile: CompileArgs,
    /// How long running tasks may go on after a signal; then they are given back
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub grace: Duration,
}

/// What the compilation of a module may take.
#[derive(Debug, Clone, clap::Args)]
pub struct CompileArgs {
    /// How much memory the compilation of one module may take, MiB; what takes more cannot be run
    #[arg(long, value_name = "N", default_value_t = MEMORY_MB_DEFAULT, value_parser = clap::value_parser!(u64).range(256..=1 << 20))]
    pub compile_memory: u64,
}

impl Default for CompileArgs {
    fn default() -> CompileArgs {
        CompileArgs {
            compile_memory: MEMORY_MB_DEFAULT,
        }
    }
}

/// Why the arguments of `taskmaster runner` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunnerArgsError {
    /// The text is no address of a master.
    #[error("--url: {0}")]
    Url(#[from] BadAddress),
    /// The text is no token.
    #[error("--token: {0}")]
    Token(#[from] BadToken),
    /// What modules may be given is wrong.
    #[error(transparent)]
    Grants(#[from] GrantError),
}

impl RunnerArgs {
    /// What these arguments mean on this machine.
    pub fn config(self) -> Result<RunnerConfig, RunnerArgsError> {
        let urls: Result<Vec<Address>, BadAddress> =
            self.url.split(',').map(Address::parse).collect();
        Ok(RunnerConfig {
            urls: urls?,
            token: token::read(&self.token.unwrap_or_default())?,
            grants: grants(&self.grants)?,
            offer: Offer {
                labels: self.labels.into_iter().collect(),
                env: self.grants.env,
                modules: self.modules,
                ..offer(self.name, self.slots)
            },
            cache: self.cache.unwrap_or_else(default_cache),
            inputs_bytes: self.input_cache_mb << 20,
            compile_memory_mb: self.compile.compile_memory,
            grace: self.grace,
        })
    }
}

/// What modules may be given here, as it was typed. A name that is not set in the environment is
/// only one that tasks can require, and the log says so, because that may be a mistake.
pub fn grants(args: &GrantArgs) -> Result<Grants, GrantError> {
    let grants = Grants::new(args, |name| std::env::var(name).ok())?;
    let offered = grants.offered();
    for name in args.env.iter().filter(|name| !offered.env.contains(*name)) {
        tracing::info!(
            "--env {name}: no such variable is set here; \
             tasks can require the name, modules find no value"
        );
    }
    Ok(grants)
}

/// What this machine offers. The default `name` is the host's with some random digits; the default
/// of `slots` is one for each processor.
pub fn offer(name: Option<String>, slots: Option<u32>) -> Offer {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    Offer {
        name: name.unwrap_or_else(default_name),
        slots: slots
            .unwrap_or_else(|| u32::try_from(cpus).unwrap_or(1))
            .clamp(1, limits::SLOTS_MAX),
        labels: BTreeMap::new(),
        env: Vec::new(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        memory_mb: memory_bytes() >> 20,
        modules: Vec::new(),
        capabilities: None,
    }
}

/// `taskmaster runner`: runs until `shutdown`, and ends at once on a second signal.
pub fn run(
    args: RunnerArgs,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> SendFuture<ExitCode> {
    run_boxed(args, Box::pin(shutdown))
}

fn run_boxed(args: RunnerArgs, shutdown: SendFuture<()>) -> SendFuture<ExitCode> {
    Box::pin(async move {
        let config = match args.config() {
            Ok(config) => config,
            Err(error) => {
                say(format_args!("error: {error}"));
                return ExitCode::from(USAGE);
            }
        };
        match serve_until(config, shutdown).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let hint = match &error {
                    RunnerError::Cache(..) => "; name another folder with --cache",
                    RunnerError::Refused(_) | RunnerError::NoAddress | RunnerError::Sandbox(_) => {
                        ""
                    }
                };
                say(format_args!("error: {error}{hint}"));
                ExitCode::FAILURE
            }
        }
    })
}

async fn serve_until(config: RunnerConfig, shutdown: SendFuture<()>) -> Result<(), RunnerError> {
    let grace = config.grace;
    let (drain, draining) = tokio::sync::oneshot::channel::<()>();
    let serving = serve(config, async { drop(draining.await) });
    tokio::pin!(serving, shutdown);
    tokio::select! {
        result = &mut serving => result,
        () = &mut shutdown => {
            // Before the message, because whoever reads it may send the second signal at once.
            let second_signal = second_signal();
            say(format_args!(
                "draining: running tasks may go on for {grace:?}; a second signal ends it at once"
            ));
            let _ = drain.send(());
            tokio::select! {
                result = &mut serving => result,
                () = second_signal => {
                    say("ended by a second signal");
                    // Guests run on threads, which would otherwise be waited for.
                    exit(1)
                }
            }
        }
    }
}

/// Waits for SIGTERM, Ctrl-C or SIGHUP, and misses none that comes after the call, even before it
/// is awaited. A SIGHUP that was ignored when the process began stays ignored, as under `nohup`.
/// Must be called in a runtime.
pub fn signal() -> impl Future<Output = ()> + Send + 'static {
    let stop = second_signal();
    #[cfg(unix)]
    {
        let hangup = (!is_hangup_ignored()).then(|| listen(SignalKind::hangup()));
        async {
            tokio::select! {
                () = stop => {}
                () = received(hangup.and_then(Result::ok)) => {}
            }
        }
    }
    #[cfg(not(unix))]
    stop
}

/// Waits for SIGTERM or Ctrl-C, as [`signal`] does. A SIGHUP is not among them: a terminal that is
/// closed may send two.
pub fn second_signal() -> impl Future<Output = ()> + Send + 'static {
    #[cfg(unix)]
    {
        let terminate = listen(SignalKind::terminate());
        let interrupt = listen(SignalKind::interrupt());
        async {
            tokio::select! {
                () = received(terminate.ok()) => {}
                () = received(interrupt.ok()) => {}
            }
        }
    }
    #[cfg(not(unix))]
    async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits for the signal. Without a listener there is none to wait for.
#[cfg(unix)]
async fn received(listener: Option<Signal>) {
    match listener {
        Some(mut listener) => drop(listener.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether SIGHUP was ignored before anybody here asked for it.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    /// SIGHUP is the first signal.
    const HANGUP_BIT: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & HANGUP_BIT != 0)
}

/// `$XDG_CACHE_HOME/taskmaster`, or `~/.cache/taskmaster`. Without either it is a new folder, so
/// nothing is kept for the next process.
pub fn default_cache() -> PathBuf {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    match base {
        Some(base) => base.join("taskmaster"),
        // Native code is loaded from this folder, so its name must be none that another user could
        // have made there before.
        None => std::env::temp_dir().join(format!("taskmaster-{}", uuid::Uuid::now_v7().simple())),
    }
}

fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok());
    let host = host
        .map(|host| host.trim().to_owned())
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| "runner".into());
    // The end of a version 7 UUID is random.
    let id = uuid::Uuid::now_v7().simple().to_string();
    format!("{host}-{}", &id[id.len() - 8..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};

    fn parse(args: &[&str]) -> Result<RunnerArgs, clap::Error> {
        let matches = RunnerArgs::augment_args(Command::new("runner"))
            .try_get_matches_from([&["runner"], args].concat())?;
        RunnerArgs::from_arg_matches(&matches)
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_signal_is_not_missed_before_it_is_awaited() {
        let waiting = signal();
        let own = std::process::id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-TERM", &own])
            .status();
        assert!(sent.unwrap().success());
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .unwrap();
    }

    #[test]
    fn arguments_become_an_offer() {
        let args = [
            "--slots",
            "3",
            "--label",
            "a=b=c",
            "--modules",
            "x,y",
            "--url",
            "ws://a,ws://b:1",
            "--grace",
            "250ms",
        ];
        let config = parse(&args).unwrap().config().unwrap();
        assert_eq!((config.offer.slots, config.urls.len()), (3, 2));
        assert_eq!(
            config.offer.labels.get("a").map(String::as_str),
            Some("b=c")
        );
        assert_eq!(config.offer.modules.len(), 2);
        assert_eq!(config.grace, Duration::from_millis(250));
        assert!(config.offer.name.len() > 9);
    }

    #[test]
    fn wrong_arguments_are_named() {
        for args in [
            ["--slots", "0"],
            ["--label", "x"],
            ["--grace", "30"],
            ["--modules", "a b"],
        ] {
            let error = parse(&args).unwrap_err().to_string();
            assert!(
                error.contains(args[0]) && error.contains(args[1]),
                "{error}"
            );
        }
        let error = parse(&["--url", "ws://a,wss://x"])
            .unwrap()
            .config()
            .unwrap_err()
            .to_string();
        assert!(error.contains("wss://x"), "{error}");
    }
}
