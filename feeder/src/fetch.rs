//! Files that tasks gave back, brought to this machine as `DIR/<id>/<path>`. A file is there whole
//! or not at all. A file that is there already is not fetched again.

use crate::client::Target;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use taskmaster_protocol::{FilePath, Hash, TaskId};
use taskmaster_transport::BlobError;
use taskmaster_transport::files::{Download, hash_file};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

/// Tasks whose files are fetched at a time.
const TASKS_AT_ONCE: usize = 8;

/// The pause before a master that is away is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The files that a task gave back, by their path in the task's folder.
pub type OutputHashes = BTreeMap<FilePath, Hash>;

/// Why the files of a task are not here.
#[derive(Debug, Error)]
pub enum OutputFetchError {
    /// One file cannot be had or written.
    #[error(
        "the file `{path}` of task {id} cannot be fetched into {}: {reason}",
        target.display()
    )]
    File {
        /// The file in the task's folder.
        path: FilePath,
        /// The task that gave it back.
        id: TaskId,
        /// Where it should have come.
        target: PathBuf,
        /// What went wrong.
        reason: Box<FileError>,
    },
    /// The task that fetches ended in another way than it should.
    #[error("fetching broke off: {0}")]
    BrokeOff(#[from] JoinError),
}

/// Why one file is not here.
#[derive(Debug, Error)]
pub enum FileError {
    /// This machine's disk says no.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// The master does not give the bytes.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Brings the files of one task into `folder`, however long it takes.
pub async fn fetch_outputs(
    master: &Target,
    folder: &Path,
    id: &TaskId,
    outputs: &OutputHashes,
) -> Result<(), OutputFetchError> {
    for (path, hash) in outputs {
        let target = folder.join(id.as_str()).join(path.as_str());
        fetch_file(master, &target, *hash)
            .await
            .map_err(|reason| OutputFetchError::File {
                path: path.clone(),
                id: id.clone(),
                target,
                reason: Box::new(reason),
            })?;
    }
    Ok(())
}

async fn fetch_file(master: &Target, target: &Path, hash: Hash) -> Result<(), FileError> {
    let is_there = hash_file(target).is_ok_and(|(found, _)| found == hash);
    if is_there {
        return Ok(());
    }
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let partial = parent.join(format!(".fetching-{}", uuid::Uuid::now_v7().simple()));
    let mut download = Download::begin(hash, &partial)?;
    loop {
        match master.blobs().get_file(&mut download).await {
            Ok(()) => break,
            Err(error) if error.may_pass() => tokio::time::sleep(RETRY_PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    fs::rename(&partial, target)?;
    download.finish();
    Ok(())
}

/// A task whose files were to be fetched.
pub struct FetchedTask {
    /// The task as one line, to be printed now.
    pub line: String,
    /// Whether its files are here.
    pub result: Result<(), OutputFetchError>,
}

/// Fetches the files of many tasks, [`TASKS_AT_ONCE`] at a time.
pub struct FetchQueue {
    master: Target,
    folder: PathBuf,
    permits: Arc<Semaphore>,
    running: JoinSet<FetchedTask>,
}

impl FetchQueue {
    /// Fetches into `folder`.
    pub fn new(master: Target, folder: PathBuf) -> FetchQueue {
        FetchQueue {
            master,
            folder,
            permits: Arc::new(Semaphore::new(TASKS_AT_ONCE)),
            running: JoinSet::new(),
        }
    }

    /// Queues the files of a task. `line` is given back with the result.
    pub fn push(&mut self, id: TaskId, outputs: OutputHashes, line: String) {
        let master = self.master.clone();
        let folder = self.folder.clone();
        let permits = self.permits.clone();
        self.running.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await.ok();
            FetchedTask {
                result: fetch_outputs(&master, &folder, &id, &outputs).await,
                line,
            }
        });
    }

    /// Whether nothing is being fetched.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// The next task whose files were fetched. Never ready while nothing is being fetched.
    pub async fn next(&mut self) -> FetchedTask {
        match self.running.join_next().await {
            Some(Ok(fetched)) => fetched,
            Some(Err(error)) => FetchedTask {
                line: String::new(),
                result: Err(error.into()),
            },
            None => std::future::pending().await,
        }
    }
}
