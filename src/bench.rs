//! The clients' commands, of which `bench` may start a master of its own.

use crate::standalone::Standalone;
use std::process::ExitCode;
use taskmaster_console::lines::tell;
use taskmaster_feeder::cli::DEFAULT_URL;
use taskmaster_feeder::{ClientCommand, GlobalOptions};
use taskmaster_transport::Address;
use tokio::net::TcpStream;

/// Runs a client's command. `bench` without a `--url` and without a master at the default address
/// measures a master of its own.
pub async fn client(command: ClientCommand, global: GlobalOptions) -> ExitCode {
    let is_bench = matches!(command, ClientCommand::Bench(_));
    if is_bench && global.url.is_none() && nobody_listens().await {
        return with_own_master(command, global).await;
    }
    ExitCode::from(taskmaster_feeder::run(command, &global).await)
}

async fn with_own_master(command: ClientCommand, mut global: GlobalOptions) -> ExitCode {
    let folder = std::env::temp_dir().join(format!("taskmaster-bench-{}", std::process::id()));
    tell(format_args!(
        "no master at {DEFAULT_URL}; measuring one of its own"
    ));
    let code = match Standalone::temporary(&folder, folder.join("tasks")).await {
        Ok(standalone) => {
            global.url = Some(standalone.address.to_string());
            let work = taskmaster_feeder::run(command, &global);
            ExitCode::from(standalone.during(work).await)
        }
        Err(error) => {
            tell(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    };
    // The folder is in the temporary directory: what is left of it harms nobody.
    let _ = std::fs::remove_dir_all(&folder);
    code
}

async fn nobody_listens() -> bool {
    match Address::parse(DEFAULT_URL) {
        Ok(address) => TcpStream::connect(address.authority()).await.is_err(),
        Err(_) => false,
    }
}
