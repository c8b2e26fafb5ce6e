//! `bench`: how many tasks a second, and how long one takes, measured at a client and durable.
//!
//! This is the client that costs the least: ids are numbers, messages are written by hand and read
//! without copying, because it shares its processors with the master and the runner that it
//! measures.

mod load;

use crate::cli::{BenchOptions, Global};
use crate::client::{Client, Target};
use crate::output::table::Table;
use crate::output::{Output, chat};
use crate::trouble::{Trouble, exit};
use load::Load;
use serde::Serialize;
use std::time::{Duration, Instant};
use taskmaster_protocol::message::{Follow, JobRef, Query, Status};
use taskmaster_protocol::shape::{ModuleState, ModuleView, RunnerView};
use taskmaster_protocol::{Json, ModuleName, RefusalCode, ToMaster};

/// The module that is uploaded, and its source.
const MODULE: &str = "taskmaster-bench";
const SOURCE: &str = include_str!("bench/taskmaster-bench.wat");

/// Tasks before the measurement: modules are loaded, caches filled, sockets' windows open.
const WARM_UP: u32 = 2_000;

/// Single tasks whose time is taken; two of them are above the 99th percentile.
const SINGLES: usize = 200;

/// How long a runner and the module are waited for.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// Tasks whose results were checked.
    pub tasks: u32,
    /// From the first add to the last durable completion known to the client.
    pub seconds: f64,
    /// The one divided by the other.
    pub tasks_per_s: f64,
    /// Of one task at a time, from add to durable completion: the median.
    pub p50_ms: f64,
    /// And what 99 of 100 stay below.
    pub p99_ms: f64,
    /// `sync` or `interval:<ms>`, as the master says.
    pub durability: String,
}

impl BenchReport {
    /// Writes it: a block for people, one JSON line for scripts.
    pub fn print(&self, output: &Output) -> Result<(), Trouble> {
        let rate = crate::output::text::thousands(self.tasks_per_s.round() as u64);
        output.show(&Json::of(self), &rate, || {
            let mut block = Table::new(&[]);
            block.pair(
                "tasks",
                crate::output::text::thousands(u64::from(self.tasks)),
            );
            block.pair("seconds", format!("{:.3}", self.seconds));
            block.pair("tasks/s", &rate);
            block.pair(
                "one task",
                format!("p50 {:.2} ms, p99 {:.2} ms", self.p50_ms, self.p99_ms),
            );
            block.pair("durability", &self.durability);
            block
        })
    }
}

/// Runs `bench` against the master that the options name. The exit code.
pub async fn run(options: &BenchOptions, global: &Global) -> Result<u8, Trouble> {
    bench_target(global.target()?, options)
        .await?
        .print(&global.output())?;
    Ok(exit::OK)
}

/// Measures the master at `url`.
pub async fn bench(url: &str, options: &BenchOptions) -> Result<BenchReport, Trouble> {
    bench_target(Target::parse(url, None)?, options).await
}

/// Measures a master.
pub async fn bench_target(target: Target, options: &BenchOptions) -> Result<BenchReport, Trouble> {
    let mut client = Client::connect(target).await?;
    client
        .blobs()
        .put_module(&format!("{MODULE}.wat"), SOURCE.into())
        .await
        .map_err(|error| Trouble::Local(format!("cannot upload the bench's module: {error}")))?;
    wait_until_ready(&mut client).await?;
    let mut load = Load::new(MODULE)?;
    let follow = Follow {
        job: Some(load.job().clone()),
        ids: Vec::new(),
        since: Some(client.welcome().seq),
    };
    client.say(&ToMaster::Follow(follow));
    load.run(&mut client, WARM_UP.min(options.tasks)).await?;
    let began = Instant::now();
    load.run(&mut client, options.tasks).await?;
    let seconds = began.elapsed().as_secs_f64();
    let mut singles = Vec::with_capacity(SINGLES);
    for _ in 0..SINGLES {
        let began = Instant::now();
        load.run(&mut client, 1).await?;
        singles.push(began.elapsed().as_secs_f64() * 1e3);
    }
    client.say(&ToMaster::Release(JobRef {
        job: load.job().clone(),
    }));
    let status: Status = client.ask(Query::Status).await?;
    Ok(BenchReport {
        tasks: options.tasks,
        seconds: round(seconds, 1e6),
        tasks_per_s: round(f64::from(options.tasks) / seconds.max(1e-9), 10.0),
        p50_ms: round(percentile(&mut singles, 50), 1e3),
        p99_ms: round(percentile(&mut singles, 99), 1e3),
        durability: status.durability,
    })
}

/// Waits until a runner is there and the module has been compiled.
async fn wait_until_ready(client: &mut Client) -> Result<(), Trouble> {
    let name = ModuleName::new(MODULE).map_err(|error| Trouble::Local(error.to_string()))?;
    let end = Instant::now() + READY_WITHIN;
    let mut told = false;
    loop {
        let runners: Vec<RunnerView> = client.ask(Query::Runners).await?;
        let able = runners.iter().any(|runner| runner.state == "connected");
        let why = match client
            .ask::<ModuleView>(Query::Module { name: name.clone() })
            .await
        {
            Ok(module) => {
                if let (Some(error), true) = (&module.error, module.state == ModuleState::Rejected)
                {
                    return Err(Trouble::refused(
                        RefusalCode::InvalidValue,
                        format!("the bench's module was rejected: {error}"),
                    ));
                }
                if able && module.state == ModuleState::Ready {
                    return Ok(());
                }
                format!("module {MODULE} is not ready ({:?})", module.state)
            }
            Err(Trouble::Refused(refusal)) if refusal.code == RefusalCode::UnknownModule => {
                refusal.message
            }
            Err(other) => return Err(other),
        };
        if !able && !std::mem::replace(&mut told, true) {
            chat("waiting for a runner; start one with `taskmaster runner`");
        }
        if Instant::now() > end {
            let why = if able {
                why
            } else {
                "no runner is connected: start one with `taskmaster runner`".to_owned()
            };
            return Err(Trouble::Local(why));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
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
        assert_eq!(
            (percentile(&mut values, 50), percentile(&mut values, 99)),
            (100.0, 198.0)
        );
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
        };
        let text = r#"{"tasks":1,"seconds":0.5,"tasks_per_s":2.0,"p50_ms":0.1,"p99_ms":0.2,"durability":"sync"}"#;
        assert_eq!(Json::of(&report).get(), text);
    }
}
