//! `taskmaster run FILE`: one module, here, without a master, through the same sandbox and the same
//! rules, with what the manifest beside it says.

use super::{duration, pair};
use crate::grants::{Granted, Grants, KeptArgs};
use crate::inputs::{FetchFile, Inputs, place::Placing};
use crate::outcome::{Outcome, outcome};
use crate::outputs::MadeFiles;
use crate::prepare::work;
use crate::sandbox::{Control, Listener, Program, Sandbox, Utterance};
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use taskmaster_module::manifest::Manifest;
use taskmaster_protocol::message::{Attempt, ResultRef, Send};
use taskmaster_protocol::{
    AttemptId, Capabilities, ErrorKind, FilePath, Glob, Hash, InputRef, JobName, Json, ModuleName,
    ModuleRef, TaskDocument, TaskError, TaskId, limits,
};
use taskmaster_runner_session::Ending;
use taskmaster_transport::local::{Local, Place, parse_input};

/// The id and the job of the one task.
const LOCAL: &str = "local";

/// The exit code of a task that failed, as for everything that waits for tasks.
const FAILED: u8 = 3;

/// The exit code of a wrong argument.
const USAGE: u8 = 2;

/// Execute one module here, without a master.
///
/// The module runs in the very sandbox that runners use, under the same limits. Its result stands
/// alone on stdout: JSON as it is, text raw, bytes raw. Its log is on stderr, live.
///
/// The manifest beside it counts as it does on a master: its defaults stand for what is not given
/// here, params must meet its schema, and what it asks for must be given, by the options below:
/// there is nobody else to approve it.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  taskmaster run resize.wasm --params '{\"width\":200}'
  echo '[1,2,3]' | taskmaster run sum.wat --params -
  taskmaster run report.wasm --secrets ./secrets --folder data=/srv/data --allow-http api.example.org
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
    /// Which files the module gives back, such as '*.png' (repeatable) [default: all that it makes
    /// or changes]
    #[arg(long = "outputs", value_name = "GLOB")]
    pub outputs: Vec<Glob>,
    /// Write the files that it gives back to DIR/local/PATH
    #[arg(long, value_name = "DIR")]
    pub fetch: Option<PathBuf>,
    /// Limit from the start of the module's code [default: the manifest's, else 1h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub task_timeout: Option<Duration>,
    /// Limit of the module's memory, MiB [default: the manifest's, else 512]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::MEMORY_MB_MAX)))]
    pub memory_mb: Option<u32>,
    /// A variable of this environment that the module may see (repeatable)
    #[arg(long = "allow-env", value_name = "NAME")]
    pub allow_env: Vec<String>,
    /// A host that the module may speak to over HTTP, such as example.org or example.org:8080
    /// (repeatable)
    #[arg(long = "allow-http", value_name = "HOST")]
    pub allow_http: Vec<String>,
    /// Secrets and folders.
    #[command(flatten)]
    pub kept: KeptArgs,
}

/// Runs it; everything has been printed when this returns. Blocks the calling thread.
pub fn run_file(args: RunArgs) -> ExitCode {
    // A thread of its own, as a slot has: the caller's may drive a runtime already.
    std::thread::scope(|scope| scope.spawn(|| run_here(args)).join()).unwrap_or(ExitCode::FAILURE)
}

fn run_here(args: RunArgs) -> ExitCode {
    let plan = match Plan::new(&args) {
        Ok(plan) => plan,
        Err((why, code)) => return complain(&why, code),
    };
    // Nothing is cached: a module that is being written is another one each time.
    let folder =
        std::env::temp_dir().join(format!("taskmaster-run-{}", uuid::Uuid::now_v7().simple()));
    let fetch = args.fetch.clone();
    let outcome = load(&args.file, &folder).and_then(|(sandbox, program)| {
        execute(&args, plan, &sandbox, program).map(|outcome| (outcome, sandbox))
    });
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
            ExitCode::from(if failed.error.kind == ErrorKind::Module {
                1
            } else {
                FAILED
            })
        }
    }
}

