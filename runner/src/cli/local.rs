//! `taskmaster run FILE`: one module, here, without a master, through the same sandbox and the same rules.

use super::{duration, pair};
use crate::outcome::{Outcome, outcome};
use crate::sandbox::{Control, Listener, Program, Sandbox, Utterance, Work};
use crate::session::Ending;
use bytes::Bytes;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use taskmaster_protocol::message::{Attempt, ResultRef};
use taskmaster_protocol::{AttemptId, ErrorKind, Json, TaskError, TaskId, limits};

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
    let outcome = load(&args.file, &folder).and_then(|(sandbox, program)| execute(args, &sandbox, program, input));
    // Empty by now; what cannot be removed lies in the system's temporary folder.
    let _ = std::fs::remove_dir_all(&folder);
    match outcome {
        Ok(outcome) => tell(outcome),
        Err(why) => complain(&why, 1),
    }
}

fn tell(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Ready(Ending::Done(done)) => match done.result {
            ResultRef::Json(json) => {
                print(json.read::<String>().unwrap_or_else(|_| json.get().to_owned()).as_bytes(), true)
            }
            ResultRef::Blob(_) => ExitCode::SUCCESS,
        },
        Outcome::Upload(_, _, bytes) => print(&bytes, false),
        Outcome::Ready(Ending::Failed(failed)) => {
            show(&failed.error);
            ExitCode::from(if failed.error.kind == ErrorKind::Module { 1 } else { FAILED })
        }
    }
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
    let name = args.file.file_stem().map_or_else(|| "module".into(), |stem| stem.to_string_lossy().into_owned());
    let id = TaskId::new("local").map_err(|error| error.to_string())?;
    let mut env = args.env;
    env.extend(
        [("TASKMASTER_TASK_ID", "local"), ("TASKMASTER_ATTEMPT", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    env.extend(
        [("TASKMASTER_MODULE", name.as_str()), ("TASKMASTER_JOB", "local")].map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let attempt = Attempt { id, attempt: AttemptId { epoch: 0, n: 1 } };
    let work = Work {
        attempt: attempt.clone(),
        program,
        input,
        args: std::iter::once(name).chain(args.args).collect(),
        env,
        timeout: args.task_timeout,
        memory_mb: args.memory_mb,
        control: Arc::new(Control::default()),
        listener: listener(),
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|error| error.to_string())?;
    let _busy = sandbox.busy();
    let report = crate::sandbox::run(sandbox, &runtime, work);
    Ok(outcome(attempt, args.task_timeout, report))
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
        let args = RunArgs { file, params: None, args, env, task_timeout: Duration::from_millis(50), memory_mb: 1 };
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
