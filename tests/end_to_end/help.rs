//! Every command explains itself, with an example; every option that scripts rely on is there.

use taskmaster_harness::{Folder, run};

fn help(folder: &Folder, command: &str) -> String {
    let args: Vec<&str> = command
        .split(' ')
        .chain(["--help"])
        .filter(|word| !word.is_empty())
        .collect();
    run(folder, &args, &[], "").with(0).out
}

const COMMANDS: &[(&str, &str)] = &[
    (
        "up",
        "--listen --data --tasks --slots --label --name --token --durability --keep --blobs",
    ),
    ("demo", "--out"),
    (
        "master",
        "--listen --data --tasks --token --durability --keep --blobs",
    ),
    (
        "runner",
        "--url --slots --label --modules --cache --token --env --name",
    ),
    ("store check", "--data"),
    ("store export", "--data"),
    ("store import", "--data"),
    ("store backup", "--data"),
    ("run", "--params --arg"),
    (
        "add",
        "--params --arg --id --job --priority --after --task-timeout --retries --delay --wait --wait-timeout --label --slots",
    ),
    ("call", "--params --arg --task-timeout --wait-timeout"),
    ("feed", "--job --wait --follow"),
    ("tasks list", "--job --state --limit"),
    ("tasks show", ""),
    ("tasks result", ""),
    ("tasks logs", ""),
    ("tasks files", ""),
    ("tasks cancel", "--job --state"),
    ("tasks retry", "--job --state"),
    ("tasks set", "--priority --delay"),
    ("tasks why", ""),
    ("jobs list", ""),
    ("jobs show", ""),
    ("jobs wait", "--wait-timeout"),
    ("jobs cancel", ""),
    ("jobs pause", ""),
    ("jobs resume", ""),
    ("modules list", ""),
    ("modules show", ""),
    ("modules check", ""),
    ("modules wrap", ""),
    ("modules push", ""),
    ("modules approve", ""),
    ("modules rollback", ""),
    ("modules pause", ""),
    ("modules resume", ""),
    ("runners list", ""),
    ("runners show", ""),
    ("runners drain", ""),
    (
        "cache list",
        "--module --key --runner --since --until --limit",
    ),
    ("cache show", ""),
    ("cache why", ""),
    ("cache stats", ""),
    (
        "cache purge",
        "--module --key --runner --since --until --all",
    ),
    ("cache salt", "--remove"),
    ("watch", "--since --filter"),
    ("top", ""),
    ("bench", "--tasks"),
    ("new", "--lang"),
    ("dev", "--params --once"),
    ("completions", ""),
    ("doctor", ""),
];

/// Their help does not offer to name a master.
const NEED_NO_MASTER: &[&str] = &[
    "up",
    "demo",
    "master",
    "store check",
    "store export",
    "store import",
    "run",
    "modules check",
    "modules wrap",
    "new",
    "completions",
];

#[test]
fn every_command_has_an_example() {
    let folder = Folder::new();
    for (command, options) in COMMANDS {
        let text = help(&folder, command);
        for option in options.split(' ') {
            assert!(
                text.contains(option),
                "`{command}` has no {option}:\n{text}"
            );
        }
        for option in ["--config", "--output"] {
            assert!(text.contains(option), "`{command}` has no {option}");
        }
        let needs_no_master = NEED_NO_MASTER.contains(command);
        for option in ["--url <", "--token <"] {
            let is_own = matches!(*command, "up" | "master") && option == "--token <";
            let is_there = text.contains(option);
            assert_eq!(
                is_there,
                !needs_no_master || is_own,
                "`{command}`: {option}"
            );
        }
        let (_, example) = text
            .split_once("Example")
            .unwrap_or_else(|| panic!("`{command} --help` has no example:\n{text}"));
        assert!(
            example.contains(&format!("taskmaster {command}")),
            "the example of `{command}` is of another command:\n{example}"
        );
    }
}

#[test]
fn no_command_is_forgotten_here() {
    let folder = Folder::new();
    let listed = |command: &str| {
        let text = help(&folder, command);
        let (_, commands) = text.split_once("Commands:\n").unwrap();
        let names = commands
            .lines()
            .take_while(|line| line.starts_with("  "))
            .filter(|line| !line.starts_with("   "));
        names
            .map(|line| line.split_whitespace().next().unwrap().to_owned())
            .filter(|name| name != "help")
            .collect::<Vec<_>>()
    };
    let known = |path: &str| COMMANDS.iter().any(|(command, _)| *command == path);
    for name in listed("") {
        if matches!(
            name.as_str(),
            "tasks" | "jobs" | "modules" | "runners" | "store" | "cache"
        ) {
            for inner in listed(&name) {
                assert!(
                    known(&format!("{name} {inner}")),
                    "`{name} {inner}` is not in this test"
                );
            }
        } else {
            assert!(known(&name), "`{name}` is not in this test");
        }
    }
}

#[test]
fn help_is_80_to_120_columns_of_text_without_escapes() {
    let folder = Folder::new();
    for (command, _) in COMMANDS {
        let text = help(&folder, command);
        assert!(!text.contains('\x1b'), "{command}");
        if let Some(line) = text.lines().find(|line| line.chars().count() > 120) {
            panic!(
                "`{command} --help` has a line of {} columns: {line}",
                line.chars().count()
            );
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = Folder::new();
    run(&folder, &["man", "pages"], &[], "").with(0);
    for (command, _) in COMMANDS {
        let name = format!("taskmaster-{}.1", command.replace(' ', "-"));
        let page = std::fs::read_to_string(folder.join("pages").join(&name))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains("SYNOPSIS"), "{name}");
    }
}

#[test]
fn completions_and_version() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&folder, &["completions", shell], &[], "").with(0).out;
        assert!(
            script.contains("taskmaster") && script.contains("rollback"),
            "{shell}"
        );
    }
    assert!(
        run(&folder, &["--version"], &[], "")
            .with(0)
            .out
            .starts_with("taskmaster 0.")
    );
}
