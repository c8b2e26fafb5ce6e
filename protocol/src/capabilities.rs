//! What a module may reach beyond its folder, a clock and random numbers. The manifest of the
//! module asks for it, the operator of the master approves it, and a runner offers it.

use crate::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv6Addr;

/// Characters of a wrong name that stand in the sentence about it.
const SHOWN_MAX: usize = 80;

/// Names by kind. One type says what a manifest asks for, what was approved, and what a runner
/// offers.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub struct Capabilities {
    /// Hosts that may be spoken to over HTTP: `example.org` on the usual ports, `example.org:8080`
    /// on another one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub http: BTreeSet<String>,
    /// Variables of the runner's environment.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub env: BTreeSet<String>,
    /// Secrets of the runner.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// Folders of the runner, for reading.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub folders: BTreeSet<String>,
}

impl Capabilities {
    /// The fields and the names in them.
    pub fn fields(&self) -> [(&'static str, &BTreeSet<String>); 4] {
        [
            ("http", &self.http),
            ("env", &self.env),
            ("secrets", &self.secrets),
            ("folders", &self.folders),
        ]
    }

    /// Whether no field has a name.
    pub fn is_empty(&self) -> bool {
        self.fields().iter().all(|(_, names)| names.is_empty())
    }

    /// The names that are not in `others`.
    pub fn beyond(&self, others: &Capabilities) -> Capabilities {
        let more = |of: &BTreeSet<String>, others: &BTreeSet<String>| {
            of.difference(others).cloned().collect()
        };
        Capabilities {
            http: more(&self.http, &others.http),
            env: more(&self.env, &others.env),
            secrets: more(&self.secrets, &others.secrets),
            folders: more(&self.folders, &others.folders),
        }
    }

    /// Adds the names that are in `others`.
    pub fn extend(&mut self, others: &Capabilities) {
        self.http.extend(others.http.iter().cloned());
        self.env.extend(others.env.iter().cloned());
        self.secrets.extend(others.secrets.iter().cloned());
        self.folders.extend(others.folders.iter().cloned());
    }

    /// Checks every name.
    pub fn check(&self) -> Result<(), BadCapability> {
        for (field, names) in self.fields() {
            if names.len() > limits::CAPABILITIES_MAX {
                let is = names.len();
                let max = limits::CAPABILITIES_MAX;
                return Err(BadCapability {
                    field,
                    why: format!("it has {is} names, at most {max} are allowed"),
                });
            }
            for name in names {
                let checked = match field {
                    "http" => check_host(name),
                    "folders" => check_folder(name),
                    _ => check_variable(name),
                };
                checked.map_err(|why| {
                    let shown: String = name.chars().take(SHOWN_MAX).collect();
                    BadCapability {
                        field,
                        why: format!("`{shown}` {why}"),
                    }
                })?;
            }
        }
        match self.env.intersection(&self.secrets).next() {
            Some(name) => Err(BadCapability {
                field: "secrets",
                why: format!("`{name}` is in `env`, too; a module finds both under one name"),
            }),
            None => Ok(()),
        }
    }
}

/// Why a name in [`Capabilities`] is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {why}")]
pub struct BadCapability {
    /// The field that the name stands in.
    pub field: &'static str,
    /// What is wrong, as a clause: `` `1x` is no name of a variable: … ``.
    pub why: String,
}

/// For people: `HTTP to example.org, variable HOME, secrets key and token, folder data`.
impl std::fmt::Display for Capabilities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [
            ("HTTP to", "HTTP to"),
            ("variable", "variables"),
            ("secret", "secrets"),
            ("folder", "folders"),
        ];
        let mut is_first = true;
        for ((_, names), (one, several)) in self.fields().into_iter().zip(words) {
            let Some(last) = names.last() else {
                continue;
            };
            let word = if names.len() == 1 { one } else { several };
            f.write_str(if is_first { "" } else { ", " })?;
            write!(f, "{word} ")?;
            let others: Vec<&str> = names
                .iter()
                .take(names.len() - 1)
                .map(String::as_str)
                .collect();
            f.write_str(&others.join(", "))?;
            f.write_str(if others.is_empty() { "" } else { " and " })?;
            f.write_str(last)?;
            is_first = false;
        }
        if is_first {
            f.write_str("nothing")?;
        }
        Ok(())
    }
}

