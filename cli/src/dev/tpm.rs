//! Software TPMs (swtpm): made once per host, started with a fixed boot history.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use holdfast_protocol::crypto::hash::sha256;
use tokio::process::{Child, Command};

use super::children::{Group, complete, spawn};
use crate::failure::Failure;
use crate::files::{private_folder, replace};

/// Port pairs tried before giving up; another process may take a port between its choice and its use.
const ATTEMPTS: usize = 20;
/// How long a software TPM may take to listen. It takes milliseconds on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// PCRs that a boot would have extended.
const BOOT_PCRS: std::ops::RangeInclusive<u8> = 0..=7;

/// Ends the shell's life unless its parent is still the one given: the parent may have died before the death signal
/// was set, and then nobody would send it.
const STILL_THERE: &str = r#"test "$PPID" = "$1" || exit 1; shift; exec "$@""#;

/// What [`SoftTpm::start`] gives, up to the port.
const TCTI: &str = "swtpm:host=127.0.0.1,port=";

/// The port at which a TPM is reached by this TCTI.
pub(crate) fn port_of(tcti: &str) -> Option<u16> {
    tcti.strip_prefix(TCTI)?.parse().ok()
}

/// The name of a host's TPM among the processes.
pub(super) fn tpm_of(host: &str) -> String {
    format!("the software TPM of {host}")
}

/// The software TPM of one host.
pub(crate) struct SoftTpm {
    /// The whole deployment's folder.
    dir: PathBuf,
    /// The host's folder.
    host_dir: PathBuf,
    host: String,
}

impl SoftTpm {
    /// The TPM of `host`, whose folder is `host_dir`.
    pub(crate) fn new(dir: &Path, host_dir: &Path, host: &str) -> Self {
        Self { dir: dir.to_owned(), host_dir: host_dir.to_owned(), host: host.to_owned() }
    }

    fn state(&self) -> PathBuf {
        self.host_dir.join("tpm")
    }

    fn log(&self) -> PathBuf {
        self.host_dir.join("tpm.log")
    }

    /// Makes the TPM with its endorsement keys and certificates, unless it exists. Gives whether it was made now.
    /// Not for two at once: the maker's serial numbers are one file.
    pub(crate) async fn make(&self) -> Result<bool, Failure> {
        if self.state().exists() {
            return Ok(false);
        }
        let maker = Maker::prepare(&self.dir)?;
        // Made under another name, so that a half-made TPM is never taken for one.
        let fresh = self.host_dir.join("tpm.new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(Failure::file(&fresh))?;
        }
        private_folder(&fresh)?;
        let mut command = Command::new("swtpm_setup");
        command
            .args(["--tpm2", "--create-ek-cert", "--lock-nvram", "--pcr-banks", "sha256", "--tpm-state"])
            .arg(&fresh)
            .arg("--config")
            .arg(&maker.config)
            .env("TMPDIR", &maker.folder);
        complete(&format!("making the software TPM of {}", self.host), command, &self.log()).await?;
        fs::rename(&fresh, self.state()).map_err(Failure::file(&fresh))?;
        Ok(true)
    }

    /// Starts it on a free pair of ports and gives the TCTI to reach it by.
    pub(crate) async fn start(&self, group: &Group) -> Result<String, Failure> {
        for _ in 0..ATTEMPTS {
            let Some(port) = free_pair() else { continue };
            let Some(child) = self.listening(port).await? else { continue };
            group.adopt(&tpm_of(&self.host), child, &self.log());
            let tcti = format!("{TCTI}{port}");
            extend_boot_events(&self.host, &tcti, &self.log()).await?;
            return Ok(tcti);
        }
        let tail = crate::files::tail(&self.log(), 20);
        Err(Failure::Program {
            what: format!("the software TPM of {} does not start", self.host),
            log: self.log(),
            tail,
        })
    }

