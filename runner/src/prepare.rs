//! Gets an attempt ready to run: its module, its params with results in their places, its
//! environment and its input files.
//!
//! Nearly every attempt has all of this at hand and is prepared at once. The others wait on tokio
//! tasks of their own, so that no slot and no heartbeat ever waits for them.

mod params;

pub use params::{AskError, AskResults, ParamsError, TaskResults};

use crate::fault::MachineFault;
use crate::fetch::FetchBytes;
use crate::grants::{Granted, Grants, NotOffered};
use crate::inputs::placement::InputPlacement;
use crate::inputs::{InputError, TaskInputs};
use crate::modules::{ModuleCache, ModuleError};
use crate::sandbox::{LiveListener, Program, StopSwitch, Work, WorkFiles};
use bytes::Bytes;
use params::{GivenResults, ParamsReader};
use std::sync::Arc;
use std::time::Duration;
use taskmaster_protocol::message::{Assignment, Attempt};
use taskmaster_protocol::{ErrorKind, Json, ModuleName, TaskError, splice};

/// Why an attempt cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The module may not run on this runner.
    #[error("module `{0}` cannot be run: {1}")]
    Grants(ModuleName, NotOffered),
    /// The module cannot be loaded.
    #[error("module `{0}` cannot be run: {1}")]
    Module(ModuleName, ModuleError),
    /// The params, or results that belong into them, are not there.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// Input files are not there.
    #[error(transparent)]
    Input(#[from] InputError),
}

impl PrepareError {
    /// The fault of this machine, where the task is not to blame.
    pub fn fault(&self) -> Option<MachineFault> {
        match self {
            PrepareError::Input(error) => error.fault(),
            PrepareError::Module(_, error) if error.is_of_the_runner() => {
                Some(MachineFault::of_machine("no module can be executed", error))
            }
            PrepareError::Grants(..) | PrepareError::Module(..) | PrepareError::Params(_) => None,
        }
    }

    /// The failure that the master is told.
    pub fn into_task_error(self) -> TaskError {
        let kind = match self {
            PrepareError::Grants(..) | PrepareError::Module(..) => ErrorKind::Module,
            PrepareError::Params(_) | PrepareError::Input(_) => ErrorKind::Input,
        };
        TaskError::new(kind, self.to_string())
    }
}

/// Where a [`Preparer`] gets things from.
#[derive(Clone)]
pub struct PreparerSources {
    /// The modules.
    pub modules: Arc<ModuleCache>,
    /// The input files.
    pub inputs: Arc<TaskInputs>,
    /// What modules may be given on this machine.
    pub grants: Arc<Grants>,
    /// Fetches params and results that are blobs.
    pub fetch: FetchBytes,
    /// Asks the master for results.
    pub ask: AskResults,
    /// Hears what attempts tell while they run.
    pub listener: LiveListener,
}

/// Prepares attempts.
#[derive(Clone)]
pub struct Preparer {
    sources: PreparerSources,
    params: ParamsReader,
}

impl Preparer {
    /// A preparer that uses `sources`.
    pub fn new(sources: PreparerSources) -> Preparer {
        let params = ParamsReader::new(sources.fetch.clone(), sources.ask.clone());
        Preparer { sources, params }
    }

    /// The attempt ready to run, if nothing has to be waited for. Otherwise `send` comes back.
    pub fn at_once(
        &self,
        send: Box<Assignment>,
        stop: &Arc<StopSwitch>,
    ) -> Result<Work, Box<Assignment>> {
        let params = send.params.as_ref();
        let refers = params.is_some_and(|params| splice::may_refer(params.get()));
        if refers || !send.inputs.is_empty() {
            return Err(send);
        }
        let Some(program) = self.sources.modules.ready(&send.version) else {
            return Err(send);
        };
        let Ok(granted) = self.sources.grants.give(send.capabilities.as_ref()) else {
            return Err(send);
        };
        let input = send
            .params
            .clone()
            .map_or_else(Bytes::new, |params| Bytes::from_owner(ParamsBytes(params)));
        let parts = WorkParts {
            program,
            granted,
            input,
            inputs: None,
            stop: stop.clone(),
            listener: self.sources.listener.clone(),
        };
        Ok(parts.into_work(*send))
    }

    /// The attempt ready to run, once everything is there.
    pub async fn later(
        &self,
        send: Assignment,
        stop: Arc<StopSwitch>,
    ) -> Result<Work, PrepareError> {
        let granted = self
            .sources
            .grants
            .give(send.capabilities.as_ref())
            .map_err(|error| PrepareError::Grants(send.module.clone(), error))?;
        let loaded = self
            .sources
            .modules
            .load(send.version)
            .await
            .map_err(|error| PrepareError::Module(send.module.clone(), error))?;
        let input = match &send.params {
            None => Bytes::new(),
            Some(params) => {
                let given = GivenResults {
                    results: &send.results,
                    of_jobs: &send.job_results,
                };
                self.params.read(params, given).await?
            }
        };
        let inputs = if send.inputs.is_empty() {
            None
        } else {
            Some(self.sources.inputs.gather(&send.inputs).await?)
        };
        let parts = WorkParts {
            program: loaded.program,
            granted,
            input,
            inputs,
            stop,
            listener: self.sources.listener.clone(),
        };
        Ok(parts.into_work(send))
    }
}

/// What an attempt needs beside its description.
pub struct WorkParts {
    /// The module.
    pub program: Arc<Program>,
    /// What the module is given.
    pub granted: Granted,
    /// The params, with every reference replaced.
    pub input: Bytes,
    /// The input files.
    pub inputs: Option<InputPlacement>,
    /// Lets others stop the attempt.
    pub stop: Arc<StopSwitch>,
    /// Hears what the attempt tells while it runs.
    pub listener: LiveListener,
}

impl WorkParts {
    /// The attempt that `send` describes, ready to run.
    pub fn into_work(self, send: Assignment) -> Work {
        let needs = self.program.needs();
        let env = if needs.env {
            environment(&send, &self.granted)
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
            program: self.program,
            input: self.input,
            args,
            env,
            granted: self.granted,
            timeout: Duration::from_millis(send.timeout_ms),
            memory_mb: send.memory_mb,
            files: WorkFiles {
                inputs: self.inputs,
                outputs: send.outputs,
            },
            stop: self.stop,
            listener: self.listener,
        }
    }
}

/// The task's own variables first, then ours. A task cannot replace ours, nor those that its module
/// is given. An answer that is given to other tasks must not depend on what only this one is, so ours
/// are empty then.
fn environment(send: &Assignment, granted: &Granted) -> Vec<(String, String)> {
    let own = |value: String| if send.is_cached { String::new() } else { value };
    let ours = [
        ("TASKMASTER_TASK_ID", own(send.id.to_string())),
        ("TASKMASTER_ATTEMPT", own(send.attempt.n.to_string())),
        ("TASKMASTER_MODULE", send.module.to_string()),
        ("TASKMASTER_JOB", own(send.job.to_string())),
    ];
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
struct ParamsBytes(Json);

impl AsRef<[u8]> for ParamsBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.get().as_bytes()
    }
}
