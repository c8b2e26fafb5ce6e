//! What this runner gives to modules that may have it: variables of its environment, secrets,
//! folders. A module asks for them by name in its manifest, the master's operator approves that,
//! and the master sends it with each attempt.

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
    pub kept: KeptArgs,
}

/// The part of it that `taskmaster run` has, too.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KeptArgs {
    /// A file of NAME=VALUE lines that only its owner may read: secrets for modules that may have
    /// them
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// A folder for modules that may read it, as /folders/NAME (repeatable)
    #[arg(long = "folder", value_name = "NAME=DIR", value_parser = folder)]
    pub folders: Vec<(String, PathBuf)>,
}

fn folder(text: &str) -> Result<(String, PathBuf), String> {
    let Some((name, path)) = text.split_once('=').filter(|(_, path)| !path.is_empty()) else {
        return Err(format!("`{text}` is not of the form NAME=DIR"));
    };
    capabilities::check_folder(name).map_err(|why| format!("`{name}` {why}"))?;
    Ok((name.to_owned(), path.into()))
}

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What is given, by name.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    env: BTreeMap<String, Secret>,
    secrets: BTreeMap<String, Secret>,
    folders: BTreeMap<String, PathBuf>,
}

/// What one attempt is given.
#[derive(Debug, Default)]
pub struct Granted {
    /// Variables and secrets.
    variables: Vec<(String, Secret)>,
    /// Where the module finds a folder, and where it is here.
    pub folders: Vec<(String, PathBuf)>,
    /// Hosts that it may speak to.
    pub http: BTreeSet<String>,
}

impl Granted {
    /// Variables and secrets, as the module's environment has them.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.0.as_str()))
    }
}

impl Grants {
    /// From what was typed, and `variable`, which looks into this process's environment. An error
    /// says what to do.
    pub fn new(
        args: &GrantArgs,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Grants, String> {
        let mut grants = Grants::kept(&args.kept)?;
        let set = |name: &String| Some((name.clone(), Secret(variable(name)?)));
        // What cannot be the name of a variable is a name that tasks require, and nothing else.
        let names = args
            .env
            .iter()
            .filter(|name| capabilities::check_variable(name).is_ok());
        grants.env = names.filter_map(set).collect();
        Ok(grants)
    }

    /// Secrets and folders alone.
    pub fn kept(args: &KeptArgs) -> Result<Grants, String> {
        let mut grants = Grants::default();
        for (name, path) in &args.folders {
            let folder = fs::canonicalize(path).and_then(|path| fs::read_dir(&path).map(|_| path));
            let folder =
                folder.map_err(|error| format!("--folder {name}={}: {error}", path.display()))?;
            if grants.folders.insert(name.clone(), folder).is_some() {
                return Err(format!("--folder {name}: the name is given twice"));
            }
        }
        if let Some(path) = &args.secrets {
            let text =
                read_secrets(path).map_err(|why| format!("--secrets {}: {why}", path.display()))?;
            grants.secrets = parse_secrets(&text)
                .map_err(|why| format!("--secrets {}: {why}", path.display()))?;
        }
        Ok(grants)
    }

    /// Gives this variable, too.
    pub fn with_variable(mut self, name: &str, value: String) -> Grants {
        self.env.insert(name.to_owned(), Secret(value));
        self
    }

    /// What is told to the master: names, no values.
    pub fn offered(&self) -> Capabilities {
        Capabilities {
            http: BTreeSet::new(),
            env: self.env.keys().cloned().collect(),
            secrets: self.secrets.keys().cloned().collect(),
            folders: self.folders.keys().cloned().collect(),
        }
    }

    /// What an attempt that may have `wanted` is given. An error names what is not here.
    pub fn give(&self, wanted: Option<&Arc<Capabilities>>) -> Result<Granted, String> {
        let Some(wanted) = wanted else {
            return Ok(Granted::default());
        };
        let missing = Capabilities {
            http: BTreeSet::new(),
            ..wanted.beyond(&self.offered())
        };
        if !missing.is_empty() {
            return Err(format!("this runner does not offer {missing}"));
        }
        let named =
            |names: &BTreeSet<String>, all: &BTreeMap<String, Secret>| -> Vec<(String, Secret)> {
                names
                    .iter()
                    .filter_map(|name| all.get_key_value(name))
                    .map(|(n, v)| (n.clone(), v.clone()))
                    .collect()
            };
        let mut variables = named(&wanted.env, &self.env);
        variables.extend(named(&wanted.secrets, &self.secrets));
        let folder =
            |name: &String| Some((format!("{FOLDERS}/{name}"), self.folders.get(name)?.clone()));
        let folders = wanted.folders.iter().filter_map(folder).collect();
        Ok(Granted {
            variables,
            folders,
            http: wanted.http.clone(),
        })
    }
}

/// The text of a file that nobody but its owner can read.
fn read_secrets(path: &Path) -> Result<String, String> {
    let unread = |error: io::Error| error.to_string();
    let file = fs::File::open(path).map_err(unread)?;
    let about = file.metadata().map_err(unread)?;
    if !about.is_file() {
        return Err("it is no file".into());
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!(
                "others may read it (mode {mode:03o}): chmod 600 {}",
                path.display()
            ));
        }
    }
    let max = limits::SECRETS_BYTES_MAX;
    let mut text = String::new();
    file.take(max + 1)
        .read_to_string(&mut text)
        .map_err(unread)?;
    if text.len() as u64 > max {
        Err(format!("it has more than {max} bytes"))
    } else {
        Ok(text)
    }
}

