//! `holdfast audit`: checks a node's audit log by central's program, which knows the store.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::dev::file::DevFile;
use crate::failure::Failure;
use crate::programs::{CENTRAL, beside};

/// The subcommands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Verify the chains of a node's audit log and name the first break. Needs no key.
    #[command(group = clap::ArgGroup::new("log").required(true).args(["dir", "data"]))]
    Verify {
        /// Folder of a `holdfast dev`: verifies central's log.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Data folder of a node.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Print JSON, with the number of lines of each tenant.
        #[arg(long)]
        json: bool,
    },
}

/// Runs it; the exit code is the verifier's.
pub(crate) async fn run(command: Command) -> Result<ExitCode, Failure> {
    let Command::Verify { dir, data, json } = command;
    let data = match (data, dir) {
        (Some(data), _) => data,
        (None, Some(dir)) => DevFile::at(&dir).existing()?.central.data_dir,
        (None, None) => return Err(Failure::unfit("--dir or --data is needed")),
    };
    let program = beside(CENTRAL)?;
    let mut command = tokio::process::Command::new(&program);
    command.arg("audit-verify").arg("--data").arg(&data);
    if json {
        command.arg("--json");
    }
    let status = command.status().await;
    let code = status.map_err(Failure::file(program))?.code();
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
