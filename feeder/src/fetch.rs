//! Files that tasks gave back, brought to this machine: `DIR/<id>/<path>`. A file is there whole or
//! not at all, and one that is there already is not fetched again.

use crate::client::Target;
use crate::trouble::Trouble;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use taskmaster_protocol::{FilePath, Hash, TaskId};
use taskmaster_transport::files::{Download, hash_file};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Tasks whose files are fetched at a time.
const AT_ONCE: usize = 8;

/// The pause before a master that is away is asked again.
const PAUSE: Duration = Duration::from_millis(250);

/// Files of tasks, by their path in the task's folder.
pub type Outputs = BTreeMap<FilePath, Hash>;

/// Brings the files of one task into `folder`, for as long as it takes.
pub async fn bring(
    target: &Target,
    folder: &Path,
    id: &TaskId,
    outputs: &Outputs,
) -> Result<(), Trouble> {
    for (path, hash) in outputs {
        let to = folder.join(id.as_str()).join(path.as_str());
        bring_one(target, &to, *hash).await.map_err(|why| {
            Trouble::Local(format!(
                "the file `{path}` of task {id} cannot be fetched into {}: {why}",
                to.display()
            ))
        })?;
    }
    Ok(())
}

async fn bring_one(target: &Target, to: &Path, hash: Hash) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let is_there = hash_file(to).is_ok_and(|(is, _)| is == hash);
    if is_there {
        return Ok(());
    }
    let parent = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(text)?;
    let aside = parent.join(format!(".fetching-{}", uuid::Uuid::now_v7().simple()));
    let mut download = Download::begin(hash, &aside).map_err(|error| error.to_string())?;
    loop {
        match target.blobs().get_file(&mut download).await {
            Ok(()) => break,
            Err(error) if error.may_pass() => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.to_string()),
        }
    }
    fs::rename(&aside, to).map_err(text)?;
    download.finish();
    Ok(())
}

/// What was to be fetched for one task, and came or did not.
pub struct Fetched {
    /// The task as one line, to be printed now.
    pub line: String,
    /// Why its files are not there.
    pub result: Result<(), Trouble>,
}

/// Fetches for many tasks at a time.
pub struct Fetching {
    target: Target,
    folder: PathBuf,
    turns: Arc<Semaphore>,
    running: JoinSet<Fetched>,
}

impl Fetching {
    /// Into `folder`.
    pub fn new(target: Target, folder: PathBuf) -> Fetching {
        Fetching {
            target,
            folder,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            running: JoinSet::new(),
        }
    }

    /// Begins with the files of a task.
    pub fn begin(&mut self, id: TaskId, outputs: Outputs, line: String) {
        let (target, folder, turns) =
            (self.target.clone(), self.folder.clone(), self.turns.clone());
        self.running.spawn(async move {
            // The semaphore is never closed.
            let _turn = turns.acquire().await.ok();
            Fetched {
                result: bring(&target, &folder, &id, &outputs).await,
                line,
            }
        });
    }

    /// Whether nothing is being fetched.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// The next task whose files are there; never, where nothing is being fetched.
    pub async fn next(&mut self) -> Fetched {
        match self.running.join_next().await {
            Some(Ok(fetched)) => fetched,
            Some(Err(error)) => Fetched {
                line: String::new(),
                result: Err(Trouble::Local(format!("fetching broke off: {error}"))),
            },
            None => std::future::pending().await,
        }
    }
}
