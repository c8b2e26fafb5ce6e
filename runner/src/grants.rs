//! What this runner gives to modules that may have it: variables of its environment, secrets,
//! folders. A module asks for them by name in its manifest, the master's operator approves that,
//! and the master sends the approved names with each attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taskmaster_protocol::{Capabilities, capabilities, limits};

/// Where a module finds the folders that it may read: `/folders/NAME`.
pub const FOLDERS: &str = "/folders";

/// What the operator of a runner types.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct GrantArgs {
    /// A name that tasks can require in `requires.env`; if it is set here, modules that may see it
    /// find its value (repeatable)
    #[arg(long = "env", value_name = "NAME")]
    pub env: Vec<String>,
    /// Secrets and folders.
    #[command(flatten)]
    pub shared: SharedGrantArgs,
}

/// The options that `taskmaster run` has, too.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SharedGrantArgs {
    /// A file of NAME=VALUE lines that only its owner may read: secrets for modules that may have
    /// them
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// A folder for modules that may read it, as /folders/NAME (repeatable)
    #[arg(long = "folder", value_name = "NAME=DIR", value_parser = folder)]
    pub folders: Vec<(String, PathBuf)>,
}

/// Why the operator's options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// A folder cannot be read.
    #[error("--folder {name}={}: {error}", .path.display())]
    Folder {
        /// The name for modules.
        name: String,
        /// The folder as it was typed.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Two folders have one name.
    #[error("--folder {0}: the name is given twice")]
    FolderTwice(String),
    /// The file of secrets cannot be used.
    #[error("--secrets {}: {error}", .path.display())]
    Secrets {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: SecretsError,
    },
}

/// Why a file of secrets cannot be used. A sentence never repeats what stands in the file, because
/// that may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// The path is that of a folder or a device.
    #[error("it is no file")]
    NoFile,
    /// Other users could read the secrets.
    #[error("others may read it (mode {mode:03o}): chmod 600 {}", .path.display())]
    OthersMayRead {
        /// The permissions of the file.
        mode: u32,
        /// The file.
        path: PathBuf,
    },
    /// The file is too long.
    #[error("it has more than {} bytes", limits::SECRETS_BYTES_MAX)]
    TooLong,
    /// A line has no `=`.
    #[error("line {0} is not of the form NAME=VALUE")]
    NoValue(usize),
    /// A name is none that a secret can have.
    #[error(
        "line {0}: what stands before `=` is no name of a secret \
         (letters, digits and _, not beginning with a digit or TASKMASTER_, 128 at most)"
    )]
    BadName(usize),
    /// A value cannot stand in an environment.
    #[error("line {0}: the value of `{1}` holds a zero byte")]
    ZeroByte(usize, String),
    /// Two secrets have one name.
    #[error("line {0}: `{1}` is given twice")]
    Twice(usize, String),
}

/// A module asks for what this runner does not give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this runner does not offer {0}")]
pub struct NotOffered(pub Capabilities);

fn folder(text: &str) -> Result<(String, PathBuf), String> {
    let Some((name, path)) = text.split_once('=').filter(|(_, path)| !path.is_empty()) else {
        return Err(format!("`{text}` is not of the form NAME=DIR"));
    };
    capabilities::check_folder(name).map_err(|why| format!("`{name}` {why}"))?;
    Ok((name.to_owned(), path.into()))
}

/// A value that is never shown, not even in a debug log.
#[derive(Clone, PartialEq, Eq)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What this runner can give, by name.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    env: BTreeMap<String, Secret>,
    secrets: BTreeMap<String, Secret>,
    folders: BTreeMap<String, PathBuf>,
}

/// What one attempt is given.
#[derive(Debug, Default)]
pub struct Granted {
    /// Variables and secrets, by name.
    variables: Vec<(String, Secret)>,
    /// The path by which the module finds each folder, and the folder's path on this machine.
    pub folders: Vec<(String, PathBuf)>,
    /// Hosts to which the module may send HTTP requests.
    pub http: BTreeSet<String>,
}

impl Granted {
    /// The variables and secrets, as name and value.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.0.as_str()))
    }
}

impl Grants {
    /// The grants that the operator typed. `variable` looks into this process's environment.
    pub fn new(
        args: &GrantArgs,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Grants, GrantError> {
        let mut grants = Grants::shared(&args.shared)?;
        // What cannot be the name of a variable is a name that tasks require, and nothing else.
        let names = args
            .env
            .iter()
            .filter(|name| capabilities::check_variable(name).is_ok());
        let set = |name: &String| Some((name.clone(), Secret(variable(name)?)));
        grants.env = names.filter_map(set).collect();
        Ok(grants)
    }

    /// Secrets and folders alone.
    pub fn shared(args: &SharedGrantArgs) -> Result<Grants, GrantError> {
        let mut grants = Grants::default();
        for (name, path) in &args.folders {
            let folder = readable_folder(path).map_err(|error| GrantError::Folder {
                name: name.clone(),
                path: path.clone(),
                error,
            })?;
            if grants.folders.insert(name.clone(), folder).is_some() {
                return Err(GrantError::FolderTwice(name.clone()));
            }
        }
        if let Some(path) = &args.secrets {
            let secrets = read_secrets(path).and_then(|text| parse_secrets(&text));
            grants.secrets = secrets.map_err(|error| GrantError::Secrets {
                path: path.clone(),
                error,
            })?;
        }
        Ok(grants)
    }

    /// These grants and one variable more.
    pub fn with_variable(mut self, name: &str, value: String) -> Grants {
        self.env.insert(name.to_owned(), Secret(value));
        self
    }

    /// The folders of this machine that modules may be given.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.values().map(PathBuf::as_path)
    }

