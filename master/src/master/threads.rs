//! The threads of a master: the engine, the journal's writer, the measuring of the disk, and the
//! fold.

use super::MasterError;
use super::opening::OpenedStore;
use crate::collecting::BlobCollector;
use crate::config::MasterConfig;
use crate::handle::MasterHandle;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use taskmaster_blobs::Blobs;
use taskmaster_console::long_lived::spawn;
use taskmaster_engine::cache::BlobIndex;
use taskmaster_engine::committing::{self, CommitLag, CommitWriter, TURNS_WAITING_MAX};
use taskmaster_engine::components::Components;
use taskmaster_engine::disk_monitor::{DiskMonitor, MeasureEnd, PatientStore};
use taskmaster_engine::durable_commit::DurableCommit;
use taskmaster_engine::engine::{Engine, EngineConfig, Turn};
use taskmaster_engine::events::EventFeed;
use taskmaster_engine::folding::Folding;
use taskmaster_engine::inbox::Input;
use taskmaster_engine::settings::Durability;
use taskmaster_engine::steady::SteadyClock;
use taskmaster_engine::{clock, turns};
use taskmaster_protocol::Now;
use taskmaster_store::disk::StoreFile;
use taskmaster_store::journal::{AppendError, KvJournal};
use taskmaster_store::kv::{SharedStore, StoreError};
use tokio::sync::mpsc;

/// The threads of a master, and what others need of them.
pub(super) struct StartedThreads {
    pub(super) handle: MasterHandle,
    pub(super) components: Components,
    /// Tells when the master cannot go on.
    pub(super) failed: mpsc::Receiver<MasterError>,
    pub(super) threads: Vec<JoinHandle<()>>,
}

/// Restores the engine, commits its first turn, and starts the threads.
pub(super) fn start(
    config: &MasterConfig,
    blobs: Blobs,
    store: OpenedStore,
) -> Result<StartedThreads, MasterError> {
    let synced = store.synced;
    let restored = store.restored;
    let store = store.store;
    let data_error = |error| MasterError::Data(config.data.clone(), error);
    let (inbox, inputs) = channel();
    let (turns, ended_turns) = sync_channel(TURNS_WAITING_MAX);
    let (folds, commits) = channel();
    let (failing, failed) = mpsc::channel(1);
    let room = DiskMonitor::new(inbox.clone());
    let events = EventFeed::new(restored.watermarks.seq, store.clone());
    let events = events.reporting_damage_to(room.damage());
    let epoch = restored.watermarks.epoch + 1;
    let now = clock::now();
    let settings = engine_config(config, now);
    let mut engine = Engine::restore(restored, settings, store.clone(), events.clone(), now)?;
    connect(&mut engine, config, &room, &blobs);
    let components = engine.components();
    let handle = MasterHandle {
        inbox: inbox.clone(),
        reader: store.clone(),
        events: events.clone(),
        epoch,
        room: room.clone(),
        sick_runners: engine.sick_runners(),
    };
    let mut journal = KvJournal::open(store.clone())?.with_synced_mark(synced);
    commit_first(engine.end_turn(now), &mut journal, &events, &folds)?;

    let folding = folding(config, blobs, store, &room, inbox);
    let behind = CommitLag::new(folding.backlog());
    let (stop_measuring, measuring_stopped) = channel();
    let journal_thread = JournalThread {
        turns: ended_turns,
        journal,
        durability: config.durability,
        events,
        folds,
        room: room.clone(),
        behind: behind.clone(),
        failing: failing.clone(),
        stop_measuring,
    };
    let disk_thread = DiskThread {
        file: StoreFile::find(&config.data).map_err(data_error)?,
        room: room.clone(),
        data: config.data.clone(),
        failing,
        stopped: measuring_stopped,
    };

    let threads = [
        start_engine(engine, inputs, turns, behind),
        start_journal(journal_thread),
        start_disk(disk_thread),
        start_fold(folding, commits, room),
    ];
    let threads = threads.into_iter().collect::<io::Result<Vec<_>>>();
    let threads = threads.map_err(data_error)?;
    Ok(StartedThreads {
        handle,
        components,
        failed,
        threads,
    })
}

/// The fold, which waits where the disk is full and collects blobs between folds.
fn folding(
    config: &MasterConfig,
    blobs: Blobs,
    store: SharedStore,
    room: &DiskMonitor,
    engine: Sender<Input>,
) -> Folding {
    let patient: SharedStore = Arc::new(PatientStore::new(store, room.clone()));
    let collector = BlobCollector::new(blobs, patient.clone(), room.clone());
    Folding::new(patient, config.keep, engine).with_collector(Box::new(collector))
}

