//! Reads the input of a feed on a thread of its own: as fast as it comes, and no faster than it is
//! taken.

use super::line::{FeedLine, IdHasher, new_id};
use super::local;
use super::splitter::{FeedDocument, Splitter};
use crate::error::CommandError;
use crate::output::notice;
use crate::uploads::InputUploader;
use std::io::{ErrorKind, IsTerminal, Read};
use std::path::{Path, PathBuf};
use taskmaster_console::long_lived;
use taskmaster_protocol::Refusal;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Bytes that are read at a time. The lines of one read go on together and at once, so the line of
/// a slow producer waits for no other.
const READ_BYTES: usize = 256 << 10;

/// Reads that may wait to be taken. They bound the memory where the master is slower than the disk.
const READS_WAITING_MAX: usize = 4;

/// The lines of one read, or why reading failed. Nothing comes after a failure.
pub(super) type InputChunk = Result<Vec<Result<FeedLine, Refusal>>, CommandError>;

/// How lines are made of the input.
pub(super) struct InputSettings {
    /// Bytes of the longest document.
    pub(super) document_bytes_max: usize,
    pub(super) hasher: IdHasher,
    /// Puts the files that lines name, before the lines go on.
    pub(super) uploader: InputUploader,
    /// The folder that paths in lines are relative to.
    pub(super) base: PathBuf,
}

/// Opens a file, or stdin for `-` and nothing.
pub(super) fn open(file: Option<&Path>) -> Result<Box<dyn Read + Send>, CommandError> {
    if let Some(path) = file.filter(|path| *path != Path::new("-")) {
        return match std::fs::File::open(path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => {
                let text = format!("cannot read {}: {error}", path.display());
                Err(CommandError::Local(text))
            }
        };
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        notice("reading tasks from the terminal, one JSON object per line; Ctrl-D ends");
    }
    Ok(Box::new(stdin))
}

/// Starts the thread. The channel ends with the input.
pub(super) fn start(
    input: impl Read + Send + 'static,
    settings: InputSettings,
) -> Result<mpsc::Receiver<InputChunk>, CommandError> {
    let (sender, receiver) = mpsc::channel(READS_WAITING_MAX);
    let reader = InputReader {
        settings,
        runtime: Handle::current(),
        sender,
    };
    // The thread is not joined: a read of a terminal or pipe cannot be interrupted, and the process
    // may end meanwhile.
    long_lived::spawn("input", move || reader.read_all(input))
        .map_err(|error| CommandError::Local(format!("no thread to read the input: {error}")))?;
    Ok(receiver)
}

struct InputReader {
    settings: InputSettings,
    runtime: Handle,
    sender: mpsc::Sender<InputChunk>,
}

impl InputReader {
    fn read_all(mut self, mut input: impl Read) {
        let mut splitter = Splitter::new(self.settings.document_bytes_max);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let mut documents = Vec::new();
            let count = match input.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let text = format!("cannot read the input: {error}");
                    let _ = self.sender.blocking_send(Err(CommandError::Local(text)));
                    return;
                }
            };
            let has_ended = count == 0;
            if has_ended {
                splitter.finish(&mut documents);
            } else {
                splitter.push(&buffer[..count], &mut documents);
            }
            match self.lines(documents) {
                Ok(lines) => {
                    // The receiver is gone when the feed has ended early.
                    if !lines.is_empty() && self.sender.blocking_send(Ok(lines)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let _ = self.sender.blocking_send(Err(error));
                    return;
                }
            }
            if has_ended {
                return;
            }
        }
    }

    fn lines(
        &mut self,
        documents: Vec<FeedDocument>,
    ) -> Result<Vec<Result<FeedLine, Refusal>>, CommandError> {
        let settings = &mut self.settings;
        let mut lines: Vec<_> = documents
            .into_iter()
            .map(|document| read_line(document, &settings.hasher))
            .collect();
        let put = local::put_inputs(&mut lines, &settings.base, &mut settings.uploader);
        self.runtime.block_on(put)?;
        Ok(lines)
    }
}

fn read_line(document: FeedDocument, hasher: &IdHasher) -> Result<FeedLine, Refusal> {
    match document.text {
        Ok(text) => FeedLine::read(document.line, text, hasher, new_id),
        Err(refusal) => Err(Refusal {
            line: Some(document.line),
            ..refusal
        }),
    }
}
