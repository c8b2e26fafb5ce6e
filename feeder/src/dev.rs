//! `dev`: the author's loop. Builds a project when it changes, and runs it with the params that
//! were used last.

mod process;
mod project;
mod running;
mod watching;

use crate::cli::{DevOptions, GlobalOptions};
use crate::error::CommandError;
use crate::exit;
use crate::output::notice;
use project::{Project, ProjectFiles};
use running::ProjectRunner;
use taskmaster_console::terminal::plain;
use taskmaster_protocol::Json;
use watching::{ProjectWatcher, WakeReason};

/// Runs `dev` and gives the exit code.
pub async fn run(options: &DevOptions, global: &GlobalOptions) -> Result<u8, CommandError> {
    let project = Project::open(&options.folder)?;
    let mut runner = ProjectRunner::new(global.target()?, global.printer());
    if options.once {
        return if build(&project).await? {
            runner.run(&project, options.params.as_ref()).await
        } else {
            Ok(exit::ERROR)
        };
    }
    let mut params = options.params.clone();
    let mut watcher = ProjectWatcher::start(project.folder());
    // The files of the last round; none before the first, so that it builds.
    let mut seen = ProjectFiles::default();
    loop {
        let now = project.files();
        let must_build = now.code != seen.code;
        let has_new_params = watcher.take_typed(&mut params);
        if now != seen || has_new_params {
            seen = now;
            // What fails is told, because the next change may make it good.
            tokio::select! {
                ended = round(&project, &mut runner, must_build, params.as_ref()) => ended?,
                () = watcher.until_changed(&project, &seen) => notice("changed: once more"),
            }
            let folder = project.folder().display();
            notice(&format!("waiting for changes in {folder}"));
        }
        if let WakeReason::Typed(line) = watcher.next().await {
            match Json::from_bytes(line.as_bytes()) {
                Ok(json) => watcher.typed(json),
                Err(error) => notice(&plain(&format!("the line {error}: {line}"))),
            }
        }
    }
}

/// Builds where it must, and runs. Tells people what went wrong with either. An error ends the
/// loop.
async fn round(
    project: &Project,
    runner: &mut ProjectRunner,
    must_build: bool,
    params: Option<&Json>,
) -> Result<(), CommandError> {
    if must_build && !build(project).await? {
        return Ok(());
    }
    match runner.run(project, params).await {
        Ok(_) => Ok(()),
        Err(CommandError::PipeClosed) => Err(CommandError::PipeClosed),
        Err(error) => {
            notice(&plain(&format!("error: {error}")));
            Ok(())
        }
    }
}

/// Whether `./build` succeeded. What it prints goes to stderr, because stdout is for results.
async fn build(project: &Project) -> Result<bool, CommandError> {
    let began = std::time::Instant::now();
    let status = process::run(project.build_command(), None).await?;
    let took = began.elapsed().as_secs_f64();
    if status.success() {
        notice(&format!("built in {took:.1} s"));
    } else {
        notice(&format!("./build failed after {took:.1} s ({status})"));
    }
    Ok(status.success())
}
