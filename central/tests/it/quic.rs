//! The QUIC listener: strangers, and a host with a TPM in software.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use holdfast_actors::attestation_verifier::core::session_info;
use holdfast_central::{Config, Running, start};
use holdfast_protocol::codec;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::kem::{KemSecret, SUITE};
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{HostId, SealEpoch};
use holdfast_protocol::pki::request::request as certification_request;
use holdfast_protocol::secret::Secret;
use holdfast_protocol::site_bundle::SiteBundle;
use holdfast_protocol::tpm::Credential;
use holdfast_protocol::tpm::binding::{QuoteBinding, enrol_answer, enrol_qualifying_data};
use holdfast_protocol::tpm::soft::SoftTpm;
use holdfast_protocol::wire::{
    ALPN_ENROL, ALPN_SYNC, Challenge, EXPORTER_ENROL, EXPORTER_QUOTE, Enrol, EnrolAnswer, EnrolProof, EnrolRequest,
    Enrolled, FromCentral, FromHost, Hello, QuoteAnswer, Signed,
};
use holdfast_rest::tls::provider;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{AnyServer, As, Operator, try_call};
use crate::world::{First, SEAL, config_text};

mod restored;
mod siblings;

/// An unsealed central that hosts can reach.
pub(crate) struct Central {
    /// `None`: it runs elsewhere.
    here: Option<Here>,
    pub(crate) rest: SocketAddr,
    pub(crate) quic: SocketAddr,
    pub(crate) root: String,
}

/// What belongs to a central of this process.
struct Here {
    running: Running,
    sealkey: String,
    /// The text of its configuration.
    config: String,
    folder: TempDir,
}

impl Central {
    pub(crate) async fn unsealed() -> Self {
        Self::unsealed_at(free_quic()).await
    }

    /// One that runs elsewhere, perhaps in a process of its own.
    pub(crate) fn elsewhere(rest: SocketAddr, quic: SocketAddr, root: String) -> Self {
        Self { here: None, rest, quic, root }
    }

    pub(crate) fn running(&self) -> &Running {
        &self.here.as_ref().unwrap().running
    }

    pub(crate) async fn stop(mut self) {
        self.here.take().unwrap().running.stop().await;
    }

    async fn unsealed_at(quic: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        let text = config_text(&folder.path().join("data"), &Operator::new());
        let text = text.replace("quic = \"127.0.0.1:0\"", &format!("quic = \"{quic}\""));
        let running = start(Config::parse(&text).unwrap()).await.unwrap();
        let path = format!("{SEAL}/reveal-sealkey");
        let rest = running.rest_addr();
        let first = First::of(&try_call(rest, As::default(), ("POST", &path), None).await.unwrap());
        let here = Here { running, sealkey: first.sealkey, config: text, folder };
        Self { here: Some(here), rest, quic, root: first.token }
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let who = As { token: Some(&self.root), operator: None };
        let answer = try_call(self.rest, who, (method, path), body).await.unwrap();
        assert!(answer.status.is_success(), "{}", answer.text);
        answer.json()
    }

    pub(crate) async fn connect(
        &self,
        from: &str,
        protocol: &[u8],
        identity: Option<(Vec<Vec<u8>>, Vec<u8>)>,
    ) -> Connection {
        self.try_connect(from, protocol, identity).await.unwrap()
    }

    pub(crate) async fn try_connect(
        &self,
        from: &str,
        protocol: &[u8],
        identity: Option<(Vec<Vec<u8>>, Vec<u8>)>,
    ) -> Result<Connection, quinn::ConnectionError> {
        self.connect_by(from, tls(protocol, identity)).await
    }

    pub(crate) async fn connect_by(
        &self,
        from: &str,
        tls: rustls::ClientConfig,
    ) -> Result<Connection, quinn::ConnectionError> {
        self.connect_with(from, quic(tls)).await
    }

