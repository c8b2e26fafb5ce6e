//! Functions of WASI in place of wasmtime's, which look before they act. Each rule stands here
//! twice: for commands, and for components.
//!
//! - What is neither a file nor a folder is not opened. A granted folder may hold a named pipe,
//!   whose opening waits for its other end, or a device.
//! - The times of a file that has several names are not set. An input is one more name of a file in
//!   the runner's cache, and other tasks see the times of that file.
//! - Random bytes are made in pieces, between which a guest can be stopped.

use super::guest::Guest;
use wasmtime::component::{self, Resource};
use wasmtime::{AsContextMut, Caller, Extern, Linker, StoreContextMut};
use wasmtime_wasi::filesystem::WasiFilesystemView;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::types as p1;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as calls, WasiSnapshotPreview1};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self as p2, Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, ErrorCode, Host,
    HostDescriptor, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::bindings::random::{insecure, random};
use wasmtime_wasi::random::WasiRandomView;
use wiggle::{GuestMemory, GuestPtr};

/// The module name of WASI preview 1.
pub(super) const WASI: &str = "wasi_snapshot_preview1";

/// The interface of WASI 0.2 that opens files, under the name that wasmtime gives it.
const FILES: &str = "wasi:filesystem/types@0.2.12";

/// The interfaces of WASI 0.2 that make random bytes.
const RANDOM: &str = "wasi:random/random@0.2.12";
const INSECURE: &str = "wasi:random/insecure@0.2.12";

/// Bytes of randomness that are made at a time: some milliseconds of work.
const RANDOM_BYTES: usize = 1 << 20;

/// What a command's host function works with.
struct CommandCall<'a> {
    memory: GuestMemory<'a>,
    wasi: &'a mut WasiP1Ctx,
}

/// Enters a host function of a command.
fn enter<'a>(caller: &'a mut Caller<'_, Guest>) -> wasmtime::Result<CommandCall<'a>> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("missing required memory export")
    };
    let fuel = caller.as_context_mut().hostcall_fuel();
    let (bytes, guest) = memory.data_and_store_mut(caller);
    let wasi = guest.enter_wasi();
    wasi.set_hostcall_fuel(fuel);
    Ok(CommandCall {
        memory: GuestMemory::Unshared(bytes),
        wasi,
    })
}

/// The number of "operation not permitted", as a command gets it.
fn not_permitted() -> i32 {
    i32::from(u16::from(p1::Errno::Perm))
}

/// Replaces functions of commands.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    add_path_open(linker)?;
    add_set_times(linker)?;
    linker.func_wrap(
        WASI,
        "random_get",
        |mut caller: Caller<'_, Guest>, at: i32, length: i32| {
            fill_randomly(&mut caller, at, length)
        },
    )?;
    Ok(())
}

fn add_path_open(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        WASI,
        "path_open",
        |mut caller: Caller<'_, Guest>,
         (fd, flags, path, length, open, rights, inherited, fdflags, opened): (
            i32,
            i32,
            i32,
            i32,
            i32,
            i64,
            i64,
            i32,
            i32,
        )| {
            Box::new(async move {
                let asks_first = caller.data().sees_foreign_files;
                let CommandCall { mut memory, wasi } = enter(&mut caller)?;
                let memory = &mut memory;
                if asks_first
                    && let Some(about) = about_path(wasi, memory, fd, flags, path, length).await
                    && !is_file_or_folder(about.filetype)
                {
                    return Ok(not_permitted());
                }
                calls::path_open(
                    wasi, memory, fd, flags, path, length, open, rights, inherited, fdflags, opened,
                )
                .await
            })
        },
    )?;
    Ok(())
}

