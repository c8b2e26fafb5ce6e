//! The task that `doctor` runs itself, on the machine where it is called: whether a process here can
//! compile a module and execute it.

use super::Finding;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;
use tokio::process::Command;

/// A task that does nothing.
const TASK: &str = r#"(module (func (export "_start")))"#;

const WHAT: &str = "task here";

const ADVICE: &str =
    "a runner on this machine would fail as well; the sentence says what is missing";

/// Runs the task in this binary's own sandbox.
pub(super) async fn check_sandbox() -> Finding {
    let file = std::env::temp_dir().join(format!(
        "taskmaster-doctor-{}.wat",
        uuid::Uuid::now_v7().simple()
    ));
    let began = Instant::now();
    let outcome = run(&file).await;
    // What cannot be removed stays in the system's temporary folder.
    let _ = std::fs::remove_file(&file);
    match outcome {
        Ok(()) => Finding::good(WHAT, format!("ran in {:.0?}", began.elapsed())),
        Err(why) => Finding::bad(WHAT, why, ADVICE),
    }
}

async fn run(file: &Path) -> Result<(), String> {
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    std::fs::write(file, TASK).map_err(|error| failed(&file.display().to_string(), error))?;
    let own: PathBuf = std::env::current_exe().map_err(|error| failed("this program", error))?;
    let output = Command::new(own)
        .arg("run")
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| failed("no process could be started", error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it said nothing");
    let sentence = last.trim_start_matches("error: ");
    let file = file.display().to_string();
    Err(sentence
        .trim_start_matches(&file)
        .trim_start_matches(": ")
        .to_owned())
}
