//! Strangers at the QUIC listener.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use holdfast_central::{Config, Running, quic_fleet, start};
use holdfast_protocol::codec;
use holdfast_protocol::ids::HostId;
use holdfast_protocol::wire::{ALPN_ENROL, EnrolAnswer, EnrolRequest};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

use crate::client::{AnyServer, As, Operator, try_call};
use crate::world::{First, SEAL, config_text};
use holdfast_rest::tls::provider;

/// An unsealed central that hosts can reach, and where they reach it.
async fn unsealed(folder: &TempDir) -> (Running, SocketAddr) {
    let quic = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = config_text(&folder.path().join("data"), &Operator::new());
    let text = text.replace("quic = \"127.0.0.1:0\"", &format!("quic = \"{quic}\""));
    let running = start(Config::parse(&text).unwrap(), quic_fleet()).await.unwrap();
    let path = format!("{SEAL}/reveal-sealkey");
    First::of(&try_call(running.rest_addr(), As::default(), ("POST", &path), None).await.unwrap());
    (running, quic)
}

fn stranger_at(address: &str) -> Endpoint {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut tls = tls.with_no_client_auth();
    tls.alpn_protocols = vec![ALPN_ENROL.to_vec()];
    let mut endpoint = Endpoint::client(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())));
    endpoint
}

async fn ask(connection: &Connection, request: &EnrolRequest) -> EnrolAnswer {
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    let bytes = codec::encode(request);
    to.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
    to.write_all(&bytes).await.unwrap();
    let mut length = [0; 4];
    from.read_exact(&mut length).await.unwrap();
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut bytes).await.unwrap();
    codec::decode(&bytes, bytes.len()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_connects_and_says_nothing_does_not_keep_hosts_from_their_notices() {
    let folder = TempDir::new().unwrap();
    let (running, quic) = unsealed(&folder).await;
    let silent = stranger_at("127.0.0.1");
    let mut held = Vec::new();
    let refused = loop {
        let connection = silent.connect(quic, "central").unwrap().await.unwrap();
        held.push(connection);
        // One more than an address may hold is closed at once; the others are waited for.
        let closed = held.iter().find(|connection| connection.close_reason().is_some());
        if closed.is_some() || 256 < held.len() {
            break closed.is_some();
        }
    };
    assert!(refused, "one address took {} places", held.len());

    let other = stranger_at("127.0.0.2").connect(quic, "central").unwrap().await.unwrap();
    let host = HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() };
    assert_eq!(ask(&other, &EnrolRequest::Notice { host }).await, EnrolAnswer::Notice(None));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_nobody_is_refused_and_none_gets_no_session() {
    let folder = TempDir::new().unwrap();
    let (running, quic) = unsealed(&folder).await;
    let mut endpoint = stranger_at("127.0.0.1");
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let (certificate, key) = Operator::new().der();
    for identity in [None, Some((certificate, key))] {
        let builder = tls.clone();
        let mut tls = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(vec![CertificateDer::from(certificate)], PrivatePkcs8KeyDer::from(key).into())
                .unwrap(),
        };
        tls.alpn_protocols = vec![holdfast_protocol::wire::ALPN_SYNC.to_vec()];
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())));
        // A client of TLS 1.3 learns only after its own handshake what the server thinks of its certificate.
        if let Ok(connection) = endpoint.connect(quic, "central").unwrap().await {
            connection.closed().await;
        }
    }
    running.stop().await;
}
