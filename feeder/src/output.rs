//! What goes to stdout and stderr: stdout is data in one of four formats, stderr is chatter and
//! errors.

pub mod table;
pub mod text;

use crate::trouble::{Trouble, refusal_json};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use table::Table;
use taskmaster_protocol::{Json, Refusal};

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people: aligned columns, or a block of names and values.
    Table,
    /// One JSON value; an array for lists.
    Json,
    /// One JSON value per line.
    Jsonl,
    /// Names and ids alone.
    Quiet,
}

/// Where a command writes.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    explicit: Option<Format>,
    terminal: bool,
    colour: bool,
}

impl Output {
    /// Looks at the terminal and at `NO_COLOR`.
    pub fn new(explicit: Option<Format>) -> Output {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Output {
            explicit,
            terminal,
            colour,
        }
    }

    /// The format of a list or a thing: what was asked for, else a table on a terminal and JSON
    /// lines elsewhere.
    pub fn format(&self) -> Format {
        self.explicit.unwrap_or(if self.terminal {
            Format::Table
        } else {
            Format::Jsonl
        })
    }

    /// What `-o` says; commands whose plain output is not a table look at this.
    pub fn explicit(&self) -> Option<Format> {
        self.explicit
    }

    /// Whether `-o json` or `-o jsonl` was given: errors are JSON then.
    pub fn wants_json(&self) -> bool {
        matches!(self.explicit, Some(Format::Json | Format::Jsonl))
    }

    /// Whether stdout is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether states are coloured.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Writes a list. `name` gives the id that `quiet` prints.
    pub fn list<T>(
        &self,
        rows: &[Json],
        typed: &[T],
        name: impl Fn(&T) -> String,
        table: impl FnOnce(&[T]) -> Table,
    ) -> Result<(), Trouble> {
        let mut out = String::new();
        match self.format() {
            Format::Table => out = table(typed).render(self.colour, self.width()),
            Format::Json => {
                let rows: Vec<String> = rows
                    .iter()
                    .map(|row| text::one_line(row.get()).into_owned())
                    .collect();
                out = format!("[{}]\n", rows.join(",\n"));
            }
            Format::Jsonl => rows
                .iter()
                .for_each(|row| push_line(&mut out, &text::one_line(row.get()))),
            Format::Quiet => typed.iter().for_each(|row| push_line(&mut out, &name(row))),
        }
        self.write(out.as_bytes())
    }

    /// Writes one thing: as a block of names and values for people.
    pub fn show(
        &self,
        value: &Json,
        name: &str,
        block: impl FnOnce() -> Table,
    ) -> Result<(), Trouble> {
        match self.format() {
            Format::Table => self.write(block().render(self.colour, None).as_bytes()),
            Format::Json | Format::Jsonl => self.line(&text::one_line(value.get())),
            Format::Quiet => self.line(name),
        }
    }

    /// Writes one value of ours as one JSON line.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Trouble> {
        self.line(Json::of(value).get())
    }

    /// Writes one line.
    pub fn line(&self, line: &str) -> Result<(), Trouble> {
        self.write(format!("{line}\n").as_bytes())
    }

    /// Writes bytes and flushes.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Trouble> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// Says on stderr what went wrong.
    pub fn complain(&self, trouble: &Trouble) {
        match trouble {
            Trouble::PipeClosed => {}
            _ if self.wants_json() => complain_line(&trouble.to_json()),
            _ => complain_line(&format!("error: {}", text::plain(&trouble.to_string()))),
        }
    }

    /// Says on stderr which line of a feed was refused, and why.
    pub fn complain_of(&self, refusal: &Refusal) {
        if self.wants_json() {
            complain_line(&refusal_json(refusal));
        } else {
            complain_line(&text::plain(&refusal.to_string()));
        }
    }

    fn width(&self) -> Option<usize> {
        if !self.terminal {
            return None;
        }
        ratatui::crossterm::terminal::size()
            .ok()
            .map(|(columns, _)| usize::from(columns))
            .filter(|width| *width >= 40)
    }
}

/// A closed stderr is no reason to end: `eprintln!` would panic.
fn complain_line(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Says something to people, on stderr.
pub fn chat(line: &str) {
    complain_line(line);
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}
