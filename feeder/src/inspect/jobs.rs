//! `jobs list|show|wait|cancel|pause|resume`.

use super::tasks::{cancel, done};
use super::{read, rows};
use crate::cli::{Global, JobsCommand};
use crate::client::Client;
use crate::output::table::Table;
use crate::trouble::{Endings, Trouble, exit};
use crate::waiting;
use crate::wire::{Hot, hot};
use taskmaster_protocol::message::{Follow, Operation, Query};
use taskmaster_protocol::shape::JobView;
use taskmaster_protocol::{FromMaster, JobName, Json, ToMaster};

/// Runs a `jobs` command. The exit code.
pub async fn run(command: JobsCommand, global: &Global) -> Result<u8, Trouble> {
    let output = global.output();
    let mut client = Client::connect(global.target()?).await?;
    let client = &mut client;
    match command {
        JobsCommand::List => {
            let (raw, typed) = rows(client, Query::Jobs).await?;
            output.list(&raw, &typed, |job: &JobView| job.job.to_string(), table)?;
        }
        JobsCommand::Show { job } => {
            let answer = client.ask_raw(Query::Job { job: job.clone() }).await?;
            let view = read(&answer)?;
            output.show(&answer, job.as_str(), || block(&view))?;
        }
        JobsCommand::Wait { job, wait_timeout } => {
            let end = waiting::deadline(wait_timeout);
            let answer = waiting::until(end, &format!("job {job}"), wait(client, &job)).await?;
            let view: JobView = read(&answer)?;
            if output.wants_json() {
                output.show(&answer, job.as_str(), || block(&view))?;
            }
            return Ok(endings(&view).exit_code());
        }
        JobsCommand::Cancel { job } => cancel(client, Vec::new(), Some(job), &output).await?,
        JobsCommand::Pause { job } => {
            done(&client.operate(Operation::PauseJob { job }).await?, &output)?
        }
        JobsCommand::Resume { job } => done(
            &client.operate(Operation::ResumeJob { job }).await?,
            &output,
        )?,
    }
    Ok(exit::OK)
}

/// Waits until nobody holds the job and no task of it is open. The job as it is then.
async fn wait(client: &mut Client, job: &JobName) -> Result<Json, Trouble> {
    // Followed before it is asked about: an end between the two would be missed the other way
    // round.
    let follow = |client: &Client| {
        client.say(&ToMaster::Follow(Follow {
            job: Some(job.clone()),
            ids: Vec::new(),
            since: None,
        }));
    };
    follow(client);
    loop {
        match wait_once(client, job).await {
            Err(lost @ Trouble::Lost(_)) => {
                client.reconnect(&lost).await?;
                follow(client);
            }
            other => return other,
        }
    }
}

async fn wait_once(client: &mut Client, job: &JobName) -> Result<Json, Trouble> {
    loop {
        let ask = |reference| {
            ToMaster::Ask(taskmaster_protocol::message::Question {
                reference,
                query: Query::Job { job: job.clone() },
            })
        };
        let answer = client.request_once(ask).await?;
        if !read::<JobView>(&answer)?.open {
            return Ok(answer);
        }
        loop {
            let text = client.hear().await?;
            match hot(&text) {
                Some(Hot::Finals(finals)) if finals.job_done.is_some() => break,
                Some(_) => {}
                None => {
                    if let Ok(FromMaster::Refused(refused)) = FromMaster::decode(&text) {
                        return Err(refused.error.into());
                    }
                }
            }
        }
    }
}

fn endings(job: &JobView) -> Endings {
    Endings {
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

fn table(jobs: &[JobView]) -> Table {
    let mut table = Table::new(&[
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
        let counts = [
            job.total,
            job.blocked,
            job.delayed,
            job.ready,
            job.assigned,
            job.done,
            job.failed,
            job.cancelled,
            job.skipped,
        ];
        table.row(
            [job.job.to_string(), state(job).to_owned()]
                .into_iter()
                .chain(counts.map(|n| n.to_string())),
        );
    }
    table
}

fn block(job: &JobView) -> Table {
    let mut block = Table::new(&[]);
    block.pair("job", &job.job);
    block.pair("state", state(job));
    block.pair("run", job.run);
    let counts = [
        ("total", job.total),
        ("blocked", job.blocked),
        ("delayed", job.delayed),
        ("ready", job.ready),
        ("assigned", job.assigned),
        ("done", job.done),
        ("failed", job.failed),
        ("cancelled", job.cancelled),
        ("skipped", job.skipped),
    ];
    counts
        .into_iter()
        .for_each(|(name, n)| block.row([name.to_owned(), n.to_string()]));
    block
}
