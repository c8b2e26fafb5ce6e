//! The files that a task gives back, found in its folder when it has ended.

use super::files::TaskFolder;
use super::limits::DISK_BYTES_MAX;
use super::tree::walk;
use crate::inputs::placement::InputPlacement;
use rustix::fs::FileType;
use std::fs::{self, Metadata};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use taskmaster_protocol::{FilePath, Glob, limits};

/// Names of files that stand in a failure's message.
const NAMES_SHOWN_MAX: usize = 5;

/// A file that a task gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// The path in the task's folder.
    pub path: FilePath,
    /// The path on this machine.
    pub file: PathBuf,
    /// The length of the file.
    pub bytes: u64,
}

/// The files that a task gives back. The task's folder stays as long as this lives.
#[derive(Debug)]
pub struct OutputFiles {
    /// The files in the order of their paths.
    pub files: Vec<OutputFile>,
    /// The task's folder, which holds the files.
    pub folder: TaskFolder,
}

impl OutputFiles {
    /// The length of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Why the files of a task are not what it had to give back. The task fails of it.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The folder could not be read.
    #[error("the task's folder could not be read: {0}")]
    Unreadable(#[from] io::Error),
    /// A glob asks for files of a module that cannot make any.
    #[error("no file matches the output glob `{0}`: the module uses no files")]
    NoFolder(String),
    /// A glob matches nothing but inputs.
    #[error("the output glob `{0}` matches only inputs that the task left as they were")]
    OnlyInputs(String),
    /// A glob matches nothing.
    #[error("no file matches the output glob `{glob}`; the task {made}")]
    NoMatch {
        /// The glob.
        glob: String,
        /// What the task made instead.
        made: String,
    },
    /// The name of a file is none that a path can have.
    #[error("the task made a file that cannot be given back: {0}")]
    BadName(String),
    /// There are too many files.
    #[error(
        "the task made {0} files, at most {max} are given back; \
         name fewer with `outputs`, or pack them",
        max = limits::OUTPUT_FILES_MAX
    )]
    TooMany(usize),
    /// The files are too long together.
    #[error(
        "the files that the task made have {mib} MiB, at most {max} are allowed",
        mib = .0 >> 20,
        max = DISK_BYTES_MAX >> 20
    )]
    TooLarge(u64),
    /// The paths of the files are too long together.
    #[error(
        "the paths of the files that the task made have {0} bytes, at most {max} are allowed",
        max = limits::OUTPUT_PATHS_BYTES_MAX
    )]
    PathsTooLong(usize),
}

/// What a walk through the folder found.
#[derive(Default)]
struct FoundOutputs {
    made: Vec<OutputFile>,
    /// Paths of inputs that the task left as they were.
    unchanged: Vec<String>,
    /// A sentence about the first path that no file can have.
    bad_name: Option<String>,
}

/// The files in `own` that are given back: those that one of `globs` matches, or all. Inputs that
/// the task left as they were are not given back.
pub fn find_outputs(
    own: &Path,
    inputs: Option<&InputPlacement>,
    globs: Option<&[Glob]>,
) -> Result<Vec<OutputFile>, OutputError> {
    if globs.is_some_and(<[Glob]>::is_empty) {
        return Ok(Vec::new());
    }
    let FoundOutputs {
        mut made,
        unchanged,
        bad_name,
    } = find_all(own, inputs)?;
    made.sort_by(|a, b| a.path.cmp(&b.path));

    if let Some(globs) = globs {
        for glob in globs {
            if !made.iter().any(|file| glob.matches(file.path.as_str())) {
                return Err(nothing_for(glob, &made, &unchanged));
            }
        }
        made.retain(|file| globs.iter().any(|glob| glob.matches(file.path.as_str())));
    } else if let Some(name) = bad_name {
        return Err(OutputError::BadName(name));
    }
    within_limits(&made)?;
    Ok(made)
}

