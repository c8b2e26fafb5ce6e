//! `bench`: how many tasks end in a second, and how long one takes, measured at a client and
//! durable.
//!
//! The client costs as little as it can, because it shares its processors with the master and the
//! runner that it measures: ids are numbers, messages are written by hand and read without copying.

mod load;

use crate::cli::{BenchOptions, GlobalOptions};
use crate::client::{Client, ClientError, Target};
use crate::error::CommandError;
use crate::exit;
use crate::output::table::TextTable;
use crate::output::text::thousands;
use crate::output::{Printer, notice};
use load::{BenchLoad, LoadShape};
use serde::Serialize;
use std::time::{Duration, Instant};
use taskmaster_protocol::message::{Follow, JobRef, Page, Query, Status};
use taskmaster_protocol::shape::{ModuleState, ModuleView, RunnerView};
use taskmaster_protocol::{Json, ModuleName, RefusalCode, TaskView, ToMaster};
use taskmaster_transport::BlobError;

/// The module that is uploaded.
const MODULE: &str = "taskmaster-bench";

/// The text of the module.
const MODULE_TEXT: &str = include_str!("bench/taskmaster-bench.wat");

/// Tasks before the measurement: they load the modules, fill the caches and open the windows of
/// the sockets.
const WARM_UP_TASKS: u32 = 2_000;

/// Tasks whose time is taken, one after another. Two of them are above the 99th percentile.
const SINGLE_TASKS: usize = 200;

/// How often a chain or a fan is measured. Each takes a fraction of a second, and the median counts.
const SHAPED_ROUNDS: usize = 5;

/// How long a runner and the module are waited for.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How often it is asked whether they are there.
const READY_CHECK: Duration = Duration::from_millis(20);

/// What was measured. The fields are read by scripts.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct BenchReport {
    /// Tasks whose results were checked.
    tasks: u32,
    /// From the first add to the last durable end that the client knows of.
    seconds: f64,
    tasks_per_s: f64,
    /// The median time of a single task, from add to durable end.
    p50_ms: f64,
    /// The time that 99 of 100 single tasks stay below.
    p99_ms: f64,
    /// `sync` or `interval:<ms>`, as the master says.
    durability: String,
    /// `chain` or `fan`; absent where no task waits for another. Then `seconds` is the median of
    /// some rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<&'static str>,
}

impl BenchReport {
    /// Writes a block for people, or one JSON line for scripts.
    fn print(&self, printer: &Printer) -> Result<(), CommandError> {
        let rate = thousands(self.tasks_per_s.round() as u64);
        printer.show(&Json::of(self), &rate, || {
            let single = format!("p50 {:.2} ms, p99 {:.2} ms", self.p50_ms, self.p99_ms);
            let mut block = TextTable::block();
            block.pair_if("shape", self.shape);
            block.pair("tasks", thousands(u64::from(self.tasks)));
            block.pair("seconds", format!("{:.3}", self.seconds));
            block.pair("tasks/s", &rate);
            block.pair("one task", single);
            block.pair("durability", &self.durability);
            block
        })
    }
}

/// Runs `bench` and gives the exit code.
pub async fn run(options: &BenchOptions, global: &GlobalOptions) -> Result<u8, CommandError> {
    let shape = match (options.chain, options.fan) {
        (Some(tasks), _) => LoadShape::Chain { tasks },
        (None, Some(width)) => LoadShape::Fan { width },
        (None, None) => LoadShape::Independent {
            tasks: options.tasks,
        },
    };
    let report = measure(global.target()?, shape).await?;
    report.print(&global.printer())?;
    Ok(exit::OK)
}

async fn measure(target: Target, shape: LoadShape) -> Result<BenchReport, CommandError> {
    let mut client = Client::connect(target).await?;
    upload_module(&client).await?;
    wait_until_ready(&mut client).await?;

    let mut load = BenchLoad::new(MODULE)?;
    client.send(&ToMaster::Follow(Follow {
        job: Some(load.job().clone()),
        ids: Vec::new(),
        since: Some(client.welcome().seq),
        partials: false,
    }));
    let single = LoadShape::Independent { tasks: 1 };
    let warm_up = LoadShape::Independent {
        tasks: WARM_UP_TASKS.min(shape.tasks().max(SINGLE_TASKS as u32)),
    };
    load.run(&mut client, warm_up).await?;

    let mut rounds_s = Vec::new();
    for _ in 0..shape.rounds() {
        let began = Instant::now();
        load.run(&mut client, shape).await?;
        rounds_s.push(began.elapsed().as_secs_f64());
    }
    let seconds = percentile(&mut rounds_s, 50);

    let mut singles_ms = Vec::with_capacity(SINGLE_TASKS);
    for _ in 0..SINGLE_TASKS {
        let began = Instant::now();
        load.run(&mut client, single).await?;
        singles_ms.push(began.elapsed().as_secs_f64() * 1e3);
    }
    client.send(&ToMaster::Release(JobRef {
        job: load.job().clone(),
    }));
    remove_module(&mut client).await?;

    let status: Status = client.ask(Query::Status).await?;
    let tasks = shape.tasks();
    Ok(BenchReport {
        tasks,
        seconds: round(seconds, 1e6),
        tasks_per_s: round(f64::from(tasks) / seconds.max(1e-9), 10.0),
        p50_ms: round(percentile(&mut singles_ms, 50), 1e3),
        p99_ms: round(percentile(&mut singles_ms, 99), 1e3),
        durability: status.durability,
        shape: shape.name(),
    })
}

