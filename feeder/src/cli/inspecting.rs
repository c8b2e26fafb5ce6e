//! The options of the commands that look and change: `tasks`, `jobs`, `modules`, `runners`,
//! `watch`, `top`, `doctor`.

use super::values::{TimeSpan, pair, state};
use super::without_master;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use taskmaster_protocol::{JobName, ModuleName, TaskId, TaskState};

pub(super) const WATCH_HELP: &str = "\
A filter is event=, job=, task=, module= or runner= and a value. `event` takes a full name or
its first part, and may be given several times; all the others must match.

Examples:
  taskmaster watch --filter event=task:failed
  taskmaster watch --since 0 --filter job=night --filter event=task:done | jq .task";

pub(super) const TOP_HELP: &str = "\
Example:
  taskmaster top --every 1s

Keys:
  q, Esc, Ctrl-C   quit";

pub(super) const DOCTOR_HELP: &str = "\
Example:
  taskmaster doctor

Exit codes:
  0  all is well      1  something is not, with what to do about it      69 no master answers";

/// `tasks`.
#[derive(Debug, Clone, Subcommand)]
pub enum TasksCommand {
    /// List tasks: open ones first, then ended ones, the newest first
    #[command(after_help = "Example:\n  taskmaster tasks list --state failed --limit 10")]
    List {
        /// Only of this job
        #[arg(long)]
        job: Option<JobName>,
        /// Only in this state: blocked, delayed, ready, assigned, done, failed, cancelled or
        /// skipped
        #[arg(long, value_parser = state)]
        state: Option<TaskState>,
        /// Only of this module
        #[arg(long)]
        module: Option<ModuleName>,
        /// At most this many; it is said on stderr if there are more
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// Show one task
    #[command(after_help = "Example:\n  taskmaster tasks show t1 -o json")]
    Show {
        /// The task
        id: TaskId,
    },
    /// Print a task's result alone, text raw
    #[command(
        after_help = concat!(
            "Example:\n",
            "  taskmaster tasks result t1 > result.json\n",
            "\n",
            "Exit codes:\n",
            "  0  printed      1  there is no result yet      ",
            "3  it failed or was skipped      4  it was cancelled"
        )
    )]
    Result {
        /// The task
        id: TaskId,
    },
    /// Print what a task wrote to stderr
    #[command(after_help = "Example:\n  taskmaster tasks logs t1")]
    Logs {
        /// The task
        id: TaskId,
    },
    /// List the files that a task gave back
    #[command(
        after_help = concat!(
            "Examples:\n",
            "  taskmaster tasks files t1\n",
            "  taskmaster tasks files t1 --fetch out"
        )
    )]
    Files {
        /// The task
        id: TaskId,
        /// Write them to DIR/ID/PATH
        #[arg(long, value_name = "DIR")]
        fetch: Option<PathBuf>,
    },
    /// Cancel tasks, or all open tasks of a job; running ones are stopped
    #[command(
        after_help = concat!(
            "Examples:\n",
            "  taskmaster tasks cancel t1 t2\n",
            "  taskmaster tasks cancel --job night\n",
            "  taskmaster tasks cancel --job night --state delayed"
        )
    )]
    Cancel {
        /// The tasks
        #[arg(required_unless_present_any = ["job", "state"], conflicts_with_all = ["job", "state"])]
        ids: Vec<TaskId>,
        /// Every open task of this job
        #[arg(long)]
        job: Option<JobName>,
        /// Every task in this state: blocked, delayed, ready or assigned
        #[arg(long, value_parser = state)]
        state: Option<TaskState>,
    },
    /// Open failed or cancelled tasks again, and what was skipped because of them
    #[command(
        after_help = concat!(
            "Examples:\n",
            "  taskmaster tasks retry t1 t2\n",
            "  taskmaster tasks retry --job night --state failed\n",
            "  taskmaster tasks retry --state cancelled"
        )
    )]
    Retry {
        /// The tasks
        #[arg(required_unless_present_any = ["job", "state"], conflicts_with_all = ["job", "state"])]
        ids: Vec<TaskId>,
        /// Every failed task of this job
        #[arg(long)]
        job: Option<JobName>,
        /// Every task in this state: failed or cancelled [default with --job: failed]
        #[arg(long, value_parser = state)]
        state: Option<TaskState>,
    },
    /// Change an open task
    #[command(after_help = "Example:\n  taskmaster tasks set t1 --priority 9 --delay 0s")]
    Set {
        /// The task
        id: TaskId,
        /// Its new priority; higher comes first
        #[arg(long, allow_negative_numbers = true, required_unless_present = "delay")]
        priority: Option<i32>,
        /// Its earliest start, counted from now
        #[arg(long, value_name = "TIME")]
        delay: Option<TimeSpan>,
    },
    /// Say in one sentence why a task is where it is
    #[command(after_help = "Example:\n  taskmaster tasks why t1")]
    Why {
        /// The task
        id: TaskId,
    },
}

