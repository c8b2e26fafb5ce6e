//! Bytes by their hash over HTTP: fetched and put whole or from where they broke off, and asked for
//! by the thousand.

use super::Gate;
use super::http::{Failure, fail, json};
use axum::body::Body;
use axum::extract::{Path, Query as Queried, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::BTreeSet;
use std::io::SeekFrom;
use taskmaster_blobs::{Blobs, PutError, is_away};
use taskmaster_protocol::{Hash, Json, limits};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

/// Bytes read from disk, or handed to it, at a time.
const CHUNK: usize = 256 << 10;

/// Of an upload: how many bytes are there already. As the draft standard for resumable uploads has
/// it.
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

fn parse_hash(text: &str) -> Result<Hash, Failure> {
    let wrong = || {
        fail(
            StatusCode::BAD_REQUEST,
            "a blob's name is its SHA-256: 64 hexadecimal digits",
        )
    };
    Hash::parse(text).ok_or_else(wrong)
}

/// The blob, or, as `Range: bytes=N-` says, what of it is behind the first N bytes.
pub(super) async fn get(
    State(gate): State<Gate>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let hash = parse_hash(&hash)?;
    let missing = move |error| match std::io::Error::kind(&error) {
        std::io::ErrorKind::NotFound => fail(
            StatusCode::NOT_FOUND,
            format!("no blob {hash} is kept here"),
        ),
        _ => fail(
            status_of(&error),
            format!("blob {hash} cannot be read: {error}"),
        ),
    };
    let mut file =
        tokio::fs::File::from_std(blocking(move || gate.blobs.file(&hash).map_err(missing)).await?);
    let length = file.metadata().await.map_err(missing)?.len();
    // Other ranges may be ignored; nobody of ours asks for them.
    let range = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok());
    let from = range.and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<u64>()
            .ok()
    });
    let status = if from.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let from = from.unwrap_or(0);
    if from > length {
        return Err(fail(
            StatusCode::RANGE_NOT_SATISFIABLE,
            format!("blob {hash} has {length} bytes"),
        ));
    }
    file.seek(SeekFrom::Start(from)).await.map_err(missing)?;
    let parts = futures_util::stream::try_unfold(file, |mut file| async move {
        let mut part = Vec::with_capacity(CHUNK);
        (&mut file)
            .take(CHUNK as u64)
            .read_to_end(&mut part)
            .await?;
        Ok::<_, std::io::Error>((!part.is_empty()).then(|| (Bytes::from(part), file)))
    });
    let headers = [
        (header::CONTENT_LENGTH, (length - from).to_string()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        // Bytes under a hash never change.
        (
            header::CACHE_CONTROL,
            "private, max-age=31536000, immutable".to_owned(),
        ),
    ];
    Ok((status, headers, Body::from_stream(parts)).into_response())
}

/// Whether it is there, so that it can be named; if not, how much of it an upload has left that
/// broke off.
pub(super) async fn head(
    State(gate): State<Gate>,
    Path(hash): Path<String>,
) -> Result<Response, Failure> {
    let hash = parse_hash(&hash)?;
    let blobs = gate.blobs.clone();
    let (there, part) =
        blocking(move || Ok((blobs.renew(&hash).map_err(unread)?, blobs.part_of(&hash)))).await?;
    let status = if there {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    };
    Ok((status, [(UPLOAD_OFFSET, HeaderValue::from(part))]).into_response())
}

/// Of a list of hashes those that are not there. The others can be named from now on.
pub(super) async fn missing(
    State(gate): State<Gate>,
    Queried(purpose): Queried<Purpose>,
    body: Bytes,
) -> Result<Response, Failure> {
    purpose.check(&gate)?;
    let bad = |text: String| fail(StatusCode::BAD_REQUEST, text);
    let asked: BTreeSet<Hash> = serde_json::from_slice(&body).map_err(|error| {
        bad(format!(
            "what is asked for is an array of SHA-256s: {error}"
        ))
    })?;
    if asked.len() > limits::FOLDER_FILES_MAX {
        let (is, max) = (asked.len(), limits::FOLDER_FILES_MAX);
        return Err(bad(format!(
            "{is} hashes are asked for, at most {max} are allowed at a time"
        )));
    }
    let blobs = gate.blobs.clone();
    let missing: Vec<Hash> = blocking(move || {
        let asked: Vec<Hash> = asked.into_iter().collect();
        let there = blobs.renew_all(&asked).map_err(unread)?;
        Ok(asked
            .into_iter()
            .zip(there)
            .filter(|(_, there)| !there)
            .map(|(hash, _)| hash)
            .collect())
    })
    .await?;
    Ok(json(Json::of(&missing)))
}