fn print_result(result: &ResultRef, bytes: Option<Bytes>) -> ExitCode {
    match (result, bytes) {
        (_, Some(bytes)) => print(&bytes, false),
        (ResultRef::Json(json), None) => print(
            json.read::<String>()
                .unwrap_or_else(|_| json.get().to_owned())
                .as_bytes(),
            true,
        ),
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

/// What will be run, from what was typed and what the manifest says.
struct Plan {
    document: TaskDocument,
    input: Bytes,
    granted: Granted,
}

impl Plan {
    /// An error comes with the exit code for it.
    fn new(args: &RunArgs) -> Result<Plan, (String, u8)> {
        let usage = |why: String| (why, USAGE);
        let name = module_name(&args.file);
        let manifest = manifest(&args.file).map_err(|why| (why, 1))?;
        let document = document(args, &name, &manifest).map_err(usage)?;
        manifest
            .check(&name, document.params.as_ref())
            .map_err(|refusal| usage(refusal.message))?;
        let input = document
            .params
            .as_ref()
            .map_or_else(Bytes::new, |p| Bytes::copy_from_slice(p.get().as_bytes()));
        let granted = granted(args, &manifest.capabilities).map_err(usage)?;
        Ok(Plan {
            document,
            input,
            granted,
        })
    }
}

/// By the file's stem; what cannot be a name is called `module`.
fn module_name(file: &Path) -> ModuleName {
    let stem = file
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    // The second is a name: a test holds that.
    ModuleName::new(&stem)
        .or_else(|_| ModuleName::new("module"))
        .unwrap_or_else(|_| unreachable!())
}

/// The manifest beside the module; one that says nothing where there is none.
fn manifest(file: &Path) -> Result<Manifest, String> {
    let beside = file.with_extension("toml");
    match std::fs::read_to_string(&beside) {
        Ok(text) => Manifest::parse(&text)
            .map_err(|refusal| format!("the manifest {}: {}", beside.display(), refusal.message)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Manifest::default()),
        Err(error) => Err(format!("the manifest {}: {error}", beside.display())),
    }
}

/// The task as a feeder would describe it, completed by the manifest.
fn document(
    args: &RunArgs,
    name: &ModuleName,
    manifest: &Manifest,
) -> Result<TaskDocument, String> {
    let mut fields = serde_json::Map::new();
    fields.insert("module".into(), name.as_str().into());
    if !args.args.is_empty() {
        fields.insert("args".into(), args.args.clone().into());
    }
    if !args.env.is_empty() {
        let env: serde_json::Map<String, Value> = args
            .env
            .iter()
            .map(|(k, v)| (k.clone(), v.clone().into()))
            .collect();
        fields.insert("env".into(), env.into());
    }
    if !args.inputs.is_empty() {
        // The command line's count alone; which files they are is read later.
        fields.insert("inputs".into(), Value::Object(serde_json::Map::new()));
    }
    if !args.outputs.is_empty() {
        fields.insert(
            "outputs".into(),
            args.outputs.iter().map(Glob::as_str).collect(),
        );
    }
    if let Some(timeout) = args.task_timeout {
        fields.insert(
            "timeout_ms".into(),
            u64::try_from(timeout.as_millis())
                .unwrap_or(u64::MAX)
                .max(1)
                .into(),
        );
    }
    if let Some(memory_mb) = args.memory_mb {
        fields.insert("memory_mb".into(), memory_mb.into());
    }
    let mut text = Value::Object(fields).to_string();
    if let Some(params) = params(args.params.as_deref())? {
        // As it is: a number must not be rewritten.
        text.insert_str(1, &format!("\"params\":{},", params.get()));
    }
    let document =
        TaskDocument::parse(&manifest.complete(&text)).map_err(|refusal| refusal.message)?;
    match document.inputs.keys().next() {
        Some(path) => Err(format!(
            "the manifest's default of `inputs` names `{path}` by its hash, which only a master has; give it with --input"
        )),
        None => Ok(document),
    }
}

fn params(typed: Option<&str>) -> Result<Option<Json>, String> {
    let text = match typed {
        None => return Ok(None),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| format!("stdin: {error}"))?;
            text
        }
        Some(text) => text.to_owned(),
    };
    Json::parse(text.trim())
        .map(Some)
        .map_err(|error| format!("--params is not JSON: {error}"))
}

/// What the module is given: all that its manifest asks for, which must have been typed.
fn granted(args: &RunArgs, wanted: &Capabilities) -> Result<Granted, String> {
    let mut grants = Grants::kept(&args.kept)?;
    for name in &args.allow_env {
        let value = std::env::var(name).map_err(|error| format!("--allow-env {name}: {error}"))?;
        grants = grants.with_variable(name, value);
    }
    let offered = Capabilities {
        http: args.allow_http.iter().cloned().collect(),
        ..grants.offered()
    };
    let missing = wanted.beyond(&offered);
    let typed = [
        (&missing.http, "--allow-http ", ""),
        (&missing.env, "--allow-env ", ""),
        (&missing.secrets, "--secrets FILE with a line ", "=VALUE"),
        (&missing.folders, "--folder ", "=DIR"),
    ];
    let first = typed
        .into_iter()
        .find_map(|(names, flag, value)| Some(format!("{flag}{}{value}", names.first()?)));
    match first {
        Some(typed) => Err(format!(
            "its manifest asks for {missing}; give it with {typed}"
        )),
        None => grants.give(Some(&Arc::new(wanted.clone()))),
    }
}

fn load(file: &Path, folder: &Path) -> Result<(Sandbox, Arc<Program>), String> {
    let named = |why: String| format!("{}: {why}", file.display());
    let bytes = std::fs::read(file).map_err(|error| named(error.to_string()))?;
    let sandbox = Sandbox::new(1, folder).map_err(|error| error.to_string())?;
    let program = Program::compile(&sandbox, &bytes).map_err(|error| named(error.to_string()))?;
    Ok((sandbox, Arc::new(program)))
}

