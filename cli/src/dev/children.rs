//! Child processes: started from the main thread, watched, stopped together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc, watch};

use crate::failure::Failure;

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// What the members of a group are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Run,
    Terminate,
    Kill,
}

/// A process that ended.
#[derive(Debug)]
pub(crate) struct Exit {
    /// What it was.
    pub(crate) name: String,
    /// Its log.
    pub(crate) log: PathBuf,
    /// How it ended.
    pub(crate) status: String,
    /// Whether it gave up by itself. Otherwise it was killed, or asked to end.
    pub(crate) failed: bool,
}

/// Processes that are stopped together.
pub(crate) struct Group {
    orders: watch::Sender<Order>,
    exits: mpsc::Sender<Exit>,
    /// By name: what kills the newest process of this name.
    kills: RefCell<BTreeMap<String, Arc<Notify>>>,
}

/// The ends of a group's processes.
pub(crate) struct Exits(mpsc::Receiver<Exit>);

impl Exits {
    /// The next process that ends.
    pub(crate) async fn next(&mut self) -> Exit {
        match self.0.recv().await {
            Some(exit) => exit,
            // The group holds a sender, so this is a group that was stopped.
            None => std::future::pending().await,
        }
    }
}

impl Group {
    /// An empty group.
    pub(crate) fn new() -> (Self, Exits) {
        let (exits, receiver) = mpsc::channel(16);
        (Self { orders: watch::Sender::new(Order::Run), exits, kills: RefCell::default() }, Exits(receiver))
    }

    /// Starts a program that belongs to the group; gives its process id.
    pub(crate) fn spawn(&self, name: &str, command: Command, log: &Path) -> Result<u32, Failure> {
        let child = spawn(command, log)?;
        let pid = child.id().unwrap_or_default();
        self.adopt(name, child, log);
        Ok(pid)
    }

    /// Takes over a process that [`spawn`] started.
    pub(crate) fn adopt(&self, name: &str, child: Child, log: &Path) {
        let kill = Arc::<Notify>::default();
        self.kills.borrow_mut().insert(name.to_owned(), kill.clone());
        let attendant = Attendant { name: name.to_owned(), log: log.to_owned(), exits: self.exits.clone(), kill };
        tokio::spawn(attendant.attend(child, self.orders.subscribe()));
    }

    /// Kills the process of this name, if there is one; its end is told like any other.
    pub(crate) fn kill(&self, name: &str) {
        if let Some(kill) = self.kills.borrow().get(name) {
            kill.notify_one();
        }
    }

    /// Ends all of them: SIGTERM, and SIGKILL after [`GRACE`] or when `impatient` is done. Returns when none is left.
    pub(crate) async fn stop(self, exits: &mut Exits, impatient: impl Future<Output = ()>) {
        let Self { orders, exits: own, .. } = self;
        drop(own);
        orders.send_replace(Order::Terminate);
        tokio::select! {
            () = drained(exits) => return,
            () = tokio::time::sleep(GRACE) => {}
            () = impatient => {}
        }
        orders.send_replace(Order::Kill);
        drained(exits).await;
    }
}

async fn drained(exits: &mut Exits) {
    while exits.0.recv().await.is_some() {}
}

/// Starts a program with its output appended to `log`, in a process group of its own so that Ctrl-C reaches only this
/// program, which then stops the others in order.
pub(crate) fn spawn(mut command: Command, log: &Path) -> Result<Child, Failure> {
    let out = OpenOptions::new().create(true).append(true).open(log).map_err(Failure::file(log))?;
    let err = out.try_clone().map_err(Failure::file(log))?;
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(Failure::io(format!("starting {program}")))
}

