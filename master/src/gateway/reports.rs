//! What runners say, cut to size before the engine hears of it: a runner is a program on somebody
//! else's machine.
//!
//! A report that cannot be taken as it is becomes a failure of its own attempt, so that it harms no
//! other.

use super::add::heavy;
use std::collections::BTreeMap;
use taskmaster_blobs::{Blobs, is_away};
use taskmaster_protocol::message::{Compiled, Done, Failed, LiveOutput, Log, ResultRef};
use taskmaster_protocol::{
    ErrorKind, FilePath, Hash, Refusal, RefusalCode, TaskError, ToMaster, limits,
};

/// Entries of one message of reports: more than a runner may hold, so that no turn is long.
const REPORTS_MAX: usize = limits::CREDITS_MAX as usize;

/// Attempts that a runner may tell of at once: those it holds, and results that a slow disk has not
/// acknowledged.
const HELD_MAX: usize = 65_536;

/// Bytes of a failure's sentence.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// Bytes of a backtrace.
const BACKTRACE_BYTES_MAX: usize = 64 << 10;

/// Bytes of one live event.
const LIVE_BYTES_MAX: usize = 1 << 20;

/// Blobs that are looked for without a thread of their own.
const LOOKED_FOR: usize = 16;

/// The messages to pass on in place of `message`, or why it is not taken at all.
pub(super) async fn sound(message: ToMaster, blobs: &Blobs) -> Result<Vec<ToMaster>, Refusal> {
    let (what, is, max) = match &message {
        ToMaster::Done(list) => ("task:done", list.len(), REPORTS_MAX),
        ToMaster::Failed(list) => ("task:error", list.len(), REPORTS_MAX),
        ToMaster::Started(list) => ("task:started", list.len(), REPORTS_MAX),
        ToMaster::Progress(list) => ("task:progress", list.len(), REPORTS_MAX),
        ToMaster::Partial(list) => ("task:partial", list.len(), REPORTS_MAX),
        ToMaster::Log(list) => ("task:log", list.len(), REPORTS_MAX),
        ToMaster::Compiled(list) => ("module:compiled", list.len(), REPORTS_MAX),
        ToMaster::Compiling(list) => ("module:compiling", list.len(), REPORTS_MAX),
        ToMaster::Returned(list) => ("task:returned", list.len(), HELD_MAX),
        ToMaster::Request(request) => (
            "task:request",
            request.held.as_ref().map_or(0, Vec::len),
            HELD_MAX,
        ),
        _ => return Ok(vec![message]),
    };
    if is > max {
        let text = format!(
            "`{what}` has {is} entries, at most {max} are allowed in one; nothing of it was taken"
        );
        return Err(Refusal::new(RefusalCode::TooLarge, text).at("data"));
    }
    Ok(match message {
        ToMaster::Done(done) => judged(done, blobs).await?,
        ToMaster::Failed(mut failed) => {
            failed.iter_mut().for_each(cut_failed);
            vec![ToMaster::Failed(failed)]
        }
        ToMaster::Progress(said) => vec![ToMaster::Progress(short(said))],
        ToMaster::Partial(said) => vec![ToMaster::Partial(short(said))],
        ToMaster::Log(said) => vec![ToMaster::Log(short(said))],
        ToMaster::Compiled(mut compiled) => {
            compiled.iter_mut().for_each(|Compiled { error, .. }| {
                error.iter_mut().for_each(|e| cut(e, MESSAGE_BYTES_MAX))
            });
            vec![ToMaster::Compiled(compiled)]
        }
        other => vec![other],
    })
}

