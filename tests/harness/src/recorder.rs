//! A library in C, loaded into a master, that writes down every change and every sync of its files,
//! and lets syncs fail: see `recorder.c` for what tells it to.

use crate::folder::Folder;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the library into `folder`; its path is for `LD_PRELOAD`.
pub fn compile(folder: &Folder) -> PathBuf {
    let library = folder.join("recorder.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("recorder.c");
    let compiled = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    assert!(compiled.expect("a C compiler, `cc`, is needed").success());
    library
}
