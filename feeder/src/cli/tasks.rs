//! The options of the commands that add tasks: `add`, `call`, `feed`, `bench`.

use super::values::{TimeSpan, pair, time};
use clap::Args;
use std::path::PathBuf;
use taskmaster_protocol::limits::DEPENDENCIES_MAX;
use taskmaster_protocol::{FilePath, Glob, JobName, ModuleRef, TaskId, Wall};
use taskmaster_transport::local::parse_input;

pub(super) const ADD_HELP: &str = "\
Examples:
  taskmaster add resize --params '{\"width\": 200}'
  taskmaster add report --after fetch-1 --after fetch-2 --priority 5
  taskmaster add echo --params - --wait -o json < params.json
  taskmaster add resvg --input a.svg=./a.svg --arg a.svg --arg a.png --wait --fetch out

Exit codes:
  0  added; with --wait: done          4  with --wait: it was cancelled
  1  the master refuses                5  --wait-timeout passed
  2  wrong usage                       6  no runner could ever qualify
  3  with --wait: failed or skipped    69 no master answers";

pub(super) const CALL_HELP: &str = "\
Examples:
  taskmaster call echo --params '{\"a\": 1}'
  taskmaster call resize --params '{\"width\": 200}' > small.png
  taskmaster call search --params '\"owls\"' --partials

Ctrl-C cancels the task, unless --detach or --id was given.

Exit codes:
  0  done, the result is on stdout     4  it was cancelled
  1  the master refuses                5  --wait-timeout passed
  2  wrong usage                       6  no runner could ever qualify
  3  failed or skipped                 69 no master answers";

