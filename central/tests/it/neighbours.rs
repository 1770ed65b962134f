//! A host of one site, with a certificate and a TPM of its own, against a host of another: through every message that
//! central hears. Central gives it nothing of the other's, and believes it nothing about the other.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::codec;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{DistEpoch, HostId, SealEpoch, Seq, StandingGeneration, Term};
use holdfast_protocol::pki::request::request as certification_request;
use holdfast_protocol::signed;
use holdfast_protocol::wire::{
    ALPN_ENROL, ALPN_SYNC, Enrol, EnrolAnswer, EnrolRequest, FromCentral, FromHost, HeldPosition, Position,
    QuoteAnswer, ReadItem, RefusalCode, Signed, WipeReceipt,
};
use holdfast_rest::tls::provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::{Value, json};

use crate::quic::{Central, Host, Session, first_of, hear, say, secret, tls};

/// Two sites with a host each: one that is attacked, and its neighbour.
struct World {
    central: Central,
    victim: Host,
    neighbour: Host,
}

impl World {
    async fn start() -> Self {
        let central = Central::unsealed().await;
        central.ask("POST", "/v1/config/tenants", Some(json!({ "name": "acme" }))).await;
        let victim = Host::join_as(&central, first_of("udc1"), 1).await;
        let neighbour = Host::join_as(&central, first_of("udc2"), 21).await;
        let mut session = victim.begin(&central).await;
        victim.pass(&mut session).await;
        say(&mut session.to, &FromHost::SealConfirmed(SealEpoch(1))).await;
        victim.say_and_end(session, &FromHost::Sealed(false)).await;
        let world = Self { central, victim, neighbour };
        assert_eq!(world.central.state_of("udc1").await, "unsealed");
        world
    }

    /// All that central says of the attacked site, but for how long ago it was.
    async fn known(&self) -> Value {
        let mut known = self.central.ask("GET", "/v1/state/system/sites/udc1", None).await;
        for host in known["hosts"].as_array_mut().unwrap() {
            for passing in ["connected", "standing", "last-seen", "trusted-until"] {
                host.as_object_mut().unwrap().remove(passing);
            }
        }
        known
    }

    /// The neighbour's session, passed.
    async fn passed(&self) -> Session {
        let mut session = self.neighbour.begin(&self.central).await;
        self.neighbour.pass(&mut session).await;
        session
    }
}

