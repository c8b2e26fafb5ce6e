//! No files of a crate import each other in a circle: of two files, one can be read alone.

use crate::paths::own_paths;
use crate::sources::{Finding, Source, none, product};
use std::collections::{BTreeMap, BTreeSet};

/// Folders whose files are one thing, each with its reason.
const ONE_THING: &[(&str, &str)] = &[(
    "master/core/src/",
    "each file is a part of `impl Scheduler`, and `scheduler.rs` hands every event to its file",
)];

/// The files of one crate, by the paths of their modules; the crate's root is the empty path.
type Files = BTreeMap<Vec<String>, &'static Source>;

/// The files that each file imports, with the line of the first import.
type Imports = BTreeMap<Vec<String>, BTreeMap<Vec<String>, usize>>;

/// The crate's folder and the path of the module inside it.
fn place(source: &Source) -> Option<(String, Vec<String>)> {
    let path = source.path.strip_suffix(".rs")?;
    let (before, inside) = match path.strip_prefix("src/") {
        Some(inside) => ("", inside),
        None => path.split_once("/src/")?,
    };
    let is_root = matches!(inside, "lib" | "main");
    let parts = inside.split('/').map(str::to_owned);
    let module = if is_root { Vec::new() } else { parts.collect() };
    Some((before.to_owned(), module))
}

/// The file in which a path of `from` ends; `None`: the crate's root.
fn target(parts: &[String], from: &[String], files: &Files) -> Option<Vec<String>> {
    let mut path: Vec<String> = if parts[0] == "crate" {
        Vec::new()
    } else {
        from.to_vec()
    };
    for part in parts {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => drop(path.pop()),
            name => path.push(name.to_owned()),
        }
    }
    while !path.is_empty() && !files.contains_key(&path) {
        path.pop();
    }
    (!path.is_empty()).then_some(path)
}

/// Parents and their children belong together, and may know each other.
fn is_family(a: &[String], b: &[String]) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

fn imports(files: &Files) -> Imports {
    let mut imports = Imports::new();
    for (module, source) in files {
        let known = imports.entry(module.clone()).or_default();
        for path in own_paths(source.product_lines()) {
            if let Some(to) = target(&path.parts, module, files)
                && !is_family(&to, module)
            {
                known.entry(to).or_insert(path.line);
            }
        }
    }
    imports
}

/// All files that are reached from one by its imports.
fn reached<'a>(from: &'a Vec<String>, imports: &'a Imports) -> BTreeSet<&'a Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<_> = imports[from].keys().collect();
    while let Some(module) = next.pop() {
        if seen.insert(module) {
            next.extend(imports[module].keys());
        }
    }
    seen
}

/// Each import that is a part of a circle.
fn circles(files: &Files) -> Vec<Finding> {
    let imports = imports(files);
    let mut found = Vec::new();
    for (module, direct) in &imports {
        for (to, line) in direct {
            if reached(to, &imports).contains(module) {
                let what = format!("the imports of `{}` lead back to this file", to.join("::"));
                found.push(files[module].finding(*line, what));
            }
        }
    }
    found
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut crates: BTreeMap<String, Files> = BTreeMap::new();
    for source in product() {
        if let Some((folder, module)) = place(source) {
            crates.entry(folder).or_default().insert(module, source);
        }
    }
    assert!(crates.len() > 10, "only {} crates were found", crates.len());
    let mut found: Vec<Finding> = crates.values().flat_map(circles).collect();
    for (folder, reason) in ONE_THING {
        let before = found.len();
        found.retain(|finding| !finding.path.starts_with(folder));
        assert!(
            found.len() < before,
            "the exception {folder} ({reason}) is not needed: take it out"
        );
    }
    none(
        &found,
        "files import each other in a circle: move what both need to a third one",
    );
}
