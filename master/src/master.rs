//! A whole master: opened, started, stopped.

use crate::collecting::Collecting;
use crate::config::{ConfigError, DataLock, MasterConfig};
use crate::handle::MasterHandle;
use crate::interfaces::Interfaces;
use crate::modules::{self, Folder};
use crate::{gateway, upkeep};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use taskmaster_blobs::{Blobs, OpenError};
use taskmaster_engine::committing::{self, Behind, TURNS_WAITING_MAX, Writer};
use taskmaster_engine::components::Components;
use taskmaster_engine::engine::{Engine, EngineConfig};
use taskmaster_engine::events::EventFeed;
use taskmaster_engine::folding::Folding;
use taskmaster_engine::inbox::Input;
use taskmaster_engine::room::{PatientShelf, Room};
use taskmaster_engine::steady::SteadyClock;
use taskmaster_engine::{clock, turns};
use taskmaster_store::journal::{self, AppendError, ShelfJournal, SyncedMark};
use taskmaster_store::kv::{Reader, StoreError};
use taskmaster_store::{disk, view};
use tokio::sync::{oneshot, watch};

/// Connections get this long to be closed in an orderly way.
const CLOSING: Duration = Duration::from_secs(2);

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
    #[error("{0}")]
    Folder(String),
    /// The blob folder, or a thread.
    #[error("the data folder {0}: {1}")]
    Data(String, io::Error),
    /// The journal failed while running. What was acknowledged is safe; start again.
    #[error(
        "the journal failed, and the master stops so that nothing is promised that is not kept: {0}. Start it again when the disk is well"
    )]
    Journal(String),
}

/// Something to wait for. In a box, as is what waits for it: whoever calls this crate would else
/// compile all of it again.
pub type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A started master.
pub struct Master {
    /// Tells and asks it.
    pub handle: MasterHandle,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where modules are taken from.
    pub tasks: std::path::PathBuf,
    /// What others must show, where it has a token.
    pub token: Option<String>,
    /// The line to type on a second machine, where one can connect.
    pub invitation: Option<String>,
    stop: watch::Sender<bool>,
    gateway: tokio::task::JoinHandle<io::Result<()>>,
    failed: oneshot::Receiver<String>,
    /// How long running attempts may go on at a stop.
    grace: Duration,
    threads: Vec<JoinHandle<()>>,
    _folder: Folder,
    _lock: DataLock,
}

impl Master {
    /// Opens the store, takes up where the last master ended, and listens.
    pub fn start(config: MasterConfig) -> Waiting<Result<Master, MasterError>> {
        Box::pin(Master::starting(config))
    }

    async fn starting(mut config: MasterConfig) -> Result<Master, MasterError> {
        // The port first: a second start by mistake changes nothing on disk.
        let listener = config.bind()?;
        let lock = config.lock_data()?;
        config.settle_token()?;
        let data = |error| MasterError::Data(config.data.display().to_string(), error);
        let address = listener.local_addr().map_err(data)?;
        let blobs = settled(&config).await?.sparing(config.blob_grace);
        let folder = config.data.clone();
        let (shelf, restored, mark) = tokio::task::spawn_blocking(move || open(&folder))
            .await
            .map_err(|e| data(io::Error::other(e)))??;
        let known = restored
            .modules
            .iter()
            .filter(|(_, module)| module.present)
            .map(|(name, _)| name.clone())
            .collect();
        let epoch = restored.marks.epoch + 1;
        let (failing, failed) = oneshot::channel();
        let (handle, components, threads) =
            threads(&config, blobs.clone(), shelf, restored, mark, failing)?;
        let interfaces = Interfaces::new(components, blobs.clone());
        let folder = modules::start(
            &config.tasks,
            blobs,
            handle.clone(),
            known,
            config.require_approved,
        )
        .map_err(MasterError::Folder)?;
        let (stop, stopped) = watch::channel(false);
        let listener = tokio::net::TcpListener::from_std(listener).map_err(data)?;
        let serving = gateway::serve(
            listener,
            handle.clone(),
            folder.clone(),
            interfaces,
            config.token.clone(),
            stopped,
        );
        tracing::info!(%address, epoch, "the master has started");
        Ok(Master {
            handle,
            address,
            tasks: folder.path().to_owned(),
            invitation: config.invitation(address.port()),
            token: config.token,
            stop,
            gateway: tokio::spawn(serving),
            failed,
            grace: config.grace,
            threads,
            _folder: folder,
            _lock: lock,
        })
    }

    /// Serves until `shutdown`, or until the journal fails; then stops in order: nothing more is
    /// taken or sent, running attempts have their grace to end, what was told is committed and
    /// answered, connections are closed.
    pub fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Waiting<Result<(), MasterError>> {
        self.run_until(Box::pin(shutdown))
    }

    fn run_until(self, shutdown: Waiting<()>) -> Waiting<Result<(), MasterError>> {
        Box::pin(self.running(shutdown))
    }

    async fn running(mut self, shutdown: Waiting<()>) -> Result<(), MasterError> {
        let stopped = async {
            shutdown.await;
            let (idle, over) = oneshot::channel();
            self.handle.tell(Input::Stop { idle });
            // What still runs after that is adopted by the next start.
            let _ = tokio::time::timeout(self.grace, over).await;
        };
        let failure = tokio::select! {
            () = stopped => None,
            failure = &mut self.failed => failure.ok(),
        };
        self.handle.tell(Input::Shutdown);
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()))
        });
        let _ = joined.await;
        let _ = self.stop.send(true);
        let _ = tokio::time::timeout(CLOSING, &mut self.gateway).await;
        match failure {
            None => Ok(()),
            Some(why) => Err(MasterError::Journal(why)),
        }
    }
}

