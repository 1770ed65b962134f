//! Software TPMs for tests: made, started, killed and measured into as a machine's firmware would.
//!
//! Needs the programs `swtpm`, `swtpm_setup`, `swtpm_localca` and `tpm2_pcrextend`. Everything a TPM owns lies under
//! one folder, so a copy of the folder is a clone of the TPM. Blocking throughout and free of any runtime.
//!
//! The TPM libraries open their sockets without close-on-exec. A child started while the same process talks to a TPM
//! would inherit the connection and keep it open, and as a software TPM serves one connection at a time, everybody
//! would wait for ever. So children are started through a shell that closes what they must not have.

use std::fs::{self, File};
use std::io::{self, Error, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use holdfast_protocol::crypto::hash::sha256;

/// The registers that firmware fills before an operating system runs.
const BOOT_PCRS: std::ops::RangeInclusive<u8> = 0..=7;
/// Other processes pick ports too; a pair that was free a moment ago may be taken.
const START_TRIES: u32 = 20;
/// A start takes some 8 ms; a machine under full load gets a second and a half.
const READY_POLLS: u32 = 300;
const POLL: Duration = Duration::from_millis(5);
/// Closes every inherited file but the standard three, then becomes the program.
const CLOSE_AND_EXEC: &str = r#"
for fd in /proc/self/fd/*; do fd=${fd##*/}; if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi; done
exec "$@""#;
/// What a shell returns where the program is not installed.
const NOT_INSTALLED: Option<i32> = Some(127);

/// Manufactures a TPM into `dir/state`: an RSA-2048 endorsement key, persisted at 0x81010001 and with its certificate
/// in NV. `ca` is the folder of the signing CA, made at first use; TPMs that name the same folder share it. Takes
/// more than a second: tests take theirs from [`identity`].
///
/// # Errors
/// A program is missing or fails; its output is in the error.
pub fn manufacture(dir: &Path, ca: &Path) -> io::Result<()> {
    let state = dir.join("state");
    fs::create_dir_all(&state)?;
    fs::create_dir_all(ca)?;
    let setup = dir.join("setup.conf");
    let local_ca = dir.join("localca.conf");
    let options = dir.join("localca.options");
    fs::write(
        &local_ca,
        format!(
            "statedir = {0}\nsigningkey = {0}/signkey.pem\nissuercert = {0}/issuercert.pem\ncertserial = {0}/certserial\n",
            ca.display()
        ),
    )?;
    fs::write(&options, "--platform-manufacturer Holdfast\n--platform-version 1.0\n--platform-model Testbed\n")?;
    fs::write(
        &setup,
        format!(
            "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n\
             active_pcr_banks = sha256\n",
            local_ca.display(),
            options.display()
        ),
    )?;
    let output = command("swtpm_setup")
        .args(["--tpm2", "--create-ek-cert", "--lock-nvram", "--not-overwrite", "--pcr-banks", "sha256", "--config"])
        .arg(&setup)
        .arg("--tpm-state")
        .arg(&state)
        .env("XDG_CONFIG_HOME", dir)
        .output()?;
    succeeded("swtpm_setup", &output)
}

/// PEM certificates under the CA folder: the signer of the endorsement certificates and the root above it.
pub fn ca_certificates(ca: &Path) -> [PathBuf; 2] {
    [ca.join("issuercert.pem"), ca.join("swtpm-localca-rootca-cert.pem")]
}

/// The folder of the CA behind every [`identity`].
pub fn pool_ca() -> PathBuf {
    pool().join("ca")
}

