//! What keeps a guest from writing into a file that it shares with others.
//!
//! Input files are links to read-only files. The system lets nobody open such a file for writing,
//! not even its owner. The exception is a process with the right to override permissions, which
//! root has. So a thread gives up that right before it runs a guest, and the threads that do its
//! file operations inherit that. Nothing in WASI can change permissions. A guest that tries to
//! write is told "permission denied". It may remove the link or put another file in its place,
//! which changes nothing for others.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

thread_local! {
    static GIVEN_UP: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Gives up this thread's right to write into read-only files, for good. `false` means that the
/// thread may still have the right.
pub fn give_up_override() -> bool {
    if let Some(given_up) = GIVEN_UP.get() {
        return given_up;
    }
    let given_up = drop_right();
    GIVEN_UP.set(Some(given_up));
    given_up
}

#[cfg(target_os = "linux")]
fn drop_right() -> bool {
    use caps::{CapSet, Capability};
    // Rights belong to threads: the other threads of this process keep theirs.
    caps::drop(None, CapSet::Effective, Capability::CAP_DAC_OVERRIDE).is_ok()
        && caps::has_cap(None, CapSet::Effective, Capability::CAP_DAC_OVERRIDE)
            .is_ok_and(|has| !has)
}

#[cfg(not(target_os = "linux"))]
fn drop_right() -> bool {
    false
}

/// Whether files in `folder` can be linked, and read-only files are safe from a thread that has
/// given up its right. This is tried out, because some network file systems have rules of their
/// own.
pub fn holds(folder: &Path) -> bool {
    let probe = folder.join(".probe");
    let link = folder.join(".probe-link");
    let tried = std::thread::scope(|scope| {
        let trying = scope.spawn(|| {
            if !give_up_override() {
                return false;
            }
            let made = File::create(&probe).and_then(|file| {
                let mut permissions = file.metadata()?.permissions();
                permissions.set_readonly(true);
                file.set_permissions(permissions)?;
                fs::hard_link(&probe, &link)
            });
            let written = OpenOptions::new().write(true).open(&link);
            made.is_ok() && written.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
        });
        trying.join().unwrap_or(false)
    });
    for path in [&probe, &link] {
        let _ = fs::remove_file(path);
    }
    tried
}
