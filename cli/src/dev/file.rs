//! `dev.json`: where everything of a dev deployment is. Replaced atomically on every change, mode 0600.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::failure::Failure;
use crate::files::replace;

/// How far the deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Coming up, or stopped.
    Starting,
    /// Central runs and waits to be unsealed.
    Sealed,
    /// All hosts are attested and in sync.
    Ready,
}

/// The file's content. It holds credentials, so it has no `Debug`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Doc {
    /// How far the deployment is.
    pub(crate) state: State,
    /// Process of `holdfast dev`.
    pub(crate) pid: u32,
    /// Central.
    pub(crate) central: Central,
    /// The sites.
    pub(crate) sites: Vec<Site>,
}

/// Central: addresses, folders, credentials. What is not known yet is absent.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Central {
    /// `https://host:port`.
    pub(crate) api: String,
    /// `host:port` (UDP).
    pub(crate) quic: String,
    /// Its process, while it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) pid: Option<u32>,
    /// Its data.
    pub(crate) data_dir: PathBuf,
    /// The deployment's root, once there is one.
    pub(crate) ca_file: PathBuf,
    /// The administrator's certificate.
    pub(crate) admin_cert: PathBuf,
    /// The administrator's private key.
    pub(crate) admin_key: PathBuf,
    /// From reveal-sealkey.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) root_token: Option<String>,
    /// From reveal-sealkey or rotate-seal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) sealkey: Option<String>,
    /// Likewise.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) shares: Vec<String>,
    /// The tenant that the user below belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) tenant: Option<String>,
    /// The administrator's login.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) username: Option<String>,
    /// The administrator's password.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) password: Option<String>,
}

/// One site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Site {
    /// Its name.
    pub(crate) name: String,
    /// Its hosts.
    pub(crate) hosts: Vec<Host>,
}

/// One host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    /// Its name.
    pub(crate) name: String,
    /// The agent's `https://host:port`.
    pub(crate) api: String,
    /// The authority of the agent's certificate, once it has joined.
    pub(crate) ca_file: PathBuf,
    /// Central's id for it, once it has joined.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) agent_id: Option<String>,
    /// The agent's process, while it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) pid: Option<u32>,
    /// The agent's data.
    pub(crate) data_dir: PathBuf,
    /// Where its software TPM listens, while it runs; for `TPM2TOOLS_TCTI`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) tcti: Option<String>,
}

impl Doc {
    /// Central's and the agents' processes are gone. Nobody waits for `starting`, so a reader that comes before the
    /// next start is not misled.
    pub(crate) fn stopped(&mut self) {
        self.state = State::Starting;
        self.central.pid = None;
        for host in self.sites.iter_mut().flat_map(|site| &mut site.hosts) {
            host.pid = None;
            host.tcti = None;
        }
    }

    /// The host of this name; names are unique over all sites.
    pub(crate) fn host_mut(&mut self, name: &str) -> Option<&mut Host> {
        self.sites.iter_mut().flat_map(|site| &mut site.hosts).find(|host| host.name == name)
    }
}

/// The file of one folder.
#[derive(Clone)]
pub(crate) struct DevFile {
    dir: PathBuf,
}

