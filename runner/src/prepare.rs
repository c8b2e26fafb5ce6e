//! Gets an attempt ready to run: its module, its params with results in their places, its
//! environment.
//!
//! Nearly every attempt has all that at hand and is prepared at once; the others wait on tasks of
//! their own, so that no slot and no heartbeat ever waits for them.

use crate::grants::{Granted, Grants};
use crate::inputs::{Inputs, place::Placing};
use crate::modules::{Fetch, Modules};
use crate::sandbox::{Control, Files, Listener, LoadError, Program, Work};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use taskmaster_protocol::message::{Assignment, Attempt, ResultRef};
use taskmaster_protocol::{ErrorKind, Hash, Json, Refusal, RefusalCode, TaskError, TaskId, splice};
use tokio::sync::Semaphore;

/// Results and params fetched over HTTP at a time, over all attempts: each may be large.
const FETCHES_MAX: usize = 16;

/// Bytes of stdin once results have taken their places: it is held in memory.
const INPUT_BYTES_MAX: usize = 256 << 20;

/// Results by task, as the master gives them.
pub type Results = BTreeMap<TaskId, ResultRef>;

/// Asks the master for results that did not come with the attempt.
pub type Ask = Arc<
    dyn Fn(
            Vec<TaskId>,
        ) -> Pin<Box<dyn Future<Output = Result<Results, String>> + std::marker::Send>>
        + std::marker::Send
        + Sync,
>;

/// Prepares attempts.
#[derive(Clone)]
pub struct Preparer {
    /// Where modules are.
    pub modules: Arc<Modules>,
    /// Where input files are.
    pub inputs: Arc<Inputs>,
    /// What modules may be given here.
    pub grants: Arc<Grants>,
    /// Gets blobs.
    pub fetch: Fetch,
    /// Gets results.
    pub ask: Ask,
    /// Hears what attempts say.
    pub listener: Listener,
    fetching: Arc<Semaphore>,
}

impl Preparer {
    /// From its sources.
    pub fn new(
        (modules, inputs): (Arc<Modules>, Arc<Inputs>),
        grants: Grants,
        fetch: Fetch,
        ask: Ask,
        listener: Listener,
    ) -> Preparer {
        let (grants, fetching) = (Arc::new(grants), Arc::new(Semaphore::new(FETCHES_MAX)));
        Preparer {
            modules,
            inputs,
            grants,
            fetch,
            ask,
            listener,
            fetching,
        }
    }

    /// The attempt ready to run, if nothing has to be waited for; else itself again.
    pub fn at_once(
        &self,
        send: Box<Assignment>,
        control: &Arc<Control>,
    ) -> Result<Work, Box<Assignment>> {
        if !send.inputs.is_empty()
            || send
                .params
                .as_ref()
                .is_some_and(|params| splice::may_refer(params.get()))
        {
            return Err(send);
        }
        let Some(program) = self.modules.ready(&send.version) else {
            return Err(send);
        };
        let Ok(granted) = self.grants.give(send.capabilities.as_ref()) else {
            return Err(send);
        };
        let input = send
            .params
            .as_ref()
            .map_or_else(Bytes::new, |params| Bytes::from_owner(Text(params.clone())));
        Ok(self.work(*send, (program, granted), input, None, control.clone()))
    }

    /// The attempt ready to run, once everything is there.
    pub async fn later(&self, send: Assignment, control: Arc<Control>) -> Result<Work, TaskError> {
        let module = |error| {
            TaskError::new(
                ErrorKind::Module,
                format!("module `{}` cannot be run: {error}", send.module),
            )
        };
        let granted = self
            .grants
            .give(send.capabilities.as_ref())
            .map_err(LoadError)
            .map_err(module)?;
        let loaded = self.modules.load(send.version).await.map_err(module)?;
        let input = match &send.params {
            None => Bytes::new(),
            Some(params) => self
                .input(params, &send.results)
                .await
                .map_err(|why| TaskError::new(ErrorKind::Input, why))?,
        };
        let files = if send.inputs.is_empty() {
            None
        } else {
            Some(
                self.inputs
                    .get(&send.inputs)
                    .await
                    .map_err(|why| TaskError::new(ErrorKind::Input, why))?,
            )
        };
        Ok(self.work(send, (loaded.program, granted), input, files, control))
    }

    fn work(
        &self,
        send: Assignment,
        program: (Arc<Program>, Granted),
        input: Bytes,
        inputs: Option<Placing>,
        control: Arc<Control>,
    ) -> Work {
        work(
            send,
            program,
            input,
            inputs,
            (control, self.listener.clone()),
        )
    }

