//! What a package ships beside the binary: completion scripts and manual pages.

use crate::cli::Cli;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use taskmaster_console::lines::tell;
use taskmaster_feeder::exit;

/// `taskmaster completions`.
pub fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "taskmaster", &mut script);
    print(&script)
}

/// Prints bytes, and gives the exit code.
fn print(bytes: &[u8]) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(exit::PIPE_CLOSED),
        Err(error) => {
            tell(format_args!("error: stdout: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// `taskmaster man`: one page for each command, `taskmaster-master.1` and the like.
pub fn manual_pages(folder: &Path) -> ExitCode {
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {}: {error}", folder.display()));
            ExitCode::FAILURE
        }
    }
}