/// Runs a program to its end; its output is appended to `log`. Where that is given up, what the program has started
/// ends with it.
pub(crate) async fn complete(what: &str, command: Command, log: &Path) -> Result<(), Failure> {
    let mut child = spawn(command, log)?;
    let mut family = Family(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let status = child.wait().await.map_err(Failure::io(what))?;
    family.0 = None;
    if status.success() {
        return Ok(());
    }
    let tail = crate::files::tail(log, 20);
    Err(Failure::Program { what: format!("{what} failed ({})", describe(status)), log: log.to_owned(), tail })
}

/// A program and its children, until it has ended by itself.
struct Family(Option<Pid>);

impl Drop for Family {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// `exit status: 1` or `signal: 9 (SIGKILL)`, as the standard library says it.
pub(crate) fn describe(status: ExitStatus) -> String {
    status.to_string()
}

/// Waits for one process.
struct Attendant {
    name: String,
    log: PathBuf,
    exits: mpsc::Sender<Exit>,
    kill: Arc<Notify>,
}

impl Attendant {
    async fn attend(self, mut child: Child, mut orders: watch::Receiver<Order>) {
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                () = self.kill.notified() => obey(Order::Kill, &mut child),
                changed = orders.changed() => {
                    let order = if changed.is_ok() { *orders.borrow_and_update() } else { Order::Kill };
                    obey(order, &mut child);
                    if changed.is_err() {
                        break child.wait().await;
                    }
                }
            }
        };
        let failed = status.as_ref().map_or(true, |status| status.code().is_some_and(|code| code != 0));
        let status = status.map_or_else(|error| error.to_string(), describe);
        // Nobody listens any more when the program itself is about to end.
        let _ = self.exits.send(Exit { name: self.name, log: self.log, status, failed }).await;
    }
}

/// The process was not waited for yet, so its id is still its own.
fn obey(order: Order, child: &mut Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let Some(pid) = pid else { return };
    // An error means that it has just ended.
    let _ = match order {
        Order::Run => Ok(()),
        Order::Terminate => kill_process(pid, Signal::TERM),
        Order::Kill => kill_process(pid, Signal::KILL),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[tokio::test]
    async fn an_exit_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let (group, mut exits) = Group::new();
        group.spawn("shell", shell("echo last words; exit 3"), &log).unwrap();
        let exit = exits.next().await;
        assert_eq!((exit.name.as_str(), exit.status.as_str(), exit.failed), ("shell", "exit status: 3", true));
        assert_eq!(crate::files::tail(&exit.log, 1), "last words");
    }

    #[tokio::test]
    async fn who_is_killed_alone_did_not_fail() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let (group, mut exits) = Group::new();
        let other = group.spawn("other", shell("exec sleep 1000"), &log).unwrap();
        group.spawn("victim", shell("exec sleep 1000"), &log).unwrap();
        group.kill("victim");
        group.kill("nobody");
        let exit = exits.next().await;
        assert_eq!((exit.name.as_str(), exit.failed), ("victim", false));
        assert!(Path::new(&format!("/proc/{other}")).exists());
        group.stop(&mut exits, std::future::pending()).await;
    }

    #[tokio::test]
    async fn a_stopped_group_leaves_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let (group, mut exits) = Group::new();
        let polite = group.spawn("polite", shell("exec sleep 1000"), &log).unwrap();
        group.stop(&mut exits, std::future::pending()).await;
        assert!(!Path::new(&format!("/proc/{polite}")).exists());
    }

    #[tokio::test]
    async fn who_ignores_the_request_is_killed_when_patience_ends() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let (group, mut exits) = Group::new();
        let script = "trap '' TERM; echo up; while :; do read -r line </dev/zero; done";
        let stubborn = group.spawn("stubborn", shell(script), &log).unwrap();
        while crate::files::tail(&log, 1) != "up" {
            tokio::task::yield_now().await;
        }
        group.stop(&mut exits, std::future::ready(())).await;
        assert!(!Path::new(&format!("/proc/{stubborn}")).exists());
    }

    #[tokio::test]
    async fn a_failed_command_shows_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let failure = complete("trying", shell("echo why >&2; false"), &log).await.unwrap_err();
        assert!(failure.to_string().contains("trying failed (exit status: 1)"), "{failure}");
        assert!(failure.to_string().ends_with("why"), "{failure}");
    }
}
