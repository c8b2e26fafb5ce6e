//! Bytes by their hash, and modules, over HTTP on the master's port.

use crate::Address;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use taskmaster_protocol::{Hash, limits};
use tokio::net::TcpStream;

/// Fetches and puts bytes. A connection for each request: they are few and large, results and modules are cached.
#[derive(Debug, Clone)]
pub struct Blobs {
    address: Address,
    token: Option<String>,
}

/// Why bytes could not be had or put.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The connection failed; trying again may help.
    #[error("no answer from the master for {path}: {why}")]
    Unreachable {
        /// What was asked for.
        path: String,
        /// What the system said.
        why: String,
    },
    /// The master said no.
    #[error("the master says {status} to {path}: {text}")]
    Refused {
        /// What was asked for.
        path: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
    /// Other bytes came than the name says.
    #[error("the bytes of {0} do not have that hash")]
    WrongHash(Hash),
}

impl Blobs {
    /// For the master at `address`.
    pub fn new(address: Address, token: Option<String>) -> Blobs {
        Blobs { address, token }
    }

    /// The bytes whose SHA-256 is `hash`; their hash is checked.
    pub async fn get(&self, hash: &Hash) -> Result<Bytes, BlobError> {
        let bytes = self.request(Method::GET, format!("/blobs/{hash}"), Bytes::new()).await?;
        if Hash::of(&bytes) == *hash { Ok(bytes) } else { Err(BlobError::WrongHash(*hash)) }
    }

    /// Puts bytes under their hash. Putting what is there already is fine.
    pub async fn put(&self, hash: &Hash, bytes: Bytes) -> Result<(), BlobError> {
        self.request(Method::PUT, format!("/blobs/{hash}"), bytes).await.map(drop)
    }

    /// Whether the bytes are there already.
    pub async fn has(&self, hash: &Hash) -> Result<bool, BlobError> {
        match self.request(Method::HEAD, format!("/blobs/{hash}"), Bytes::new()).await {
            Ok(_) => Ok(true),
            Err(BlobError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts what a task is about to name, unless it is there. Refused with 503 while the master takes no tasks.
    pub async fn upload(&self, hash: &Hash, bytes: Bytes) -> Result<(), BlobError> {
        if self.has(hash).await? {
            return Ok(());
        }
        self.request(Method::PUT, format!("/blobs/{hash}?for=task"), bytes).await.map(drop)
    }

    /// Puts a file into the master's task folder. `file` is a bare file name, such as `resize.wasm`.
    pub async fn put_module(&self, file: &str, bytes: Bytes) -> Result<Bytes, BlobError> {
        self.request(Method::PUT, format!("/modules/{file}"), bytes).await
    }

    /// Asks the master to copy its data folder; `wish` says where to. Answered when the copy is there.
    pub async fn backup(&self, wish: Bytes) -> Result<Bytes, BlobError> {
        self.request(Method::POST, "/api/backup".into(), wish).await
    }

    async fn request(&self, method: Method, path: String, body: Bytes) -> Result<Bytes, BlobError> {
        let fail = |why: String| BlobError::Unreachable { path: path.clone(), why };
        let stream = TcpStream::connect(self.address.authority()).await.map_err(|error| fail(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| fail(error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| fail(error.to_string()))?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(&path).header(header::HOST, self.address.authority());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| fail(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| fail(error.to_string()))?;
        let status = response.status();
        let limit = usize::try_from(limits::BLOB_BYTES_MAX).unwrap_or(usize::MAX);
        let body =
            Limited::new(response.into_body(), limit).collect().await.map_err(|error| fail(error.to_string()))?;
        driver.abort();
        let bytes = body.to_bytes();
        if status == StatusCode::OK || status == StatusCode::CREATED || status == StatusCode::NO_CONTENT {
            return Ok(bytes);
        }
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        Err(BlobError::Refused { path, status: status.as_u16(), text })
    }
}
