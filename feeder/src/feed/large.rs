//! Lines with large params: the params are put as a blob, and the line that goes on names the blob.

use super::line::FeedLine;
use super::source::InputChunk;
use crate::client::{Backoff, Target};
use crate::output::notice;
use bytes::Bytes;
use taskmaster_console::long_lived;
use taskmaster_protocol::{Hash, Refusal, RefusalCode, limits, splice};
use taskmaster_transport::BlobError;
use tokio::sync::mpsc;

/// Puts the large params of the lines that come, and passes on everything else. Lines stay in their
/// order, and those before a large one do not wait for it.
pub(super) fn start(
    mut input: mpsc::Receiver<InputChunk>,
    target: Target,
) -> mpsc::Receiver<InputChunk> {
    let (sender, receiver) = mpsc::channel(1);
    long_lived::spawn_task("large params", async move {
        while let Some(chunk) = input.recv().await {
            // The receiver is gone when the feed has ended early.
            if pass_on(chunk, &target, &sender).await.is_err() {
                return;
            }
        }
    });
    receiver
}

async fn pass_on(
    chunk: InputChunk,
    target: &Target,
    sender: &mpsc::Sender<InputChunk>,
) -> Result<(), mpsc::error::SendError<InputChunk>> {
    let lines = match chunk {
        Ok(lines) => lines,
        Err(error) => return sender.send(Err(error)).await,
    };
    let mut ready = Vec::with_capacity(lines.len());
    for line in lines {
        match line {
            Ok(line) if line.text.len() > limits::PARAMS_KEPT_BYTES_MAX => {
                if !ready.is_empty() {
                    sender.send(Ok(std::mem::take(&mut ready))).await?;
                }
                ready.push(put_params(line, target).await);
            }
            line => ready.push(line),
        }
    }
    sender.send(Ok(ready)).await
}

/// Puts the params of a line, if they are large. Tries for as long as the master does not refuse
/// them.
async fn put_params(line: FeedLine, target: &Target) -> Result<FeedLine, Refusal> {
    // What cannot be read is for the master to refuse.
    let Some(place) = line
        .params()
        .filter(|place| place.len() > limits::PARAMS_KEPT_BYTES_MAX)
    else {
        return Ok(line);
    };
    let is = place.len();
    let max = limits::PARAMS_BYTES_MAX;
    if is > max {
        let text = format!("field `params` has {is} bytes, at most {max} are allowed");
        return Err(refusal(&line, RefusalCode::TooLarge, text));
    }
    let params = Bytes::copy_from_slice(line.text[place.clone()].as_bytes());
    let hash = Hash::of(&params);
    put(&line, hash, params, target).await?;

    let before = &line.text[..place.start];
    let after = &line.text[place.end..];
    let text = [before, splice::of_blob(&hash).get(), after].concat();
    Ok(FeedLine { text, ..line })
}

async fn put(line: &FeedLine, hash: Hash, params: Bytes, target: &Target) -> Result<(), Refusal> {
    let mut backoff = Backoff::new();
    let mut told = false;
    loop {
        let why = match target.blobs().upload(&hash, params.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) if error.may_pass() => error,
            Err(error) => {
                let text = format!("the params cannot be put: {error}");
                return Err(refusal(line, RefusalCode::Internal, text));
            }
        };
        if matches!(why, BlobError::Refused { .. }) && !std::mem::replace(&mut told, true) {
            let number = line.number;
            notice(&format!(
                "the params of line {number} are not taken for now ({why}); trying again …"
            ));
        }
        backoff.wait(None).await;
    }
}

fn refusal(line: &FeedLine, code: RefusalCode, text: String) -> Refusal {
    Refusal {
        line: Some(line.number),
        ..Refusal::new(code, text).at("params")
    }
}
