//! What a call waits for, in one line on a terminal.

use crate::followed_task::TaskProgress;
use crate::output::Printer;
use crate::output::status_line::StatusLine;
use std::time::Duration;
use taskmaster_protocol::TaskId;
use tokio::time::Instant;

/// A call that takes no longer shows nothing.
const SHOWN_AFTER: Duration = Duration::from_millis(300);

/// How often the master is asked.
const ASKED_EVERY: Duration = Duration::from_millis(500);

/// The line of one call.
pub(super) struct CallStatus {
    line: StatusLine,
    /// Whether people read stderr: it is a terminal, and no JSON is wanted.
    is_shown: bool,
    task: TaskId,
    /// When to ask next.
    next: Instant,
    /// Whether an answer is waited for.
    is_asked: bool,
    why: Option<String>,
    progress: Option<TaskProgress>,
}

impl CallStatus {
    /// Of a call that begins now.
    pub(super) fn new(task: &TaskId, printer: &Printer) -> CallStatus {
        let line = StatusLine::new();
        CallStatus {
            is_shown: line.is_terminal() && !printer.wants_json(),
            line,
            task: task.clone(),
            next: Instant::now() + SHOWN_AFTER,
            is_asked: false,
            why: None,
            progress: None,
        }
    }

    /// Whether anything is shown.
    pub(super) fn is_shown(&self) -> bool {
        self.is_shown
    }

    /// Waits until it is time to ask the master. Never ready where nothing is shown.
    pub(super) async fn due(&self) {
        if !self.is_shown || self.is_asked {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep_until(self.next).await;
    }

    /// The master was asked.
    pub(super) fn asked(&mut self) {
        self.is_asked = true;
        self.next = Instant::now() + ASKED_EVERY;
    }

    /// The master's answer.
    pub(super) fn why(&mut self, why: String) {
        self.is_asked = false;
        self.why = Some(why);
        self.draw();
    }

    /// The module's word. The next answer shows it.
    pub(super) fn progress(&mut self, progress: TaskProgress) {
        self.progress = Some(progress);
    }

    /// What the last attempt said of its progress is void.
    pub(super) fn new_attempt(&mut self) {
        self.progress = None;
    }

    /// There is a new connection, which knows nothing of what was asked.
    pub(super) fn reconnected(&mut self) {
        self.is_asked = false;
    }

    /// Removes the line, before anything else is written.
    pub(super) fn clear(&mut self) {
        self.line.clear();
    }

    fn draw(&mut self) {
        if let Some(why) = &self.why {
            let text = sentence(why, self.progress.as_ref());
            self.line.draw(&format!("task {}: {text}", self.task));
        }
    }
}

fn sentence(why: &str, progress: Option<&TaskProgress>) -> String {
    let Some(progress) = progress else {
        return why.to_owned();
    };
    let percent = (progress.fraction * 100.0).round();
    let note = match progress.note.as_str() {
        "" => String::new(),
        note => format!(" {note}"),
    };
    // The line may be too long for the terminal, and this is what changes.
    format!("{percent} %{note}; {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_stands_before_the_reason() {
        let progress = |text: &str| serde_json::from_str::<TaskProgress>(text).unwrap();
        let why = "attempt 1 is with runner `mill`";
        assert_eq!(sentence(why, None), why);
        assert_eq!(
            sentence(why, Some(&progress(r#"{"fraction":0.404,"note":"half"}"#))),
            "40 % half; attempt 1 is with runner `mill`"
        );
        assert_eq!(
            sentence(why, Some(&progress(r#"{"fraction":1}"#))),
            "100 %; attempt 1 is with runner `mill`"
        );
    }
}
