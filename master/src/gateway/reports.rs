//! What runners say is cut to size before the engine hears of it, because a runner is a program on
//! somebody else's machine. And no message of anybody names more tasks than the engine takes at once.
//!
//! A report that cannot be taken as it is becomes a failure of its own attempt, so that it harms no
//! other attempt.

use super::{follow_ups, heavy};
use std::collections::BTreeMap;
use taskmaster_blobs::{Blobs, is_unavailable};
use taskmaster_protocol::message::{
    Compiled, Done, Failed, LiveOutput, Log, Operation, PartialOutput, Query, ResultRef,
};
use taskmaster_protocol::{
    ErrorKind, FilePath, Hash, Refusal, RefusalCode, TaskError, ToMaster, limits,
};

/// Entries of one message of reports: more than a runner may hold, and few enough that no turn is
/// long.
const REPORTS_MAX: usize = limits::CREDITS_MAX as usize;

/// Attempts that a runner may name in one message: those that it holds, and results that a slow
/// disk has not acknowledged.
const ATTEMPTS_MAX: usize = 65_536;

/// Bytes of a failure's sentence.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// Bytes of a backtrace.
const BACKTRACE_BYTES_MAX: usize = 64 << 10;

/// Bytes of one live event: as many as our runners let an attempt tell at a time.
const LIVE_BYTES_MAX: usize = 256 << 10;

/// More blobs than this are looked for on another thread.
const LOOKUPS_INLINE_MAX: usize = 16;

/// Refuses a message with too many entries.
pub(super) fn check_count(message: &ToMaster) -> Result<(), Refusal> {
    let (count, most) = match message {
        ToMaster::Done(list) => (list.len(), REPORTS_MAX),
        ToMaster::Failed(list) => (list.len(), REPORTS_MAX),
        ToMaster::Started(list) => (list.len(), REPORTS_MAX),
        ToMaster::Progress(list) | ToMaster::Log(list) => (list.len(), REPORTS_MAX),
        ToMaster::Partial(list) => (list.len(), REPORTS_MAX),
        ToMaster::Compiled(list) => (list.len(), REPORTS_MAX),
        ToMaster::Compiling(list) => (list.len(), REPORTS_MAX),
        ToMaster::Returned(list) => (list.len(), ATTEMPTS_MAX),
        ToMaster::Request(request) => {
            let held = request.held.as_ref().map_or(0, Vec::len);
            (held, ATTEMPTS_MAX)
        }
        ToMaster::Follow(follow) => (follow.ids.len(), limits::IDS_MAX),
        ToMaster::Cancel(cancel) => (cancel.ids.len(), limits::IDS_MAX),
        ToMaster::Retry(retry) => (retry.ids.len(), limits::IDS_MAX),
        ToMaster::Ask(ask) => match &ask.query {
            Query::Results { ids } => (ids.len(), limits::RESULTS_MAX),
            _ => return Ok(()),
        },
        ToMaster::Operate(operate) => match &operate.operation {
            Operation::DropAnswers { keys } => (keys.len(), limits::KEYS_DROPPED_MAX),
            _ => return Ok(()),
        },
        // A batch has a limit of its own, and the others are about one thing.
        ToMaster::Hello(_)
        | ToMaster::Add(_)
        | ToMaster::Release(_)
        | ToMaster::Set(_)
        | ToMaster::Watch(_) => return Ok(()),
    };
    if count <= most {
        return Ok(());
    }
    let text = format!(
        "`{}` has {count} entries, at most {most} are allowed in one; nothing of it was taken",
        message.event()
    );
    Err(Refusal::new(RefusalCode::TooLarge, text).at("data"))
}

/// Cuts texts of a message to size. Live events and partial results that are too large are left out,
/// and watchers and followers miss them.
pub(super) fn trim(message: &mut ToMaster) {
    match message {
        ToMaster::Done(done) => {
            for one in done {
                trim_log(&mut one.log);
            }
        }
        ToMaster::Failed(failed) => failed.iter_mut().for_each(trim_failed),
        ToMaster::Progress(said) | ToMaster::Log(said) => {
            said.retain(|said: &LiveOutput| said.data.get().len() <= LIVE_BYTES_MAX);
        }
        ToMaster::Partial(partials) => {
            let is_allowed = |it: &PartialOutput| it.data.get().len() <= limits::PARTIAL_BYTES_MAX;
            partials.retain(is_allowed);
        }
        ToMaster::Compiled(compiled) => {
            for Compiled { error, .. } in compiled {
                if let Some(error) = error {
                    cut(error, MESSAGE_BYTES_MAX);
                }
            }
        }
        ToMaster::Request(request) => {
            if let Some(fault) = &mut request.fault {
                cut(fault, MESSAGE_BYTES_MAX);
            }
        }
        ToMaster::Hello(_)
        | ToMaster::Started(_)
        | ToMaster::Returned(_)
        | ToMaster::Compiling(_)
        | ToMaster::Add(_)
        | ToMaster::Release(_)
        | ToMaster::Follow(_)
        | ToMaster::Cancel(_)
        | ToMaster::Retry(_)
        | ToMaster::Set(_)
        | ToMaster::Operate(_)
        | ToMaster::Watch(_)
        | ToMaster::Ask(_) => {}
    }
}