    pub(crate) async fn connect_with(
        &self,
        from: &str,
        config: ClientConfig,
    ) -> Result<Connection, quinn::ConnectionError> {
        let endpoint = Endpoint::client(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        endpoint.connect_with(config, self.quic, "central").unwrap().await
    }

    /// The state of the first host of a site.
    pub(crate) async fn state_of(&self, site: &str) -> String {
        let site = self.ask("GET", &format!("/v1/state/system/sites/{site}"), None).await;
        site["hosts"][0]["state"].as_str().unwrap().to_owned()
    }

    async fn host_state(&self) -> String {
        self.state_of("udc1").await
    }
}

/// An address where nobody listens yet.
pub(crate) fn free_quic() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// TLS of a client that would resume a session if it could; copies of it share what they remember.
pub(crate) fn tls(protocol: &[u8], identity: Option<(Vec<Vec<u8>>, Vec<u8>)>) -> rustls::ClientConfig {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut tls = match identity {
        None => tls.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = chain.into_iter().map(CertificateDer::from).collect();
            tls.with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key))).unwrap()
        }
    };
    tls.alpn_protocols = vec![protocol.to_vec()];
    tls
}

/// QUIC of a client with that TLS.
pub(crate) fn quic(tls: rustls::ClientConfig) -> ClientConfig {
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

pub(crate) async fn say<T: Serialize>(to: &mut SendStream, message: &T) {
    let bytes = codec::encode(message);
    to.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
    to.write_all(&bytes).await.unwrap();
}

pub(crate) async fn hear<T: DeserializeOwned>(from: &mut RecvStream) -> T {
    let mut length = [0; 4];
    from.read_exact(&mut length).await.unwrap();
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut bytes).await.unwrap();
    codec::decode(&bytes, bytes.len()).unwrap()
}

pub(crate) fn exporter(connection: &Connection, label: &[u8]) -> [u8; 32] {
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, label, b"").unwrap();
    exporter
}

pub(crate) fn secret(fill: u8) -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(fill))
}

fn id() -> HostId {
    first_of("udc1")
}

/// The first host of a site.
pub(crate) fn first_of(site: &str) -> HostId {
    HostId { site: site.parse().unwrap(), host: format!("{site}-001").parse().unwrap() }
}

/// A host that has joined.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) tpm: SoftTpm,
    pub(crate) key: SigningKey,
    pub(crate) enrolled: Enrolled,
}

/// One of its sessions.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) to: SendStream,
    pub(crate) from: RecvStream,
    pub(crate) challenge: Challenge,
    /// Once it passed.
    pub(crate) key: Option<Secret<32>>,
}

impl Host {
    async fn join(central: &Central) -> Self {
        Self::join_as(central, id(), 1).await
    }

    /// Makes the site of `id` and joins as its only host, with keys made from `fill`.
    pub(crate) async fn join_as(central: &Central, id: HostId, fill: u8) -> Self {
        let site = json!({ "name": id.site, "ek-trust": "token", "learn-reference-values": true,
                           "hosts": [{ "name": id.host }] });
        central.ask("POST", "/v1/config/system/sites", Some(site)).await;
        let path = format!("/v1/state/system/sites/{}/site-bundle", id.site);
        let bundle = serde_json::from_value(central.ask("POST", &path, None).await).unwrap();
        Self::join_site(central, id, &bundle, fill).await
    }

