//! Reads the lines of a case.

use std::collections::BTreeMap;
use taskmaster_protocol::{AttemptId, Capabilities, ErrorKind, Retries, When, time};

/// One line, taken apart.
pub struct Line<'a> {
    /// The words without `=`, in order.
    pub words: Vec<&'a str>,
    /// The words `key=value`, in order.
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    pub fn read(text: &'a str) -> Line<'a> {
        let (options, words): (Vec<&str>, Vec<&str>) =
            text.split_whitespace().partition(|word| word.contains('='));
        Line {
            words,
            options: options
                .into_iter()
                .filter_map(|word| word.split_once('='))
                .collect(),
        }
    }

    pub fn word(&self, index: usize) -> &'a str {
        self.words
            .get(index)
            .copied()
            .unwrap_or_else(|| panic!("{:?} needs a word {index}", self.words))
    }

    pub fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    pub fn all(&self, key: &str) -> Vec<&'a str> {
        self.options
            .iter()
            .filter(|(name, _)| *name == key)
            .flat_map(|(_, value)| value.split(','))
            .collect()
    }

    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.options
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| *value)
    }

    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.text(key).map(|text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{key}={text} is not a number"))
        })
    }

    pub fn duration(&self, key: &str) -> Option<u64> {
        self.text(key)
            .map(|text| time::parse_duration_us(text).expect("a duration"))
    }

    pub fn labels(&self) -> BTreeMap<String, String> {
        self.all("label")
            .iter()
            .filter_map(|label| label.split_once(':'))
            .map(|(key, value)| (key.into(), value.into()))
            .collect()
    }

    pub fn strings(&self, key: &str) -> Vec<String> {
        self.all(key).into_iter().map(String::from).collect()
    }

    pub fn capabilities(&self) -> Capabilities {
        let set = |key: &str| self.strings(key).into_iter().collect();
        Capabilities {
            http: set("http"),
            env: set("variable"),
            secrets: set("secret"),
            folders: set("folder"),
        }
    }
}

pub fn error_kind(text: &str) -> ErrorKind {
    kind_named(text).unwrap_or_else(|| panic!("no kind of error is {text}"))
}

fn kind_named(text: &str) -> Option<ErrorKind> {
    use ErrorKind::{Cancelled, Exit, Input, Memory, Module, Output, RunnerLost, Timeout, Trap};
    [
        Exit, Trap, Timeout, Memory, Cancelled, RunnerLost, Module, Input, Output,
    ]
    .into_iter()
    .find(|kind| kind.as_str() == text)
}

pub fn attempt(text: &str) -> Option<AttemptId> {
    let (epoch, n) = text.split_once('.')?;
    Some(AttemptId {
        epoch: epoch.parse().ok()?,
        n: n.parse().ok()?,
    })
}

pub fn dependency(text: &str) -> (String, When) {
    match text.split_once(':') {
        None => (text.into(), When::Done),
        Some((on, "failed")) => (on.into(), When::Failed),
        Some((on, "settled")) => (on.into(), When::Settled),
        Some((on, _)) => (on.into(), When::Done),
    }
}

pub fn policy(text: &str, line: &Line) -> Retries {
    let parts: Vec<&str> = text.split('/').collect();
    let ms = |i: usize, usual: u64| {
        parts.get(i).map_or(usual, |text| {
            time::parse_duration_us(text).expect("a duration") / 1_000
        })
    };
    let on: Vec<ErrorKind> = line.all("on").into_iter().map(error_kind).collect();
    Retries {
        max: parts[0].parse().expect("a number of retries"),
        backoff_ms: ms(1, 1_000),
        factor: parts
            .get(2)
            .map_or(2.0, |text| text.parse().expect("a factor")),
        max_backoff_ms: ms(3, 60_000),
        jitter: line.has("jitter"),
        on: (!on.is_empty()).then_some(on),
    }
}
