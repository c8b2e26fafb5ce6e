//! Totals of a CSV file, by group.
//!
//! params: {"file": "data/sales.csv", "group": "city", "value": "amount"}
//! result: {"rows": 6, "groups": {"Berlin": {"count": 3, "sum": 82.5, "largest": 40.25}, …}}

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use taskmaster::Error;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    file: String,
    group: String,
    value: String,
}

#[derive(Serialize, Default)]
struct Totals {
    rows: usize,
    groups: BTreeMap<String, Group>,
}

#[derive(Serialize, Default)]
struct Group {
    count: u32,
    sum: f64,
    largest: f64,
}

taskmaster::task!(totals);

fn totals(params: Params) -> Result<Totals, Error> {
    let text = std::fs::read_to_string(&params.file)
        .map_err(|error| Error::permanent(format!("params.file: {}: {error}", params.file)))?;
    let mut lines = text.lines();
    let header = fields(lines.next().unwrap_or_default());
    let column = |name: &str, field: &str| {
        let found = header.iter().position(|column| column == name);
        found.ok_or_else(|| Error::permanent(format!("params.{field}: the file has the columns {}", header.join(", "))))
    };
    let (group, value) = (column(&params.group, "group")?, column(&params.value, "value")?);
    let mut totals = Totals::default();
    for (number, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let row = fields(line);
        let wrong = |what: &str| Error::permanent(format!("{}: line {}: {what}", params.file, number + 2));
        let (Some(group), Some(value)) = (row.get(group), row.get(value)) else {
            return Err(wrong("a column is missing"));
        };
        let value: f64 = value.parse().map_err(|_| wrong("the value is no number"))?;
        let group = totals.groups.entry(group.clone()).or_default();
        group.largest = if group.count == 0 { value } else { group.largest.max(value) };
        (group.count, group.sum) = (group.count + 1, group.sum + value);
        totals.rows += 1;
    }
    taskmaster::progress(1.0, &format!("{} rows", totals.rows));
    Ok(totals)
}

/// The fields of a line; within quotes a comma is text, and two quotes are one.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.trim_end_matches('\r').chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => push(&mut fields, '"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => push(&mut fields, other),
        }
    }
    fields
}

fn push(fields: &mut [String], character: char) {
    if let Some(last) = fields.last_mut() {
        last.push(character);
    }
}