/// The blobs, where the settings want them. An object store may take its time.
async fn settled(config: &MasterConfig) -> Result<Blobs, MasterError> {
    let (folder, address, cache) = (
        config.data.clone(),
        config.blobs.clone(),
        config.blob_cache_bytes,
    );
    let data = |error| MasterError::Data(config.data.display().to_string(), error);
    let settling =
        tokio::task::spawn_blocking(move || Blobs::settle(&folder, address.as_ref(), cache));
    settling
        .await
        .map_err(|error| data(io::Error::other(error)))?
        .map_err(|error| match error {
            OpenError::Io(error) => data(error),
            OpenError::Store(why) => ConfigError::Setting {
                flag: "--blobs",
                why,
            }
            .into(),
        })
}

/// Opens the store and brings the view up to the journal's end.
fn open(data: &std::path::Path) -> Result<(Reader, view::Restored, SyncedMark), StoreError> {
    disk::wanted_at_start(data)?;
    let folder = data.join("store");
    if !folder.exists() && Blobs::any(data) {
        let why =
            "it is gone, and the blobs of its tasks and modules are still there beside it".into();
        return Err(StoreError::Corrupt {
            path: folder.display().to_string(),
            why,
        });
    }
    let shelf = upkeep::open_sled(&folder)?;
    let mark = SyncedMark::open(&folder, journal::last(&shelf)?)?;
    view::catch_up(&shelf)?;
    let restored = view::restore(shelf.as_ref())?;
    Ok((shelf, restored, mark))
}

/// Starts the threads of the engine, the writer and the fold.
fn threads(
    config: &MasterConfig,
    blobs: Blobs,
    shelf: Reader,
    restored: view::Restored,
    mark: SyncedMark,
    failing: oneshot::Sender<String>,
) -> Result<(MasterHandle, Components, Vec<JoinHandle<()>>), MasterError> {
    let data = |error| MasterError::Data(config.data.display().to_string(), error);
    let events = EventFeed::new(restored.marks.seq, shelf.clone());
    let epoch = restored.marks.epoch + 1;
    let (inbox, inputs) = channel();
    let (turns, waiting) = sync_channel(TURNS_WAITING_MAX);
    let (folds, commits) = channel();
    let room = Room::new(inbox.clone());
    let handle = MasterHandle {
        inbox: inbox.clone(),
        reader: shelf.clone(),
        events: events.clone(),
        epoch,
        room: room.clone(),
    };
    let now = clock::now();
    let seed = now.wall.0.unsigned_abs() ^ u64::from(std::process::id());
    let engine_config = EngineConfig {
        timeout_ms: u64::try_from(config.task_timeout.as_millis())
            .unwrap_or(u64::MAX)
            .max(1),
        memory_mb: config.memory_mb,
        queue_bytes: config.queue_bytes,
        durability: config.durability.to_string(),
        require_approved: config.require_approved,
        seed,
    };
    let mut engine = Engine::restore(restored, engine_config, shelf.clone(), events.clone(), now)?;
    engine.keep_ended_for(config.keep.time);
    let components = engine.components();
    let mut journal = ShelfJournal::open(shelf.clone())?.noting(mark);
    committing::commit_first(engine.end_turn(now), &mut journal, &events, &folds).map_err(
        |error| match error {
            AppendError::Unavailable(why) => MasterError::Store(StoreError::Full(why)),
            other => MasterError::Journal(other.to_string()),
        },
    )?;
    let patient: Reader = Arc::new(PatientShelf::new(shelf, room.clone()));
    let collecting = Collecting::new(blobs, patient.clone(), room.clone());
    let mut folding = Folding::new(patient, config.keep, inbox).collecting(Box::new(collecting));
    let behind = Behind::new(folding.backlog());
    let ahead = behind.clone();
    let (durability, data_folder, measured) =
        (config.durability, config.data.clone(), room.clone());
    let (writing, stop) = channel::<()>();
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(run)
    };
    let threads = vec![
        spawn(
            "engine",
            Box::new(move || {
                turns::run_engine(engine, &inputs, &turns, &ahead, SteadyClock::default())
            }),
        ),
        spawn(
            "journal",
            Box::new(move || {
                let (turns, journal) = (&waiting, &mut journal);
                let held = VecDeque::new();
                let mut writer = Writer {
                    turns,
                    journal,
                    durability,
                    events: &events,
                    folds: &folds,
                    room: &room,
                    held,
                    behind: &behind,
                };
                if let Err(error) = writer.run() {
                    let _ = failing.send(error.to_string());
                }
                room.close();
                drop(writing);
            }),
        ),
        spawn(
            "disk",
            Box::new(move || measured.measure(&data_folder, &stop)),
        ),
        spawn(
            "fold",
            Box::new(move || {
                if let Err(error) = folding.run(&commits, || clock::now().wall) {
                    tracing::error!(%error, "the view cannot be folded; the journal goes on");
                }
            }),
        ),
    ];
    Ok((
        handle,
        components,
        threads
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(data)?,
    ))
}
