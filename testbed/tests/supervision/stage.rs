//! A central and a host of a site, both in this process, with a tenant, a box and a secret.

use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use holdfast_actors::attestation_verifier::core as verifier;
use holdfast_actors::distribution::core as distribution;
use holdfast_actors::seal_keeper;
use holdfast_actors::shell::mailbox::Admitted;
use holdfast_actors::shell::strike::{Fault, Strike};
use holdfast_actors::shell::supervisor::Tended;
use holdfast_actors::site_registry::authority;
use holdfast_protocol::pki::pem;
use holdfast_protocol::site_bundle::SiteBundle;
use holdfast_rest::strongbox::SealControl;
use holdfast_site_agent::uplink::core as uplink;
use holdfast_testbed::APP;
use holdfast_testbed::procs::client::Client;
use holdfast_testbed::procs::until;
use holdfast_testbed::swtpm::{Swtpm, identity};
use serde_json::{Value, json};
use tempfile::TempDir;

/// For something that needs a quote or a connection; a machine under full load is slow.
pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const SEAL: &str = "/v1/state/strongbox/system";
pub(crate) const SITES: &str = "/v1/state/system/sites";
const PASSWORD: &str = "quite a long password";

/// What is done to an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    Kill,
    Panic,
    Fail,
}

pub(crate) const HARMS: [Harm; 3] = [Harm::Kill, Harm::Panic, Harm::Fail];

pub(crate) struct Stage {
    pub(crate) central: holdfast_central::Running,
    pub(crate) agent: holdfast_site_agent::Running,
    /// Central with the root token.
    pub(crate) operator: Client,
    /// The same with a user's token.
    pub(crate) user: Client,
    /// The host with it.
    pub(crate) at_host: Client,
    pub(crate) sealkey: String,
    _tpm: Swtpm,
    pub(crate) folder: TempDir,
}

/// Where a node's actors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Central,
    Host,
}

impl Stage {
    /// Both at work: the host is trusted and serves the secret `box/secret`.
    pub(crate) async fn start(tpm: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let central = central(folder.path()).await;
        let (operator, sealkey) = initialise(&central, folder.path()).await;
        let user = user(&operator).await;
        let swtpm = powered_on(tpm, folder.path());
        let agent = host(&operator, &swtpm, folder.path()).await;
        let ca = folder.path().join("host/api-ca.crt");
        let url = format!("https://{}", agent.rest_addr());
        let at_host = with_token_of(&user, Client::new(&url, &ca, None).unwrap());
        let stage = Self { central, agent, operator, user, at_host, sealkey, _tpm: swtpm, folder };
        stage.make_box("box", json!({"to": "all"})).await;
        stage.write("box/secret", "first").await;
        stage.arrives("box/secret", "first").await;
        stage
    }

