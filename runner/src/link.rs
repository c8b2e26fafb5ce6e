//! The connection to the master, around the session that decides: it reads, feeds the session, does
//! what the session says, and writes.
//!
//! One tokio task does all of this and waits for nothing but its next event. Guests run on the
//! slots' threads; preparation and uploads have tokio tasks of their own. Everything that ended
//! since the last write goes out in one message.

pub mod blobs;
pub mod config;
pub mod event;
pub mod executor;
pub mod outbox;
pub mod running;
pub mod socket;
pub mod spool;
pub mod uploading;

pub use config::{RunnerConfig, RunnerError, SendFuture};

use crate::at_work::AttemptsAtWork;
use crate::inputs::TaskInputs;
use crate::modules::ModuleCache;
use crate::prepare::{Preparer, PreparerSources};
use crate::sandbox::Sandbox;
use crate::self_check::SelfCheck;
use crate::slots::queue::Room;
use blobs::RetryingBlobs;
use executor::{Executor, ExecutorParts, ask_results, live_listener};
use running::{RunnerLink, RunnerLinkParts};
use spool::ResultSpool;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Runs a runner until the master refuses it, or `shutdown` resolves and everything is delivered.
pub fn serve(
    config: RunnerConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> SendFuture<Result<(), RunnerError>> {
    serve_boxed(config, Box::pin(shutdown))
}

fn serve_boxed(
    config: RunnerConfig,
    shutdown: SendFuture<()>,
) -> SendFuture<Result<(), RunnerError>> {
    Box::pin(async move { start(config)?.run(shutdown).await })
}

/// Opens the caches and starts the slots.
fn start(mut config: RunnerConfig) -> Result<RunnerLink, RunnerError> {
    config.offer.capabilities = Some(config.grants.offered());
    let Some(first) = config.urls.first() else {
        return Err(RunnerError::NoAddress);
    };
    let cache_error = |error| RunnerError::Cache(config.cache.clone(), error);
    std::fs::create_dir_all(&config.cache).map_err(cache_error)?;
    let blobs = Arc::new(RetryingBlobs::new(first.clone(), config.token.clone()));
    let fetch = blobs.clone().fetch_bytes();

    let slots = config.offer.slots;
    let sandbox = Arc::new(Sandbox::new(slots, &config.cache.join("work"))?);
    let modules = ModuleCache::open(
        sandbox.clone(),
        &config.cache.join("modules"),
        fetch.clone(),
        config.compile_memory_mb,
    )
    .map_err(cache_error)?;
    let modules = Arc::new(modules);
    let inputs = TaskInputs::open(
        &config.cache.join("inputs"),
        config.inputs_bytes,
        blobs.clone().fetch_file(),
    )
    .map_err(cache_error)?;
    let inputs = Arc::new(inputs);
    let self_check = SelfCheck {
        sandbox: sandbox.clone(),
        inputs: inputs.clone(),
        granted: config.grants.folders().map(Path::to_owned).collect(),
    };

    let (sender, events) = mpsc::unbounded_channel();
    let preparer = Preparer::new(PreparerSources {
        modules: modules.clone(),
        inputs,
        grants: Arc::new(config.grants.clone()),
        fetch,
        ask: ask_results(sender.clone()),
        listener: live_listener(sender.clone()),
    });
    let at_work = config.cache.join("at-work");
    let opened = AttemptsAtWork::open(&at_work, &config.offer.name, slots).map_err(cache_error)?;
    let executor = Executor::start(ExecutorParts {
        offered: Room {
            slots,
            memory_mb: config.offer.memory_mb,
        },
        sandbox: sandbox.clone(),
        at_work: opened.at_work,
        preparer,
        link: sender.clone(),
    });
    Ok(RunnerLink::new(RunnerLinkParts {
        executor: executor.map_err(cache_error)?,
        lost: opened.lost,
        modules,
        blobs,
        spool: Arc::new(ResultSpool::new(sandbox.scratch())),
        self_check,
        sender,
        events,
        config,
    }))
}

#[cfg(test)]
mod tests;
