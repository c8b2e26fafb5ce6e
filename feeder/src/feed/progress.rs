//! How far a feed is: a line that is rewritten on a terminal, and the summary at the end.

use super::ledger::Ledger;
use crate::output::chat;
use crate::output::text::thousands;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Cells of the bar.
const BAR: usize = 24;

/// The line on the terminal; nothing where stderr is none.
pub struct Progress {
    shown: bool,
    terminal: bool,
    waits: bool,
    began: Instant,
}

impl Progress {
    /// Begins to count. `waits`: the feed waits until its tasks have ended.
    pub fn new(waits: bool) -> Progress {
        Progress {
            shown: false,
            terminal: std::io::stderr().is_terminal(),
            waits,
            began: Instant::now(),
        }
    }

    /// Rewrites the line.
    pub fn draw(&mut self, ledger: &Ledger) {
        if !self.terminal {
            return;
        }
        let line = line(ledger, self.waits, self.began.elapsed().as_secs_f64());
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "\r\u{1b}[K{line}").and_then(|()| err.flush());
        self.shown = true;
    }

    /// Removes the line, before anything else is written.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\u{1b}[K").and_then(|()| err.flush());
        }
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

fn line(ledger: &Ledger, waits: bool, seconds: f64) -> String {
    let ended = ledger.endings.total();
    let refused = if ledger.refused > 0 {
        format!(", {} refused", thousands(ledger.refused))
    } else {
        String::new()
    };
    let added = thousands(ledger.added);
    if !waits {
        return format!(
            "{added} added{refused}, {}/s",
            thousands(rate(ledger.added, seconds) as u64)
        );
    }
    let all = ended + ledger.open() as u64;
    let full = if all == 0 {
        0
    } else {
        (ended as u128 * BAR as u128 / u128::from(all)) as usize
    };
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR - full));
    format!(
        "{bar} {} of {added} ended{refused}, {}/s",
        thousands(ended),
        thousands(rate(ended, seconds) as u64)
    )
}

fn rate(n: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        n as f64 / seconds
    } else {
        0.0
    }
}

/// What `feed -o json` prints.
#[derive(Debug, Serialize)]
pub struct Summary {
    job: String,
    added: u64,
    rejected: u64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    endings: Option<Ended>,
    seconds: f64,
    tasks_per_s: f64,
}

#[derive(Debug, Serialize)]
struct Ended {
    done: u64,
    failed: u64,
    cancelled: u64,
    skipped: u64,
}

impl Summary {
    /// Of a feed that has ended.
    pub fn new(job: &str, ledger: &Ledger, waits: bool, seconds: f64) -> Summary {
        let e = ledger.endings;
        let endings = Ended {
            done: e.done,
            failed: e.failed,
            cancelled: e.cancelled,
            skipped: e.skipped,
        };
        let n = if waits { e.total() } else { ledger.added };
        let tasks_per_s = (rate(n, seconds) * 10.0).round() / 10.0;
        let seconds = (seconds * 1e3).round() / 1e3;
        Summary {
            job: job.to_owned(),
            added: ledger.added,
            rejected: ledger.refused,
            endings: waits.then_some(endings),
            seconds,
            tasks_per_s,
        }
    }

    /// Says it in one line on stderr.
    pub fn say(&self) {
        let mut line = format!("added {} to job {}", plural(self.added, "task"), self.job);
        if self.rejected > 0 {
            line.push_str(&format!(", refused {}", plural(self.rejected, "line")));
        }
        if let Some(ended) = &self.endings {
            line.push_str(&format!(": done {}", thousands(ended.done)));
            for (n, word) in [
                (ended.failed, "failed"),
                (ended.cancelled, "cancelled"),
                (ended.skipped, "skipped"),
            ] {
                if n > 0 {
                    line.push_str(&format!(", {word} {}", thousands(n)));
                }
            }
        }
        let rate = thousands(self.tasks_per_s.round() as u64);
        chat(&format!("{line}; {:.1} s, {rate} tasks/s", self.seconds));
    }
}

fn plural(n: u64, word: &str) -> String {
    format!("{} {word}{}", thousands(n), if n == 1 { "" } else { "s" })
}