    /// Joins a site that was made, as the host of its bundle that is called so.
    async fn join_site(central: &Central, id: HostId, bundle: &SiteBundle, fill: u8) -> Self {
        let own = bundle.host(&id.host).unwrap();
        let mut tpm = SoftTpm::from_seed(&secret(fill));
        (0..8).for_each(|pcr| tpm.extend(pcr, &[1; 32]));
        let key = SigningKey::from_seed(&secret(fill + 1));
        let request = Enrol {
            deployment: bundle.deployment,
            host: id.clone(),
            token: Some(*own.token.0.expose()),
            ek_public: tpm.ek_public().raw().to_vec(),
            ek_certificate: None,
            ak_public: tpm.ak_public().raw().to_vec(),
            dist_request: certification_request(&key),
            api_request: certification_request(&SigningKey::from_seed(&secret(fill + 2))),
        };
        let hash = sha256(&[&codec::encode(&request)]);
        let connection = central.connect("127.0.0.1", ALPN_ENROL, None).await;
        let exporter = exporter(&connection, EXPORTER_ENROL);
        let (mut to, mut from) = connection.open_bi().await.unwrap();
        say(&mut to, &EnrolRequest::Enrol(request)).await;
        let EnrolAnswer::Challenge { credential, secret } = hear(&mut from).await else { panic!("a challenge") };
        let activation = tpm.activate_credential(&Credential { blob: credential, encrypted_secret: secret }).unwrap();
        let quote = tpm.quote(&enrol_qualifying_data(&exporter, &hash), &[0]);
        let mac = enrol_answer(&activation, &exporter, &hash);
        let proof = EnrolProof { mac, attest: quote.attest, signature: quote.signature };
        say(&mut to, &EnrolRequest::Proof(proof)).await;
        let EnrolAnswer::Enrolled(enrolled) = hear(&mut from).await else { panic!("certificates") };
        Self { id, tpm, key, enrolled: *enrolled }
    }

    pub(crate) fn hello(&self) -> FromHost {
        FromHost::Hello(Box::new(Hello {
            version_min: 1,
            version_max: 1,
            generation: self.enrolled.generation,
            seal_epoch: None,
            needs_seal_key: false,
            positions: Vec::new(),
            head: None,
            notice: None,
            audit_head: (0, [0; 32]),
        }))
    }

    pub(crate) fn tls(&self) -> rustls::ClientConfig {
        tls(ALPN_SYNC, Some((self.enrolled.dist_chain.clone(), self.key.to_pkcs8_der().to_vec())))
    }

    /// Up to the challenge.
    pub(crate) async fn begin(&self, central: &Central) -> Session {
        self.begin_by(central, self.tls()).await
    }

    pub(crate) async fn begin_by(&self, central: &Central, tls: rustls::ClientConfig) -> Session {
        self.begin_with(central, quic(tls)).await
    }

    pub(crate) async fn begin_with(&self, central: &Central, config: ClientConfig) -> Session {
        let connection = central.connect_with("127.0.0.1", config).await.unwrap();
        let (mut to, mut from) = connection.open_bi().await.unwrap();
        say(&mut to, &self.hello()).await;
        let FromCentral::Welcome { .. } = hear(&mut from).await else { panic!("a welcome") };
        let FromCentral::Challenge(challenge) = hear(&mut from).await else { panic!("a challenge") };
        Session { connection, to, from, challenge, key: None }
    }

