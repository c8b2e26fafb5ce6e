//! Files of a task: where they lie in its folder, and by what names their bytes travel.
//!
//! A file is named by the SHA-256 of its bytes. A folder is named by the SHA-256 of its
//! [`Listing`], which names its files. However many tasks share a folder, each of them carries one
//! name only.

use crate::{Hash, limits, relative};
use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The first part of a path that does not lie in the task's folder: `/tmp` is a folder of its own.
pub const TMP: &str = "tmp";

/// Where a file lies in a task's folder: parts with `/` between them, never absolute, never
/// upwards. The path means the same on the machine that sends the file, in the sandbox, and below
/// the folder that `--fetch` writes to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(SmolStr);

/// Why a path is refused: the sentence for people, without the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPath(pub String);

impl FilePath {
    /// Checks `text`: at most [`limits::PATH_BYTES_MAX`] bytes, [`limits::PATH_PART_BYTES_MAX`] in
    /// each part.
    pub fn new(text: &str) -> Result<FilePath, BadPath> {
        let check_part = |part: &str| {
            let is = part.len();
            let max = limits::PATH_PART_BYTES_MAX;
            if is > max {
                return Err(format!(
                    "has a part of {is} bytes, at most {max} are allowed"
                ));
            }
            Ok(())
        };
        relative::check(text, check_part).map_err(|why| {
            let shown = relative::shown(text);
            BadPath(format!(
                "the path `{shown}` {why}; \
                 write it like `data/points.csv`, inside the task's folder"
            ))
        })?;
        Ok(FilePath(text.into()))
    }

    /// The path of this file below `folder`. Refused where it is too long.
    pub fn below(&self, folder: &FilePath) -> Result<FilePath, BadPath> {
        FilePath::new(&format!("{folder}/{self}"))
    }

    /// The path's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path lies in the task's `/tmp`, which is no part of its folder.
    pub fn is_tmp(&self) -> bool {
        self.as_str().split('/').next() == Some(TMP)
    }
}

/// Checks that files can lie at all these paths at once, on every kind of disk: no two differ only
/// by case, and none is both a file and a folder.
pub fn can_coexist<'a>(paths: impl IntoIterator<Item = &'a FilePath>) -> Result<(), BadPath> {
    let mut seen: BTreeMap<String, &FilePath> = BTreeMap::new();
    for path in paths {
        if let Some(other) = seen.insert(path.as_str().to_lowercase(), path) {
            return Err(BadPath(format!(
                "the paths `{other}` and `{path}` differ only by case"
            )));
        }
    }
    for (lower, path) in &seen {
        for (end, _) in lower.match_indices('/') {
            if let Some(outer) = seen.get(&lower[..end]) {
                return Err(BadPath(format!(
                    "`{path}` lies inside `{outer}`, which is another file or folder"
                )));
            }
        }
    }
    different_case_of_folders(seen.values().copied())
}

/// Refuses `a/x` beside `A/y`, which is one folder on some disks and two on others.
fn different_case_of_folders<'a>(paths: impl Iterator<Item = &'a FilePath>) -> Result<(), BadPath> {
    let mut folders: BTreeMap<String, &str> = BTreeMap::new();
    for path in paths {
        for (end, _) in path.as_str().match_indices('/') {
            let folder = &path.as_str()[..end];
            let known = *folders.entry(folder.to_lowercase()).or_insert(folder);
            if known != folder {
                return Err(BadPath(format!(
                    "the folders `{known}` and `{folder}` differ only by case"
                )));
            }
        }
    }
    Ok(())
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for FilePath {
    type Err = BadPath;
    fn from_str(text: &str) -> Result<FilePath, BadPath> {
        FilePath::new(text)
    }
}

impl Borrow<str> for FilePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FilePath, D::Error> {
        let text = String::deserialize(deserializer)?;
        FilePath::new(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for FilePath {
    fn schema_name() -> Cow<'static, str> {
        "FilePath".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "maxLength": limits::PATH_BYTES_MAX,
            "description": "Relative, parts with `/` between them, no `.` and `..`.",
        })
    }
}

