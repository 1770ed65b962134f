//! A client against real TLS servers on loopback.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A throw-away identity in `folder`: certificate and key files.
fn identity(folder: &Path) -> (PathBuf, PathBuf) {
    crate::dev::test_identity(folder);
    (folder.join("admin.crt"), folder.join("admin.key"))
}

/// Answers every connection with `response` and gives the address.
async fn serve(folder: &Path, response: &'static str) -> String {
    let (cert, key) = identity(folder);
    let chain = vec![CertificateDer::from_pem_file(&cert).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let mut request = vec![0; 4096];
            let _ = tls.read(&mut request).await;
            let _ = tls.write_all(response.as_bytes()).await;
            let _ = tls.shutdown().await;
        }
    });
    url
}

fn pinned(url: &str, folder: &Path) -> Client {
    let pin = spki_sha256(&folder.join("admin.crt")).unwrap();
    Client::new(url, &Trust::Pin(pin), None).unwrap()
}

#[test]
fn only_plain_https_addresses_are_taken() {
    assert_eq!(address("https://127.0.0.1:7373"), Some(("127.0.0.1".to_owned(), 7373)));
    assert_eq!(address("https://central.example/"), Some(("central.example".to_owned(), 443)));
    assert_eq!(address("https://[::1]:7373"), Some(("::1".to_owned(), 7373)));
    for bad in ["http://a", "a", "https://a/b", "https://a?x=1", ""] {
        assert_eq!(address(bad), None, "{bad}");
    }
}

#[test]
fn a_name_is_one_segment_of_a_path() {
    assert_eq!(segment("udc1-001"), "udc1-001");
    assert_eq!(segment("ann.lee@example"), "ann%2Elee%40example");
    assert_eq!(segment("../udc2?x#y%"), "%2E%2E%2Fudc2%3Fx%23y%25");
}

#[tokio::test]
async fn a_pinned_server_is_believed_and_its_answer_read() {
    let folder = tempfile::tempdir().unwrap();
    let response = "HTTP/1.1 200 OK\r\nHoldfast-Pending: 2\r\nContent-Length: 12\r\n\r\n{\"sealed\":1}";
    let url = serve(folder.path(), response).await;
    let answer = pinned(&url, folder.path()).get("/v1/health").await.unwrap();
    assert_eq!(answer.body["sealed"], 1);
    assert_eq!(answer.pending.as_deref(), Some("2"));
    assert!(answer.flag("sealed").is_err());
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let url = serve(folder.path(), "HTTP/1.1 204 No Content\r\n\r\n").await;
    let client = Client::new(&url, &Trust::Pin([7; 32]), None).unwrap();
    assert!(matches!(client.get("/v1/health").await, Err(ClientError::Handshake { .. })));
}

#[tokio::test]
async fn a_refusal_carries_status_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let response =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 40\r\n\r\n{\"errors\":[{\"error-message\":\"sealed\"}]} ";
    let url = serve(folder.path(), response).await;
    let error = pinned(&url, folder.path()).order("/v1/login").await.err().unwrap();
    assert_eq!(error.status().map(|status| status.as_u16()), Some(503));
    let text = error.to_string();
    assert!(text.starts_with("POST /v1/login: 503 Service Unavailable: sealed; unseal central first"), "{text}");
}

#[tokio::test]
async fn a_dead_address_is_said_in_plain_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(&url, &Trust::Pin([0; 32]), None).unwrap();
    let text = client.get("/v1/health").await.err().unwrap().to_string();
    assert!(text.starts_with(&format!("can't reach {url}: ")), "{text}");
    assert!(text.ends_with("; is it running?"), "{text}");
}