fn nothing_for(glob: &Glob, made: &[OutputFile], unchanged: &[String]) -> OutputError {
    let glob_text = glob.as_str().to_owned();
    if unchanged.iter().any(|path| glob.matches(path)) {
        return OutputError::OnlyInputs(glob_text);
    }
    let mut names: Vec<&str> = made
        .iter()
        .take(NAMES_SHOWN_MAX)
        .map(|file| file.path.as_str())
        .collect();
    if made.len() > NAMES_SHOWN_MAX {
        names.push("…");
    }
    let made = if names.is_empty() {
        "made no file".to_owned()
    } else {
        format!("made {}", names.join(", "))
    };
    OutputError::NoMatch {
        glob: glob_text,
        made,
    }
}

fn within_limits(made: &[OutputFile]) -> Result<(), OutputError> {
    if made.len() > limits::OUTPUT_FILES_MAX {
        return Err(OutputError::TooMany(made.len()));
    }
    let bytes = made.iter().map(|file| file.bytes).sum();
    if bytes > DISK_BYTES_MAX {
        return Err(OutputError::TooLarge(bytes));
    }
    let path_bytes = made.iter().map(|file| file.path.as_str().len()).sum();
    if path_bytes > limits::OUTPUT_PATHS_BYTES_MAX {
        return Err(OutputError::PathsTooLong(path_bytes));
    }
    Ok(())
}

/// Finds what is in the folder. A path that no file that is given back can have is told, and
/// whatever its length it ends nothing.
fn find_all(own: &Path, inputs: Option<&InputPlacement>) -> io::Result<FoundOutputs> {
    let mut contents = FoundOutputs::default();
    walk(own, |entry| {
        if entry.kind() == FileType::Directory {
            return ControlFlow::Continue(());
        }
        let path = match entry.inside.to_str().map(FilePath::new) {
            Some(Ok(path)) if path.is_tmp() => return ControlFlow::Continue(()),
            Some(Ok(path)) => path,
            Some(Err(error)) => {
                contents.tell_bad_name(|| error.to_string());
                return ControlFlow::Continue(());
            }
            None => {
                let name = || format!("`{}` is not UTF-8", entry.inside.to_string_lossy());
                contents.tell_bad_name(name);
                return ControlFlow::Continue(());
            }
        };
        let place = own.join(path.as_str());
        if let Ok(metadata) = fs::symlink_metadata(&place)
            && let Some((file, metadata)) = regular(own, place, metadata)
        {
            contents.add(path, file, &metadata, inputs);
        }
        ControlFlow::Continue(())
    })?;
    Ok(contents)
}

/// A file, or the file inside the task's folder to which a link leads. A link that leads outside is
/// not followed, because nobody may see what is there.
fn regular(own: &Path, path: PathBuf, metadata: Metadata) -> Option<(PathBuf, Metadata)> {
    if metadata.is_file() {
        return Some((path, metadata));
    }
    if !metadata.is_symlink() {
        return None;
    }
    let target = path.canonicalize().ok()?;
    let metadata = target.metadata().ok().filter(Metadata::is_file)?;
    target
        .starts_with(own.canonicalize().ok()?)
        .then_some((target, metadata))
}

impl FoundOutputs {
    fn tell_bad_name(&mut self, why: impl FnOnce() -> String) {
        self.bad_name.get_or_insert_with(why);
    }

    /// Adds the file at `path` of the task's folder, which is `file` on this machine.
    fn add(
        &mut self,
        path: FilePath,
        file: PathBuf,
        metadata: &Metadata,
        inputs: Option<&InputPlacement>,
    ) {
        if inputs.is_some_and(|inputs| inputs.is_unchanged(path.as_str(), &file, metadata)) {
            return self.unchanged.push(path.as_str().to_owned());
        }
        self.made.push(OutputFile {
            path,
            file,
            bytes: metadata.len(),
        });
    }
}
