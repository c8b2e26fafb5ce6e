//! Names, density and comments of the product, under bounds that only fall.

use crate::rust::{comment, function_end, is_code, is_comment, is_field, is_packing, type_name};
use crate::sources::{Finding, Source, lines, none, product};
use crate::{
    FUNCTION_LINES_MAX, LONG_FUNCTIONS_MAX, NAMES_IN_THREE_FILES_MAX, PACKINGS_OF_1000_MAX,
    POINTING_COMMENTS_MAX, PROGRAMS_CALLED_HE_MAX, SHORT_FIELD_DOCS_OF_100_MAX, WIDE_OF_100_MAX,
};
use std::collections::BTreeMap;

/// Prints the number, and fails where it is above its bound.
#[track_caller]
fn hold(what: &str, number: f64, bound: f64, findings: &[Finding]) {
    println!("{what}: {number:.2}, at most {bound}");
    assert!(
        number <= bound,
        "{what}: {number:.2}, but {bound} at most\n{}",
        lines(findings)
    );
}

fn code_lines() -> f64 {
    product()
        .map(|source| source.product_lines().filter(|line| is_code(line)).count())
        .sum::<usize>() as f64
}

/// The lines of the product that a rule points at.
fn find(rule: impl Fn(&[&str], usize) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in product() {
        let lines: Vec<&str> = source.product_lines().collect();
        let broken = (0..lines.len()).filter(|index| rule(&lines, *index));
        found.extend(broken.map(|index| source.finding(index, lines[index].trim())));
    }
    found
}

#[test]
fn a_type_name_stands_in_two_files_at_most() {
    let mut places: BTreeMap<&str, Vec<(&Source, usize)>> = BTreeMap::new();
    for source in product() {
        for (index, line) in source.product_lines().enumerate() {
            let Some(name) = type_name(line) else {
                continue;
            };
            let places = places.entry(name).or_default();
            if places
                .last()
                .is_none_or(|(last, _)| last.path != source.path)
            {
                places.push((source, index));
            }
        }
    }
    places.retain(|_, places| places.len() >= 3);
    let findings: Vec<Finding> = places
        .iter()
        .flat_map(|(name, places)| {
            places
                .iter()
                .map(|(source, index)| source.finding(*index, *name))
        })
        .collect();
    hold(
        "names of types in three files or more",
        places.len() as f64,
        NAMES_IN_THREE_FILES_MAX as f64,
        &findings,
    );
}

#[test]
fn one_binding_a_line() {
    // Longer than any packing that is formatted.
    const LINES: usize = 30;
    let packings = find(|lines, index| {
        let line = lines[index].trim_start();
        line.starts_with("let (") && {
            let end = lines.len().min(index + LINES);
            is_packing(lines[index..end].join("\n").trim_start())
        }
    });
    hold(
        "packings of 1,000 lines",
        1_000.0 * packings.len() as f64 / code_lines(),
        PACKINGS_OF_1000_MAX,
        &packings,
    );
}

#[test]
fn code_is_100_columns_wide() {
    let wide = find(|lines, index| is_code(lines[index]) && lines[index].chars().count() > 100);
    hold(
        "lines above 100 columns, of 100",
        100.0 * wide.len() as f64 / code_lines(),
        WIDE_OF_100_MAX,
        &wide,
    );
}

#[test]
fn docs_of_fields_say_something() {
    let mut docs = 0;
    let mut short = Vec::new();
    for source in product() {
        let mut words = 0;
        for (index, line) in source.product_lines().enumerate() {
            let line = line.trim_end();
            if line.trim_start().starts_with("///") {
                words += comment(line).split_whitespace().count();
                continue;
            }
            if line.trim_start().starts_with("#[") {
                continue;
            }
            if words > 0 && is_field(line) {
                docs += 1;
                if words <= 3 {
                    short.push(source.finding(index, line.trim()));
                }
            }
            words = 0;
        }
    }
    hold(
        "docs of fields with three words or fewer, of 100",
        100.0 * short.len() as f64 / f64::from(docs),
        SHORT_FIELD_DOCS_OF_100_MAX,
        &short,
    );
}

#[test]
fn comments_stand_alone() {
    let pointing = find(|lines, index| {
        let line = lines[index];
        let begins = index == 0 || !is_comment(lines[index - 1]);
        is_comment(line)
            && begins
            && ["See the module", "The same", "Of these"]
                .iter()
                .any(|words| comment(line).starts_with(words))
    });
    hold(
        "comments that point elsewhere",
        pointing.len() as f64,
        POINTING_COMMENTS_MAX as f64,
        &pointing,
    );
}

#[test]
fn no_program_is_called_he() {
    let found = find(|lines, index| {
        is_comment(lines[index])
            && comment(lines[index])
                .split(|c: char| !c.is_alphanumeric())
                .any(|word| matches!(word, "he" | "his" | "him" | "He" | "His"))
    });
    hold(
        "comments that call a program he",
        found.len() as f64,
        PROGRAMS_CALLED_HE_MAX as f64,
        &found,
    );
}

#[test]
fn functions_fit_on_a_screen() {
    let mut found = Vec::new();
    for source in product() {
        let lines: Vec<&str> = source.product_lines().collect();
        for index in 0..lines.len() {
            let Some(end) = function_end(&lines, index) else {
                continue;
            };
            let length = end - index + 1;
            if length > FUNCTION_LINES_MAX {
                found.push(
                    source.finding(index, format!("{length} lines: {}", lines[index].trim())),
                );
            }
        }
    }
    hold(
        "functions that are longer than a screen",
        found.len() as f64,
        LONG_FUNCTIONS_MAX as f64,
        &found,
    );
}

/// A thread that is started otherwise may end by a panic, and the process lives on without it.
#[test]
fn threads_are_started_in_one_way() {
    // Whoever starts one of these waits for its end, and hears of a panic.
    const SHORT_LIVED: [&str; 4] = [
        "master/blobs/src/removal.rs",
        "master/src/modules/inspecting.rs",
        "protocol/confined/src/child.rs",
        "protocol/confined/src/lib.rs",
    ];
    let own = |source: &Source| {
        let is_short_lived = SHORT_LIVED.iter().any(|path| source.path.ends_with(path));
        !(source.path.starts_with("console") || is_short_lived)
    };
    let mut found = Vec::new();
    for source in product().filter(|source| own(source)) {
        let lines = source.product_lines().enumerate();
        let starts = lines.filter(|(_, line)| {
            is_code(line) && (line.contains("thread::Builder") || line.contains("thread::spawn("))
        });
        found.extend(starts.map(|(index, line)| source.finding(index, line.trim())));
    }
    none(&found, "`taskmaster_console::long_lived` starts threads");
}
