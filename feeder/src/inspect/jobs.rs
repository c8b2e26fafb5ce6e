//! `jobs list|show|wait|cancel|pause|resume`.

use super::rows::ask_rows;
use crate::cli::{GlobalOptions, JobsCommand};
use crate::client::{Client, ClientError, read_answer};
use crate::error::CommandError;
use crate::exit::{self, EndCounts};
use crate::output::table::TextTable;
use crate::waiting::{self, Awaited};
use crate::wire::{HotMessage, read_hot};
use taskmaster_protocol::message::{Follow, Operation, Query};
use taskmaster_protocol::shape::JobView;
use taskmaster_protocol::{FromMaster, JobName, Json, ToMaster};

/// Runs a `jobs` command and gives the exit code.
pub async fn run(command: JobsCommand, global: &GlobalOptions) -> Result<u8, CommandError> {
    let printer = global.printer();
    let mut client = Client::connect(global.target()?).await?;
    let client = &mut client;
    match command {
        JobsCommand::List => {
            let jobs = ask_rows(client, Query::JOBS).await?;
            let open_first = jobs.sorted_by_key(|job: &JobView| !job.open);
            printer.list(&open_first, |job| job.job.to_string(), table)?;
        }
        JobsCommand::Show { job } => {
            let answer = client.ask_raw(Query::Job { job: job.clone() }).await?;
            let view = read_answer(&answer)?;
            printer.show(&answer, job.as_str(), || block(&view))?;
        }
        JobsCommand::Wait { job, wait_timeout } => {
            let deadline = waiting::deadline(wait_timeout);
            let what = Awaited::job(&job);
            let answer = waiting::before(deadline, &what, wait(client, &job)).await?;
            let view: JobView = read_answer(&answer)?;
            if printer.wants_json() {
                printer.show(&answer, job.as_str(), || block(&view))?;
            }
            return Ok(end_counts(&view).exit_code());
        }
        JobsCommand::Cancel { job } => {
            printer.confirm(&client.cancel(Vec::new(), Some(job)).await?)?;
        }
        JobsCommand::Pause { job } => {
            printer.confirm(&client.operate(Operation::PauseJob { job }).await?)?;
        }
        JobsCommand::Resume { job } => {
            printer.confirm(&client.operate(Operation::ResumeJob { job }).await?)?;
        }
    }
    Ok(exit::OK)
}

/// Waits until no session holds the job and no task of it is open, and gives the job as it is then.
async fn wait(client: &mut Client, job: &JobName) -> Result<Json, ClientError> {
    // The job is followed before it is asked about: the other way round, an end between the two
    // would be missed.
    follow(client, job);
    loop {
        match wait_on_this_connection(client, job).await {
            Err(lost @ ClientError::Lost(_)) => {
                waiting::reconnect(client, &lost).await?;
                follow(client, job);
            }
            other => return other,
        }
    }
}

fn follow(client: &Client, job: &JobName) {
    client.send(&ToMaster::Follow(Follow {
        job: Some(job.clone()),
        ids: Vec::new(),
        since: None,
        partials: false,
    }));
}

async fn wait_on_this_connection(client: &mut Client, job: &JobName) -> Result<Json, ClientError> {
    loop {
        let answer = client.ask_once(Query::Job { job: job.clone() }).await?;
        if !read_answer::<JobView>(&answer)?.open {
            return Ok(answer);
        }
        until_a_job_is_done(client).await?;
    }
}

async fn until_a_job_is_done(client: &mut Client) -> Result<(), ClientError> {
    loop {
        let text = client.receive().await?;
        match read_hot(&text) {
            Some(HotMessage::Final(message)) if message.job_done.is_some() => return Ok(()),
            Some(_) => {}
            None => {
                if let Ok(FromMaster::Refused(refused)) = FromMaster::decode(&text) {
                    return Err(refused.error.into());
                }
            }
        }
    }
}

fn end_counts(job: &JobView) -> EndCounts {
    EndCounts {
        done: job.done,
        failed: job.failed,
        skipped: job.skipped,
        cancelled: job.cancelled,
    }
}

fn state(job: &JobView) -> &'static str {
    match (job.paused, job.open) {
        (true, _) => "paused",
        (false, true) => "open",
        (false, false) => "done",
    }
}

/// The job's counts of tasks, by their names.
fn counts(job: &JobView) -> [(&'static str, u64); 9] {
    [
        ("total", job.total),
        ("blocked", job.blocked),
        ("delayed", job.delayed),
        ("ready", job.ready),
        ("assigned", job.assigned),
        ("done", job.done),
        ("failed", job.failed),
        ("cancelled", job.cancelled),
        ("skipped", job.skipped),
    ]
}

fn table(jobs: &[JobView]) -> TextTable {
    let mut table = TextTable::new(&[
        "JOB",
        "STATE",
        "TOTAL",
        "BLOCKED",
        "DELAYED",
        "READY",
        "ASSIGNED",
        "DONE",
        "FAILED",
        "CANCELLED",
        "SKIPPED",
    ]);
    for job in jobs {
        let names = [job.job.to_string(), state(job).to_owned()];
        let counts = counts(job).map(|(_, count)| count.to_string());
        table.row(names.into_iter().chain(counts));
    }
    table
}

fn block(job: &JobView) -> TextTable {
    let mut block = TextTable::block();
    block.pair("job", &job.job);
    block.pair("state", state(job));
    block.pair("run", job.run);
    for (name, count) in counts(job) {
        block.pair(name, count);
    }
    block
}
