//! The command line of `taskmaster run`.

use crate::cli::CompileArgs;
use crate::cli::values::{duration, pair};
use crate::grants::SharedGrantArgs;
use std::path::PathBuf;
use std::time::Duration;
use taskmaster_protocol::{FilePath, Glob, limits};
use taskmaster_transport::local::parse_input;

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
    pub grants: SharedGrantArgs,
    /// What the module may take to be compiled.
    #[command(flatten)]
    pub compile: CompileArgs,
}