    /// A process that listens on both ports; `None` if it ended, mostly because a port was taken.
    async fn listening(&self, port: u16) -> Result<Option<Child>, Failure> {
        let pid_file = self.host_dir.join("tpm.pid");
        let _ = fs::remove_file(&pid_file);
        let mut child = spawn(self.command(port, &pid_file), &self.log())?;
        let written = async {
            // It is written after both ports are bound. Connecting would not tell our TPM from a stranger's.
            let pid = child.id().unwrap_or_default().to_string();
            let mut tick = tokio::time::interval(Duration::from_millis(2));
            loop {
                tick.tick().await;
                if fs::read_to_string(&pid_file).is_ok_and(|text| text.trim() == pid) {
                    return Ok(true);
                }
                if child.try_wait().map_err(Failure::io("waiting for swtpm"))?.is_some() {
                    return Ok(false);
                }
            }
        };
        match tokio::time::timeout(START_TIMEOUT, written).await {
            Ok(Ok(true)) => Ok(Some(child)),
            Ok(Ok(false)) | Err(_) => Ok(None),
            Ok(Err(failure)) => Err(failure),
        }
    }

    fn command(&self, port: u16, pid_file: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "sh", "-c", STILL_THERE, "sh", &std::process::id().to_string()])
            .args(["swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", self.state().display()))
            .arg("--server")
            .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1))
            .arg("--pid")
            .arg(format!("file={}", pid_file.display()));
        command
    }
}

/// The maker of all software TPMs of a deployment: certifies their endorsement keys.
struct Maker {
    folder: PathBuf,
    config: PathBuf,
}

impl Maker {
    /// Writes the maker's configuration; the tool makes the keys at its first use.
    fn prepare(dir: &Path) -> Result<Self, Failure> {
        let folder = dir.join("tpm-ca");
        private_folder(&folder)?;
        let at = |name: &str| folder.join(name).display().to_string();
        let localca = format!(
            "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
            folder.display(),
            at("signkey.pem"),
            at("issuercert.pem"),
            at("certserial")
        );
        let options = "--platform-manufacturer Holdfast\n--platform-version 1\n--platform-model dev\n";
        let setup = format!(
            "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n",
            at("localca.conf"),
            at("localca.options")
        );
        for (name, text) in [("localca.conf", localca.as_str()), ("localca.options", options), ("setup.conf", &setup)] {
            replace(&folder.join(name), text.as_bytes(), 0o600)?;
        }
        Ok(Self { config: folder.join("setup.conf"), folder })
    }
}

/// A port P such that P and P+1 are free: the TPM library computes the control port from the data port. Below the range
/// that the kernel takes ports for outgoing connections from, and beginning somewhere else in each process.
fn free_pair() -> Option<u16> {
    const PAIRS: u32 = 3_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(61);
    (0..PAIRS).find_map(|_| {
        let place = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PAIRS;
        let port = u16::try_from(15_300 + 2 * place).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).ok()?;
        Some(port)
    })
}

/// Extends each PCR of [`BOOT_PCRS`] by one fixed event, as firmware would at every boot: a software TPM starts with
/// zeroes there, and a host that measured nothing is refused.
async fn extend_boot_events(host: &str, tcti: &str, log: &Path) -> Result<(), Failure> {
    let mut command = Command::new("tpm2_pcrextend");
    command.args(BOOT_PCRS.map(boot_event)).env("TPM2TOOLS_TCTI", tcti);
    complete(&format!("extending the PCRs of {host}"), command, log).await
}

fn boot_event(pcr: u8) -> String {
    format!("{pcr}:sha256={}", hex::encode(sha256(&[b"holdfast dev boot event", &[pcr]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pcrs(tcti: &str) -> String {
        let output = Command::new("tpm2_pcrread").arg("sha256:0,1,2,3,4,5,6,7").env("TPM2TOOLS_TCTI", tcti).output();
        String::from_utf8(output.await.unwrap().stdout).unwrap()
    }

    #[tokio::test]
    async fn every_start_shows_the_same_boot() {
        let folder = tempfile::tempdir().unwrap();
        let host_dir = folder.path().join("udc1/udc1-001");
        private_folder(&host_dir).unwrap();
        let tpm = SoftTpm::new(folder.path(), &host_dir, "udc1-001");
        assert!(tpm.make().await.unwrap());
        assert!(!tpm.make().await.unwrap());
        let mut boots = Vec::new();
        for _ in 0..2 {
            let (group, mut exits) = Group::new();
            let tcti = tpm.start(&group).await.unwrap();
            boots.push(pcrs(&tcti).await);
            group.stop(&mut exits, std::future::pending()).await;
        }
        assert_eq!(boots[0], boots[1]);
        assert_eq!(boots[0].matches("0x").count(), 8, "{}", boots[0]);
        assert!(!boots[0].contains(&"0".repeat(64)), "{}", boots[0]);
    }
}