/// Hears until the connection ends; whether any key came.
async fn is_given_a_key(session: &mut Session) -> bool {
    let hearing = async {
        loop {
            let mut length = [0; 4];
            if session.from.read_exact(&mut length).await.is_err() {
                return false;
            }
            let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
            session.from.read_exact(&mut bytes).await.unwrap();
            match codec::decode(&bytes, bytes.len()).unwrap() {
                FromCentral::Session(_)
                | FromCentral::Sealed { .. }
                | FromCentral::Bundle(_)
                | FromCentral::Permit(_)
                | FromCentral::Share(_) => return true,
                FromCentral::Verdict(verdict) => assert!(!verdict.passed && verdict.lease.is_none()),
                FromCentral::Standing(_) | FromCentral::Challenge(_) | FromCentral::Sibling(_) => {}
                other @ (FromCentral::Welcome { .. } | FromCentral::Head(_) | FromCentral::Certificate { .. }) => {
                    panic!("{other:?}")
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), hearing).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quote_in_anothers_name_gives_no_key_and_costs_the_other_nothing() {
    let world = World::start().await;
    let before = world.known().await;
    let mut session = world.neighbour.begin(&world.central).await;
    world.neighbour.quote_as(&mut session, &world.victim.id, None).await;
    assert!(!is_given_a_key(&mut session).await);
    assert_eq!(world.known().await, before);
    world.central.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quote_of_another_host_or_another_session_gives_no_key() {
    let world = World::start().await;
    let before = world.known().await;
    // The other's TPM answers the neighbour's very challenge, for the neighbour's name and connection.
    let mut session = world.neighbour.begin(&world.central).await;
    world.victim.quote_as(&mut session, &world.neighbour.id, None).await;
    assert!(!is_given_a_key(&mut session).await);
    assert_eq!(world.known().await, before);
    world.central.stop().await;

    // Its own, but from a session before.
    let world = World::start().await;
    let before = world.known().await;
    let nonce = world.passed().await.challenge.nonce;
    let mut session = world.neighbour.begin(&world.central).await;
    assert_ne!(session.challenge.nonce, nonce);
    world.neighbour.quote_as(&mut session, &world.neighbour.id, Some(&nonce)).await;
    assert!(!is_given_a_key(&mut session).await);
    assert_eq!(world.known().await, before);
    world.central.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_host_says_changes_nothing_of_another() {
    let world = World::start().await;
    let before = world.known().await;
    let position = |seq| Position { term: Term(9), dist_epoch: DistEpoch(9), seq: Seq(seq), digest: [9; 32] };
    let held = |tenant: &str, seq| HeldPosition { tenant: tenant.parse().unwrap(), position: position(seq) };
    let words = [
        FromHost::Applied(held("acme", u64::MAX)),
        FromHost::Applied(held("no-such-tenant", 1)),
        FromHost::OutOfStep(held("acme", 0)),
        FromHost::OutOfStep(held("no-such-tenant", 1)),
        FromHost::ContinuityStored([7; 32]),
        FromHost::SealConfirmed(SealEpoch(u64::from(u32::MAX))),
        FromHost::Wiped(StandingGeneration(u64::MAX)),
        FromHost::Alarm { what: "host udc1/udc1-001 is a thief".to_owned() },
        FromHost::Sealed(true),
        FromHost::Sealed(false),
        FromHost::Reads(vec![ReadItem {
            tenant_number: 2,
            path: vec!["alpha-vault".to_owned(), "dbpass".to_owned()],
            version: "any".to_owned(),
            at_us: i64::MAX,
        }]),
        FromHost::Rotated {
            receipt: Signed { body: vec![0; 64], signer: vec![0; 64], signature: vec![0; 64] },
            issuer: vec![0; 64],
        },
        FromHost::Quote(Box::new(QuoteAnswer {
            attest: vec![0; 64],
            signature: vec![0; 64],
            pcrs: vec![(0, [0; 32])],
            hpke_public: [0; 32],
            continuity: Some([1; 32]),
        })),
    ];
    for word in words {
        for session in [world.neighbour.begin(&world.central).await, world.passed().await] {
            let text = format!("{word:?}");
            world.neighbour.say_and_end(session, &word).await;
            assert_eq!(world.known().await, before, "{text}");
        }
        if matches!(word, FromHost::Quote(_)) {
            break;
        }
    }
    world.central.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anothers_certificate_needs_anothers_key_and_a_server_certificate_is_none() {
    let world = World::start().await;
    let (victim, own) = (&world.victim.enrolled, &world.neighbour.enrolled);
    let rest_key = SigningKey::from_seed(&secret(23));
    for (what, chain, key, is_welcome) in [
        // So that it is known to be tried rightly.
        ("its own certificate", &own.dist_chain, &world.neighbour.key, true),
        ("another's certificate", &victim.dist_chain, &world.neighbour.key, false),
        ("a REST server's certificate", &own.api_chain, &rest_key, false),
    ] {
        let built = showing(chain, key);
        let mut welcomed = None;
        if let Ok(connection) = world.central.connect_by("127.0.0.1", built).await {
            let welcome = async {
                let (mut to, mut from) = connection.open_bi().await.ok()?;
                let hello = codec::encode(&world.neighbour.hello());
                to.write_all(&u32::try_from(hello.len()).unwrap().to_be_bytes()).await.ok()?;
                to.write_all(&hello).await.ok()?;
                from.read_exact(&mut [0; 4]).await.ok()
            };
            welcomed = welcome.await;
        }
        assert_eq!(welcomed.is_some(), is_welcome, "{what}");
    }
    assert_eq!(world.central.state_of("udc1").await, "unsealed");
    world.central.stop().await;
}

/// TLS of a client that shows a chain whether its key fits or not.
fn showing(chain: &[Vec<u8>], key: &SigningKey) -> rustls::ClientConfig {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8_der().to_vec()));
    let key = provider().key_provider.load_private_key(key).unwrap();
    let chain = chain.iter().cloned().map(CertificateDer::from).collect();
    let mut config = tls(ALPN_SYNC, None);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
    config
}

async fn enrolling(central: &Central, request: EnrolRequest) -> EnrolAnswer {
    let connection = central.connect("127.0.0.1", ALPN_ENROL, None).await;
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    say(&mut to, &request).await;
    hear(&mut from).await
}

fn enrol(host: &HostId, with: &Host, token: Option<[u8; 32]>) -> EnrolRequest {
    EnrolRequest::Enrol(Enrol {
        deployment: with.enrolled.deployment,
        host: host.clone(),
        token,
        ek_public: with.tpm.ek_public().raw().to_vec(),
        ek_certificate: None,
        ak_public: with.tpm.ak_public().raw().to_vec(),
        dist_request: certification_request(&with.key),
        api_request: certification_request(&SigningKey::from_seed(&secret(99))),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_enrols_as_another_or_wipes_it_and_who_exists_is_not_told() {
    let world = World::start().await;
    let before = world.known().await;
    let refused = EnrolAnswer::Refused(RefusalCode::NotAccepted);
    let absent = first_of("udc9");
    for token in [None, Some([0; 32])] {
        for host in [&world.victim.id, &absent] {
            assert_eq!(enrolling(&world.central, enrol(host, &world.neighbour, token)).await, refused, "{host}");
        }
    }
    for host in [&world.victim.id, &absent] {
        let receipt = WipeReceipt { host: host.clone(), generation: StandingGeneration(u64::MAX) };
        let leaf = world.neighbour.enrolled.dist_chain[0].clone();
        let receipt = signed::sign(&receipt, &world.neighbour.key, leaf);
        assert_eq!(enrolling(&world.central, EnrolRequest::Wiped(receipt)).await, refused, "{host}");
        let notice =
            enrolling(&world.central, EnrolRequest::Notice { host: host.clone(), head: None, notice: None }).await;
        assert_eq!(notice, EnrolAnswer::Notice(None), "{host}");
    }
    assert_eq!(world.known().await, before);
    world.central.stop().await;
}
