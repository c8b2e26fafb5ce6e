//! Lines with large params: the params are put as a blob, and the line that goes on names it.

use super::line::Line;
use super::source::Chunk;
use crate::client::{Backoff, Target};
use crate::output::chat;
use bytes::Bytes;
use taskmaster_protocol::{Hash, Refusal, RefusalCode, limits, splice};
use taskmaster_transport::BlobError;
use tokio::sync::mpsc;

/// Puts the large params of what was read; everything else goes on as it is. Lines stay in their
/// order, and those before a large one do not wait for it.
pub fn start(mut read: mpsc::Receiver<Chunk>, target: Target) -> mpsc::Receiver<Chunk> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(chunk) = read.recv().await {
            let lines = match chunk {
                Ok(lines) => lines,
                Err(trouble) => return drop(sender.send(Err(trouble)).await),
            };
            let mut ready = Vec::with_capacity(lines.len());
            for line in lines {
                match line {
                    Ok(line) if line.text.len() > limits::PARAMS_KEPT_BYTES_MAX => {
                        // The receiver is gone when the feed has ended early.
                        if !ready.is_empty()
                            && sender.send(Ok(std::mem::take(&mut ready))).await.is_err()
                        {
                            return;
                        }
                        ready.push(put(line, &target).await);
                    }
                    line => ready.push(line),
                }
            }
            if sender.send(Ok(ready)).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// The line with its params put, if they are large. Tries as long as nobody refuses, as a feed
/// does.
async fn put(line: Line, target: &Target) -> Result<Line, Refusal> {
    // What cannot be read is the master's to refuse.
    let Some(place) = line
        .params()
        .filter(|place| place.len() > limits::PARAMS_KEPT_BYTES_MAX)
    else {
        return Ok(line);
    };
    if place.len() > limits::PARAMS_BYTES_MAX {
        let (is, max) = (place.len(), limits::PARAMS_BYTES_MAX);
        let text = format!("field `params` has {is} bytes, at most {max} are allowed");
        return Err(at(
            Refusal::new(RefusalCode::TooLarge, text).at("params"),
            line.number,
        ));
    }
    let params = Bytes::copy_from_slice(line.text[place.clone()].as_bytes());
    let hash = Hash::of(&params);
    let text = [
        &line.text[..place.start],
        splice::of_blob(&hash).get(),
        &line.text[place.end..],
    ]
    .concat();
    let line = Line { text, ..line };
    let (mut backoff, mut said) = (Backoff::new(), false);
    loop {
        let why = match target.blobs().upload(&hash, params.clone()).await {
            Ok(()) => return Ok(line),
            Err(error) if error.may_pass() => error,
            Err(error) => {
                let text = format!("the params cannot be put: {error}");
                return Err(at(
                    Refusal::new(RefusalCode::Internal, text).at("params"),
                    line.number,
                ));
            }
        };
        if matches!(why, BlobError::Refused { .. }) && !std::mem::replace(&mut said, true) {
            chat(&format!(
                "the params of line {} are not taken for now ({why}); trying again …",
                line.number
            ));
        }
        backoff.wait(None).await;
    }
}

fn at(refusal: Refusal, line: u64) -> Refusal {
    Refusal {
        line: Some(line),
        ..refusal
    }
}
