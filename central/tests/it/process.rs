//! The program itself: its arguments, its end by a signal, and its end without one.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use holdfast_central::audit::verify;
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

    async fn start_with(folder: &Path, text: &str, mut command: Command) -> Self {
        let config = folder.join("central.toml");
        fs::write(&config, text).unwrap();
        command.args(["serve", "--die-with-parent", "--config"]).arg(config).stderr(Stdio::piped()).kill_on_drop(true);
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
        let path = format!("{SEAL}/reveal-sealkey");
        First::of(&try_call(self.addr, As::default(), ("POST", &path), None).await.unwrap())
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
