//! What keeps a guest from writing into a file that it shares with others.
//!
//! Input files are links to read-only files. The system lets nobody open such a file for writing,
//! its owner included; only a process with the right to override permissions (root has it) may. So
//! a thread gives up that right before it runs a guest, and with it the threads that do its file
//! operations. Nothing in WASI can change permissions. The guest is told "permission denied", and
//! may remove the link or put another file in its place, which changes nobody else's.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

thread_local! {
    static GIVEN_UP: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Gives up this thread's right to write into read-only files, for good. `false`: it may have it
/// still.
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
    // Threads have rights of their own: the caller's other threads keep theirs.
    caps::drop(None, CapSet::Effective, Capability::CAP_DAC_OVERRIDE).is_ok()
        && caps::has_cap(None, CapSet::Effective, Capability::CAP_DAC_OVERRIDE)
            .is_ok_and(|has| !has)
}

#[cfg(not(target_os = "linux"))]
fn drop_right() -> bool {
    false
}

/// Whether read-only files in `folder` are safe from a thread that has given up its right, and can
/// be linked: tried, not reckoned, as some file systems of other machines have rules of their own.
pub fn holds(folder: &Path) -> bool {
    let (probe, link) = (folder.join(".probe"), folder.join(".probe-link"));
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