/// Puts the TPM number `index` of the pool into `dir`. The pool is kept in the target folder and grows on demand, so
/// the same index is the same TPM in every test and run; different indexes are different machines.
///
/// # Errors
/// The TPM can not be made or copied.
pub fn identity(index: usize, dir: &Path) -> io::Result<()> {
    let made = pooled(&pool(), index)?;
    let state = dir.join("state");
    fs::create_dir_all(&state)?;
    for entry in fs::read_dir(made.join("state"))? {
        let entry = entry?;
        // The lock belongs to a running TPM, and a copy must not inherit it.
        if entry.file_type()?.is_file() && entry.file_name() != ".lock" {
            fs::copy(entry.path(), state.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// What [`Swtpm::boot_events`] extends into register `pcr`.
pub fn boot_event(pcr: u8) -> [u8; 32] {
    sha256(&[b"holdfast/testbed/boot-event/v1", &[pcr]])
}

/// The value of register `pcr` once it was extended with `events` after a start.
pub fn extended(events: &[[u8; 32]]) -> [u8; 32] {
    events.iter().fold([0; 32], |value, event| sha256(&[&value, event]))
}

/// A running software TPM; dropping it kills the process and waits for its end.
#[derive(Debug)]
pub struct Swtpm {
    child: Child,
    dir: PathBuf,
    /// The data port; the control port is the next one, which the TPM libraries take for granted.
    pub port: u16,
}

impl Swtpm {
    /// Starts the TPM of `dir` on a free pair of ports. PCRs are as after a power-on: nothing measured yet.
    ///
    /// # Errors
    /// The program is missing, or no pair of ports worked.
    pub fn start(dir: &Path) -> io::Result<Self> {
        for _ in 0..START_TRIES {
            let Some(port) = free_pair() else { continue };
            if let Some(child) = spawn(dir, port)? {
                return Ok(Self { child, dir: dir.to_owned(), port });
            }
        }
        Err(Error::other("no pair of ports for swtpm"))
    }

    /// The configuration string for the agent and for `TPM2TOOLS_TCTI`.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// The process, for faults injected from outside.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Measures what a firmware would, always the same: one event into each of the registers 0 to 7.
    ///
    /// # Errors
    /// As [`Swtpm::extend`].
    pub fn boot_events(&self) -> io::Result<()> {
        let events: Vec<_> = BOOT_PCRS.map(|pcr| (pcr, boot_event(pcr))).collect();
        self.extend_all(&events)
    }

    /// Extends one register of the SHA-256 bank.
    ///
    /// # Errors
    /// `tpm2_pcrextend` is missing or fails.
    pub fn extend(&self, pcr: u8, digest: [u8; 32]) -> io::Result<()> {
        self.extend_all(&[(pcr, digest)])
    }

    /// Extends several registers in one go, in order.
    ///
    /// # Errors
    /// As [`Swtpm::extend`].
    pub fn extend_all(&self, events: &[(u8, [u8; 32])]) -> io::Result<()> {
        let specs = events.iter().map(|(pcr, digest)| format!("{pcr}:sha256={}", hex::encode(digest)));
        self.tool("tpm2_pcrextend", specs).map(drop)
    }

    /// Runs one of the tpm2-tools against this TPM and returns what it printed.
    ///
    /// # Errors
    /// The program is missing or fails; its output is in the error.
    pub fn tool(&self, program: &str, args: impl IntoIterator<Item = String>) -> io::Result<Vec<u8>> {
        let output = command(program).args(args).env("TPM2TOOLS_TCTI", self.tcti()).output()?;
        succeeded(program, &output)?;
        Ok(output.stdout)
    }

    /// Power loss: the process is gone without a word to its clients.
    ///
    /// # Errors
    /// The operating system's.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Power loss and power-on: the same TPM at the same ports, its PCRs reset.
    ///
    /// # Errors
    /// The ports were taken meanwhile.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill()?;
        for _ in 0..START_TRIES {
            if let Some(child) = spawn(&self.dir, self.port)? {
                self.child = child;
                return Ok(());
            }
            poll_again();
        }
        Err(Error::other("the ports of this swtpm were taken"))
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        // Nothing is left to be done where the process has ended by itself.
        let _ = self.kill();
    }
}

/// The child once it serves both ports; `None` where it ended or stayed silent, as with a port that is taken.
fn spawn(dir: &Path, port: u16) -> io::Result<Option<Child>> {
    // The file appears once both ports are bound. A connection alone proves little: another program may be behind it.
    let pid_file = dir.join("pid");
    if pid_file.exists() {
        fs::remove_file(&pid_file)?;
    }
    let mut child = command("swtpm")
        .args(["socket", "--tpm2", "--tpmstate"])
        .arg(format!("dir={}", dir.join("state").display()))
        .arg("--server")
        .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"))
        .arg("--ctrl")
        .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1))
        .args(["--flags", "not-need-init,startup-clear", "--pid"])
        .arg(format!("file={}", pid_file.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    for _ in 0..READY_POLLS {
        if let Some(ended) = child.try_wait()? {
            return if ended.code() == NOT_INSTALLED { Err(ErrorKind::NotFound.into()) } else { Ok(None) };
        }
        // Only the control port may be probed: the data port serves one client at a time.
        if pid_file.exists() && TcpStream::connect(("127.0.0.1", port + 1)).is_ok() {
            return Ok(Some(child));
        }
        poll_again();
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn command(program: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", CLOSE_AND_EXEC, "bash", program]);
    command
}

/// A pair of ports that nobody listens at, below the range that the kernel takes ports for outgoing connections from: a
/// TPM that is restarted finds its own free again.
fn free_pair() -> Option<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (from, pairs) = (10_240, 2_500);
    // Processes begin at different places, so that they seldom try for the same pair.
    let place = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % pairs;
    let port = u16::try_from(from + 2 * place).ok()?;
    TcpListener::bind(("127.0.0.1", port)).ok()?;
    TcpListener::bind(("127.0.0.1", port + 1)).ok()?;
    Some(port)
}

fn pool() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target"), PathBuf::from);
    target.join("swtpm-pool")
}

/// The pool's TPM `index`, manufactured by whoever comes first; others wait at the lock.
fn pooled(pool: &Path, index: usize) -> io::Result<PathBuf> {
    let ready = pool.join(index.to_string());
    if ready.exists() {
        return Ok(ready);
    }
    fs::create_dir_all(pool)?;
    let lock = File::create(pool.join("lock"))?;
    lock.lock()?;
    if !ready.exists() {
        let half_made = pool.join(format!("{index}.new"));
        if half_made.exists() {
            fs::remove_dir_all(&half_made)?;
        }
        manufacture(&half_made, &pool.join("ca"))?;
        fs::rename(&half_made, &ready)?;
    }
    Ok(ready)
}

fn succeeded(program: &str, output: &Output) -> io::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(Error::other(format!("{program} failed: {out}{err}")))
}

/// swtpm tells of its readiness by a file; between two looks at it there is nothing to wait for.
#[expect(clippy::disallowed_methods, reason = "a bounded poll of another program's file")]
fn poll_again() {
    std::thread::sleep(POLL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_tpm_has_forgotten_what_was_measured_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        identity(0, dir.path()).unwrap();
        let mut tpm = Swtpm::start(dir.path()).unwrap();
        tpm.boot_events().unwrap();
        tpm.extend(4, [7; 32]).unwrap();
        let port = tpm.port;
        assert_eq!(pcr(&tpm, 3), extended(&[boot_event(3)]));
        assert_eq!(pcr(&tpm, 4), extended(&[boot_event(4), [7; 32]]));
        tpm.restart().unwrap();
        assert_eq!((pcr(&tpm, 3), tpm.port), ([0; 32], port));
        tpm.tool("tpm2_readpublic", ["-c".to_owned(), "0x81010001".to_owned()]).unwrap();
    }

    fn pcr(tpm: &Swtpm, index: u8) -> [u8; 32] {
        let out = tempfile::NamedTempFile::new().unwrap();
        let path = out.path().display().to_string();
        tpm.tool("tpm2_pcrread", [format!("sha256:{index}"), "-o".to_owned(), path]).unwrap();
        fs::read(out.path()).unwrap().try_into().unwrap()
    }
}
