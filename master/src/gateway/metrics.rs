//! `/metrics`: the master at a glance, as Prometheus reads it.

use super::GatewayState;
use super::http::status_of;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use taskmaster_engine::answer::QueryAnswer;
use taskmaster_protocol::message::{CacheStats, Query, Status};
use taskmaster_protocol::{Refusal, RefusalCode};

pub(super) async fn metrics(State(state): State<GatewayState>) -> Response {
    match numbers(&state).await {
        Ok(Numbers { status, cache }) => {
            let is_disk_full = state.handle.room.disk().refusal().is_some();
            let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            let metrics = metrics_of(&status, is_disk_full);
            let metrics = metrics.into_iter().chain(cache_metrics(&cache));
            (headers, text(&status, metrics)).into_response()
        }
        Err(refusal) => (status_of(&refusal), format!("{refusal}\n")).into_response(),
    }
}

/// What the engine counts.
struct Numbers {
    status: Status,
    cache: CacheStats,
}

async fn numbers(state: &GatewayState) -> Result<Numbers, Refusal> {
    let wrong = |other| {
        let text = format!("the engine answered a question for its numbers with {other:?}");
        Err(Refusal::new(RefusalCode::Internal, text))
    };
    let status = match state.handle.ask(Query::Status).await? {
        QueryAnswer::Status(status) => *status,
        other => return wrong(other),
    };
    match state.handle.ask(Query::CacheStats).await? {
        QueryAnswer::CacheStats(cache) => Ok(Numbers { status, cache }),
        other => wrong(other),
    }
}

/// One number, with what Prometheus wants to know about it.
struct Metric {
    name: &'static str,
    kind: &'static str,
    value: u64,
    help: &'static str,
}

fn text(status: &Status, metrics: impl Iterator<Item = Metric>) -> String {
    let mut text = String::from(concat!(
        "# HELP taskmaster_tasks Tasks by state; final ones since this start.\n",
        "# TYPE taskmaster_tasks gauge\n",
    ));
    for (state, count) in &status.tasks {
        text.push_str(&format!("taskmaster_tasks{{state=\"{state}\"}} {count}\n"));
    }
    for metric in metrics {
        let Metric {
            name,
            kind,
            value,
            help,
        } = metric;
        text.push_str(&format!(
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
        ));
    }
    text
}

fn metrics_of(status: &Status, is_disk_full: bool) -> [Metric; 8] {
    [
        Metric {
            name: "taskmaster_events_total",
            kind: "counter",
            value: status.seq,
            help: "Seq of the last durable event.",
        },
        Metric {
            name: "taskmaster_epoch",
            kind: "gauge",
            value: u64::from(status.epoch),
            help: "Starts of a master on this journal.",
        },
        Metric {
            name: "taskmaster_uptime_seconds",
            kind: "gauge",
            value: status.uptime_ms / 1_000,
            help: "Time since this start.",
        },
        Metric {
            name: "taskmaster_jobs_open",
            kind: "gauge",
            value: status.jobs,
            help: "Open jobs.",
        },
        Metric {
            name: "taskmaster_runners",
            kind: "gauge",
            value: status.runners,
            help: "Runners connected.",
        },
        Metric {
            name: "taskmaster_slots",
            kind: "gauge",
            value: status.slots,
            help: "Slots of the runners connected.",
        },
        Metric {
            name: "taskmaster_disk_full",
            kind: "gauge",
            value: u64::from(is_disk_full),
            help: "1: adds are refused for want of room on the disk.",
        },
        Metric {
            name: "taskmaster_adds_refused",
            kind: "gauge",
            value: u64::from(status.why_no_adds().is_some()),
            help: "1: adds are refused, for want of room on the disk or in memory.",
        },
    ]
}

fn cache_metrics(stats: &CacheStats) -> [Metric; 9] {
    let metric = |name, kind, value, help| Metric {
        name,
        kind,
        value,
        help,
    };
    let now = |name, value, help| metric(name, "gauge", value, help);
    let total = |name, value, help| metric(name, "counter", value, help);
    [
        now(
            "taskmaster_cache_entries",
            stats.entries,
            "Answers that are kept.",
        ),
        now(
            "taskmaster_cache_bytes",
            stats.bytes,
            "Bytes of kept answers, with their blobs.",
        ),
        now(
            "taskmaster_cache_bytes_max",
            stats.bytes_max,
            "The most bytes of kept answers (--cache-mb).",
        ),
        total(
            "taskmaster_cache_hits_total",
            stats.hits,
            "Tasks that a kept answer ended, since this start.",
        ),
        total(
            "taskmaster_cache_misses_total",
            stats.misses,
            "Tasks for which no answer was kept, since this start.",
        ),
        total(
            "taskmaster_cache_joined_total",
            stats.joined,
            "Tasks that shared the run of an equal one, since this start.",
        ),
        total(
            "taskmaster_cache_kept_total",
            stats.kept,
            "Answers that runs have left, since this start.",
        ),
        total(
            "taskmaster_cache_doubtful_total",
            stats.doubtful,
            "Answers that were not kept because of a doubt, since this start.",
        ),
        total(
            "taskmaster_cache_evicted_total",
            stats.evicted,
            "Answers that went for want of room or because of their age, since this start.",
        ),
    ]
}
