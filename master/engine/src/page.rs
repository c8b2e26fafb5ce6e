//! A page of a list while it is filled. It is bounded by rows and by bytes, so that the answer to no
//! question is longer than a message.

use serde::Serialize;
use taskmaster_protocol::message::Page;
use taskmaster_protocol::{Json, limits};

/// The rows of a page so far.
#[derive(Debug)]
pub struct GrowingPage<T> {
    rows: Vec<T>,
    /// About how many bytes the rows have.
    bytes: usize,
    rows_max: usize,
}

impl<T> GrowingPage<T> {
    /// An empty page for at most `rows_max` rows.
    pub fn new(rows_max: usize) -> GrowingPage<T> {
        GrowingPage {
            rows: Vec::new(),
            bytes: 0,
            rows_max,
        }
    }

    /// Takes a row of about so many bytes; true: the page is full.
    pub fn take(&mut self, row: T, bytes: usize) -> bool {
        self.bytes += bytes;
        self.rows.push(row);
        self.is_full()
    }

    /// Whether no more rows belong on the page.
    pub fn is_full(&self) -> bool {
        self.rows.len() >= self.rows_max || self.bytes >= limits::PAGE_BYTES_MAX
    }

    /// The most rows of the page.
    pub fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// The page, and where the next one begins.
    pub fn end(self, next: Option<String>) -> Page<T> {
        Page {
            rows: self.rows,
            next,
        }
    }
}

/// The page that begins with the first of `things`, which come in the order of their names. The next
/// page begins behind the last name of this one.
pub fn page_by_name<Thing, Row: Serialize>(
    things: impl Iterator<Item = Thing>,
    name: impl Fn(&Thing) -> &str,
    row: impl Fn(&Thing) -> Row,
) -> Page<Row> {
    let mut things = things.peekable();
    let mut page = GrowingPage::new(limits::PAGE_ROWS_MAX);
    while let Some(thing) = things.next() {
        let row = row(&thing);
        let bytes = Json::bytes_of(&row);
        if page.take(row, bytes) && things.peek().is_some() {
            return page.end(Some(name(&thing).to_owned()));
        }
    }
    page.end(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of rows of `bytes` each, by pages: how many rows each page has.
    fn pages(rows: usize, bytes: usize) -> Vec<usize> {
        let names: Vec<String> = (0..rows).map(|no| format!("{no:06}")).collect();
        let text = "x".repeat(bytes);
        let mut after = String::new();
        let mut counts = Vec::new();
        let mut listed: Vec<String> = Vec::new();
        loop {
            let rest = names.iter().filter(|name| **name > after);
            let row = |name: &&String| (name.to_string(), text.clone());
            let page = page_by_name(rest, |name| name.as_str(), row);
            counts.push(page.rows.len());
            listed.extend(page.rows.into_iter().map(|(name, _)| name));
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(listed, names, "each row stands once, and in order");
        counts
    }

    #[test]
    fn a_list_comes_in_pages_of_rows_and_bytes() {
        assert_eq!(pages(0, 10), [0]);
        assert_eq!(pages(1_000, 10), [1_000]);
        assert_eq!(pages(2_001, 10), [1_000, 1_000, 1]);
        // A page ends with the row that reaches 8 MiB.
        assert_eq!(pages(20, 1 << 20), [8, 8, 4]);
        assert_eq!(pages(3, 9 << 20), [1, 1, 1]);
    }
}
