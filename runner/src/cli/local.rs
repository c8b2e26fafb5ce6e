//! `taskmaster run FILE`: executes one module here, without a master, in the sandbox that runners
//! use, under the same rules, with what the manifest beside it says.

mod args;
mod error;
mod gather;
mod plan;

pub use args::RunArgs;

use crate::outcome::{Outcome, outcome};
use crate::prepare::WorkParts;
use crate::sandbox::tree::remove_tree;
use crate::sandbox::{LiveEvent, LiveListener, OutputFiles, Program, Sandbox, StopSwitch, Work};
use crate::slots::slot_runtime;
use bytes::Bytes;
use error::LocalRunError;
use gather::{GatheredInputs, gather};
use plan::Plan;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use taskmaster_console::lines::{for_stderr, tell, tell_raw};
use taskmaster_console::terminal::plain_bytes;
use taskmaster_protocol::message::{Assignment, ResultRef};
use taskmaster_protocol::{
    AttemptId, ErrorKind, FilePath, Hash, InputRef, JobName, TaskDocument, TaskError, TaskId,
    limits,
};
use taskmaster_runner_session::Ending;

/// The id and the job of the one task.
const LOCAL: &str = "local";

/// The exit code of a task that failed, as for every command that waits for tasks.
const FAILED: u8 = 3;

/// The exit code where the reader of stdout has gone, as for every command.
const PIPE_CLOSED: u8 = 141;

/// Runs the module, and has printed everything when it returns. Blocks the calling thread.
pub fn run_file(args: RunArgs) -> ExitCode {
    // The caller's thread may drive a runtime already, so the module runs on a thread of its own.
    std::thread::scope(|scope| scope.spawn(|| run_here(args)).join()).unwrap_or(ExitCode::FAILURE)
}

fn run_here(args: RunArgs) -> ExitCode {
    let plan = match Plan::new(&args) {
        Ok(plan) => plan,
        Err(error) => return complain(&error),
    };
    // Nothing is cached, because a module that is being written is another one each time.
    let name = format!("taskmaster-run-{}", uuid::Uuid::now_v7().simple());
    let folder = std::env::temp_dir().join(name);
    let code = run_in(&folder, &args, plan).unwrap_or_else(|error| complain(&error));
    // What cannot be removed stays in the system's temporary folder.
    let _ = remove_tree(&folder);
    code
}

fn run_in(folder: &Path, args: &RunArgs, plan: Plan) -> Result<ExitCode, LocalRunError> {
    // The sandbox must go last, because the files that are fetched are in its folder.
    let loaded = load(args, folder)?;
    let outcome = execute(args, plan, &loaded)?;
    finish(outcome, args.fetch.as_deref())
}

fn finish(outcome: Outcome, fetch: Option<&Path>) -> Result<ExitCode, LocalRunError> {
    match outcome {
        Outcome::Ready(Ending::Done(done)) => Ok(print_result(&done.result, None)),
        Outcome::Upload(pending) => {
            if let (Some(folder), Some(files)) = (fetch, &pending.files) {
                copy_outputs(files, &folder.join(LOCAL))?;
            }
            Ok(print_result(&pending.done.result, pending.result))
        }
        Outcome::Fault(_, fault) => Err(LocalRunError::failed(fault)),
        Outcome::Ready(Ending::Failed(failed)) => {
            show(&failed.error);
            let would_not_load = failed.error.kind == ErrorKind::Module;
            Ok(ExitCode::from(if would_not_load { 1 } else { FAILED }))
        }
    }
}

fn print_result(result: &ResultRef, bytes: Option<Bytes>) -> ExitCode {
    match (result, bytes) {
        (_, Some(bytes)) => print(&bytes, false),
        (ResultRef::Json(json), None) => {
            let text = json.read::<String>();
            print(text.as_deref().unwrap_or(json.get()).as_bytes(), true)
        }
        (ResultRef::Blob(_), None) => ExitCode::SUCCESS,
    }
}

