//! The program `holdfast-site-agent`: arguments, configuration, log, signals, exit code.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode};

use clap::{Parser, Subcommand};
use holdfast_protocol::ids::HostName;
use holdfast_protocol::site_bundle::{SITE_BUNDLE_BYTES_MAX, SiteBundle};
use holdfast_rest::program::{fit_connections, harden, kill_for_tests, write_log};
use holdfast_site_agent::join::join;
use holdfast_site_agent::ports::Ports;
use holdfast_site_agent::{Config, start};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

/// The agent of one host of a Holdfast site.
#[derive(Parser)]
#[command(name = "holdfast-site-agent", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make this machine a host of a site. May be repeated with the same bundle if it failed.
    Join {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The site bundle.
        #[arg(long, value_name = "FILE")]
        bundle: PathBuf,
        /// Which host of the bundle this machine is.
        #[arg(long, value_name = "NAME")]
        host: HostName,
        /// Join anew although this machine has joined: central was restored from a backup made before it did.
        #[arg(long)]
        again: bool,
    },
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
}

/// It did not join, did not start, or had to end.
const FAILURE: u8 = 1;
/// The configuration is no good.
const CONFIG: u8 = 2;
/// What the TPM libraries print about refusals, which belong to normal operation.
const TSS2_LOG: &str = "TSS2_LOG";
/// The TPM binding tells of every handle it flushes.
const QUIET: &str = "tss_esapi=warn,";

fn main() -> ExitCode {
    let args = Args::parse();
    if std::env::var_os(TSS2_LOG).is_none() {
        return with_quiet_libraries();
    }
    match args.command {
        Command::Join { config, bundle, host, again } => {
            with_config(&config, |config| guarded(false, config, |config| join_as(config, &bundle, (&host, again))))
        }
        Command::Serve { config, check_config: true, .. } => with_config(&config, |_| ExitCode::SUCCESS),
        Command::Serve { config, die_with_parent, .. } => {
            with_config(&config, |config| guarded(die_with_parent, config, serve))
        }
    }
}

/// The TPM libraries read their environment at their first call, and a running process must not change its own.
fn with_quiet_libraries() -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return fail(FAILURE, format_args!("can't find this program: {error}")),
    };
    let error = Process::new(program).args(std::env::args_os().skip(1)).env(TSS2_LOG, "all+none").exec();
    fail(FAILURE, format_args!("can't start: {error}"))
}

fn with_config(path: &Path, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::read(path) {
        Ok(config) => then(config),
        Err(errors) => fail(CONFIG, format_args!("{}:\n{errors}", path.display())),
    }
}

fn guarded(die_with_parent: bool, config: Config, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match harden(die_with_parent) {
        Ok(()) => then(config),
        Err(error) => fail(FAILURE, format_args!("can't protect the memory of this process: {error}")),
    }
}

fn fail(code: u8, why: std::fmt::Arguments<'_>) -> ExitCode {
    eprintln!("holdfast-site-agent: {why}");
    ExitCode::from(code)
}

fn join_as(config: Config, bundle: &Path, (host, again): (&HostName, bool)) -> ExitCode {
    write_log(&config.log, QUIET);
    let bundle = match read_bundle(bundle) {
        Ok(bundle) => bundle,
        Err(problem) => return fail(FAILURE, format_args!("{}: {problem}", bundle.display())),
    };
    in_runtime(async move {
        let joined = match Ports::of_machine(&config.tpm) {
            Ok(ports) => {
                let joined = join(&config, &bundle, (host, again), &ports).await;
                ports.tpm.halt().await;
                joined
            }
            Err(error) => Err(error.into()),
        };
        match joined {
            Ok(()) => {
                println!("{}/{host} has joined", bundle.site);
                ExitCode::SUCCESS
            }
            Err(error) => fail(FAILURE, format_args!("{}", chain(&error))),
        }
    })
}

fn read_bundle(path: &Path) -> Result<SiteBundle, String> {
    let text = Zeroizing::new(std::fs::read(path).map_err(|error| error.to_string())?);
    if SITE_BUNDLE_BYTES_MAX < text.len() {
        return Err("is too long for a site bundle".to_owned());
    }
    serde_json::from_slice(&text).map_err(|error| format!("is no site bundle: {error}"))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn serve(mut config: Config) -> ExitCode {
    write_log(&config.log, QUIET);
    #[cfg(debug_assertions)]
    if let Err(error) = holdfast_rest::nonces::record() {
        return fail(FAILURE, format_args!("can't record nonces: {error}"));
    }
    fit_connections(&mut config.tls);
    in_runtime(run(config))
}

fn in_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => fail(FAILURE, format_args!("can't start: {error}")),
    }
}

async fn run(config: Config) -> ExitCode {
    let running = match start(config).await {
        Ok(running) => running,
        Err(error) => return fail(FAILURE, format_args!("{}", chain(&error))),
    };
    tracing::info!(rest = %running.rest_addr(), "listening");
    tokio::select! {
        () = asked_to_stop() => {
            tracing::info!("stopping");
            running.stop().await;
            ExitCode::SUCCESS
        }
        () = kill_for_tests(|| running.children(), |what| running.strike(what)) => ExitCode::FAILURE,
        reason = running.failed() => {
            tracing::error!(reason, "the agent can't go on");
            running.halt().await;
            // What memory holds may be ahead of the disk: nothing more is written or served.
            std::process::exit(FAILURE.into())
        }
    }
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
