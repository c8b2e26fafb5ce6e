//! Compiled modules on disk, as `<version>-<engine>.cwasm`. They are native code, which is trusted
//! because only this user can write into the folder.

use crate::sandbox::native_code::{NativeCode, UnusableCode, map};
use crate::sandbox::{CompiledModule, engine};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use taskmaster_protocol::Hash;
use taskmaster_transport::files::private_folder;
use wasmtime::Engine;

/// A runner that starts removes compiled modules that were not used for this long.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The folder of compiled modules.
pub struct ModuleDiskCache {
    folder: PathBuf,
    /// The engine's hash. Code for another engine cannot be used.
    engine: String,
}

impl ModuleDiskCache {
    /// Opens `folder`, which only this user may enter.
    pub fn open(folder: &Path, engine: &Engine) -> io::Result<ModuleDiskCache> {
        private_folder(folder)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // A folder from before may have other permissions. Whoever could write here could make
            // this process run any machine code.
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        remove_unused(folder);
        Ok(ModuleDiskCache {
            folder: folder.to_owned(),
            engine: engine::hash(engine),
        })
    }

    fn path(&self, version: &Hash) -> PathBuf {
        self.folder.join(format!("{version}-{}.cwasm", self.engine))
    }

    /// The module, if it is here and whole. A file that is not whole is removed. The error is that
    /// of a machine which executes no code at all.
    pub fn read(
        &self,
        engine: &Engine,
        version: &Hash,
    ) -> Result<Option<CompiledModule>, UnusableCode> {
        let path = self.path(version);
        let Ok(code) = fs::read(&path) else {
            return Ok(None);
        };
        let sum = fs::read_to_string(path.with_extension("sum")).unwrap_or_default();
        let module = if sum == Hash::of(&code).to_string() {
            map(engine, &path)
        } else {
            Err(UnusableCode::Checksum)
        };
        match module {
            Ok(module) => {
                for used in [&path, &path.with_extension("sum")] {
                    // Where this fails, the module is only removed a little early.
                    let file = fs::File::open(used);
                    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
                }
                Ok(Some(module))
            }
            Err(why @ UnusableCode::Forbidden(_)) => Err(why),
            Err(why) => {
                tracing::warn!("the compiled module {} is discarded: {why}", path.display());
                let _ = fs::remove_file(&path);
                Ok(None)
            }
        }
    }

    /// Keeps the machine code of a module.
    pub fn write(&self, code: &NativeCode, version: &Hash) -> io::Result<()> {
        let path = self.path(version);
        let sum = Hash::of(code.bytes()).to_string();
        write_whole(&path.with_extension("sum"), sum.as_bytes())?;
        write_whole(&path, code.bytes())
    }
}

/// Writes a file beside `path` and renames it, so that nobody reads a part of it.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_file_name(format!("{}.tmp", uuid::Uuid::now_v7().simple()));
    let mut file = fs::File::create(&aside)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

fn remove_unused(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > UNUSED_MAX)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