/// Results whose bytes are here, and failures of those whose are not.
async fn judged(done: Vec<Done>, blobs: &Blobs) -> Result<Vec<ToMaster>, Refusal> {
    let looked_for: usize = done
        .iter()
        .map(|done| done.outputs.len() + usize::from(matches!(done.result, ResultRef::Blob(_))))
        .sum();
    let far = blobs.lives_in().is_some();
    let blobs = blobs.clone();
    let work = move || {
        let (mut kept, mut failed) = (Vec::with_capacity(done.len()), Vec::new());
        for mut one in done {
            cut_log(&mut one.log);
            match wrong(&one, &blobs) {
                None => kept.push(one),
                Some(text) => failed.push(Failed {
                    id: one.id,
                    attempt: one.attempt,
                    error: TaskError::new(ErrorKind::Output, text),
                    started_us: Some(one.started_us),
                    stats: one.stats,
                    log: one.log,
                }),
            }
        }
        (kept, failed)
    };
    // Whatever is not in the folder may take an object store's time.
    let most = if far { 0 } else { LOOKED_FOR };
    let (kept, failed) = heavy(if looked_for > most { usize::MAX } else { 0 }, work).await?;
    let mut messages = Vec::new();
    if !kept.is_empty() {
        messages.push(ToMaster::Done(kept));
    }
    if !failed.is_empty() {
        messages.push(ToMaster::Failed(failed));
    }
    Ok(messages)
}

fn wrong(done: &Done, blobs: &Blobs) -> Option<String> {
    if let Some(excess) = super::children::excess(done) {
        return Some(excess);
    }
    match &done.result {
        ResultRef::Json(json) if json.get().len() > limits::RESULT_INLINE_BYTES_MAX => {
            let (is, max) = (json.get().len(), limits::RESULT_INLINE_BYTES_MAX);
            Some(format!(
                "its runner sent a result of {is} bytes in a message; more than {max} must be put as a blob"
            ))
        }
        ResultRef::Blob(hash) if !is_here(blobs, hash) => Some(format!(
            "its runner named the blob {hash} as the result, and had not put it"
        )),
        _ => wrong_outputs(&done.outputs, blobs),
    }
}

fn wrong_outputs(outputs: &BTreeMap<FilePath, Hash>, blobs: &Blobs) -> Option<String> {
    let (is, max) = (outputs.len(), limits::OUTPUT_FILES_MAX);
    if is > max {
        return Some(format!(
            "its runner gave back {is} files, at most {max} are allowed"
        ));
    }
    let (is, max) = (
        outputs
            .keys()
            .map(|path| path.as_str().len())
            .sum::<usize>(),
        limits::OUTPUT_PATHS_BYTES_MAX,
    );
    if is > max {
        return Some(format!(
            "the paths of the files that its runner gave back have {is} bytes, at most {max} are allowed"
        ));
    }
    let (path, hash) = outputs.iter().find(|(_, hash)| !is_here(blobs, hash))?;
    Some(format!(
        "its runner named the blob {hash} as the file `{path}`, and had not put it"
    ))
}

/// It is not removed before the engine knows that it is needed. What cannot be read is not here;
/// but where an object store does not answer, a runner is believed that says it has put something:
/// it was told so when that was there.
fn is_here(blobs: &Blobs, hash: &Hash) -> bool {
    blobs.renew(hash).unwrap_or_else(|error| is_away(&error))
}

fn cut_failed(failed: &mut Failed) {
    cut_log(&mut failed.log);
    cut(&mut failed.error.message, MESSAGE_BYTES_MAX);
    if let Some(backtrace) = &mut failed.error.backtrace {
        cut(backtrace, BACKTRACE_BYTES_MAX);
    }
}

fn cut_log(log: &mut Log) {
    // Bytes that are no UTF-8 have become three each.
    cut(&mut log.head, 3 * limits::LOG_PART_BYTES_MAX);
    cut(&mut log.tail, 3 * limits::LOG_PART_BYTES_MAX);
}

fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        // What was cut off would stay in memory with the rest.
        text.shrink_to_fit();
    }
}

/// Those that are no larger than a live event may be: watchers miss the others.
fn short(mut said: Vec<LiveOutput>) -> Vec<LiveOutput> {
    said.retain(|said| said.data.get().len() <= LIVE_BYTES_MAX);
    said
}
