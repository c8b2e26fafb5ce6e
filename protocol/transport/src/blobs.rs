//! Blobs, modules and backups, over HTTP on the master's port.

use crate::Address;
use crate::connecting::{ConnectProgress, connect};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::http::request::Builder;
use hyper::{HeaderMap, Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use taskmaster_protocol::{Hash, Json, limits};
use tokio::task::JoinHandle;

/// A client of the master's HTTP interface. Each request has a connection of its own, because
/// requests are few and large: results and modules are cached.
#[derive(Debug, Clone)]
pub struct BlobClient {
    address: Address,
    token: Option<String>,
}

/// Where a master gives a copy of its data folder.
const BACKUP_PATH: &str = "/api/backup";

/// A backup on its way.
pub struct BackupBody {
    body: Incoming,
    _driver: ConnectionDriver,
}

impl BackupBody {
    /// The next bytes; `None` where the stream has ended as it should.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| BlobError::Unreachable {
                path: BACKUP_PATH.into(),
                why: error.to_string(),
            })?;
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The connection failed; trying again may help.
    #[error("no answer from the master for {path}: {why}")]
    Unreachable {
        /// The path that was asked for.
        path: String,
        /// The error of the system or the connection.
        why: String,
    },
    /// The master refused the request.
    #[error("the master says {status} to {path}: {text}")]
    Refused {
        /// The path that was asked for.
        path: String,
        /// The HTTP status.
        status: u16,
        /// What the master said.
        text: String,
    },
    /// The bytes do not have the hash that names them.
    #[error("the bytes of {0} do not have that hash")]
    WrongHash(Hash),
    /// A file of this machine cannot be read or written.
    #[error("{path}: {why}")]
    Local {
        /// The path of the file.
        path: String,
        /// The error of the system or the connection.
        why: String,
    },
}

impl BlobError {
    /// Whether trying again may help, because the master is away or cannot take anything for now.
    pub fn may_pass(&self) -> bool {
        match self {
            BlobError::Unreachable { .. } => true,
            BlobError::Refused { status, .. } => {
                matches!(status, 409 | 429 | 502 | 503 | 504 | 507)
            }
            BlobError::WrongHash(_) | BlobError::Local { .. } => false,
        }
    }
}

impl BlobClient {
    /// A client for the master at `address`.
    pub fn new(address: Address, token: Option<String>) -> BlobClient {
        BlobClient { address, token }
    }

    /// Fetches the bytes whose SHA-256 is `hash`, and checks it.
    pub async fn get(&self, hash: &Hash) -> Result<Bytes, BlobError> {
        let bytes = self
            .request(Method::GET, format!("/blobs/{hash}"), Bytes::new())
            .await?;
        if Hash::of(&bytes) == *hash {
            Ok(bytes)
        } else {
            Err(BlobError::WrongHash(*hash))
        }
    }

    /// Puts bytes under their hash. It does no harm if they are there already.
    pub async fn put(&self, hash: &Hash, bytes: Bytes) -> Result<(), BlobError> {
        self.request(Method::PUT, format!("/blobs/{hash}"), bytes)
            .await
            .map(drop)
    }

