//! The tree of commands and options, as the binary tells it.

use std::collections::BTreeMap;
use std::process::Command;

/// Options by command; the binary itself is the empty one.
pub struct CommandLine {
    options: BTreeMap<String, Vec<String>>,
}

impl CommandLine {
    /// Asks the binary and each of its commands for their help.
    pub fn ask(binary: &str) -> CommandLine {
        let mut line = CommandLine {
            options: BTreeMap::new(),
        };
        line.learn(binary, "");
        assert!(line.options.len() > 30, "the help names few commands");
        line
    }

    fn learn(&mut self, binary: &str, command: &str) {
        let output = Command::new(binary)
            .args(command.split_whitespace())
            .arg("--help")
            .output()
            .unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let is_option = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let options = help
            .split(|c| !is_option(c))
            .filter(|word| word.len() > 2 && word.starts_with("--"))
            .map(str::to_owned)
            .collect();
        self.options.insert(command.to_owned(), options);
        let Some((_, listed)) = help.split_once("\nCommands:\n") else {
            return;
        };
        for line in listed.lines().take_while(|line| !line.is_empty()) {
            let name = line.split_whitespace().next().unwrap_or_default();
            // The names are indented by two, what is said of them by more.
            let is_name = line.starts_with("  ") && !line.starts_with("   ");
            if is_name && !name.is_empty() && name != "help" {
                self.learn(binary, format!("{command} {name}").trim());
            }
        }
    }

    pub fn has_option(&self, option: &str) -> bool {
        let mut all = self.options.values().flatten();
        all.any(|known| known == option)
    }

    /// What is wrong with a command as it is typed after `taskmaster`.
    pub fn wrong(&self, typed: &str) -> Option<String> {
        let mut command = String::new();
        // What another program reads, or a document feeds, is none of the command's words.
        let typed = typed.split([';', '>', '<']).next().unwrap_or_default();
        let typed = typed.split(" | ").next().unwrap_or_default();
        let typed = typed.split("&&").next().unwrap_or_default();
        let words: Vec<&str> = typed.split_whitespace().collect();
        for word in &words {
            let longer = format!("{command} {word}").trim().to_owned();
            if !self.options.contains_key(&longer) {
                break;
            }
            command = longer;
        }
        let first = words.first().copied().unwrap_or_default();
        if command.is_empty() && !first.starts_with(['-', '…']) {
            return Some(format!("there is no command {first}"));
        }
        let has_commands = self
            .options
            .keys()
            .any(|known| known.starts_with(&format!("{command} ")));
        let next = words.get(command.split_whitespace().count());
        if let Some(next) = next.filter(|next| has_commands && !next.starts_with(['-', '…'])) {
            return Some(format!("{command} has no command {next}"));
        }
        let known = &self.options[&command];
        words
            .iter()
            .map(|word| word.split('=').next().unwrap_or(word))
            .filter(|word| word.starts_with("--") && word.len() > 2)
            .find(|word| !known.iter().any(|option| option == word))
            .map(|option| format!("{command} has no option {option}"))
    }
}
