//! The ceiling: one key in memory, no store, no policy, no audit log.

use std::convert::Infallible;
use std::io::{self, Error};
use std::net::Ipv4Addr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::ports::{Entropy, draw};
use holdfast_actors::shell::OsEntropy;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::crypto::transit::{Cipher, Salt, TAG_BYTES, VECTOR_BYTES, open, seal_in_place};
use holdfast_protocol::kes::ciphertext::RAW_OVERHEAD;
use holdfast_protocol::pki::issue::first_start_rest;
use holdfast_protocol::secret::Secret;
use holdfast_rest::tls::{ServerIdentity, server_config};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::client::terms;

/// Serves at a free port, which it prints, until it is killed.
///
/// # Errors
/// The operating system's.
pub(crate) async fn serve() -> io::Result<()> {
    let identity = ServerIdentity::new(vec![certificate()?], &key().to_pkcs8_der()).map_err(Error::other)?;
    let tls = TlsAcceptor::from(server_config(Arc::new(identity)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(tls.clone(), stream));
    }
}

/// What it shows, which nobody else has certified.
///
/// # Errors
/// None that is known.
pub(crate) fn certificate() -> io::Result<Vec<u8>> {
    first_start_rest(&key(), &[], &[Ipv4Addr::LOCALHOST.into()], &terms()).map_err(Error::other)
}

/// Always the same, so that whoever starts it knows it.
fn key() -> SigningKey {
    SigningKey::from_seed(&Secret::fill_with(|bytes| bytes.fill(1)))
}

async fn connection(tls: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(|request| async { Ok::<_, Infallible>(answered(request).await) });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    plaintext: String,
    ciphertext: String,
}

async fn answered(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let is = |operation: &str| request.uri().path().contains(operation);
    let (generates, encrypts) = (is("/generate/"), is("/encrypt/"));
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked: Asked = serde_json::from_slice(&body).unwrap_or_default();
    let key = Secret::fill_with(|bytes| bytes.fill(7));
    let said = match (generates, encrypts) {
        (true, _) => {
            let plaintext: [u8; 32] = draw(&OsEntropy);
            json!({ "plaintext": STANDARD.encode(plaintext), "ciphertext": STANDARD.encode(sealed(&key, &plaintext)) })
        }
        (_, true) => {
            let plaintext = STANDARD.decode(asked.plaintext).unwrap_or_default();
            json!({ "ciphertext": STANDARD.encode(sealed(&key, &plaintext)) })
        }
        _ => {
            json!({ "plaintext": STANDARD.encode(opened(&key, &STANDARD.decode(asked.ciphertext).unwrap_or_default())) })
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(said.to_string())));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn sealed(key: &Secret<32>, plaintext: &[u8]) -> Vec<u8> {
    let entropy: &dyn Entropy = &OsEntropy;
    let salt = Salt { vector: draw(entropy), nonce: draw(entropy) };
    let mut out = plaintext.to_vec();
    let tag = seal_in_place((Cipher::Aes256Gcm, key), &salt, b"", &mut out);
    out.extend_from_slice(&tag);
    out.extend_from_slice(&salt.vector);
    out.extend_from_slice(&salt.nonce);
    out
}

fn opened(key: &Secret<32>, ciphertext: &[u8]) -> Vec<u8> {
    let Some(len) = ciphertext.len().checked_sub(RAW_OVERHEAD) else { return Vec::new() };
    let (text, salt) = ciphertext.split_at(len + TAG_BYTES);
    let salt = Salt {
        vector: salt[..VECTOR_BYTES].try_into().expect("16 bytes"),
        nonce: salt[VECTOR_BYTES..].try_into().expect("12 bytes are left"),
    };
    let mut plaintext = vec![0; len];
    match open((Cipher::Aes256Gcm, key), &salt, b"", text, &mut plaintext) {
        Ok(()) => plaintext,
        Err(_) => Vec::new(),
    }
}
