//! What a package ships beside the binary: completion scripts and manual pages.

use crate::cli::Cli;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;
use std::process::ExitCode;

/// `taskmaster completions`.
pub fn completions(shell: Shell) -> ExitCode {
    clap_complete::generate(
        shell,
        &mut Cli::command(),
        "taskmaster",
        &mut std::io::stdout(),
    );
    ExitCode::SUCCESS
}

/// `taskmaster man`: one page for each command, `taskmaster-master.1` and the like.
pub fn manual_pages(folder: &Path) -> ExitCode {
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
