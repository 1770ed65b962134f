//! Whole deployments as real processes: what `holdfast dev` starts, in a folder of its own that goes away with it.
//!
//! The programs are found where the tests were built; `cargo test` alone builds only the tests, so `make test` builds
//! the programs first. Everything is asked as a client would, by REST and by `dev.json`. Waiting is always for a
//! condition, and never longer than a deadline.

use std::fs::{self, File};
use std::io::{self, Error};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

pub mod canary;
pub mod client;
pub mod crowd;
pub mod disk;
pub mod doc;
mod ports;
pub mod wan;

use crate::memory;
use crate::swtpm;
use canary::Canaries;
use client::Client;
use disk::Disk;
use doc::{Doc, Host};
use wan::Wan;

/// The programs of one build, and the packages they are from.
const PROGRAMS: [&str; 3] = ["holdfast", "holdfast-central", "holdfast-site-agent"];
/// For everything that needs several processes to do something. A machine under full load is slow.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// A `holdfast dev` that was asked to stop gives its own children 10 s.
const STOP: Duration = Duration::from_secs(40);
/// Where central tells of its sites.
const SITES: &str = "/v1/state/system/sites";

/// How a deployment is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Hosts at each site.
    pub hosts: Vec<u16>,
    /// Whether the hosts reach central through a [`Wan`] that can be cut.
    pub wan: bool,
    /// What is added to central's configuration, TOML.
    pub added: String,
    /// What is added to the environment of all processes.
    pub environment: Vec<(&'static str, PathBuf)>,
    /// Folders that are small disks of their own. They go with the processes: such a deployment is started once.
    pub disks: Vec<Disk>,
}

/// A deployment. Dropping it leaves no process and no file; in a test that fails it shows the ends of the logs.
pub struct Deployment {
    folder: TempDir,
    port_base: u16,
    sites: usize,
    /// `holdfast dev`, while it runs.
    dev: Option<Child>,
    wan: Option<Wan>,
    options: Options,
}

