//! The options of `cache`.

use super::values::{PastTime, past_time};
use clap::{Args, Subcommand};
use taskmaster_protocol::message::KeyPrefix;
use taskmaster_protocol::{ModuleName, Salt, TaskId};

/// Which kept answers are meant: those that match all that is given.
#[derive(Debug, Clone, Default, Args)]
pub struct KeptAnswerOptions {
    /// Only of this module
    #[arg(long)]
    pub module: Option<ModuleName>,
    /// Only those whose keys begin with these digits
    #[arg(long, value_name = "PREFIX")]
    pub key: Option<KeyPrefix>,
    /// Only those that this runner made
    #[arg(long, value_name = "NAME")]
    pub runner: Option<String>,
    /// Only of runs that ended at this time or later: RFC 3339, or so long ago, as 2h
    #[arg(long, value_name = "TIME", value_parser = past_time)]
    pub since: Option<PastTime>,
    /// Only of runs that ended before this time: RFC 3339, or so long ago, as 2h
    #[arg(long, value_name = "TIME", value_parser = past_time)]
    pub until: Option<PastTime>,
}

/// `cache`.
#[derive(Debug, Clone, Subcommand)]
pub enum CacheCommand {
    /// List kept answers, in the order of their keys
    #[command(
        after_help = concat!(
            "Examples:\n",
            "  taskmaster cache list --module resize\n",
            "  taskmaster cache list --since 1h -o json"
        )
    )]
    List {
        /// Which answers
        #[command(flatten)]
        which: KeptAnswerOptions,
        /// At most this many; it is said on stderr if there are more
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// Show one kept answer: what made it, what it is, and the parts of its key
    #[command(after_help = "Example:\n  taskmaster cache show 3fb1c2")]
    Show {
        /// The beginning of its key, as `cache list` prints it
        key: KeyPrefix,
    },
    /// Say why a task was answered from the cache, or was not
    #[command(after_help = "Example:\n  taskmaster cache why t1")]
    Why {
        /// The task
        id: TaskId,
    },
    /// Count what is kept, and what became of look-ups since the master started
    #[command(after_help = "Example:\n  taskmaster cache stats -o json | jq .hits")]
    Stats,
    /// Drop kept answers; equal tasks run again
    ///
    /// Nothing is asked. The tasks that made the answers stay as they are.
    #[command(
        after_help = concat!(
            "Examples:\n",
            "  taskmaster cache purge --module resize --since 2h\n",
            "  taskmaster cache purge --runner attic-5f3a\n",
            "  taskmaster cache purge --all"
        )
    )]
    Purge {
        /// Which answers
        #[command(flatten)]
        which: KeptAnswerOptions,
        /// All that are kept
        #[arg(
            long,
            required_unless_present_any = ["module", "key", "runner", "since", "until"],
            conflicts_with_all = ["module", "key", "runner", "since", "until"]
        )]
        all: bool,
    },
    /// Set a word that becomes a part of the keys of a module's answers, or print it
    ///
    /// With another word, answers that were kept before are found no more. With the former word they
    /// are found again, as long as they are kept.
    #[command(
        after_help = concat!(
            "Examples:\n",
            "  taskmaster cache salt resize 2026-12\n",
            "  taskmaster cache salt resize --remove"
        )
    )]
    Salt {
        /// The module
        module: ModuleName,
        /// The word: at most 128 of A-Z a-z 0-9 . _ : -
        salt: Option<Salt>,
        /// Remove the word
        #[arg(long, conflicts_with = "salt")]
        remove: bool,
    },
}
