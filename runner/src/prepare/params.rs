//! The params of an attempt as its module reads them: fetched where they are a blob, with every
//! reference replaced by the result that it names.

use crate::fetch::{FetchBytes, FetchError};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::str::Utf8Error;
use std::sync::Arc;
use taskmaster_protocol::message::ResultRef;
use taskmaster_protocol::{Hash, JobName, Json, Refusal, RefusalCode, TaskId, limits, splice};
use tokio::sync::Semaphore;

/// Params and results fetched at a time, over all attempts. Each may be large.
const FETCHES_MAX: usize = 16;

/// Bytes of params with all results in their places. They are held in memory.
const PARAMS_BYTES_MAX: usize = 256 << 20;

/// Results by task.
pub type TaskResults = BTreeMap<TaskId, ResultRef>;

/// What came with an attempt for the references in its params.
#[derive(Clone, Copy)]
pub(super) struct GivenResults<'a> {
    /// Results that the master had in memory.
    pub results: &'a TaskResults,
    /// The tasks of the jobs whose results the params ask for.
    pub of_jobs: &'a BTreeMap<JobName, Vec<TaskId>>,
}

/// Why the master gave no results, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AskError(pub String);

/// Asks the master for results that did not come with the attempt.
pub type AskResults = Arc<
    dyn Fn(Vec<TaskId>) -> Pin<Box<dyn Future<Output = Result<TaskResults, AskError>> + Send>>
        + Send
        + Sync,
>;

/// Why params cannot be given to a module.
#[derive(Debug, thiserror::Error)]
pub enum ParamsError {
    /// The params are a blob that could not be fetched.
    #[error("the params could not be fetched: {0}")]
    Fetch(FetchError),
    /// The params are a blob that is not UTF-8.
    #[error("the params are no text: {0}")]
    NotText(Utf8Error),
    /// A reference in the params is wrong.
    #[error("{0}")]
    Reference(String),
    /// The master did not answer.
    #[error(transparent)]
    Question(#[from] AskError),
    /// The attempt came without the tasks of a job.
    #[error("the tasks of job `{0}` are not there")]
    NoJob(JobName),
    /// The master's answer lacks a result.
    #[error("the result of task `{0}` is not there")]
    NoResult(TaskId),
    /// A result is a blob that could not be fetched.
    #[error("the result of task `{0}` could not be fetched: {1}")]
    FetchResult(TaskId, FetchError),
    /// A result is a blob that is not UTF-8.
    #[error(
        "the result of task `{id}` is {bytes} bytes that are no text: they cannot stand in params"
    )]
    ResultNotText {
        /// The task whose result it is.
        id: TaskId,
        /// The length of the result.
        bytes: usize,
    },
    /// The params are too long.
    #[error(
        "params with all results are longer than {max} MiB",
        max = PARAMS_BYTES_MAX >> 20
    )]
    TooLong,
}

fn bad_reference(refusal: Refusal) -> ParamsError {
    ParamsError::Reference(refusal.message)
}

/// Reads params.
#[derive(Clone)]
pub(super) struct ParamsReader {
    fetch: FetchBytes,
    ask: AskResults,
    fetching: Arc<Semaphore>,
}

impl ParamsReader {
    pub(super) fn new(fetch: FetchBytes, ask: AskResults) -> ParamsReader {
        ParamsReader {
            fetch,
            ask,
            fetching: Arc::new(Semaphore::new(FETCHES_MAX)),
        }
    }

    /// What the module reads: `params`, or the blob that they name, with every reference replaced.
    pub(super) async fn read(
        &self,
        params: &Json,
        given: GivenResults<'_>,
    ) -> Result<Bytes, ParamsError> {
        let Some(hash) = splice::blob(params.get()).map_err(bad_reference)? else {
            return self.spliced(params.get(), given).await.map(Bytes::from);
        };
        let bytes = self.get(hash).await.map_err(ParamsError::Fetch)?;
        let text = std::str::from_utf8(&bytes).map_err(ParamsError::NotText)?;
        if splice::may_refer(text) {
            self.spliced(text, given).await.map(Bytes::from)
        } else {
            Ok(bytes)
        }
    }

    async fn get(&self, hash: Hash) -> Result<Bytes, FetchError> {
        // Waiting cannot fail, because the semaphore is never closed.
        let _turn = self.fetching.acquire().await.ok();
        (self.fetch)(hash).await
    }

    /// `params` with every reference replaced.
    async fn spliced(&self, params: &str, given: GivenResults<'_>) -> Result<String, ParamsError> {
        let references = splice::references(params).map_err(bad_reference)?;
        let mut ids: BTreeSet<&TaskId> = references.tasks.iter().collect();
        for job in &references.jobs {
            let tasks = given.of_jobs.get(job);
            ids.extend(tasks.ok_or_else(|| ParamsError::NoJob(job.clone()))?);
        }
        let missing: Vec<TaskId> = ids
            .iter()
            .filter(|id| !given.results.contains_key(**id))
            .map(|id| (*id).clone())
            .collect();
        let mut asked = TaskResults::new();
        // One answer with all of them may be longer than a message.
        for ids in missing.chunks(limits::RESULTS_MAX) {
            asked.append(&mut (self.ask)(ids.to_vec()).await?);
        }

        let mut texts = BTreeMap::new();
        let mut bytes = params.len();
        for id in ids {
            let Some(result) = given.results.get(id).or_else(|| asked.get(id)) else {
                return Err(ParamsError::NoResult(id.clone()));
            };
            let text = self.result_text(id, result).await?;
            bytes += text.len();
            if bytes > PARAMS_BYTES_MAX {
                return Err(ParamsError::TooLong);
            }
            texts.insert(id.clone(), text);
        }

        let gone = |what: String| Refusal::new(RefusalCode::Internal, format!("{what} is gone"));
        let text_of = |id: &TaskId| {
            let text = texts.get(id).map(String::as_str);
            text.ok_or_else(|| gone(format!("the result of `{id}`")))
        };
        let tasks_of = |job: &JobName| {
            let tasks = given.of_jobs.get(job).map(Vec::as_slice);
            tasks.ok_or_else(|| gone(format!("job `{job}`")))
        };
        splice::splice(params, PARAMS_BYTES_MAX, text_of, tasks_of).map_err(bad_reference)
    }

    /// A result as JSON. Text that is not JSON becomes a JSON string without its last newline.
    async fn result_text(&self, id: &TaskId, result: &ResultRef) -> Result<String, ParamsError> {
        let hash = match result {
            ResultRef::Json(json) => return Ok(json.get().to_owned()),
            ResultRef::Blob(hash) => *hash,
        };
        let bytes = self
            .get(hash)
            .await
            .map_err(|why| ParamsError::FetchResult(id.clone(), why))?;
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(ParamsError::ResultNotText {
                id: id.clone(),
                bytes: bytes.len(),
            });
        };
        let json = Json::parse(text.trim_matches([' ', '\t', '\r', '\n']))
            .unwrap_or_else(|_| Json::string(text.strip_suffix('\n').unwrap_or(text)));
        Ok(json.get().to_owned())
    }
}
