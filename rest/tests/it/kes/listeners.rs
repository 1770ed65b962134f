//! Further listeners: whom each lets connect, and what it tells those who may not call.

use std::sync::Arc;

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::pki::pem;
use holdfast_protocol::secret::Secret;
use holdfast_rest::dispatch::Dialect;
use holdfast_rest::front::FrontOptions;
use holdfast_rest::kes::Listener;
use holdfast_rest::server::Server;
use holdfast_rest::tls::{ServerIdentity, server_config_with};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, date_time_ymd};

use super::*;
use crate::client::front as surround;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::fill_with(|bytes| bytes.fill(seed)))
}

/// The authority of the listeners that verify.
struct Authority(CertifiedIssuer<'static, SigningKey>);

impl Authority {
    fn new(seed: u8) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.serial_number = Some(u64::from(seed).into());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, key(seed)).unwrap())
    }

    /// Of somebody, until the end of a year.
    fn certifies(&self, seed: u8, year: i32) -> Credentials {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.serial_number = Some(u64::from(seed).into());
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let certificate = params.signed_by(&key(seed), &self.0).unwrap().der().to_vec();
        Credentials { certificate, key: key(seed).to_pkcs8_der().to_vec() }
    }

    /// A listener's part of the configuration that verifies by it.
    fn file(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem::certificates(&[self.0.der().as_ref()])).unwrap();
        file
    }
}

/// A self-signed one that ended long ago.
fn ended(seed: u8) -> Credentials {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.serial_number = Some(u64::from(seed).into());
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2002, 1, 1);
    let certificate = params.self_signed(&key(seed)).unwrap().der().to_vec();
    Credentials { certificate, key: key(seed).to_pkcs8_der().to_vec() }
}

/// A listener as configured; whoever has key 41 is its administrator.
struct Beside {
    front: Front,
    server: Running,
}

impl Beside {
    async fn start(text: &str) -> Self {
        let text = format!("[[kes.listener]]\naddress = \"127.0.0.1:0\"\nprofile = \"current\"\n{text}");
        let checker = Checker::parse(&text).unwrap();
        let all = Listener::read_all(&checker, &[], &[]);
        let [listener] = checker.finish(all).unwrap().try_into().unwrap();
        let main = Front::current().await;
        let shown = Credentials::new("server", 1);
        let identity = Arc::new(ServerIdentity::new(vec![shown.certificate], &shown.key).unwrap());
        let tls = server_config_with(identity, listener.verifier().unwrap());
        let routes = central_routes(main.world.node.clone(), listener.section.clone(), "1.2.3");
        let front_of_all = surround(axum::Router::new(), FrontOptions::default()).0;
        let beside = front_of_all.beside(routes, Dialect::Kes);
        let bound = Server::bind(listener.address, Some(tls), beside, ServerOptions::default()).await.unwrap();
        Self { front: main, server: bound.start().await.unwrap() }
    }

    /// The status of an answer; `None`: there is no connection.
    async fn get(&self, who: Option<&Credentials>, path: &str) -> Option<(u16, String)> {
        let addr = self.server.local_addr();
        let answer = send(addr, client_config(who, "http/1.1"), crate::client::get(path)).await.ok()?;
        let message = serde_json::from_str::<Value>(&answer.text)
            .ok()
            .and_then(|text| Some(text["message"].as_str()?.to_owned()));
        Some((answer.status.as_u16(), message.unwrap_or(answer.text)))
    }

    async fn statuses(&self, all: &[Option<&Credentials>], path: &str) -> Vec<Option<u16>> {
        let mut statuses = Vec::new();
        for who in all {
            statuses.push(self.get(*who, path).await.map(|(status, _)| status));
        }
        statuses
    }
}

const LIST: &str = "/v1/key/list/";

#[tokio::test]
async fn a_listener_asks_for_certificates_as_it_is_configured() {
    let authority = Authority::new(50);
    let (file, other) = (authority.file(), Authority::new(51));
    let (known, stranger) = (authority.certifies(41, 2099), authority.certifies(42, 2099));
    let (elsewhere, late) = (other.certifies(41, 2099), authority.certifies(41, 2002));
    let (itself, itself_late) = (Credentials::new("admin", 41), ended(41));
    let all = [None, Some(&known), Some(&stranger), Some(&elsewhere), Some(&late), Some(&itself), Some(&itself_late)];
    let verify = format!("client_auth = \"verify\"\nca_file = {:?}\n", file.path());
    let lenient = "accept_expired_certificates = true\n";
    let skips = "[kes.listener.api.\"/v1/status\"]\nskip_auth = true\n";
    let (yes, no) = (Some(200), Some(403));
    for (text, expected) in [
        ("client_auth = \"any\"\n".to_owned(), [None, yes, no, yes, no, yes, no]),
        (lenient.to_owned(), [None, yes, no, yes, yes, yes, yes]),
        ("client_auth = \"request\"\n".to_owned(), [Some(400), yes, no, yes, no, yes, no]),
        (verify.clone(), [None, yes, no, None, None, None, None]),
        (format!("{verify}{lenient}"), [None, yes, no, None, yes, None, None]),
        (format!("{verify}{skips}"), [Some(400), yes, no, None, None, None, None]),
        (skips.to_owned(), [Some(400), yes, no, yes, no, yes, no]),
    ] {
        let beside = Beside::start(&text).await;
        assert_eq!(beside.statuses(&all, LIST).await, expected, "{text}");
    }
}

#[tokio::test]
async fn where_something_skips_authentication_the_rest_is_refused_in_words() {
    let beside = Beside::start("tenant = \"acme\"\n[kes.listener.api.\"/v1/ready\"]\nskip_auth = true\n").await;
    assert_eq!(beside.get(None, "/v1/ready").await.unwrap().0, 200);
    assert_eq!(beside.get(None, "/v1/status").await, Some(said(400, "tls: client certificate is required")));
    let admin = &beside.front.admin;
    assert_eq!(beside.get(Some(admin), "/v1/status").await.unwrap().0, 403, "of another tenant");
    assert_eq!(beside.get(Some(admin), "/v1/nothing").await, Some(said(404, "404 page not found\n")));
    assert_eq!(beside.get(Some(admin), "/v1/vault").await, Some(said(404, "404 page not found\n")));
}
