//! Blobs as lines of an export. A blob may have gigabytes and a line must fit into memory, so it
//! comes in pieces.

use super::export::Line;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::io::{self, Read, Seek};
use taskmaster_blobs::{Blobs, PutError, Upload};
use taskmaster_protocol::Hash;

/// Bytes in one line; a multiple of 3, so that no piece is filled up.
const PIECE_BYTES: usize = 768 << 10;

/// Bytes that stand as base64 in JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece(pub Vec<u8>);

impl Serialize for Piece {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Piece {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Piece, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD
            .decode(text)
            .map(Piece)
            .map_err(serde::de::Error::custom)
    }
}

/// Why a blob is not said.
pub(super) enum SayError<E> {
    /// It cannot be read, or is not what its name says.
    Lost(String),
    /// The line cannot be written.
    Line(E),
}

/// Says a blob, piece by piece. It is read twice, so that none is begun whose bytes are not what
/// its name says.
pub(super) fn say<E>(
    blobs: &Blobs,
    hash: Hash,
    line: &mut dyn FnMut(&Line) -> Result<(), E>,
) -> Result<(), SayError<E>> {
    let lost = |error: io::Error| SayError::Lost(error.to_string());
    let mut file = blobs.file(&hash).map_err(lost)?;
    let mut hasher = Sha256::new();
    io::copy(&mut file, &mut hasher).map_err(lost)?;
    let is = Hash(hasher.finalize().into());
    if is != hash {
        return Err(SayError::Lost(format!("its bytes have the hash {is}")));
    }
    file.rewind().map_err(lost)?;
    loop {
        let mut bytes = Vec::with_capacity(PIECE_BYTES);
        (&mut file)
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut bytes)
            .map_err(lost)?;
        let last = bytes.len() < PIECE_BYTES;
        line(&Line::Blob {
            hash,
            last,
            base64: Piece(bytes),
        })
        .map_err(SayError::Line)?;
        if last {
            return Ok(());
        }
    }
}

/// Puts blobs together again from their pieces.
pub(super) struct Pieces {
    blobs: Blobs,
    begun: Option<(Hash, Upload)>,
    /// Whole ones.
    pub count: u64,
}

impl Pieces {
    pub fn new(blobs: Blobs) -> Pieces {
        Pieces {
            blobs,
            begun: None,
            count: 0,
        }
    }

    /// Takes the next piece; with the last one the bytes must be what the name says.
    pub fn take(&mut self, hash: Hash, last: bool, piece: &[u8]) -> Result<(), String> {
        let told = |error: PutError| format!("blob {hash}: {error}");
        let mut upload = match self.begun.take() {
            Some((begun, upload)) if begun == hash => upload,
            Some((begun, _)) => {
                return Err(format!("blob {begun} is not whole, and blob {hash} begins"));
            }
            None => self.blobs.begin().map_err(|error| told(error.into()))?,
        };
        upload.write(piece).map_err(told)?;
        if last {
            self.count += 1;
            return upload.finish(hash).map_err(told);
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
        let said = say(blobs, hash, &mut |line| {
            lines.push(serde_json::to_string(line).unwrap());
            Ok::<(), ()>(())
        });
        assert!(said.is_ok());
        lines
    }

    fn put_together(lines: &[String], pieces: &mut Pieces) -> Result<(), String> {
        lines
            .iter()
            .try_for_each(|line| match serde_json::from_str(line).unwrap() {
                Line::Blob { hash, last, base64 } => pieces.take(hash, last, &base64.0),
                other => panic!("{other:?}"),
            })
    }

    #[test]
    fn blobs_of_every_size_come_back_byte_for_byte() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (blobs, copy) = (
            Blobs::open(from.path()).unwrap(),
            Blobs::open(to.path()).unwrap(),
        );
        let mut pieces = Pieces::new(copy.clone());
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
            put_together(&lines, &mut pieces).unwrap();
            assert!(copy.get(&hash).unwrap() == bytes, "{size} bytes");
        }
        assert_eq!(pieces.count, 6);
    }

    #[test]
    fn a_blob_that_is_not_what_its_name_says_is_neither_said_nor_kept() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (blobs, copy) = (
            Blobs::open(from.path()).unwrap(),
            Blobs::open(to.path()).unwrap(),
        );
        let hash = blobs.put(&vec![1; PIECE_BYTES + 9]).unwrap();
        let mut lines = lines(&blobs, hash);
        std::fs::write(blobs.path(&hash), "other").unwrap();
        let said = say(&blobs, hash, &mut |_| Ok::<(), ()>(()));
        assert!(matches!(said, Err(SayError::Lost(why)) if why.contains("have the hash")));
        lines.remove(0);
        let refused = put_together(&lines, &mut Pieces::new(copy.clone())).unwrap_err();
        assert!(
            refused.contains(&hash.to_string()) && !copy.exists(&hash),
            "{refused}"
        );
    }
}