impl LoadShape {
    fn rounds(self) -> usize {
        match self {
            LoadShape::Independent { .. } => 1,
            LoadShape::Chain { .. } | LoadShape::Fan { .. } => SHAPED_ROUNDS,
        }
    }

    /// As the report has it.
    fn name(self) -> Option<&'static str> {
        match self {
            LoadShape::Independent { .. } => None,
            LoadShape::Chain { .. } => Some("chain"),
            LoadShape::Fan { .. } => Some("fan"),
        }
    }
}

async fn upload_module(client: &Client) -> Result<(), CommandError> {
    let file = format!("{MODULE}.wat");
    match client.blobs().put_module(&file, MODULE_TEXT.into()).await {
        Ok(_) => Ok(()),
        Err(error) => Err(CommandError::Local(format!(
            "cannot upload the bench's module: {error}"
        ))),
    }
}

/// Takes the module out of the task folder again, unless another bench still needs it.
async fn remove_module(client: &mut Client) -> Result<(), CommandError> {
    let query = Query::Tasks {
        job: None,
        state: None,
        module: ModuleName::new(MODULE).ok(),
        limit: 1,
        after: None,
    };
    // Open tasks come first in a list.
    let page: Page<TaskView> = client.ask(query).await?;
    if page.rows.iter().any(|task| !task.state.is_final()) {
        return Ok(());
    }
    // Another bench may have removed the module.
    if let Err(error) = client.blobs().remove_module(&format!("{MODULE}.wat")).await
        && !matches!(error, BlobError::Refused { status: 404, .. })
    {
        notice(&format!("{MODULE}.wat stays in the task folder: {error}"));
    }
    Ok(())
}

/// Waits until a runner is connected and the module is compiled.
async fn wait_until_ready(client: &mut Client) -> Result<(), CommandError> {
    let module = ModuleName::new(MODULE).map_err(|error| CommandError::Local(error.to_string()))?;
    let end = Instant::now() + READY_WITHIN;
    let mut told = false;
    loop {
        let runners: Vec<RunnerView> = client.ask_list(Query::RUNNERS).await?;
        let has_runner = runners.iter().any(|runner| runner.state == "connected");
        let unready = why_unready(client, &module).await?;
        let reason = match unready {
            None if has_runner => return Ok(()),
            Some(reason) if has_runner => reason,
            _ => "no runner is connected: start one with `taskmaster runner`".to_owned(),
        };
        if !has_runner && !std::mem::replace(&mut told, true) {
            notice("waiting for a runner; start one with `taskmaster runner`");
        }
        if Instant::now() > end {
            return Err(CommandError::Local(reason));
        }
        tokio::time::sleep(READY_CHECK).await;
    }
}

/// Why the module cannot be used yet. An error where it never can.
async fn why_unready(
    client: &mut Client,
    name: &ModuleName,
) -> Result<Option<String>, CommandError> {
    let query = Query::Module { name: name.clone() };
    let module: ModuleView = match client.ask(query).await {
        Ok(module) => module,
        Err(ClientError::Refused(refusal)) if refusal.code == RefusalCode::UnknownModule => {
            return Ok(Some(refusal.message));
        }
        Err(other) => return Err(other.into()),
    };
    match (module.state, module.error) {
        (ModuleState::Ready, _) => Ok(None),
        (ModuleState::Rejected, Some(error)) => Err(CommandError::refused(
            RefusalCode::InvalidValue,
            format!("the bench's module was rejected: {error}"),
        )),
        (state, _) => Ok(Some(format!("module {MODULE} is not ready ({state:?})"))),
    }
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// The value that `percent` of the values do not exceed (nearest rank).
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 50), 100.0);
        assert_eq!(percentile(&mut values, 99), 198.0);
        assert_eq!(percentile(&mut [], 50), 0.0);
        assert_eq!(percentile(&mut [7.0], 99), 7.0);
    }

    #[test]
    fn a_report_has_the_fields_that_scripts_read() {
        let report = BenchReport {
            tasks: 1,
            seconds: 0.5,
            tasks_per_s: 2.0,
            p50_ms: 0.1,
            p99_ms: 0.2,
            durability: "sync".into(),
            shape: None,
        };
        let text = concat!(
            r#"{"tasks":1,"seconds":0.5,"tasks_per_s":2.0,"p50_ms":0.1,"p99_ms":0.2,"#,
            r#""durability":"sync"}"#,
        );
        assert_eq!(Json::of(&report).get(), text);
        let shape = LoadShape::Chain { tasks: 1 }.name();
        let chain = BenchReport { shape, ..report };
        let text = text.replace("\"}", "\",\"shape\":\"chain\"}");
        assert_eq!(Json::of(&chain).get(), text);
    }
}