impl Deployment {
    /// Starts one and waits until all its hosts are attested and in sync.
    ///
    /// # Errors
    /// A program is missing, or it does not come up; the end of its output is in the error.
    pub async fn start(options: Options) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("holdfast-").tempdir()?;
        let hosts = usize::from(options.hosts.iter().sum::<u16>());
        let port_base = ports::free_block(hosts)?;
        let wan = match options.wan {
            true => Some(Wan::open(SocketAddr::from(([127, 0, 0, 1], port_base + 1))).await?),
            false => None,
        };
        let mut deployment = Self { folder, port_base, sites: options.hosts.len(), dev: None, wan, options };
        let hosts = deployment.options.hosts.clone();
        deployment.lay_out(&hosts)?;
        deployment.run(&hosts)?;
        deployment.ready().await?;
        Ok(deployment)
    }

    /// Software TPMs from the pool, since making one takes longer than all the rest; and where agents dial.
    fn lay_out(&self, hosts: &[u16]) -> io::Result<()> {
        let mut index = 0;
        for (site, count) in hosts.iter().enumerate() {
            for host in 0..*count {
                let place = self.dir().join(format!("udc{0}/udc{0}-{1:03}", site + 1, host + 1));
                fs::create_dir_all(&place)?;
                swtpm::identity(index, &place)?;
                fs::rename(place.join("state"), place.join("tpm"))?;
                index += 1;
            }
        }
        let advertise = self.wan.as_ref().map(|wan| format!("[names]\nadvertise = \"{}\"\n", wan.addr()));
        fs::write(self.added(), format!("{}{}", self.options.added, advertise.unwrap_or_default()))
    }

    fn run(&mut self, hosts: &[u16]) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.dir().join("dev.log"))?;
        // However this process dies, the deployment does not outlive it.
        let mut command = disk::with_disks(self.dir(), &self.options.disks)?;
        // Nobody's mask protects what the programs write: their files have the modes that they give them.
        command.args(["sh", "-c", "umask 0 && exec \"$@\"", "sh", "setpriv", "--pdeathsig", "KILL"]);
        command.arg(program("holdfast")?).args(["dev", "--unseal", "--dir"]);
        command.arg(self.dir()).args(["--port-base", &self.port_base.to_string()]).arg("--config").arg(self.added());
        command.args(["--sites", &self.sites.to_string()]);
        if !hosts.is_empty() {
            command.args(["--hosts", &hosts.iter().map(u16::to_string).collect::<Vec<_>>().join(",")]);
        }
        command.env(memory::READABLE, "1");
        for needed in PROGRAMS {
            program(needed)?;
        }
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.dev = Some(child);
        Ok(())
    }

    fn added(&self) -> PathBuf {
        self.dir().join("added.toml")
    }

    /// The folder of everything.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The folder `folder` (relative) as the processes see it: it may be a disk that only they have.
    ///
    /// # Errors
    /// Nothing runs.
    pub fn inside(&self, folder: &str) -> io::Result<PathBuf> {
        let dev = self.dev.as_ref().ok_or_else(|| Error::other("nothing runs"))?;
        let dir = self.dir().canonicalize()?;
        let relative = dir.strip_prefix("/").map_err(Error::other)?;
        Ok(PathBuf::from(format!("/proc/{}/root", dev.id())).join(relative).join(folder))
    }

    /// The network between the hosts and central.
    ///
    /// # Panics
    /// It was not asked for at the start.
    pub fn wan(&self) -> &Wan {
        self.wan.as_ref().expect("this deployment was started without a WAN to cut")
    }

    /// `dev.json` as it is now.
    ///
    /// # Errors
    /// It is missing or no longer what it should be.
    pub fn doc(&self) -> io::Result<Doc> {
        Doc::read(self.dir())
    }

    /// Waits until all hosts are attested and in sync.
    ///
    /// # Errors
    /// They are not in time, or `holdfast dev` ended.
    pub async fn ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut looks = ticker();
        loop {
            looks.tick().await;
            if let Some(status) = self.dev_ended()? {
                return Err(Error::other(format!("holdfast dev ended ({status}):\n{}", self.logs())));
            }
            if self.doc().is_ok_and(|doc| doc.state == "ready") {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::other("not ready in time"));
            }
        }
    }

    /// Waits until `holdfast dev` has seen that something ended, and all is ready again.
    ///
    /// # Errors
    /// As [`Deployment::ready`].
    pub async fn ready_again(&mut self) -> io::Result<()> {
        let mut looks = ticker();
        let seen = async {
            while self.doc().is_ok_and(|doc| doc.state == "ready") {
                looks.tick().await;
            }
        };
        timeout(PATIENCE, seen).await.map_err(|_| Error::other("nothing ended"))?;
        self.ready().await
    }

    fn dev_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.dev.as_mut().map_or(Ok(None), Child::try_wait)
    }

    /// Stops everything in order, as Ctrl-C does.
    ///
    /// # Errors
    /// It did not stop in time, or not well.
    pub async fn stop(&mut self) -> io::Result<()> {
        let Some(mut dev) = self.dev.take() else { return Ok(()) };
        let children = self.children()?;
        signal(dev.id(), Signal::TERM)?;
        let stopped = async {
            let mut looks = ticker();
            loop {
                looks.tick().await;
                if let Some(status) = dev.try_wait()? {
                    return Ok::<_, Error>(status);
                }
            }
        };
        match timeout(STOP, stopped).await {
            Ok(status) => match status? {
                status if status.success() => ended(children),
                status => Err(Error::other(format!("holdfast dev ended badly ({status}):\n{}", self.logs()))),
            },
            Err(_) => {
                dev.kill()?;
                dev.wait()?;
                Err(Error::other(format!("holdfast dev did not stop in {STOP:?}:\n{}", self.logs())))
            }
        }
    }

    /// Kills `holdfast dev` itself; everything it started dies with it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn kill(&mut self) -> io::Result<()> {
        let Some(mut dev) = self.dev.take() else { return Ok(()) };
        let children = self.children()?;
        dev.kill()?;
        dev.wait()?;
        ended(children)
    }

    /// Everything that runs under `holdfast dev`.
    fn children(&self) -> io::Result<Vec<OwnedFd>> {
        let Ok(doc) = self.doc() else { return Ok(Vec::new()) };
        let hosts = doc.sites.iter().flat_map(|site| &site.hosts);
        let mut pids: Vec<u32> = hosts.clone().filter_map(|host| host.pid).chain(doc.central.pid).collect();
        for host in hosts.filter_map(|host| host.data_dir.parent()) {
            pids.extend(fs::read_to_string(host.join("tpm.pid")).ok().and_then(|text| text.trim().parse::<u32>().ok()));
        }
        let open = |pid| match pidfd_open(process(pid)?, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        };
        pids.into_iter().filter_map(|pid| open(pid).transpose()).collect()
    }

    /// Starts everything again on the same folder, unsealed, and waits until all is ready.
    ///
    /// # Errors
    /// As [`Deployment::start`].
    pub async fn start_again(&mut self) -> io::Result<()> {
        self.begin_again().await?;
        self.ready().await
    }

    /// The same without waiting for more than `holdfast dev` itself: not every deployment gets ready.
    ///
    /// # Errors
    /// A program is missing.
    pub async fn begin_again(&mut self) -> io::Result<()> {
        self.run(&[])?;
        // What the file says is from before until the new process has written it.
        let mut looks = ticker();
        let own = self.dev.as_ref().map(Child::id);
        let written = async {
            while self.doc().ok().map(|doc| doc.pid) != own {
                looks.tick().await;
            }
        };
        // Whether the process ended is told when it is waited for.
        let _ = timeout(PATIENCE, written).await;
        Ok(())
    }

    /// Central, as nobody in particular.
    ///
    /// # Errors
    /// Its addresses or certificates can't be read.
    pub fn central(&self) -> io::Result<Client> {
        let central = self.doc()?.central;
        Client::new(&central.api, &central.ca_file, None)
    }

    /// Central, with the administrator's certificate.
    ///
    /// # Errors
    /// As [`Deployment::central`].
    pub fn central_as_admin(&self) -> io::Result<Client> {
        let central = self.doc()?.central;
        Client::new(&central.api, &central.ca_file, Some((&central.admin_cert, &central.admin_key)))
    }

    /// Central, with the administrator's token from a login.
    ///
    /// # Errors
    /// Also where central refuses the login.
    pub async fn operator(&self) -> io::Result<Client> {
        let central = self.doc()?.central;
        let body = json!({"username": central.username, "password": central.password, "tenant": central.tenant});
        let answer = self.central()?.post("/v1/login", &body).await?;
        let token = answer.json()["token"].as_str().map(str::to_owned);
        let token = token.ok_or_else(|| Error::other(format!("no login: {} {}", answer.status, answer.text())))?;
        Ok(self.central()?.with_token(token))
    }

    /// What `dev.json` says of a host.
    ///
    /// # Errors
    /// There is no such host.
    pub fn host(&self, name: &str) -> io::Result<Host> {
        let hosts = self.doc()?.sites.into_iter().flat_map(|site| site.hosts);
        let found = hosts.into_iter().find(|host| host.name == name);
        found.ok_or_else(|| Error::other(format!("no host {name}")))
    }

    /// A host's REST interface, as nobody in particular.
    ///
    /// # Errors
    /// There is no such host, or its authority can't be read.
    pub fn at(&self, host: &str) -> io::Result<Client> {
        let host = self.host(host)?;
        Client::new(&host.api, &host.ca_file, None)
    }

    /// Central's word about a host: the member of its site's state.
    ///
    /// # Errors
    /// Central does not answer, or knows no such host.
    pub async fn state_of(&self, operator: &Client, host: &str) -> io::Result<Value> {
        let sites = operator.get(SITES).await?.good()?;
        let sites = sites.as_array().cloned().unwrap_or_default();
        let mut hosts = sites.iter().filter_map(|site| site["hosts"].as_array()).flatten();
        let found = hosts.find(|known| known["name"] == host).cloned();
        found.ok_or_else(|| Error::other(format!("central knows no host {host}")))
    }

    /// Kills one process outright. `holdfast dev` starts it again.
    ///
    /// # Errors
    /// There is no such process.
    pub fn kill_process(&self, pid: Option<u32>) -> io::Result<()> {
        signal(pid.ok_or_else(|| Error::other("this process does not run"))?, Signal::KILL)
    }

    /// Stops one process without ending it, as one that hangs, or lets it go on.
    ///
    /// # Errors
    /// There is no such process.
    pub fn hang(&self, pid: Option<u32>, hangs: bool) -> io::Result<()> {
        let pid = pid.ok_or_else(|| Error::other("this process does not run"))?;
        signal(pid, if hangs { Signal::STOP } else { Signal::CONT })
    }

    /// Cuts the power of a host: its TPM and its agent are gone at once. `holdfast dev` starts both again.
    ///
    /// # Errors
    /// The TPM does not run.
    pub fn cut_power(&self, host: &str) -> io::Result<()> {
        let pid = fs::read_to_string(self.host_dir(host)?.join("tpm.pid"))?;
        let pid = pid.trim().parse().map_err(Error::other)?;
        self.kill_process(self.host(host)?.pid)?;
        self.kill_process(Some(pid))
    }

    /// Holds a host and its TPM where they are: to everybody else it is as if it had no power.
    ///
    /// # Errors
    /// They don't run.
    pub fn freeze(&self, host: &str) -> io::Result<()> {
        self.signal_host(host, Signal::STOP)
    }

    /// Lets a frozen host go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self, host: &str) -> io::Result<()> {
        self.signal_host(host, Signal::CONT)
    }

    fn signal_host(&self, host: &str, what: Signal) -> io::Result<()> {
        let tpm = fs::read_to_string(self.host_dir(host)?.join("tpm.pid"))?;
        let agent = self.host(host)?.pid.ok_or_else(|| Error::other("this host does not run"))?;
        signal(agent, what)?;
        signal(tpm.trim().parse().map_err(Error::other)?, what)
    }

    /// The folder of a host.
    ///
    /// # Errors
    /// There is no such host.
    pub fn host_dir(&self, host: &str) -> io::Result<PathBuf> {
        let data = self.host(host)?.data_dir;
        Ok(data.parent().map(Path::to_owned).unwrap_or(data))
    }

    /// Measures something into register `pcr` of a host's TPM, as a changed boot would.
    ///
    /// # Errors
    /// `tpm2_pcrextend` is missing or fails.
    pub async fn extend(&self, host: &str, pcr: u8, digest: [u8; 32]) -> io::Result<()> {
        let tcti = self.host(host)?.tcti.ok_or_else(|| Error::other("its TPM does not run"))?;
        let mut command = tokio::process::Command::new("tpm2_pcrextend");
        command.arg(format!("{pcr}:sha256={}", hex::encode(digest))).env("TPM2TOOLS_TCTI", tcti);
        let output = command.output().await?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Error::other(format!("tpm2_pcrextend: {}", String::from_utf8_lossy(&output.stderr)))),
        }
    }

    /// Runs the operator's command line among the processes, where small disks are to be seen.
    ///
    /// # Errors
    /// It is missing, or nothing runs.
    pub async fn holdfast_inside(&self, args: &[&str]) -> io::Result<Output> {
        let dev = self.dev.as_ref().ok_or_else(|| Error::other("nothing runs"))?;
        let mut command = tokio::process::Command::new("nsenter");
        command.args(["--target", &dev.id().to_string()]).args(disk::spaces()?).arg(program("holdfast")?);
        command.args(args).stdin(Stdio::null()).output().await
    }

    /// Runs the operator's command line.
    ///
    /// # Errors
    /// It is missing.
    pub async fn holdfast(&self, args: &[&str]) -> io::Result<Output> {
        tokio::process::Command::new(program("holdfast")?).args(args).stdin(Stdio::null()).output().await
    }

    /// Runs the operator's command line with more in its environment and something to read.
    ///
    /// # Errors
    /// It is missing, or can't be waited for.
    pub async fn holdfast_told(&self, args: &[&str], environment: &[(&str, &str)], input: &[u8]) -> io::Result<Output> {
        let mut command = tokio::process::Command::new(program("holdfast")?);
        command.args(args).envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().ok_or_else(|| Error::other("it has no standard input"))?;
        // Who reads nothing may have gone already.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        child.wait_with_output().await
    }

    /// Every place under the folder where a canary is found, but for the operator's own files.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn find(&self, canaries: &Canaries) -> io::Result<Vec<String>> {
        canaries.find_under(self.dir(), &is_operators_own)
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let mut logs = vec![self.dir().join("dev.log"), self.dir().join("central/log")];
        logs.extend(self.doc().into_iter().flat_map(|doc| doc.sites).flat_map(|site| site.hosts).filter_map(|host| {
            let dir = host.data_dir.parent()?;
            Some(dir.join("log"))
        }));
        for log in logs {
            let content = fs::read(&log).unwrap_or_default();
            let content = String::from_utf8_lossy(&content);
            let lines: Vec<&str> = content.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            let name = log.strip_prefix(self.dir()).unwrap_or(&log).display();
            text.push_str(&format!("--- {name}\n{tail}\n"));
        }
        text
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        if let Err(error) = self.kill() {
            eprintln!("holdfast dev was not killed: {error}");
        }
    }
}

