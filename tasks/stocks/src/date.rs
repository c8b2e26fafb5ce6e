//! Dates as people write them in tables of prices.

use std::fmt;

use serde::{Deserialize, Serialize};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A day; read from `2000-01-31` or `Jan 31 2000`, written as the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Date {
    year: i32,
    /// 1 to 12
    month: u32,
    day: u32,
}

impl Date {
    /// Months since the year 0: neighbours differ by one.
    pub fn months(self) -> i32 {
        self.year * 12 + self.month as i32 - 1
    }

    /// `Jan 2000`
    pub fn month_and_year(self) -> String {
        format!(
            "{} {}",
            MONTHS.get(self.month as usize - 1).unwrap_or(&""),
            self.year
        )
    }

    fn new(year: i32, month: u32, day: u32) -> Option<Self> {
        let real = (1000..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days(year, month)).contains(&day);
        real.then_some(Self { year, month, day })
    }

    fn parse(text: &str) -> Option<Self> {
        if let [year, month, day] = text.split('-').collect::<Vec<_>>()[..] {
            return Self::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
        }
        if let [name, day, year] = text.split_whitespace().collect::<Vec<_>>()[..] {
            let month = MONTHS
                .iter()
                .position(|month| name.eq_ignore_ascii_case(month))? as u32
                + 1;
            return Self::new(
                year.parse().ok()?,
                month,
                day.trim_end_matches(',').parse().ok()?,
            );
        }
        None
    }
}

fn days(year: i32, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl TryFrom<String> for Date {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
            .ok_or_else(|| format!("{text:?} is no date; write 2000-01-31 or Jan 31 2000"))
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_the_same_day() {
        for text in ["2000-01-31", "Jan 31 2000", "jan 31, 2000"] {
            assert_eq!(
                Date::parse(text).map(String::from).as_deref(),
                Some("2000-01-31"),
                "{text}"
            );
        }
    }

    #[test]
    fn days_that_never_were_are_refused() {
        for text in [
            "",
            "2000",
            "2001-02-29",
            "1900-02-29",
            "2000-13-01",
            "2000-00-01",
            "Foo 1 2000",
            "Jan 0 2000",
        ] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
    }
}
