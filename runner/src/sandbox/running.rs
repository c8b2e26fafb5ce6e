//! One run of guest code, on the calling thread.

use super::ending::{CallEnd, GuestEnd, end_of};
use super::engine::Sandbox;
use super::files::TaskFolder;
use super::follow_ups::FollowUps;
use super::guest::{Guest, STARTED_AFTER, catch_stop, on_epoch};
use super::http::GuestHttp;
use super::limits::{self, MemoryLimiter};
use super::loading::CallOutcome;
use super::log::LIVE_EVERY;
use super::outputs::{OutputError, OutputFiles, find_outputs};
use super::stdio::{GuestStderr, GuestStdout, GuestStreams};
use super::stop::{StopReason, StopSwitch};
use super::work::{Work, WorkFiles};
use crate::fault::{MachineFault, is_full, is_of_names};
use crate::inputs::guard::give_up_override;
use crate::inputs::placement::InputPlacement;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use taskmaster_protocol::message::Log;
use taskmaster_protocol::{Glob, TaskStats};
use tokio::runtime::Runtime;
use wasmtime::Store;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiView};

/// Entries of the guest's table that are not files of its own: three folders, stdin, stdout, stderr
/// and some spare ones.
const TABLE_ENTRIES_OF_OURS: usize = 8;

/// A disk with less room is full.
const ROOM_BYTES_MIN: u64 = 64 << 10;

/// The longest timeout that the clock holds for certain. No document may ask for more.
const TIMEOUT_MAX: Duration = Duration::from_secs(366 * 86_400);

/// What came out of a run.
#[derive(Debug)]
pub struct RunReport {
    /// How the guest ended.
    pub end: GuestEnd,
    /// The result as bytes: what a command wrote to stdout, or what a function returned.
    pub stdout: Vec<u8>,
    /// The files that the task gives back, if there are any.
    pub files: Option<OutputFiles>,
    /// What the guest wrote to stderr, without directives.
    pub log: Log,
    /// The tasks that the guest asked for.
    pub follow_ups: FollowUps,
    /// What the run cost.
    pub stats: TaskStats,
    /// When guest code started, µs since 1970; `None` where it never did.
    pub started_us: Option<i64>,
}

impl RunReport {
    fn not_started(end: GuestEnd) -> RunReport {
        RunReport {
            end,
            stdout: Vec::new(),
            files: None,
            log: Log::default(),
            follow_ups: FollowUps::default(),
            stats: TaskStats::default(),
            started_us: None,
        }
    }
}