/// Copies what the task gave back, as `--fetch` of the other commands does.
fn copy_outputs(files: &OutputFiles, folder: &Path) -> Result<(), LocalRunError> {
    for output in &files.files {
        let to = folder.join(output.path.as_str());
        let parent = to.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::copy(&output.file, &to))
            .map_err(|error| LocalRunError::Failed(format!("{}: {error}", to.display())))?;
    }
    Ok(())
}

/// A module that is ready to run, and the sandbox for it.
struct LoadedFile {
    sandbox: Sandbox,
    program: Arc<Program>,
}

fn load(args: &RunArgs, folder: &Path) -> Result<LoadedFile, LocalRunError> {
    let file = &args.file;
    let named = |why: String| LocalRunError::Failed(format!("{}: {why}", file.display()));
    let bytes = std::fs::read(file).map_err(|error| named(error.to_string()))?;
    let sandbox = Sandbox::new(1, folder).map_err(LocalRunError::failed)?;
    let program = Program::compile_within(&sandbox, &bytes, args.compile.compile_memory)
        .map_err(|error| named(error.to_string()))?;
    Ok(LoadedFile {
        sandbox,
        program: Arc::new(program),
    })
}

fn execute(args: &RunArgs, plan: Plan, loaded: &LoadedFile) -> Result<Outcome, LocalRunError> {
    let runtime = slot_runtime().map_err(LocalRunError::failed)?;
    let scratch = loaded.sandbox.scratch().join("inputs");
    let GatheredInputs { named, placement } = runtime.block_on(gather(&args.inputs, &scratch))?;
    let parts = WorkParts {
        program: loaded.program.clone(),
        granted: plan.granted,
        input: plan.input,
        inputs: placement,
        stop: Arc::new(StopSwitch::default()),
        listener: listener(),
    };
    let work: Work = parts.into_work(attempt(plan.document, named)?);
    let attempt = work.attempt.clone();
    let timeout = work.timeout;

    let _ticking = loaded.sandbox.keep_ticking();
    // The thread that runs the module gives up a right that this thread needs afterwards, when it
    // copies files into somebody's folder.
    let running = std::thread::scope(|scope| {
        scope
            .spawn(|| crate::sandbox::run(&loaded.sandbox, &runtime, work))
            .join()
    });
    // Dropping it would wait for calls of the guest that may wait for ever.
    runtime.shutdown_background();
    let report = running.map_err(|_| LocalRunError::failed("the sandbox panicked"))?;
    Ok(outcome(attempt, timeout, report))
}

/// The attempt as a master would send it.
fn attempt(
    document: TaskDocument,
    inputs: BTreeMap<FilePath, InputRef>,
) -> Result<Assignment, LocalRunError> {
    Ok(Assignment {
        id: TaskId::new(LOCAL).map_err(LocalRunError::failed)?,
        attempt: AttemptId { epoch: 0, n: 1 },
        module: document.module.name,
        version: Hash([0; 32]),
        job: JobName::new(LOCAL).map_err(LocalRunError::failed)?,
        params: None,
        results: BTreeMap::new(),
        job_results: BTreeMap::new(),
        args: document.args,
        env: document.env,
        inputs,
        outputs: document.outputs,
        timeout_ms: document.timeout_ms.unwrap_or(limits::TIMEOUT_MS_DEFAULT),
        memory_mb: document.memory_mb.unwrap_or(limits::MEMORY_MB_DEFAULT),
        slots: 1,
        capabilities: None,
        is_cached: false,
    })
}

/// Shows on stderr what a watcher would see.
fn listener() -> LiveListener {
    #[derive(serde::Deserialize)]
    struct LogLines {
        text: String,
    }
    Arc::new(|_, event| match event {
        LiveEvent::Log(json) => {
            let lines = json.read::<LogLines>().map(|lines| lines.text);
            tell_raw(for_stderr(&lines.unwrap_or_default()).as_bytes());
        }
        LiveEvent::Progress(json) => tell(format_args!("progress {}", json.get())),
        LiveEvent::Partial { value, .. } => tell(format_args!("partial {}", value.get())),
        LiveEvent::Started(_) => {}
    })
}

