//! What both node programs do around their node: log, protection of the process.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal,
    setrlimit,
};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::node::Log;

/// Begins the log on standard error. `quiet` are directives that come before the configured ones.
pub fn write_log(log: &Log, quiet: &str) {
    let filter = EnvFilter::new(format!("{quiet}{}", log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.json {
        true => lines.json().boxed(),
        false => lines.with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(filter_fn(may_be_told)).with(lines).init();
}

/// Whatever is configured, the libraries below are heard from the level of information upwards only: what they tell
/// beyond that holds headers, frames and whole messages, and so tokens and secrets.
fn may_be_told(about: &Metadata<'_>) -> bool {
    is_ours(about.target()) || *about.level() <= Level::INFO
}

/// Whether a log line is from this workspace, whose own lines name no secret at any level.
fn is_ours(target: &str) -> bool {
    target.split("::").next().is_some_and(|name| name.starts_with("holdfast_"))
}

/// No core dump may hold a key, and (where asked) no orphan may go on serving.
///
/// # Errors
/// The system refuses, or the parent has ended already.
pub fn harden(die_with_parent: bool) -> rustix::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    if die_with_parent {
        let parent = getppid();
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended just before.
        if getppid() != parent || parent.is_none_or(|parent| parent.is_init()) {
            return Err(rustix::io::Errno::SRCH);
        }
    }
    Ok(())
}
