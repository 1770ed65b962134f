//! The program itself: its arguments, its end by a signal, and its end without one.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use holdfast_central::audit::verify;
use holdfast_testbed::memory;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::client::{As, Operator, try_call};
use crate::world::{First, SEAL, config_text};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_holdfast-central");

pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) addr: SocketAddr,
    /// What it wrote until it listened.
    said: String,
    /// What it wrote from then on, told when it has ended.
    pub(crate) later: JoinHandle<Vec<String>>,
}

impl Program {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_by(folder, Command::new(PROGRAM)).await
    }

    /// One that hosts find at `quic`.
    pub(crate) async fn start_at(folder: &Path, quic: SocketAddr) -> Self {
        let text = config_text(&folder.join("data"), &Operator::new());
        let text = text.replace("quic = \"127.0.0.1:0\"", &format!("quic = \"{quic}\""));
        Self::start_with(folder, &text, Command::new(PROGRAM)).await
    }

    /// As the program that `command` becomes.
    pub(crate) async fn start_by(folder: &Path, command: Command) -> Self {
        Self::start_with(folder, &config_text(&folder.join("data"), &Operator::new()), command).await
    }

    pub(crate) async fn start_with(folder: &Path, text: &str, mut command: Command) -> Self {
        let config = folder.join("central.toml");
        fs::write(&config, text).unwrap();
        command.args(["serve", "--die-with-parent", "--config"]).arg(config).stderr(Stdio::piped()).kill_on_drop(true);
        command.env(memory::READABLE, "1");
        Self::listening(command).await
    }

    /// Runs it until it listens.
    async fn listening(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let addr = loop {
            let line = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("it ended: {said}"));
            said.push_str(&line);
            said.push('\n');
            if let Some((_, addr)) = line.split_once("listening rest=") {
                break addr.parse().unwrap();
            }
        };
        let later = tokio::spawn(async move {
            let mut later = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                later.push(line);
            }
            later
        });
        Self { child, addr, said, later }
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: serde_json::Value) -> u16 {
        let who = As { token: Some(token), operator: None };
        try_call(self.addr, who, ("POST", path), Some(body)).await.unwrap().status.as_u16()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub(crate) async fn initialise(&self) -> First {
        self.initialise_at(self.addr.ip()).await
    }

    /// The same where it listens at several addresses.
    pub(crate) async fn initialise_at(&self, address: IpAddr) -> First {
        let (path, addr) = (format!("{SEAL}/reveal-sealkey"), (address, self.addr.port()).into());
        First::of(&try_call(addr, As::default(), ("POST", &path), None).await.unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill_in_the_middle_of_writing() {
    let folder = TempDir::new().unwrap();
    let mut central = Program::start(folder.path()).await;
    let first = central.initialise().await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (addr, token, acknowledged) = (central.addr, first.token.clone(), acknowledged.clone());
            tokio::spawn(async move {
                let mut written = Vec::new();
                for number in 0.. {
                    let name = format!("t-{writer}-{number}");
                    let who = As { token: Some(&token), operator: None };
                    let body = Some(json!({ "name": name }));
                    match try_call(addr, who, ("POST", "/v1/config/tenants"), body).await {
                        Ok(answer) if answer.status == 201 => written.push(name),
                        _ => return written,
                    }
                    acknowledged.fetch_add(1, SeqCst);
                }
                written
            })
        })
        .collect();
    let enough = async {
        while acknowledged.load(SeqCst) < 12 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), enough).await.unwrap();
    central.signal(Signal::KILL);
    central.child.wait().await.unwrap();
    let mut written = Vec::new();
    for writer in writers {
        written.extend(writer.await.unwrap());
    }
    assert!(written.len() >= 12);

    let again = Program::start(folder.path()).await;
    assert_eq!(again.post("", &format!("{SEAL}/unseal"), json!({ "sealkey": first.sealkey })).await, 204);
    for name in written {
        assert_eq!(again.post(&first.token, "/v1/config/tenants", json!({ "name": name })).await, 409, "{name}");
    }
    let report = verify(&folder.path().join("data")).unwrap();
    assert_eq!((report.first_break, report.gaps), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_shows_what_an_operator_needs_and_a_later_one_nothing() {
    let folder = TempDir::new().unwrap();
    let mut central = Program::start(folder.path()).await;
    assert!(central.said.contains("certificate:      SHA-256 "), "{}", central.said);
    let secret = central.said.lines().find_map(|line| line.split_once("bootstrap secret: ")).unwrap().1.to_owned();
    assert_eq!(secret.len(), 64);
    let first = central.initialise().await;
    assert_eq!(central.post(&first.token, "/v1/config/tenants", json!({ "name": "acme" })).await, 201);
    central.signal(Signal::TERM);
    assert_eq!(central.child.wait().await.unwrap().code(), Some(0));
    let again = Program::start(folder.path()).await;
    assert!(!again.said.contains("secret"), "{}", again.said);
    let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("data"), mode("data/store"), mode("data/audit")), (0o700, 0o700, 0o700));
    assert_eq!(mode("data/rest.key"), 0o600);
}

