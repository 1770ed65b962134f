//! `holdfast dev`: central and site agents as real processes on this machine, one software TPM per host, everything
//! in one folder.
//!
//! ```text
//! DIR/dev.json                    where everything is, and the credentials (mode 0600)
//! DIR/ca.crt admin.crt admin.key  deployment root; the administrator
//! DIR/central/{central.toml,data,log}
//! DIR/tpm-ca/                     the maker of the software TPMs
//! DIR/SITE/api-ca.crt
//! DIR/SITE/HOST/{agent.toml,data,log,tpm,tpm.log}
//! ```
//!
//! The processes die with this one however it dies: software TPMs by a parent death signal set before they start, the
//! node programs by `--die-with-parent`. Both look at the thread that started them, which is why everything here runs
//! on the main thread.
//!
//! Killing one of them is how to see a fault: a program is started again, and with a software TPM its whole host, as
//! after a power cut. A program that gives up by itself ends everything.

mod admin;
mod bring_up;
mod children;
pub(crate) mod file;
mod guide;
mod plan;
mod readiness;
mod settings;
mod tpm;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::bring_up::Bringing;
use self::children::{Exit, Exits, Group};
use self::file::{DevFile, Doc, State};
use self::plan::Plan;
use crate::failure::Failure;
use crate::files;
use crate::text::say;

/// Arguments of `holdfast dev`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Folder for everything; made if missing. Started again on it, the deployment comes back.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Number of sites [default: 2, or what DIR holds].
    #[arg(long, value_name = "N")]
    pub(crate) sites: Option<u16>,
    /// Hosts at each site, or one number per site [default: 1, or what DIR holds].
    #[arg(long, value_name = "N[,N..]", value_delimiter = ',')]
    pub(crate) hosts: Vec<u16>,
    /// First port: central REST P, QUIC P+1, host i P+10+2i. 0 takes free ports.
    /// Without it: 7373, 7443 and 4646+i.
    #[arg(long, value_name = "P")]
    pub(crate) port_base: Option<u16>,
    /// TOML file added to central's configuration; tenants it names are created, and its [log] is the agents' too.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Unseal central by the seal key kept in dev.json when it is started again.
    #[arg(long)]
    pub(crate) unseal: bool,
}

/// How a run ends.
enum Ending {
    /// Somebody asked for it.
    Signal(&'static str),
    /// It could not go on.
    Failed(Failure),
}

/// Brings the deployment up and keeps it until a signal or a failure.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    files::private_folder(&args.dir)?;
    let dir = args.dir.canonicalize().map_err(Failure::file(&args.dir))?;
    let _lock = lock(&dir)?;
    let mut signals = Signals::new()?;
    let file = DevFile::at(&dir);
    let known = file.read()?;
    let plan = Plan::new(&args, known.as_ref())?;
    file.start(&dir, &plan, known)?;

    let (nodes, mut node_exits) = Group::new();
    let (tpms, mut tpm_exits) = Group::new();
    let ending = {
        let bringing = Bringing::new(&dir, &args, &plan, &file, &nodes, &tpms)?;
        tokio::select! {
            failure = bringing.up_and_watch() => Ending::Failed(failure),
            failure = bringing.revive(&mut node_exits, &mut tpm_exits) => Ending::Failed(failure),
            name = signals.next() => Ending::Signal(name),
        }
    };
    if let Ending::Signal(name) = &ending {
        say(format!("{name}: stopping"));
    }
    // The agents close their TPMs properly, so these go last.
    stop(nodes, node_exits, &mut signals).await;
    stop(tpms, tpm_exits, &mut signals).await;
    file.update(Doc::stopped)?;
    match ending {
        Ending::Signal(_) => {
            say("stopped; nothing is left running");
            Ok(ExitCode::SUCCESS)
        }
        Ending::Failed(failure) => Err(failure),
    }
}

/// A second signal does not wait any longer.
async fn stop(group: Group, mut exits: Exits, signals: &mut Signals) {
    let impatient = async {
        signals.next().await;
    };
    group.stop(&mut exits, impatient).await;
}

fn unexpected(exit: Exit) -> Failure {
    let tail = files::tail(&exit.log, 20);
    Failure::Program { what: format!("{} ended unexpectedly ({})", exit.name, exit.status), log: exit.log, tail }
}

/// One `holdfast dev` per folder. The lock goes with the process.
fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join(".dev.lock");
    let file = File::create(&path).map_err(Failure::file(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(Failure::unfit(format!(
            "another holdfast dev runs on {}: stop it (Ctrl-C in its terminal) or give another --dir",
            dir.display()
        ))),
    }
}

/// The signals that end a run.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::io("listening to signals"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// Makes sure that a state is written even if nothing else changes.
fn set_state(file: &DevFile, state: State) -> Result<(), Failure> {
    file.update(|doc| doc.state = state)
}

/// An administrator's certificate and key in `dir`, for tests of the client.
#[cfg(test)]
pub(crate) fn test_identity(dir: &Path) {
    admin::identity(dir).expect("an identity can be made in a fresh folder");
}