/// Tells the engine what it has to know of the parts around it.
fn connect(engine: &mut Engine, config: &MasterConfig, room: &DiskMonitor, blobs: &Blobs) {
    engine.keep_ended_for(config.keep.time);
    engine.report_damage_to(room.damage());
    engine.look_for_blobs_in(Box::new(LocalBlobs(blobs.clone())));
}

/// The blobs in the folder. Nobody asks a bucket for each answer that is given: what lies there
/// counts as there, because answers keep their blobs from being removed.
struct LocalBlobs(Blobs);

impl BlobIndex for LocalBlobs {
    fn size(&self, hash: &taskmaster_protocol::Hash) -> Option<u64> {
        match std::fs::metadata(self.0.path(hash)) {
            Ok(file) => Some(file.len()),
            Err(_) if self.0.bucket_name().is_some() => Some(0),
            Err(_) => None,
        }
    }
}

fn engine_config(config: &MasterConfig, now: Now) -> EngineConfig {
    let timeout_ms = u64::try_from(config.task_timeout.as_millis()).unwrap_or(u64::MAX);
    EngineConfig {
        timeout_ms: timeout_ms.max(1),
        memory_mb: config.memory_mb,
        queue_bytes: config.queue_bytes,
        durability: config.durability.to_string(),
        require_approved: config.require_approved,
        cache_bytes: config.cache_bytes,
        seed: now.wall.0.unsigned_abs() ^ u64::from(std::process::id()),
    }
}

/// Commits the engine's first turn, which raises the epoch.
fn commit_first(
    turn: Turn,
    journal: &mut KvJournal,
    events: &EventFeed,
    folds: &Sender<DurableCommit>,
) -> Result<(), MasterError> {
    committing::commit_first(turn, journal, events, folds).map_err(|error| match error {
        AppendError::Unavailable(why) => MasterError::Store(StoreError::Full(why)),
        AppendError::Fenced | AppendError::Unknown(_) => MasterError::Journal(error),
    })
}

fn start_engine(
    engine: Engine,
    inputs: Receiver<Input>,
    turns: SyncSender<Turn>,
    behind: CommitLag,
) -> io::Result<JoinHandle<()>> {
    spawn("engine", move || {
        turns::run_engine(engine, &inputs, &turns, &behind, SteadyClock::default());
    })
}

/// What the thread that writes the journal owns.
struct JournalThread {
    turns: Receiver<Turn>,
    journal: KvJournal,
    durability: Durability,
    events: EventFeed,
    /// To the fold.
    folds: Sender<DurableCommit>,
    room: DiskMonitor,
    behind: CommitLag,
    /// Told when the journal has failed.
    failing: mpsc::Sender<MasterError>,
    /// The disk is measured until this is dropped.
    stop_measuring: Sender<()>,
}

fn start_journal(thread: JournalThread) -> io::Result<JoinHandle<()>> {
    spawn("journal", move || {
        let JournalThread {
            turns,
            mut journal,
            durability,
            events,
            folds,
            room,
            behind,
            failing,
            stop_measuring,
        } = thread;
        let mut writer = CommitWriter {
            turns: &turns,
            journal: &mut journal,
            durability,
            events: &events,
            folds: &folds,
            disk: &room,
            postponed: VecDeque::new(),
            lag: &behind,
        };
        if let Err(error) = writer.run() {
            let _ = failing.try_send(MasterError::Journal(error));
        }
        room.close();
        drop(stop_measuring);
    })
}

/// What the thread that measures the disk owns.
struct DiskThread {
    room: DiskMonitor,
    data: PathBuf,
    file: StoreFile,
    /// Told when the data folder is gone.
    failing: mpsc::Sender<MasterError>,
    /// The disk is measured until the sender is dropped.
    stopped: Receiver<()>,
}

fn start_disk(thread: DiskThread) -> io::Result<JoinHandle<()>> {
    spawn("disk", move || {
        let DiskThread {
            room,
            data,
            file,
            failing,
            stopped,
        } = thread;
        if room.measure(&data, &file, &stopped) == MeasureEnd::StoreGone {
            let _ = failing.try_send(MasterError::Gone(data));
        }
    })
}

fn start_fold(
    mut folding: Folding,
    commits: Receiver<DurableCommit>,
    room: DiskMonitor,
) -> io::Result<JoinHandle<()>> {
    spawn("fold", move || {
        if let Err(error) = folding.run(&commits, || clock::now().wall) {
            room.record_stopped_fold(&error);
            folding.backlog().give_up();
        }
    })
}
