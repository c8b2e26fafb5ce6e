//! What people type: the clap types of every client command, with the text of their help.

mod cache;
mod inspecting;
mod projects;
mod tasks;
mod values;

pub use crate::output::OutputFormat;
pub use cache::{CacheCommand, KeptAnswerOptions};
pub use inspecting::{
    DoctorOptions, JobsCommand, ModulesCommand, RunnersCommand, TasksCommand, TopOptions,
    WatchOptions,
};
pub use projects::{DevOptions, Language, NewOptions};
pub use tasks::{AddOptions, BenchOptions, CallOptions, FeedOptions, TaskOptions};
pub use values::{PastTime, TimeSpan};

use crate::client::{ClientError, Target};
use crate::output::Printer;
use clap::{Arg, Args, Subcommand};

/// The master's address where neither `--url` nor `TASKMASTER_URL` names one.
pub const DEFAULT_URL: &str = "ws://127.0.0.1:3232";

/// Options that every command has.
#[derive(Debug, Clone, Default, Args)]
pub struct GlobalOptions {
    /// How to write data: a table on a terminal and JSON lines elsewhere, unless given
    #[arg(
        short = 'o',
        long = "output",
        global = true,
        value_enum,
        value_name = "FORMAT"
    )]
    pub output: Option<OutputFormat>,
    /// The master; several, comma-separated, are tried in turn [default: ws://127.0.0.1:3232]
    #[arg(
        long,
        global = true,
        env = "TASKMASTER_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub url: Option<String>,
    /// The token, where the master wants one
    #[arg(
        long,
        global = true,
        env = "TASKMASTER_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
}

impl GlobalOptions {
    /// The masters to try, in a new session.
    pub fn target(&self) -> Result<Target, ClientError> {
        let urls = self.url.as_deref().unwrap_or(DEFAULT_URL);
        Target::parse(urls, self.token.as_deref())
    }

    /// Whether `-o json` or `-o jsonl` was given.
    pub fn wants_json(&self) -> bool {
        matches!(self.output, Some(OutputFormat::Json | OutputFormat::Jsonl))
    }

    /// Writes in the format that `-o` names.
    pub(crate) fn printer(&self) -> Printer {
        Printer::new(self.output)
    }
}

/// `--url` and `--token` as a command has them that needs no master: they are taken, because a
/// script may give them to every command, and its help does not offer them.
pub fn without_master() -> [Arg; 2] {
    let hidden = |name: &'static str| Arg::new(name).long(name).hide(true);
    [hidden("url"), hidden("token")]
}

/// `--url` as a command has it that has a `--token` of its own.
pub fn without_url() -> [Arg; 1] {
    let [url, _] = without_master();
    [url]
}

/// Every command of a client.
#[derive(Debug, Clone, Subcommand)]
pub enum ClientCommand {
    /// Add one task and print its id
    ///
    /// The task is durable when the id is printed. With --wait the command stays until the task has
    /// ended and prints it as a table, or as JSON with -o json.
    #[command(after_help = tasks::ADD_HELP)]
    Add(AddOptions),
    /// Add one task, wait for it, and print its result alone
    ///
    /// Text is printed raw, other JSON as the module wrote it, bytes as they are. If the task
    /// fails, its error and backtrace go to stderr and nothing to stdout.
    #[command(after_help = tasks::CALL_HELP)]
    Call(CallOptions),
    /// Add many tasks: JSON lines or a JSON array, from a file or stdin
    ///
    /// Tasks are sent while the input is still being read. A line whose dependency has not come yet
    /// is held until it does. A bad line is reported as `line N: ...` on stderr and does not stop
    /// the others. If the master goes away, the feed waits for it and goes on; nothing is added
    /// twice.
    #[command(after_help = tasks::FEED_HELP)]
    Feed(FeedOptions),
    /// List, show, cancel, retry and change tasks
    #[command(subcommand)]
    Tasks(TasksCommand),
    /// List, show, wait for, cancel and pause jobs
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// List, check, push, approve and roll back modules
    #[command(subcommand)]
    Modules(ModulesCommand),
    /// List, show and drain runners
    #[command(subcommand)]
    Runners(RunnersCommand),
    /// List, explain and drop kept answers
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Print events as JSON lines, live
    ///
    /// Reconnects when the master goes away and goes on where it was; events that are no longer
    /// kept are told as `watch:gap` on stderr.
    #[command(after_help = inspecting::WATCH_HELP)]
    Watch(WatchOptions),
    /// Show runners, jobs, rates and events, live, in the terminal
    #[command(after_help = inspecting::TOP_HELP)]
    Top(TopOptions),
    /// Measure tasks per second and the time of one task
    ///
    /// Uploads a small module of its own that gives back its params, feeds it tasks with distinct
    /// params, and checks every result. Times are from the first add to the last durable completion
    /// that the client knows of.
    #[command(after_help = tasks::BENCH_HELP)]
    Bench(BenchOptions),
    /// Write the project of a new task
    ///
    /// Each is a small, real task to begin from. Needs no network and no master; says which tools
    /// it would need.
    #[command(after_help = projects::NEW_HELP, args = without_master())]
    New(NewOptions),
    /// Build and run a task project whenever it changes
    #[command(after_help = projects::DEV_HELP)]
    Dev(DevOptions),
    /// Check that a master answers and that tasks can run there
    #[command(after_help = inspecting::DOCTOR_HELP)]
    Doctor(DoctorOptions),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        global: GlobalOptions,
        #[command(subcommand)]
        command: ClientCommand,
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_after_the_command() {
        let cli = Cli::parse_from(["t", "tasks", "show", "x", "-o", "json", "--url", "ws://a"]);
        assert_eq!(cli.global.output, Some(OutputFormat::Json));
        assert_eq!(cli.global.url.as_deref(), Some("ws://a"));
        assert!(matches!(
            cli.command,
            ClientCommand::Tasks(TasksCommand::Show { .. })
        ));
        let cli = Cli::parse_from([
            "t",
            "add",
            "echo",
            "--env",
            "A=b=c",
            "--task-timeout",
            "300ms",
            "--arg",
            "-v",
        ]);
        let ClientCommand::Add(add) = cli.command else {
            panic!("not add")
        };
        assert_eq!(add.task.env, [("A".to_owned(), "b=c".to_owned())]);
        assert_eq!(add.task.task_timeout.map(|span| span.ms()), Some(300));
        assert!(Cli::try_parse_from(["t", "add", "echo", "--task-timeout", "300"]).is_err());
        assert!(Cli::try_parse_from(["t", "feed", "--wait", "--follow"]).is_err());
    }
}
