//! `taskmaster demo`: two real jobs through a real master and runner, and what they made.

mod jobs;

use crate::up;
use clap::Args;
use jobs::Job;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use taskmaster_feeder::client::{Client, Target};
use taskmaster_protocol::message::{Add, Follow, Query, ResultRef};
use taskmaster_protocol::shape::TaskView;
use taskmaster_protocol::{FromMaster, JobName, TaskId, TaskState, ToMaster};

/// The end of `demo --help`.
pub const HELP: &str = "\
Starts a master and a runner on a free port, drops the modules that are inside this binary into its task folder, and
feeds two jobs: a Mandelbrot picture in slices, and a chart of real stock prices. The paths of the two pictures are the
only lines on stdout.

Example:
  taskmaster demo --out pictures

Exit codes: 0 both pictures are there · 1 something failed";

/// `taskmaster demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Folder for the pictures; made where it is missing
    #[arg(long, value_name = "FOLDER", default_value = "taskmaster-demo")]
    out: PathBuf,
}

/// How long the whole demo may take before something must be wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs it.
pub async fn demo(args: DemoArgs) -> ExitCode {
    let folder = std::env::temp_dir().join(format!("taskmaster-demo-{}", std::process::id()));
    let result = tokio::time::timeout(PATIENCE, run(&args.out, &folder)).await;
    // A folder in the temporary directory: what is left of it harms nobody.
    let _ = std::fs::remove_dir_all(&folder);
    let failure = match result {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(failure)) => failure,
        Err(_) => format!("not done after {} s", PATIENCE.as_secs()),
    };
    eprintln!("error: {failure}");
    ExitCode::FAILURE
}

async fn run(out: &Path, folder: &Path) -> Result<(), String> {
    let tasks = folder.join("tasks");
    std::fs::create_dir_all(&tasks).map_err(|error| format!("{}: {error}", tasks.display()))?;
    std::fs::create_dir_all(out).map_err(|error| format!("--out {}: {error}", out.display()))?;
    for (file, bytes) in jobs::MODULES {
        std::fs::write(tasks.join(file), bytes).map_err(|error| format!("{file}: {error}"))?;
    }
    let up = up::temporary(folder, tasks, None).await?;
    eprintln!("a master and a runner are up on {}", up.address);
    let target = Target::parse(&up.address.to_string(), None).map_err(|error| error.to_string())?;
    let (done, over) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(up.run(async { drop(over.await) }));
    let result = feed_all(target, out).await;
    let _ = done.send(());
    let _ = running.await;
    result
}

async fn feed_all(target: Target, out: &Path) -> Result<(), String> {
    let mut client = Client::connect(target)
        .await
        .map_err(|error| error.to_string())?;
    let mut table = String::from("job          tasks    seconds   tasks/s   p50 ms   p99 ms\n");
    for job in [jobs::mandelbrot(), jobs::stocks()?] {
        let run = feed(&mut client, &job).await?;
        let path = out.join(job.file);
        let bytes = result_bytes(&client, &run.last).await?;
        std::fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        let path = path.canonicalize().unwrap_or(path);
        println!("{}", path.display());
        table.push_str(&run.row(&job));
    }
    eprint!("\n{table}");
    Ok(())
}

/// What a job's tasks took.
struct Run {
    seconds: f64,
    /// Milliseconds from the add to the end, per task.
    times: Vec<f64>,
    last: TaskView,
}

impl Run {
    fn row(mut self, job: &Job) -> String {
        self.times.sort_by(f64::total_cmp);
        let at = |part: f64| {
            self.times
                .get(((self.times.len() - 1) as f64 * part) as usize)
                .copied()
                .unwrap_or(0.0)
        };
        let (tasks, rate) = (job.tasks.len(), job.tasks.len() as f64 / self.seconds);
        format!(
            "{:<12} {tasks:>5} {:>10.3} {rate:>9.0} {:>8.1} {:>8.1}\n",
            job.name,
            self.seconds,
            at(0.5),
            at(0.99)
        )
    }
}

async fn feed(client: &mut Client, job: &Job) -> Result<Run, String> {
    let name = JobName::new(job.name).map_err(|error| error.to_string())?;
    let since = Some(client.welcome().seq);
    let started = Instant::now();
    client.send(&ToMaster::Follow(Follow {
        job: Some(name.clone()),
        ids: Vec::new(),
        since,
    }));
    client.send(&ToMaster::Add(Add {
        batch: 1,
        job: Some(name),
        hold: false,
        tasks: job.tasks.clone(),
    }));
    let mut ended: Vec<TaskView> = Vec::new();
    while ended.len() < job.tasks.len() {
        let text = client.receive().await.map_err(|error| error.to_string())?;
        match FromMaster::decode(&text) {
            Ok(FromMaster::Final(finals)) => {
                ended.extend(
                    finals
                        .tasks
                        .into_iter()
                        .filter(|task| task.job.as_str() == job.name),
                );
                bar(job.name, ended.len(), job.tasks.len());
            }
            Ok(FromMaster::Rejected(rejected)) => {
                let why = rejected
                    .tasks
                    .first()
                    .map(|task| task.error.message.clone());
                return Err(format!(
                    "the master refuses a task of {}: {}",
                    job.name,
                    why.unwrap_or_default()
                ));
            }
            _ => {}
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    if let Some(task) = ended.iter().find(|task| task.state != TaskState::Done) {
        let why = task
            .error
            .as_ref()
            .map_or("", |error| error.message.as_str());
        return Err(format!(
            "task {} is {}: {why}",
            task.id,
            task.state.as_str()
        ));
    }
    let ms = |task: &TaskView| {
        task.finished
            .map_or(0.0, |end| end.since_us(task.created) as f64 / 1_000.0)
    };
    let times = ended.iter().map(ms).collect();
    let last: TaskId = job.last.clone();
    let last = client
        .ask(Query::Task { id: last })
        .await
        .map_err(|error| error.to_string())?;
    Ok(Run {
        seconds,
        times,
        last,
    })
}

/// A bar that fills, on a terminal; its last state elsewhere.
fn bar(name: &str, done: usize, all: usize) {
    let width = 40;
    let filled = width * done / all.max(1);
    let line = format!(
        "{name:<12} [{}{}] {done}/{all}",
        "#".repeat(filled),
        "-".repeat(width - filled)
    );
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let end = if done == all { "\n" } else { "" };
        let _ = write!(stderr, "\r{line}{end}");
    } else if done == all {
        let _ = writeln!(stderr, "{line}");
    }
}

async fn result_bytes(client: &Client, task: &TaskView) -> Result<Vec<u8>, String> {
    let result = match (&task.result, &task.result_blob) {
        (Some(json), _) => ResultRef::Json(json.clone()),
        (None, Some(hash)) => ResultRef::Blob(*hash),
        (None, None) => return Err(format!("task {} has no result", task.id)),
    };
    match result {
        ResultRef::Json(json) => Ok(json
            .read::<String>()
            .map_err(|error| error.to_string())?
            .into_bytes()),
        ResultRef::Blob(hash) => Ok(client
            .blobs()
            .get(&hash)
            .await
            .map_err(|error| error.to_string())?
            .to_vec()),
    }
}