fn unread(error: std::io::Error) -> Failure {
    fail(
        status_of(&error),
        format!("the blobs cannot be read: {error}"),
    )
}

/// An object store that is away may be asked again, and so may a disk that is full.
fn status_of(error: &std::io::Error) -> StatusCode {
    match error.kind() {
        _ if is_away(error) => StatusCode::SERVICE_UNAVAILABLE,
        std::io::ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let lost = |_| {
        fail(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the blobs were not read; the log has more",
        )
    };
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

/// What a blob is put for; not said: the result of a task, for which room is kept.
#[derive(serde::Deserialize)]
pub(super) struct Purpose {
    /// `task`: something that a task is about to name. It is refused when adds are.
    r#for: Option<String>,
}

impl Purpose {
    fn check(&self, gate: &Gate) -> Result<(), Failure> {
        match self.r#for.as_deref() {
            None => Ok(()),
            Some("task") => match gate.handle.room.disk().refusal() {
                Some(why) => Err(fail(StatusCode::SERVICE_UNAVAILABLE, why)),
                None => Ok(()),
            },
            Some(other) => Err(fail(
                StatusCode::BAD_REQUEST,
                format!("`for` is `{other}`; what can be said is `task`"),
            )),
        }
    }
}

/// Keeps a blob; with `Upload-Offset: N` the body is what comes behind the first N bytes of it,
/// which are here already.
pub(super) async fn put(
    State(gate): State<Gate>,
    Path(hash): Path<String>,
    Queried(purpose): Queried<Purpose>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let hash = parse_hash(&hash)?;
    purpose.check(&gate)?;
    let offset = match headers.get(UPLOAD_OFFSET) {
        None => 0,
        Some(text) => text
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| {
                fail(
                    StatusCode::BAD_REQUEST,
                    "Upload-Offset is the number of bytes that are here already",
                )
            })?,
    };
    let (parts, incoming) = mpsc::channel(8);
    let kept = tokio::task::spawn_blocking(move || keep(&gate.blobs, hash, offset, incoming));
    let mut stream = body.into_data_stream();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|error| {
            fail(
                StatusCode::BAD_REQUEST,
                format!("the upload broke off: {error}"),
            )
        });
        // Nobody receives any more where the bytes were refused; then the reason follows below.
        let broken = part.is_err();
        if parts.send(part).await.is_err() || broken {
            break;
        }
    }
    drop(parts);
    let lost = |_| {
        fail(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the blob cannot be stored; the log has more",
        )
    };
    match kept.await.map_err(lost)? {
        Ok(()) => Ok(StatusCode::CREATED.into_response()),
        Err(Kept::Refused(failure)) => Err(failure),
        Err(Kept::Elsewhere(offset)) => {
            let text = format!("{offset} bytes of blob {hash} are here; go on behind them\n");
            Ok((
                StatusCode::CONFLICT,
                [(UPLOAD_OFFSET, HeaderValue::from(offset))],
                text,
            )
                .into_response())
        }
    }
}

/// Why a blob was not kept.
enum Kept {
    Refused(Failure),
    /// So many bytes are here.
    Elsewhere(u64),
}

impl From<PutError> for Kept {
    fn from(error: PutError) -> Kept {
        let status = match &error {
            PutError::Offset(offset) => return Kept::Elsewhere(*offset),
            PutError::WrongHash { .. } => StatusCode::BAD_REQUEST,
            PutError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            PutError::Io(io) => status_of(io),
        };
        Kept::Refused(fail(status, error))
    }
}

/// Writes what comes to disk; on a thread that may block.
fn keep(
    blobs: &Blobs,
    hash: Hash,
    offset: u64,
    mut incoming: mpsc::Receiver<Result<Bytes, Failure>>,
) -> Result<(), Kept> {
    let mut upload = blobs.begin_at(hash, offset)?;
    while let Some(part) = incoming.blocking_recv() {
        upload.write(&part.map_err(Kept::Refused)?)?;
    }
    Ok(upload.finish(hash)?)
}