pub(super) const FEED_HELP: &str = "\
One task per line, only `module` is required:
  {\"module\":\"resize\",\"params\":{\"width\":200},\"id\":\"r1\"}
  {\"module\":\"report\",\"dependencies\":[\"r1\"],\"params\":{\"$result\":\"r1\"}}

Examples:
  taskmaster feed tasks.jsonl --job night --wait
  seq 1000 | jq -c '{module:\"echo\",params:.}' | taskmaster feed --follow | jq .result
  taskmaster feed icons.jsonl --follow --fetch out

Paths in `inputs` are relative to the feed file: {\"inputs\":{\"a.svg\":\"icons/a.svg\"}}

--follow prints each task as one JSON line when it has ended, once, also when the
master was killed and started again meanwhile.

Exit codes:
  0  all lines added; with --wait, --follow: all done
  1  lines were refused, or the master refuses the feed
  2  wrong usage
  3  with --wait, --follow: a task failed or was skipped
  4  none failed, but some were cancelled
  69 no master answers";

pub(super) const BENCH_HELP: &str = "\
Examples:
  taskmaster bench
  taskmaster bench --tasks 1000000 -o json
  taskmaster bench --chain 200        each task waits for the one before it
  taskmaster bench --fan 1000         one task, then 1000 that wait for it, then one that waits for them

Exit codes:
  0  measured      1  a result was wrong, or an error      69 no master answers";

/// A task on the command line.
#[derive(Debug, Clone, Args)]
pub struct TaskOptions {
    /// The module: a name, or NAME@sha256:PREFIX to pin a version
    #[arg(value_name = "MODULE")]
    pub module: ModuleArg,
    /// What the module gets on stdin: JSON, or `-` to read it from stdin
    #[arg(long, value_name = "JSON|-", allow_hyphen_values = true)]
    pub params: Option<String>,
    /// An argument of the program; may be repeated
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    pub args: Vec<String>,
    /// A variable of the program's environment; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// A file or folder that the program finds in its folder, such as data=./data; uploaded where
    /// the master lacks it; may be repeated
    #[arg(long = "input", value_name = "PATH=FILE", value_parser = parse_input)]
    pub inputs: Vec<(FilePath, PathBuf)>,
    /// Which files of its folder the program gives back, such as '*.png'; all that it makes or
    /// changes if absent; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub outputs: Vec<Glob>,
    /// The task's id; made up if absent
    #[arg(long)]
    pub id: Option<TaskId>,
    /// The job that it belongs to
    #[arg(long)]
    pub job: Option<JobName>,
    /// Higher comes first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub priority: Option<i32>,
    /// Run only when this task is done; may be repeated
    #[arg(long = "after", value_name = "ID")]
    pub after: Vec<TaskId>,
    /// A label that the runner must have; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// Slots of the runner that it takes while it runs
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// Limit of one attempt, such as 10s or 5m
    #[arg(long, value_name = "TIME")]
    pub task_timeout: Option<TimeSpan>,
    /// Limit of one attempt's memory, MiB
    #[arg(long, value_name = "MIB")]
    pub memory_mb: Option<u32>,
    /// How often a failed attempt is tried again
    #[arg(long, value_name = "N")]
    pub retries: Option<u32>,
    /// Start no earlier than this after it was added, such as 5s
    #[arg(long, value_name = "TIME")]
    pub delay: Option<TimeSpan>,
    /// Start no earlier than this moment, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = time)]
    pub not_before: Option<Wall>,
    /// Take the answer of an equal task that is at most this old, join one that is at work, or run
    /// and keep the answer for this long
    #[arg(long, value_name = "TIME", conflicts_with = "no_cache")]
    pub cache: Option<TimeSpan>,
    /// With --cache: run in any case, and keep the new answer in the place of an older one
    #[arg(long, requires = "cache")]
    pub refresh: bool,
    /// Run in any case, and keep nothing, whatever the module's manifest says
    #[arg(long)]
    pub no_cache: bool,
    /// Wait at most this long, then exit with 5; the task goes on
    #[arg(long, value_name = "TIME")]
    pub wait_timeout: Option<TimeSpan>,
}

/// A module's name on the command line.
#[derive(Debug, Clone)]
pub struct ModuleArg(pub ModuleRef);

impl std::str::FromStr for ModuleArg {
    type Err = String;

    fn from_str(text: &str) -> Result<ModuleArg, String> {
        ModuleRef::parse(text)
            .map(ModuleArg)
            .map_err(|error| error.to_string())
    }
}

/// `add`.
#[derive(Debug, Clone, Args)]
pub struct AddOptions {
    /// The task.
    #[command(flatten)]
    pub task: TaskOptions,
    /// Stay until the task has ended, and print it
    #[arg(long)]
    pub wait: bool,
    /// Write the files that it gives back to DIR/ID/PATH, before it is printed
    #[arg(long, value_name = "DIR", requires = "wait")]
    pub fetch: Option<PathBuf>,
}

/// `call`.
#[derive(Debug, Clone, Args)]
pub struct CallOptions {
    /// The task.
    #[command(flatten)]
    pub task: TaskOptions,
    /// Print each partial result as one line of JSON, before the result
    #[arg(long)]
    pub partials: bool,
    /// At Ctrl-C let the task go on, and say how to come back to it; without this, and without
    /// --id, Ctrl-C cancels it
    #[arg(long)]
    pub detach: bool,
    /// Write the files that it gives back to DIR/ID/PATH, before its result is printed
    #[arg(long, value_name = "DIR")]
    pub fetch: Option<PathBuf>,
}

/// `feed`.
#[derive(Debug, Clone, Default, Args)]
pub struct FeedOptions {
    /// JSON lines or a JSON array; `-` or nothing is stdin
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The job of the lines that name none; a job of its own if absent
    #[arg(long)]
    pub job: Option<JobName>,
    /// Stay until the job is done
    #[arg(long)]
    pub wait: bool,
    /// Print each task as one JSON line when it has ended
    #[arg(long, conflicts_with = "wait")]
    pub follow: bool,
    /// With --follow: print each partial result, too, as {"id":…,"partial":…,"n":…,"attempt":…}
    #[arg(long, requires = "follow", conflicts_with = "wait")]
    pub partials: bool,
    /// With --follow or --wait: write the files that a task gives back to DIR/ID/PATH, before it is
    /// printed
    #[arg(long, value_name = "DIR")]
    pub fetch: Option<PathBuf>,
}

/// Tasks of a `bench` that is not told otherwise.
const TASKS_DEFAULT: u32 = 100_000;

/// Tasks of the largest `bench`.
const TASKS_MAX: i64 = 50_000_000;

/// `bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchOptions {
    /// How many tasks
    #[arg(
        long,
        value_name = "N",
        default_value_t = TASKS_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=TASKS_MAX)
    )]
    pub tasks: u32,
    /// Measure a chain of N tasks instead, each of which waits for the one before it
    #[arg(long, value_name = "N", conflicts_with = "tasks", value_parser = shaped())]
    pub chain: Option<u32>,
    /// Measure one task, then N that wait for it, then one that waits for all of these
    #[arg(long, value_name = "N", conflicts_with_all = ["tasks", "chain"], value_parser = shaped())]
    pub fan: Option<u32>,
}

/// Tasks of a chain or a fan: one task may wait for no more.
fn shaped() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=DEPENDENCIES_MAX as i64)
}

impl Default for BenchOptions {
    fn default() -> BenchOptions {
        BenchOptions {
            tasks: TASKS_DEFAULT,
            chain: None,
            fan: None,
        }
    }
}
