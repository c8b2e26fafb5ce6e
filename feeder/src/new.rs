//! `new`: writes a project from a template, says which tools it lacks, and what to type next.

mod templates;
mod tools;

use crate::cli::{Global, Language, NewOptions};
use crate::output::chat;
use crate::trouble::{Trouble, exit};
use std::path::Path;
use templates::{PLACEHOLDER, files};

/// Runs `new`. The exit code.
pub fn run(options: &NewOptions, global: &Global) -> Result<u8, Trouble> {
    let (name, language) = (options.name.as_str(), options.lang);
    let output = global.output();
    write(Path::new(name), name, language)?;
    let missing = tools::missing(language);
    let next = next(name, language);
    if output.wants_json() {
        let missing: Vec<_> = missing
            .iter()
            .map(|tool| serde_json::json!({"tool": tool.name, "install": tool.install}))
            .collect();
        let said = serde_json::json!({"folder": name, "lang": language.name(), "missing": missing, "next": next});
        output.json(&said)?;
        return Ok(exit::OK);
    }
    chat(&format!("{name}: a task in {}", language.name()));
    for tool in missing {
        chat(&format!(
            "missing: {}. To install it: {}",
            tool.name, tool.install
        ));
    }
    chat("next:");
    next.iter()
        .try_for_each(|line| output.line(&format!("  {line}")))?;
    Ok(exit::OK)
}

fn write(folder: &Path, name: &str, language: Language) -> Result<(), Trouble> {
    let named =
        |path: &Path, why: std::io::Error| Trouble::Local(format!("{}: {why}", path.display()));
    // Made by us alone: what is there already is somebody's work.
    std::fs::create_dir(folder).map_err(|error| named(folder, error))?;
    for file in files(language) {
        let path = folder.join(file.path.replace(PLACEHOLDER, name));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| named(parent, error))?;
        }
        let bytes = match std::str::from_utf8(file.bytes) {
            Ok(text) => text.replace(PLACEHOLDER, name).into_bytes(),
            Err(_) => file.bytes.to_vec(),
        };
        std::fs::write(&path, bytes).map_err(|error| named(&path, error))?;
        if file.path == "build" {
            executable(&path).map_err(|error| named(&path, error))?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// The three commands to type.
fn next(name: &str, language: Language) -> [String; 3] {
    let reads = files(language).any(|file| file.path.starts_with("data/"));
    let inputs = if reads { " --input data=data" } else { "" };
    let file = format!(
        "{name}.{}",
        if language == Language::Wat {
            "wat"
        } else {
            "wasm"
        }
    );
    [
        format!("cd {name} && ./build"),
        format!("taskmaster run {file}{inputs} --params - < params.json"),
        format!(
            "taskmaster modules push {file} && taskmaster call {name}{inputs} --params - < params.json"
        ),
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
            for needed in ["build", "params.json", ".gitignore"] {
                assert!(
                    found.iter().any(|file| file.path == needed),
                    "{}: no {needed}",
                    language.name()
                );
            }
            let build = found.iter().find(|file| file.path == "build").unwrap();
            let text = std::str::from_utf8(build.bytes).unwrap();
            assert!(
                text.starts_with("#!/bin/sh\n") && text.contains(PLACEHOLDER),
                "{}",
                language.name()
            );
            let params = found
                .iter()
                .find(|file| file.path == "params.json")
                .unwrap();
            serde_json::from_slice::<serde_json::Value>(params.bytes).unwrap();
            let mut paths: Vec<_> = found.iter().map(|file| file.path).collect();
            paths.sort_unstable();
            paths.dedup();
            assert_eq!(paths.len(), found.len(), "{}", language.name());
        }
    }

    #[test]
    fn a_folder_that_exists_is_left_alone() {
        let folder =
            std::env::temp_dir().join(format!("taskmaster-new-{}", uuid::Uuid::now_v7().simple()));
        write(&folder, "hello", Language::Wat).unwrap();
        let before = std::fs::read_to_string(folder.join("build")).unwrap();
        assert!(before.contains("hello.wat") && !before.contains(PLACEHOLDER));
        let error = write(&folder, "other", Language::Wat).unwrap_err();
        assert!(error.to_string().contains("exists"), "{error}");
        assert_eq!(
            std::fs::read_to_string(folder.join("build")).unwrap(),
            before
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
}
