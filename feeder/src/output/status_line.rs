//! One line on the terminal of stderr that is rewritten in its place.

use super::text::clip;
use std::io::IsTerminal;
use taskmaster_console::lines::tell_raw;
use taskmaster_console::terminal::one_line;

/// Goes to the beginning of the terminal's line and empties it.
const CLEAR_LINE: &str = "\r\u{1b}[K";

/// The line. Nothing is drawn where stderr is not a terminal.
pub struct StatusLine {
    is_drawn: bool,
    is_terminal: bool,
}

impl StatusLine {
    /// Draws nothing yet.
    pub fn new() -> StatusLine {
        StatusLine {
            is_drawn: false,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Whether stderr is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Rewrites the line. What does not fit is cut, because a terminal cannot take back a line that
    /// it has broken.
    pub fn draw(&mut self, line: &str) {
        if !self.is_terminal {
            return;
        }
        let columns = ratatui::crossterm::terminal::size().map_or(0, |(columns, _)| columns);
        let line = one_line(line);
        let line = match columns {
            // A terminal that does not know its width.
            0 => line,
            columns => clip(&line, usize::from(columns) - 1).into_owned().into(),
        };
        tell_raw(format!("{CLEAR_LINE}{line}").as_bytes());
        self.is_drawn = true;
    }

    /// Removes the line, before anything else is written.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            tell_raw(CLEAR_LINE.as_bytes());
        }
    }
}