/// Results that can be taken, and failures in place of the others.
#[derive(Default)]
pub(super) struct JudgedReports {
    pub(super) done: Vec<Done>,
    pub(super) failed: Vec<Failed>,
}

/// Finds out which results can be taken as they are: their sizes are allowed and their blobs are
/// here.
pub(super) async fn judge(done: Vec<Done>, blobs: &Blobs) -> Result<JudgedReports, Refusal> {
    let lookups: usize = done.iter().map(blobs_named_in).sum();
    // What is not in the folder may take the bucket's time.
    let inline_max = match blobs.bucket_name() {
        Some(_) => 0,
        None => LOOKUPS_INLINE_MAX,
    };
    if lookups <= inline_max {
        return Ok(judge_all(done, blobs));
    }
    let blobs = blobs.clone();
    heavy::run_blocking(move || judge_all(done, &blobs)).await
}

fn blobs_named_in(done: &Done) -> usize {
    done.outputs.len() + usize::from(matches!(done.result, ResultRef::Blob(_)))
}

fn judge_all(done: Vec<Done>, blobs: &Blobs) -> JudgedReports {
    let mut judged = JudgedReports::default();
    for one in done {
        match fault(&one, blobs) {
            None => judged.done.push(one),
            Some(text) => judged.failed.push(Failed {
                id: one.id,
                attempt: one.attempt,
                error: TaskError::new(ErrorKind::Output, text),
                started_us: Some(one.started_us),
                stats: one.stats,
                log: one.log,
            }),
        }
    }
    judged
}

/// Why a result cannot be taken, if so.
fn fault(done: &Done, blobs: &Blobs) -> Option<String> {
    follow_ups::fault(done)
        .or_else(|| fault_of_result(&done.result, blobs))
        .or_else(|| fault_of_outputs(&done.outputs, blobs))
}

fn fault_of_result(result: &ResultRef, blobs: &Blobs) -> Option<String> {
    match result {
        ResultRef::Json(json) => {
            let bytes = json.get().len();
            let most = limits::RESULT_INLINE_BYTES_MAX;
            (bytes > most).then(|| {
                format!(
                    "its runner sent a result of {bytes} bytes in a message; more than {most} must \
                     be put as a blob"
                )
            })
        }
        ResultRef::Blob(hash) => (!is_here(blobs, hash))
            .then(|| format!("its runner named the blob {hash} as the result, and had not put it")),
    }
}

fn fault_of_outputs(outputs: &BTreeMap<FilePath, Hash>, blobs: &Blobs) -> Option<String> {
    let files = outputs.len();
    let files_max = limits::OUTPUT_FILES_MAX;
    if files > files_max {
        return Some(format!(
            "its runner gave back {files} files, at most {files_max} are allowed"
        ));
    }
    let bytes: usize = outputs.keys().map(|path| path.as_str().len()).sum();
    let bytes_max = limits::OUTPUT_PATHS_BYTES_MAX;
    if bytes > bytes_max {
        return Some(format!(
            "the paths of the files that its runner gave back have {bytes} bytes, at most \
             {bytes_max} are allowed"
        ));
    }
    let (path, hash) = outputs.iter().find(|(_, hash)| !is_here(blobs, hash))?;
    Some(format!(
        "its runner named the blob {hash} as the file `{path}`, and had not put it"
    ))
}

/// Whether a blob is here. It is then not removed before the engine knows that it is needed. A blob
/// that cannot be read is not here. But where a bucket does not answer, a runner is believed that
/// says it has put the blob, because it was told so when the blob was there.
fn is_here(blobs: &Blobs, hash: &Hash) -> bool {
    blobs
        .renew(hash)
        .unwrap_or_else(|error| is_unavailable(&error))
}

fn trim_failed(failed: &mut Failed) {
    trim_log(&mut failed.log);
    cut(&mut failed.error.message, MESSAGE_BYTES_MAX);
    if let Some(backtrace) = &mut failed.error.backtrace {
        cut(backtrace, BACKTRACE_BYTES_MAX);
    }
}

fn trim_log(log: &mut Log) {
    // Bytes that are no UTF-8 have become three bytes each.
    cut(&mut log.head, 3 * limits::LOG_PART_BYTES_MAX);
    cut(&mut log.tail, 3 * limits::LOG_PART_BYTES_MAX);
}

fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        // The memory of what was cut off would stay with the text.
        text.shrink_to_fit();
    }
}
