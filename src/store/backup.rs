//! `store backup` of a running master: the master sends, and this program writes the copy.

use super::{StoreFailure, failed};
use bytes::{Buf, Bytes};
use std::io::{self, Read};
use std::path::Path;
use taskmaster_feeder::{GlobalOptions, exit};
use taskmaster_master::upkeep::backup::BackupSummary;
use taskmaster_master::upkeep::backup::stream;
use taskmaster_transport::BlobError;
use tokio::sync::mpsc;

/// Chunks of the stream that wait to be written.
const CHUNKS_WAITING_MAX: usize = 4;

/// Asks the running master for the copy, and writes it to `to`.
pub(super) async fn of_running_master(
    to: &Path,
    global: &GlobalOptions,
) -> Result<BackupSummary, StoreFailure> {
    let target = global.target().map_err(failed)?;
    let mut body = target.blobs().backup().await.map_err(refusal)?;
    let (chunks, waiting) = mpsc::channel(CHUNKS_WAITING_MAX);
    let mut reader = ChunkReader {
        chunks: waiting,
        chunk: Bytes::new(),
    };
    let to = to.to_owned();
    let writing = tokio::task::spawn_blocking(move || stream::receive(&mut reader, &to));
    let broken = loop {
        match body.next().await {
            Ok(Some(chunk)) => {
                // The writer has given up, and says why below.
                if chunks.send(chunk).await.is_err() {
                    break None;
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    drop(chunks);
    let written = writing.await.map_err(failed)?;
    match (written, broken) {
        (Ok(summary), _) => Ok(summary),
        (Err(_), Some(error)) => Err(failed(format!("{error}; nothing was kept"))),
        (Err(error), None) => Err(error.into()),
    }
}

fn refusal(error: BlobError) -> StoreFailure {
    match error {
        BlobError::Unreachable { .. } => StoreFailure {
            exit_code: exit::UNREACHABLE,
            text: format!(
                "the data folder is in use, and its master does not answer: {error}; name it with --url"
            ),
        },
        BlobError::Refused { text, .. } => failed(text),
        other => failed(other),
    }
}

/// Reads what comes through a queue.
struct ChunkReader {
    chunks: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let count = to.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut to[..count]);
        Ok(count)
    }
}