    pub(crate) async fn make_box(&self, name: &str, distribute: Value) {
        let body = json!({"name": name, "category_id": APP, "owner": "admins", "distribute": distribute});
        let answer = self.user.post("/v2/safe-deposit-box", &body).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    pub(crate) async fn write(&self, path: &str, value: &str) {
        let answer = self.user.post(&secret(path), &json!({"value": value})).await.unwrap();
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Waits until the host serves `value`.
    pub(crate) async fn arrives(&self, path: &str, value: &str) {
        let look = async || {
            let answer = self.at_host.get(&secret(path)).await?;
            Ok((answer.json()["data"]["value"] == value).then_some(()))
        };
        until(&format!("{path} = {value} at the host"), SOON, look).await.unwrap();
    }

    /// Waits until the host answers a read with `status`.
    pub(crate) async fn host_answers(&self, path: &str, status: u16) {
        let look = async || Ok((self.at_host.get(&secret(path)).await?.status == status).then_some(()));
        until(&format!("{status} for {path} at the host"), SOON, look).await.unwrap();
    }

    /// What central says of its only host.
    pub(crate) async fn host_state(&self) -> Value {
        let sites = self.operator.get(SITES).await.unwrap().good().unwrap();
        sites.as_array().unwrap().iter().find(|site| site["name"] == "udc1").unwrap()["hosts"][0].clone()
    }

    /// Waits until central says that the host is so.
    pub(crate) async fn becomes(&self, state: &str, standing: &str) {
        let look = async || {
            let known = self.host_state().await;
            Ok((known["state"] == state && known["standing"] == standing).then_some(()))
        };
        until(&format!("a host that is {state} and {standing}"), SOON, look).await.unwrap();
    }

    pub(crate) async fn is_central_sealed(&self) -> bool {
        let status = self.operator.get(&format!("{SEAL}/seal-status")).await.unwrap();
        status.json()["sealed"].as_bool().unwrap()
    }

    fn children(&self, node: Node) -> Vec<Tended> {
        match node {
            Node::Central => self.central.children(),
            Node::Host => self.agent.children(),
        }
    }

    pub(crate) fn child(&self, node: Node, name: &str) -> Tended {
        let found = self.children(node).into_iter().find(|child| child.name == name);
        found.unwrap_or_else(|| panic!("no {name} at {node:?}"))
    }

    /// The names of all actors that have a mailbox or loop.
    pub(crate) fn actors(&self) -> Vec<(Node, &'static str)> {
        let of = |node| self.children(node).into_iter().map(move |child| (node, child.name)).collect::<Vec<_>>();
        [of(Node::Central), of(Node::Host)].concat()
    }

    /// Does harm to an actor, and waits until there is another in its place.
    pub(crate) async fn harm(&self, node: Node, name: &str, harm: Harm) {
        let before = self.child(node, name);
        strike(&before, harm);
        let back = async || {
            let now = self.child(node, name);
            let is_other = now.cell.map(|cell| cell.get_id()) != before.cell.as_ref().map(|cell| cell.get_id());
            Ok((now.restarts == before.restarts + 1 && is_other && self.child(node, name).cell.is_some()).then_some(()))
        };
        until(&format!("{name} back after {harm:?}"), SOON, back).await.unwrap();
    }

    /// Has an actor of central that is a machine suffer this once it has performed so many effects more.
    pub(crate) fn strike_later(&self, name: &str, strike: Strike) {
        machine_suffers(&self.child(Node::Central, name), strike);
    }

    pub(crate) async fn stop(self) {
        self.agent.stop().await;
        self.central.stop().await;
    }
}

fn strike(child: &Tended, harm: Harm) {
    let cell = child.cell.clone().unwrap_or_else(|| panic!("{} does not run", child.name));
    let fault = match harm {
        Harm::Kill => return cell.kill(),
        Harm::Panic => Fault::Panic,
        Harm::Fail => Fault::Fail,
    };
    if !machine_suffers(child, Strike { after_effects: None, fault }) {
        assert!(cell.send_message(fault).is_ok(), "{} takes no strike", child.name);
    }
}

/// Whether it is a machine, and has heard.
fn machine_suffers(child: &Tended, strike: Strike) -> bool {
    let cell = child.cell.clone().unwrap_or_else(|| panic!("{} does not run", child.name));
    let heard = match child.name {
        "seal keeper" => cell.send_message(Admitted::<seal_keeper::Event>::strike(strike)).is_ok(),
        "attestation verifier" => cell.send_message(Admitted::<verifier::Event>::strike(strike)).is_ok(),
        "distribution" => cell.send_message(Admitted::<distribution::Event>::strike(strike)).is_ok(),
        "uplink" => cell.send_message(Admitted::<uplink::Event>::strike(strike)).is_ok(),
        _ => return false,
    };
    assert!(heard, "{} takes no strike", child.name);
    true
}

pub(crate) fn secret(path: &str) -> String {
    format!("/v1/secret/app/{path}")
}

async fn central(folder: &Path) -> holdfast_central::Running {
    let quic = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "data_dir = {:?}\n[listen]\nrest = \"127.0.0.1:0\"\nquic = \"{quic}\"\n[attestation]\ninterval = \"2s\"\n\
         [operator]\nadmin_identities = []\n",
        folder.join("central"),
    );
    holdfast_central::start(holdfast_central::Config::parse(&config).unwrap()).await.unwrap()
}

/// A central that nobody uses.
pub(crate) async fn unsealed_central() -> (holdfast_central::Running, TempDir) {
    let folder = TempDir::new().unwrap();
    let central = central(folder.path()).await;
    initialise(&central, folder.path()).await;
    (central, folder)
}

async fn initialise(central: &holdfast_central::Running, folder: &Path) -> (Client, String) {
    let revealed = central.seal().reveal(Some(seal_keeper::Revealer::Loopback)).await.ok().unwrap();
    let root = authority(&central.node().barrier.snapshot().unwrap(), &["root"]).unwrap().certificate;
    let ca = folder.join("ca.crt");
    std::fs::write(&ca, pem::certificates(&[root])).unwrap();
    let client = Client::new(&format!("https://{}", central.rest_addr()), &ca, None).unwrap();
    let operator = client.with_token(revealed.root_token.expose());
    let sealkey = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, revealed.sealkey.expose());
    (operator, sealkey)
}

