//! Wrong things that can be tried from outside with what an intruder may get hold of.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{CertificateNumber, DeploymentId, HostGeneration, HostId};
use holdfast_protocol::pki::issue::{Authority, Issuer, Leaf, Serial, Terms, Validity};
use holdfast_protocol::pki::pem;
use holdfast_protocol::secret::Secret;
use holdfast_protocol::site_bundle::SiteBundle;
use holdfast_protocol::wire::{ALPN_ENROL, ALPN_SYNC};
use holdfast_testbed::procs::client::Client;
use holdfast_testbed::procs::{program, until};
use holdfast_testbed::swtpm::{self, Swtpm};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use serde_json::{Value, json};

use super::{SOON, World};

/// For an end that is to come at once.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Far in the future, in seconds.
const LATER: i64 = 4_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_site_bundle_serves_each_host_once() {
    let world = World::start(&[1]).await;
    let operator = &world.operator;
    let hosts = json!([{"name": "udc9-001"}]);
    let site = json!({"name": "udc9", "ek-trust": "token", "learn-reference-values": true, "hosts": hosts});
    let made = operator.post("/v1/config/system/sites", &site).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text());
    let bundle = world.operate("udc9", "site-bundle", &json!({})).await;
    assert_eq!(bundle.status, 200, "{}", bundle.text());
    // It is given out once.
    let again = world.operate("udc9", "site-bundle", &json!({})).await;
    assert!(matches!(again.status, 403 | 409), "{} {}", again.status, again.text());

    let (first, text) = join(&world, "first", 10, &bundle.json()).await;
    assert!(first, "{text}");
    // Another machine with the same bundle.
    let before = refusals(&world).await;
    let (second, text) = join(&world, "second", 11, &bundle.json()).await;
    assert!(!second, "{text}");
    let log = fs::read_to_string(world.deployment.dir().join("central/log")).unwrap();
    assert!(log.contains("somebody else may hold a site bundle"), "{log}");
    assert!(refusals(&world).await > before, "the refusal has no audit line");
    let state = world.state_of("udc9-001").await;
    assert_eq!((&state["state"], &state["token"]), (&json!("joined"), &json!("used")), "{state}");

    // One more by the operator's leave is for hosts that have not joined.
    let answer = world.operate("udc9", "reallow-site-unwrap", &json!({})).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forked_clone_is_noticed_and_both_are_cut_off() {
    let mut world = World::start(&[1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    world.write("canary-box-of-all/some-canary", "not for a clone").await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "not for a clone").await;
    let original = world.deployment.host_dir("udc1-001").unwrap();

    // A copy of everything, TPM included, made while the machine was off.
    world.deployment.stop().await.unwrap();
    let copy = world.deployment.dir().join("clone");
    copy_all(&original.join("data"), &copy.join("data"));
    copy_all(&original.join("tpm"), &copy.join("state"));
    world.deployment.start_again().await.unwrap();
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "not for a clone").await;

    let tpm = Swtpm::start(&copy).unwrap();
    boot_like_dev(&tpm);
    let config = config_for(&world, &copy, &tpm);
    let mut clone = tokio::process::Command::new(program("holdfast-site-agent").unwrap());
    let log = fs::File::create(copy.join("log")).unwrap();
    clone.args(["serve", "--config"]).arg(config).stdin(Stdio::null()).stderr(log).kill_on_drop(true);
    let clone = clone.spawn().unwrap();
    let look = async || Ok((world.state_of("udc1-001").await["standing"] == "quarantined").then_some(()));
    until("the clone is noticed", SOON, look).await.unwrap();
    world.answers("udc1-001", "canary-box-of-all/some-canary", 503).await;
    world.becomes("udc1-001", "sealed", "quarantined").await;
    is_cut_off_too(&world, &copy.join("log")).await;
    drop(clone);
    world.nothing_lies_about();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_the_quic_port_get_nowhere_and_disturb_nobody() {
    let mut world = World::start(&[1]).await;
    world.make_box("canary-box-of-all", json!({"to": "all"})).await;
    let quic: SocketAddr = world.deployment.doc().unwrap().central.quic.parse().unwrap();

    let site = json!({"name": "udc9", "ek-trust": "token", "hosts": [{"name": "udc9-001"}]});
    assert_eq!(world.operator.post("/v1/config/system/sites", &site).await.unwrap().status, 201);
    let bundle: SiteBundle =
        serde_json::from_value(world.operate("udc9", "site-bundle", &json!({})).await.json()).unwrap();
    let deployment = bundle.deployment;

    // Without a certificate, with one of a foreign deployment's site, with no protocol that is spoken here.
    assert!(!is_welcome(quic, ALPN_SYNC, None).await);
    for host in ["udc1/udc1-001", "udc2/udc2-001"] {
        assert!(!is_welcome(quic, ALPN_SYNC, Some(foreign_certificate(deployment, host))).await, "{host}");
    }
    assert!(!is_welcome(quic, b"h3", None).await);

    // Frames that are cut short, too long, or no message at all: the connection ends.
    let huge = [0xff; 64];
    for (bytes, finish) in [(&b"\0\0\0\x20short"[..], true), (&huge, false), (b"\0\0\0\x04\xff\xff\xff\xff", false)] {
        let (endpoint, connection) = connect(quic, ALPN_ENROL, None).await.expect("enrolment is open to all");
        let (mut to, _from) = connection.open_bi().await.unwrap();
        to.write_all(bytes).await.unwrap();
        if finish {
            to.finish().unwrap();
        }
        tokio::time::timeout(AT_ONCE, connection.closed()).await.expect("central ends the connection");
        drop(endpoint);
    }

    world.write("canary-box-of-all/some-canary", "it goes on and on").await;
    world.arrives("udc1-001", "canary-box-of-all/some-canary", "it goes on and on").await;
    let known = world.state_of("udc1-001").await;
    assert_eq!((&known["state"], &known["standing"]), (&json!("unsealed"), &json!("trusted")));
}

/// Waits until the agent that logs there says that it is cut off; it serves nothing.
async fn is_cut_off_too(world: &World, log: &Path) {
    let look = async || {
        let log = fs::read_to_string(log)?;
        let line = log.lines().find(|line| line.contains("listening"));
        let port = line.and_then(|line| line.split_once("127.0.0.1:")).map(|(_, rest)| rest);
        let Some(port) = port else { return Ok(None) };
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        let known = world.deployment.host("udc1-001")?;
        let clone = Client::new(&format!("https://127.0.0.1:{port}"), &known.ca_file, None)?;
        let health = clone.get("/v1/health").await?;
        // It began sealed; that it knows why is new.
        if health.status != 503 || !health.text().contains("quarantined") {
            return Err(std::io::Error::other(format!("{} {}", health.status, health.text())));
        }
        let clone = clone.with_authorization_of(&world.operator);
        let read = clone.get("/v1/secret/app/canary-box-of-all/some-canary").await?;
        Ok((read.status == 503).then_some(()))
    };
    until("the clone is cut off", SOON, look).await.unwrap();
}

/// Joins as `udc9-001` from a machine of its own.
pub(super) async fn join(world: &World, name: &str, tpm: usize, bundle: &Value) -> (bool, String) {
    let place = world.deployment.dir().join(name);
    fs::create_dir_all(&place).unwrap();
    swtpm::identity(tpm, &place).unwrap();
    let tpm = Swtpm::start(&place).unwrap();
    tpm.boot_events().unwrap();
    let config = config_for(world, &place, &tpm);
    fs::write(place.join("bundle.json"), bundle.to_string()).unwrap();
    let mut command = tokio::process::Command::new(program("holdfast-site-agent").unwrap());
    command.arg("join").arg("--config").arg(config).arg("--bundle").arg(place.join("bundle.json"));
    let output = command.args(["--host", "udc9-001"]).stdin(Stdio::null()).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

pub(super) fn config_for(world: &World, place: &Path, tpm: &Swtpm) -> PathBuf {
    let quic = world.deployment.doc().unwrap().central.quic;
    let (config, data, tcti) = (place.join("agent.toml"), place.join("data"), tpm.tcti());
    let text = format!(
        "data_dir = \"{}\"\n[listen]\nrest = \"127.0.0.1:0\"\n[central]\nquic = \"{quic}\"\n[tpm]\ntcti = \"{tcti}\"\n",
        data.display()
    );
    fs::write(&config, text).unwrap();
    config
}

/// How many reads and refusals central's journal holds.
async fn refusals(world: &World) -> u64 {
    let data = world.deployment.doc().unwrap().central.data_dir;
    let output = world.deployment.holdfast(&["audit", "verify", "--data", &data.to_string_lossy()]).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "reads").expect("the report counts reads");
    words[at - 1].parse().unwrap()
}

/// What `holdfast dev` measures into its TPMs: the clone boots the same software.
pub(super) fn boot_like_dev(tpm: &Swtpm) {
    use holdfast_protocol::crypto::hash::sha256;
    let events: Vec<_> = (0..=7).map(|pcr| (pcr, sha256(&[b"holdfast dev boot event", &[pcr]]))).collect();
    tpm.extend_all(&events).unwrap();
}

pub(super) fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &to.join(entry.file_name())),
            false if entry.file_name() == ".lock" => {}
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A host's certificate as it should be, but from an authority that this deployment has never heard of.
fn foreign_certificate(deployment: DeploymentId, host: &str) -> Identity {
    let (site, name) = host.split_once('/').unwrap();
    let host = HostId { site: site.parse().unwrap(), host: name.parse().unwrap() };
    let key = |seed| SigningKey::from_seed(&Secret::from_slice(&[seed; 32]).unwrap());
    let (authority, own) = (key(1), key(2));
    let issuer = Issuer::new(deployment, Authority::SiteDist(host.site.clone()), &authority);
    let terms = Terms { serial: Serial([1; 16]), validity: Validity { not_before: 0, not_after: LATER } };
    let leaf = Leaf::HostQuic { host, generation: HostGeneration(1), number: CertificateNumber(1) };
    let certificate = issuer.certify(&leaf, own.public(), &terms).unwrap();
    (CertificateDer::from(certificate), PrivateKeyDer::from_pem_slice(pem::private_key(&own).as_bytes()).unwrap())
}

/// Whether central speaks to this client: in TLS 1.3 a client learns only afterwards that its certificate is refused.
async fn is_welcome(quic: SocketAddr, alpn: &[u8], identity: Option<Identity>) -> bool {
    let Some((_endpoint, connection)) = connect(quic, alpn, identity).await else { return false };
    tokio::time::timeout(AT_ONCE, connection.closed()).await.is_err()
}

async fn connect(quic: SocketAddr, alpn: &[u8], identity: Option<Identity>) -> Option<(Endpoint, Connection)> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut tls = match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let connecting = endpoint.connect_with(config, quic, "central.any").unwrap();
    let connection = tokio::time::timeout(AT_ONCE, connecting).await.ok()?.ok()?;
    Some((endpoint, connection))
}

/// An intruder does not care who answers.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
