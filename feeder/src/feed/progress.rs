//! How far a feed is: a line that is rewritten on a terminal, and the summary at the end.

use super::ledger::Ledger;
use crate::exit::EndCounts;
use crate::output::status_line::StatusLine;
use crate::output::text::thousands;
use serde::Serialize;
use std::time::Instant;
use taskmaster_protocol::JobName;

/// Characters of the bar.
const BAR_CHARS: usize = 24;

/// The line on the terminal. Nothing is drawn where stderr is not a terminal.
pub(super) struct ProgressLine {
    line: StatusLine,
    waits: bool,
    began: Instant,
}

impl ProgressLine {
    /// Begins to measure the time. `waits`: the feed waits until its tasks have ended.
    pub(super) fn new(waits: bool) -> ProgressLine {
        ProgressLine {
            line: StatusLine::new(),
            waits,
            began: Instant::now(),
        }
    }

    /// Rewrites the line.
    pub(super) fn draw(&mut self, ledger: &Ledger) {
        if self.line.is_terminal() {
            let line = line(ledger, self.waits, self.seconds());
            self.line.draw(&line);
        }
    }

    /// Removes the line, before anything else is written.
    pub(super) fn clear(&mut self) {
        self.line.clear();
    }

    /// Seconds since the beginning.
    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

fn line(ledger: &Ledger, waits: bool, seconds: f64) -> String {
    let added = thousands(ledger.added);
    let refused = if ledger.refused > 0 {
        format!(", {} refused", thousands(ledger.refused))
    } else {
        String::new()
    };
    if !waits {
        let rate = thousands(rate(ledger.added, seconds) as u64);
        return format!("{added} added{refused}, {rate}/s");
    }
    let ended = ledger.ends.total();
    let all = ended + ledger.open_tasks() as u64;
    let full = (u128::from(ended) * BAR_CHARS as u128)
        .checked_div(u128::from(all))
        .unwrap_or(0) as usize;
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR_CHARS - full));
    let rate = thousands(rate(ended, seconds) as u64);
    let ended = thousands(ended);
    format!("{bar} {ended} of {added} ended{refused}, {rate}/s")
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// What `feed -o json` prints. The fields are read by scripts.
#[derive(Debug, Serialize)]
pub(super) struct FeedSummary {
    /// The one job to which tasks were added, or the job of lines that name none.
    job: String,
    /// The jobs, for people.
    #[serde(skip)]
    jobs: String,
    added: u64,
    /// Tasks that were there already.
    known: u64,
    rejected: u64,
    /// `None` where nobody waited for the tasks.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    ends: Option<EndCounts>,
    seconds: f64,
    /// Tasks that ended in a second, or that were added where nobody waited.
    tasks_per_s: f64,
}

impl FeedSummary {
    /// Sums up a feed that is complete.
    pub(super) fn new(job: &JobName, ledger: &Ledger, waits: bool, seconds: f64) -> FeedSummary {
        let count = if waits {
            ledger.ends.total()
        } else {
            ledger.added
        };
        FeedSummary {
            job: ledger.only_job().unwrap_or(job).to_string(),
            jobs: ledger.named_jobs(),
            added: ledger.added,
            known: ledger.known,
            rejected: ledger.refused,
            ends: waits.then_some(ledger.ends),
            seconds: (seconds * 1e3).round() / 1e3,
            tasks_per_s: (rate(count, seconds) * 10.0).round() / 10.0,
        }
    }

    /// The summary for people.
    pub(super) fn sentence(&self) -> String {
        let mut line = match (self.added, self.known) {
            (0, 0) => "added nothing".to_owned(),
            (0, known) => format!("added nothing, {} there already", plural(known, "task")),
            (added, 0) => format!("added {} to {}", plural(added, "task"), self.jobs),
            (added, known) => {
                let added = plural(added, "task");
                let known = thousands(known);
                format!("added {added} to {}, {known} there already", self.jobs)
            }
        };
        if self.rejected > 0 {
            line.push_str(&format!(", refused {}", plural(self.rejected, "line")));
        }
        if let Some(ends) = &self.ends {
            line.push_str(&format!(": done {}", thousands(ends.done)));
            for (count, state) in [
                (ends.failed, "failed"),
                (ends.cancelled, "cancelled"),
                (ends.skipped, "skipped"),
            ] {
                if count > 0 {
                    line.push_str(&format!(", {state} {}", thousands(count)));
                }
            }
        }
        let rate = thousands(self.tasks_per_s.round() as u64);
        format!("{line}; {:.1} s, {rate} tasks/s", self.seconds)
    }
}

/// A count with its word.
pub(super) fn plural(count: u64, word: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {word}{ending}", thousands(count))
}
