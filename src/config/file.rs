//! One config file: which options it sets, and what they become.

use super::reader::Reader;
use crate::cli::Cli;
use clap::error::ErrorKind;
use clap::{Arg, Command, CommandFactory, Parser};
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Table;

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

/// A file that was read. All its keys are options, and all its values have the form of theirs.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    settings: Vec<Setting>,
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

impl ConfigFile {
    pub fn read(path: PathBuf) -> Result<ConfigFile, ConfigFileError> {
        match std::fs::read_to_string(&path) {
            Ok(text) => ConfigFile::from_text(path, &text),
            Err(error) => Err(ConfigFileError::Unreadable { path, error }),
        }
    }

    pub fn from_text(path: PathBuf, text: &str) -> Result<ConfigFile, ConfigFileError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            ConfigFileError::Syntax {
                path: path.clone(),
                line: before.map_or(1, |before| before.matches('\n').count() + 1),
                why: error.message().to_owned(),
            }
        })?;
        let reader = Reader {
            path: &path,
            tree: Cli::command(),
        };
        let settings = reader.settings(table)?;
        Ok(ConfigFile { path, settings })
    }

    /// Checks the values that a command would take, each by the parser of the command line and by
    /// the role itself.
    pub fn check_values(&self, command: Option<&str>) -> Result<(), ConfigFileError> {
        for setting in self.settings_for(command) {
            if let Err(why) = setting.check() {
                return Err(ConfigFileError::WrongValue {
                    path: self.path.clone(),
                    key: setting.key.to_string(),
                    value: setting.source.clone(),
                    why,
                });
            }
        }
        Ok(())
    }

    /// Makes the settings that concern `command` the defaults of its options.
    pub fn as_defaults(&self, tree: Command, command: Option<&str>) -> Command {
        // What stands in the role's table comes later, and so over what stands at the top.
        self.settings_for(command).fold(tree, |tree, setting| {
            let tree = tree.mut_args(|arg| setting.as_default(arg));
            match command {
                // Roles have options of their own under names that every command has.
                Some(role) if ROLES.contains(&role) => {
                    tree.mut_subcommand(role, |role| role.mut_args(|arg| setting.as_default(arg)))
                }
                _ => tree,
            }
        })
    }

    /// Logs a warning where others can read a token in this file.
    pub fn warn_of_exposed_token(&self) {
        let has_token = self
            .settings
            .iter()
            .any(|setting| setting.key.option == TOKEN);
        if has_token && is_readable_by_others(&self.path) {
            tracing::warn!(
                "{}: every user of this machine can read the token in this file; `chmod 640` it",
                self.path.display()
            );
        }
    }

    /// The settings at the top, then those in the table of `command`.
    fn settings_for(&self, command: Option<&str>) -> impl Iterator<Item = &Setting> {
        let top = self
            .settings
            .iter()
            .filter(|setting| setting.key.role.is_none());
        let own = self
            .settings
            .iter()
            .filter(move |setting| setting.key.role.is_some() && setting.key.role == command);
        top.chain(own)
    }
}

#[cfg(unix)]
fn is_readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_readable_by_others(_: &Path) -> bool {
    false
}

impl Setting {
    fn check(&self) -> Result<(), String> {
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

    fn as_default(&self, arg: Arg) -> Arg {
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