/// Prints the result: raw into a pipe or a file, and on a terminal without what it would obey.
fn print(bytes: &[u8], newline: bool) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let shown = if stdout.is_terminal() {
        Cow::Owned(plain_bytes(bytes))
    } else {
        Cow::Borrowed(bytes)
    };
    let end: &[u8] = if newline { b"\n" } else { b"" };
    let printed = stdout
        .write_all(&shown)
        .and_then(|()| stdout.write_all(end))
        .and_then(|()| stdout.flush());
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(PIPE_CLOSED),
        Err(error) => complain(&LocalRunError::Failed(format!("stdout: {error}"))),
    }
}

fn show(error: &TaskError) {
    tell(format_args!("{}: {}", error.kind.as_str(), error.message));
    if let Some(backtrace) = &error.backtrace {
        tell(backtrace);
    }
}

fn complain(error: &LocalRunError) -> ExitCode {
    tell(format_args!("error: {error}"));
    ExitCode::from(error.exit_code())
}

#[cfg(test)]
mod tests {
    use super::plan::module_name;
    use super::*;
    use crate::cli::CompileArgs;
    use crate::grants::SharedGrantArgs;
    use taskmaster_protocol::message::Done;

    fn run(text: &str, manifest: &str, params: Option<&str>) -> Result<Outcome, LocalRunError> {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path();
        let file = folder.join("m.wat");
        std::fs::write(&file, text).unwrap();
        std::fs::write(folder.join("m.toml"), manifest).unwrap();
        let args = RunArgs {
            file,
            params: params.map(str::to_owned),
            args: Vec::new(),
            env: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            fetch: None,
            task_timeout: None,
            memory_mb: Some(1),
            allow_env: Vec::new(),
            allow_http: Vec::new(),
            grants: SharedGrantArgs::default(),
            compile: CompileArgs::default(),
        };
        let plan = Plan::new(&args)?;
        let loaded = load(&args, &folder.join("work"))?;
        execute(&args, plan, &loaded)
    }

    const EMPTY: &str = r#"(module (func (export "_start")))"#;

    #[test]
    fn a_module_runs_without_a_master() {
        let outcome = run(EMPTY, "", None);
        assert!(
            matches!(
                outcome,
                Ok(Outcome::Ready(Ending::Done(Done {
                    result: ResultRef::Json(_),
                    ..
                })))
            ),
            "{outcome:?}"
        );
        let spin = r#"(module (func (export "_start") (loop $l (br $l))))"#;
        let Ok(Outcome::Ready(Ending::Failed(failed))) =
            run(spin, "defaults.timeout_ms = 50", None)
        else {
            panic!("no timeout")
        };
        assert_eq!(failed.error.kind, ErrorKind::Timeout);
        assert_eq!(module_name(Path::new("a b.wasm")).as_str(), "module");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let typed = "schema.type = 'object'";
        for (module, manifest, params, words) in [
            ("(module)", "", None, "m.wat: it exports no `_start`"),
            (EMPTY, "", Some("{"), "--params is not JSON"),
            (
                EMPTY,
                typed,
                Some("[1]"),
                "`params`: it is an array, not an object, by the schema of module `m`",
            ),
            (
                EMPTY,
                "descripton = 'x'",
                None,
                "m.toml: unknown field `descripton`",
            ),
            (
                EMPTY,
                "capabilities.folders = ['data']",
                None,
                "asks for folder data; give it with --folder data=DIR",
            ),
            (
                EMPTY,
                "capabilities.secrets = ['KEY']",
                None,
                "--secrets FILE with a line KEY=VALUE",
            ),
            (
                EMPTY,
                "capabilities.http = ['a.org']",
                None,
                "--allow-http a.org",
            ),
            (
                EMPTY,
                "capabilities.env = ['LANG']",
                None,
                "--allow-env LANG",
            ),
        ] {
            let error = run(module, manifest, params).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