    /// Up to the release; gives the head that central showed.
    pub(crate) async fn pass(&self, session: &mut Session) -> Signed {
        let (kem, context) = self.quote_as(session, &self.id, None).await;
        let mut head = None;
        loop {
            match hear(&mut session.from).await {
                FromCentral::Verdict(verdict) => {
                    assert!(verdict.passed);
                    head = Some(verdict.head);
                }
                FromCentral::Session(message) => {
                    session.key = Secret::from_slice(kem.open(&context, b"", &message).unwrap().expose());
                }
                FromCentral::Sealed { .. } => return head.expect("a verdict comes before the release"),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Quotes as `id`; gives the key to which the session key will come, and the transcript it is bound to.
    pub(crate) async fn quote_as(
        &self,
        session: &mut Session,
        id: &HostId,
        nonce: Option<&[u8; 32]>,
    ) -> (KemSecret, [u8; 32]) {
        let kem = KemSecret::from_seed(&secret(9));
        let nonce = nonce.unwrap_or(&session.challenge.nonce);
        let binding = QuoteBinding {
            deployment: self.enrolled.deployment,
            site: &id.site,
            host: &id.host,
            host_generation: self.enrolled.generation,
            nonce,
            exporter: &exporter(&session.connection, EXPORTER_QUOTE),
            hpke_suite: SUITE,
            hpke_public: kem.public(),
            policy_version: session.challenge.policy,
            ima_offset: 0,
            ima_count: 0,
        };
        let (transcript, digest) = binding.qualifying_data();
        let quote = self.tpm.quote(&digest, &session.challenge.pcrs);
        let context = session_info(&transcript, &quote.attest);
        let answer = QuoteAnswer {
            attest: quote.attest,
            signature: quote.signature,
            pcrs: quote.pcrs,
            hpke_public: *kem.public(),
            continuity: None,
        };
        say(&mut session.to, &FromHost::Quote(Box::new(answer))).await;
        (kem, context)
    }

    /// Says something, and then what ends every session, so that it is known to have been heard.
    pub(crate) async fn say_and_end(&self, mut session: Session, message: &FromHost) {
        say(&mut session.to, message).await;
        say(&mut session.to, &self.hello()).await;
        session.connection.closed().await;
    }
}

#[tokio::test]
async fn an_address_that_was_taken_is_opened_once_it_is_free() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let central = Central::unsealed_at(taken.local_addr().unwrap()).await;
    drop(taken);
    central.connect("127.0.0.1", ALPN_ENROL, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_connects_and_says_nothing_does_not_keep_hosts_from_their_notices() {
    let central = Central::unsealed().await;
    let mut held = Vec::new();
    // One more than an address may hold is closed at once; the others are waited for.
    while held.iter().all(|connection: &Connection| connection.close_reason().is_none()) {
        assert!(held.len() < 256, "one address took every place");
        held.push(central.connect("127.0.0.1", ALPN_ENROL, None).await);
    }
    let other = central.connect("127.0.0.2", ALPN_ENROL, None).await;
    let (mut to, mut from) = other.open_bi().await.unwrap();
    say(&mut to, &EnrolRequest::Notice { host: id(), head: None, notice: None }).await;
    assert_eq!(hear::<EnrolAnswer>(&mut from).await, EnrolAnswer::Notice(None));
    central.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_a_session_without_a_certificate_of_ours() {
    let central = Central::unsealed().await;
    let (certificate, key) = Operator::new().der();
    for identity in [None, Some((vec![certificate], key))] {
        // A client of TLS 1.3 learns only after its own handshake what the server thinks of its certificate.
        if let Ok(connection) = central.try_connect("127.0.0.1", ALPN_SYNC, identity).await {
            connection.closed().await;
        }
    }
    central.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hosts_word_counts_on_the_connection_that_passed_and_on_no_other() {
    let central = Central::unsealed().await;
    let host = Host::join(&central).await;
    let mut passed = host.begin(&central).await;
    host.pass(&mut passed).await;
    assert_eq!(central.host_state().await, "joined");

    // Whoever has the key of the connection, and not the machine that boots as it should, confirms nothing.
    let confirmed = FromHost::SealConfirmed(SealEpoch(1));
    host.say_and_end(host.begin(&central).await, &confirmed).await;
    assert_eq!(central.host_state().await, "joined");

    host.say_and_end(passed, &confirmed).await;
    assert_eq!(central.host_state().await, "unsealed");
    central.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_ends_its_stream_does_not_keep_its_connection() {
    let central = Central::unsealed().await;
    let host = Host::join(&central).await;
    let mut session = host.begin(&central).await;
    session.to.finish().unwrap();
    session.connection.closed().await;
    central.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantined_host_does_not_come_back_by_resuming_a_session() {
    let central = Central::unsealed().await;
    let host = Host::join(&central).await;
    let tls = host.tls();
    // What it might resume later would have come by now: the challenge followed it.
    let session = host.begin_by(&central, tls.clone()).await;
    let who = As { token: Some(&central.root), operator: None };
    let path = "/v1/state/system/sites/udc1/quarantine-site";
    let answer = try_call(central.rest, who, ("POST", path), Some(json!({}))).await.unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text);
    session.connection.closed().await;

    let refusal = match central.connect_by("127.0.0.1", tls).await {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    let revoked = quinn::TransportErrorCode::crypto(44);
    let quinn::ConnectionError::ConnectionClosed(close) = &refusal else { panic!("{refusal:?}") };
    assert_eq!(close.error_code, revoked, "the certificate was looked at, and refused");
    central.stop().await;
}