/// In the folder itself; `.tmp…` is the next `dev.json`, being written.
fn is_operators_own(path: &Path) -> bool {
    let name = path.to_string_lossy();
    matches!(&*name, "dev.json" | "admin.key" | "admin.crt" | "added.toml")
        || name.starts_with(".tmp") && !name.contains('/')
}

/// Waits until `look` gives something.
///
/// # Errors
/// Nothing in time; the last failure of a look is named.
pub async fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> io::Result<Option<T>>,
) -> io::Result<T> {
    let mut looks = ticker();
    let mut last = None;
    let found = async {
        loop {
            looks.tick().await;
            match look().await {
                Ok(Some(found)) => return found,
                Ok(None) => {}
                Err(error) => last = Some(error.to_string()),
            }
        }
    };
    match timeout(patience, found).await {
        Ok(found) => Ok(found),
        Err(_) => Err(Error::other(format!("not within {patience:?}: {what}; {}", last.unwrap_or_default()))),
    }
}

fn ticker() -> tokio::time::Interval {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    Ok(kill_process(process(pid)?, signal)?)
}

fn process(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| Error::other("no process id"))
}

/// Waits until none of them runs any more.
fn ended(children: Vec<OwnedFd>) -> io::Result<()> {
    for child in &children {
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        if poll(&mut [PollFd::new(child, PollFlags::IN)], Some(&patience))? == 0 {
            return Err(Error::other("a process outlived holdfast dev"));
        }
    }
    Ok(())
}

/// The path of one of the programs. Test programs lie in `deps`, one below the others.
///
/// # Errors
/// It was not built.
pub fn program(name: &str) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let path = folder.join(name);
    match path.is_file() {
        true => Ok(path),
        false => Err(Error::other(format!("{} is missing: run cargo build --workspace --bins", path.display()))),
    }
}
