//! Files and folders of this machine that become inputs of tasks: they are hashed, and named as a
//! task names them.

use crate::files::hash_file;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use taskmaster_protocol::files::{BadPath, FilePath, InputRef, ListedFile, Listing};
use taskmaster_protocol::{Hash, limits};

/// Bytes of a path that stand in a refusal.
const SHOWN_BYTES: usize = 60;

/// Hashes of files that are remembered. When there are more, all are computed again.
const REMEMBERED_MAX: usize = 200_000;

/// Where the bytes of a blob are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobSource {
    /// The bytes of this file.
    File(PathBuf),
    /// Bytes in memory, for the listing of a folder.
    Memory(Bytes),
}

/// An input, and the blobs that the master must have before a task names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalInput {
    /// What the task names.
    pub input: InputRef,
    /// The blobs by their hashes. The listing of a folder comes after its files.
    pub blobs: Vec<(Hash, BlobSource)>,
}

/// What tells whether a file has changed since it was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    bytes: u64,
    modified: Option<SystemTime>,
    inode: InodeStamp,
}

/// The identity of a file, whatever its name is, and the time of its last change, whatever was
/// changed. Zeros where the system has no such numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct InodeStamp {
    device: u64,
    number: u64,
    changed_s: i64,
    changed_ns: i64,
}

impl FileStamp {
    fn of(about: &Metadata) -> FileStamp {
        FileStamp {
            bytes: about.len(),
            modified: about.modified().ok(),
            inode: InodeStamp::of(about),
        }
    }
}

impl InodeStamp {
    #[cfg(unix)]
    fn of(about: &Metadata) -> InodeStamp {
        use std::os::unix::fs::MetadataExt;
        InodeStamp {
            device: about.dev(),
            number: about.ino(),
            changed_s: about.ctime(),
            changed_ns: about.ctime_nsec(),
        }
    }

    #[cfg(not(unix))]
    fn of(_: &Metadata) -> InodeStamp {
        InodeStamp::default()
    }
}

/// Reads inputs, and remembers the hashes of files that have not changed since.
#[derive(Debug, Default)]
pub struct LocalInputs {
    hashes: HashMap<PathBuf, (FileStamp, Hash)>,
    /// The paths that were read since the last [`LocalInputs::look_again`].
    seen: HashMap<PathBuf, Result<Arc<LocalInput>, String>>,
}

impl LocalInputs {
    /// Forgets which paths were read, so that changes of files are seen from now on.
    pub fn look_again(&mut self) {
        self.seen.clear();
        if self.hashes.len() > REMEMBERED_MAX {
            self.hashes.clear();
        }
    }

    /// Forgets the hash of a file that changed while it was sent, whatever its stamp says.
    pub fn forget(&mut self, path: &Path) {
        self.hashes.remove(path);
    }

    /// Reads the file or folder at `path`. The error is a sentence for people. Blocks on the disk.
    pub fn read(&mut self, path: &Path) -> Result<Arc<LocalInput>, String> {
        if let Some(seen) = self.seen.get(path) {
            return seen.clone();
        }
        let read = self.look(path).map(Arc::new);
        self.seen.insert(path.to_owned(), read.clone());
        read
    }

    fn look(&mut self, path: &Path) -> Result<LocalInput, String> {
        let about = fs::metadata(path).map_err(cannot(path))?;
        if about.is_dir() {
            return self.folder(path);
        }
        let file = self.file(path, &about)?;
        let input = InputRef::File {
            sha256: file.sha256,
        };
        Ok(LocalInput {
            input,
            blobs: vec![(file.sha256, BlobSource::File(path.to_owned()))],
        })
    }

    fn file(&mut self, path: &Path, about: &Metadata) -> Result<ListedFile, String> {
        let shown = path.display();
        if !about.is_file() {
            return Err(format!("{shown} is neither a file nor a folder"));
        }
        if about.len() > limits::BLOB_BYTES_MAX {
            let is = about.len() >> 20;
            let max = limits::BLOB_BYTES_MAX >> 20;
            return Err(format!("{shown} has {is} MiB, at most {max} are allowed"));
        }
        let stamp = FileStamp::of(about);
        if let Some((known, sha256)) = self.hashes.get(path)
            && *known == stamp
        {
            return Ok(ListedFile {
                sha256: *sha256,
                bytes: stamp.bytes,
            });
        }
        let (sha256, bytes) = hash_file(path).map_err(cannot(path))?;
        self.hashes.insert(path.to_owned(), (stamp, sha256));
        Ok(ListedFile { sha256, bytes })
    }

