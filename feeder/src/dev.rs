//! `dev`: the author's loop. Builds a project when it changes and runs it with the params that were
//! used last.

mod project;
mod running;
mod watching;

use crate::cli::{DevOptions, Global};
use crate::output::chat;
use crate::output::text::plain;
use crate::trouble::{Trouble, exit};
use project::{Project, Sources};
use running::Runs;
use taskmaster_protocol::Json;
use watching::{Change, Watching};

/// Runs `dev`. The exit code.
pub async fn run(options: &DevOptions, global: &Global) -> Result<u8, Trouble> {
    let project = Project::open(&options.folder)?;
    let mut params = options.params.clone();
    let mut runs = Runs::new(global.target()?, global.output());
    if options.once {
        return if build(&project).await? {
            runs.run(&project, params.as_ref()).await
        } else {
            Ok(exit::ERROR)
        };
    }
    let mut watching = Watching::start(project.folder());
    // Nothing has been built yet.
    let mut seen = Sources::default();
    loop {
        let now = project.sources();
        let (must_build, typed) = (now.code != seen.code, watching.take_typed(&mut params));
        if now != seen || typed {
            seen = now;
            // What fails is said; the next change may make it good.
            tokio::select! {
                ended = round(&project, &mut runs, must_build, params.as_ref()) => ended?,
                () = watching.until_changed(&project, &seen) => chat("changed: once more"),
            }
            chat(&format!(
                "waiting for changes in {}",
                project.folder().display()
            ));
        }
        if let Change::Typed(line) = watching.next().await {
            match Json::parse(line.trim()) {
                Ok(json) => watching.typed(json),
                Err(error) => chat(&plain(&format!("params are not JSON: {error}: {line}"))),
            }
        }
    }
}

/// Builds, where it must, and runs. Says what went wrong with either; an error is what ends the
/// loop.
async fn round(
    project: &Project,
    runs: &mut Runs,
    must_build: bool,
    params: Option<&Json>,
) -> Result<(), Trouble> {
    if must_build && !build(project).await? {
        return Ok(());
    }
    match runs.run(project, params).await {
        Ok(_) => Ok(()),
        Err(Trouble::PipeClosed) => Err(Trouble::PipeClosed),
        Err(trouble) => {
            chat(&plain(&format!("error: {trouble}")));
            Ok(())
        }
    }
}

/// Whether `./build` went well. What it prints goes to stderr: stdout has results.
async fn build(project: &Project) -> Result<bool, Trouble> {
    let began = std::time::Instant::now();
    let status = running::ended(project.build_command()).await?;
    let took = began.elapsed().as_secs_f64();
    if status.success() {
        chat(&format!("built in {took:.1} s"));
    } else {
        chat(&format!("./build failed after {took:.1} s ({status})"));
    }
    Ok(status.success())
}
