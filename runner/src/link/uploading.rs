//! Uploads what a task gives back: its result where that is a blob, and its files. The master is
//! told of the success only when all of it is there.

use super::blobs::{BlobUploadError, RetryingBlobs};
use super::spool::{ResultSpool, SpoolError};
use crate::fault::MachineFault;
use crate::outcome::PendingUpload;
use crate::sandbox::OutputFiles;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use taskmaster_protocol::message::{Done, ResultRef};
use taskmaster_protocol::{FilePath, Hash};
use taskmaster_transport::BlobError;
use taskmaster_transport::files::hash_file;
use tokio::task::{JoinError, spawn_blocking};

/// Why the master cannot have what a task gives back. The attempt fails of it.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The result cannot wait for the master.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A thread that used the disk panicked.
    #[error(transparent)]
    BrokeOff(#[from] JoinError),
    /// The result could not be uploaded.
    #[error(transparent)]
    Result(#[from] BlobUploadError),
    /// A file could not be read.
    #[error("the file `{path}` could not be kept: {error}")]
    ReadFile {
        /// The path in the task's folder.
        path: FilePath,
        /// What the system says.
        error: io::Error,
    },
    /// A file could not be uploaded.
    #[error("the file `{path}` could not be kept: {error}")]
    PutFile {
        /// The path in the task's folder.
        path: FilePath,
        /// Why not.
        error: BlobUploadError,
    },
}

impl UploadError {
    /// The fault of this machine, where the task and the master are not to blame.
    pub fn fault(&self) -> Option<MachineFault> {
        let what = "what a task gives back cannot be kept";
        let is_of_machine = match self {
            UploadError::Spool(SpoolError::Write { .. })
            | UploadError::ReadFile { .. }
            | UploadError::Result(BlobUploadError::ReadBack(_))
            | UploadError::PutFile {
                error: BlobUploadError::File(BlobError::Local { .. }),
                ..
            } => true,
            UploadError::Spool(SpoolError::Full { .. })
            | UploadError::BrokeOff(_)
            | UploadError::Result(_)
            | UploadError::PutFile { .. } => false,
        };
        is_of_machine.then(|| MachineFault::under_task(what, self))
    }
}

/// Uploads everything, and returns the success that can be told then.
pub async fn upload(
    pending: PendingUpload,
    blobs: &RetryingBlobs,
    spool: &Arc<ResultSpool>,
) -> Result<Done, UploadError> {
    let mut done = pending.done;
    if let (Some(bytes), ResultRef::Blob(hash)) = (pending.result, &done.result) {
        let spool = spool.clone();
        let spooled = spawn_blocking(move || spool.keep(bytes)).await??;
        blobs.put(*hash, &spooled).await?;
    }
    if let Some(files) = pending.files {
        done.outputs = upload_files(files, blobs, spool).await?;
    }
    Ok(done)
}

async fn upload_files(
    files: OutputFiles,
    blobs: &RetryingBlobs,
    spool: &Arc<ResultSpool>,
) -> Result<BTreeMap<FilePath, Hash>, UploadError> {
    let _reservation = spool.reserve(files.bytes())?;
    let mut uploaded = BTreeMap::new();
    for output in &files.files {
        let path = output.path.clone();
        let file = output.file.clone();
        let hashed = spawn_blocking(move || hash_file(&file)).await?;
        let (hash, _) = match hashed {
            Ok(hashed) => hashed,
            Err(error) => return Err(UploadError::ReadFile { path, error }),
        };
        if let Err(error) = blobs.put_file(hash, &output.file).await {
            return Err(UploadError::PutFile { path, error });
        }
        uploaded.insert(path, hash);
    }
    Ok(uploaded)
}
