//! `taskmaster store`: what is done to a store by its keeper.

use bytes::Bytes;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use taskmaster_feeder::{GlobalOptions, exit};
use taskmaster_master::cli::StoreCommand;
use taskmaster_master::config::ConfigError;
use taskmaster_master::upkeep::backup::{Copied, backup};
use taskmaster_master::upkeep::check::{Report, check};
use taskmaster_master::upkeep::export::{ExportError, Exported, export};
use taskmaster_master::upkeep::import::{Imported, import};
use taskmaster_master::upkeep::{Opened, UpkeepError};
use taskmaster_store::view;
use taskmaster_transport::{BlobClient, BlobError};

/// Runs it.
pub async fn store(command: StoreCommand, global: &GlobalOptions) -> ExitCode {
    let done = match command {
        StoreCommand::Check(of) => checked(&of.data, global),
        StoreCommand::Export { data, file } => exported(&data.data, &file),
        StoreCommand::Import { data, file } => imported(&data.data, &file),
        StoreCommand::Backup { data, to } => backed_up(&data.data, &to, global).await,
    };
    done.unwrap_or_else(|Failure(code, error)| {
        eprintln!("error: {error}");
        ExitCode::from(code)
    })
}

/// An exit code and its sentence.
struct Failure(u8, String);

impl From<UpkeepError> for Failure {
    fn from(error: UpkeepError) -> Failure {
        let runs = matches!(error, UpkeepError::Config(ConfigError::Locked(_)));
        let more = if runs {
            "; of a running master, `taskmaster store backup` makes a copy to look at"
        } else {
            ""
        };
        Failure(exit::ERROR, format!("{error}{more}"))
    }
}

fn failed(error: impl ToString) -> Failure {
    Failure(exit::ERROR, error.to_string())
}

fn print(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(failed)
}

fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string(value).map_err(failed)?)
}

fn checked(data: &Path, global: &GlobalOptions) -> Result<ExitCode, Failure> {
    let report = check(&Opened::open(data)?)?;
    if global.wants_json() {
        json(&report)?;
    } else {
        let Report {
            commits,
            records,
            unfolded,
            open,
            ended,
            jobs,
            blobs,
            ..
        } = &report;
        let waits = if *unfolded > 0 {
            format!("; {unfolded} commits are not counted in these yet")
        } else {
            String::new()
        };
        print(&format!(
            "{commits} commits with {records} records; {open} open and {ended} ended tasks, {jobs} jobs, {blobs} blobs{waits}"
        ))?;
    }
    for wrong in &report.wrong {
        eprintln!("wrong: {wrong}");
    }
    if report.more > 0 {
        eprintln!("and {} more", report.more);
    }
    if report.ok {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "error: the store in {} is damaged; start on a backup (`taskmaster store backup` makes them), or take what can be read with `taskmaster store export`",
        data.display()
    );
    Ok(ExitCode::from(exit::ERROR))
}

fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}

fn exported(data: &Path, file: &Path) -> Result<ExitCode, Failure> {
    let opened = Opened::open(data)?;
    view::catch_up(&opened.shelf).map_err(failed)?;
    let to: Box<dyn Write> = if is_standard(file) {
        Box::new(io::stdout().lock())
    } else {
        Box::new(
            File::create(file).map_err(|error| failed(format!("{}: {error}", file.display())))?,
        )
    };
    let mut to = BufWriter::new(to);
    let blobs = taskmaster_blobs::Blobs::of(data).map_err(failed)?;
    let written = export(opened.shelf.as_ref(), &blobs, &mut to).and_then(|exported| {
        to.flush()?;
        Ok(exported)
    });
    match written {
        Ok(Exported { tasks, blobs, lost }) => {
            eprintln!("{tasks} tasks and {blobs} blobs exported");
            if !lost.is_empty() {
                say_lost(&lost);
                return Err(failed(
                    "all else is exported; an import of it will say that these are missing",
                ));
            }
        }
        // Whoever read stdout has seen enough.
        Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(ExitCode::SUCCESS)
}

fn say_lost(lost: &[String]) {
    for blob in lost {
        eprintln!("lost: {blob}");
    }
}

fn imported(data: &Path, file: &Path) -> Result<ExitCode, Failure> {
    let Imported { tasks, blobs, lost } = if is_standard(file) {
        import(data, &mut io::stdin().lock())?
    } else {
        let from =
            File::open(file).map_err(|error| failed(format!("{}: {error}", file.display())))?;
        import(data, &mut BufReader::new(from))?
    };
    eprintln!(
        "{tasks} tasks and {blobs} blobs imported into {}",
        data.display()
    );
    say_lost(&lost);
    Ok(ExitCode::SUCCESS)
}

async fn backed_up(data: &Path, to: &Path, global: &GlobalOptions) -> Result<ExitCode, Failure> {
    let copied = match Opened::open(data) {
        Ok(opened) => backup(
            &opened.shelf,
            &taskmaster_blobs::Blobs::of(data).map_err(failed)?,
            to,
        )?,
        Err(UpkeepError::Config(ConfigError::Locked(_))) => ask_master(to, global).await?,
        // A master elsewhere, or on another folder, is meant where it is named.
        Err(_) if global.url.is_some() => ask_master(to, global).await?,
        Err(error) => return Err(error.into()),
    };
    if global.wants_json() {
        json(&copied)?;
    } else {
        let Copied {
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

/// The master that runs makes the copy, on its own machine.
async fn ask_master(to: &Path, global: &GlobalOptions) -> Result<Copied, Failure> {
    let to: PathBuf = std::path::absolute(to).map_err(failed)?;
    let target = global.target().map_err(failed)?;
    let wish = serde_json::json!({ "to": to }).to_string();
    let asked: BlobClient = target.blobs();
    let answer = asked.backup(Bytes::from(wish)).await.map_err(|error| match error {
        BlobError::Unreachable { .. } => Failure(
            exit::UNREACHABLE,
            format!("the data folder is in use, and its master does not answer: {error}; name it with --url"),
        ),
        BlobError::Refused { text, .. } => failed(text),
        other => failed(other),
    })?;
    serde_json::from_slice(&answer).map_err(failed)
}
