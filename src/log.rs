//! The log: for people on a terminal, JSON for machines; always on stderr.

use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use taskmaster_console::lines::{LogLine, say};
use tracing_subscriber::EnvFilter;

/// How the log is written.
#[derive(Debug, Clone, Args)]
pub struct LogOptions {
    /// Form of the log on stderr
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, hide_possible_values = true, value_name = "text|json")]
    log_format: LogFormat,
    /// How much is logged: error, warn, info, debug, trace, or by part
    /// (`info,taskmaster_master=debug`)
    #[arg(
        long,
        global = true,
        env = "TASKMASTER_LOG",
        default_value = "warn",
        value_name = "LEVEL",
        hide_env_values = true
    )]
    log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Starts the log. Where the filter cannot be read, it says so and logs warnings.
pub fn start(options: &LogOptions) {
    let filter = EnvFilter::try_new(&options.log).unwrap_or_else(|error| {
        say(format_args!(
            "--log {:?} cannot be read ({error}); logging warnings",
            options.log
        ));
        EnvFilter::new("warn")
    });
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LogLine)
        .with_ansi(colours);
    match options.log_format {
        LogFormat::Text => subscriber.with_target(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
