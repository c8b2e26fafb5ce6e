//! `taskmaster run FILE`: one module, here, without a master, through the same sandbox and the same rules.

use super::{duration, pair};
use crate::inputs::{FetchFile, Inputs, place::Placing};
use crate::outcome::{Outcome, outcome};
use crate::outputs::MadeFiles;
use crate::prepare::work;
use crate::sandbox::{Control, Listener, Program, Sandbox, Utterance};
use crate::session::Ending;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use taskmaster_protocol::message::{Attempt, ResultRef, Send};
use taskmaster_protocol::{
    AttemptId, ErrorKind, FilePath, Glob, Hash, InputRef, JobName, Json, ModuleName, ModuleRef, TaskDocument,
    TaskError, TaskId, limits,
};
use taskmaster_transport::local::{Local, Place, parse_input};

/// The id and the job of the one task.
const LOCAL: &str = "local";

/// The exit code of a task that failed, as for everything that waits for tasks.
const FAILED: u8 = 3;

/// The exit code of a wrong argument.
const USAGE: u8 = 2;

/// Execute one module here, without a master.
///
/// The module runs in the very sandbox that runners use, under the same limits. Its result stands alone on stdout:
/// JSON as it is, text raw, bytes raw. Its log is on stderr, live.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  taskmaster run resize.wasm --params '{\"width\":200}'
  echo '[1,2,3]' | taskmaster run sum.wat --params -
  taskmaster run resvg.wasm --input a.svg=icons/a.svg --arg a.svg --arg a.png --fetch out

Exit codes: 0 done · 1 the file could not be read or would not load · 2 usage · 3 the task failed")]
pub struct RunArgs {
    /// The module: a .wasm or .wat file
    pub file: PathBuf,
    /// JSON for the module's stdin; - reads it from this command's stdin
    #[arg(long, value_name = "JSON|-")]
    pub params: Option<String>,
    /// An argument of the module (repeatable)
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    pub args: Vec<String>,
    /// A variable of the module's environment (repeatable)
    #[arg(long = "env", value_name = "K=V", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// A file or folder that the module finds in its folder, such as data=./data (repeatable)
    #[arg(long = "input", value_name = "PATH=FILE", value_parser = parse_input)]
    pub inputs: Vec<(FilePath, PathBuf)>,
    /// Which files the module gives back, such as '*.png' (repeatable) [default: all that it makes or changes]
    #[arg(long = "outputs", value_name = "GLOB")]
    pub outputs: Vec<Glob>,
    /// Write the files that it gives back to DIR/local/PATH
    #[arg(long, value_name = "DIR")]
    pub fetch: Option<PathBuf>,
    /// Limit from the start of the module's code
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub task_timeout: Duration,
    /// Limit of the module's memory, MiB
    #[arg(long, value_name = "N", default_value_t = limits::MEMORY_MB_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::MEMORY_MB_MAX)))]
    pub memory_mb: u32,
}

/// Runs it; everything has been printed when this returns. Blocks the calling thread.
pub fn run_file(args: RunArgs) -> ExitCode {
    // A thread of its own, as a slot has: the caller's may drive a runtime already.
    std::thread::scope(|scope| scope.spawn(|| run_here(args)).join()).unwrap_or(ExitCode::FAILURE)
}

fn run_here(args: RunArgs) -> ExitCode {
    let input = match input(args.params.as_deref()) {
        Ok(input) => input,
        Err(why) => return complain(&why, USAGE),
    };
    // Nothing is cached: a module that is being written is another one each time.
    let folder = std::env::temp_dir().join(format!("taskmaster-run-{}", uuid::Uuid::now_v7().simple()));
    let fetch = args.fetch.clone();
    let outcome = load(&args.file, &folder)
        .and_then(|(sandbox, program)| execute(args, &sandbox, program, input).map(|outcome| (outcome, sandbox)));
    let code = match outcome {
        // The sandbox goes last: the files that are fetched are in its folder.
        Ok((outcome, _sandbox)) => tell(outcome, fetch.as_deref()),
        Err(why) => complain(&why, 1),
    };
    // What cannot be removed lies in the system's temporary folder.
    let _ = std::fs::remove_dir_all(&folder);
    code
}

