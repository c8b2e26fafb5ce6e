//! A whole master: opened, started, stopped.

mod opening;
mod threads;

use crate::config::{ConfigError, DataLock, Invitation, MasterConfig};
use crate::gateway::{self, GatewayConfig};
use crate::handle::MasterHandle;
use crate::interfaces::Interfaces;
use crate::modules::{self, FolderConfig, FolderError, ModuleFolder};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::thread::JoinHandle;
use std::time::Duration;
use taskmaster_console::long_lived;
use taskmaster_engine::inbox::Input;
use taskmaster_protocol::ModuleName;
use taskmaster_store::journal::AppendError;
use taskmaster_store::kv::StoreError;
use taskmaster_store::record::JobRecord;
use taskmaster_store::view::RestoredView;
use tokio::sync::{mpsc, oneshot, watch};

/// Time for connections to be closed in an orderly way.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a master cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// A setting, the port or the data folder.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The address that a runner in this process would connect to.
    #[error("{0}")]
    Address(String),
    /// The blob folder, or a thread.
    #[error("the data folder {0}: {1}")]
    Data(PathBuf, io::Error),
    /// The journal failed while running. What was acknowledged is safe.
    #[error(
        "the journal failed, and the master stops so that nothing is promised that is not kept: \
         {0}. Start it again when the disk is well"
    )]
    Journal(AppendError),
    /// The data folder was removed while running.
    #[error(
        "the store in the data folder {0} was removed or exchanged while the master ran on it, and \
         the master ends: what it would acknowledge could not be found again. What was there is \
         lost, unless you have a backup (`taskmaster store backup` makes them)"
    )]
    Gone(PathBuf),
}

/// A future in a box. Whoever calls this crate would otherwise compile all of it again.
pub type BoxedFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A started master.
pub struct Master {
    /// Tells and asks it.
    pub handle: MasterHandle,
    /// The address on which it listens.
    pub address: SocketAddr,
    /// The task folder.
    pub tasks: PathBuf,
    /// The token that others must show, where there is one.
    pub token: Option<String>,
    /// The data folder, absolute.
    pub data: PathBuf,
    /// What was in the data folder at the start.
    pub found: StoreContents,
    /// The line to type on a second machine, where one can connect.
    pub invitation: Option<Invitation>,
    stop: watch::Sender<bool>,
    gateway: tokio::task::JoinHandle<io::Result<()>>,
    /// Tells when the master cannot go on.
    failed: mpsc::Receiver<MasterError>,
    /// How long running attempts may go on at a stop.
    grace: Duration,
    threads: Vec<JoinHandle<()>>,
    _folder: ModuleFolder,
    _lock: DataLock,
}

impl Master {
    /// Opens the store, goes on where the last master ended, and listens.
    pub fn start(config: MasterConfig) -> BoxedFuture<Result<Master, MasterError>> {
        Box::pin(Master::start_unboxed(config))
    }

    async fn start_unboxed(mut config: MasterConfig) -> Result<Master, MasterError> {
        // The port comes first, so a second start by mistake changes nothing on the disk.
        let listener = config.bind()?;
        let lock = config.lock_data()?;
        config.make_token()?;
        let data = config.data.clone();
        let data_error = |error| MasterError::Data(data.clone(), error);
        let address = listener.local_addr().map_err(data_error)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(data_error)?;

        let blobs = opening::open_blobs(&config).await?;
        let store = opening::open_store(&config).await?;
        let known = present_modules(&store.restored);
        let found = StoreContents::of(&store.restored);
        let started = threads::start(&config, blobs.clone(), store)?;
        let folder = modules::start(FolderConfig {
            path: &config.tasks,
            blobs: blobs.clone(),
            handle: started.handle.clone(),
            known,
            require_approved: config.require_approved,
        })?;
        let (stop, stopped) = watch::channel(false);
        let serving = gateway::serve(
            listener,
            GatewayConfig {
                handle: started.handle.clone(),
                folder: folder.clone(),
                interfaces: Interfaces::new(started.components, blobs),
                token: config.token.clone(),
                stop: stopped,
            },
        );
        let epoch = started.handle.epoch;
        tracing::info!(%address, epoch, "the master has started");
        Ok(Master {
            handle: started.handle,
            address,
            tasks: folder.path().to_owned(),
            data: std::path::absolute(&config.data).unwrap_or(data),
            found,
            invitation: config.invitation(address.port()),
            token: config.token,
            stop,
            gateway: long_lived::spawn_task("gateway", serving),
            failed: started.failed,
            grace: config.grace,
            threads: started.threads,
            _folder: folder,
            _lock: lock,
        })
    }

    /// Serves until `shutdown`, or until the journal fails. Then it stops in order: nothing more is
    /// taken or sent, running attempts have their grace to end, what was told is committed and
    /// answered, and the connections are closed.
    pub fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> BoxedFuture<Result<(), MasterError>> {
        self.run_until(Box::pin(shutdown))
    }

    fn run_until(self, shutdown: BoxedFuture<()>) -> BoxedFuture<Result<(), MasterError>> {
        Box::pin(self.run_unboxed(shutdown))
    }

    async fn run_unboxed(mut self, shutdown: BoxedFuture<()>) -> Result<(), MasterError> {
        let stopped = async {
            shutdown.await;
            let (idle, is_idle) = oneshot::channel();
            self.handle.tell(Input::Stop { idle });
            // The next start adopts the attempts that still run after that.
            let _ = tokio::time::timeout(self.grace, is_idle).await;
        };
        let failure = tokio::select! {
            () = stopped => None,
            failure = self.failed.recv() => failure,
        };

        self.handle.tell(Input::Shutdown);
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        let _ = joined.await;
        let _ = self.stop.send(true);
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut self.gateway).await;
        failure.map_or(Ok(()), Err)
    }
}

/// What a store holds when its master starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreContents {
    /// Whether no master has started on the store before.
    pub is_new: bool,
    /// Tasks that have not ended.
    pub open: u64,
    /// Tasks that have ended and are still kept.
    pub ended: u64,
}

impl StoreContents {
    fn of(restored: &RestoredView) -> StoreContents {
        let open_of = |record: &JobRecord| record.total.saturating_sub(record.ended.iter().sum());
        StoreContents {
            is_new: restored.watermarks.epoch == 0,
            open: restored.jobs.iter().map(|(_, job)| open_of(job)).sum(),
            ended: restored.watermarks.ended_count,
        }
    }
}

impl fmt::Display for StoreContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreContents { is_new: true, .. } => f.write_str("new"),
            StoreContents { open, ended, .. } => write!(f, "{open} open and {ended} ended tasks"),
        }
    }
}

/// The modules whose files were in the task folder when the last master ended.
fn present_modules(restored: &RestoredView) -> Vec<ModuleName> {
    restored
        .modules
        .iter()
        .filter(|(_, module)| module.present)
        .map(|(name, _)| name.clone())
        .collect()
}
