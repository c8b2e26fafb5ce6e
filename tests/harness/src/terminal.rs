//! The binary on a terminal of its own, as a person sees it.

use crate::folder::Folder;
use crate::process::{binary, isolate};
use std::process::{Command, Stdio};

/// Runs a command to its end on a terminal, and gives all that the terminal got, stdout and stderr
/// alike. `script` of util-linux makes the terminal.
pub fn on_terminal(folder: &Folder, args: &[&str], settings: &[(&str, &str)]) -> String {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
    let mut line = quoted(binary().to_str().unwrap());
    for word in args {
        line.push(' ');
        line.push_str(&quoted(word));
    }
    let output = isolate(Command::new("script"), folder, settings)
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
