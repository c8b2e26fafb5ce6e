//! Names of tasks, jobs, modules, attempts and bytes. A name is checked once, when it is read.

use crate::limits;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use std::borrow::Cow;
use std::fmt;

/// Why a name is refused: the sentence for people, without the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(String);

/// Checks a name; `extra` are the characters that it may hold beside letters and digits.
fn check(text: &str, what: &str, extra: &str) -> Result<(), BadName> {
    let shown = || text.chars().take(40).collect::<String>();
    if text.is_empty() {
        return Err(BadName(format!("{what} is empty")));
    }
    if text.len() > limits::NAME_BYTES_MAX {
        let shown = shown();
        let is = text.len();
        let max = limits::NAME_BYTES_MAX;
        return Err(BadName(format!(
            "{what} `{shown}…` has {is} characters, at most {max} are allowed"
        )));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(fits) {
        let shown = shown();
        return Err(BadName(format!(
            "{what} `{shown}` may hold only A-Z a-z 0-9 {extra} and begin with a letter or digit"
        )));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $extra:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks `text`: at most 128 of the allowed characters, beginning alphanumeric.
            pub fn new(text: &str) -> Result<Self, BadName> {
                check(text, $what, $extra)?;
                Ok($name(text.into()))
            }

            /// The text of the name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // A binary form comes from the master's own disk, behind a checksum. The name in it
                // was checked when it was first read.
                let is_ours = !deserializer.is_human_readable();
                let text = BorrowedText::deserialize(deserializer)?;
                if is_ours {
                    return Ok($name(text.0.as_ref().into()));
                }
                Self::new(&text.0).map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "maxLength": limits::NAME_BYTES_MAX,
                    "pattern": concat!("^[A-Za-z0-9][A-Za-z0-9", $extra, "]*$"),
                })
            }
        }
    };
}

/// A string that is borrowed from the input where it holds no escapes, so that a name is copied
/// once only.
#[derive(Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

name!(
    /// The id of a task. The client makes it before the first send, and it is never used for
    /// another task.
    TaskId, "the id", "._:-"
);
name!(
    /// The name of a job, which is the group of tasks that people wait for, watch and cancel, and
    /// between which runners are shared fairly.
    JobName, "the job", "._:-"
);
name!(
    /// The name of a module, which is the stem of its file in the task folder.
    ModuleName, "the module's name", "._-"
);
name!(
    /// A word that an operator sets for a module. It is a part of the keys of the module's answers,
    /// so that another word makes older answers unknown.
    Salt, "the salt", "._:-"
);

/// The SHA-256 of some bytes: the name of a blob, or the version of a module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        use sha2::Digest;
        Hash(sha2::Sha256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits of either case.
    pub fn parse(text: &str) -> Option<Hash> {
        let digits = text.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = (high * 16 + low) as u8;
        }
        Some(Hash(hash))
    }

    /// The first 12 digits, which are enough for people.
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        let mut digits = [0u8; 64];
        for (pair, byte) in digits.chunks_mut(2).zip(self.0) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        serializer.serialize_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 32]>::deserialize(deserializer).map(Hash);
        }
        let text = BorrowedText::deserialize(deserializer)?;
        Hash::parse(&text.0)
            .ok_or_else(|| serde::de::Error::custom("a SHA-256 has 64 hexadecimal digits"))
    }
}

impl schemars::JsonSchema for Hash {
    fn schema_name() -> Cow<'static, str> {
        "Hash".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
    }
}

/// The id of an attempt among those of its task. Ids are ordered: a later attempt of a task is
/// greater, also across restarts of the master, because each start raises the epoch.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct AttemptId {
    /// How many times a master had started on its journal when it sent the attempt.
    pub epoch: u32,
    /// The number of the attempt, from 1.
    pub n: u32,
}

impl From<(u32, u32)> for AttemptId {
    fn from((epoch, n): (u32, u32)) -> Self {
        AttemptId { epoch, n }
    }
}

