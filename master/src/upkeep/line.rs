//! The lines of an export.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;
use taskmaster_protocol::{AttemptId, Hash, JobName, ModuleName, Wall};
use taskmaster_store::body::TaskBody;
use taskmaster_store::record::{Ended, JobRecord, ModuleRecord, Rights};

/// The version of these lines.
pub const FORMAT: u32 = 1;

/// One line: an object whose only key says what it is. A tag beside the other fields could not be
/// read, because params and results are kept as text, and such text is lost where a line is read
/// twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ExportLine {
    /// The first line.
    Store {
        /// [`FORMAT`] of the program that has written the lines.
        format: u32,
        /// How many times a master had started.
        epoch: u32,
        /// The seq of the last event.
        seq: u64,
    },
    /// A part of large params, of a large result or of a module's bytes.
    Blob {
        /// The hash of the whole blob.
        hash: Hash,
        /// Whether the blob ends here.
        last: bool,
        /// The next bytes.
        base64: BlobPiece,
    },
    /// A blob that is named below and could not be read. What names it is incomplete.
    Lost {
        /// The blob.
        hash: Hash,
        /// Why it could not be read.
        why: String,
    },
    /// A module, as the master knows it.
    Module {
        /// Its name.
        name: ModuleName,
        /// What is known of it.
        record: ModuleRecord,
        /// What it may reach, where anything is known of that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rights: Option<Box<Rights>>,
    },
    /// A job.
    Job {
        /// Its name.
        name: JobName,
        /// What is known of it.
        record: JobRecord,
    },
    /// A task that has not ended.
    Open {
        /// What its feeder said.
        body: Arc<TaskBody>,
        /// Its priority now.
        priority: i32,
        /// Failures counted.
        tries: u32,
        /// Lost runners counted.
        lost: u32,
        /// Attempts up to this one are void.
        fence: AttemptId,
        /// When it may start.
        due: Option<Wall>,
    },
    /// A task that has ended.
    Ended {
        /// What its feeder said.
        body: Arc<TaskBody>,
        /// What became of it.
        ended: Arc<Ended>,
    },
    /// The last line.
    End {
        /// Lines with tasks.
        tasks: u64,
    },
}

/// Bytes that are base64 in JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct BlobPiece(pub Vec<u8>);

impl Serialize for BlobPiece {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for BlobPiece {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BlobPiece, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD
            .decode(text)
            .map(BlobPiece)
            .map_err(serde::de::Error::custom)
    }
}
