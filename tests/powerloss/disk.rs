//! A disk, rebuilt from a recording: what is durable, and what of the rest may be there after a
//! power cut.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use taskmaster_harness::chance::Chance;

/// A disk writes so many bytes at once or not at all.
const SECTOR: usize = 512;

/// One line of the recording; see `struct head` in `recorder.c`. Paths are those below the root.
#[derive(Debug, Clone)]
pub struct Entry {
    kind: u8,
    path: PathBuf,
    offset: usize,
    data: Vec<u8>,
}

impl Entry {
    /// Whether a client was told something here.
    pub fn is_mark(&self) -> bool {
        self.kind == b'A'
    }

    pub fn is_sync_of(&self, path: &str) -> bool {
        self.kind == b'F' && self.path == Path::new(path)
    }
}

/// Appends to a running recording that a client was told that tasks are safe: an id on each line,
/// and `done` where its result is.
pub fn mark(log: &Path, told: &str) {
    let mut bytes = vec![b'A', 0, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&0u64.to_le_bytes());
    bytes.extend_from_slice(&(told.len() as u64).to_le_bytes());
    bytes.extend_from_slice(told.as_bytes());
    // One write, as the recorder's are.
    OpenOptions::new()
        .append(true)
        .open(log)
        .unwrap()
        .write_all(&bytes)
        .unwrap();
}

/// Reads a recording of what happened below `root`.
pub fn read(log: &Path, root: &Path) -> Vec<Entry> {
    let bytes = fs::read(log).unwrap();
    let (mut at, mut entries) = (0, Vec::new());
    let mut take = |count: usize| {
        at += count;
        &bytes[at - count..at]
    };
    let long = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap()) as usize;
    let below = |path: &Path| path.strip_prefix(root).unwrap_or(Path::new("")).to_owned();
    let mut left = bytes.len();
    while left > 0 {
        let kind = take(4)[0];
        let path_bytes = u32::from_le_bytes(take(4).try_into().unwrap()) as usize;
        let (offset, data_bytes) = (long(take(8)), long(take(8)));
        let path = below(Path::new(std::str::from_utf8(take(path_bytes)).unwrap()));
        let data = take(data_bytes).to_vec();
        left -= 24 + path_bytes + data_bytes;
        let data = match kind {
            b'N' => below(Path::new(std::str::from_utf8(&data).unwrap()))
                .to_str()
                .unwrap()
                .into(),
            _ => data,
        };
        entries.push(Entry {
            kind,
            path,
            offset,
            data,
        });
    }
    entries
}

/// What clients were told, and of which tasks that they are done.
pub fn told(entries: &[Entry]) -> BTreeMap<String, bool> {
    let mut told = BTreeMap::new();
    for mark in entries.iter().filter(|entry| entry.is_mark()) {
        for line in std::str::from_utf8(&mark.data).unwrap().lines() {
            match line.strip_suffix(" done") {
                Some(id) => told.insert(id.to_owned(), true),
                None => told.insert(line.to_owned(), false),
            };
        }
    }
    told
}

/// What is on the disk of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    Nothing,
    /// What came first, the last of it torn.
    Prefix,
    /// Any of it, some of it torn.
    Subset,
    All,
}

impl Policy {
    pub const EACH: [Policy; 4] = [Policy::Nothing, Policy::Prefix, Policy::Subset, Policy::All];

    pub fn name(self) -> &'static str {
        match self {
            Policy::Nothing => "nothing that was not synced",
            Policy::Prefix => "a prefix of what was not synced",
            Policy::Subset => "a subset of what was not synced",
            Policy::All => "all that was not synced",
        }
    }
}

/// A change of a file's content.
#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// A change of a folder, durable when that folder was synced.
#[derive(Debug, Clone)]
struct Naming {
    what: Name,
    durable: bool,
}

#[derive(Debug, Clone)]
enum Name {
    File(PathBuf, usize),
    Folder(PathBuf),
    Moved(PathBuf, PathBuf),
    Gone(PathBuf),
}

impl Name {
    fn path(&self) -> &Path {
        match self {
            Name::File(path, _) | Name::Folder(path) | Name::Gone(path) | Name::Moved(_, path) => {
                path
            }
        }
    }
}

/// The number of a file; `None`: a folder.
type Names = BTreeMap<PathBuf, Option<usize>>;

/// A disk on its way.
#[derive(Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    /// As the running system sees it.
    names: Names,
    namings: Vec<Naming>,
}

impl Disk {
    /// After these entries.
    pub fn after(entries: &[Entry]) -> Disk {
        let mut disk = Disk::default();
        // The root itself is there; who made it is not looked at.
        disk.names.insert(PathBuf::new(), None);
        entries.iter().for_each(|entry| disk.take(entry));
        disk
    }

