//! The program `holdfast-central`: arguments, configuration, log, signals, exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use holdfast_central::{Config, FirstStart, Running, audit, start};
use holdfast_rest::program::{fit_connections, harden, kill_for_tests, write_log};
use tokio::signal::unix::{SignalKind, signal};

/// The central authority of a Holdfast deployment.
#[derive(Parser)]
#[command(name = "holdfast-central", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM.
    Serve {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Check the file and exit.
        #[arg(long)]
        check_config: bool,
        /// End at once when the parent process ends.
        #[arg(long)]
        die_with_parent: bool,
    },
    /// Verify the audit log of a data folder and name the first break; needs no key.
    AuditVerify {
        /// The data folder of a node.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// The log is broken, or nothing can be said about it; a node that did not start or had to end.
const FAILURE: u8 = 1;
/// The configuration is no good.
const CONFIG: u8 = 2;

fn main() -> ExitCode {
    match Args::parse().command {
        Command::AuditVerify { data, json } => audit_verify(&data, json),
        Command::Serve { config, check_config, die_with_parent } => match Config::read(&config) {
            Err(errors) => fail(CONFIG, format_args!("{}:\n{errors}", config.display())),
            Ok(_) if check_config => ExitCode::SUCCESS,
            Ok(config) => match harden(die_with_parent) {
                Ok(()) => serve(config),
                Err(error) => fail(FAILURE, format_args!("can't protect the memory of this process: {error}")),
            },
        },
    }
}

fn fail(code: u8, why: std::fmt::Arguments<'_>) -> ExitCode {
    eprintln!("holdfast-central: {why}");
    ExitCode::from(code)
}

fn audit_verify(data: &std::path::Path, json: bool) -> ExitCode {
    let report = match audit::verify(data) {
        Ok(report) => report,
        Err(error) => return fail(FAILURE, format_args!("{error}")),
    };
    match json {
        true => println!("{:#}", audit::json(&report)),
        false => println!("{}", audit::text(&report)),
    }
    if report.first_break.is_none() { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
}

fn serve(mut config: Config) -> ExitCode {
    write_log(&config.log, "");
    #[cfg(debug_assertions)]
    if let Err(error) = holdfast_rest::nonces::record() {
        return fail(FAILURE, format_args!("can't record nonces: {error}"));
    }
    fit_connections(&mut config.tls);
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(config)),
        Err(error) => fail(FAILURE, format_args!("can't start: {error}")),
    }
}

async fn run(config: Config) -> ExitCode {
    let mut running = match start(config).await {
        Ok(running) => running,
        Err(error) => return fail(FAILURE, format_args!("{error}")),
    };
    if let Some(first) = running.take_first_start() {
        show(&running, &first);
    }
    match running.kes_addrs().as_slice() {
        [] => tracing::info!(rest = %running.rest_addr(), "listening"),
        kes => tracing::info!(rest = %running.rest_addr(), ?kes, "listening"),
    }
    tokio::select! {
        () = asked_to_stop() => {
            tracing::info!("stopping");
            running.stop().await;
            ExitCode::SUCCESS
        }
        () = kill_for_tests(|| running.children(), |what| running.strike(what)) => ExitCode::FAILURE,
        reason = running.failed() => {
            tracing::error!(reason, "central can't go on");
            // What memory holds may be ahead of the disk: nothing more is written or served.
            std::process::exit(FAILURE.into())
        }
    }
}

/// Shown nowhere again and kept nowhere.
fn show(running: &Running, first: &FirstStart) {
    eprintln!("Central is not initialised.");
    eprintln!("  address:          https://{}", running.rest_addr());
    eprintln!("  certificate:      SHA-256 {}", first.fingerprint);
    eprintln!("  bootstrap secret: {}", *first.secret);
    eprintln!("From this machine `holdfast operator init` needs no secret; from another one it asks for it.");
}

async fn asked_to_stop() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => {
            tracing::error!("signals can't be heard; this process ends only by being killed");
            std::future::pending().await
        }
    }
}
