//! Blobs as lines of an export. A blob may have gigabytes and a line must fit into memory, so a
//! blob comes in pieces.

use super::line::{BlobPiece, ExportLine};
use sha2::{Digest, Sha256};
use std::io::{self, Read, Seek};
use taskmaster_blobs::{Blobs, PutError, Upload};
use taskmaster_protocol::Hash;

/// Bytes in one line. They are a multiple of 3, so that base64 pads no piece but the last.
const PIECE_BYTES: usize = 768 << 10;

/// Why a blob is not in the export.
pub(super) enum PieceError<E> {
    /// It cannot be read, or its bytes are not what its name says.
    Lost(String),
    /// A line cannot be written.
    Line(E),
}

/// Writes a blob, piece by piece. It is read twice, so that no blob is begun whose bytes are not
/// what its name says.
pub(super) fn write_blob<E>(
    blobs: &Blobs,
    hash: Hash,
    write_line: &mut dyn FnMut(&ExportLine) -> Result<(), E>,
) -> Result<(), PieceError<E>> {
    let lost = |error: io::Error| PieceError::Lost(error.to_string());
    let mut file = blobs.file(&hash).map_err(lost)?;
    let is = hash_of(&mut file).map_err(lost)?;
    if is != hash {
        return Err(PieceError::Lost(format!("its bytes have the hash {is}")));
    }
    file.rewind().map_err(lost)?;
    loop {
        let mut bytes = Vec::with_capacity(PIECE_BYTES);
        (&mut file)
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut bytes)
            .map_err(lost)?;
        let is_last = bytes.len() < PIECE_BYTES;
        write_line(&ExportLine::Blob {
            hash,
            last: is_last,
            base64: BlobPiece(bytes),
        })
        .map_err(PieceError::Line)?;
        if is_last {
            return Ok(());
        }
    }
}

/// The hash of all bytes that a file has left. The file may be larger than memory.
pub(super) fn hash_of(file: &mut std::fs::File) -> io::Result<Hash> {
    let mut hasher = Sha256::new();
    io::copy(file, &mut hasher)?;
    Ok(Hash(hasher.finalize().into()))
}

/// Why a piece of a blob cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The pieces of another blob did not end.
    #[error("blob {begun} is not whole, and blob {next} begins")]
    NotWhole {
        /// The blob whose pieces did not end.
        begun: Hash,
        /// The blob that begins.
        next: Hash,
    },
    /// The bytes cannot be kept.
    #[error("blob {0}: {1}")]
    Put(Hash, PutError),
}

/// Joins pieces to blobs.
pub(super) struct BlobJoiner {
    blobs: Blobs,
    begun: Option<(Hash, Upload)>,
    /// Blobs that are whole.
    pub count: u64,
}

impl BlobJoiner {
    pub fn new(blobs: Blobs) -> BlobJoiner {
        BlobJoiner {
            blobs,
            begun: None,
            count: 0,
        }
    }

    /// Takes the next piece. After the last piece the bytes must be what the blob's name says.
    pub fn take(&mut self, hash: Hash, is_last: bool, piece: &[u8]) -> Result<(), JoinError> {
        let put_error = |error: PutError| JoinError::Put(hash, error);
        let mut upload = match self.begun.take() {
            Some((begun, upload)) if begun == hash => upload,
            Some((begun, _)) => return Err(JoinError::NotWhole { begun, next: hash }),
            None => self
                .blobs
                .begin()
                .map_err(|error| put_error(error.into()))?,
        };
        upload.write(piece).map_err(put_error)?;
        if is_last {
            self.count += 1;
            return upload.finish(hash).map_err(put_error);
        }
        self.begun = Some((hash, upload));
        Ok(())
    }

    /// Whether the blob is there.
    pub fn has(&self, hash: &Hash) -> bool {
        self.blobs.exists(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(blobs: &Blobs, hash: Hash) -> Vec<String> {
        let mut lines = Vec::new();
        let written = write_blob(blobs, hash, &mut |line| {
            lines.push(serde_json::to_string(line).unwrap());
            Ok::<(), ()>(())
        });
        assert!(written.is_ok());
        lines
    }

    fn join(lines: &[String], joiner: &mut BlobJoiner) -> Result<(), JoinError> {
        lines
            .iter()
            .try_for_each(|line| match serde_json::from_str(line).unwrap() {
                ExportLine::Blob { hash, last, base64 } => joiner.take(hash, last, &base64.0),
                other => panic!("{other:?}"),
            })
    }

    #[test]
    fn blobs_of_every_size_come_back_byte_for_byte() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(from.path()).unwrap();
        let copy = Blobs::open(to.path()).unwrap();
        let mut joiner = BlobJoiner::new(copy.clone());
        for size in [
            0,
            1,
            PIECE_BYTES - 1,
            PIECE_BYTES,
            PIECE_BYTES + 1,
            3 * PIECE_BYTES + 5,
        ] {
            let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
            let hash = blobs.put(&bytes).unwrap();
            let lines = lines(&blobs, hash);
            assert_eq!(lines.len(), size / PIECE_BYTES + 1);
            join(&lines, &mut joiner).unwrap();
            assert!(copy.get(&hash).unwrap() == bytes, "{size} bytes");
        }
        assert_eq!(joiner.count, 6);
    }

    #[test]
    fn a_blob_that_is_not_what_its_name_says_is_neither_written_nor_kept() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(from.path()).unwrap();
        let copy = Blobs::open(to.path()).unwrap();
        let hash = blobs.put(&vec![1; PIECE_BYTES + 9]).unwrap();
        let mut lines = lines(&blobs, hash);
        std::fs::write(blobs.path(&hash), "other").unwrap();
        let written = write_blob(&blobs, hash, &mut |_| Ok::<(), ()>(()));
        assert!(matches!(written, Err(PieceError::Lost(why)) if why.contains("have the hash")));
        lines.remove(0);
        let refused = join(&lines, &mut BlobJoiner::new(copy.clone()))
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains(&hash.to_string()) && !copy.exists(&hash),
            "{refused}"
        );
    }
}