/// Checks that `name` can be a variable that a module sees. The error is the rest of a sentence.
pub fn check_variable(name: &str) -> Result<(), String> {
    const WRONG: &str = "is no name of a variable: letters, digits and _, \
                         not beginning with a digit, 128 at most";
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_plain = |c: char| is_letter(c) || c.is_ascii_digit();
    if !name.starts_with(is_letter)
        || !name.chars().all(is_plain)
        || name.len() > limits::NAME_BYTES_MAX
    {
        return Err(WRONG.into());
    }
    if name.starts_with("TASKMASTER_") {
        return Err("begins with TASKMASTER_, which is kept for what every task sees".into());
    }
    Ok(())
}

/// Checks that `name` can be a folder. The error is the rest of a sentence.
pub fn check_folder(name: &str) -> Result<(), String> {
    const WRONG: &str = "is no name of a folder: letters, digits, `.`, `_` and `-`, \
                         beginning with a letter or digit, 128 at most";
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_sound = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(is_plain)
        && name.len() <= limits::NAME_BYTES_MAX;
    if is_sound { Ok(()) } else { Err(WRONG.into()) }
}

/// Checks that `text` is a host, or a host and a port, as an address has them.
fn check_host(text: &str) -> Result<(), String> {
    const WRONG: &str = "is no host: write it in small letters like `example.org`, \
                         `example.org:8080` or `[::1]:8080`, without https:// before it \
                         and a path behind it";
    let is_sound = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').is_some_and(|(host, after)| {
            host.parse::<Ipv6Addr>().is_ok()
                && (after.is_empty() || after.strip_prefix(':').is_some_and(is_port))
        }),
        None => match text.split_once(':') {
            Some((host, port)) => is_host_name(host) && is_port(port),
            None => is_host_name(text),
        },
    };
    if is_sound { Ok(()) } else { Err(WRONG.into()) }
}

/// A name or an IPv4 address. DNS takes at most 253 bytes.
fn is_host_name(host: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    host.starts_with(|c: char| c.is_ascii_alphanumeric())
        && host.chars().all(is_plain)
        && host.len() <= 253
}

/// A port as it is written usually, without a sign and zeros before it.
fn is_port(port: &str) -> bool {
    port.parse::<u16>()
        .is_ok_and(|number| number > 0 && number.to_string() == port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(http: &[&str], env: &[&str], secrets: &[&str], folders: &[&str]) -> Capabilities {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Capabilities {
            http: set(http),
            env: set(env),
            secrets: set(secrets),
            folders: set(folders),
        }
    }

    #[test]
    fn what_is_more_is_told_and_said() {
        let approved = of(&["a.org"], &["HOME"], &[], &[]);
        let wants = of(
            &["a.org", "b.org"],
            &["HOME"],
            &["key", "pin", "token"],
            &["data"],
        );
        let more = wants.beyond(&approved);
        assert_eq!(
            more.to_string(),
            "HTTP to b.org, secrets key, pin and token, folder data"
        );
        assert!(
            approved.beyond(&wants).is_empty() && Capabilities::default().to_string() == "nothing"
        );
        let mut all = approved.clone();
        all.extend(&more);
        assert!(wants.beyond(&all).is_empty());
    }

    #[test]
    fn names_are_checked() {
        let good = of(
            &["a.org", "127.0.0.1:80", "[::1]:8080", "[::1]", "x_y-z"],
            &["A_1"],
            &["key"],
            &["a.b-c"],
        );
        good.check().unwrap();
        for (bad, field) in [
            (of(&["https://a.org"], &[], &[], &[]), "http"),
            (of(&["a.org/x"], &[], &[], &[]), "http"),
            (of(&["A.org"], &[], &[], &[]), "http"),
            (of(&["a.org:0"], &[], &[], &[]), "http"),
            (of(&["a.org:080"], &[], &[], &[]), "http"),
            (of(&["*.org"], &[], &[], &[]), "http"),
            (of(&["::1"], &[], &[], &[]), "http"),
            (of(&[""], &[], &[], &[]), "http"),
            (of(&[], &["1A"], &[], &[]), "env"),
            (of(&[], &["A=B"], &[], &[]), "env"),
            (of(&[], &["TASKMASTER_JOB"], &[], &[]), "env"),
            (of(&[], &["A"], &["A"], &[]), "secrets"),
            (of(&[], &[], &[""], &[]), "secrets"),
            (of(&[], &[], &[], &["../x"]), "folders"),
            (of(&[], &[], &[], &[".."]), "folders"),
            (of(&[], &[], &[], &["a/b"]), "folders"),
        ] {
            assert_eq!(bad.check().unwrap_err().field, field, "{bad}");
        }
    }
}
