//! Files as blobs. They are sent and fetched in parts, and a transfer that broke off goes on from
//! there.

use crate::blobs::{BlobClient, BlobError, BlobResponse, refused};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::http::request::Builder;
use hyper::{Method, Request, StatusCode, header};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use taskmaster_protocol::Hash;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Bytes that are read or written at a time.
const CHUNK: usize = 256 << 10;

/// Bytes of a file below which it is sent without asking whether the master has it.
const ASKED_FROM: u64 = 1 << 20;

/// The header of an upload that goes on: how many bytes the master has already.
const UPLOAD_OFFSET: &str = "upload-offset";

/// The purpose for which a file is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadPurpose {
    /// A task that is about to be added names the file. The upload is refused while the master adds
    /// no tasks.
    Task,
    /// A task gives the file back.
    Result,
}

/// Makes a folder that only this user can enter, and its parents.
pub fn private_folder(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Returns the SHA-256 of a file and its size in bytes. Blocks on the disk.
pub fn hash_file(path: &Path) -> io::Result<(Hash, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut part = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match file.read(&mut part)? {
            0 => return Ok((Hash(hasher.finalize().into()), bytes)),
            n => {
                hasher.update(&part[..n]);
                bytes += n as u64;
            }
        }
    }
}

fn local(path: &Path) -> impl Fn(io::Error) -> BlobError {
    let path = path.display().to_string();
    move |error| BlobError::Local {
        path: path.clone(),
        why: error.to_string(),
    }
}

impl BlobClient {
    /// Puts the file at `path` under `hash`, unless the master has it. An earlier upload that broke
    /// off goes on. It is not tried again after an error. [`BlobError::WrongHash`] means that the
    /// file has changed since it was hashed.
    pub async fn put_file(
        &self,
        hash: &Hash,
        path: &Path,
        purpose: UploadPurpose,
    ) -> Result<(), BlobError> {
        let file = tokio::fs::File::open(path).await.map_err(local(path))?;
        let length = file.metadata().await.map_err(local(path))?.len();
        let offset = if length < ASKED_FROM {
            0
        } else {
            match self.part_of(hash).await? {
                None => return Ok(()),
                Some(offset) if offset <= length => offset,
                // A part that is longer than the file is of another file, or of this one before it
                // changed.
                Some(_) => 0,
            }
        };
        match self.put_from(hash, file, path, offset, purpose).await {
            // The part that the master had was damaged, or the file was another one then.
            Err(BlobError::WrongHash(_)) if offset > 0 => {
                let file = tokio::fs::File::open(path).await.map_err(local(path))?;
                self.put_from(hash, file, path, 0, purpose).await
            }
            other => other,
        }
    }

    /// How many bytes an upload that broke off has left behind; `None` where the master has the
    /// whole blob.
    async fn part_of(&self, hash: &Hash) -> Result<Option<u64>, BlobError> {
        let path = format!("/blobs/{hash}");
        let request = Request::builder().method(Method::HEAD).uri(&path);
        let BlobResponse {
            status, headers, ..
        } = self
            .send(&path, request, crate::blobs::RequestBody::default())
            .await?;
        let offset = headers
            .get(UPLOAD_OFFSET)
            .and_then(|offset| offset.to_str().ok()?.parse().ok());
        match status {
            StatusCode::NOT_FOUND => Ok(Some(offset.unwrap_or(0))),
            status if status.is_success() => Ok(None),
            status => Err(refused(path, status, b"")),
        }
    }

