//! The deployment that is measured: which of its nodes, and what is made there as its administrator beforehand.

use std::io::{self, Error};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_protocol::kes::ApiKey;
use hyper::Method;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::OPERATIONS;
use crate::client::{Server, Shown, Target, shown_by};

/// How long a host may take until it serves a key that has just been made.
const ARRIVES: Duration = Duration::from_secs(30);
/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// What is needed of `dev.json`.
#[derive(Deserialize)]
struct Doc {
    central: Central,
    sites: Vec<Site>,
}

#[derive(Deserialize)]
struct Central {
    #[serde(flatten)]
    node: Node,
    admin_cert: PathBuf,
    admin_key: PathBuf,
}

#[derive(Deserialize)]
struct Site {
    name: String,
    hosts: Vec<Host>,
}

#[derive(Deserialize)]
struct Host {
    name: String,
    #[serde(flatten)]
    node: Node,
}

#[derive(Deserialize)]
struct Node {
    api: String,
    pid: Option<u32>,
    ca_file: PathBuf,
}

/// The central of a deployment, or one of its hosts, as a client that a policy lets use one key there.
///
/// # Errors
/// There is no such node, it does not run, or it did not serve the key in time.
pub(crate) async fn node(dir: &Path, host: Option<&str>, key: &ApiKey) -> io::Result<Target> {
    let doc: Doc = serde_json::from_slice(&std::fs::read(dir.join("dev.json"))?).map_err(Error::other)?;
    let own = shown_by(key)?;
    let admin = Target::new(&doc.central.node.server()?, doc.central.shown()?)?;
    make_ready(&admin, key).await?;
    let Some(name) = host else { return Target::new(&doc.central.node.server()?, own) };
    let (site, host) = doc.host(name).ok_or_else(|| Error::other(format!("dev.json has no host {name}")))?;
    let target = Target::new(&host.node.server()?, own)?;
    let placed = json!({ "sites": [site.name] }).to_string();
    admin.ask(Method::PUT, "/v1/key/distribute/bench", &placed).await?;
    until_served(&target).await.map(|()| target)
}

/// The key may be there already, from before.
async fn make_ready(admin: &Target, key: &ApiKey) -> io::Result<()> {
    let _ = admin.ask(Method::POST, "/v1/key/create/bench", "").await;
    let paths: Vec<String> = OPERATIONS.iter().map(|operation| format!("/v1/key/{operation}/bench*")).collect();
    admin.ask(Method::POST, "/v1/policy/write/bench", &json!({ "paths": paths }).to_string()).await?;
    admin.ask(Method::POST, &format!("/v1/identity/assign/bench/{}", key.identity()), "").await.map(drop)
}

async fn until_served(target: &Target) -> io::Result<()> {
    let ends = Instant::now() + ARRIVES;
    loop {
        match target.ask(Method::PUT, "/v1/key/generate/bench", "{}").await {
            Ok(_) => return Ok(()),
            Err(error) if ends < Instant::now() => return Err(error),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

impl Doc {
    fn host(&self, name: &str) -> Option<(&Site, &Host)> {
        let all = self.sites.iter().flat_map(|site| site.hosts.iter().map(move |host| (site, host)));
        all.into_iter().find(|(_, host)| host.name == name)
    }
}

impl Central {
    /// The administrator's certificate and key.
    fn shown(&self) -> io::Result<Shown> {
        Ok((certificates(&self.admin_cert)?, PrivateKeyDer::from_pem_file(&self.admin_key).map_err(Error::other)?))
    }
}

impl Node {
    fn server(&self) -> io::Result<Server> {
        let addr = self.api.trim_start_matches("https://").parse().map_err(Error::other)?;
        let pid = self.pid.ok_or_else(|| Error::other("dev.json names no process: the node does not run"))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca_file)? {
            roots.add(certificate).map_err(Error::other)?;
        }
        Ok(Server { addr, pid, roots })
    }
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(Error::other)
}