/// `jobs`.
#[derive(Debug, Clone, Subcommand)]
pub enum JobsCommand {
    /// List jobs: open ones, then those that are done, each by name
    #[command(after_help = "Example:\n  taskmaster jobs list -o json")]
    List,
    /// Show one job with its counts
    #[command(after_help = "Example:\n  taskmaster jobs show night -o json | jq .done")]
    Show {
        /// The job
        job: JobName,
    },
    /// Wait until a job is done
    #[command(
        after_help = concat!(
            "Example:\n",
            "  taskmaster jobs wait night --wait-timeout 1h\n",
            "\n",
            "Exit codes:\n",
            "  0  all its tasks are done\n",
            "  3  a task failed or was skipped\n",
            "  4  none failed, but some were cancelled\n",
            "  5  --wait-timeout passed"
        )
    )]
    Wait {
        /// The job
        job: JobName,
        /// Wait at most this long
        #[arg(long, value_name = "TIME")]
        wait_timeout: Option<TimeSpan>,
    },
    /// Cancel every open task of a job
    #[command(after_help = "Example:\n  taskmaster jobs cancel night")]
    Cancel {
        /// The job
        job: JobName,
    },
    /// Send no more tasks of a job to runners; running ones go on
    #[command(after_help = "Example:\n  taskmaster jobs pause night")]
    Pause {
        /// The job
        job: JobName,
    },
    /// Send tasks of a paused job again
    #[command(after_help = "Example:\n  taskmaster jobs resume night")]
    Resume {
        /// The job
        job: JobName,
    },
}

/// `modules`.
#[derive(Debug, Clone, Subcommand)]
pub enum ModulesCommand {
    /// List modules
    #[command(after_help = "Example:\n  taskmaster modules list")]
    List,
    /// Show one module with its versions
    #[command(after_help = "Example:\n  taskmaster modules show resize")]
    Show {
        /// The module
        name: ModuleName,
    },
    /// Say whether a file would load; needs no master
    #[command(
        args = without_master(),
        after_help = concat!(
            "Example:\n",
            "  taskmaster modules check resize.wasm\n",
            "\n",
            "Exit codes:\n",
            "  0  it would load      1  it would not, with the reason"
        )
    )]
    Check {
        /// A .wasm or .wat file
        file: PathBuf,
    },
    /// Make a component of a core module that exports `run`; needs no master
    ///
    /// The world is taskmaster:task. What the module imports of WASI preview 1 is tied to WASI 0.2.
    #[command(
        args = without_master(),
        after_help = "Example:\n  taskmaster modules wrap core.wasm resize.wasm"
    )]
    Wrap {
        /// The core module, a .wasm or .wat file
        core: PathBuf,
        /// The component's file
        out: PathBuf,
    },
    /// Put a file into the master's task folder
    #[command(
        after_help = "Example:\n  taskmaster modules push target/wasm32-wasip1/release/resize.wasm"
    )]
    Push {
        /// A .wasm or .wat file
        file: PathBuf,
    },
    /// Let a version that waits be used: with what its manifest asks for, or again after a rollback
    #[command(
        after_help = concat!(
            "Example:\n",
            "  taskmaster modules show resize      what it waits for\n",
            "  taskmaster modules approve resize"
        )
    )]
    Approve {
        /// The module
        name: ModuleName,
        /// The beginning of the version; the newest that waits if absent
        version: Option<String>,
    },
    /// Go back to an earlier version
    #[command(after_help = "Example:\n  taskmaster modules rollback resize")]
    Rollback {
        /// The module
        name: ModuleName,
        /// The beginning of the version, at least 8 digits; the one before if absent
        version: Option<String>,
    },
    /// Send no more tasks of a module to runners
    #[command(after_help = "Example:\n  taskmaster modules pause resize")]
    Pause {
        /// The module
        name: ModuleName,
    },
    /// Send tasks of a paused module again
    #[command(after_help = "Example:\n  taskmaster modules resume resize")]
    Resume {
        /// The module
        name: ModuleName,
    },
}

/// `runners`.
#[derive(Debug, Clone, Subcommand)]
pub enum RunnersCommand {
    /// List runners
    #[command(after_help = "Example:\n  taskmaster runners list -o table")]
    List,
    /// Show one runner
    #[command(after_help = "Example:\n  taskmaster runners show local")]
    Show {
        /// The runner
        runner: String,
    },
    /// Let a runner finish what it has and send it no more
    #[command(after_help = "Example:\n  taskmaster runners drain attic-5f3a")]
    Drain {
        /// The runner
        runner: String,
    },
}

/// `watch`.
#[derive(Debug, Clone, Default, Args)]
pub struct WatchOptions {
    /// Begin with the durable events after this seq; 0: all that are kept. From now on if absent
    #[arg(long, value_name = "SEQ")]
    pub since: Option<u64>,
    /// Only events that match; may be repeated
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = pair)]
    pub filters: Vec<(String, String)>,
}

/// `top`.
#[derive(Debug, Clone, Default, Args)]
pub struct TopOptions {
    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    pub every: Option<TimeSpan>,
}

/// `doctor`.
#[derive(Debug, Clone, Default, Args)]
pub struct DoctorOptions {}