    /// Whether the master has the bytes.
    pub async fn has(&self, hash: &Hash) -> Result<bool, BlobError> {
        match self
            .request(Method::HEAD, format!("/blobs/{hash}"), Bytes::new())
            .await
        {
            Ok(_) => Ok(true),
            Err(BlobError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts bytes that a task is about to name, unless the master has them. Refused with 503 while
    /// the master adds no tasks.
    pub async fn upload(&self, hash: &Hash, bytes: Bytes) -> Result<(), BlobError> {
        if self.has(hash).await? {
            return Ok(());
        }
        self.request(Method::PUT, format!("/blobs/{hash}?for=task"), bytes)
            .await
            .map(drop)
    }

    /// Puts a file into the master's task folder, and returns what the master found in it. `file`
    /// is the name of the file without a folder, such as `resize.wasm`.
    pub async fn put_module(&self, file: &str, bytes: Bytes) -> Result<Bytes, BlobError> {
        self.request(Method::PUT, format!("/modules/{file}"), bytes)
            .await
    }

    /// Removes a file from the master's task folder.
    pub async fn remove_module(&self, file: &str) -> Result<(), BlobError> {
        self.request(Method::DELETE, format!("/modules/{file}"), Bytes::new())
            .await
            .map(drop)
    }

    /// Asks the master for a copy of its data folder, which comes as a stream.
    pub async fn backup(&self) -> Result<BackupBody, BlobError> {
        let request = Request::builder().method(Method::GET).uri(BACKUP_PATH);
        let BlobResponse {
            status,
            body,
            driver,
            ..
        } = self
            .send(BACKUP_PATH, request, RequestBody::default())
            .await?;
        if status.is_success() {
            return Ok(BackupBody {
                body,
                _driver: driver,
            });
        }
        let said = body.collect().await.map(|said| said.to_bytes());
        Err(refused(
            BACKUP_PATH.into(),
            status,
            &said.unwrap_or_default(),
        ))
    }

    /// Returns those of `hashes` that the master lacks. A task may name the others for half an hour
    /// at least. Refused with 503 while the master adds no tasks.
    pub async fn missing(&self, hashes: &[Hash]) -> Result<Vec<Hash>, BlobError> {
        let mut missing = Vec::new();
        for some in hashes.chunks(limits::FOLDER_FILES_MAX) {
            let path = "/blobs/missing?for=task";
            let answer = self
                .request(
                    Method::POST,
                    path.into(),
                    Bytes::from(Json::of(some).get().to_owned()),
                )
                .await?;
            let unread = |error: serde_json::Error| BlobError::Unreachable {
                path: path.into(),
                why: error.to_string(),
            };
            missing.extend(serde_json::from_slice::<Vec<Hash>>(&answer).map_err(unread)?);
        }
        Ok(missing)
    }

    async fn request(&self, method: Method, path: String, body: Bytes) -> Result<Bytes, BlobError> {
        let request = Request::builder().method(method).uri(&path);
        let whole = Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync();
        let BlobResponse {
            status,
            body,
            driver,
            ..
        } = self.send(&path, request, whole).await?;
        let fail = |why: String| BlobError::Unreachable {
            path: path.clone(),
            why,
        };
        let limit = usize::try_from(limits::BLOB_BYTES_MAX).unwrap_or(usize::MAX);
        let body = Limited::new(body, limit)
            .collect()
            .await
            .map_err(|error| fail(error.to_string()))?;
        drop(driver);
        let bytes = body.to_bytes();
        if status.is_success() {
            return Ok(bytes);
        }
        Err(refused(path, status, &bytes))
    }

    /// Sends one request over a connection of its own, and returns as soon as the head of the
    /// response is there.
    pub(crate) async fn send(
        &self,
        path: &str,
        request: Builder,
        body: RequestBody,
    ) -> Result<BlobResponse, BlobError> {
        let fail = |why: String| BlobError::Unreachable {
            path: path.to_owned(),
            why,
        };
        let stream = connect(&self.address, &ConnectProgress::default())
            .await
            .map_err(fail)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| fail(error.to_string()))?;
        let driver = ConnectionDriver(tokio::spawn(connection));
        let mut request = request.header(header::HOST, self.address.authority());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(body)
            .map_err(|error| fail(error.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| fail(error.to_string()))?;
        let (head, body) = response.into_parts();
        Ok(BlobResponse {
            status: head.status,
            headers: head.headers,
            body,
            driver,
        })
    }
}

/// The body of a request.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// The head of a response, and its body, which may still be on its way.
pub(crate) struct BlobResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Incoming,
    pub driver: ConnectionDriver,
}

/// The task that moves the bytes of a connection. The connection ends when this is dropped.
pub(crate) struct ConnectionDriver(JoinHandle<Result<(), hyper::Error>>);

impl Drop for ConnectionDriver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn refused(path: String, status: StatusCode, said: &[u8]) -> BlobError {
    let text = String::from_utf8_lossy(said).trim().to_owned();
    BlobError::Refused {
        path,
        status: status.as_u16(),
        text,
    }
}