fn add_set_times(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        WASI,
        "path_filestat_set_times",
        |mut caller: Caller<'_, Guest>,
         (fd, flags, path, length, atime, mtime, which): (i32, i32, i32, i32, i64, i64, i32)| {
            Box::new(async move {
                let CommandCall { mut memory, wasi } = enter(&mut caller)?;
                let memory = &mut memory;
                let about = about_path(wasi, memory, fd, flags, path, length).await;
                if about.is_some_and(|about| has_other_names(&about)) {
                    return Ok(not_permitted());
                }
                calls::path_filestat_set_times(
                    wasi, memory, fd, flags, path, length, atime, mtime, which,
                )
                .await
            })
        },
    )?;
    linker.func_wrap_async(
        WASI,
        "fd_filestat_set_times",
        |mut caller: Caller<'_, Guest>, (fd, atime, mtime, which): (i32, i64, i64, i32)| {
            Box::new(async move {
                let CommandCall { mut memory, wasi } = enter(&mut caller)?;
                let about = wasi.fd_filestat_get(&mut memory, p1::Fd::from(fd)).await;
                if about.is_ok_and(|about| has_other_names(&about)) {
                    return Ok(not_permitted());
                }
                calls::fd_filestat_set_times(wasi, &mut memory, fd, atime, mtime, which).await
            })
        },
    )?;
    Ok(())
}

/// What the system knows of a path. `None` where that cannot be told: then the call that follows
/// fails by itself, with the right error.
async fn about_path(
    wasi: &mut WasiP1Ctx,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    flags: i32,
    path: i32,
    length: i32,
) -> Option<p1::Filestat> {
    let flags = p1::Lookupflags::try_from(flags).ok()?;
    let path = GuestPtr::<str>::new((path.cast_unsigned(), length.cast_unsigned()));
    wasi.path_filestat_get(memory, p1::Fd::from(fd), flags, path)
        .await
        .ok()
}

fn is_file_or_folder(kind: p1::Filetype) -> bool {
    matches!(
        kind,
        // A link that is not followed is not opened either.
        p1::Filetype::RegularFile | p1::Filetype::Directory | p1::Filetype::SymbolicLink
    )
}

fn has_other_names(about: &p1::Filestat) -> bool {
    about.filetype == p1::Filetype::RegularFile && about.nlink > 1
}

fn fill_randomly(caller: &mut Caller<'_, Guest>, at: i32, length: i32) -> wasmtime::Result<i32> {
    let mut at = at.cast_unsigned();
    let mut left = length.cast_unsigned();
    loop {
        let piece = left.min(RANDOM_BYTES as u32);
        let CommandCall { mut memory, wasi } = enter(caller)?;
        let error = calls::random_get(wasi, &mut memory, at.cast_signed(), piece.cast_signed())?;
        left -= piece;
        if error != 0 || left == 0 {
            return Ok(error);
        }
        // A buffer that goes round the end of memory lies outside it.
        at = at.saturating_add(piece);
    }
}

type Context<'a> = StoreContextMut<'a, Guest>;

/// Replaces functions of components.
pub(super) fn add_to_component_linker(
    linker: &mut component::Linker<Guest>,
) -> wasmtime::Result<()> {
    add_file_functions(linker)?;
    linker.instance(RANDOM)?.func_wrap(
        "get-random-bytes",
        |mut context: Context<'_>, (length,): (u64,)| {
            let made = in_pieces(length, |piece| {
                random::Host::get_random_bytes(context.data_mut().random(), piece)
            });
            Ok((made?,))
        },
    )?;
    linker.instance(INSECURE)?.func_wrap(
        "get-insecure-random-bytes",
        |mut context: Context<'_>, (length,): (u64,)| {
            let made = in_pieces(length, |piece| {
                insecure::Host::get_insecure_random_bytes(context.data_mut().random(), piece)
            });
            Ok((made?,))
        },
    )
}

