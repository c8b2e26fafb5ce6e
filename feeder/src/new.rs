//! `new`: writes a project from a template, tells which tools it lacks, and what to type next.

mod templates;
mod tools;

use crate::cli::{GlobalOptions, Language, NewOptions};
use crate::error::CommandError;
use crate::exit;
use crate::output::notice;
use serde_json::json;
use std::io::ErrorKind;
use std::path::Path;
use templates::{PLACEHOLDER, files};

/// Runs `new` and gives the exit code.
pub fn run(options: &NewOptions, global: &GlobalOptions) -> Result<u8, CommandError> {
    let name = options.name.as_str();
    let language = options.lang;
    let printer = global.printer();
    write(Path::new(name), name, language)?;
    let missing = tools::missing(language);
    let next = next_commands(name, language);
    if printer.wants_json() {
        let missing: Vec<_> = missing
            .iter()
            .map(|tool| json!({"tool": tool.name, "install": tool.install}))
            .collect();
        printer.json(&json!({
            "folder": name,
            "lang": language.name(),
            "missing": missing,
            "next": next,
        }))?;
        return Ok(exit::OK);
    }
    notice(&format!("{name}: a task in {}", language.name()));
    for tool in missing {
        notice(&tool.hint());
    }
    notice("next:");
    for command in next {
        printer.line(&format!("  {command}"))?;
    }
    Ok(exit::OK)
}

fn write(folder: &Path, name: &str, language: Language) -> Result<(), CommandError> {
    let failed = |path: &Path, error: std::io::Error| {
        CommandError::Local(format!("{}: {error}", path.display()))
    };
    // A folder that exists already is somebody's work, and `create_dir` refuses it.
    std::fs::create_dir(folder).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => CommandError::Local(format!(
            "`{}` exists already and is left as it is: choose another name, or remove it",
            folder.display()
        )),
        _ => failed(folder, error),
    })?;
    for file in files(language) {
        let path = folder.join(file.path.replace(PLACEHOLDER, name));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        }
        let bytes = match std::str::from_utf8(file.bytes) {
            Ok(text) => text.replace(PLACEHOLDER, name).into_bytes(),
            Err(_) => file.bytes.to_vec(),
        };
        std::fs::write(&path, bytes).map_err(|error| failed(&path, error))?;
        if file.path == "build" {
            make_executable(&path).map_err(|error| failed(&path, error))?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// What the author types next: builds it, runs it here, runs it at a master.
fn next_commands(name: &str, language: Language) -> [String; 3] {
    let extension = if language == Language::Wat {
        "wat"
    } else {
        "wasm"
    };
    let file = format!("{name}.{extension}");
    let reads_data = files(language).any(|file| file.path.starts_with("data/"));
    let inputs = if reads_data { " --input data=data" } else { "" };
    let params = "--params - < params.json";
    [
        format!("cd {name} && ./build"),
        format!("taskmaster run {file}{inputs} {params}"),
        format!("taskmaster modules push {file} && taskmaster call {name}{inputs} {params}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_template_is_whole() {
        for language in Language::value_variants() {
            let found: Vec<_> = files(*language).collect();
            let name = language.name();
            let bytes_of = |path: &str| {
                let file = found.iter().find(|file| file.path == path);
                file.unwrap_or_else(|| panic!("{name}: no {path}")).bytes
            };
            bytes_of(".gitignore");
            let build = std::str::from_utf8(bytes_of("build")).unwrap();
            assert!(build.starts_with("#!/bin/sh\n"), "{name}");
            assert!(build.contains(PLACEHOLDER), "{name}");
            for tool in tools::needed(*language) {
                let hint = tool.hint();
                assert!(
                    build.contains(&hint),
                    "{name}: `build` does not say: {hint}"
                );
            }
            serde_json::from_slice::<serde_json::Value>(bytes_of("params.json")).unwrap();

            let mut paths: Vec<_> = found.iter().map(|file| file.path).collect();
            paths.sort_unstable();
            paths.dedup();
            assert_eq!(paths.len(), found.len(), "{name}");
        }
    }

    #[test]
    fn a_folder_that_exists_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("hello");
        write(&folder, "hello", Language::Wat).unwrap();
        let before = std::fs::read_to_string(folder.join("build")).unwrap();
        assert!(before.contains("hello.wat") && !before.contains(PLACEHOLDER));
        let error = write(&folder, "other", Language::Wat).unwrap_err();
        assert!(error.to_string().contains("exists"), "{error}");
        assert_eq!(
            std::fs::read_to_string(folder.join("build")).unwrap(),
            before
        );
    }
}
