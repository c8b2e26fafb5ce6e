//! One config file: it is read, its values are checked, and they become defaults of options.

use super::reader::Reader;
use super::setting::{ConfigFileError, ROLES, Setting, TOKEN};
use crate::cli::Cli;
use clap::{Command, CommandFactory};
use std::path::{Path, PathBuf};
use toml::Table;

/// A file that was read. All its keys are options, and all its values have the form of theirs.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    settings: Vec<Setting>,
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