fn tell(outcome: Outcome, fetch: Option<&Path>) -> ExitCode {
    match outcome {
        Outcome::Ready(Ending::Done(done)) => print_result(&done.result, None),
        Outcome::Upload(upload) => {
            if let (Some(folder), Some(files)) = (fetch, &upload.files)
                && let Err(why) = bring(files, &folder.join(LOCAL))
            {
                return complain(&why, 1);
            }
            print_result(&upload.done.result, upload.result)
        }
        Outcome::Ready(Ending::Failed(failed)) => {
            show(&failed.error);
            ExitCode::from(if failed.error.kind == ErrorKind::Module { 1 } else { FAILED })
        }
    }
}

fn print_result(result: &ResultRef, bytes: Option<Bytes>) -> ExitCode {
    match (result, bytes) {
        (_, Some(bytes)) => print(&bytes, false),
        (ResultRef::Json(json), None) => {
            print(json.read::<String>().unwrap_or_else(|_| json.get().to_owned()).as_bytes(), true)
        }
        (ResultRef::Blob(_), None) => ExitCode::SUCCESS,
    }
}

/// Copies what the task gave back, as `--fetch` of the other commands does.
fn bring(files: &MadeFiles, folder: &Path) -> Result<(), String> {
    for made in &files.files {
        let to = folder.join(made.path.as_str());
        let parent = to.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::copy(&made.file, &to))
            .map_err(|error| format!("{}: {error}", to.display()))?;
    }
    Ok(())
}

fn input(params: Option<&str>) -> Result<Bytes, String> {
    let text = match params {
        None => return Ok(Bytes::new()),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|error| format!("stdin: {error}"))?;
            text
        }
        Some(text) => text.to_owned(),
    };
    let json = Json::parse(text.trim()).map_err(|error| format!("--params is not JSON: {error}"))?;
    Ok(Bytes::copy_from_slice(json.get().as_bytes()))
}

fn load(file: &Path, folder: &Path) -> Result<(Sandbox, Arc<Program>), String> {
    let named = |why: String| format!("{}: {why}", file.display());
    let bytes = std::fs::read(file).map_err(|error| named(error.to_string()))?;
    let sandbox = Sandbox::new(1, folder).map_err(|error| error.to_string())?;
    let program = Program::compile(&sandbox, &bytes).map_err(|error| named(error.to_string()))?;
    Ok((sandbox, Arc::new(program)))
}

fn execute(args: RunArgs, sandbox: &Sandbox, program: Arc<Program>, input: Bytes) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(4)
        .build()
        .map_err(|error| error.to_string())?;
    let stem = args.file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (inputs, placing) = runtime.block_on(gather(&args.inputs, &sandbox.scratch().join("inputs")))?;
    let send = Send {
        id: TaskId::new(LOCAL).map_err(|error| text(&error))?,
        attempt: AttemptId { epoch: 0, n: 1 },
        module: ModuleName::new(&stem).or_else(|_| ModuleName::new("module")).map_err(|error| text(&error))?,
        version: Hash([0; 32]),
        job: JobName::new(LOCAL).map_err(|error| text(&error))?,
        params: None,
        results: BTreeMap::new(),
        args: args.args,
        env: args.env.into_iter().collect(),
        inputs,
        outputs: (!args.outputs.is_empty()).then_some(args.outputs),
        timeout_ms: u64::try_from(args.task_timeout.as_millis()).unwrap_or(u64::MAX),
        memory_mb: args.memory_mb,
        slots: 1,
    };
    let attempt = Attempt { id: send.id.clone(), attempt: send.attempt };
    let work = work(send, program, input, placing, (Arc::new(Control::default()), listener()));
    let _busy = sandbox.busy();
    // On a thread of its own: it gives up rights that are needed afterwards, where files are brought to somebody's folder.
    let running = std::thread::scope(|scope| scope.spawn(|| crate::sandbox::run(sandbox, &runtime, work)).join());
    let report = running.map_err(|_| "the sandbox panicked".to_owned())?;
    Ok(outcome(attempt, args.task_timeout, report))
}

