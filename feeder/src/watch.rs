//! `watch`: events as they happen, one JSON line each, across reconnects.

use crate::cli::{GlobalOptions, WatchOptions};
use crate::client::{Client, ClientError};
use crate::error::CommandError;
use crate::output::moments::time_of_day;
use crate::output::{OutputFormat, Printer, notice};
use crate::waiting::reconnect;
use crate::wire::{HotMessage, read_hot};
use serde::Deserialize;
use std::io::{StdoutLock, Write};
use taskmaster_console::terminal::one_line;
use taskmaster_protocol::message::{Gap, Watch};
use taskmaster_protocol::{
    EventFilter, EventKind, EventView, FromMaster, JobName, ModuleName, TaskId, ToMaster, near,
};

/// Runs `watch` until it is stopped.
pub async fn run(options: &WatchOptions, global: &GlobalOptions) -> Result<u8, CommandError> {
    let filter = filter(&options.filters)?;
    let mut client = Client::connect(global.target()?).await?;
    let mut printer = EventPrinter {
        filter,
        // Without --since the first watch begins now; one after a reconnect begins where that
        // ended.
        seen_up_to: options.since.unwrap_or(client.welcome().seq),
        printer: global.printer(),
        out: std::io::stdout().lock(),
    };
    printer.watch(&client, options.since);
    loop {
        match client.receive().await {
            Ok(text) => printer.take(&text)?,
            Err(lost @ ClientError::Lost(_)) => {
                reconnect(&mut client, &lost).await?;
                printer.watch(&client, Some(printer.seen_up_to));
            }
            Err(other) => return Err(other.into()),
        }
    }
}

struct EventPrinter {
    filter: EventFilter,
    /// The seq after which a watch goes on.
    seen_up_to: u64,
    printer: Printer,
    out: StdoutLock<'static>,
}

impl EventPrinter {
    fn watch(&self, client: &Client, since: Option<u64>) {
        client.send(&ToMaster::Watch(Watch {
            filter: self.filter.clone(),
            since,
        }));
    }

    fn take(&mut self, text: &str) -> Result<(), CommandError> {
        if let Some(HotMessage::Watch(events)) = read_hot(text) {
            for event in events {
                let seq = seq_of(event.get()).unwrap_or(0);
                self.seen_up_to = self.seen_up_to.max(seq);
                if let Some(line) = line(event.get(), &self.printer) {
                    writeln!(self.out, "{line}")?;
                }
            }
            return Ok(self.out.flush()?);
        }
        match FromMaster::decode(text) {
            Ok(FromMaster::Gap(gap)) => {
                self.seen_up_to = self.seen_up_to.max(gap.resume.saturating_sub(1));
                notice(&gap_text(gap, self.printer.wants_json()));
                Ok(())
            }
            Ok(FromMaster::Refused(refused)) => Err(refused.error.into()),
            _ => Ok(()),
        }
    }
}

fn gap_text(gap: Gap, json: bool) -> String {
    if json {
        return FromMaster::Gap(gap).encode();
    }
    let why = if gap.reason == "slow" {
        "they came faster than they were read"
    } else {
        "they are no longer kept"
    };
    format!(
        "watch:gap: {} events were missed ({why}); going on from seq {}",
        gap.missed, gap.resume
    )
}

fn seq_of(event: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct SeqField {
        seq: Option<u64>,
    }
    serde_json::from_str::<SeqField>(event).ok()?.seq
}

/// An event in the format that was asked for. `json` gives JSON lines, too: a watch has no end that
/// would close an array.
fn line(event: &str, printer: &Printer) -> Option<String> {
    match printer.requested() {
        None | Some(OutputFormat::Json | OutputFormat::Jsonl) => {
            Some(printer.one_line(event).into_owned())
        }
        Some(OutputFormat::Quiet) => {
            let event: EventView = serde_json::from_str(event).ok()?;
            event.task.map(|task| task.to_string())
        }
        Some(OutputFormat::Table) => Some(event_line(&serde_json::from_str(event).ok()?)),
    }
}

/// An event as a line for people.
pub fn event_line(event: &EventView) -> String {
    let time_of_day = time_of_day(event.time);
    let names = [
        event.task.as_ref().map(TaskId::as_str),
        event.module.as_ref().map(ModuleName::as_str),
        event.job.as_ref().map(|job| job.as_str()),
        event.runner.as_deref(),
    ];
    let names: Vec<&str> = names.into_iter().flatten().collect();
    let data = match event.data.get() {
        "null" | "{}" => String::new(),
        data => format!("  {data}"),
    };
    let kind = event.event.as_str();
    let line = format!("{time_of_day}  {kind:<15} {}{data}", names.join(" "));
    one_line(&line).trim_end().to_owned()
}

/// The filter that `--filter` describes. The errors of unknown words have those that are near.
pub fn filter(pairs: &[(String, String)]) -> Result<EventFilter, CommandError> {
    const KEYS: [&str; 5] = ["event", "job", "task", "module", "runner"];
    let mut filter = EventFilter::default();
    for (key, value) in pairs {
        let bad = |error: taskmaster_protocol::id::BadName| {
            CommandError::Usage(format!("--filter {key}={value}: {error}"))
        };
        match key.as_str() {
            "event" => filter.events.push(value.clone()),
            "job" => filter.job = Some(JobName::new(value).map_err(bad)?),
            "task" => filter.task = Some(TaskId::new(value).map_err(bad)?),
            "module" => filter.module = Some(ModuleName::new(value).map_err(bad)?),
            "runner" => filter.runner = Some(value.clone()),
            other => {
                let hint = near::hint(other, KEYS);
                let known = KEYS.join(", ");
                return Err(CommandError::Usage(format!(
                    "--filter {other}={value}: unknown key `{other}`{hint}; the keys are {known}"
                )));
            }
        }
    }
    if let Some(word) = filter.unknown_events().first() {
        let known: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let hint = near::hint(word, known.iter().copied());
        return Err(CommandError::Usage(format!(
            "--filter event={word}: no event of that name{hint}; the events are {}",
            known.join(" ")
        )));
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_protocol::Wall;

    fn filter_of(pairs: &[(&str, &str)]) -> Result<EventFilter, CommandError> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        filter(&pairs.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn filters_are_read_and_typos_answered() {
        let pairs = [("event", "task:done"), ("event", "module"), ("job", "j")];
        let filter = filter_of(&pairs).unwrap();
        assert_eq!(filter.events.len(), 2);
        assert_eq!(filter.job, JobName::new("j").ok());
        for (key, value, words) in [
            ("evnt", "x", "`event`"),
            ("event", "task:don", "`task:done`"),
            ("task", "a b", "a b"),
        ] {
            let error = filter_of(&[(key, value)]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn an_event_in_each_format() {
        let event = concat!(
            r#"{"seq":7,"time":"2026-01-31T12:00:00.000000Z","event":"task:done","#,
            r#""task":"t","module":"echo","job":"j","runner":null,"data":{}}"#,
        );
        let line = |format| line(event, &Printer::new(format));
        assert_eq!(line(None).as_deref(), Some(event));
        assert_eq!(line(Some(OutputFormat::Quiet)).as_deref(), Some("t"));
        let time = time_of_day(Wall::parse("2026-01-31T12:00:00Z").unwrap());
        assert_eq!(
            line(Some(OutputFormat::Table)),
            Some(format!("{time}  task:done       t echo j"))
        );
        assert_eq!(seq_of(event), Some(7));
    }
}