async fn user(operator: &Client) -> Client {
    let body = json!({"name": "system", "admin-username": "admin", "admin-password": PASSWORD});
    let answer = operator.post(&format!("{SEAL}/setup-tenant"), &body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = operator.with_password("admin", PASSWORD).get("/v2/auth/user").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    operator.with_token(answer.json()["data"]["client_token"]["client_token"].as_str().unwrap())
}

fn with_token_of(user: &Client, other: Client) -> Client {
    other.with_authorization_of(user)
}

pub(crate) fn powered_on(index: usize, folder: &Path) -> Swtpm {
    let place = folder.join("tpm");
    std::fs::create_dir_all(&place).unwrap();
    identity(index, &place).unwrap();
    let swtpm = Swtpm::start(&place).unwrap();
    swtpm.boot_events().unwrap();
    swtpm
}

/// A host of the site `udc1`, joined and started; the site `udc2`, whose only host has yet to join, is quarantined.
async fn host(operator: &Client, swtpm: &Swtpm, folder: &Path) -> holdfast_site_agent::Running {
    for site in ["udc1", "udc2"] {
        let body = json!({"name": site, "ek-trust": "token", "learn-reference-values": true,
                          "hosts": [{"name": format!("{site}-001")}]});
        operator.post("/v1/config/system/sites", &body).await.unwrap().good().unwrap();
    }
    operator.post(&format!("{SITES}/udc2/quarantine-site"), &json!({})).await.unwrap().good().unwrap();
    let bundle = bundle(operator, "udc1").await;
    let config = agent_config(swtpm, &folder.join("host"));
    let ports = holdfast_site_agent::ports::Ports::of_machine(&config.tpm).unwrap();
    let name = "udc1-001".parse().unwrap();
    holdfast_site_agent::join::join(&config, &bundle, (&name, false), &ports).await.unwrap();
    drop(ports);
    holdfast_site_agent::start(config).await.unwrap()
}

pub(crate) async fn bundle(operator: &Client, site: &str) -> SiteBundle {
    let bundle = operator.post(&format!("{SITES}/{site}/site-bundle"), &json!({})).await.unwrap().good().unwrap();
    serde_json::from_value(bundle).unwrap()
}

pub(crate) fn agent_config(swtpm: &Swtpm, data: &Path) -> holdfast_site_agent::Config {
    let tcti = swtpm.tcti();
    let config = format!(
        "data_dir = {data:?}\n[listen]\nrest = \"127.0.0.1:0\"\n[operator]\nadmin_identities = []\n[tpm]\ntcti = \"{tcti}\"\n",
    );
    holdfast_site_agent::Config::parse(&config).unwrap()
}
