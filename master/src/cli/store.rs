//! The options of `taskmaster store`.

use clap::{Arg, Args, Subcommand};
use std::path::PathBuf;

/// The data folder of a command that works on a store while no master runs on it.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// The master's data folder
    #[arg(long, value_name = "FOLDER", default_value = "./taskmaster-data")]
    pub data: PathBuf,
}

/// `--url` and `--token`, which every command takes and the help of these does not offer: they ask
/// no master.
fn without_master() -> [Arg; 2] {
    ["url", "token"].map(|name| Arg::new(name).long(name).hide(true))
}

/// What `taskmaster store` does.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Read every record and say whether all of it is what was written
    ///
    /// Checksums, the order of commits and events, whether journal and view agree, counts of jobs,
    /// and the bytes of large results and modules. The master must not be running. Nothing is
    /// repaired: where something is wrong, start on a backup, or take what can be read with `store
    /// export` and begin a new store with `store import`. Blobs in an object store are looked for
    /// and read there; the AWS_... variables say how, as they do for the master.
    #[command(after_help = CHECK_HELP, args = without_master())]
    Check(DataArgs),
    /// Write tasks, results, jobs and modules as JSON lines
    ///
    /// One line each, the last one `{"end":…}`. Large results and modules are lines of base64, in
    /// pieces, before the line that names them; one that cannot be read is told as lost. Of a damaged
    /// store all is written that is sound, and each thing that is lost is told on stderr. The master
    /// must not be running.
    #[command(after_help = EXPORT_HELP, args = without_master())]
    Export {
        /// The store's data folder.
        #[command(flatten)]
        data: DataArgs,
        /// Where to; `-` is stdout
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
    /// Make a new store from what `store export` wrote
    ///
    /// Totals of jobs count what is in the export. Where a line cannot be read, or bytes are
    /// missing that a line names, nothing is imported.
    #[command(after_help = IMPORT_HELP, args = without_master())]
    Import {
        /// The store's data folder.
        #[command(flatten)]
        data: DataArgs,
        /// Where from; `-` is stdin
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
    /// Copy a data folder, also while its master runs; a master can start on the copy
    ///
    /// The copy holds everything that was acknowledged when it was begun. A running master sends it,
    /// and this command writes it, into a folder that only you can enter. To restore,
    /// start a master with the copy as --data. Blobs that live in an object store are fetched: the
    /// copy needs none, until a master is started on it with --blobs.
    #[command(after_help = BACKUP_HELP)]
    Backup {
        /// The store's data folder.
        #[command(flatten)]
        data: DataArgs,
        /// A folder that is not there or is empty
        #[arg(value_name = "FOLDER")]
        to: PathBuf,
    },
}

const CHECK_HELP: &str = "\
Example:
  taskmaster store check --data /var/lib/taskmaster

Exit codes: 0 all is well · 1 something is wrong, or the store cannot be opened · 2 usage";

const EXPORT_HELP: &str = "\
Examples:
  taskmaster store export tasks.jsonl
  taskmaster store export | jq -c '.ended | select(.) | [.body.id, .ended.result]'

Exit codes: 0 all is written · 1 it is not, or something was lost · 2 usage";

const IMPORT_HELP: &str = "\
Example:
  taskmaster store export --data old | taskmaster store import --data new
  taskmaster master --data new

Exit codes: 0 all is there · 1 nothing is · 2 usage";

const BACKUP_HELP: &str = "\
Examples:
  taskmaster store backup /backup/monday
      Of the master that runs on ./taskmaster-data and answers at --url.
  taskmaster master --data /backup/monday
      Goes on from there.

Exit codes: 0 the copy is whole · 1 there is none · 2 usage · 69 the master that has the folder \
does not answer";
