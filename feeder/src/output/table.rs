//! Aligned columns for people. The last column is cut to the terminal's width; ids never are, so
//! that they can be copied.

use super::text::{cell, clip};

/// Rows of cells under headings, or names beside values.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these headings; none: a block of names and values.
    pub fn new(headings: &[&'static str]) -> Table {
        Table {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// One more row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(
            cells
                .into_iter()
                .map(|text| cell(&text).into_owned())
                .collect(),
        );
    }

    /// One more name with its value; an empty value is left out.
    pub fn pair(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string();
        if !value.is_empty() {
            self.row([name.to_owned(), value]);
        }
    }

    /// The text, each line ended. `width`: cut lines to that.
    pub fn render(&self, colour: bool, width: Option<usize>) -> String {
        let headings: Vec<String> = self.headings.iter().map(|h| (*h).to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&headings)
            .filter(|h| !h.is_empty())
            .chain(&self.rows)
            .collect();
        let columns = lines.iter().map(|line| line.len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|i| {
                lines
                    .iter()
                    .filter_map(|line| line.get(i))
                    .map(|text| text.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for line in lines {
            let mut used = 0;
            for (i, text) in line.iter().enumerate() {
                let last = i + 1 == line.len();
                let room = width.map_or(usize::MAX, |width| width.saturating_sub(used).max(8));
                let text = if last { clip(text, room) } else { text.into() };
                out.push_str(&if colour {
                    painted(&text)
                } else {
                    text.clone().into_owned()
                });
                if !last {
                    let gap = widths[i] + 2 - text.chars().count();
                    out.extend(std::iter::repeat_n(' ', gap));
                    used += widths[i] + 2;
                }
            }
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
        out
    }
}

/// Colours words that are states, and nothing else.
fn painted(word: &str) -> String {
    let colour = match word {
        "done" | "ready" | "connected" | "ok" => 32,
        "failed" | "rejected" | "lost" | "FAIL" => 31,
        "cancelled" | "skipped" | "absent" | "removed" => 33,
        "assigned" | "compiling" | "open" => 36,
        "blocked" | "delayed" | "waiting" | "paused" | "draining" => 35,
        _ => return word.to_owned(),
    };
    format!("\u{1b}[{colour}m{word}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_only_the_last_is_cut() {
        let mut table = Table::new(&["ID", "STATE", "ERROR"]);
        table.row(["a".into(), "done".into(), String::new()]);
        table.row(["long-id".into(), "failed".into(), "x".repeat(30)]);
        let text = table.render(false, Some(30));
        assert_eq!(
            text,
            format!(
                "ID       STATE   ERROR\na        done\nlong-id  failed  {}…\n",
                "x".repeat(12)
            )
        );
        assert!(table.render(true, None).contains("\u{1b}[32mdone\u{1b}[0m"));
    }

    #[test]
    fn a_block_leaves_out_what_is_empty() {
        let mut block = Table::new(&[]);
        block.pair("id", "t1");
        block.pair("error", "");
        block.pair("priority", 3);
        assert_eq!(block.render(false, None), "id        t1\npriority  3\n");
    }
}
