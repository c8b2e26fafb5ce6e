//! The config file: TOML with options by their long names.
//!
//! What the file says becomes the default of the option, so that the parser of the command line
//! stays the only one, and puts the command line over the environment over the file.

mod file;
mod reader;
mod setting;

pub use file::ConfigFile;
pub use setting::ConfigFileError;

use crate::cli::Cli;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;
use std::path::PathBuf;

/// Parses the command line, with the defaults of the config file where one is named. Ends the
/// process where the line is wrong or asks for help, as clap does.
pub fn parse(line: Vec<OsString>) -> Result<(Cli, Option<ConfigFile>), ConfigFileError> {
    let Some(wanted) = Wanted::by(&line) else {
        return Ok((Cli::parse_from(line), None));
    };
    let config = ConfigFile::read(wanted.path)?;
    let role = wanted.command.as_deref();
    config.check_values(role)?;
    let matches = config
        .as_defaults(Cli::command(), role)
        .get_matches_from(line);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok((cli, Some(config)))
}

/// What a first look at the command line tells: the config file and the command.
struct Wanted {
    path: PathBuf,
    command: Option<String>,
}

impl Wanted {
    /// `None` where no file is named, or where the line asks for help or is wrong.
    fn by(line: &[OsString]) -> Option<Wanted> {
        let matches: ArgMatches = Cli::command()
            .ignore_errors(true)
            .try_get_matches_from(line)
            .ok()?;
        Some(Wanted {
            path: matches.get_one::<PathBuf>("config")?.clone(),
            command: matches.subcommand_name().map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests;
