//! Feeds one job, shows how far it is, and measures it.

use super::errors::DemoError;
use super::jobs::DemoJob;
use std::io::IsTerminal;
use std::time::Instant;
use taskmaster_console::lines::{tell, tell_raw};
use taskmaster_feeder::client::Client;
use taskmaster_protocol::message::{Add, Follow, Query, Rejected, TasksEnded};
use taskmaster_protocol::shape::TaskView;
use taskmaster_protocol::{FromMaster, JobName, TaskState, ToMaster};

/// Columns of the bar that shows how far a job is.
const BAR_WIDTH: usize = 40;

/// What a job's tasks took, and what they made.
pub struct JobRun {
    seconds: f64,
    /// From the add to the end, one for each task.
    times_ms: Vec<f64>,
    /// The task whose result is the picture.
    pub picture: TaskView,
}

impl JobRun {
    /// A row of the table in which the demo ends.
    pub fn row(mut self, job: &DemoJob) -> String {
        self.times_ms.sort_by(f64::total_cmp);
        let tasks = job.tasks.len();
        format!(
            "{:<12} {tasks:>5} {:>10.3} {:>9.0} {:>8.1} {:>8.1}\n",
            job.name,
            self.seconds,
            tasks as f64 / self.seconds,
            quantile(&self.times_ms, 0.5),
            quantile(&self.times_ms, 0.99)
        )
    }
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * part) as usize;
    sorted.get(index).copied().unwrap_or(0.0)
}

/// Feeds a job and waits until all its tasks have ended.
pub async fn feed(client: &mut Client, job: &DemoJob) -> Result<JobRun, DemoError> {
    let name = JobName::new(job.name).map_err(DemoError::client)?;
    let since = Some(client.welcome().seq);
    let started = Instant::now();
    client.send(&ToMaster::Follow(Follow {
        job: Some(name.clone()),
        ids: Vec::new(),
        since,
        partials: false,
    }));
    client.send(&ToMaster::Add(Add {
        batch: 1,
        job: Some(name),
        hold: false,
        tasks: job.tasks.clone(),
    }));
    let ended = ended_tasks(client, job).await?;
    let seconds = started.elapsed().as_secs_f64();
    all_done(&ended)?;
    let picture = client
        .ask(Query::Task {
            id: job.picture_task.clone(),
        })
        .await
        .map_err(DemoError::client)?;
    Ok(JobRun {
        seconds,
        times_ms: ended.iter().map(time_ms).collect(),
        picture,
    })
}

async fn ended_tasks(client: &mut Client, job: &DemoJob) -> Result<Vec<TaskView>, DemoError> {
    let mut ended: Vec<TaskView> = Vec::new();
    while ended.len() < job.tasks.len() {
        let text = client.receive().await.map_err(DemoError::client)?;
        match FromMaster::decode(&text) {
            Ok(FromMaster::Final(TasksEnded { tasks, .. })) => {
                let of_job = tasks
                    .into_iter()
                    .filter(|task| task.job.as_str() == job.name);
                ended.extend(of_job);
                show_progress(job.name, ended.len(), job.tasks.len());
            }
            Ok(FromMaster::Rejected(rejected)) => return Err(refused(job, &rejected)),
            // A feeder hears of more, and this one waits for ends alone.
            _ => {}
        }
    }
    Ok(ended)
}

fn refused(job: &DemoJob, rejected: &Rejected) -> DemoError {
    let first = rejected.tasks.first();
    DemoError::Refused {
        job: job.name,
        why: first.map_or_else(String::new, |task| task.error.message.clone()),
    }
}

fn all_done(ended: &[TaskView]) -> Result<(), DemoError> {
    let Some(task) = ended.iter().find(|task| task.state != TaskState::Done) else {
        return Ok(());
    };
    let error = task.error.as_ref();
    Err(DemoError::NotDone {
        id: task.id.clone(),
        state: task.state,
        why: error.map_or_else(String::new, |error| error.message.clone()),
    })
}

fn time_ms(task: &TaskView) -> f64 {
    task.finished
        .map_or(0.0, |end| end.since_us(task.created) as f64 / 1_000.0)
}

/// A bar that fills, on a terminal; its last state elsewhere.
fn show_progress(name: &str, done: usize, all: usize) {
    let filled = BAR_WIDTH * done / all.max(1);
    let line = format!(
        "{name:<12} [{}{}] {done}/{all}",
        "#".repeat(filled),
        "-".repeat(BAR_WIDTH - filled)
    );
    if std::io::stderr().is_terminal() {
        let end = if done == all { "\n" } else { "" };
        tell_raw(format!("\r{line}{end}").as_bytes());
    } else if done == all {
        tell(line);
    }
}
