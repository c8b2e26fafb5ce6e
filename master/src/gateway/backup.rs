//! `GET /api/backup`: a copy of the data folder of this running master, as a stream. Whoever asks
//! writes it; the master writes no file but one without a name, while it sets the records aside.

use super::GatewayState;
use super::http::{HttpFailure, fail};
use crate::upkeep::backup::stream;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::io::{self, Write};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Bytes that are sent at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks that wait for a slow reader.
const CHUNKS_WAITING_MAX: usize = 4;

/// How long the stream waits for its reader before it ends. Meanwhile no blob is removed.
const READER_TIMEOUT: Duration = Duration::from_secs(60);

type Chunk = io::Result<Bytes>;

pub(super) async fn backup(State(state): State<GatewayState>) -> Result<Response, HttpFailure> {
    let Ok(permit) = state.backups.clone().try_acquire_owned() else {
        let text = "another backup is being made; ask again when it has ended";
        return Err(fail(StatusCode::SERVICE_UNAVAILABLE, text));
    };
    let room = &state.handle.room;
    if let Some(why) = room.damage().found() {
        return Err(fail(StatusCode::SERVICE_UNAVAILABLE, why));
    }
    if let Some(why) = room.disk().refusal() {
        return Err(fail(StatusCode::SERVICE_UNAVAILABLE, why));
    }
    let (chunks, sent) = mpsc::channel(CHUNKS_WAITING_MAX);
    let runtime = Handle::current();
    // On a thread that may wait for the disk and for the reader.
    tokio::task::spawn_blocking(move || {
        let mut writer = ChunkWriter {
            chunks,
            chunk: Vec::with_capacity(CHUNK_BYTES),
            runtime,
        };
        if let Err(error) = send(&state, &mut writer) {
            tracing::warn!(%error, "a backup was not sent");
            writer.give_up(error);
        }
        drop(permit);
    });
    let body = futures_util::stream::unfold(sent, |mut sent| async move {
        let chunk = sent.recv().await?;
        Some((chunk, sent))
    });
    let headers = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((headers, Body::from_stream(body)).into_response())
}

fn send(state: &GatewayState, out: &mut dyn Write) -> Result<(), stream::SendError> {
    let room = &state.handle.room;
    let _blobs_stay = room.hold_blobs();
    let set_aside = {
        let _view_stands_still = room.lock_view();
        let is_too_full = || room.disk().refusal().is_some();
        stream::set_aside(&state.handle.reader, &state.blobs, &is_too_full)?
    };
    stream::send(set_aside, &state.blobs, out)
}

/// Passes what is written to the body of the response.
struct ChunkWriter {
    chunks: mpsc::Sender<Chunk>,
    chunk: Vec<u8>,
    runtime: Handle,
}

impl ChunkWriter {
    fn pass(&self, chunk: Chunk) -> io::Result<()> {
        let passing = tokio::time::timeout(READER_TIMEOUT, self.chunks.send(chunk));
        match self.runtime.block_on(passing) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::other("its reader has gone")),
            Err(_) => Err(io::Error::other("its reader takes nothing")),
        }
    }

    /// Ends the response in the middle, so that its reader sees that it is not whole.
    fn give_up(&self, error: stream::SendError) {
        let _ = self.chunks.try_send(Err(io::Error::other(error)));
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        self.pass(Ok(chunk.into()))
    }
}