/// What is put at a path before a task runs. The task may read it, remove it and put something else
/// there. The task cannot write into it, because other tasks share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum InputRef {
    /// A file.
    File {
        /// The SHA-256 of the file.
        sha256: Hash,
    },
    /// A folder with everything in it.
    Folder {
        /// The SHA-256 of the folder's listing.
        folder: Hash,
    },
}

impl InputRef {
    /// The blob that the input names.
    pub fn blob(&self) -> Hash {
        match self {
            InputRef::File { sha256 } => *sha256,
            InputRef::Folder { folder } => *folder,
        }
    }

    /// The listing, where it is a folder.
    pub fn listing(&self) -> Option<Hash> {
        match self {
            InputRef::File { .. } => None,
            InputRef::Folder { folder } => Some(*folder),
        }
    }
}

impl<'de> Deserialize<'de> for InputRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<InputRef, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            sha256: Option<Hash>,
            folder: Option<Hash>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = InputRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "{\"sha256\": a file's hash} or {\"folder\": the hash of a folder's listing}",
                )
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<InputRef, E> {
                let shown: String = text.chars().take(80).collect();
                Err(E::custom(format!(
                    "`{shown}` is a path of the machine that sends the task: \
                     put its bytes at /blobs/<sha256> and give {{\"sha256\": …}}; \
                     `taskmaster feed` and `add` do that"
                )))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<InputRef, A::Error> {
                match Fields::deserialize(MapAccessDeserializer::new(map))? {
                    Fields {
                        sha256: Some(sha256),
                        folder: None,
                    } => Ok(InputRef::File { sha256 }),
                    Fields {
                        sha256: None,
                        folder: Some(folder),
                    } => Ok(InputRef::Folder { folder }),
                    _ => Err(serde::de::Error::custom(
                        "it must have one of `sha256` and `folder`",
                    )),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// One file of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListedFile {
    /// The SHA-256 of the file.
    pub sha256: Hash,
    /// The size of the file, in bytes.
    pub bytes: u64,
}

/// The files of a folder by their path below it. Folders without files are not listed. As JSON,
/// without white space and sorted by path, a listing is a blob, and its hash names the folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Listing {
    /// The files, at most [`limits::FOLDER_FILES_MAX`].
    pub files: BTreeMap<FilePath, ListedFile>,
}

impl Listing {
    /// The bytes whose hash names the folder.
    pub fn encode(&self) -> Vec<u8> {
        // Strings, hashes and numbers always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads and checks a listing of at most [`limits::LISTING_BYTES_MAX`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Listing, BadPath> {
        if bytes.len() > limits::LISTING_BYTES_MAX {
            let is = bytes.len();
            let max = limits::LISTING_BYTES_MAX;
            return Err(BadPath(format!(
                "a folder's listing has {is} bytes, at most {max} are allowed"
            )));
        }
        let listing: Listing = serde_json::from_slice(bytes)
            .map_err(|error| BadPath(format!("it is no listing of a folder: {error}")))?;
        listing.check()?;
        Ok(listing)
    }

    /// Checks that the listing is within its limits and that its files can lie beside each other.
    pub fn check(&self) -> Result<(), BadPath> {
        let is = self.files.len();
        let max = limits::FOLDER_FILES_MAX;
        if is > max {
            return Err(BadPath(format!(
                "the folder has {is} files, at most {max} are allowed"
            )));
        }
        can_coexist(self.files.keys())
    }

    /// The blobs that the listing names, each once.
    pub fn blobs(&self) -> BTreeSet<Hash> {
        self.files.values().map(|file| file.sha256).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FilePath {
        FilePath::new(text).unwrap()
    }

    #[test]
    fn paths_stay_inside_the_folder() {
        let long = format!("a/{}", "x".repeat(limits::PATH_PART_BYTES_MAX + 1));
        let longer = "ab/".repeat(limits::PATH_BYTES_MAX / 3 + 1) + "x";
        for (text, words) in [
            ("", "is empty"),
            ("/etc/passwd", "is absolute"),
            ("../x", "the part `..`"),
            ("a/../b", "the part `..`"),
            ("./a", "the part `.`"),
            ("a//b", "an empty part"),
            ("a/", "an empty part"),
            ("a\0b", "a control character"),
            ("a\nb", "a control character"),
            (&long, "a part of 256 bytes"),
            (&longer, "at most 512"),
        ] {
            let error = FilePath::new(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
        for text in [
            "a", "a/b.c", ".hidden", "..a", "a b/ü", "a\\b", "...", "-rf",
        ] {
            assert_eq!(path(text).as_str(), text);
        }
        assert!(
            path("tmp/a").is_tmp()
                && path("tmp").is_tmp()
                && !path("tmpx").is_tmp()
                && !path("a/tmp").is_tmp()
        );
    }

    #[test]
    fn paths_that_some_disk_cannot_hold_together_are_refused() {
        for (paths, words) in [
            (vec!["a.svg", "A.svg"], "differ only by case"),
            (vec!["Ä/x", "ä/X"], "differ only by case"),
            (vec!["a/x", "A/y"], "the folders"),
            (vec!["a", "a/b"], "lies inside `a`"),
            (vec!["A", "a/b"], "lies inside `A`"),
        ] {
            let paths: Vec<FilePath> = paths.iter().map(|text| path(text)).collect();
            let error = can_coexist(&paths).unwrap_err().to_string();
            assert!(error.contains(words), "{paths:?}: {error}");
        }
        let fine: Vec<FilePath> = ["a/b", "a/c", "ab", "a.b", "b/a"]
            .iter()
            .map(|text| path(text))
            .collect();
        can_coexist(&fine).unwrap();
    }

    #[test]
    fn an_input_is_a_file_or_a_folder() {
        let hash = Hash::of(b"x");
        let read = |text: &str| serde_json::from_str::<InputRef>(text);
        assert_eq!(
            read(&format!(r#"{{"sha256":"{hash}"}}"#)).unwrap(),
            InputRef::File { sha256: hash }
        );
        assert_eq!(
            read(&format!(r#"{{"folder":"{hash}"}}"#))
                .unwrap()
                .listing(),
            Some(hash)
        );
        for (text, words) in [
            (
                r#""./a.svg""#,
                "`./a.svg` is a path of the machine that sends the task",
            ),
            ("{}", "one of `sha256` and `folder`"),
            (r#"{"sha265":"x"}"#, "unknown field `sha265`"),
            (r#"{"sha256":"x"}"#, "64 hexadecimal digits"),
            ("7", "expected {\"sha256\""),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_listing_is_the_same_bytes_for_the_same_files() {
        let file = |text: &str| ListedFile {
            sha256: Hash::of(text.as_bytes()),
            bytes: text.len() as u64,
        };
        let listing = Listing {
            files: [(path("b/c"), file("1")), (path("a"), file(""))].into(),
        };
        let bytes = listing.encode();
        assert!(
            bytes.starts_with(br#"{"a":{"sha256":""#),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
        assert_eq!(Listing::decode(&bytes).unwrap(), listing);
        for (text, words) in [
            ("[]", "no listing"),
            (r#"{"../a":{"sha256":"x","bytes":1}}"#, "the part `..`"),
            (
                &format!(
                    r#"{{"a":{{"sha256":"{0}","bytes":1}},"A":{{"sha256":"{0}","bytes":1}}}}"#,
                    Hash::of(b"")
                ),
                "case",
            ),
        ] {
            let error = Listing::decode(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
