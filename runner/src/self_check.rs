//! Tries out whether this machine can run tasks: what a task needs of it is done once, in small.

use crate::inputs::TaskInputs;
use crate::sandbox::{Program, Sandbox};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are written, so that a disk on which nothing but names fits does not pass.
const PROBE_BYTES: usize = 1 << 20;

/// A module that does nothing.
const SMALL_MODULE: &[u8] = br#"(module (func (export "_start")))"#;

/// What is tried out.
#[derive(Clone)]
pub struct SelfCheck {
    /// The folders of tasks.
    pub sandbox: Arc<Sandbox>,
    /// The cache of inputs.
    pub inputs: Arc<TaskInputs>,
    /// The folders that modules may be given.
    pub granted: Vec<PathBuf>,
}

impl SelfCheck {
    /// Does what a task needs, and says what fails. Blocks on the disk.
    pub fn run(&self) -> Result<(), String> {
        let folder = self
            .sandbox
            .make_folder()
            .map_err(|error| format!("no task's folder can be made: {error}"))?;
        let made = folder.own();
        write(&made).map_err(|error| format!("nothing can be written in {made:?}: {error}"))?;
        let cache = self.inputs.folder();
        self.inputs
            .make_anew()
            .and_then(|()| write(cache))
            .map_err(|error| format!("nothing can be written in {cache:?}: {error}"))?;
        for granted in &self.granted {
            fs::read_dir(granted)
                .map_err(|error| format!("the folder {granted:?} cannot be read: {error}"))?;
        }
        Program::compile(&self.sandbox, SMALL_MODULE)
            .map_err(|error| format!("no module can be executed: {error}"))?;
        Ok(())
    }
}

/// Writes a file, reads it back, and removes it.
fn write(folder: &Path) -> io::Result<()> {
    let path = folder.join(".self-check");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![1; PROBE_BYTES])?;
        // Some disks find out only here that they are full.
        file.sync_data()
    });
    let read = written.and_then(|()| fs::read(&path));
    let removed = fs::remove_file(&path);
    if read?.len() != PROBE_BYTES {
        return Err(io::Error::other("what was written does not come back"));
    }
    removed
}
