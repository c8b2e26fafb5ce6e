//! The files that a task gives back: found in its folder when it has ended.

use crate::inputs::place::Placing;
use crate::sandbox::files::TaskFolder;
use crate::sandbox::limits::DISK_BYTES_MAX;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use taskmaster_protocol::{FilePath, Glob, limits};

/// Names that stand in a failure's message.
const SHOWN_MAX: usize = 5;

/// A file to give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its path in the task's folder.
    pub path: FilePath,
    /// Where it is on this machine.
    pub file: PathBuf,
    /// How many bytes it has.
    pub bytes: u64,
}

/// Files to give back, and the folder that they are in as long as this lives.
#[derive(Debug)]
pub struct MadeFiles {
    /// In the order of their paths.
    pub files: Vec<Made>,
    /// Removed when nobody needs the files any more.
    pub folder: TaskFolder,
}

impl MadeFiles {
    /// How many bytes they have together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// What a walk through the folder met.
#[derive(Default)]
struct Met {
    made: Vec<Made>,
    /// Inputs that are as they were.
    unchanged: Vec<String>,
    /// Names that no path can have.
    odd: Vec<String>,
}

/// The files in `own` that are given back: those that one of `globs` matches, or all; never what
/// the task found there and left as it was. The sentence says why it is no success.
pub fn find(
    own: &Path,
    inputs: Option<&Placing>,
    globs: Option<&[Glob]>,
) -> Result<Vec<Made>, String> {
    if globs.is_some_and(<[Glob]>::is_empty) {
        return Ok(Vec::new());
    }
    let mut met = Met::default();
    walk(own, inputs, &mut met)
        .map_err(|error| format!("the task's folder could not be read: {error}"))?;
    let Met {
        mut made,
        unchanged,
        odd,
    } = met;
    made.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(globs) = globs {
        for glob in globs {
            if !made.iter().any(|file| glob.matches(file.path.as_str())) {
                return Err(nothing_for(glob, &made, &unchanged));
            }
        }
        made.retain(|file| globs.iter().any(|glob| glob.matches(file.path.as_str())));
    } else if let Some(name) = odd.first() {
        return Err(format!(
            "the task made a file that cannot be given back: {name}"
        ));
    }
    within_limits(&made)?;
    Ok(made)
}

fn nothing_for(glob: &Glob, made: &[Made], unchanged: &[String]) -> String {
    let glob_text = glob.as_str();
    if unchanged.iter().any(|path| glob.matches(path)) {
        return format!(
            "the output glob `{glob_text}` matches only inputs that the task left as they were"
        );
    }
    let mut names: Vec<&str> = made
        .iter()
        .take(SHOWN_MAX)
        .map(|file| file.path.as_str())
        .collect();
    if made.len() > SHOWN_MAX {
        names.push("…");
    }
    let has = if names.is_empty() {
        "made no file".to_owned()
    } else {
        format!("made {}", names.join(", "))
    };
    format!("no file matches the output glob `{glob_text}`; the task {has}")
}

fn within_limits(made: &[Made]) -> Result<(), String> {
    let (is, max) = (made.len(), limits::OUTPUT_FILES_MAX);
    if is > max {
        return Err(format!(
            "the task made {is} files, at most {max} are given back; name fewer with `outputs`, or pack them"
        ));
    }
    let (is, max) = (
        made.iter().map(|file| file.bytes).sum::<u64>(),
        DISK_BYTES_MAX,
    );
    if is > max {
        return Err(format!(
            "the files that the task made have {} MiB, at most {} are allowed",
            is >> 20,
            max >> 20
        ));
    }
    let (is, max) = (
        made.iter()
            .map(|file| file.path.as_str().len())
            .sum::<usize>(),
        limits::OUTPUT_PATHS_BYTES_MAX,
    );
    if is > max {
        return Err(format!(
            "the paths of the files that the task made have {is} bytes, at most {max} are allowed"
        ));
    }
    Ok(())
}

fn walk(own: &Path, inputs: Option<&Placing>, met: &mut Met) -> std::io::Result<()> {
    let mut folders = vec![(own.to_owned(), String::new())];
    while let Some((folder, below)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let inside = match name.to_str() {
                Some(name) if below.is_empty() => name.to_owned(),
                Some(name) => format!("{below}/{name}"),
                None => {
                    met.odd
                        .push(format!("`{}` is not UTF-8", name.to_string_lossy()));
                    continue;
                }
            };
            let about = entry.metadata()?;
            if about.is_dir() {
                folders.push((entry.path(), inside));
            } else if let Some((file, about)) = regular(own, entry.path(), about) {
                meet(&inside, file, &about, inputs, met);
            }
        }
    }
    Ok(())
}

/// A file, or the file inside the folder that a link stands for. What a link outside would lead to
/// is nobody's to see.
fn regular(own: &Path, path: PathBuf, about: Metadata) -> Option<(PathBuf, Metadata)> {
    if about.is_file() {
        return Some((path, about));
    }
    if !about.is_symlink() {
        return None;
    }
    let target = path.canonicalize().ok()?;
    let about = target.metadata().ok().filter(Metadata::is_file)?;
    target
        .starts_with(own.canonicalize().ok()?)
        .then_some((target, about))
}

fn meet(inside: &str, file: PathBuf, about: &Metadata, inputs: Option<&Placing>, met: &mut Met) {
    let path = match FilePath::new(inside) {
        Ok(path) if path.is_tmp() => return,
        Ok(path) => path,
        Err(error) => return met.odd.push(error.to_string()),
    };
    if inputs.is_some_and(|inputs| inputs.is_unchanged(inside, &file, about)) {
        return met.unchanged.push(inside.to_owned());
    }
    met.made.push(Made {
        path,
        file,
        bytes: about.len(),
    });
}
