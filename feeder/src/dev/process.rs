//! Runs a program to its end.

use crate::error::CommandError;
use std::process::{ExitStatus, Stdio};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs a program with `input` as its stdin, or without stdin, and gives how it ended. Where the
/// future is dropped the program is killed.
pub(super) async fn run(
    mut command: Command,
    input: Option<&str>,
) -> Result<ExitStatus, CommandError> {
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let failed = |error: std::io::Error| CommandError::Local(format!("{program}: {error}"));
    let stdin = match input {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    };
    let mut child = command
        .stdin(stdin)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // A program that does not read its input, or ends before, has its reasons.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    child.wait().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[tokio::test]
    async fn a_program_reads_its_input_and_tells_how_it_ended() {
        let long = "x".repeat(1 << 20);
        let count = shell("test $(wc -c) -eq 1048576 && exit 7");
        assert_eq!(run(count, Some(&long)).await.unwrap().code(), Some(7));
        let reads_nothing = run(shell("exit 3"), Some(&long)).await.unwrap();
        assert_eq!(reads_nothing.code(), Some(3));
        let no_input = run(shell("test -z \"$(cat)\""), None).await.unwrap();
        assert!(no_input.success());
        let missing = run(Command::new("no-such-program"), None).await;
        assert!(
            missing
                .unwrap_err()
                .to_string()
                .starts_with("no-such-program: ")
        );
    }

    #[tokio::test]
    async fn a_program_does_not_outlive_the_wish_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 60", file.display());
        let pid = async {
            loop {
                match std::fs::read_to_string(&file) {
                    Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let pid = tokio::select! {
            _ = run(shell(&script), None) => panic!("it ended"),
            pid = pid => pid,
        };
        let gone = async {
            while run(shell(&format!("kill -0 {pid} 2>&-")), None)
                .await
                .unwrap()
                .success()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .expect("it is killed");
    }
}