fn add_file_functions(linker: &mut component::Linker<Guest>) -> wasmtime::Result<()> {
    let mut files = linker.instance(FILES)?;
    files.func_wrap_async(
        "[method]descriptor.open-at",
        |mut context: Context<'_>,
         (fd, at, path, open, flags): (
            Resource<Descriptor>,
            PathFlags,
            String,
            OpenFlags,
            DescriptorFlags,
        )| {
            Box::new(async move {
                let opened = open_at(&mut context, fd, at, path, open, flags).await;
                answer(&mut context, opened)
            })
        },
    )?;
    files.func_wrap_async(
        "[method]descriptor.set-times-at",
        |mut context: Context<'_>,
         (fd, at, path, atime, mtime): (
            Resource<Descriptor>,
            PathFlags,
            String,
            NewTimestamp,
            NewTimestamp,
        )| {
            Box::new(async move {
                let set = set_times_at(&mut context, fd, at, path, atime, mtime).await;
                answer(&mut context, set)
            })
        },
    )?;
    files.func_wrap_async(
        "[method]descriptor.set-times",
        |mut context: Context<'_>,
         (fd, atime, mtime): (Resource<Descriptor>, NewTimestamp, NewTimestamp)| {
            Box::new(async move {
                let set = set_times(&mut context, fd, atime, mtime).await;
                answer(&mut context, set)
            })
        },
    )?;
    Ok(())
}

/// Gives back what a file function answers, as the component gets it.
fn answer<T>(
    context: &mut Context<'_>,
    result: FsResult<T>,
) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(context.data_mut().filesystem().convert_error_code(error)?),
    },))
}

/// Another handle of a descriptor, for a call that must not use the descriptor up.
fn again(fd: &Resource<Descriptor>) -> Resource<Descriptor> {
    Resource::new_borrow(fd.rep())
}

async fn open_at(
    context: &mut Context<'_>,
    fd: Resource<Descriptor>,
    at: PathFlags,
    path: String,
    open: OpenFlags,
    flags: DescriptorFlags,
) -> FsResult<Resource<Descriptor>> {
    let asks_first = context.data().sees_foreign_files;
    let mut files = context.data_mut().filesystem();
    if asks_first
        && let Ok(about) = files.stat_at(again(&fd), at, path.clone()).await
        && !matches!(
            about.type_,
            DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink
        )
    {
        return Err(ErrorCode::NotPermitted.into());
    }
    files.open_at(fd, at, path, open, flags).await
}

async fn set_times_at(
    context: &mut Context<'_>,
    fd: Resource<Descriptor>,
    at: PathFlags,
    path: String,
    atime: NewTimestamp,
    mtime: NewTimestamp,
) -> FsResult<()> {
    let mut files = context.data_mut().filesystem();
    let about = files.stat_at(again(&fd), at, path.clone()).await;
    refuse_other_names(about)?;
    files.set_times_at(fd, at, path, atime, mtime).await
}

async fn set_times(
    context: &mut Context<'_>,
    fd: Resource<Descriptor>,
    atime: NewTimestamp,
    mtime: NewTimestamp,
) -> FsResult<()> {
    let mut files = context.data_mut().filesystem();
    let about = files.stat(again(&fd)).await;
    refuse_other_names(about)?;
    files.set_times(fd, atime, mtime).await
}

fn refuse_other_names(about: FsResult<DescriptorStat>) -> FsResult<()> {
    match about {
        Ok(about) if about.type_ == DescriptorType::RegularFile && about.link_count > 1 => {
            Err(p2::ErrorCode::NotPermitted.into())
        }
        // What cannot be looked at fails in the call that follows, with the right error.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Makes `length` bytes, the last piece first where that is the short one.
fn in_pieces(
    length: u64,
    mut make: impl FnMut(u64) -> wasmtime::Result<Vec<u8>>,
) -> wasmtime::Result<Vec<u8>> {
    let most = wasmtime_wasi::random::DEFAULT_MAX_SIZE;
    if length > most {
        wasmtime::bail!("requested len {length} exceeds limit {most}");
    }
    let mut bytes = Vec::new();
    let mut left = length;
    while left > 0 {
        let piece = left.min(RANDOM_BYTES as u64);
        bytes.extend(make(piece)?);
        left -= piece;
    }
    Ok(bytes)
}
