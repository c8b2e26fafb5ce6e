//! `taskmaster store`: what is done to a store by its keeper.

mod backup;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use taskmaster_console::lines::tell;
use taskmaster_feeder::{GlobalOptions, exit};
use taskmaster_master::cli::StoreCommand;
use taskmaster_master::config::ConfigError;
use taskmaster_master::upkeep::backup::{BackupSummary, backup as copy_of};
use taskmaster_master::upkeep::check::{CheckReport, check};
use taskmaster_master::upkeep::export::{ExportError, ExportSummary};
use taskmaster_master::upkeep::import::{ImportSummary, import};
use taskmaster_master::upkeep::{self, OpenStore, UpkeepError};

/// `taskmaster store`.
pub async fn store(command: StoreCommand, global: &GlobalOptions) -> ExitCode {
    let done = match command {
        StoreCommand::Check(of) => run_check(&of.data, global),
        StoreCommand::Export { data, file } => run_export(&data.data, &file),
        StoreCommand::Import { data, file } => run_import(&data.data, &file),
        StoreCommand::Backup { data, to } => run_backup(&data.data, &to, global).await,
    };
    done.unwrap_or_else(|failure| {
        tell(format_args!("error: {}", failure.text));
        ExitCode::from(failure.exit_code)
    })
}

/// Why a command of the store failed.
struct StoreFailure {
    exit_code: u8,
    text: String,
}

impl From<UpkeepError> for StoreFailure {
    fn from(error: UpkeepError) -> StoreFailure {
        let is_in_use = matches!(error, UpkeepError::Config(ConfigError::Locked(_)));
        let hint = if is_in_use {
            "; of a running master, `taskmaster store backup` makes a copy to look at"
        } else {
            ""
        };
        failed(format!("{error}{hint}"))
    }
}

fn failed(error: impl ToString) -> StoreFailure {
    StoreFailure {
        exit_code: exit::ERROR,
        text: error.to_string(),
    }
}

fn print(text: &str) -> Result<(), StoreFailure> {
    writeln!(io::stdout(), "{text}").map_err(failed)
}

fn print_json(value: &impl serde::Serialize) -> Result<(), StoreFailure> {
    print(&serde_json::to_string(value).map_err(failed)?)
}

fn run_check(data: &Path, global: &GlobalOptions) -> Result<ExitCode, StoreFailure> {
    let report = check(&OpenStore::open(data)?)?;
    if global.wants_json() {
        print_json(&report)?;
    } else {
        let CheckReport {
            commits,
            records,
            unfolded,
            open,
            ended,
            jobs,
            blobs,
            ..
        } = &report;
        let not_counted = if *unfolded > 0 {
            format!("; {unfolded} commits are not counted in these yet")
        } else {
            String::new()
        };
        print(&format!(
            "{commits} commits with {records} records; {open} open and {ended} ended tasks, {jobs} jobs, {blobs} blobs{not_counted}"
        ))?;
    }
    for wrong in &report.wrong {
        tell(format_args!("wrong: {wrong}"));
    }
    if report.more > 0 {
        tell(format_args!("and {} more", report.more));
    }
    if report.ok {
        return Ok(ExitCode::SUCCESS);
    }
    tell(format_args!(
        "error: the store in {} is damaged; start on a backup (`taskmaster store backup` makes them), or take what can be read with `taskmaster store export`",
        data.display()
    ));
    Ok(ExitCode::from(exit::ERROR))
}

fn is_dash(file: &Path) -> bool {
    file == Path::new("-")
}

fn run_export(data: &Path, file: &Path) -> Result<ExitCode, StoreFailure> {
    let lock = OpenStore::lock(data)?;
    let to: Box<dyn Write> = if is_dash(file) {
        Box::new(io::stdout().lock())
    } else {
        Box::new(
            File::create(file).map_err(|error| failed(format!("{}: {error}", file.display())))?,
        )
    };
    let mut to = BufWriter::new(to);
    let written = upkeep::export(data, lock, &mut to).and_then(|exported| {
        to.flush()?;
        Ok(exported)
    });
    let exported = match written {
        Ok(exported) => exported,
        Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(ExitCode::from(exit::PIPE_CLOSED));
        }
        Err(error) => return Err(failed(error)),
    };
    let ExportSummary {
        tasks,
        blobs,
        lost,
        lost_more,
    } = exported;
    tell(format_args!("{tasks} tasks and {blobs} blobs exported"));
    if lost.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    tell_lost(&lost, lost_more);
    Err(failed(
        "all else is exported; an import of it will say which blobs are missing",
    ))
}

fn tell_lost(lost: &[String], more: u64) {
    for what in lost {
        tell(format_args!("lost: {what}"));
    }
    if more > 0 {
        tell(format_args!("lost: and {more} more"));
    }
}

fn run_import(data: &Path, file: &Path) -> Result<ExitCode, StoreFailure> {
    let ImportSummary {
        tasks,
        blobs,
        lost,
        lost_more,
    } = if is_dash(file) {
        import(data, &mut io::stdin().lock())?
    } else {
        let from =
            File::open(file).map_err(|error| failed(format!("{}: {error}", file.display())))?;
        import(data, &mut BufReader::new(from))?
    };
    tell(format_args!(
        "{tasks} tasks and {blobs} blobs imported into {}",
        data.display()
    ));
    tell_lost(&lost, lost_more);
    Ok(ExitCode::SUCCESS)
}

async fn run_backup(
    data: &Path,
    to: &Path,
    global: &GlobalOptions,
) -> Result<ExitCode, StoreFailure> {
    let copied = match OpenStore::open(data) {
        Ok(opened) => copy_of(
            &opened.store,
            &taskmaster_blobs::Blobs::open_for_upkeep(data).map_err(failed)?,
            to,
        )?,
        Err(UpkeepError::Config(ConfigError::Locked(_))) => {
            backup::of_running_master(to, global).await?
        }
        // Whoever names a master with --url may mean one elsewhere, or on another folder.
        Err(_) if global.url.is_some() => backup::of_running_master(to, global).await?,
        Err(error) => return Err(error.into()),
    };
    if global.wants_json() {
        print_json(&copied)?;
    } else {
        let BackupSummary {
            to,
            commit,
            records,
            blobs,
        } = &copied;
        print(&format!(
            "{}: up to commit {commit}, {records} records, {blobs} blobs",
            to.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