    async fn put_from(
        &self,
        hash: &Hash,
        mut file: tokio::fs::File,
        path: &Path,
        offset: u64,
        purpose: UploadPurpose,
    ) -> Result<(), BlobError> {
        file.seek(io::SeekFrom::Start(offset))
            .await
            .map_err(local(path))?;
        let parts = futures_util::stream::try_unfold(file, |mut file| async move {
            let mut part = Vec::with_capacity(CHUNK);
            (&mut file)
                .take(CHUNK as u64)
                .read_to_end(&mut part)
                .await?;
            Ok::<_, io::Error>((!part.is_empty()).then(|| (Frame::data(Bytes::from(part)), file)))
        });
        let uri = match purpose {
            UploadPurpose::Task => format!("/blobs/{hash}?for=task"),
            UploadPurpose::Result => format!("/blobs/{hash}"),
        };
        let mut request = Request::builder().method(Method::PUT).uri(&uri);
        if offset > 0 {
            request = request.header(UPLOAD_OFFSET, offset);
        }
        let BlobResponse {
            status,
            body,
            driver,
            ..
        } = self
            .send(&uri, request, StreamBody::new(parts).boxed_unsync())
            .await?;
        if status.is_success() {
            return Ok(());
        }
        let said = body
            .collect()
            .await
            .map(|said| said.to_bytes())
            .unwrap_or_default();
        drop(driver);
        if status == StatusCode::BAD_REQUEST
            && String::from_utf8_lossy(&said).contains("have the hash")
        {
            return Err(BlobError::WrongHash(*hash));
        }
        Err(refused(uri, status, &said))
    }

    /// Fetches what `download` lacks. It is not tried again after an error; another call goes on
    /// from where this one ended.
    pub async fn get_file(&self, download: &mut Download) -> Result<(), BlobError> {
        let uri = format!("/blobs/{}", download.hash);
        let mut request: Builder = Request::builder().method(Method::GET).uri(&uri);
        if download.bytes > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", download.bytes));
        }
        let BlobResponse {
            status,
            mut body,
            driver: _driver,
            ..
        } = self
            .send(&uri, request, crate::blobs::RequestBody::default())
            .await?;
        match status {
            StatusCode::OK => download.start_over()?,
            StatusCode::PARTIAL_CONTENT => {}
            status => {
                let said = body
                    .collect()
                    .await
                    .map(|said| said.to_bytes())
                    .unwrap_or_default();
                return Err(refused(uri, status, &said));
            }
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| BlobError::Unreachable {
                path: uri.clone(),
                why: error.to_string(),
            })?;
            if let Ok(part) = frame.into_data() {
                download.write(&part)?;
            }
        }
        download.check()
    }
}

/// A blob on its way into a file. The file is removed when this is dropped before the blob is
/// whole.
#[derive(Debug)]
pub struct Download {
    hash: Hash,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    bytes: u64,
    whole: bool,
}

impl Download {
    /// Begins a download into a new file at `path`.
    pub fn begin(hash: Hash, path: &Path) -> Result<Download, BlobError> {
        let file = File::create(path).map_err(local(path))?;
        Ok(Download {
            hash,
            path: path.to_owned(),
            file,
            hasher: Sha256::new(),
            bytes: 0,
            whole: false,
        })
    }

    /// How many bytes were written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps the file, which is whole and has the right hash, and returns its size in bytes.
    pub fn finish(mut self) -> u64 {
        self.whole = true;
        self.bytes
    }

    fn start_over(&mut self) -> Result<(), BlobError> {
        if self.bytes > 0 {
            self.file = File::create(&self.path).map_err(local(&self.path))?;
            self.hasher = Sha256::new();
            self.bytes = 0;
        }
        Ok(())
    }

    fn write(&mut self, part: &[u8]) -> Result<(), BlobError> {
        self.hasher.update(part);
        self.bytes += part.len() as u64;
        // This blocks, but the disk's cache takes the bytes; a thread for each part would cost
        // more.
        self.file.write_all(part).map_err(local(&self.path))
    }

    fn check(&mut self) -> Result<(), BlobError> {
        if Hash(self.hasher.clone().finalize().into()) == self.hash {
            return Ok(());
        }
        self.start_over()?;
        Err(BlobError::WrongHash(self.hash))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if !self.whole {
            // The file may be gone already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
