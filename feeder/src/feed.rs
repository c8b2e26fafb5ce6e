//! `feed`: adds many tasks while they are still being read, and waits for them where asked to.
//!
//! What is decided is decided in the ledger, without IO. The session has the connection, the input
//! and the clock.

mod following;
mod held_lines;
mod large;
mod ledger;
mod line;
mod local;
mod progress;
mod session;
mod source;
mod splitter;

pub use line::new_id;

use crate::cli::{FeedOptions, GlobalOptions};
use crate::client::Client;
use crate::error::CommandError;
use crate::fetch::FetchQueue;
use crate::uploads::{InputUploader, base_of};
use line::IdHasher;
use session::{FeedGoal, FeedSession, SessionSetup};
use source::{InputChunk, InputSettings};
use std::io::Read;
use taskmaster_protocol::{JobName, limits};
use tokio::sync::mpsc;

/// Bytes of a document beside its params, with all other fields at their limits.
const DOCUMENT_OVERHEAD: usize = 4 << 20;

/// Runs `feed` and gives the exit code.
pub async fn run(options: &FeedOptions, global: &GlobalOptions) -> Result<u8, CommandError> {
    let source = source::open(options.file.as_deref())?;
    let goal = match (options.wait, options.follow) {
        (_, true) => FeedGoal::TasksEnded,
        (true, false) => FeedGoal::JobDone,
        (false, false) => FeedGoal::Added,
    };
    if options.fetch.is_some() && goal == FeedGoal::Added {
        return Err(CommandError::Usage(
            "--fetch brings files back as tasks end: give --follow or --wait, too".into(),
        ));
    }
    let target = global.target()?;
    let client = Client::connect(target.clone()).await?;
    let job = match &options.job {
        Some(job) => job.clone(),
        None => own_job()?,
    };
    let job_is_new = options.job.is_none();
    let fetching = options
        .fetch
        .clone()
        .map(|folder| FetchQueue::new(target, folder));
    let hasher = IdHasher::default();
    let input = start_reading(source, &client, &hasher, options)?;
    let setup = SessionSetup {
        client,
        job,
        job_is_new,
        goal,
        partials: options.partials,
        hasher,
        input,
        fetching,
        printer: global.printer(),
    };
    FeedSession::new(setup).run().await
}

/// Names a job for the lines that name none.
fn own_job() -> Result<JobName, CommandError> {
    let id = uuid::Uuid::now_v7().simple().to_string();
    // The last 12 digits are random.
    let name = format!("feed-{}", id.get(20..).unwrap_or(&id));
    JobName::new(&name).map_err(|error| CommandError::Local(error.to_string()))
}

/// Starts to read lines as the client's master takes them.
fn start_reading(
    source: Box<dyn Read + Send>,
    client: &Client,
    hasher: &IdHasher,
    options: &FeedOptions,
) -> Result<mpsc::Receiver<InputChunk>, CommandError> {
    let target = client.target();
    let settings = InputSettings {
        document_bytes_max: limits::PARAMS_BYTES_MAX + DOCUMENT_OVERHEAD,
        hasher: hasher.clone(),
        uploader: InputUploader::new(target.clone()),
        base: base_of(options.file.as_deref()),
    };
    Ok(large::start(
        source::start(source, settings)?,
        target.clone(),
    ))
}