/// `NAME=VALUE`, a line each; empty lines and those that begin with `#` are left out. Mistakes
/// never repeat what stands there: it may be a secret.
fn parse_secrets(text: &str) -> Result<BTreeMap<String, Secret>, String> {
    let mut secrets = BTreeMap::new();
    for (i, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {i} is not of the form NAME=VALUE"));
        };
        let name = name.trim();
        if capabilities::check_variable(name).is_err() {
            let why =
                "letters, digits and _, not beginning with a digit or TASKMASTER_, 128 at most";
            return Err(format!(
                "line {i}: what stands before `=` is no name of a secret ({why})"
            ));
        }
        if value.contains('\0') {
            return Err(format!("line {i}: the value of `{name}` holds a zero byte"));
        }
        if secrets
            .insert(name.to_owned(), Secret(value.to_owned()))
            .is_some()
        {
            return Err(format!("line {i}: `{name}` is given twice"));
        }
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        let folder = std::env::temp_dir().join(format!(
            "taskmaster-grants-{}",
            uuid::Uuid::now_v7().simple()
        ));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_is_offered_is_given_and_nothing_else() {
        let folder = scratch();
        let file = folder.join("secrets");
        fs::write(&file, "# ours\n\nKEY = a=b \nPIN=1\n").unwrap();
        let chmod = |mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(&file, mode).unwrap();
        };
        let kept = KeptArgs {
            secrets: Some(file.clone()),
            folders: vec![("data".into(), folder.clone())],
        };
        let args = GrantArgs {
            env: vec!["LANG".into(), "gpu!".into(), "UNSET".into()],
            kept,
        };
        let variable = |name: &str| (name == "LANG").then(|| "C".to_owned());
        chmod(0o644);
        let error = Grants::new(&args, variable).unwrap_err();
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
            grants.give(Some(&Arc::new(wanted))).unwrap_err(),
            "this runner does not offer folder more"
        );
        assert!(grants.give(None).unwrap().variables().next().is_none());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn mistakes_are_named_and_never_repeat_a_secret() {
        for (text, words) in [
            ("A=1\nhunter2", "line 2 is not"),
            ("hunter 2=x", "line 1: what stands before"),
            ("A=hunter2\nA=hunter3", "line 2: `A` is given twice"),
            ("TASKMASTER_JOB=hunter2", "line 1"),
        ] {
            let error = parse_secrets(text).unwrap_err();
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
        let missing = KeptArgs {
            secrets: None,
            folders: vec![("a".into(), "/nowhere/at/all".into())],
        };
        assert!(
            Grants::kept(&missing)
                .unwrap_err()
                .contains("--folder a=/nowhere/at/all")
        );
    }
}
