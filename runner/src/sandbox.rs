//! Executes one WebAssembly module in isolation: a fresh store and instance for each task, from a
//! pool.
//!
//! [`Sandbox`] is the one engine of the process; [`Program`] a module that is ready to run, of
//! whatever kind; [`run`] executes a [`Work`] on the calling thread and says how it ended. Nothing
//! here knows of masters, links or slots.

pub mod command;
pub mod component;
pub mod directive;
pub mod engine;
pub mod files;
mod host;
mod http;
pub mod limits;
pub mod log;
pub mod program;
pub mod quota;
pub mod stdio;
mod typed;

pub use engine::{Sandbox, SandboxError};
pub use log::{Listener, Utterance, Wishes};
pub use program::{Compiled, LoadError, Needs, Program};

use crate::grants::Granted;
use crate::inputs::guard::give_up_override;
use crate::inputs::place::Placing;
use crate::outputs::{self, MadeFiles};
use crate::sandbox::files::TaskFolder;
use crate::sandbox::limits::{Denied, Limiter};
use crate::sandbox::program::Answer;
use crate::sandbox::stdio::{OutputTooLarge, Streams};
use bytes::Bytes;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use taskmaster_protocol::message::{Attempt, Log};
use taskmaster_protocol::{Glob, TaskStats};
use wasmtime::{Store, StoreContextMut, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, I32Exit, ResourceTableError, WasiCtx, WasiCtxView, WasiView};

/// Guest code that has run this long is said to be started; a shorter attempt's end says it all.
const STARTED_AFTER: Duration = Duration::from_millis(5);

/// Linear memory is handed out in these.
const MIB: usize = 1 << 20;

/// One attempt, ready to run.
pub struct Work {
    /// Whose it is.
    pub attempt: Attempt,
    /// What to run.
    pub program: Arc<Program>,
    /// Its params: stdin of a command.
    pub input: Bytes,
    /// argv, the module's name included.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// What its module may reach beyond its folder.
    pub granted: Granted,
    /// Limit from the start of guest code.
    pub timeout: Duration,
    /// Limit of linear memory, MiB.
    pub memory_mb: u32,
    /// What it finds in its folder, and what of it it gives back.
    pub files: Files,
    /// Lets others stop it.
    pub control: Arc<Control>,
    /// Hears what it says while it runs.
    pub listener: Listener,
}

/// The files of an attempt.
#[derive(Default)]
pub struct Files {
    /// What is put into its folder.
    pub inputs: Option<Placing>,
    /// Globs of the files that it gives back; `None`: all that it made.
    pub outputs: Option<Vec<Glob>>,
}

/// The switch by which a running attempt is stopped.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    /// Why it is stopped, where it has taken too much of the disk.
    overdrawn: OnceLock<String>,
    /// Wakes a guest that is parked in a host call.
    wake: tokio::sync::Notify,
}

impl Control {
    /// Stops the attempt, within 100 ms; once and for all.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Stops the attempt because it has taken too much; `text` says of what.
    pub fn overdraw(&self, text: String) {
        // The first reason stands.
        let _ = self.overdrawn.set(text);
        self.cancel();
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// How guest code ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It returned, or called `proc_exit`.
    Exit(i32),
    /// It trapped; the reason, and the frames, innermost first.
    Trap(String, Option<String>),
    /// It ran longer than allowed.
    Timeout,
    /// It failed after it had been refused memory, or would not fit from the beginning.
    Memory(String),
    /// It was cancelled.
    Cancelled,
    /// It could not be instantiated.
    Module(String),
    /// It wrote more than is kept, or not the files that it was to give back.
    Output(String),
    /// Its folder could not be made, or its inputs not be put there.
    Input(String),
    /// Its params have another type than its function takes.
    Params(String),
    /// It gave back an error: what it said, and the exit code that a command would have had.
    Failed(String, i32),
}

/// What came out of a run.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub end: End,
    /// What a command wrote to stdout; what a function gave back.
    pub stdout: Vec<u8>,
    /// The files that it gives back.
    pub files: Option<MadeFiles>,
    /// What it wrote to stderr, directives left out.
    pub log: Log,
    /// What it wants of the master.
    pub wishes: Wishes,
    /// What it cost.
    pub stats: TaskStats,
    /// When guest code started, µs since 1970; `None` where it never did.
    pub started_us: Option<i64>,
}

