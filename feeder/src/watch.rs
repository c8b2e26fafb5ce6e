//! `watch`: events as they happen, one JSON line each, across reconnects.

use crate::cli::{Global, WatchOptions};
use crate::client::Client;
use crate::output::text::{cell, one_line};
use crate::output::{Format, chat};
use crate::trouble::Trouble;
use crate::wire::{Hot, hot};
use std::io::Write;
use taskmaster_protocol::message::{Gap, Watch};
use taskmaster_protocol::{
    EventFilter, EventKind, EventView, FromMaster, JobName, ModuleName, TaskId, ToMaster, near,
};

/// Runs `watch`, until it is stopped.
pub async fn run(options: &WatchOptions, global: &Global) -> Result<u8, Trouble> {
    let filter = filter(&options.filters)?;
    let format = global.output;
    let mut client = Client::connect(global.target()?).await?;
    // Without --since the first watch is from now on; what comes after a reconnect begins where
    // that was.
    let mut since = options.since.unwrap_or(client.welcome().seq);
    client.say(&ToMaster::Watch(Watch {
        filter: filter.clone(),
        since: options.since,
    }));
    let mut out = std::io::stdout().lock();
    loop {
        let text = match client.hear().await {
            Ok(text) => text,
            Err(lost @ Trouble::Lost(_)) => {
                client.reconnect(&lost).await?;
                client.say(&ToMaster::Watch(Watch {
                    filter: filter.clone(),
                    since: Some(since),
                }));
                continue;
            }
            Err(other) => return Err(other),
        };
        if let Some(Hot::Events(events)) = hot(&text) {
            for event in events {
                since = since.max(seq_of(event.get()).unwrap_or(0));
                if let Some(line) = line(event.get(), format) {
                    writeln!(out, "{line}")?;
                }
            }
            out.flush()?;
            continue;
        }
        match FromMaster::decode(&text) {
            Ok(FromMaster::Gap(gap)) => {
                since = since.max(gap.resume.saturating_sub(1));
                chat(&gap_text(&gap, global.output().wants_json()));
            }
            Ok(FromMaster::Refused(refused)) => return Err(refused.error.into()),
            _ => {}
        }
    }
}

fn gap_text(gap: &Gap, json: bool) -> String {
    if json {
        return FromMaster::Gap(gap.clone()).encode();
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

#[derive(serde::Deserialize)]
struct Numbered {
    seq: Option<u64>,
}

fn seq_of(event: &str) -> Option<u64> {
    serde_json::from_str::<Numbered>(event).ok()?.seq
}

/// An event in the format asked for; JSON lines also for `json`: a watch has no end that would
/// close an array.
fn line(event: &str, format: Option<Format>) -> Option<String> {
    match format {
        None | Some(Format::Json | Format::Jsonl) => Some(one_line(event).into_owned()),
        Some(Format::Quiet) => serde_json::from_str::<EventView>(event)
            .ok()?
            .task
            .map(|task| task.to_string()),
        Some(Format::Table) => Some(for_people(&serde_json::from_str(event).ok()?)),
    }
}

/// An event as a line for people.
pub fn for_people(event: &EventView) -> String {
    let time = event.time.to_string();
    let time = time.get(11..23).unwrap_or(&time);
    let names = [
        event.task.as_ref().map(TaskId::as_str),
        event.module.as_ref().map(ModuleName::as_str),
        event.job.as_ref().map(|job| job.as_str()),
        event.runner.as_deref(),
    ];
    let names: Vec<&str> = names.into_iter().flatten().collect();
    let data = if matches!(event.data.get(), "null" | "{}") {
        String::new()
    } else {
        format!("  {}", event.data.get())
    };
    cell(&format!(
        "{time}  {:<15} {}{data}",
        event.event.as_str(),
        names.join(" ")
    ))
    .trim_end()
    .to_owned()
}

/// The filter that `--filter` describes; unknown words are answered with near ones.
pub fn filter(pairs: &[(String, String)]) -> Result<EventFilter, Trouble> {
    const KEYS: [&str; 5] = ["event", "job", "task", "module", "runner"];
    let mut filter = EventFilter::default();
    for (key, value) in pairs {
        let bad = |error: taskmaster_protocol::id::BadName| {
            Trouble::Usage(format!("--filter {key}={value}: {error}"))
        };
        match key.as_str() {
            "event" => filter.events.push(value.clone()),
            "job" => filter.job = Some(JobName::new(value).map_err(bad)?),
            "task" => filter.task = Some(TaskId::new(value).map_err(bad)?),
            "module" => filter.module = Some(ModuleName::new(value).map_err(bad)?),
            "runner" => filter.runner = Some(value.clone()),
            other => {
                let hint = near::hint(other, KEYS);
                return Err(Trouble::Usage(format!(
                    "--filter {other}={value}: unknown key `{other}`{hint}; the keys are {}",
                    KEYS.join(", ")
                )));
            }
        }
    }
    if let Some(word) = filter.unknown_events().first() {
        let known: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let hint = near::hint(word, known.iter().copied());
        return Err(Trouble::Usage(format!(
            "--filter event={word}: no event of that name{hint}; the events are {}",
            known.join(" ")
        )));
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Result<EventFilter, Trouble> {
        filter(
            &list
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn filters_are_read_and_typos_answered() {
        let read = pairs(&[("event", "task:done"), ("event", "module"), ("job", "j")]).unwrap();
        assert_eq!((read.events.len(), read.job), (2, JobName::new("j").ok()));
        for (key, value, words) in [
            ("evnt", "x", "`event`"),
            ("event", "task:don", "`task:done`"),
            ("task", "a b", "a b"),
        ] {
            let trouble = pairs(&[(key, value)]).unwrap_err();
            assert!(
                trouble.exit_code() == 2 && trouble.to_string().contains(words),
                "{trouble}"
            );
        }
    }

    #[test]
    fn an_event_in_each_format() {
        let event = r#"{"seq":7,"time":"2026-01-31T12:00:00.000000Z","event":"task:done","task":"t","module":"echo","job":"j","runner":null,"data":{}}"#;
        assert_eq!(line(event, None).as_deref(), Some(event));
        assert_eq!(line(event, Some(Format::Quiet)).as_deref(), Some("t"));
        assert_eq!(
            line(event, Some(Format::Table)).as_deref(),
            Some("12:00:00.000  task:done       t echo j")
        );
        assert_eq!(seq_of(event), Some(7));
    }
}
