//! `up` and `master`; and the clients' commands, of which `bench` may start a master of its own.

use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use taskmaster_feeder::{ClientCommand, GlobalOptions, exit};
use taskmaster_master::cli::MasterArgs;
use taskmaster_master::config::{ConfigError, MasterConfig};
use taskmaster_master::master::{Master, MasterError};
use taskmaster_protocol::message::Offer;
use taskmaster_runner::cli::{grants, offer, signal};
use taskmaster_runner::grants::{GrantArgs, Grants};
use taskmaster_runner::inputs::CACHE_BYTES_DEFAULT;
use taskmaster_runner::link::{RunnerConfig, RunnerError, serve};
use taskmaster_transport::Address;
use tokio::sync::watch;

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

/// The runner inside `up` keeps its name over restarts, so that the next start waits for nobody
/// else.
const OWN_RUNNER: &str = "local";

/// How long the runner inside `up` may take to leave once its master has.
const LEAVING: Duration = Duration::from_secs(2);

/// `taskmaster up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub master: MasterArgs,
    /// How many tasks its runner executes at a time; 0: it has no runner [default: the number of
    /// processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=4096))]
    pub slots: Option<u32>,
    #[command(flatten)]
    pub grants: GrantArgs,
}

/// A master and a runner in this process.
pub struct Up {
    pub address: Address,
    stop: watch::Sender<bool>,
    master: tokio::task::JoinHandle<Result<(), MasterError>>,
    runner: Option<tokio::task::JoinHandle<Result<(), RunnerError>>>,
}

impl Up {
    /// Starts both. `slots` is 0: no runner.
    pub async fn start(
        config: MasterConfig,
        slots: Option<u32>,
        (env, grants): (Vec<String>, Grants),
        announce: impl FnOnce(&Master),
    ) -> Result<Up, MasterError> {
        let cache = config.data.join("runner");
        let grace = config.grace;
        let master = Master::start(config).await?;
        announce(&master);
        let own = master.address.port();
        let host = if master.address.ip().is_ipv6() {
            "[::1]"
        } else {
            "127.0.0.1"
        };
        let listens_here =
            master.address.ip().is_unspecified() || master.address.ip().is_loopback();
        let address = if listens_here {
            format!("ws://{host}:{own}")
        } else {
            format!("ws://{}", master.address)
        };
        let address =
            Address::parse(&address).map_err(|error| MasterError::Folder(error.to_string()))?;
        let token = master.token.clone();
        let (stop, stopped) = watch::channel(false);
        let runner = (slots != Some(0)).then(|| {
            let offer = Offer {
                env,
                ..offer(Some(OWN_RUNNER.into()), slots)
            };
            let inputs_bytes = CACHE_BYTES_DEFAULT;
            let config = RunnerConfig {
                urls: vec![address.clone()],
                token,
                offer,
                grants,
                cache,
                inputs_bytes,
                grace,
            };
            tokio::spawn(serve(config, raised(stopped.clone())))
        });
        // The runner first, so that its last results still find the master.
        let master = tokio::spawn(master.run(async move {
            raised(stopped).await;
        }));
        Ok(Up {
            address,
            stop,
            master,
            runner,
        })
    }

    /// Waits for `shutdown`, or for one of the two to fail, and stops the other. A runner that was
    /// drained leaves, and the master goes on without it.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), String> {
        let drained = &mut self.runner;
        let runner = async {
            if let Some(runner) = drained.as_mut() {
                let left = runner.await;
                *drained = None;
                flat(left)?;
                eprintln!("the runner was drained and has left; the master goes on");
            }
            std::future::pending::<Result<(), String>>().await
        };
        let result = tokio::select! {
            () = shutdown => Ok(()),
            ended = &mut self.master => return flat(ended),
            ended = runner => ended,
        };
        let _ = self.stop.send(true);
        flat(self.master.await)?;
        if let Some(runner) = self.runner {
            // It has left, unless what it still ran was cut off by the end of the grace.
            let _ = tokio::time::timeout(LEAVING, runner).await;
        }
        result
    }
}

async fn raised(mut flag: watch::Receiver<bool>) {
    let _ = flag.wait_for(|raised| *raised).await;
}