/// Started where a core could be written, with no limit on it.
async fn start_for_a_core(folder: &Path) -> Program {
    let config = folder.join("central.toml");
    fs::write(&config, config_text(&folder.join("data"), &Operator::new())).unwrap();
    let mut command = Command::new("sh");
    // Whether the limit can be raised at all is the machine's business; the program must lower it in any case.
    command.args(["-c", "ulimit -S -c $(ulimit -H -c) && exec \"$@\"", "sh", PROGRAM, "serve", "--config"]);
    command.arg(config).current_dir(folder).stderr(Stdio::piped()).kill_on_drop(true);
    Program::listening(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_no_core_and_nobody_may_look_into_the_process() {
    let folder = TempDir::new().unwrap();
    let mut central = start_for_a_core(folder.path()).await;
    central.initialise().await;
    let proc = format!("/proc/{}", central.pid());
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    let core: Vec<_> = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().split(' ').collect();
    let core: Vec<_> = core.into_iter().filter(|word| !word.is_empty()).skip(4).collect();
    assert_eq!(core, ["0", "0", "bytes"], "neither limit can be raised again");
    central.signal(Signal::ABORT);
    let status = central.child.wait().await.unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::ABORT.as_raw()), false));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("core")), "{left:?}");
}

/// A process that may not be dumped belongs to root in /proc, whoever runs it: that is how the kernel keeps others of
/// the same user from its memory.
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_the_process_is_closed_to_its_own_user() {
    let folder = TempDir::new().unwrap();
    let own = rustix::process::geteuid();
    let nobody = 65_534;
    let user = if own.is_root() { nobody } else { own.as_raw() };
    let config = folder.path().join("central.toml");
    fs::write(&config, config_text(&folder.path().join("data"), &Operator::new())).unwrap();
    let mut command = match own.is_root() {
        true => {
            std::os::unix::fs::chown(folder.path(), Some(nobody), Some(nobody)).unwrap();
            // Where it was built may be closed to others.
            let program = folder.path().join("central");
            fs::copy(PROGRAM, &program).unwrap();
            fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
            command
        }
        false => Command::new(PROGRAM),
    };
    command.args(["serve", "--config"]).arg(config).stderr(Stdio::piped()).kill_on_drop(true);
    let central = Program::listening(command).await;
    let proc = format!("/proc/{}", central.pid());
    let status = fs::read_to_string(format!("{proc}/status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{user}\t")), "{status}");
    for closed in ["mem", "environ", "maps"] {
        assert_eq!(fs::metadata(format!("{proc}/{closed}")).unwrap().uid(), 0, "{closed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_central_on_the_same_folder_does_not_start() {
    let folder = TempDir::new().unwrap();
    let _central = Program::start(folder.path()).await;
    let config = folder.path().join("central.toml");
    let output = Command::new(PROGRAM).args(["serve", "--config"]).arg(config).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("is in use by another process"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_told_whole() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("central.toml");
    fs::write(&config, "data_dirr = \"x\"\n[listen]\nrest = 5\n").unwrap();
    let check = async || {
        Command::new(PROGRAM).args(["serve", "--check-config", "--config"]).arg(&config).output().await.unwrap()
    };
    let output = check().await;
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    for key in ["data_dir: ", "data_dirr: ", "listen.rest: "] {
        assert!(told.contains(key), "{told}");
    }
    fs::write(&config, config_text(&folder.path().join("data"), &Operator::new())).unwrap();
    assert!(check().await.status.success());
    assert!(!folder.path().join("data").exists());
}