impl DevFile {
    /// The file in `dir`.
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("dev.json")
    }

    /// Its content, if it exists.
    pub(crate) fn read(&self) -> Result<Option<Doc>, Failure> {
        match fs::read(self.path()) {
            Ok(bytes) => {
                parse(&bytes).map(Some).map_err(|error| Failure::unfit(format!("{}: {error}", self.path().display())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::file(self.path())(error)),
        }
    }

    /// Its content, which must exist.
    pub(crate) fn existing(&self) -> Result<Doc, Failure> {
        let missing = || Failure::unfit(format!("{} is missing: no holdfast dev ran there", self.path().display()));
        self.read()?.ok_or_else(missing)
    }

    /// Changes it. Other commands change it too (`operator rotate-seal`): the lock makes each read and replacement one.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Doc)) -> Result<(), Failure> {
        let _lock = self.lock()?;
        let mut doc = self.existing()?;
        change(&mut doc);
        self.write(&doc)
    }

    /// The first writing of a run: addresses of the plan, credentials of the run before.
    pub(crate) fn start(&self, dir: &Path, plan: &Plan, known: Option<Doc>) -> Result<(), Failure> {
        let _lock = self.lock()?;
        let known_hosts: Vec<Host> =
            known.iter().flat_map(|doc| &doc.sites).flat_map(|site| &site.hosts).cloned().collect();
        let kept = known.map(|doc| doc.central).unwrap_or_default();
        let central = Central {
            api: format!("https://127.0.0.1:{}", plan.rest),
            quic: format!("127.0.0.1:{}", plan.quic),
            pid: None,
            data_dir: dir.join("central/data"),
            ca_file: dir.join("ca.crt"),
            admin_cert: dir.join("admin.crt"),
            admin_key: dir.join("admin.key"),
            ..kept
        };
        let sites = plan.sites.iter().map(|site| {
            let hosts = site.hosts.iter().map(|host| Host {
                name: host.name.clone(),
                api: format!("https://127.0.0.1:{}", host.rest),
                ca_file: dir.join(&site.name).join("api-ca.crt"),
                agent_id: known_hosts.iter().find(|known| known.name == host.name).and_then(|h| h.agent_id.clone()),
                pid: None,
                data_dir: dir.join(&site.name).join(&host.name).join("data"),
                tcti: None,
            });
            Site { name: site.name.clone(), hosts: hosts.collect() }
        });
        let sites = sites.collect();
        self.write(&Doc { state: State::Starting, pid: std::process::id(), central, sites })
    }

    fn write(&self, doc: &Doc) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(doc).expect("dev.json has only texts and numbers");
        text.push('\n');
        replace(&self.path(), text.as_bytes(), 0o600)
    }

    fn lock(&self) -> Result<File, Failure> {
        let path = self.dir.join(".dev.json.lock");
        let file = File::create(&path).map_err(Failure::file(&path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| Failure::file(path)(error.into()))?;
        Ok(file)
    }
}

fn parse(bytes: &[u8]) -> Result<Doc, serde_json::Error> {
    serde_json::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::dev::Args;

    fn plan(port_base: u16) -> Plan {
        let args = Args {
            dir: "d".into(),
            sites: Some(1),
            hosts: vec![2],
            port_base: Some(port_base),
            config: None,
            unseal: false,
        };
        Plan::new(&args, None).unwrap()
    }

    fn json(dir: &Path) -> Value {
        serde_json::from_slice(&fs::read(dir.join("dev.json")).unwrap()).unwrap()
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        DevFile::at(dir).start(dir, &plan(20000), None).unwrap();
        let doc = json(dir);
        assert_eq!(doc["state"], "starting");
        assert_eq!(doc["central"]["api"], "https://127.0.0.1:20000");
        assert_eq!(doc["central"]["quic"], "127.0.0.1:20001");
        assert_eq!(doc["sites"][0]["hosts"][1]["api"], "https://127.0.0.1:20012");
        for absent in ["root_token", "sealkey", "shares", "pid", "password"] {
            assert!(doc["central"].get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn a_new_start_keeps_credentials_and_rewrites_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, file) = (folder.path(), DevFile::at(folder.path()));
        file.start(dir, &plan(20000), None).unwrap();
        file.update(|doc| {
            doc.central.sealkey = Some("key".to_owned());
            doc.central.pid = Some(7);
            let host = doc.host_mut("udc1-002").unwrap();
            host.agent_id = Some("id".to_owned());
            host.tcti = Some("old".to_owned());
        })
        .unwrap();
        file.start(dir, &plan(30000), file.read().unwrap()).unwrap();
        let doc = json(dir);
        assert_eq!(doc["central"]["sealkey"], "key");
        assert_eq!(doc["central"]["api"], "https://127.0.0.1:30000");
        assert!(doc["central"].get("pid").is_none());
        let host = &doc["sites"][0]["hosts"][1];
        assert_eq!((&host["agent_id"], &host["api"]), (&"id".into(), &"https://127.0.0.1:30012".into()));
        assert!(host.get("tcti").is_none());
    }

    #[test]
    fn a_folder_without_the_file_is_no_dev_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(DevFile::at(folder.path()).existing().is_err());
        assert!(DevFile::at(folder.path()).read().unwrap().is_none());
    }
}