    fn folder(&mut self, root: &Path) -> Result<LocalInput, String> {
        let found = self.files_below(root)?;
        let wrong = |error: BadPath| format!("{}: {error}", root.display());
        let mut listing = Listing::default();
        let mut sources: BTreeMap<Hash, PathBuf> = BTreeMap::new();
        for FoundFile { below, path, file } in found {
            let name = FilePath::new(&below).map_err(wrong)?;
            sources.insert(file.sha256, path);
            listing.files.insert(name, file);
        }
        listing.check().map_err(wrong)?;

        let bytes = Bytes::from(listing.encode());
        let is = bytes.len();
        let max = limits::LISTING_BYTES_MAX;
        if is > max {
            let root = root.display();
            return Err(format!(
                "the names in {root} have {is} bytes, at most {max} are allowed"
            ));
        }
        let folder = Hash::of(&bytes);
        let mut blobs: Vec<_> = sources
            .into_iter()
            .map(|(hash, path)| (hash, BlobSource::File(path)))
            .collect();
        blobs.push((folder, BlobSource::Memory(bytes)));
        Ok(LocalInput {
            input: InputRef::Folder { folder },
            blobs,
        })
    }

    /// The files below `root`, at any depth, hashed.
    fn files_below(&mut self, root: &Path) -> Result<Vec<FoundFile>, String> {
        // With all links resolved, so that a link out of the folder is recognised by its
        // beginning.
        let real = root.canonicalize().map_err(cannot(root))?;
        let mut found: Vec<FoundFile> = Vec::new();
        let mut folders = vec![(root.to_owned(), String::new())];
        while let Some((folder, below)) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(cannot(&folder))? {
                let entry = entry.map_err(cannot(&folder))?;
                let path = entry.path();
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                    return Err(format!("{} has a name that is not UTF-8", path.display()));
                };
                let below = if below.is_empty() {
                    name
                } else {
                    format!("{below}/{name}")
                };
                let about = inside_of(&real, &path)?;
                if about.is_dir() {
                    check_depth(root, &below)?;
                    folders.push((path, below));
                    continue;
                }
                let max = limits::FOLDER_FILES_MAX;
                if found.len() == max {
                    let root = root.display();
                    return Err(format!(
                        "{root} has more than the {max} files that one folder may have"
                    ));
                }
                let file = self.file(&path, &about)?;
                found.push(FoundFile { below, path, file });
            }
        }
        Ok(found)
    }
}

/// Refuses a folder that lies so deep that no file in it could be named. A tree may be deeper than
/// paths can tell, and it would be read to its end for nothing.
fn check_depth(root: &Path, below: &str) -> Result<(), String> {
    let bytes = below.len();
    let max = limits::PATH_BYTES_MAX;
    if bytes < max {
        return Ok(());
    }
    let beginning = &below[..below.floor_char_boundary(SHOWN_BYTES)];
    Err(format!(
        "{} has a folder whose path has {bytes} bytes, files may have {max} at most: `{beginning}…`",
        root.display()
    ))
}

/// A file of a folder.
struct FoundFile {
    /// The path below the folder, with `/` between its parts.
    below: String,
    /// The path on this machine.
    path: PathBuf,
    file: ListedFile,
}

/// Reads `PATH=FILE`: the path of an input in the task's folder, and the file or folder of this
/// machine.
pub fn parse_input(text: &str) -> Result<(FilePath, PathBuf), String> {
    let Some((path, file)) = text.split_once('=').filter(|(_, file)| !file.is_empty()) else {
        return Err(format!(
            "`{text}` is not of the form path=file: \
             where it lies in the task's folder, and what it is here"
        ));
    };
    let path = FilePath::new(path).map_err(|error| error.to_string())?;
    Ok((path, file.into()))
}

