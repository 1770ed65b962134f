//! What both node programs do around their node: log, protection of the process.

use std::future::pending;

use holdfast_actors::shell::supervisor::Tended;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getppid, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::node::{Log, Tls};
use crate::recent::Recent;

/// Descriptors that a node needs beside those of its REST connections: files, hosts' sockets, and some to spare.
const DESCRIPTORS_KEPT: u64 = 256;

/// Begins the log on standard error. `quiet` are directives that come before the configured ones.
pub fn write_log(log: &Log, quiet: &str) {
    let filter = EnvFilter::new(format!("{quiet}{}", log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.json {
        true => lines.json().boxed(),
        false => lines.with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(filter_fn(may_be_told)).with(lines).with(Recent).init();
}

/// Only in programs built for tests: whoever runs them may not be root, who alone can read the memory of the others.
fn may_be_read_by_tests() -> bool {
    cfg!(debug_assertions) && std::env::var_os("HOLDFAST_TEST_READABLE_MEMORY").is_some()
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
    if !may_be_read_by_tests() {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
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

/// Takes as many descriptors as the system allows, and no more connections than those are for: a node that has none
/// left could open no file either.
pub fn fit_connections(tls: &mut Tls) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let Some(descriptors) = (if raised { maximum } else { current }) else { return };
    let room = usize::try_from(descriptors.saturating_sub(DESCRIPTORS_KEPT)).unwrap_or(usize::MAX).max(1);
    if room < tls.connections_max {
        tracing::warn!(descriptors, connections = room, "fewer REST connections than configured: too few descriptors");
        // In proportion: what one address may take is to leave room for others.
        tls.connections_per_address = (tls.connections_per_address * room / tls.connections_max).max(1);
        tls.connections_max = room;
    }
}

/// For tests: kills, again and again, the actor whose name stands in the file that `HOLDFAST_TEST_KILL` names; `strike`
/// does the same to what is no actor. Never ends; in a release build it does nothing else either.
#[cfg(debug_assertions)]
pub async fn kill_for_tests(children: impl Fn() -> Vec<Tended>, strike: impl Fn(&str)) {
    let Some(file) = std::env::var_os("HOLDFAST_TEST_KILL") else { return pending().await };
    loop {
        let name = std::fs::read_to_string(&file).unwrap_or_default();
        let doomed = children().into_iter().filter(|child| child.name == name.trim());
        doomed.filter_map(|child| child.cell).for_each(|cell| cell.kill());
        strike(name.trim());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub async fn kill_for_tests(_: impl Fn() -> Vec<Tended>, _: impl Fn(&str)) {
    pending().await
}