    /// What goes to stdin: `params`, or the blob that they stand for, with every reference
    /// replaced.
    async fn input(&self, params: &Json, given: &Results) -> Result<Bytes, String> {
        let Some(hash) = splice::blob(params.get()).map_err(|refusal| refusal.message)? else {
            return self.spliced(params.get(), given).await.map(Bytes::from);
        };
        let bytes = self
            .get(hash)
            .await
            .map_err(|why| format!("the params could not be fetched: {why}"))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| format!("the params are no text: {error}"))?;
        if splice::may_refer(text) {
            self.spliced(text, given).await.map(Bytes::from)
        } else {
            Ok(bytes)
        }
    }

    async fn get(&self, hash: Hash) -> Result<Bytes, String> {
        // The semaphore is never closed.
        let _turn = self.fetching.acquire().await.ok();
        (self.fetch)(hash).await
    }

    /// `params` with every reference replaced.
    async fn spliced(&self, params: &str, given: &Results) -> Result<String, String> {
        let ids = splice::references(params).map_err(|refusal| refusal.message)?;
        let missing: Vec<TaskId> = ids
            .iter()
            .filter(|id| !given.contains_key(*id))
            .cloned()
            .collect();
        let asked = if missing.is_empty() {
            Results::new()
        } else {
            (self.ask)(missing).await?
        };
        let mut texts = BTreeMap::new();
        let mut total = params.len();
        for id in &ids {
            let Some(result) = given.get(id).or_else(|| asked.get(id)) else {
                return Err(format!("the result of task `{id}` is not there"));
            };
            let text = self.text(id, result).await?;
            total += text.len();
            if total > INPUT_BYTES_MAX {
                return Err(format!(
                    "params with all results are longer than {} MiB",
                    INPUT_BYTES_MAX >> 20
                ));
            }
            texts.insert(id.clone(), text);
        }
        let gone = |id: &TaskId| {
            Refusal::new(
                RefusalCode::Internal,
                format!("the result of `{id}` is gone"),
            )
        };
        let text_of = |id: &TaskId| texts.get(id).map(String::as_str).ok_or_else(|| gone(id));
        splice::splice(params, INPUT_BYTES_MAX, text_of).map_err(|refusal| refusal.message)
    }

    async fn text(&self, id: &TaskId, result: &ResultRef) -> Result<String, String> {
        let hash: Hash = match result {
            ResultRef::Json(json) => return Ok(json.get().to_owned()),
            ResultRef::Blob(hash) => *hash,
        };
        let bytes = self
            .get(hash)
            .await
            .map_err(|why| format!("the result of task `{id}` could not be fetched: {why}"))?;
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(format!(
                "the result of task `{id}` is {} bytes that are no text: they cannot stand in params",
                bytes.len()
            ));
        };
        let json = Json::parse(text.trim_matches([' ', '\t', '\r', '\n']));
        Ok(json
            .unwrap_or_else(|_| Json::string(text.strip_suffix('\n').unwrap_or(text)))
            .get()
            .to_owned())
    }
}

/// An attempt for which everything is there.
pub fn work(
    send: Assignment,
    (program, granted): (Arc<Program>, Granted),
    input: Bytes,
    inputs: Option<Placing>,
    (control, listener): (Arc<Control>, Listener),
) -> Work {
    let needs = program.needs();
    let env = if needs.env {
        environment(&send, &granted)
    } else {
        Vec::new()
    };
    let mut args = Vec::new();
    if needs.args {
        args.reserve(1 + send.args.len());
        args.push(send.module.to_string());
        args.extend(send.args);
    }
    Work {
        attempt: Attempt {
            id: send.id,
            attempt: send.attempt,
        },
        program,
        input,
        args,
        env,
        granted,
        timeout: Duration::from_millis(send.timeout_ms),
        memory_mb: send.memory_mb,
        files: Files {
            inputs,
            outputs: send.outputs,
        },
        control,
        listener,
    }
}

fn environment(send: &Assignment, granted: &Granted) -> Vec<(String, String)> {
    let ours = [
        ("TASKMASTER_TASK_ID", send.id.to_string()),
        ("TASKMASTER_ATTEMPT", send.attempt.n.to_string()),
        ("TASKMASTER_MODULE", send.module.to_string()),
        ("TASKMASTER_JOB", send.job.to_string()),
    ];
    // The task's own come first; ours, and what the module is given, cannot be replaced.
    let is_given = |key: &str| granted.variables().any(|(name, _)| name == key);
    let own = send
        .env
        .iter()
        .filter(|(key, _)| ours.iter().all(|(name, _)| name != key) && !is_given(key));
    let mut env: Vec<(String, String)> = own
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    env.extend(ours.map(|(key, value)| (key.to_owned(), value)));
    env
}

/// Lets params be stdin without a copy.
struct Text(Json);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.get().as_bytes()
    }
}