/// What a store carries while its guest runs.
pub struct Guest {
    pub(crate) wasi: WasiP1Ctx,
    http: http::Http,
    limiter: Limiter,
    control: Arc<Control>,
    streams: Arc<Streams>,
    began: Instant,
    deadline: Instant,
    started_us: i64,
    told_started: bool,
    /// It is instantiated, its function was called: what fails now is its own failure.
    called: bool,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// Why a guest was stopped; travels through wasmtime as its trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Stopped {
    #[error("cancelled")]
    Cancelled,
    #[error("timeout")]
    Timeout,
}

/// Runs `work` on this thread until it ended. `runtime` belongs to this thread and drives host
/// calls that wait.
pub fn run(sandbox: &Sandbox, runtime: &tokio::runtime::Runtime, work: Work) -> Report {
    let streams = Arc::new(Streams::new(work.attempt.clone(), work.listener.clone()));
    let folder = match sandbox.folder_for(&work.program) {
        Ok(folder) => folder,
        Err(error) => {
            return Report::not_started(End::Input(format!(
                "the task's folder could not be made: {error}"
            )));
        }
    };
    // Before anything of the guest runs, and before the threads are made that do its file
    // operations.
    give_up_override();
    if let (Some(folder), Some(inputs)) = (&folder, &work.files.inputs)
        && let Err(error) = inputs.place(&folder.own())
    {
        return Report::not_started(End::Input(format!(
            "its inputs could not be put into the task's folder: {error}"
        )));
    }
    let wasi = match context(&work, folder.as_ref(), &streams) {
        Ok(wasi) => wasi,
        Err(error) => {
            return Report::not_started(End::Input(format!(
                "the task's folder could not be opened: {error}"
            )));
        }
    };
    let watch = folder
        .as_ref()
        .map(|folder| sandbox.quota().watch(folder.path(), &work.control));
    let speaks = !work.granted.http.is_empty();
    let mut store = open_store(sandbox, &work, wasi, streams.clone());
    let result = {
        let call = pin!(work.program.call(&mut store, work.input.clone()));
        drive(runtime, call, &work.control, work.timeout, &streams)
    };
    let guest = store.data();
    let (end, text) = end_of(result, guest);
    let end = match (end, guest.control.overdrawn.get()) {
        (End::Cancelled, Some(text)) => End::Output(text.clone()),
        (end, _) => end,
    };
    let stats = TaskStats {
        run_us: u64::try_from(guest.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        memory_bytes: guest.limiter.peak_bytes(),
        log_bytes: 0,
    };
    let started_us = Some(guest.started_us);
    // Dropping the store gives its memory back to the pool, wiped.
    drop((store, watch));
    if speaks {
        // Its connections were given up with the store; they are closed when their tasks are run
        // once more.
        runtime.block_on(tokio::task::yield_now());
    }
    let (end, files) = give_back(end, folder, &work.files);
    let (stdout, log, log_bytes) = streams.finish();
    let (stdout, wishes) = (text.map_or(stdout, String::into_bytes), streams.wishes());
    Report {
        end,
        stdout,
        files,
        log,
        wishes,
        stats: TaskStats { log_bytes, ..stats },
        started_us,
    }
}

/// What an attempt that succeeded has made; it is no success where that is not what it was to give
/// back.
fn give_back(end: End, folder: Option<TaskFolder>, files: &Files) -> (End, Option<MadeFiles>) {
    if end != End::Exit(0) {
        return (end, None);
    }
    let globs = files.outputs.as_deref();
    let Some(folder) = folder else {
        return match globs.and_then(<[Glob]>::first) {
            Some(glob) => {
                let text = format!(
                    "no file matches the output glob `{}`: the module uses no files",
                    glob.as_str()
                );
                (End::Output(text), None)
            }
            None => (end, None),
        };
    };
    match outputs::find(&folder.own(), files.inputs.as_ref(), globs) {
        Ok(made) if made.is_empty() => (end, None),
        Ok(made) => (
            end,
            Some(MadeFiles {
                files: made,
                folder,
            }),
        ),
        Err(text) => (End::Output(text), None),
    }
}

impl Report {
    fn not_started(end: End) -> Report {
        let (stdout, log, wishes, stats) = Default::default();
        Report {
            end,
            stdout,
            files: None,
            log,
            wishes,
            stats,
            started_us: None,
        }
    }
}

fn context(
    work: &Work,
    folder: Option<&TaskFolder>,
    streams: &Arc<Streams>,
) -> wasmtime::Result<WasiP1Ctx> {
    let mut wasi = WasiCtx::builder();
    if work.program.prints_its_result() {
        wasi.stdin(MemoryInputPipe::new(work.input.clone()));
        wasi.stdout(stdio::Out(streams.clone()));
    } else {
        wasi.stdout(stdio::Err(streams.clone()));
    }
    wasi.stderr(stdio::Err(streams.clone()));
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
    // Three folders, stdin, stdout and stderr are in the table, too.
    wasi.ctx()
        .table
        .set_max_capacity(limits::OPEN_FILES_MAX + 8 + work.granted.folders.len());
    Ok(wasi)
}

fn open_store(
    sandbox: &Sandbox,
    work: &Work,
    wasi: WasiP1Ctx,
    streams: Arc<Streams>,
) -> Store<Guest> {
    let began = Instant::now();
    let http = http::Http::to(work.granted.http.clone(), streams.clone());
    let guest = Guest {
        wasi,
        http,
        limiter: Limiter::new(work.memory_mb),
        control: work.control.clone(),
        streams,
        began,
        // A timeout that no clock can hold is none: 366 days are far below.
        deadline: began
            .checked_add(work.timeout)
            .unwrap_or(began + Duration::from_secs(366 * 86_400)),
        started_us: wall_us(),
        told_started: false,
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

/// Called inside running guest code, once per epoch: the one place where `loop {}` can be stopped.
fn on_epoch(mut store: StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> {
    let guest = store.data_mut();
    if guest.control.is_cancelled() {
        return Err(Stopped::Cancelled.into());
    }
    let now = Instant::now();
    if now >= guest.deadline {
        return Err(Stopped::Timeout.into());
    }
    if !guest.told_started && now.duration_since(guest.began) >= STARTED_AFTER {
        guest.told_started = true;
        guest.streams.say(Utterance::Started(guest.started_us));
    }
    guest.streams.flush_live(now);
    Ok(UpdateDeadline::Continue(1))
}

/// Most tasks end at the first poll and never touch a timer; one that parks in a host call is
/// waited for, together with its cancel switch and its deadline, which no epoch can enforce while
/// it sleeps.
fn drive(
    runtime: &tokio::runtime::Runtime,
    mut call: Pin<&mut impl Future<Output = wasmtime::Result<Answer>>>,
    control: &Control,
    timeout: Duration,
    streams: &Streams,
) -> wasmtime::Result<Answer> {
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
        let deadline = tokio::time::sleep(timeout.saturating_sub(began.elapsed()));
        let started = tokio::time::sleep(STARTED_AFTER.saturating_sub(began.elapsed()));
        let (mut deadline, mut started) = (pin!(deadline), pin!(started));
        let mut told = false;
        loop {
            if control.is_cancelled() {
                return Err(Stopped::Cancelled.into());
            }
            tokio::select! {
                biased;
                () = &mut deadline => return Err(Stopped::Timeout.into()),
                () = control.wake.notified() => {}
                result = &mut call => return result,
                () = &mut started, if !told => {
                    told = true;
                    streams.say(Utterance::Started(wall_us() - i64::try_from(began.elapsed().as_micros()).unwrap_or(0)));
                }
            }
        }
    })
}

/// How it ended, and what a function gave back.
fn end_of(result: wasmtime::Result<Answer>, guest: &Guest) -> (End, Option<String>) {
    let end = match result {
        Ok(Answer::Text(text)) if text.len() > limits::STDOUT_BYTES_MAX => {
            End::Output(OutputTooLarge.to_string())
        }
        Ok(Answer::Text(text)) => return (End::Exit(0), Some(text)),
        Ok(Answer::Stdout) => End::Exit(0),
        Ok(Answer::Exit(code)) => end_by_code(code, &guest.limiter),
        Ok(Answer::Failed(text, code)) => match guest.limiter.denied() {
            Some(denied) => End::Memory(memory_text(denied, &guest.limiter)),
            None => End::Failed(text, code),
        },
        Ok(Answer::Params(text)) => End::Params(text),
        Err(error) => end_by_error(&error, guest),
    };
    (end, None)
}

/// What was refused memory and fails has failed of that.
fn end_by_code(code: i32, limiter: &Limiter) -> End {
    match limiter.denied() {
        Some(denied) if code != 0 => End::Memory(memory_text(denied, limiter)),
        _ => End::Exit(code),
    }
}

fn end_by_error(error: &wasmtime::Error, guest: &Guest) -> End {
    let limiter = &guest.limiter;
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return end_by_code(*code, limiter);
    }
    match error.downcast_ref::<Stopped>() {
        Some(Stopped::Cancelled) => return End::Cancelled,
        Some(Stopped::Timeout) => return End::Timeout,
        None => {}
    }
    if error.downcast_ref::<OutputTooLarge>().is_some() {
        return End::Output(OutputTooLarge.to_string());
    }
    if let Some(denied) = limiter.denied() {
        return End::Memory(memory_text(denied, limiter));
    }
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(frames);
    if !guest.called && backtrace.is_none() && error.downcast_ref::<Trap>().is_none() {
        return End::Module(format!(
            "the module could not be instantiated: {}",
            error.root_cause()
        ));
    }
    let full = matches!(
        error.downcast_ref::<ResourceTableError>(),
        Some(ResourceTableError::Full)
    );
    let reason = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None if full => {
            let what = if guest.http.is_used() {
                "files and parts of HTTP requests"
            } else {
                "files"
            };
            format!(
                "it has more than {} {what} open at a time",
                limits::OPEN_FILES_MAX
            )
        }
        None => error.root_cause().to_string(),
    };
    End::Trap(
        reason.trim_start_matches("wasm trap: ").to_owned(),
        backtrace,
    )
}

fn memory_text(denied: Denied, limiter: &Limiter) -> String {
    let limit = limiter.limit_bytes() / MIB;
    match denied {
        Denied::Memory(bytes) => {
            let wanted = bytes.div_ceil(MIB);
            format!(
                "the module asked for {wanted} MiB of memory, its limit (`memory_mb`) is {limit}"
            )
        }
        Denied::Table(elements) => {
            let most = limits::TABLE_ELEMENTS_MAX;
            format!(
                "the module asked for a table of {elements} elements, at most {most} are allowed"
            )
        }
    }
}

/// wasmtime's own text without its heading: offsets and demangled names, innermost first.
fn frames(backtrace: &WasmBacktrace) -> String {
    let text = backtrace.to_string();
    text.split_once('\n')
        .map_or(String::new(), |(_, frames)| frames.to_owned())
}

#[cfg(test)]
mod tests;
