//! A master and a runner in this process: for `up`, `demo` and `bench`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use taskmaster_blobs as blobs;
use taskmaster_console::lines::say;
use taskmaster_console::long_lived;
use taskmaster_engine::settings::Durability;
use taskmaster_master::config::MasterConfig;
use taskmaster_master::master::{Master, MasterError};
use taskmaster_protocol::limits::{ANSWERS_BYTES_DEFAULT, MEMORY_MB_DEFAULT};
use taskmaster_protocol::message::Offer;
use taskmaster_runner::cli::{CompileArgs, offer};
use taskmaster_runner::grants::Grants;
use taskmaster_runner::inputs::CACHE_BYTES_DEFAULT;
use taskmaster_runner::link::{RunnerConfig, RunnerError, serve};
use taskmaster_transport::Address;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

/// The name of a runner that was given none. It is the same after a restart, so that the master
/// takes the runner for the one that it knows, and its tasks wait for nobody else.
pub const RUNNER_NAME: &str = "local";

/// How long the runner may take to leave once its master has ended.
const RUNNER_LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// How long running tasks may go on when a temporary master stops.
const TEMPORARY_GRACE: Duration = Duration::from_secs(1);

/// How long one attempt may run on a temporary master.
const TEMPORARY_TASK_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Why it failed while it ran.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    #[error(transparent)]
    Master(#[from] MasterError),
    #[error(transparent)]
    Runner(#[from] RunnerError),
    #[error(transparent)]
    Panicked(#[from] JoinError),
}

/// The runner's part.
#[derive(Debug)]
pub struct StandaloneRunner {
    /// The name under which the master knows the runner.
    pub name: String,
    /// Tasks at a time. `None`: one for each processor; 0: there is no runner.
    pub slots: Option<u32>,
    /// Labels that tasks can require.
    pub labels: BTreeMap<String, String>,
    /// Names of variables that tasks can require.
    pub env: Vec<String>,
    pub grants: Grants,
    /// What a module may take to be compiled.
    pub compile: CompileArgs,
}

impl Default for StandaloneRunner {
    fn default() -> StandaloneRunner {
        StandaloneRunner {
            name: RUNNER_NAME.into(),
            slots: None,
            labels: BTreeMap::new(),
            env: Vec::new(),
            grants: Grants::default(),
            compile: CompileArgs::default(),
        }
    }
}

/// A master and a runner that serve.
pub struct Standalone {
    /// Where clients reach the master.
    pub address: Address,
    stop: watch::Sender<bool>,
    master: JoinHandle<Result<(), MasterError>>,
    /// `None` where there is none, or where it was drained.
    runner: Option<JoinHandle<Result<(), RunnerError>>>,
}

impl Standalone {
    /// Starts both. `announce` is called when the master listens.
    pub async fn start(
        config: MasterConfig,
        runner: StandaloneRunner,
        announce: impl FnOnce(&Master),
    ) -> Result<Standalone, MasterError> {
        let cache = config.data.join("runner");
        let grace = config.grace;
        let master = Master::start(config).await?;
        announce(&master);
        let address = client_address(&master)?;
        let (stop, stopped) = watch::channel(false);
        let runner = (runner.slots != Some(0)).then(|| {
            let config = RunnerConfig {
                urls: vec![address.clone()],
                token: master.token.clone(),
                offer: Offer {
                    labels: runner.labels,
                    env: runner.env,
                    ..offer(Some(runner.name), runner.slots)
                },
                grants: runner.grants,
                cache,
                inputs_bytes: CACHE_BYTES_DEFAULT,
                compile_memory_mb: runner.compile.compile_memory,
                grace,
            };
            long_lived::spawn_task("runner", serve(config, raised(stopped.clone())))
        });
        let serving = master.run(async move {
            raised(stopped).await;
        });
        let master = long_lived::spawn_task("master", serving);
        Ok(Standalone {
            address,
            stop,
            master,
            runner,
        })
    }

    /// Starts both for a short while, on a free port, with everything in `folder`.
    pub async fn temporary(folder: &Path, tasks: PathBuf) -> Result<Standalone, MasterError> {
        let config = MasterConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            data: folder.join("data"),
            tasks,
            token: None,
            durability: Durability::Sync,
            keep: Default::default(),
            blobs: None,
            blob_cache_bytes: blobs::CACHE_BYTES_DEFAULT,
            blob_grace: blobs::GRACE,
            require_approved: false,
            task_timeout: TEMPORARY_TASK_TIMEOUT,
            memory_mb: MEMORY_MB_DEFAULT,
            queue_bytes: u64::MAX,
            cache_bytes: ANSWERS_BYTES_DEFAULT,
            grace: TEMPORARY_GRACE,
        };
        Standalone::start(config, StandaloneRunner::default(), |_| {}).await
    }

    /// Waits for `shutdown`, or for one of the two to fail, and stops the other. A runner that was
    /// drained leaves, and the master goes on without it.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), StandaloneError> {
        let result = tokio::select! {
            () = shutdown => Ok(()),
            ended = &mut self.master => return Ok(ended??),
            failed = failure_of(&mut self.runner) => Err(failed),
        };
        let _ = self.stop.send(true);
        self.master.await??;
        if let Some(runner) = self.runner {
            // The runner has left, unless the end of the grace cut off what it still ran.
            let _ = tokio::time::timeout(RUNNER_LEAVES_WITHIN, runner).await;
        }
        result
    }

    /// Serves while `work` goes on, and stops when it is done.
    pub async fn during<T>(self, work: impl Future<Output = T>) -> T {
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        let serving = long_lived::spawn_task("standalone", self.run(async { drop(is_done.await) }));
        let result = work.await;
        drop(done);
        // The work has what it wanted; how its master ended is of no interest.
        let _ = serving.await;
        result
    }
}

/// Waits until the runner fails. One that was drained leaves without a failure.
async fn failure_of(runner: &mut Option<JoinHandle<Result<(), RunnerError>>>) -> StandaloneError {
    if let Some(running) = runner.as_mut() {
        let left = running.await;
        *runner = None;
        match left {
            Ok(Ok(())) => say("the runner was drained and has left; the master goes on"),
            Ok(Err(error)) => return error.into(),
            Err(error) => return error.into(),
        }
    }
    std::future::pending().await
}

/// Where a client in this machine reaches the master.
fn client_address(master: &Master) -> Result<Address, MasterError> {
    let ip = master.address.ip();
    let port = master.address.port();
    let url = match (ip.is_unspecified() || ip.is_loopback(), ip.is_ipv6()) {
        (true, true) => format!("ws://[::1]:{port}"),
        (true, false) => format!("ws://127.0.0.1:{port}"),
        (false, _) => format!("ws://{}", master.address),
    };
    Address::parse(&url).map_err(|error| MasterError::Address(error.to_string()))
}

async fn raised(mut flag: watch::Receiver<bool>) {
    let _ = flag.wait_for(|raised| *raised).await;
}
