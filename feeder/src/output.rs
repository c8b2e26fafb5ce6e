//! What goes to stdout and stderr. Stdout is for data, in one of four formats; stderr is for
//! notices and errors.

pub mod moments;
pub mod status_line;
pub mod table;
pub mod text;

use crate::error::{CommandError, refusal_json};
use serde::Serialize;
use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use table::TextTable;
use taskmaster_console::lines::tell;
use taskmaster_console::terminal;
use taskmaster_protocol::{Json, Refusal};

/// A terminal that claims fewer columns than this is not believed: nothing is cut.
const TERMINAL_COLUMNS_MIN: usize = 40;

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people: aligned columns, or a block of names and values.
    Table,
    /// One JSON value; an array for lists.
    Json,
    /// One JSON value per line.
    Jsonl,
    /// Names and ids alone.
    Quiet,
}

/// Writes what a command has to say, in the format that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    requested: Option<OutputFormat>,
    terminal: bool,
    colour: bool,
}

impl Printer {
    /// Writes in the `requested` format, or in one that suits where stdout goes. Looks at the
    /// terminal and at `NO_COLOR`.
    pub fn new(requested: Option<OutputFormat>) -> Printer {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Printer {
            requested,
            terminal,
            colour,
        }
    }

    /// The format that `-o` names. Commands whose plain output is not a table decide by it.
    pub fn requested(&self) -> Option<OutputFormat> {
        self.requested
    }

    /// Whether `-o json` or `-o jsonl` was given: errors are JSON then.
    pub fn wants_json(&self) -> bool {
        matches!(
            self.requested,
            Some(OutputFormat::Json | OutputFormat::Jsonl)
        )
    }

    /// Whether stdout is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a list. `name` gives the id that `-o quiet` prints.
    pub fn list<T>(
        &self,
        rows: &ListRows<T>,
        name: impl Fn(&T) -> String,
        table: impl FnOnce(&[T]) -> TextTable,
    ) -> Result<(), CommandError> {
        let json = rows.raw.iter().map(|row| self.one_line(row.get()));
        let out = match self.format() {
            OutputFormat::Table => {
                let table = table(&rows.typed).render(self.colour, self.columns());
                return self.write_safe(table.as_bytes());
            }
            OutputFormat::Json => format!("[{}]\n", json.collect::<Vec<_>>().join(",\n")),
            OutputFormat::Jsonl => json.map(|row| format!("{row}\n")).collect(),
            OutputFormat::Quiet => rows
                .typed
                .iter()
                .map(|row| format!("{}\n", name(row)))
                .collect(),
        };
        self.write(out.as_bytes())
    }

    /// Writes one thing. `name` is what `-o quiet` prints.
    pub fn show(
        &self,
        value: &Json,
        name: &str,
        block: impl FnOnce() -> TextTable,
    ) -> Result<(), CommandError> {
        match self.format() {
            OutputFormat::Table => self.write_safe(block().render(self.colour, None).as_bytes()),
            OutputFormat::Json | OutputFormat::Jsonl => self.line(&self.one_line(value.get())),
            OutputFormat::Quiet => self.line(name),
        }
    }

    /// Writes the master's answer to a request that changed something: only for scripts that want
    /// it.
    pub fn confirm(&self, answer: &Json) -> Result<(), CommandError> {
        if self.wants_json() {
            self.line(&self.one_line(answer.get()))
        } else {
            Ok(())
        }
    }

    /// Writes one value of ours as one JSON line.
    pub fn json(&self, value: &impl Serialize) -> Result<(), CommandError> {
        self.line(&self.one_line(Json::of(value).get()))
    }

    /// JSON on one line, the same value. For a terminal it has escapes for what a terminal obeys.
    pub fn one_line<'a>(&self, json: &'a str) -> Cow<'a, str> {
        if self.terminal {
            terminal::json(json)
        } else {
            text::one_line(json)
        }
    }

    /// Writes one line.
    pub fn line(&self, line: &str) -> Result<(), CommandError> {
        self.write(format!("{line}\n").as_bytes())
    }

    /// Writes bytes that anybody may have made, and flushes: raw into a pipe or a file, and on a
    /// terminal without what it would obey.
    pub fn write(&self, bytes: &[u8]) -> Result<(), CommandError> {
        if self.terminal {
            self.write_safe(&terminal::plain_bytes(bytes))
        } else {
            self.write_safe(bytes)
        }
    }

    /// Writes bytes in which nothing stands that a terminal should not obey, and flushes.
    fn write_safe(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// Writes to stderr what went wrong.
    pub fn error(&self, error: &CommandError) {
        match error {
            CommandError::PipeClosed => {}
            CommandError::Interrupted { text, .. } if !self.wants_json() => notice(text),
            _ if self.wants_json() => notice(&error.to_json()),
            _ => notice(&format!("error: {}", terminal::plain(&error.to_string()))),
        }
    }

    /// Writes to stderr which line of a feed was refused, and why.
    pub fn refusal(&self, refusal: &Refusal) {
        if self.wants_json() {
            notice(&refusal_json(refusal));
        } else {
            notice(&terminal::plain(&refusal.to_string()));
        }
    }

    /// The format of a list or a thing.
    pub fn format(&self) -> OutputFormat {
        self.requested.unwrap_or(if self.terminal {
            OutputFormat::Table
        } else {
            OutputFormat::Jsonl
        })
    }

    /// The terminal's width, where stdout is a terminal that says it.
    pub fn columns(&self) -> Option<usize> {
        if !self.terminal {
            return None;
        }
        let (columns, _) = ratatui::crossterm::terminal::size().ok()?;
        Some(usize::from(columns)).filter(|columns| *columns >= TERMINAL_COLUMNS_MIN)
    }
}

/// The rows of a list, in both of their forms.
pub struct ListRows<T> {
    /// Each row as the master wrote it, for scripts: with fields that this version does not know.
    pub raw: Vec<Json>,
    /// Each row as this version reads it, for people.
    pub typed: Vec<T>,
}

impl<T> ListRows<T> {
    /// The rows in the order of their keys. Rows with equal keys stay in order.
    pub fn sorted_by_key<K: Ord>(self, key: impl Fn(&T) -> K) -> ListRows<T> {
        let mut both: Vec<(Json, T)> = self.raw.into_iter().zip(self.typed).collect();
        both.sort_by_key(|(_, row)| key(row));
        let (raw, typed) = both.into_iter().unzip();
        ListRows { raw, typed }
    }
}

/// Writes a line for people to stderr. A closed stderr is no reason to end.
pub fn notice(line: &str) {
    tell(line);
}