/// Runs `work` on this thread until it ended. `runtime` belongs to this thread and drives host
/// calls that wait.
pub fn run(sandbox: &Sandbox, runtime: &Runtime, work: Work) -> RunReport {
    let stop = work.stop.clone();
    let streams = GuestStreams::new(work.attempt.clone(), work.listener.clone(), stop);
    let streams = Arc::new(streams);
    let folder = match prepare_folder(sandbox, &work) {
        Ok(folder) => folder,
        Err(end) => return RunReport::not_started(end),
    };
    let wasi = match context(sandbox, &work, folder.as_ref(), &streams) {
        Ok(wasi) => wasi,
        Err(error) => {
            let what = "the task's folder could not be opened";
            let fault = MachineFault::of_machine(what, error);
            return RunReport::not_started(GuestEnd::Machine(fault));
        }
    };

    let watch = folder.as_ref().map(|folder| {
        let inputs = work.files.inputs.as_ref().map_or(0, InputPlacement::files);
        sandbox.quota().watch(folder.path(), inputs, &work.stop)
    });
    let may_use_http = !work.granted.http.is_empty();
    let mut store = open_store(sandbox, &work, wasi, streams.clone());
    let result = {
        let call = pin!(catch_stop(
            work.program.call(&mut store, work.input.clone())
        ));
        drive(runtime, call, &work.stop, work.timeout, &streams)
    };

    let guest = store.data();
    let CallEnd { end, result } = end_of(result, guest);
    let run_us = u64::try_from(guest.began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let memory_bytes = guest.limiter.peak_bytes();
    let started_us = Some(guest.started_us);
    // Dropping the store gives its memory back to the pool, wiped.
    drop(store);
    drop(watch);
    if may_use_http {
        // Dropping the store gave up its connections. They are closed when their tasks are polled
        // once more.
        runtime.block_on(tokio::task::yield_now());
    }

    let end = match folder.as_ref().and_then(|folder| full_disk(&end, folder)) {
        Some(fault) => GuestEnd::Machine(fault),
        None => end,
    };
    let (end, files) = give_back(end, folder, &work.files);
    let written = streams.finish();
    RunReport {
        end,
        stdout: result.map_or(written.stdout, String::into_bytes),
        files,
        log: written.log,
        follow_ups: written.follow_ups,
        stats: TaskStats {
            run_us,
            memory_bytes,
            log_bytes: written.log_bytes,
        },
        started_us,
    }
}

/// The task's folder with its inputs in it, where the module could use one.
fn prepare_folder(sandbox: &Sandbox, work: &Work) -> Result<Option<TaskFolder>, GuestEnd> {
    let folder = if work.program.needs().files {
        let made = sandbox.make_folder().map_err(|error| {
            let what = "the task's folder could not be made";
            GuestEnd::Machine(MachineFault::of_machine(what, error))
        })?;
        Some(made)
    } else {
        None
    };

    // Must come before anything of the guest runs, and before the threads are made that do the
    // guest's file operations: they inherit what this thread may do.
    give_up_override();
    if let (Some(folder), Some(inputs)) = (&folder, &work.files.inputs) {
        inputs
            .place_into(&folder.own())
            .map_err(|error| not_placed(&error))?;
    }
    Ok(folder)
}

fn not_placed(error: &io::Error) -> GuestEnd {
    let what = "its inputs could not be put into the task's folder";
    if is_of_names(error) {
        return GuestEnd::Input(format!("{what}: {error}"));
    }
    GuestEnd::Machine(if is_full(error) {
        MachineFault::under_task(what, error)
    } else {
        MachineFault::of_machine(what, error)
    })
}

/// The fault of a machine whose disk has no room left, under a guest that failed. A guest cannot
/// help it that it is given less than it may take.
fn full_disk(end: &GuestEnd, folder: &TaskFolder) -> Option<MachineFault> {
    let may_be_why = match end {
        GuestEnd::Exit(code) => *code != 0,
        GuestEnd::Trap(..) | GuestEnd::Failed(..) => true,
        GuestEnd::Timeout
        | GuestEnd::Memory(_)
        | GuestEnd::Cancelled
        | GuestEnd::Module(_)
        | GuestEnd::Output(_)
        | GuestEnd::Input(_)
        | GuestEnd::Machine(_)
        | GuestEnd::Params(_) => false,
    };
    let room = rustix::fs::statvfs(folder.path())
        .ok()
        .filter(|_| may_be_why)?;
    let is_full = room.f_bavail.saturating_mul(room.f_frsize) < ROOM_BYTES_MIN
        || (room.f_files > 0 && room.f_favail == 0);
    is_full.then(|| {
        let what = "the disk of the task's folder is full";
        MachineFault::under_task(what, folder.path().display())
    })
}

/// Finds the files that an attempt gives back. An attempt that did not make what it had to give
/// back is no success.
fn give_back(
    end: GuestEnd,
    folder: Option<TaskFolder>,
    files: &WorkFiles,
) -> (GuestEnd, Option<OutputFiles>) {
    if end != GuestEnd::Exit(0) {
        return (end, None);
    }
    match output_files(folder, files) {
        Ok(files) => (end, files),
        Err(OutputError::Unreadable(error)) => {
            let what = "the task's folder could not be read";
            let fault = MachineFault::under_task(what, error);
            (GuestEnd::Machine(fault), None)
        }
        Err(error) => (GuestEnd::Output(error.to_string()), None),
    }
}

fn output_files(
    folder: Option<TaskFolder>,
    files: &WorkFiles,
) -> Result<Option<OutputFiles>, OutputError> {
    let globs = files.outputs.as_deref();
    let Some(folder) = folder else {
        return match globs.and_then(<[Glob]>::first) {
            Some(glob) => Err(OutputError::NoFolder(glob.as_str().to_owned())),
            None => Ok(None),
        };
    };
    let found = find_outputs(&folder.own(), files.inputs.as_ref(), globs)?;
    Ok((!found.is_empty()).then_some(OutputFiles {
        files: found,
        folder,
    }))
}

fn context(
    sandbox: &Sandbox,
    work: &Work,
    folder: Option<&TaskFolder>,
    streams: &Arc<GuestStreams>,
) -> wasmtime::Result<WasiP1Ctx> {
    let mut wasi = WasiCtx::builder();
    if work.program.prints_its_result() {
        wasi.stdin(MemoryInputPipe::new(work.input.clone()));
        wasi.stdout(GuestStdout(streams.clone()));
    } else {
        wasi.stdout(GuestStderr(streams.clone()));
    }
    wasi.stderr(GuestStderr(streams.clone()));

    let needs = work.program.needs();
    if needs.args {
        wasi.args(&work.args);
    }
    if needs.env {
        wasi.envs(&work.env);
        for (name, value) in work.granted.variables() {
            wasi.env(name, value);
        }
    }

    if let Some(folder) = folder {
        wasi.preopened_dir(folder.own(), ".", FsPerms::ReadWrite)?;
        wasi.preopened_dir(folder.own(), "/", FsPerms::ReadWrite)?;
        wasi.preopened_dir(folder.tmp(), "/tmp", FsPerms::ReadWrite)?;
        for (name, path) in &work.granted.folders {
            let opened = wasi.preopened_dir(path, name, FsPerms::ReadOnly);
            opened.map_err(|error| wasmtime::format_err!("{name}: {error}"))?;
        }
    }

    let mut wasi = wasi.build_p1();
    let entries = sandbox.open_files_max() + TABLE_ENTRIES_OF_OURS + work.granted.folders.len();
    wasi.ctx().table.set_max_capacity(entries);
    Ok(wasi)
}

fn open_store(
    sandbox: &Sandbox,
    work: &Work,
    wasi: WasiP1Ctx,
    streams: Arc<GuestStreams>,
) -> Store<Guest> {
    let began = Instant::now();
    let deadline = began.checked_add(work.timeout);
    work.stop.run_until(deadline.unwrap_or(began + TIMEOUT_MAX));
    let guest = Guest {
        wasi,
        sees_foreign_files: !work.granted.folders.is_empty(),
        http: GuestHttp::new(work.granted.http.clone(), streams.clone()),
        limiter: MemoryLimiter::new(work.memory_mb),
        open_files_max: sandbox.open_files_max(),
        stop: work.stop.clone(),
        streams,
        began,
        next_tell: began,
        started_us: wall_us(),
        called: false,
    };

    let mut store = Store::new(sandbox.engine(), guest);
    store.limiter(|guest| &mut guest.limiter);
    store.set_hostcall_fuel(limits::HOSTCALL_BYTES_MAX);
    store.epoch_deadline_callback(on_epoch);
    store.set_epoch_deadline(1);
    store
}

fn wall_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Runs a call to its end. Most tasks end at the first poll and never touch a timer. A guest that
/// parks in a host call is waited for together with its stop switch and its deadline, because no
/// epoch can enforce these while the guest sleeps.
fn drive(
    runtime: &Runtime,
    mut call: Pin<&mut impl Future<Output = wasmtime::Result<CallOutcome>>>,
    stop: &StopSwitch,
    timeout: Duration,
    streams: &GuestStreams,
) -> wasmtime::Result<CallOutcome> {
    let began = Instant::now();
    let first = {
        let _inside = runtime.enter();
        call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    if let Poll::Ready(result) = first {
        return result;
    }

    streams.flush_live_now();
    runtime.block_on(async {
        let mut deadline = pin!(tokio::time::sleep(timeout.saturating_sub(began.elapsed())));
        let mut started = pin!(tokio::time::sleep(
            STARTED_AFTER.saturating_sub(began.elapsed())
        ));
        let mut told = false;
        loop {
            if stop.is_cancelled() {
                return Err(StopReason::Cancelled.into());
            }
            tokio::select! {
                biased;
                () = &mut deadline => return Err(StopReason::Timeout.into()),
                () = stop.woken() => {}
                result = &mut call => return result,
                () = tokio::time::sleep(LIVE_EVERY), if streams.has_untold() => {
                    streams.flush_live(Instant::now());
                }
                () = &mut started, if !told => {
                    told = true;
                    let ran_us = i64::try_from(began.elapsed().as_micros()).unwrap_or(0);
                    streams.tell_started(wall_us() - ran_us);
                }
            }
        }
    })
}