fn flat<E: ToString>(ended: Result<Result<(), E>, tokio::task::JoinError>) -> Result<(), String> {
    ended
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

fn announce(master: &Master) {
    eprintln!("modules are taken from {}", master.tasks.display());
    eprintln!("listening on ws://{}", master.address);
    if let Some(invitation) = &master.invitation {
        eprintln!("on another machine:  {invitation}");
        eprintln!("clients there take the same --url and --token");
    }
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The first signal: stop in order. The second one ends the process at once.
async fn signalled(grace: Duration) {
    signal().await;
    eprintln!("stopping: running tasks may go on for {grace:?}; a second signal ends it at once");
    tokio::spawn(async {
        signal().await;
        eprintln!("ended by a second signal");
        // What was acknowledged is on disk; guests run on threads that nobody waits for.
        std::process::exit(1);
    });
}

fn usage(error: ConfigError) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(exit::USAGE)
}

/// `taskmaster up`.
pub async fn up(args: UpArgs) -> ExitCode {
    let config = match MasterConfig::new(args.master) {
        Ok(config) => config,
        Err(error) => return usage(error),
    };
    let grants = match grants(&args.grants) {
        Ok(grants) => grants,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(exit::USAGE);
        }
    };
    let grace = config.grace;
    match Up::start(config, args.slots, (args.grants.env, grants), announce).await {
        Ok(up) => ended(up.run(signalled(grace)).await),
        Err(error) => ended(Err(error.to_string())),
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
            ended(
                master
                    .run(signalled(grace))
                    .await
                    .map_err(|error| error.to_string()),
            )
        }
        Err(error) => ended(Err(error.to_string())),
    }
}

/// A master and a runner on a free port, with everything in `folder`.
pub async fn temporary(folder: &Path, tasks: PathBuf, slots: Option<u32>) -> Result<Up, String> {
    let config = MasterConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        data: folder.join("data"),
        tasks,
        token: None,
        durability: taskmaster_engine::settings::Durability::Sync,
        keep: Default::default(),
        blobs: None,
        blob_cache_bytes: taskmaster_blobs::CACHE_BYTES_DEFAULT,
        blob_grace: taskmaster_blobs::GRACE,
        require_approved: false,
        task_timeout: Duration::from_secs(3_600),
        memory_mb: taskmaster_protocol::limits::MEMORY_MB_DEFAULT,
        queue_bytes: u64::MAX,
        grace: Duration::from_secs(1),
    };
    Up::start(config, slots, Default::default(), |_| {})
        .await
        .map_err(|error| error.to_string())
}

/// A client's command. `bench` without a `--url` and without a master there measures one of its
/// own.
pub async fn client(command: ClientCommand, mut global: GlobalOptions) -> ExitCode {
    let own = matches!(command, ClientCommand::Bench(_))
        && global.url.is_none()
        && nobody_listens().await;
    if !own {
        return ExitCode::from(taskmaster_feeder::run(command, &global).await);
    }
    let folder = std::env::temp_dir().join(format!("taskmaster-bench-{}", std::process::id()));
    eprintln!(
        "no master at {}; measuring one of its own",
        taskmaster_feeder::cli::DEFAULT_URL
    );
    let code = match temporary(&folder, folder.join("tasks"), None).await {
        Ok(up) => {
            global.url = Some(up.address.to_string());
            let (done, over) = tokio::sync::oneshot::channel::<()>();
            let running = tokio::spawn(up.run(async { drop(over.await) }));
            let code = taskmaster_feeder::run(command, &global).await;
            let _ = done.send(());
            let _ = running.await;
            ExitCode::from(code)
        }
        Err(error) => ended(Err(error)),
    };
    // A folder in the temporary directory: what is left of it harms nobody.
    let _ = std::fs::remove_dir_all(&folder);
    code
}

async fn nobody_listens() -> bool {
    match Address::parse(taskmaster_feeder::cli::DEFAULT_URL) {
        Ok(address) => tokio::net::TcpStream::connect(address.authority())
            .await
            .is_err(),
        Err(_) => false,
    }
}
