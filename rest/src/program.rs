//! What both node programs do around their node: log, protection of the process.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal,
    setrlimit,
};
use tracing_subscriber::EnvFilter;

use crate::config::node::Log;

/// Begins the log on standard error. `quiet` are directives that come before the configured ones.
pub fn write_log(log: &Log, quiet: &str) {
    let filter = EnvFilter::new(format!("{quiet}{}", log.level));
    let log_to = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.json {
        true => log_to.json().init(),
        false => log_to.with_ansi(false).init(),
    }
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
