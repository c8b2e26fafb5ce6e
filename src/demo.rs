//! `taskmaster demo`: two real jobs through a real master and runner, and what they made.

mod errors;
mod feeding;
mod jobs;

use crate::standalone::Standalone;
use clap::Args;
use errors::DemoError;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use taskmaster_console::lines::{tell, tell_raw};
use taskmaster_feeder::client::{Client, Target};
use taskmaster_feeder::exit;
use taskmaster_protocol::message::ResultRef;
use taskmaster_protocol::shape::TaskView;

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
const DEADLINE: Duration = Duration::from_secs(120);

/// `taskmaster demo`.
pub async fn demo(args: DemoArgs) -> ExitCode {
    let folder = std::env::temp_dir().join(format!("taskmaster-demo-{}", std::process::id()));
    let result = tokio::time::timeout(DEADLINE, run(&args.out, &folder))
        .await
        .unwrap_or(Err(DemoError::Late(DEADLINE)));
    // The folder is in the temporary directory: what is left of it harms nobody.
    let _ = std::fs::remove_dir_all(&folder);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(DemoError::Stdout(error)) if error.kind() == ErrorKind::BrokenPipe => {
            ExitCode::from(exit::PIPE_CLOSED)
        }
        Err(error) => {
            tell(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(out: &Path, folder: &Path) -> Result<(), DemoError> {
    let tasks = folder.join("tasks");
    std::fs::create_dir_all(&tasks).map_err(DemoError::file(&tasks))?;
    make_ignored(out)?;
    for (file, bytes) in jobs::MODULES {
        let path = tasks.join(file);
        std::fs::write(&path, bytes).map_err(DemoError::file(&path))?;
    }
    let standalone = Standalone::temporary(folder, tasks).await?;
    tell(format_args!(
        "a master and a runner are up on {}",
        standalone.address
    ));
    let target = Target::parse(&standalone.address.to_string(), None).map_err(DemoError::client)?;
    standalone.during(feed_all(target, out)).await
}

/// Makes the folder of the pictures where it is missing. One that is made here is ignored by git:
/// whoever tries the demo in a repository does not want the pictures there.
fn make_ignored(folder: &Path) -> Result<(), DemoError> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(DemoError::file(folder))?;
    let ignore = folder.join(".gitignore");
    std::fs::write(&ignore, "*\n").map_err(DemoError::file(&ignore))
}

async fn feed_all(target: Target, out: &Path) -> Result<(), DemoError> {
    let mut client = Client::connect(target).await.map_err(DemoError::client)?;
    let mut table = String::from("job          tasks    seconds   tasks/s   p50 ms   p99 ms\n");
    for job in [jobs::mandelbrot(), jobs::stocks()?] {
        let run = feeding::feed(&mut client, &job).await?;
        let path = out.join(job.picture_file);
        let bytes = result_bytes(&client, &run.picture).await?;
        std::fs::write(&path, bytes).map_err(DemoError::file(&path))?;
        let path = path.canonicalize().unwrap_or(path);
        writeln!(std::io::stdout(), "{}", path.display()).map_err(DemoError::Stdout)?;
        table.push_str(&run.row(&job));
    }
    tell_raw(format!("\n{table}").as_bytes());
    Ok(())
}

async fn result_bytes(client: &Client, task: &TaskView) -> Result<Vec<u8>, DemoError> {
    let result = match (&task.result, &task.result_blob) {
        (Some(json), _) => ResultRef::Json(json.clone()),
        (None, Some(hash)) => ResultRef::Blob(*hash),
        (None, None) => return Err(DemoError::NoResult(task.id.clone())),
    };
    match result {
        ResultRef::Json(json) => {
            let text = json.read::<String>().map_err(DemoError::client)?;
            Ok(text.into_bytes())
        }
        ResultRef::Blob(hash) => {
            let bytes = client.blobs().get(&hash).await.map_err(DemoError::client)?;
            Ok(bytes.to_vec())
        }
    }
}
