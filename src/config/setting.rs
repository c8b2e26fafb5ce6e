//! One option that a config file sets, and why a file cannot be used.

use crate::cli::Cli;
use clap::error::ErrorKind;
use clap::{Arg, Parser};
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// The commands that have a table in the file.
pub(super) const ROLES: [&str; 3] = ["master", "runner", "up"];

/// The role whose options are checked where the command has no table: it has all options that
/// every command has.
const ANY_ROLE: &str = "runner";

/// The option whose value is never shown.
pub(super) const TOKEN: &str = "token";

/// Why a config file cannot be used. A sentence that names the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    #[error("--config {}: {error}", .path.display())]
    Unreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{}, line {line}: {why}", .path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        why: String,
    },
    #[error("{}: {why}", .path.display())]
    UnknownKey { path: PathBuf, why: String },
    #[error("{}: {key} = {value}: {why}", .path.display())]
    WrongValue {
        path: PathBuf,
        key: String,
        value: String,
        why: String,
    },
}

/// An option, by its place in the file.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The table in which the option stands; `None`: at the top.
    pub(super) role: Option<&'static str>,
    /// The long name of the option.
    pub(super) option: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(role) = self.role {
            write!(f, "[{role}] ")?;
        }
        f.write_str(&self.option)
    }
}

/// One option that the file sets.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: Key,
    /// What would be typed after the option, once for each time that it would be typed.
    pub(super) values: Vec<String>,
    pub(super) is_flag: bool,
    /// The value as the file has it, for messages.
    pub(super) source: String,
}

impl Setting {
    /// Checks the values with the parser of the command line and with the role itself. The error
    /// says what is wrong with the value.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.is_flag {
            return Ok(());
        }
        let role = self.key.role.unwrap_or(ANY_ROLE);
        let option = format!("--{}", self.key.option);
        let typed = self.values.iter().map(|value| format!("{option}={value}"));
        let line = ["taskmaster", role]
            .map(str::to_owned)
            .into_iter()
            .chain(typed);
        let cli = Cli::try_parse_from(line).map_err(reason)?;
        match cli.check() {
            Err(error) if error.starts_with(&option) => Err(error[option.len()..]
                .trim_start_matches([':', ' '])
                .to_owned()),
            // Another option is wrong in the environment; the start will tell.
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Makes the values the defaults of `arg` where it is this option.
    pub(super) fn as_default(&self, arg: Arg) -> Arg {
        if arg.get_long() != Some(self.key.option.as_str()) {
            return arg;
        }
        // clap keeps defaults as `&'static str`. They live as long as the process.
        let leaked = |value: &String| -> &'static str { value.clone().leak() };
        arg.default_values(self.values.iter().map(leaked))
    }
}

/// Why clap refuses a value, in words that need no command line.
fn reason(error: clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    let text = error.to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match error.kind() {
        // The second line has the values that are possible.
        ErrorKind::InvalidValue => lines.next().unwrap_or(first).trim().to_owned(),
        _ => first.trim_start_matches("error: ").to_owned(),
    }
}
