//! Compiled modules on disk, as `<version>-<engine>.cwasm`. They are native code, which is trusted
//! because only this user can write into the folder.

use crate::sandbox::CompiledModule;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use taskmaster_protocol::Hash;
use taskmaster_transport::files::private_folder;
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

/// A runner that starts removes compiled modules that were not used for this long.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The folder of compiled modules.
pub struct ModuleDiskCache {
    folder: PathBuf,
    /// A hash of wasmtime's version, its settings and the processor. Code for another engine cannot
    /// be used.
    engine: u64,
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
        let mut hasher = DefaultHasher::new();
        std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut hasher);
        Ok(ModuleDiskCache {
            folder: folder.to_owned(),
            engine: hasher.finish(),
        })
    }

    fn path(&self, version: &Hash) -> PathBuf {
        self.folder
            .join(format!("{version}-{:016x}.cwasm", self.engine))
    }

    /// The module, if it is here and whole. A file that is not whole is removed.
    pub fn read(&self, engine: &Engine, version: &Hash) -> Option<CompiledModule> {
        let path = self.path(version);
        let code = fs::read(&path).ok()?;
        let sum = fs::read_to_string(path.with_extension("sum")).unwrap_or_default();
        let module = if sum == Hash::of(&code).to_string() {
            load(engine, &path)
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
                Some(module)
            }
            Err(why) => {
                tracing::warn!("the compiled module {} is discarded: {why}", path.display());
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps the module.
    pub fn write(&self, compiled: &CompiledModule, version: &Hash) -> io::Result<()> {
        let code = match compiled {
            CompiledModule::Core(module) => module.serialize(),
            CompiledModule::Component(component) => component.serialize(),
        };
        let code = code.map_err(|error| io::Error::other(error.to_string()))?;
        let path = self.path(version);
        let sum = Hash::of(&code).to_string();
        self.write_whole(&path.with_extension("sum"), sum.as_bytes())?;
        self.write_whole(&path, &code)
    }

    /// Writes a file beside `path` and renames it, so that nobody reads a part of it.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
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

/// Why a file of the folder is not used.
#[derive(Debug, thiserror::Error)]
enum UnusableCode {
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it is no native code")]
    NotNative,
    #[error("{0:#}")]
    Engine(wasmtime::Error),
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
fn load(engine: &Engine, path: &Path) -> Result<CompiledModule, UnusableCode> {
    // SAFETY: `ModuleDiskCache::write` wrote the file from wasmtime's own output. Only this user
    // can enter the folder (0700). Nothing that came over a network is ever placed in it under such
    // a name (`CompiledModule::compile` refuses precompiled files). The checksum beside the file
    // was just compared, and wasmtime itself checks that engine and version match. Files are
    // replaced by a rename and never changed in place, so the mapping stays what it was.
    let compiled = unsafe {
        match Engine::detect_precompiled_file(path) {
            Ok(Some(Precompiled::Module)) => {
                Module::deserialize_file(engine, path).map(CompiledModule::Core)
            }
            Ok(Some(Precompiled::Component)) => {
                Component::deserialize_file(engine, path).map(CompiledModule::Component)
            }
            Ok(None) => return Err(UnusableCode::NotNative),
            Err(error) => Err(error),
        }
    };
    compiled.map_err(UnusableCode::Engine)
}