/// The inputs as a task names them, and in a cache of their own: copies, so that the task cannot write into the files
/// that they are.
async fn gather(
    wanted: &[(FilePath, PathBuf)],
    folder: &Path,
) -> Result<(BTreeMap<FilePath, InputRef>, Option<Placing>), String> {
    if wanted.is_empty() {
        return Ok((BTreeMap::new(), None));
    }
    let (mut local, mut inputs, mut places) = (Local::default(), BTreeMap::new(), HashMap::new());
    for (path, file) in wanted {
        let read = local.read(file).map_err(|why| format!("--input {path}: {why}"))?;
        inputs.insert(path.clone(), read.input);
        places.extend(read.blobs.iter().cloned());
    }
    let document = TaskDocument { inputs, ..TaskDocument::new(ModuleRef::parse(LOCAL).map_err(|e| e.to_string())?) };
    let document = TaskDocument::parse(Json::of(&document).get()).map_err(|refusal| refusal.message)?;
    let places = Arc::new(places);
    let fetch: FetchFile = Arc::new(move |hash, to| {
        let place = places.get(&hash).cloned();
        Box::pin(async move { copy(place, &to).map_err(|error| error.to_string()) })
    });
    let cache = Inputs::open(folder, u64::MAX, fetch).map_err(|error| format!("{}: {error}", folder.display()))?;
    let placing = Arc::new(cache).get(&document.inputs).await?;
    Ok((document.inputs, Some(placing)))
}

fn copy(place: Option<Place>, to: &Path) -> std::io::Result<u64> {
    match place {
        Some(Place::File(from)) => {
            // Not the permissions: what cannot be read here must be readable there.
            std::io::copy(&mut std::fs::File::open(from)?, &mut std::fs::File::create(to)?)
        }
        Some(Place::Memory(bytes)) => std::fs::write(to, &bytes).map(|()| bytes.len() as u64),
        None => Err(std::io::Error::other("it is none of the inputs")),
    }
}

/// What a watcher would see, on stderr.
fn listener() -> Listener {
    #[derive(serde::Deserialize)]
    struct Line {
        text: String,
    }
    Arc::new(|_, utterance| {
        let mut stderr = std::io::stderr().lock();
        // A closed stderr is no reason to stop the task.
        let _ = match utterance {
            Utterance::Log(json) => {
                stderr.write_all(json.read::<Line>().map(|line| line.text).unwrap_or_default().as_bytes())
            }
            Utterance::Progress(json) => writeln!(stderr, "progress {}", json.get()),
            Utterance::Partial(json) => writeln!(stderr, "partial {}", json.get()),
            Utterance::Started(_) => Ok(()),
        };
    })
}

fn print(bytes: &[u8], newline: bool) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let end: &[u8] = if newline { b"\n" } else { b"" };
    match stdout.write_all(bytes).and_then(|()| stdout.write_all(end)).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn show(error: &TaskError) {
    eprintln!("{}: {}", error.kind.as_str(), error.message);
    if let Some(backtrace) = &error.backtrace {
        eprintln!("{backtrace}");
    }
}

fn complain(why: &str, code: u8) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::message::Done;

    fn run(text: &str, params: Option<&str>) -> Result<Outcome, String> {
        let input = input(params)?;
        let folder = std::env::temp_dir().join(format!("taskmaster-local-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("m.wat");
        std::fs::write(&file, text).unwrap();
        let (args, env) = (Vec::new(), Vec::new());
        let (inputs, outputs, fetch) = (Vec::new(), Vec::new(), None);
        let task_timeout = Duration::from_millis(50);
        let args = RunArgs { file, params: None, args, env, inputs, outputs, fetch, task_timeout, memory_mb: 1 };
        let outcome = load(&args.file, &folder.join("work"))
            .and_then(|(sandbox, program)| execute(args, &sandbox, program, input));
        let _ = std::fs::remove_dir_all(&folder);
        outcome
    }

    #[test]
    fn a_module_runs_without_a_master() {
        let outcome = run(r#"(module (func (export "_start")))"#, None);
        assert!(
            matches!(outcome, Ok(Outcome::Ready(Ending::Done(Done { result: ResultRef::Json(_), .. })))),
            "{outcome:?}"
        );
        let Ok(Outcome::Ready(Ending::Failed(failed))) =
            run(r#"(module (func (export "_start") (loop $l (br $l))))"#, None)
        else {
            panic!("no timeout")
        };
        assert_eq!(failed.error.kind, ErrorKind::Timeout);
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(run("(module)", None).unwrap_err().contains("m.wat: it exports no `_start`"));
        assert!(run("(module)", Some("{")).unwrap_err().contains("--params is not JSON"));
    }
}