fn execute(
    args: &RunArgs,
    plan: Plan,
    sandbox: &Sandbox,
    program: Arc<Program>,
) -> Result<Outcome, String> {
    let Plan {
        document,
        input,
        granted,
    } = plan;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|error| error.to_string())?;
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (inputs, placing) =
        runtime.block_on(gather(&args.inputs, &sandbox.scratch().join("inputs")))?;
    let timeout = Duration::from_millis(document.timeout_ms.unwrap_or(limits::TIMEOUT_MS_DEFAULT));
    let send = Send {
        id: TaskId::new(LOCAL).map_err(|error| text(&error))?,
        attempt: AttemptId { epoch: 0, n: 1 },
        module: document.module.name,
        version: Hash([0; 32]),
        job: JobName::new(LOCAL).map_err(|error| text(&error))?,
        params: None,
        results: BTreeMap::new(),
        args: document.args,
        env: document.env,
        inputs,
        outputs: document.outputs,
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        memory_mb: document.memory_mb.unwrap_or(limits::MEMORY_MB_DEFAULT),
        slots: 1,
        capabilities: None,
    };
    let attempt = Attempt {
        id: send.id.clone(),
        attempt: send.attempt,
    };
    let work = work(
        send,
        (program, granted),
        input,
        placing,
        (Arc::new(Control::default()), listener()),
    );
    let _busy = sandbox.busy();
    // On a thread of its own: it gives up rights that are needed afterwards, where files are
    // brought to somebody's folder.
    let running = std::thread::scope(|scope| {
        scope
            .spawn(|| crate::sandbox::run(sandbox, &runtime, work))
            .join()
    });
    let report = running.map_err(|_| "the sandbox panicked".to_owned())?;
    Ok(outcome(attempt, timeout, report))
}

/// The inputs as a task names them, and in a cache of their own: copies, so that the task cannot
/// write into the files that they are.
async fn gather(
    wanted: &[(FilePath, PathBuf)],
    folder: &Path,
) -> Result<(BTreeMap<FilePath, InputRef>, Option<Placing>), String> {
    if wanted.is_empty() {
        return Ok((BTreeMap::new(), None));
    }
    let (mut local, mut inputs, mut places) = (Local::default(), BTreeMap::new(), HashMap::new());
    for (path, file) in wanted {
        let read = local
            .read(file)
            .map_err(|why| format!("--input {path}: {why}"))?;
        inputs.insert(path.clone(), read.input);
        places.extend(read.blobs.iter().cloned());
    }
    let document = TaskDocument {
        inputs,
        ..TaskDocument::new(ModuleRef::parse(LOCAL).map_err(|e| e.to_string())?)
    };
    let document =
        TaskDocument::parse(Json::of(&document).get()).map_err(|refusal| refusal.message)?;
    let places = Arc::new(places);
    let fetch: FetchFile = Arc::new(move |hash, to| {
        let place = places.get(&hash).cloned();
        Box::pin(async move { copy(place, &to).map_err(|error| error.to_string()) })
    });
    let cache = Inputs::open(folder, u64::MAX, fetch)
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let placing = Arc::new(cache).get(&document.inputs).await?;
    Ok((document.inputs, Some(placing)))
}

fn copy(place: Option<Place>, to: &Path) -> std::io::Result<u64> {
    match place {
        Some(Place::File(from)) => {
            // Not the permissions: what cannot be read here must be readable there.
            std::io::copy(
                &mut std::fs::File::open(from)?,
                &mut std::fs::File::create(to)?,
            )
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
            Utterance::Log(json) => stderr.write_all(
                json.read::<Line>()
                    .map(|line| line.text)
                    .unwrap_or_default()
                    .as_bytes(),
            ),
            Utterance::Progress(json) => writeln!(stderr, "progress {}", json.get()),
            Utterance::Partial(json) => writeln!(stderr, "partial {}", json.get()),
            Utterance::Started(_) => Ok(()),
        };
    })
}

fn print(bytes: &[u8], newline: bool) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let end: &[u8] = if newline { b"\n" } else { b"" };
    match stdout
        .write_all(bytes)
        .and_then(|()| stdout.write_all(end))
        .and_then(|()| stdout.flush())
    {
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

    fn run(text: &str, manifest: &str, params: Option<&str>) -> Result<Outcome, String> {
        let folder = std::env::temp_dir().join(format!(
            "taskmaster-local-{}",
            uuid::Uuid::now_v7().simple()
        ));
        std::fs::create_dir_all(&folder).unwrap();
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
            kept: KeptArgs::default(),
        };
        let plan = Plan::new(&args).map_err(|(why, _)| why);
        let outcome = plan.and_then(|plan| {
            let (sandbox, program) = load(&args.file, &folder.join("work"))?;
            execute(&args, plan, &sandbox, program)
        });
        let _ = std::fs::remove_dir_all(&folder);
        outcome
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
            let error = run(module, manifest, params).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
