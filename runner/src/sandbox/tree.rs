//! Folders that tasks made, gone through and removed whatever their depth. A task can make a tree
//! whose paths are longer than the system takes and deeper than a stack holds, so every step leads
//! from one open folder to the next, and two folders are open at a time.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How a folder of a tree is opened: never through a link.
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Something in a tree.
pub struct TreeEntry<'a> {
    /// The path below the root of the tree. It may be longer than the system takes.
    pub inside: &'a Path,
    /// What the system knows of it. A link is not followed.
    pub stat: Stat,
}

impl TreeEntry<'_> {
    /// What kind of thing it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Shows `visit` everything below `root`, until it breaks off. The tree may change meanwhile: what
/// is moved may be missed or shown twice.
pub fn walk(
    root: &Path,
    mut visit: impl FnMut(&TreeEntry<'_>) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut descent = Descent::open(root)?;
    let Some(folders) = descent.look(&mut visit)? else {
        return Ok(());
    };
    let mut pending = vec![folders];
    while let Some(folders) = pending.last_mut() {
        let Some(name) = folders.pop() else {
            pending.pop();
            descent.leave()?;
            // Where the tree was changed, the way up may have ended further up.
            pending.truncate(descent.depth() + 1);
            continue;
        };
        match descent.enter(&name) {
            Ok(()) => match descent.look(&mut visit)? {
                Some(folders) => pending.push(folders),
                None => return Ok(()),
            },
            Err(error) if is_gone(error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes `root` and everything below it. A folder that is not there is no error.
pub fn remove_tree(root: &Path) -> io::Result<()> {
    let mut descent = match Descent::open(root) {
        Ok(descent) => descent,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut pending = vec![descent.clear()?];
    while let Some(folders) = pending.last_mut() {
        if let Some(name) = folders.pop() {
            match descent.enter(&name) {
                Ok(()) => pending.push(descent.clear()?),
                Err(error) if is_gone(error) => {}
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        pending.pop();
        if let Some(name) = descent.leave()? {
            remove_at(&descent.here, &name, AtFlags::REMOVEDIR)?;
        }
        pending.truncate(descent.depth() + 1);
    }
    std::fs::remove_dir(root)
}

fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

fn remove_at(folder: &OwnedFd, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
    match unlinkat(folder, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// A way down into a tree.
struct Descent {
    root: OwnedFd,
    /// The folder that was entered last.
    here: OwnedFd,
    /// The folders that were entered and not left, from the root's child on.
    levels: Vec<Level>,
    /// The path of `here` below the root.
    inside: Vec<u8>,
}

struct Level {
    /// The name of the folder in its parent.
    name: CString,
    /// The device and the number of the parent, by which it is known again.
    parent: FolderId,
    /// The length of the parent's path below the root.
    parent_bytes: usize,
}

#[derive(PartialEq, Eq)]
struct FolderId {
    device: u64,
    number: u64,
}

impl FolderId {
    fn of(folder: &OwnedFd) -> Result<FolderId, Errno> {
        let stat = fstat(folder)?;
        Ok(FolderId {
            device: stat.st_dev,
            number: stat.st_ino,
        })
    }
}

fn open_below(folder: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(folder, name, FOLDER, Mode::empty())
}

impl Descent {
    fn open(root: &Path) -> io::Result<Descent> {
        let root = rustix::fs::open(root, FOLDER, Mode::empty())?;
        Ok(Descent {
            here: open_below(&root, c".")?,
            root,
            levels: Vec::new(),
            inside: Vec::new(),
        })
    }

    fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Goes down into the folder `name`.
    fn enter(&mut self, name: &CStr) -> Result<(), Errno> {
        let below = open_below(&self.here, name)?;
        self.levels.push(Level {
            name: name.to_owned(),
            parent: FolderId::of(&self.here)?,
            parent_bytes: self.inside.len(),
        });
        self.add_to_path(name);
        self.here = below;
        Ok(())
    }

    /// Goes up to the parent, and returns the name of the folder that was left. `None` at the root,
    /// and where the folder was moved away meanwhile.
    fn leave(&mut self) -> Result<Option<CString>, Errno> {
        let Some(level) = self.levels.pop() else {
            return Ok(None);
        };
        self.inside.truncate(level.parent_bytes);
        if let Ok(parent) = open_below(&self.here, c"..")
            && FolderId::of(&parent)? == level.parent
        {
            self.here = parent;
            return Ok(Some(level.name));
        }
        self.find_again()?;
        Ok(None)
    }

    /// Goes down from the root again, as far as there is a way.
    fn find_again(&mut self) -> Result<(), Errno> {
        self.here = open_below(&self.root, c".")?;
        for depth in 0..self.levels.len() {
            match open_below(&self.here, &self.levels[depth].name) {
                Ok(below) => self.here = below,
                Err(error) if is_gone(error) => {
                    self.inside.truncate(self.levels[depth].parent_bytes);
                    self.levels.truncate(depth);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn add_to_path(&mut self, name: &CStr) {
        if !self.inside.is_empty() {
            self.inside.push(b'/');
        }
        self.inside.extend_from_slice(name.to_bytes());
    }

    /// Shows what is in the folder, and returns the names of the folders in it. `None` if `visit`
    /// breaks off.
    fn look(
        &mut self,
        visit: &mut impl FnMut(&TreeEntry<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Vec<CString>>, Errno> {
        let mut folders = Vec::new();
        for entry in Dir::read_from(&self.here)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_self_or_parent(name) {
                continue;
            }
            let stat = match statat(&self.here, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(error) if is_gone(error) => continue,
                Err(error) => return Err(error),
            };
            let bytes = self.inside.len();
            self.add_to_path(name);
            let shown = TreeEntry {
                inside: Path::new(OsStr::from_bytes(&self.inside)),
                stat,
            };
            let is_folder = shown.kind() == FileType::Directory;
            let flow = visit(&shown);
            self.inside.truncate(bytes);
            if flow.is_break() {
                return Ok(None);
            }
            if is_folder {
                folders.push(name.to_owned());
            }
        }
        Ok(Some(folders))
    }

    /// Removes everything in the folder but the folders in it, and returns their names.
    fn clear(&self) -> Result<Vec<CString>, Errno> {
        let mut folders = Vec::new();
        for entry in Dir::read_from(&self.here)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_self_or_parent(name) {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                folders.push(name.to_owned());
                continue;
            }
            match remove_at(&self.here, name, AtFlags::empty()) {
                Ok(()) => {}
                // The file system does not tell kinds in its listings.
                Err(Errno::ISDIR) => folders.push(name.to_owned()),
                Err(error) => return Err(error),
            }
        }
        Ok(folders)
    }
}

fn is_self_or_parent(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// Makes `depth` folders inside each other, and in the innermost a file and a link out of the
    /// tree.
    fn make_deep(root: &Path, depth: usize) {
        let mut here = rustix::fs::open(root, FOLDER, Mode::empty()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = openat(&here, "d", FOLDER, Mode::empty()).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        openat(&here, "file", flags, Mode::RUSR | Mode::WUSR).unwrap();
        rustix::fs::symlinkat("/etc", &here, "link").unwrap();
    }

    fn seen(root: &Path) -> usize {
        let mut count = 0;
        let walked = walk(root, |_| {
            count += 1;
            ControlFlow::Continue(())
        });
        walked.unwrap();
        count
    }

    #[test]
    fn a_tree_deeper_than_paths_and_stacks_is_seen_whole_and_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        fs::create_dir(&root).unwrap();
        make_deep(&root, 5_000);
        // A thread of 64 KiB: a call for each level would need more.
        let below = root.clone();
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        let count = thread.spawn(move || {
            let count = seen(&below);
            remove_tree(&below).unwrap();
            count
        });
        assert_eq!(count.unwrap().join().unwrap(), 5_002);
        assert!(!root.exists());
        remove_tree(&root).unwrap();
    }

    #[test]
    fn paths_are_told_and_links_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = scratch.path().join("outside");
        let root = scratch.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(root.join("c")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        fs::write(root.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("c/link")).unwrap();
        let mut paths: Vec<PathBuf> = Vec::new();
        let walked = walk(&root, |entry| {
            paths.push(entry.inside.to_owned());
            ControlFlow::Continue(())
        });
        walked.unwrap();
        paths.sort();
        assert_eq!(
            paths,
            ["a", "a/b", "a/b/file", "c", "c/link"].map(PathBuf::from)
        );
        remove_tree(&root).unwrap();
        assert!(!root.exists() && outside.join("kept").exists());
    }

    #[test]
    fn a_folder_that_is_moved_away_on_the_way_does_not_end_the_walk() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        for path in ["a/b/c", "d", "e"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        let mut names = Vec::new();
        let walked = walk(&root, |entry| {
            names.push(entry.inside.to_string_lossy().into_owned());
            if entry.inside == Path::new("a/b/c") {
                fs::rename(root.join("a/b"), root.join("moved")).unwrap();
            }
            ControlFlow::Continue(())
        });
        walked.unwrap();
        assert!(
            ["a", "d", "e"]
                .iter()
                .all(|name| names.iter().any(|n| n == name))
        );
        assert!(names.iter().any(|name| name == "a/b/c"), "{names:?}");
    }
}
