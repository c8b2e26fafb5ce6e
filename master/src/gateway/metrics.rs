//! `/metrics`: the master at a glance, as Prometheus reads it.

use super::GatewayState;
use super::http::status_of;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use taskmaster_engine::answer::QueryAnswer;
use taskmaster_protocol::message::{Query, Status};
use taskmaster_protocol::{Refusal, RefusalCode};

pub(super) async fn metrics(State(state): State<GatewayState>) -> Response {
    match status(&state).await {
        Ok(status) => {
            let is_disk_full = state.handle.room.disk().refusal().is_some();
            let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (headers, text(&status, is_disk_full)).into_response()
        }
        Err(refusal) => (status_of(&refusal), format!("{refusal}\n")).into_response(),
    }
}

async fn status(state: &GatewayState) -> Result<Status, Refusal> {
    match state.handle.ask(Query::Status).await? {
        QueryAnswer::Status(status) => Ok(*status),
        other => {
            let text = format!("the engine answered a question for its status with {other:?}");
            Err(Refusal::new(RefusalCode::Internal, text))
        }
    }
}

/// One number, with what Prometheus wants to know about it.
struct Metric {
    name: &'static str,
    kind: &'static str,
    value: u64,
    help: &'static str,
}

fn text(status: &Status, is_disk_full: bool) -> String {
    let mut text = String::from(concat!(
        "# HELP taskmaster_tasks Tasks by state; final ones since this start.\n",
        "# TYPE taskmaster_tasks gauge\n",
    ));
    for (state, count) in &status.tasks {
        text.push_str(&format!("taskmaster_tasks{{state=\"{state}\"}} {count}\n"));
    }
    for metric in metrics_of(status, is_disk_full) {
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
