//! Compiled modules on disk: `<version>-<engine>.cwasm`, native code that is trusted because only
//! this user can write into the folder.

use crate::sandbox::Compiled;
use crate::sandbox::files::private_folder;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use taskmaster_protocol::Hash;
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

/// Compiled modules that nobody used for so long are removed when a runner starts.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The folder of compiled modules.
pub struct Disk {
    folder: PathBuf,
    /// Changes with wasmtime's version, its settings and the processor: code for another engine is
    /// not ours.
    engine: u64,
}

impl Disk {
    /// Opens `folder`, which only this user may enter.
    pub fn open(folder: &Path, engine: &Engine) -> io::Result<Disk> {
        private_folder(folder)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Somebody else who could write here could have us run any machine code.
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        remove_unused(folder);
        let mut hasher = DefaultHasher::new();
        std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut hasher);
        Ok(Disk {
            folder: folder.to_owned(),
            engine: hasher.finish(),
        })
    }

    fn path(&self, version: &Hash) -> PathBuf {
        self.folder
            .join(format!("{version}-{:016x}.cwasm", self.engine))
    }

    /// The module, if it is here and whole. A file that is not is removed.
    pub fn read(&self, engine: &Engine, version: &Hash) -> Option<Compiled> {
        let path = self.path(version);
        let code = fs::read(&path).ok()?;
        let sum = fs::read_to_string(path.with_extension("sum")).unwrap_or_default();
        let module = if sum == Hash::of(&code).to_string() {
            load(engine, &path)
        } else {
            Err("its checksum is wrong".into())
        };
        match module {
            Ok(module) => {
                for used in [&path, &path.with_extension("sum")] {
                    // It is only removed a little early where this fails.
                    let _ =
                        fs::File::open(used).and_then(|file| file.set_modified(SystemTime::now()));
                }
                Some(module)
            }
            Err(why) => {
                tracing::warn!("the compiled module {} is discarded: {why}", path.display());
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps the module. A file is seen only when it is whole: written aside, then renamed.
    pub fn write(&self, compiled: &Compiled, version: &Hash) -> io::Result<()> {
        let code = match compiled {
            Compiled::Module(module) => module.serialize(),
            Compiled::Component(component) => component.serialize(),
        };
        let code = code.map_err(|error| io::Error::other(error.to_string()))?;
        let path = self.path(version);
        self.place(
            &path.with_extension("sum"),
            Hash::of(&code).to_string().as_bytes(),
        )?;
        self.place(&path, &code)
    }

    fn place(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let aside = self
            .folder
            .join(format!("{}.tmp", uuid::Uuid::now_v7().simple()));
        let mut file = fs::File::create(&aside)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| fs::rename(&aside, path));
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written
    }
}

fn remove_unused(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > UNUSED_MAX)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[allow(
    unsafe_code,
    reason = "native code can be mapped in no other way; see the comment inside"
)]
fn load(engine: &Engine, path: &Path) -> Result<Compiled, String> {
    // SAFETY: the file was written by `Disk::write` from wasmtime's own output: the folder is this
    // user's alone (0700), nothing that came over a network is ever placed in it under such a name
    // (`Compiled::of` refuses precompiled uploads), the checksum beside it was just compared, and
    // wasmtime itself checks that engine and version match. Files are replaced by rename, never
    // changed in place, so the mapping stays what it was.
    let compiled = unsafe {
        match Engine::detect_precompiled_file(path) {
            Ok(Some(Precompiled::Module)) => {
                Module::deserialize_file(engine, path).map(Compiled::Module)
            }
            Ok(Some(Precompiled::Component)) => {
                Component::deserialize_file(engine, path).map(Compiled::Component)
            }
            Ok(None) => return Err("it is no native code".into()),
            Err(error) => Err(error),
        }
    };
    compiled.map_err(|error| format!("{error:#}"))
}
