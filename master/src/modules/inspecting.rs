//! The inspection of one file, on a thread of its own: a file that takes long to be validated holds
//! up no other.

use super::stamp::WatchedFileStamp;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;
use taskmaster_blobs::Blobs;
use taskmaster_confined::NotInspected;
use taskmaster_engine::inbox::ModuleFile;
use taskmaster_protocol::Hash;

/// Nearly every inspection ends within this time, and is waited for. Others are looked at again with
/// each sweep.
const QUICK: Duration = Duration::from_millis(30);

/// A file as it was read.
#[derive(Debug)]
pub(super) struct ReadFile {
    pub(super) stamp: WatchedFileStamp,
    pub(super) hash: Hash,
    pub(super) seen: ModuleFile,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// Somebody wrote meanwhile, or the file is gone. The next sweep sees it.
    #[error("the file is changing")]
    Changing,
    #[error("the file cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("the module cannot be kept: {0}")]
    NotKept(io::Error),
    /// It is tried again.
    #[error(transparent)]
    NotInspected(#[from] NotInspected),
    #[error("no thread for the check of the module: {0}")]
    Thread(io::Error),
    #[error("the check of the module broke off; the log has more")]
    BrokeOff,
}

/// A file whose bytes were read, and are being looked into.
#[derive(Debug)]
pub(super) struct PendingInspection {
    outcome: Receiver<Result<ReadFile, ReadError>>,
    /// Whether the file had not changed for long when it was read.
    pub(super) was_quiet: bool,
}

/// How far an inspection is.
pub(super) enum Progress {
    Pending(PendingInspection),
    Ended(Result<ReadFile, ReadError>),
}

impl PendingInspection {
    /// Begins to look into `bytes`, and keeps them if they are a sound module.
    pub(super) fn begin(
        stem: &str,
        stamp: WatchedFileStamp,
        bytes: Vec<u8>,
        blobs: &Blobs,
        was_quiet: bool,
    ) -> Result<PendingInspection, ReadError> {
        let (sender, outcome) = channel();
        let stem = stem.to_owned();
        let blobs = blobs.clone();
        std::thread::Builder::new()
            .name("module check".into())
            .spawn(move || {
                // Nobody hears of it if the folder is watched no more.
                let _ = sender.send(inspect(&stem, stamp, &bytes, &blobs));
            })
            .map_err(ReadError::Thread)?;
        Ok(PendingInspection { outcome, was_quiet })
    }

    /// What was found, if that is known within a moment. `is_new` says that it was just begun.
    pub(super) fn progress(self, is_new: bool) -> Progress {
        let patience = if is_new { QUICK } else { Duration::ZERO };
        match self.outcome.recv_timeout(patience) {
            Ok(outcome) => Progress::Ended(outcome),
            Err(RecvTimeoutError::Timeout) => Progress::Pending(self),
            Err(RecvTimeoutError::Disconnected) => Progress::Ended(Err(ReadError::BrokeOff)),
        }
    }
}

fn inspect(
    stem: &str,
    stamp: WatchedFileStamp,
    bytes: &[u8],
    blobs: &Blobs,
) -> Result<ReadFile, ReadError> {
    let check = taskmaster_confined::inspect(stem, bytes)?.check;
    let hash = check.version.unwrap_or_else(|| Hash::of(bytes));
    let seen = match (check.kind, check.error) {
        (Some(kind), None) => ModuleFile::Sound {
            version: hash,
            kind,
            bytes: stamp.bytes(),
            wants: None,
            cache_version: None,
        },
        (_, Some(error)) => ModuleFile::Unsound { error },
        (None, None) => ModuleFile::Unsound {
            error: "it cannot be run".into(),
        },
    };
    if matches!(seen, ModuleFile::Sound { .. }) {
        blobs.put_hashed(hash, bytes).map_err(ReadError::NotKept)?;
    }
    Ok(ReadFile { stamp, hash, seen })
}
