//! Aligned columns for people. The last column is cut to the terminal's width. Ids are never cut,
//! so that they can be copied.

use super::text::{clip, columns};
use taskmaster_console::terminal::one_line;

/// Columns between two cells.
const GAP: usize = 2;

/// The last column is at least this wide, however narrow the terminal is.
const LAST_COLUMNS_MIN: usize = 8;

/// Rows of cells under headings, or names beside values.
pub struct TextTable {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// An empty table with these headings.
    pub fn new(headings: &[&'static str]) -> TextTable {
        TextTable {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// An empty block of names and values, without headings.
    pub fn block() -> TextTable {
        TextTable::new(&[])
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|text| one_line(&text).into_owned());
        self.rows.push(cells.collect());
    }

    /// Adds a name with its value. An empty value is left out.
    pub fn pair(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string();
        if !value.is_empty() {
            self.row([name.to_owned(), value]);
        }
    }

    /// Adds a name with its value, where there is one.
    pub fn pair_if(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.pair(name, value);
        }
    }

    /// Adds a name beside the first of several values; the others stand below it.
    pub fn pairs(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        for (i, value) in values.into_iter().enumerate() {
            let name = if i == 0 { name } else { "" };
            self.row([name.to_owned(), value]);
        }
    }

    /// The text, with each line ended. Lines are cut to `width` columns where it is given.
    pub fn render(&self, colour: bool, width: Option<usize>) -> String {
        let headings: Vec<String> = self.headings.iter().map(|&text| text.into()).collect();
        let lines: Vec<&[String]> = std::iter::once(headings.as_slice())
            .filter(|line| !line.is_empty())
            .chain(self.rows.iter().map(Vec::as_slice))
            .collect();
        let widths = column_widths(&lines);
        let mut out = String::new();
        for line in lines {
            push_line(&mut out, line, &widths, &Style { colour, width });
        }
        out
    }
}

struct Style {
    colour: bool,
    /// Columns of the terminal.
    width: Option<usize>,
}

fn column_widths(lines: &[&[String]]) -> Vec<usize> {
    let count = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    let widest = |i: usize| {
        let cells = lines.iter().filter_map(|line| line.get(i));
        cells.map(|text| columns(text)).max().unwrap_or(0)
    };
    (0..count).map(widest).collect()
}

fn push_line(out: &mut String, line: &[String], widths: &[usize], style: &Style) {
    let mut used = 0;
    for (i, text) in line.iter().enumerate() {
        if i + 1 == line.len() {
            let left = style.width.map_or(usize::MAX, |width| {
                width.saturating_sub(used).max(LAST_COLUMNS_MIN)
            });
            push_cell(out, &clip(text, left), style);
        } else {
            push_cell(out, text, style);
            let gap = widths[i] + GAP - columns(text);
            out.extend(std::iter::repeat_n(' ', gap));
            used += widths[i] + GAP;
        }
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

fn push_cell(out: &mut String, text: &str, style: &Style) {
    match colour_of(text).filter(|_| style.colour) {
        Some(colour) => out.push_str(&format!("\u{1b}[{colour}m{text}\u{1b}[0m")),
        None => out.push_str(text),
    }
}

/// The terminal's colour of a word that is a state.
fn colour_of(word: &str) -> Option<u8> {
    match word {
        "done" | "ready" | "connected" | "ok" => Some(32),
        "failed" | "rejected" | "lost" | "FAIL" => Some(31),
        "cancelled" | "skipped" | "absent" | "removed" => Some(33),
        "assigned" | "compiling" | "open" => Some(36),
        "blocked" | "delayed" | "waiting" | "paused" | "draining" => Some(35),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_only_the_last_is_cut() {
        let mut table = TextTable::new(&["ID", "STATE", "ERROR"]);
        table.row(["a".into(), "done".into(), String::new()]);
        table.row(["long-id".into(), "failed".into(), "x".repeat(30)]);
        let text = table.render(false, Some(30));
        let cut = "x".repeat(12);
        assert_eq!(
            text,
            format!("ID       STATE   ERROR\na        done\nlong-id  failed  {cut}…\n")
        );
        let coloured = table.render(true, None);
        assert!(coloured.contains("\u{1b}[32mdone\u{1b}[0m"));
    }

    #[test]
    fn characters_of_two_columns_do_not_shift_the_next_cell() {
        let mut table = TextTable::new(&["PATH", "SIZE"]);
        table.row(["日本.txt".into(), "1".into()]);
        table.row(["ab.txt".into(), "2".into()]);
        assert_eq!(
            table.render(false, None),
            "PATH      SIZE\n日本.txt  1\nab.txt    2\n"
        );
    }

    #[test]
    fn a_block_leaves_out_what_is_empty() {
        let mut block = TextTable::block();
        block.pair("id", "t1");
        block.pair("error", "");
        block.pair_if("runner", None::<&str>);
        block.pair("priority", 3);
        block.pairs("lines", ["a".to_owned(), "b".to_owned()]);
        assert_eq!(
            block.render(false, None),
            "id        t1\npriority  3\nlines     a\n          b\n"
        );
    }
}
