//! Blobs over HTTP: they are fetched and put, whole or from where they broke off, and asked for by
//! the thousand.

use super::GatewayState;
use super::http::{self, HttpFailure, bad_request, fail, json};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, SeekFrom};
use taskmaster_blobs::{Blobs, PutError, is_unavailable};
use taskmaster_protocol::{Hash, Json, limits};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

/// Bytes read from the disk at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Pieces of an upload that wait for the disk.
const WAITING_PIECES: usize = 8;

/// How many bytes of an upload are here already, as the draft standard for resumable uploads says
/// it.
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

/// The blob, or, with `Range: bytes=N-`, what of it is behind the first N bytes.
pub(super) async fn get(
    State(state): State<GatewayState>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Result<Response, HttpFailure> {
    let hash = parse_hash(&hash)?;
    let failed = move |error| unreadable_blob(&hash, &error);
    let file = run_blocking(move || state.blobs.file(&hash))
        .await?
        .map_err(failed)?;
    let mut file = File::from_std(file);
    let length = file.metadata().await.map_err(failed)?.len();
    let range_start = range_start(&headers);
    let start = range_start.unwrap_or(0);
    if start > length {
        return Err(fail(
            StatusCode::RANGE_NOT_SATISFIABLE,
            format!("blob {hash} has {length} bytes"),
        ));
    }
    file.seek(SeekFrom::Start(start)).await.map_err(failed)?;

    let status = match range_start {
        Some(_) => StatusCode::PARTIAL_CONTENT,
        None => StatusCode::OK,
    };
    let headers = [
        (header::CONTENT_LENGTH, (length - start).to_string()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        // Bytes under a hash never change.
        (
            header::CACHE_CONTROL,
            "private, max-age=31536000, immutable".to_owned(),
        ),
    ];
    Ok((status, headers, Body::from_stream(chunks(file))).into_response())
}

fn parse_hash(text: &str) -> Result<Hash, HttpFailure> {
    Hash::parse(text)
        .ok_or_else(|| bad_request("a blob's name is its SHA-256: 64 hexadecimal digits"))
}

/// Where a range begins. Other ranges than `bytes=N-` may be ignored, and none of our clients asks
/// for them.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    let start = range.strip_prefix("bytes=")?.strip_suffix('-')?;
    start.parse().ok()
}

fn chunks(file: File) -> impl Stream<Item = io::Result<Bytes>> {
    futures_util::stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        (&mut file)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut chunk)
            .await?;
        Ok((!chunk.is_empty()).then(|| (Bytes::from(chunk), file)))
    })
}

/// Says whether the blob is there, so that a task can name it. If it is not, says how many bytes
/// are here of an upload that broke off.
pub(super) async fn head(
    State(state): State<GatewayState>,
    Path(hash): Path<String>,
) -> Result<Response, HttpFailure> {
    let hash = parse_hash(&hash)?;
    let blobs = state.blobs.clone();
    let (is_there, partial_bytes) =
        run_blocking(move || (blobs.renew(&hash), blobs.partial_bytes(&hash))).await?;
    let status = if is_there.map_err(unreadable)? {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    };
    let headers = [(UPLOAD_OFFSET, HeaderValue::from(partial_bytes))];
    Ok((status, headers).into_response())
}

/// Answers which blobs of a list are not there. A task can name the others from now on.
pub(super) async fn missing(
    State(state): State<GatewayState>,
    Query(purpose): Query<BlobPurpose>,
    body: Bytes,
) -> Result<Response, HttpFailure> {
    purpose.check(&state)?;
    let asked: BTreeSet<Hash> = serde_json::from_slice(&body).map_err(|error| {
        bad_request(format!(
            "what is asked for is an array of SHA-256s: {error}"
        ))
    })?;
    let most = limits::FOLDER_FILES_MAX;
    if asked.len() > most {
        return Err(bad_request(format!(
            "{} hashes are asked for, at most {most} are allowed at a time",
            asked.len()
        )));
    }
    let blobs = state.blobs.clone();
    let missing = run_blocking(move || missing_of(&blobs, asked))
        .await?
        .map_err(unreadable)?;
    Ok(json(Json::of(&missing)))
}

fn missing_of(blobs: &Blobs, asked: BTreeSet<Hash>) -> io::Result<Vec<Hash>> {
    let mut asked: Vec<Hash> = asked.into_iter().collect();
    let mut is_there = blobs.renew_all(&asked)?.into_iter();
    asked.retain(|_| is_there.next() == Some(false));
    Ok(asked)
}