    /// What the master is told: names, no values.
    pub fn offered(&self) -> Capabilities {
        Capabilities {
            http: BTreeSet::new(),
            env: self.env.keys().cloned().collect(),
            secrets: self.secrets.keys().cloned().collect(),
            folders: self.folders.keys().cloned().collect(),
        }
    }

    /// What an attempt is given that may have `wanted`.
    pub fn give(&self, wanted: Option<&Arc<Capabilities>>) -> Result<Granted, NotOffered> {
        let Some(wanted) = wanted else {
            return Ok(Granted::default());
        };
        // Every runner reaches the network, so hosts are not offered.
        let missing = Capabilities {
            http: BTreeSet::new(),
            ..wanted.beyond(&self.offered())
        };
        if !missing.is_empty() {
            return Err(NotOffered(missing));
        }

        let mut variables = named(&wanted.env, &self.env);
        variables.extend(named(&wanted.secrets, &self.secrets));
        let folder =
            |name: &String| Some((format!("{FOLDERS}/{name}"), self.folders.get(name)?.clone()));
        Ok(Granted {
            variables,
            folders: wanted.folders.iter().filter_map(folder).collect(),
            http: wanted.http.clone(),
        })
    }
}

fn named(names: &BTreeSet<String>, all: &BTreeMap<String, Secret>) -> Vec<(String, Secret)> {
    names
        .iter()
        .filter_map(|name| all.get_key_value(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The whole path of a folder whose entries can be listed.
fn readable_folder(path: &Path) -> io::Result<PathBuf> {
    let path = fs::canonicalize(path)?;
    fs::read_dir(&path)?;
    Ok(path)
}

/// The text of a file that nobody but its owner can read.
fn read_secrets(path: &Path) -> Result<String, SecretsError> {
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(SecretsError::NoFile);
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(SecretsError::OthersMayRead { mode, path });
        }
    }
    let max = limits::SECRETS_BYTES_MAX;
    let mut text = String::new();
    file.take(max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > max {
        Err(SecretsError::TooLong)
    } else {
        Ok(text)
    }
}

/// Reads lines of the form `NAME=VALUE`. Empty lines and those that begin with `#` are left out.
fn parse_secrets(text: &str) -> Result<BTreeMap<String, Secret>, SecretsError> {
    let mut secrets = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(SecretsError::NoValue(number));
        };
        let name = name.trim().to_owned();
        if capabilities::check_variable(&name).is_err() {
            return Err(SecretsError::BadName(number));
        }
        if value.contains('\0') {
            return Err(SecretsError::ZeroByte(number, name));
        }
        let secret = Secret(value.to_owned());
        if secrets.insert(name.clone(), secret).is_some() {
            return Err(SecretsError::Twice(number, name));
        }
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_given_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().to_owned();
        let file = folder.join("secrets");
        fs::write(&file, "# ours\n\nKEY = a=b \nPIN=1\n").unwrap();
        let chmod = |mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(&file, mode).unwrap();
        };
        let shared = SharedGrantArgs {
            secrets: Some(file.clone()),
            folders: vec![("data".into(), folder.clone())],
        };
        let args = GrantArgs {
            env: vec!["LANG".into(), "gpu!".into(), "UNSET".into()],
            shared,
        };
        let variable = |name: &str| (name == "LANG").then(|| "C".to_owned());
        chmod(0o644);
        let error = Grants::new(&args, variable).unwrap_err().to_string();
        assert!(
            error.contains("mode 644") && error.contains("chmod 600"),
            "{error}"
        );
        chmod(0o600);
        let grants = Grants::new(&args, variable).unwrap();
        assert_eq!(
            grants.offered().to_string(),
            "variable LANG, secrets KEY and PIN, folder data"
        );
        assert!(!format!("{grants:?}").contains("a=b"), "{grants:?}");
        let mut wanted = grants.offered();
        wanted.secrets.remove("PIN");
        wanted.http.insert("a.org".into());
        let given = grants.give(Some(&Arc::new(wanted.clone()))).unwrap();
        assert_eq!(
            given.variables().collect::<Vec<_>>(),
            [("LANG", "C"), ("KEY", " a=b ")]
        );
        assert_eq!(
            given.folders,
            [(
                "/folders/data".to_owned(),
                fs::canonicalize(&folder).unwrap()
            )]
        );
        assert!(given.http.contains("a.org"));
        wanted.folders.insert("more".into());
        assert_eq!(
            grants
                .give(Some(&Arc::new(wanted)))
                .unwrap_err()
                .to_string(),
            "this runner does not offer folder more"
        );
        assert!(grants.give(None).unwrap().variables().next().is_none());
    }

    #[test]
    fn mistakes_are_named_and_never_repeat_a_secret() {
        for (text, words) in [
            ("A=1\nhunter2", "line 2 is not"),
            ("hunter 2=x", "line 1: what stands before"),
            ("A=hunter2\nA=hunter3", "line 2: `A` is given twice"),
            ("TASKMASTER_JOB=hunter2", "line 1"),
        ] {
            let error = parse_secrets(text).unwrap_err().to_string();
            assert!(
                error.contains(words) && !error.contains("hunter"),
                "{error}"
            );
        }
        for (text, words) in [
            ("x", "NAME=DIR"),
            ("=x", "no name of a folder"),
            ("a/b=x", "no name"),
            ("a=", "NAME=DIR"),
        ] {
            assert!(folder(text).unwrap_err().contains(words), "{text}");
        }
        let missing = SharedGrantArgs {
            secrets: None,
            folders: vec![("a".into(), "/nowhere/at/all".into())],
        };
        assert!(
            Grants::shared(&missing)
                .unwrap_err()
                .to_string()
                .contains("--folder a=/nowhere/at/all")
        );
    }
}
