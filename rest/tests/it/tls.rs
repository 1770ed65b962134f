//! Connections: who is there, what is refused, what ends when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::get as on_get;
use axum::{Extension, Router};
use holdfast_rest::peer::Peer;
use holdfast_rest::server::ServerOptions;
use rustls::HandshakeKind;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::client::{Credentials, client_config, client_config_for, connect, get, send, serve};

fn who() -> Router {
    Router::new().route(
        "/who",
        on_get(|Extension(peer): Extension<Peer>| async move {
            assert!(peer.loopback);
            peer.identity().unwrap_or("nobody").to_owned()
        }),
    )
}

#[tokio::test]
async fn the_identity_is_the_hash_of_the_proven_key() {
    let (server, _) = serve(who(), ServerOptions::default()).await;
    let (alice, renewed) = (Credentials::new("alice", 7), Credentials::new("alice again", 7));
    let (bob, mut seen) = (Credentials::new("bob", 8), Vec::new());
    for credentials in [&alice, &renewed, &bob] {
        for alpn in ["http/1.1", "h2"] {
            let answer =
                send(server.local_addr(), client_config(Some(credentials), alpn), get("https://localhost/who"));
            seen.push(answer.await.unwrap().text);
        }
    }
    let (_, parsed) = x509_parser::parse_x509_certificate(&alice.certificate).unwrap();
    let spki = holdfast_protocol::crypto::hash::sha256(&[parsed.public_key().raw]);
    assert_eq!(seen[0], hex::encode(spki));
    assert!(seen[..4].iter().all(|identity| *identity == seen[0]));
    assert_ne!(seen[4], seen[0]);
    let nobody = send(server.local_addr(), client_config(None, "http/1.1"), get("/who")).await.unwrap();
    assert_eq!(nobody.text, "nobody");
}

/// Shows a certificate that belongs to somebody else.
#[derive(Debug)]
struct Thief(Arc<CertifiedKey>);

impl ResolvesClientCert for Thief {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let (server, _) = serve(who(), ServerOptions::default()).await;
    let (alice, thief) = (Credentials::new("alice", 7), Credentials::new("thief", 9));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(thief.key));
    let key = holdfast_rest::tls::provider().key_provider.load_private_key(key).unwrap();
    let stolen = CertifiedKey::new(vec![CertificateDer::from(alice.certificate)], key);
    let mut config = Arc::unwrap_or_clone(client_config(None, "http/1.1"));
    config.client_auth_cert_resolver = Arc::new(Thief(Arc::new(stolen)));
    assert!(send(server.local_addr(), Arc::new(config), get("/who")).await.is_err());
}

#[tokio::test]
async fn another_certificate_is_shown_from_the_next_handshake_on() {
    let (server, identity) = serve(who(), ServerOptions::default()).await;
    let config = client_config(None, "http/1.1");
    let shown = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].as_ref().to_vec()
    };
    let before = shown(&connect(server.local_addr(), config.clone()).await.unwrap());
    let next = Credentials::new("next", 2);
    identity.swap(vec![next.certificate.clone()], &next.key).unwrap();
    let after = shown(&connect(server.local_addr(), config.clone()).await.unwrap());
    assert_ne!(before, after);
    assert_eq!(after, next.certificate);
    let wrong_key = Credentials::new("wrong", 3).key;
    assert!(identity.swap(vec![before], &wrong_key).is_err());
    assert_eq!(shown(&connect(server.local_addr(), config).await.unwrap()), next.certificate);
}