fn unreadable_blob(hash: &Hash, error: &io::Error) -> HttpFailure {
    if error.kind() == ErrorKind::NotFound {
        return fail(
            StatusCode::NOT_FOUND,
            format!("no blob {hash} is kept here"),
        );
    }
    let text = format!("blob {hash} cannot be read: {error}");
    fail(status_of(error), text)
}

fn unreadable(error: io::Error) -> HttpFailure {
    let text = format!("the blobs cannot be read: {error}");
    fail(status_of(&error), text)
}

/// A bucket that is unavailable may be asked again, and so may a disk that is full.
fn status_of(error: &io::Error) -> StatusCode {
    if is_unavailable(error) {
        StatusCode::SERVICE_UNAVAILABLE
    } else if error.kind() == ErrorKind::StorageFull {
        StatusCode::INSUFFICIENT_STORAGE
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HttpFailure> {
    http::run_blocking(work, "the blobs were not read; the log has more").await
}

/// What a blob is put for.
#[derive(Deserialize)]
pub(super) struct BlobPurpose {
    /// `task`: a task is about to name the blob, which is refused when adds are. Absent: it is the
    /// result of a task, for which space is kept.
    r#for: Option<String>,
}

impl BlobPurpose {
    fn check(&self, state: &GatewayState) -> Result<(), HttpFailure> {
        match self.r#for.as_deref() {
            None => Ok(()),
            Some("task") => match state.handle.room.disk().refusal() {
                Some(why) => Err(fail(StatusCode::SERVICE_UNAVAILABLE, why)),
                None => Ok(()),
            },
            Some(other) => Err(bad_request(format!(
                "`for` is `{other}`; what can be said is `task`"
            ))),
        }
    }
}

/// Keeps a blob. With `Upload-Offset: N` the body is what comes behind the first N bytes of it,
/// which are here already.
pub(super) async fn put(
    State(state): State<GatewayState>,
    Path(hash): Path<String>,
    Query(purpose): Query<BlobPurpose>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpFailure> {
    let hash = parse_hash(&hash)?;
    purpose.check(&state)?;
    let offset = upload_offset(&headers)?;
    let (pieces, incoming) = mpsc::channel(WAITING_PIECES);
    let writing = http::run_blocking(
        move || write_pieces(&state.blobs, hash, offset, incoming),
        "the blob cannot be stored; the log has more",
    );
    let ((), written) = tokio::join!(send_pieces(body, pieces), writing);
    match written? {
        Ok(()) => Ok(StatusCode::CREATED.into_response()),
        Err(PutFailure::Refused(failure)) => Err(failure),
        Err(PutFailure::WrongOffset(offset)) => {
            let text = format!("{offset} bytes of blob {hash} are here; go on behind them\n");
            let headers = [(UPLOAD_OFFSET, HeaderValue::from(offset))];
            Ok((StatusCode::CONFLICT, headers, text).into_response())
        }
    }
}

fn upload_offset(headers: &HeaderMap) -> Result<u64, HttpFailure> {
    let Some(value) = headers.get(UPLOAD_OFFSET) else {
        return Ok(0);
    };
    let offset = value.to_str().ok().and_then(|text| text.parse().ok());
    offset.ok_or_else(|| bad_request("Upload-Offset is the number of bytes that are here already"))
}

/// Hands the body to the thread that writes it.
async fn send_pieces(body: Body, pieces: mpsc::Sender<Result<Bytes, HttpFailure>>) {
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| bad_request(format!("the upload broke off: {error}")));
        let is_broken = piece.is_err();
        // Nobody receives any more where the bytes were refused. The thread tells why.
        if pieces.send(piece).await.is_err() || is_broken {
            return;
        }
    }
}

/// Why a blob was not kept.
enum PutFailure {
    Refused(HttpFailure),
    /// The upload must go on behind this number of bytes.
    WrongOffset(u64),
}

impl From<PutError> for PutFailure {
    fn from(error: PutError) -> PutFailure {
        let status = match &error {
            PutError::Offset(offset) => return PutFailure::WrongOffset(*offset),
            PutError::WrongHash { .. } => StatusCode::BAD_REQUEST,
            PutError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            PutError::Io(io) => status_of(io),
        };
        PutFailure::Refused(fail(status, error))
    }
}

/// Writes the pieces that come to the disk.
fn write_pieces(
    blobs: &Blobs,
    hash: Hash,
    offset: u64,
    mut incoming: mpsc::Receiver<Result<Bytes, HttpFailure>>,
) -> Result<(), PutFailure> {
    let mut upload = blobs.begin_at(hash, offset)?;
    while let Some(piece) = incoming.blocking_recv() {
        upload.write(&piece.map_err(PutFailure::Refused)?)?;
    }
    Ok(upload.finish(hash)?)
}
