//! Reads a feed's input on a thread of its own, as fast as it comes and no faster than it is taken.

use super::line::{Keys, Line, new_id};
use super::local;
use super::splitter::{Piece, Splitter};
use crate::inputs::Inputs;
use crate::trouble::Trouble;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use taskmaster_protocol::Refusal;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Bytes read at a time. Lines of one read go on together and at once, so a slow producer's line is
/// never waited with.
const READ_BYTES: usize = 256 << 10;

/// Reads that may wait to be taken: bounds memory when the master is slower than the disk.
const CHUNKS: usize = 4;

/// What came with one read; the last one has an error where reading failed.
pub type Chunk = Result<Vec<Result<Line, Refusal>>, Trouble>;

/// Opens the input: a file, or stdin for `-` and nothing.
pub fn open(file: Option<&Path>) -> Result<Box<dyn Read + Send>, Trouble> {
    match file {
        Some(path) if path != Path::new("-") => match std::fs::File::open(path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(Trouble::Local(format!(
                "cannot read {}: {error}",
                path.display()
            ))),
        },
        _ => {
            if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
                crate::output::chat(
                    "reading tasks from the terminal, one JSON object per line; Ctrl-D ends",
                );
            }
            Ok(Box::new(std::io::stdin()))
        }
    }
}

/// Starts the thread. The channel ends with the input.
///
/// `files` puts the files that lines name, relative to the folder beside it, before the lines are
/// given.
pub fn start(
    input: impl Read + Send + 'static,
    keys: Keys,
    document_max: usize,
    files: (Inputs, PathBuf),
) -> mpsc::Receiver<Chunk> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let reader = Reader {
        keys,
        files: files.0,
        base: files.1,
        runtime: Handle::current(),
        sender,
    };
    // Not joined: a read of a terminal or pipe cannot be interrupted, and the process may end
    // meanwhile.
    std::thread::spawn(move || reader.read_all(input, document_max));
    receiver
}

struct Reader {
    keys: Keys,
    files: Inputs,
    base: PathBuf,
    runtime: Handle,
    sender: mpsc::Sender<Chunk>,
}

impl Reader {
    fn read_all(mut self, mut input: impl Read, document_max: usize) {
        let mut splitter = Splitter::new(document_max);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let mut pieces = Vec::new();
            let ended = match input.read(&mut buffer) {
                Ok(0) => {
                    splitter.finish(&mut pieces);
                    true
                }
                Ok(n) => {
                    splitter.push(&buffer[..n], &mut pieces);
                    false
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let _ = self.sender.blocking_send(Err(Trouble::Local(format!(
                        "cannot read the input: {error}"
                    ))));
                    return;
                }
            };
            let mut lines: Vec<_> = pieces
                .into_iter()
                .map(|piece| read_piece(piece, &self.keys))
                .collect();
            if let Err(trouble) =
                self.runtime
                    .block_on(local::settle(&mut lines, &self.base, &mut self.files))
            {
                let _ = self.sender.blocking_send(Err(trouble));
                return;
            }
            // The receiver is gone when the feed has ended early.
            if (!lines.is_empty() && self.sender.blocking_send(Ok(lines)).is_err()) || ended {
                return;
            }
        }
    }
}

fn read_piece(piece: Piece, keys: &Keys) -> Result<Line, Refusal> {
    match piece.text {
        Ok(text) => Line::read(piece.line, text, keys, new_id),
        Err(refusal) => Err(Refusal {
            line: Some(piece.line),
            ..refusal
        }),
    }
}