#[tokio::test]
async fn no_session_is_resumed() {
    let (server, _) = serve(who(), ServerOptions::default()).await;
    let alice = Credentials::new("alice", 7);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = client_config_for(&[version], Some(&alice), "http/1.1");
        for _ in 0..3 {
            let mut stream = connect(server.local_addr(), config.clone()).await.unwrap();
            stream.write_all(b"GET /who HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut text = Vec::new();
            stream.read_to_end(&mut text).await.unwrap();
            assert!(text.starts_with(b"HTTP/1.1 200"));
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
}

#[tokio::test]
async fn silent_clients_are_dropped_and_delay_nobody() {
    let options = ServerOptions { handshake_timeout: Duration::from_millis(200), ..ServerOptions::default() };
    let (server, _) = serve(who(), options).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(server.local_addr()).await.unwrap());
    }
    let answer = send(server.local_addr(), client_config(None, "h2"), get("https://localhost/who")).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    for mut socket in silent {
        assert_eq!(socket.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
    let metrics = send(server.local_addr(), client_config(None, "http/1.1"), get("/v1/metrics")).await.unwrap().text;
    assert!(metrics.contains("holdfast_rest_refusals_total{why=\"handshake\"} 20"), "{metrics}");
    assert!(metrics.contains("holdfast_rest_connections 1\n"), "{metrics}");
}

#[tokio::test]
async fn connections_above_the_cap_are_dropped() {
    let (server, _) = serve(who(), ServerOptions { connections_max: 1, ..ServerOptions::default() }).await;
    let config = client_config(None, "http/1.1");
    let first = connect(server.local_addr(), config.clone()).await.unwrap();
    assert!(connect(server.local_addr(), config.clone()).await.is_err());
    drop(first);
    while send(server.local_addr(), config.clone(), get("/who")).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_idle_half_sent_or_old_connection_is_closed() {
    let short = Duration::from_millis(100);
    let idle = ServerOptions { header_timeout: short, ..ServerOptions::default() };
    let old = ServerOptions { connection_age_max: Some(short), connection_grace: short, ..ServerOptions::default() };
    for (options, sent) in [(idle.clone(), ""), (idle, "GET /who HTTP/1.1\r\nhos"), (old, "")] {
        let (server, _) = serve(who(), options).await;
        let mut stream = connect(server.local_addr(), client_config(None, "http/1.1")).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        assert!(!text.starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_head_above_the_limit_is_refused() {
    let (server, _) = serve(who(), ServerOptions::default()).await;
    for alpn in ["http/1.1", "h2"] {
        let request = |bytes: usize| {
            let builder = Request::get("https://localhost/who").header("host", "localhost");
            builder.header("x-long", "y".repeat(bytes)).body(Body::empty()).unwrap()
        };
        let fits = send(server.local_addr(), client_config(None, alpn), request(40 << 10)).await.unwrap();
        assert_eq!(fits.status, StatusCode::OK);
        if let Ok(answer) = send(server.local_addr(), client_config(None, alpn), request(70 << 10)).await {
            assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{alpn}");
        }
    }
}

#[tokio::test]
async fn stopping_lets_a_request_finish_and_takes_no_new_one() {
    let (release, released) = tokio::sync::watch::channel(false);
    let (entered, mut is_inside) = tokio::sync::mpsc::channel(1);
    let slow = move || {
        let (mut released, entered) = (released.clone(), entered.clone());
        async move {
            entered.send(()).await.unwrap();
            released.wait_for(|go| *go).await.unwrap();
            "done"
        }
    };
    let (server, _) = serve(Router::new().route("/slow", on_get(slow)), ServerOptions::default()).await;
    let addr = server.local_addr();
    let asked = tokio::spawn(async move { send(addr, client_config(None, "http/1.1"), get("/slow")).await });
    is_inside.recv().await.unwrap();
    let stopped = tokio::spawn(server.stop(Duration::from_secs(60)));
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.send_replace(true);
    assert_eq!(asked.await.unwrap().unwrap().text, "done");
    stopped.await.unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let stuck = Router::new().route("/stuck", on_get(std::future::pending::<&'static str>));
    let (server, _) = serve(stuck, ServerOptions::default()).await;
    let addr = server.local_addr();
    let mut stream = connect(addr, client_config(None, "http/1.1")).await.unwrap();
    stream.write_all(b"GET /stuck HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    send(addr, client_config(None, "http/1.1"), get("/version")).await.unwrap();
    server.stop(Duration::from_millis(50)).await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    assert!(text.is_empty());
}

/// A body in pieces of 16 KiB, of which the first comes once the answer is there; counts what was taken of it, and says
/// when nobody takes any more.
fn late_body(pieces: usize, answered: oneshot::Receiver<()>, taken: Arc<AtomicUsize>) -> (Body, oneshot::Receiver<()>) {
    let (held, let_go) = oneshot::channel();
    let begin = (Some(answered), taken, held);
    let stream = futures_util::stream::unfold(begin, move |(answered, taken, held)| async move {
        if let Some(answered) = answered {
            answered.await.unwrap();
        }
        let more = taken.fetch_add(1, Ordering::SeqCst) < pieces;
        more.then(|| (Ok::<_, std::io::Error>(vec![b'x'; 16 << 10]), (None, taken, held)))
    });
    (Body::from_stream(stream), let_go)
}

#[tokio::test]
async fn an_answer_does_not_cut_off_a_short_body_that_is_under_way_nor_wait_for_a_long_one() {
    let refuse = axum::routing::post(async || (StatusCode::FORBIDDEN, "no"));
    let (server, _) = serve(Router::new().route("/refuse", refuse), ServerOptions::default()).await;
    for alpn in ["http/1.1", "h2"] {
        for (pieces, to_its_end) in [(4, true), (1 << 20, false)] {
            let (answered, told) = oneshot::channel();
            let taken = Arc::default();
            let (body, let_go) = late_body(pieces, told, Arc::clone(&taken));
            let uri = if alpn == "h2" { "https://localhost/refuse" } else { "/refuse" };
            let request = Request::post(uri).header("host", "localhost").body(body).unwrap();
            let answer = send(server.local_addr(), client_config(None, alpn), request).await.unwrap();
            assert_eq!((answer.status, answer.text.as_str()), (StatusCode::FORBIDDEN, "no"));
            answered.send(()).expect("the body is still wanted");
            let _ = let_go.await;
            let taken = taken.load(Ordering::SeqCst);
            assert_eq!(pieces < taken, to_its_end, "{alpn}: {taken} of {pieces} pieces were taken");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_sent_when_asked_for_is_not_asked_for_where_nobody_takes_it() {
    let refuse = axum::routing::post(async || (StatusCode::FORBIDDEN, "no"));
    let (server, _) = serve(Router::new().route("/refuse", refuse), ServerOptions::default()).await;
    let mut stream = connect(server.local_addr(), client_config(None, "http/1.1")).await.unwrap();
    let head = "POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = [0; 12];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"HTTP/1.1 403");
}