/// The metadata of what is at `path` in a folder. A link to a file in the folder stands for that
/// file. A link out of the folder is refused, because it would send what nobody meant to send. A
/// link to a folder is refused, because it might never end.
fn inside_of(real: &Path, path: &Path) -> Result<Metadata, String> {
    let about = fs::symlink_metadata(path).map_err(cannot(path))?;
    if !about.is_symlink() {
        return Ok(about);
    }
    let target = path
        .canonicalize()
        .map_err(|error| format!("{} is a link that leads nowhere: {error}", path.display()))?;
    if !target.starts_with(real) {
        return Err(format!(
            "{} is a link that leads outside the folder, to {}; \
             put a copy there, or name that as an input of its own",
            path.display(),
            target.display()
        ));
    }
    let about = fs::metadata(&target).map_err(cannot(path))?;
    if about.is_dir() {
        return Err(format!(
            "{} is a link to a folder; put the folder itself there",
            path.display()
        ));
    }
    Ok(about)
}

fn cannot(path: &Path) -> impl Fn(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("cannot read {path}: {error}")
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test: a broken promise ends it"
    )]

    use super::*;
    use std::os::unix::fs::symlink;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir()
                .join(format!("taskmaster-local-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("in/deep")).unwrap();
            Scratch(path)
        }

        fn write(&self, path: &str, text: &str) {
            fs::write(self.0.join(path), text).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_folder_is_named_by_what_is_in_it() {
        let scratch = Scratch::new("named");
        scratch.write("in/a", "1");
        scratch.write("in/deep/b", "");
        scratch.write("in/same", "1");
        symlink("a", scratch.0.join("in/link")).unwrap();
        let mut local = LocalInputs::default();
        let folder = local.read(&scratch.0.join("in")).unwrap();
        let Some((hash, BlobSource::Memory(bytes))) = folder.blobs.last() else {
            panic!("{folder:?}")
        };
        assert_eq!(folder.input, InputRef::Folder { folder: *hash });
        let listing = Listing::decode(bytes).unwrap();
        let names: Vec<&str> = listing.files.keys().map(FilePath::as_str).collect();
        assert_eq!(names, ["a", "deep/b", "link", "same"]);
        assert_eq!(
            folder.blobs.len(),
            3,
            "the same bytes are sent once, and an empty file is a file"
        );
        scratch.write("in/a", "2");
        assert_eq!(
            local.read(&scratch.0.join("in")).unwrap(),
            folder,
            "one look"
        );
        local.look_again();
        assert_ne!(
            local.read(&scratch.0.join("in")).unwrap().input,
            folder.input
        );
    }

    #[test]
    fn what_would_send_other_than_was_meant_is_refused() {
        let scratch = Scratch::new("refused");
        scratch.write("secret", "s");
        let read = || {
            LocalInputs::default()
                .read(&scratch.0.join("in"))
                .unwrap_err()
        };
        let link = scratch.0.join("in/link");
        for (target, words) in [
            ("../secret", "leads outside the folder"),
            ("/etc/hostname", "leads outside the folder"),
            ("nowhere", "leads nowhere"),
            ("deep", "link to a folder"),
            ("..", "leads outside"),
        ] {
            symlink(target, &link).unwrap();
            let error = read();
            assert!(
                error.contains(words) && error.contains("in/link"),
                "{target}: {error}"
            );
            fs::remove_file(&link).unwrap();
        }
        scratch.write("in/x", "");
        scratch.write("in/X", "");
        assert!(
            read().contains("`X` and `x` differ only by case") || read().contains("`x` and `X`"),
            "{}",
            read()
        );
        let mut deep = scratch.0.join("in/deep");
        for _ in 0..20 {
            deep.push("d".repeat(50));
        }
        fs::create_dir_all(&deep).unwrap();
        fs::remove_file(scratch.0.join("in/X")).unwrap();
        assert!(read().contains("files may have 512 at most"), "{}", read());
        let none = LocalInputs::default()
            .read(&scratch.0.join("none"))
            .unwrap_err();
        assert!(
            none.contains("cannot read") && none.contains("none"),
            "{none}"
        );
        let device = LocalInputs::default()
            .read(Path::new("/dev/null"))
            .unwrap_err();
        assert!(device.contains("neither a file nor a folder"), "{device}");
    }
}
