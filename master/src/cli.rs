//! The master's options, which `taskmaster master` and `taskmaster up` share.

mod store;

pub use store::{DataArgs, StoreCommand};

use clap::Args;
use std::path::PathBuf;
use taskmaster_blobs::CACHE_BYTES_DEFAULT;
use taskmaster_protocol::limits::{ANSWERS_BYTES_DEFAULT, MEMORY_MB_DEFAULT, MEMORY_MB_MAX};

/// The options of a master.
#[derive(Debug, Clone, Args)]
pub struct MasterArgs {
    /// Address and port to listen on; port 0 takes a free one, told when the master is ready
    ///
    /// A master that listens beyond this machine (0.0.0.0:3232, say) needs a token: one is made and
    /// kept in the data folder if none is given, and what to type on the other machines is printed.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3232")]
    pub listen: String,

    /// Folder of the journal, results and blobs; made where it is missing
    #[arg(long, value_name = "FOLDER", default_value = "./taskmaster-data")]
    pub data: PathBuf,

    /// Folder of the modules: a .wasm or .wat file dropped here is live within half a second
    #[arg(long, value_name = "FOLDER", default_value = "./tasks")]
    pub tasks: PathBuf,

    /// Use only modules whose hash stands in approved.sha256 in the task folder, as sha256sum
    /// writes it
    ///
    /// Others wait, and an approved version before them stays in use. The list counts as it stands:
    /// a line more or less is seen within half a second.
    #[arg(long)]
    pub require_approved: bool,

    /// Token that runners and clients must show
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TASKMASTER_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,

    /// When an add is acknowledged: `sync`, when it is on disk; `interval:MS`, at once, with a sync
    /// every MS milliseconds: a crash or a power cut loses what came after the last
    #[arg(long, value_name = "sync|interval:MS", default_value = "sync")]
    pub durability: String,

    /// How long finished tasks are kept: a time (`7d`), a number (`1000000`), or both, whichever is
    /// less
    #[arg(long, value_name = "TIME,COUNT", default_value = "7d,1000000")]
    pub keep: String,

    /// Object store in which blobs are kept (modules, files, large params and results):
    /// s3://BUCKET/PREFIX; not given: the data folder
    ///
    /// The server, the region and who asks are said by the usual variables: AWS_ENDPOINT_URL,
    /// AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
    /// AWS_ALLOW_HTTP=true, AWS_CA_BUNDLE. A prefix belongs to one data folder. What that has in
    /// blobs moves there at the first start.
    #[arg(
        long,
        value_name = "URL",
        env = "TASKMASTER_BLOBS",
        hide_env_values = true
    )]
    pub blobs: Option<String>,

    /// What the data folder may hold of an object store's blobs, MiB; what nobody has read for
    /// longest goes first
    #[arg(
        long,
        value_name = "N",
        default_value_t = CACHE_BYTES_DEFAULT >> 20,
        value_parser = clap::value_parser!(u64).range(1..=1 << 30)
    )]
    pub blob_cache_mb: u64,

    /// How long files are kept that no task names: what was put and whose task has not come, what
    /// pruned tasks leave
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub blob_grace: String,

    /// How long one attempt may run where its task does not say
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub task_timeout: String,

    /// Memory of one attempt where its task does not say, MiB
    #[arg(
        long,
        value_name = "N",
        default_value_t = MEMORY_MB_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MEMORY_MB_MAX))
    )]
    pub memory_mb: u32,

    /// Memory that tasks which have not ended may take, MiB; half of the machine's where it is not
    /// given
    ///
    /// Beyond it new tasks are refused (`unavailable`) until some have ended: a feed waits and goes
    /// on by itself. Tasks with a priority above 0 may take an eighth more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub queue_mb: Option<u32>,

    /// Memory and disk that kept answers may take together with their files, MiB
    ///
    /// Beyond it those go that were not used for longest. An answer that alone has more is not kept.
    #[arg(long, value_name = "N", default_value_t = ANSWERS_BYTES_DEFAULT >> 20)]
    pub cache_mb: u64,

    /// How long running tasks may go on when the master is asked to stop (SIGTERM, Ctrl-C, SIGHUP);
    /// 0s: not at all
    ///
    /// A stopping master refuses new tasks (`unavailable`) and sends none to runners. What runs
    /// beyond this time is not lost: other runners work on, and the next start takes their results.
    /// A second signal ends it at once.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub grace: String,
}

/// The end of the help text.
pub const EXAMPLES: &str = "\
Examples:
  taskmaster master
      On this machine alone, data and modules in the current folder.
  taskmaster master --listen 0.0.0.0:3232 --data /var/lib/taskmaster --tasks /srv/tasks
      For other machines too; prints the token and the line to type there.
  AWS_ENDPOINT_URL=https://s3.example.org taskmaster master --blobs s3://farm/taskmaster
      Blobs in a bucket; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say who may use it.
  taskmaster master --durability interval:50 --keep 1d,100000
      Faster adds on a slow disk, at most 50 ms of them lost in a crash or power cut; a day of \
history.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        master: MasterArgs,
    }

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let args = CommandLine::parse_from(["x"]).master;
        assert_eq!(
            (args.listen.as_str(), args.durability.as_str()),
            ("127.0.0.1:3232", "sync")
        );
        assert_eq!(
            (args.keep.as_str(), args.grace.as_str()),
            ("7d,1000000", "30s")
        );
        assert_eq!(args.data, PathBuf::from("./taskmaster-data"));
        assert_eq!(args.tasks, PathBuf::from("./tasks"));
    }
}
