//! What a module may reach beyond its folder, a clock and chance: asked for by its manifest,
//! approved by the operator of the master, offered by a runner.

use crate::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Names by kind. The same type says what a manifest asks for, what was approved, and what a runner
/// offers.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub struct Capabilities {
    /// Hosts that it may speak to over HTTP: `example.org` on the usual ports, `example.org:8080`
    /// on another.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub http: BTreeSet<String>,
    /// Variables of the runner's environment.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub env: BTreeSet<String>,
    /// Secrets of the runner.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// Folders of the runner, to read.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub folders: BTreeSet<String>,
}

impl Capabilities {
    /// The names by the field that they stand in.
    pub fn fields(&self) -> [(&'static str, &BTreeSet<String>); 4] {
        [
            ("http", &self.http),
            ("env", &self.env),
            ("secrets", &self.secrets),
            ("folders", &self.folders),
        ]
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.fields().iter().all(|(_, names)| names.is_empty())
    }

    /// What of it is not in `others`.
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

    /// Takes what is in `others`, too.
    pub fn extend(&mut self, others: &Capabilities) {
        self.http.extend(others.http.iter().cloned());
        self.env.extend(others.env.iter().cloned());
        self.secrets.extend(others.secrets.iter().cloned());
        self.folders.extend(others.folders.iter().cloned());
    }

    /// What is wrong with a name, with the field that it stands in: `secrets`, `` `1x` is not … ``.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        for (field, names) in self.fields() {
            if names.len() > limits::CAPABILITIES_MAX {
                let max = limits::CAPABILITIES_MAX;
                return Err((
                    field,
                    format!("it has {} names, at most {max} are allowed", names.len()),
                ));
            }
            for name in names {
                let shown: String = name.chars().take(80).collect();
                let checked = match field {
                    "http" => check_host(name),
                    "folders" => check_folder(name),
                    _ => check_variable(name),
                };
                checked.map_err(|why| (field, format!("`{shown}` {why}")))?;
            }
        }
        match self.env.intersection(&self.secrets).next() {
            Some(name) => Err((
                "secrets",
                format!("`{name}` is in `env`, too; a module finds both under one name"),
            )),
            None => Ok(()),
        }
    }
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
        let mut first = true;
        for ((_, names), (one, several)) in self.fields().into_iter().zip(words) {
            let Some((last, others)) = names
                .iter()
                .collect::<Vec<_>>()
                .split_last()
                .map(|(l, o)| (*l, o.to_vec()))
            else {
                continue;
            };
            let word = if others.is_empty() { one } else { several };
            f.write_str(if first { "" } else { ", " })?;
            write!(f, "{word} ")?;
            for (i, name) in others.iter().enumerate() {
                write!(f, "{}{name}", if i == 0 { "" } else { ", " })?;
            }
            write!(f, "{}{last}", if others.is_empty() { "" } else { " and " })?;
            first = false;
        }
        if first {
            f.write_str("nothing")
        } else {
            Ok(())
        }
    }
}

/// Whether it can be the name of a variable that a module sees.
pub fn check_variable(name: &str) -> Result<(), String> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_sound =
        name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit());
    if !is_sound || name.len() > limits::NAME_BYTES_MAX {
        return Err("is no name of a variable: letters, digits and _, not beginning with a digit, 128 at most".into());
    }
    if name.starts_with("TASKMASTER_") {
        return Err("begins with TASKMASTER_, which is kept for what every task sees".into());
    }
    Ok(())
}

/// Whether it can be the name of a folder.
pub fn check_folder(name: &str) -> Result<(), String> {
    let is_sound = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && name.len() <= limits::NAME_BYTES_MAX;
    let why = "is no name of a folder: letters, digits, `.`, `_` and `-`, beginning with a letter or digit, 128 at most";
    if is_sound { Ok(()) } else { Err(why.into()) }
}

/// Whether it is a host, or a host and a port, as an address has it.
fn check_host(text: &str) -> Result<(), String> {
    let why = "is no host: write it in small letters like `example.org`, `example.org:8080` or `[::1]:8080`, without \
               https:// before it and a path behind it";
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(why)?;
            let is_address = host.parse::<std::net::Ipv6Addr>().is_ok();
            (
                is_address,
                if after.is_empty() {
                    None
                } else {
                    Some(after.strip_prefix(':').ok_or(why)?)
                },
            )
        }
        None => {
            let (host, port) = text
                .split_once(':')
                .map_or((text, None), |(host, port)| (host, Some(port)));
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
            let is_sound =
                host.starts_with(|c: char| c.is_ascii_alphanumeric()) && host.chars().all(plain);
            (is_sound && host.len() <= 253, port)
        }
    };
    let is_port = |port: &str| {
        port.parse::<u16>()
            .is_ok_and(|n| n > 0 && n.to_string() == port)
    };
    if host && port.is_none_or(is_port) {
        Ok(())
    } else {
        Err(why.into())
    }
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
            assert_eq!(bad.check().unwrap_err().0, field, "{bad}");
        }
    }
}