    fn take(&mut self, entry: &Entry) {
        let Entry {
            kind,
            path,
            offset,
            data,
        } = entry;
        match kind {
            b'C' => {
                self.files.push(File::default());
                self.name(Name::File(path.clone(), self.files.len() - 1));
            }
            b'M' if !path.as_os_str().is_empty() => self.name(Name::Folder(path.clone())),
            b'N' => self.name(Name::Moved(
                path.clone(),
                PathBuf::from(std::str::from_utf8(data).unwrap()),
            )),
            b'U' | b'R' => self.name(Name::Gone(path.clone())),
            b'W' | b'S' => {
                // A file that nobody can name any more is of no interest.
                if let Some(Some(file)) = self.names.get(path) {
                    let change = if *kind == b'W' {
                        Change::Write(*offset, data.clone())
                    } else {
                        Change::Length(*offset)
                    };
                    self.files[*file].pending.push(change);
                }
            }
            b'F' => self.sync(path),
            _ => {}
        }
    }

    fn name(&mut self, what: Name) {
        rename(&mut self.names, &what);
        self.namings.push(Naming {
            what,
            durable: false,
        });
    }

    fn sync(&mut self, path: &Path) {
        match self.names.get(path) {
            Some(Some(file)) => {
                let file = &mut self.files[*file];
                file.pending
                    .drain(..)
                    .for_each(|change| apply(&mut file.durable, &change));
            }
            Some(None) => {
                let inside = |naming: &&mut Naming| naming.what.path().parent() == Some(path);
                self.namings
                    .iter_mut()
                    .filter(inside)
                    .for_each(|naming| naming.durable = true);
            }
            None => {}
        }
    }

    /// Writes what is there after the power cut to a new folder.
    pub fn write(&self, to: &Path, policy: Policy, chance: &mut Chance) {
        let mut names = Names::from([(PathBuf::new(), None)]);
        let pending = self.namings.iter().filter(|naming| !naming.durable).count() as u64;
        // File systems keep the order of what they do to folders.
        let mut kept = match policy {
            Policy::Nothing => 0,
            Policy::All => pending,
            Policy::Prefix | Policy::Subset => chance.within(0, pending),
        };
        for naming in &self.namings {
            if naming.durable || kept > 0 {
                kept -= u64::from(!naming.durable);
                rename(&mut names, &naming.what);
            }
        }
        fs::create_dir_all(to).unwrap();
        for (path, file) in names {
            // What lies in a folder that is not there is not there.
            let reachable = to.join(&path).parent().is_some_and(Path::is_dir);
            match file {
                _ if !reachable => {}
                None => fs::create_dir_all(to.join(&path)).unwrap(),
                Some(file) => {
                    fs::write(to.join(&path), self.content(file, policy, chance)).unwrap()
                }
            }
        }
    }

    fn content(&self, file: usize, policy: Policy, chance: &mut Chance) -> Vec<u8> {
        let File { durable, pending } = &self.files[file];
        let mut content = durable.clone();
        let whole = match policy {
            Policy::Nothing => 0,
            Policy::All => pending.len(),
            Policy::Prefix => chance.within(0, pending.len() as u64) as usize,
            Policy::Subset => {
                for change in pending {
                    match chance.below(3) {
                        0 => {}
                        1 => apply(&mut content, change),
                        _ => tear(&mut content, change, chance),
                    }
                }
                return content;
            }
        };
        pending[..whole]
            .iter()
            .for_each(|change| apply(&mut content, change));
        if policy == Policy::Prefix && whole < pending.len() {
            tear(&mut content, &pending[whole], chance);
        }
        content
    }
}

fn rename(names: &mut Names, what: &Name) {
    match what {
        Name::File(path, file) => _ = names.insert(path.clone(), Some(*file)),
        Name::Folder(path) => _ = names.insert(path.clone(), None),
        Name::Gone(path) => _ = names.remove(path),
        Name::Moved(from, to) => {
            let moved: Vec<PathBuf> = names
                .keys()
                .filter(|path| path.starts_with(from))
                .cloned()
                .collect();
            for path in moved {
                let below = path.strip_prefix(from).unwrap();
                let target = if below.as_os_str().is_empty() {
                    to.clone()
                } else {
                    to.join(below)
                };
                let file = names.remove(&path).unwrap();
                names.insert(target, file);
            }
        }
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => content.resize(*length, 0),
        Change::Write(at, bytes) => {
            content.resize(content.len().max(at + bytes.len()), 0);
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// Some sectors of a write are there, others are as they were.
fn tear(content: &mut Vec<u8>, change: &Change, chance: &mut Chance) {
    let Change::Write(at, bytes) = change else {
        return;
    };
    for (sector, part) in bytes.chunks(SECTOR).enumerate() {
        if chance.below(2) == 0 {
            apply(content, &Change::Write(at + sector * SECTOR, part.to_vec()));
        }
    }
}