impl From<AttemptId> for (u32, u32) {
    fn from(id: AttemptId) -> Self {
        (id.epoch, id.n)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

/// The module in a task document: a name, or a name with the beginning of the version that the task
/// wants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModuleRef {
    /// The name of the module.
    pub name: ModuleName,
    /// The first 8 to 64 hexadecimal digits of the wanted version, in lower case. `None` takes the
    /// newest version.
    pub pin: Option<Box<str>>,
}

impl ModuleRef {
    /// Reads `name` or `name@sha256:` and 8 to 64 digits.
    pub fn parse(text: &str) -> Result<ModuleRef, BadName> {
        let Some((name, pin)) = text.split_once('@') else {
            return Ok(ModuleRef {
                name: ModuleName::new(text)?,
                pin: None,
            });
        };
        let digits = pin
            .strip_prefix("sha256:")
            .unwrap_or_default()
            .to_ascii_lowercase();
        if !(8..=64).contains(&digits.len()) || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            let shown: String = pin.chars().take(80).collect();
            return Err(BadName(format!(
                "`@{shown}` does not pin a version: \
                 write `{name}@sha256:` and 8 to 64 hexadecimal digits"
            )));
        }
        Ok(ModuleRef {
            name: ModuleName::new(name)?,
            pin: Some(digits.into()),
        })
    }
}

impl fmt::Display for ModuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pin {
            Some(pin) => write!(f, "{}@sha256:{pin}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

impl Serialize for ModuleRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.pin {
            Some(_) => serializer.collect_str(self),
            None => self.name.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ModuleRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ModuleRef, D::Error> {
        let text = BorrowedText::deserialize(deserializer)?;
        ModuleRef::parse(&text.0).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for ModuleRef {
    fn schema_name() -> Cow<'static, str> {
        "ModuleRef".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "`name`, or `name@sha256:<8 to 64 digits>` to pin a version",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*(@sha256:[0-9a-fA-F]{8,64})?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_say_what_is_wrong() {
        assert!(TaskId::new("a:b.c-d_").is_ok());
        assert!(TaskId::new("018f.x:1-2").is_ok());
        for bad in ["", "-x", "a b", "ü", &"x".repeat(129)] {
            assert!(TaskId::new(bad).is_err(), "{bad:?}");
        }
        assert!(TaskId::new(&"x".repeat(128)).is_ok());
        assert_eq!(
            TaskId::new("a b").unwrap_err().to_string(),
            "the id `a b` may hold only A-Z a-z 0-9 ._:- and begin with a letter or digit"
        );
    }

    #[test]
    fn a_module_can_be_pinned() {
        let pinned = ModuleRef::parse("echo@sha256:DEADBEEF").unwrap();
        assert_eq!(
            (pinned.name.as_str(), pinned.pin.as_deref()),
            ("echo", Some("deadbeef"))
        );
        assert_eq!(pinned.to_string(), "echo@sha256:deadbeef");
        assert!(ModuleRef::parse("echo@sha256:dead").is_err());
        assert!(ModuleRef::parse("echo@latest").is_err());
    }

    #[test]
    fn a_hash_reads_what_it_writes() {
        let hash = Hash::of(b"abc");
        assert!(hash.to_string().starts_with("ba7816bf8f01cfea"));
        assert_eq!(Hash::parse(&hash.to_string()), Some(hash));
        assert_eq!(serde_json::to_string(&hash).unwrap(), format!("\"{hash}\""));
        assert_eq!(Hash::parse("xyz"), None);
    }

    #[test]
    fn attempts_are_ordered_across_epochs() {
        let old = AttemptId { epoch: 1, n: 7 };
        let new = AttemptId { epoch: 2, n: 1 };
        assert!(old < new);
        assert_eq!(serde_json::to_string(&new).unwrap(), "[2,1]");
    }
}
