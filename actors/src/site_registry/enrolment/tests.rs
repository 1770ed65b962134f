//! Enrolment against a software TPM: what is accepted, and a table of what is not.

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{DeploymentId, HostGeneration};
use holdfast_protocol::pki::request::request as certification_request;
use holdfast_protocol::tpm::soft::{SoftTpm, encode_attest};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyIdMethod, KeyUsagePurpose};

use holdfast_protocol::pki::read;

use super::*;
use crate::site_registry::fixtures::{Counting, DEPLOYMENT, NOW, Store, after, id, new_site, secret};
use crate::site_registry::sites::{CreateSite, TOKEN_VALID_S, create_site};
use crate::site_registry::standing::Decision;

const HOST: &str = "udc1/udc1-001";
const EXPORTER: [u8; 32] = [0xe0; 32];

/// A deployment with one site of two invited hosts, and the TPM of the first.
struct Bench {
    store: Store,
    tpm: SoftTpm,
    token: [u8; 32],
}

impl Bench {
    fn new() -> Self {
        Self::with(new_site("udc1", EkTrust::Token, &[("udc1-001", None), ("udc1-002", None)]))
    }

    fn with(site: CreateSite) -> Self {
        let store = Store::initialised();
        store.run(move |rows| create_site(&site, rows, NOW)).unwrap();
        let bundle = store.invite("udc1", 1, NOW).unwrap();
        Self { store, tpm: tpm(1), token: *bundle.hosts[0].token.0.expose() }
    }

    fn request(&self) -> Enrol {
        request(&self.tpm, 60, Some(self.token))
    }

    fn begin(&self, request: &Enrol, now: Now) -> Result<Pending, Reason> {
        self.begin_trusting(request, &[], now)
    }

    fn begin_trusting(&self, request: &Enrol, authorities: &[Vec<u8>], now: Now) -> Result<Pending, Reason> {
        let seeds = Seeds { activation: secret(70), credential: secret(71) };
        begin(request, &codec::encode(request), &self.store.rows(), authorities, seeds, now).map_err(|refused| {
            assert_eq!(refused.line.outcome, refused.reason.to_string());
            assert_eq!(refused.line.action, "host.join-refused");
            refused.reason
        })
    }

    fn complete(&self, cmd: Complete, now: Now) -> Result<Enrolled, Reason> {
        let outcome = self.store.run(move |rows| complete(&cmd, rows, now)).unwrap();
        outcome.map(|enrolled| *enrolled).map_err(|refused| refused.reason)
    }

    /// All three steps, by an honest host.
    fn enrol(&self, request: &Enrol, now: Now) -> Result<Enrolled, Reason> {
        let pending = self.begin(request, now)?;
        let proof = prove(&self.tpm, request, &pending);
        self.complete(accept(pending, &proof, now)?, now)
    }

    fn host(&self) -> Host {
        host(&self.store.rows(), &id(HOST)).unwrap().value
    }
}

fn tpm(fill: u8) -> SoftTpm {
    let mut tpm = SoftTpm::from_seed(&secret(fill));
    tpm.extend(0, &[1; 32]);
    tpm
}

fn request(tpm: &SoftTpm, keys: u8, token: Option<[u8; 32]>) -> Enrol {
    Enrol {
        deployment: DEPLOYMENT,
        host: id(HOST),
        token,
        ek_public: tpm.ek_public().raw().to_vec(),
        ek_certificate: None,
        ak_public: tpm.ak_public().raw().to_vec(),
        dist_request: certification_request(&SigningKey::from_seed(&secret(keys))),
        api_request: certification_request(&SigningKey::from_seed(&secret(keys + 1))),
    }
}

fn prove(tpm: &SoftTpm, request: &Enrol, pending: &Pending) -> EnrolProof {
    let hash = sha256(&[&codec::encode(request)]);
    let EnrolAnswer::Challenge { credential, secret } = pending.answer() else { panic!("a challenge") };
    let activation = tpm.activate_credential(&Credential { blob: credential, encrypted_secret: secret }).unwrap();
    let quote = tpm.quote(&enrol_qualifying_data(&EXPORTER, &hash), &[0]);
    EnrolProof { mac: enrol_answer(&activation, &EXPORTER, &hash), attest: quote.attest, signature: quote.signature }
}

fn accept(pending: Pending, proof: &EnrolProof, now: Now) -> Result<Complete, Reason> {
    let serials = Serials { dist: Serial([80; 16]), api: Serial([81; 16]) };
    finish(pending, proof, &EXPORTER, serials, now).map_err(|refused| refused.reason)
}

fn expiry() -> Now {
    after(u32::try_from(TOKEN_VALID_S).unwrap())
}

#[test]
fn a_host_joins() {
    let bench = Bench::new();
    let enrolled = bench.enrol(&bench.request(), NOW).unwrap();
    assert_eq!((enrolled.generation, enrolled.agent_id.as_str()), (HostGeneration(1), "agent of udc1-001"));
    for chain in [&enrolled.dist_chain, &enrolled.api_chain] {
        assert_eq!(read::issued_by(&chain[0], &chain[1]), Ok(()));
        assert_eq!(read::issued_by(&chain[1], &enrolled.root), Ok(()));
    }
    let peer = read::peer_of(&enrolled.dist_chain[0]).unwrap();
    assert_eq!((peer.deployment, peer.host, peer.generation), (DEPLOYMENT, id(HOST), HostGeneration(1)));
    let dist_key = SigningKey::from_seed(&secret(60));
    assert_eq!(&read::public_key_of(&enrolled.dist_chain[0]).unwrap(), dist_key.public());

    let host = bench.host();
    let identity = host.identity.unwrap();
    assert_eq!((host.state, host.generation), (HostState::Joined, HostGeneration(1)));
    assert_eq!(identity.ek_public, bench.tpm.ek_public().raw());
    assert_eq!(identity.ak_public, bench.tpm.ak_public().raw());
    assert_eq!(identity.dist.held.fingerprint, read::issued_sha256(&enrolled.dist_chain[0]).unwrap());
    assert_eq!(bench.store.actions().last().unwrap(), "host.join");
}

#[test]
fn the_same_request_is_answered_again_while_the_token_lasts() {
    let bench = Bench::new();
    let request = bench.request();
    let first = bench.enrol(&request, NOW).unwrap();
    let again = bench.enrol(&request, after(60)).unwrap();
    assert_eq!(again, Enrolled { time_us: after(60).wall_us, ..first });
    assert_eq!(bench.host().generation, HostGeneration(1));
    assert_eq!(bench.store.actions().last().unwrap(), "host.join-repeated");
    assert_eq!(bench.enrol(&request, expiry()).unwrap_err(), Reason::TokenExpired);
}

#[test]
fn a_used_token_is_worth_nothing_to_another_request() {
    let bench = Bench::new();
    bench.enrol(&bench.request(), NOW).unwrap();
    for other in [request(&bench.tpm, 64, Some(bench.token)), request(&tpm(2), 60, Some(bench.token))] {
        let reason = bench.begin(&other, NOW).unwrap_err();
        assert_eq!(reason, Reason::TokenUsed);
        assert!(reason.is_alarm());
        assert_eq!(reason.code(), RefusalCode::NotAccepted);
    }
    assert_eq!(bench.begin(&request(&tpm(2), 60, Some(bench.token)), expiry()).unwrap_err(), Reason::TokenUsed);
}

#[test]
fn of_two_requests_in_flight_with_one_token_one_wins() {
    let bench = Bench::new();
    let thief = tpm(2);
    let (ours, theirs) = (bench.request(), request(&thief, 64, Some(bench.token)));
    let (first, second) = (bench.begin(&ours, NOW).unwrap(), bench.begin(&theirs, NOW).unwrap());
    let (our_proof, their_proof) = (prove(&bench.tpm, &ours, &first), prove(&thief, &theirs, &second));
    let (first, second) = (accept(first, &our_proof, NOW).unwrap(), accept(second, &their_proof, NOW).unwrap());
    bench.complete(first, NOW).unwrap();
    assert_eq!(bench.complete(second, NOW).unwrap_err(), Reason::TokenUsed);
    assert_eq!(bench.host().identity.unwrap().ek_public, bench.tpm.ek_public().raw());
}

#[test]
fn requests_that_are_refused_change_nothing() {
    type Spoil = fn(&mut Enrol);
    let table: [(&str, Spoil, &str, RefusalCode); 14] = [
        ("wrong token", |r| r.token = Some([9; 32]), "the token is wrong", RefusalCode::NotAccepted),
        ("no token", |r| r.token = None, "the host has not joined yet", RefusalCode::NotAccepted),
        ("another host's token", |r| r.host = id("udc1/udc1-002"), "the token is wrong", RefusalCode::NotAccepted),
        ("unknown host", |r| r.host = id("udc1/udc1-009"), "there is no such host", RefusalCode::NotAccepted),
        ("unknown site", |r| r.host = id("udc9/udc1-001"), "there is no such host", RefusalCode::NotAccepted),
        (
            "other deployment",
            |r| r.deployment = DeploymentId([8; 16]),
            "the request is for another deployment",
            RefusalCode::NotAccepted,
        ),
        ("ak not restricted", |r| r.ak_public[5] ^= 1, "attestation key: ", RefusalCode::NotAccepted),
        ("ak is the ek", |r| r.ak_public = r.ek_public.clone(), "attestation key: ", RefusalCode::NotAccepted),
        ("ek is the ak", |r| r.ek_public = r.ak_public.clone(), "endorsement key: ", RefusalCode::NotAccepted),
        ("ek cut", |r| r.ek_public.truncate(9), "the endorsement key can't be read", RefusalCode::Malformed),
        ("ak cut", |r| r.ak_public.truncate(9), "the attestation key can't be read", RefusalCode::Malformed),
        ("no dist request", |r| r.dist_request.clear(), "the dist request can't be read", RefusalCode::Malformed),
        ("long api request", |r| r.api_request.push(0), "the api request can't be read", RefusalCode::Malformed),
        (
            "request signed by another key",
            |r| {
                let last = r.api_request.len() - 1;
                r.api_request[last] ^= 1;
            },
            "the api request can't be read",
            RefusalCode::Malformed,
        ),
    ];
    let bench = Bench::new();
    let before = bench.host();
    for (name, spoil, why, code) in table {
        let mut request = bench.request();
        spoil(&mut request);
        let reason = bench.begin(&request, NOW).unwrap_err();
        assert!(reason.to_string().starts_with(why), "{name}: {reason}");
        assert_eq!(reason.code(), code, "{name}");
    }
    assert_eq!(bench.begin(&bench.request(), expiry()).unwrap_err(), Reason::TokenExpired);
    assert_eq!(bench.host(), before);
    bench.enrol(&bench.request(), NOW).unwrap();
}

#[test]
fn proofs_that_are_refused_change_nothing() {
    type Spoil = fn(&mut EnrolProof, &SoftTpm, &[u8; 32]);
    let table: [(&str, Spoil, Reason); 7] = [
        ("wrong mac", |proof, _, _| proof.mac[0] ^= 1, Reason::WrongAnswer),
        (
            "mac of another session",
            |proof, _, hash| proof.mac = enrol_answer(&secret(70), &[1; 32], hash),
            Reason::WrongAnswer,
        ),
        (
            "mac for another request",
            |proof, _, _| proof.mac = enrol_answer(&secret(70), &EXPORTER, &[1; 32]),
            Reason::WrongAnswer,
        ),
        (
            "quote by another key",
            |proof, _, hash| {
                let quote = tpm(2).quote(&enrol_qualifying_data(&EXPORTER, hash), &[0]);
                (proof.attest, proof.signature) = (quote.attest, quote.signature);
            },
            Reason::Quote(TpmError::Signature),
        ),
        (
            "quote over another hash",
            |proof, tpm, _| {
                let quote = tpm.quote(&enrol_qualifying_data(&EXPORTER, &[1; 32]), &[0]);
                (proof.attest, proof.signature) = (quote.attest, quote.signature);
            },
            Reason::OtherQuote,
        ),
        (
            "quote by a key outside the endorsement hierarchy",
            |proof, tpm, _| {
                let mut attest = Attest::parse(&proof.attest).unwrap();
                attest.qualified_signer[5] ^= 1;
                proof.attest = encode_attest(&attest);
                proof.signature = tpm.sign(&proof.attest);
            },
            Reason::Quote(TpmError::Hierarchy),
        ),
        (
            "no quote",
            |proof, tpm, _| {
                proof.attest = b"\xffTCGsomething else".to_vec();
                proof.signature = tpm.sign(&proof.attest);
            },
            Reason::Quote(TpmError::Unaccepted { what: "kind of attestation", value: 0x736f }),
        ),
    ];
    let bench = Bench::new();
    let (before, request) = (bench.host(), bench.request());
    let hash = sha256(&[&codec::encode(&request)]);
    for (name, spoil, reason) in table {
        let pending = bench.begin(&request, NOW).unwrap();
        let mut proof = prove(&bench.tpm, &request, &pending);
        spoil(&mut proof, &bench.tpm, &hash);
        let refused = accept(pending, &proof, NOW).unwrap_err();
        assert_eq!(refused, reason, "{name}");
        assert_eq!(refused.code(), RefusalCode::NotAccepted, "{name}");
    }
    let pending = bench.begin(&request, NOW).unwrap();
    let proof = prove(&bench.tpm, &request, &pending);
    assert_eq!(accept(pending, &proof, after(61)).unwrap_err(), Reason::TooLate);
    assert_eq!(bench.host(), before);
}

#[test]
fn only_the_tpm_of_that_key_can_answer() {
    let bench = Bench::new();
    let other = tpm(2);
    // The endorsement key of one machine, the attestation key of another.
    let mut mixed = bench.request();
    mixed.ak_public = other.ak_public().raw().to_vec();
    let EnrolAnswer::Challenge { credential, secret } = bench.begin(&mixed, NOW).unwrap().answer() else {
        panic!("a challenge")
    };
    let credential = Credential { blob: credential, encrypted_secret: secret };
    assert!(bench.tpm.activate_credential(&credential).is_none());
    assert!(other.activate_credential(&credential).is_none());
}

#[test]
fn a_hash_that_was_given_binds_in_every_mode() {
    let right = ek_hash(tpm(1).ek_public().raw());
    for trust in [EkTrust::Pinned, EkTrust::Token] {
        let good = Bench::with(new_site("udc1", trust, &[("udc1-001", Some(right))]));
        good.enrol(&good.request(), NOW).unwrap();
        let bad = Bench::with(new_site("udc1", trust, &[("udc1-001", Some([1; 32]))]));
        let reason = bad.begin(&bad.request(), NOW).unwrap_err();
        assert_eq!((reason.clone(), reason.is_alarm()), (Reason::OtherEkThanGiven, true));
    }
}

#[test]
fn a_manufacturer_vouches_where_the_site_demands_it() {
    let bench = Bench::with(new_site("udc1", EkTrust::Ca, &[("udc1-001", None)]));
    let (maker, authority) = manufacturer(30);
    let (_, stranger) = manufacturer(31);
    let certified = |tpm: &SoftTpm| {
        let mut request = bench.request();
        request.ek_certificate = Some(ek_certificate(tpm, &maker));
        request
    };
    let begin = |request: &Enrol, trusted: &[u8]| bench.begin_trusting(request, &[trusted.to_vec()], NOW);
    assert!(begin(&certified(&bench.tpm), &authority).is_ok());
    for (request, trusted, reason) in [
        (bench.request(), &authority, Reason::NoEkCertificate),
        (certified(&tpm(2)), &authority, Reason::EkCertificate(TpmError::CertificateKey)),
        (certified(&bench.tpm), &stranger, Reason::EkCertificate(TpmError::CertificateUntrusted)),
    ] {
        assert_eq!(begin(&request, trusted).unwrap_err(), reason);
        assert_eq!(reason.code(), RefusalCode::NotAccepted);
    }
}

fn manufacturer(fill: u8) -> (SigningKey, Vec<u8>) {
    let key = SigningKey::from_seed(&secret(fill));
    let certificate = manufacturer_params().self_signed(&key).unwrap().der().to_vec();
    (key, certificate)
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(vec![1].into());
    params.key_identifier_method = KeyIdMethod::PreSpecified(vec![1; 20]);
    params
}

fn manufacturer_params() -> CertificateParams {
    let mut params = params();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn ek_certificate(tpm: &SoftTpm, maker: &SigningKey) -> Vec<u8> {
    let holdfast_protocol::tpm::Key::P256(point) = tpm.ek_public().key else { panic!("a P-256 key") };
    let issuer_params = manufacturer_params();
    let issuer = rcgen::Issuer::from_params(&issuer_params, maker);
    params().signed_by(&point, &issuer).unwrap().der().to_vec()
}

#[test]
fn enrolling_again_takes_the_pinned_key_and_no_token() {
    let bench = Bench::new();
    let first = bench.enrol(&bench.request(), NOW).unwrap();
    let again = bench.enrol(&request(&bench.tpm, 64, None), after(60)).unwrap();
    assert_eq!((first.generation, again.generation), (HostGeneration(1), HostGeneration(2)));
    let peer = read::peer_of(&again.dist_chain[0]).unwrap();
    assert_eq!((peer.generation, peer.number), (HostGeneration(2), CertificateNumber(2)));
    let host = bench.host();
    assert_eq!(host.generation, HostGeneration(2));
    assert_eq!(host.identity.unwrap().dist.held.fingerprint, read::issued_sha256(&again.dist_chain[0]).unwrap());
    assert_eq!(bench.store.actions().last().unwrap(), "host.enrol-again");

    let reason = bench.begin(&request(&tpm(2), 64, None), NOW).unwrap_err();
    assert_eq!((reason.clone(), reason.is_alarm()), (Reason::OtherEkThanPinned, true));
    // The join's own request would bring back the certificates of the first identity.
    assert_eq!(bench.begin(&bench.request(), NOW).unwrap_err(), Reason::NotInvited);
}

#[test]
fn enrolling_again_keeps_what_is_held_against_the_host() {
    let bench = Bench::new();
    bench.enrol(&bench.request(), NOW).unwrap();
    let failure = crate::site_registry::standing::RecordFailure {
        host: id(HOST),
        reasons: vec!["PCR 0".to_owned()],
        reset_count: 1,
        quarantine: false,
        unwritten: Some(0),
        seed: secret(5),
    };
    bench.store.run(move |rows| crate::site_registry::standing::record_failure(&failure, rows, NOW)).unwrap();
    let before = bench.host();
    bench.enrol(&request(&bench.tpm, 64, None), NOW).unwrap();
    let after = bench.host();
    assert_eq!((after.standing, after.counters, after.state), (before.standing, before.counters, before.state));
}

#[test]
fn who_is_cut_off_neither_joins_nor_enrols_again() {
    for whom in ["udc1", HOST] {
        let bench = Bench::new();
        bench.store.decide(whom, Decision::Quarantine { wipe: false });
        assert_eq!(bench.begin(&bench.request(), NOW).unwrap_err(), Reason::CutOff);
        bench.store.decide(whom, Decision::Readmit);
        bench.enrol(&bench.request(), NOW).unwrap();
        bench.store.decide(whom, Decision::Quarantine { wipe: false });
        for request in [request(&bench.tpm, 64, None), bench.request()] {
            let reason = bench.begin(&request, NOW).unwrap_err();
            assert_eq!((reason.clone(), reason.code()), (Reason::CutOff, RefusalCode::NotAccepted));
        }
        assert_eq!(bench.host().generation, HostGeneration(1));
    }
}

#[test]
fn a_fence_or_a_new_bundle_between_challenge_and_commit_counts() {
    type Meanwhile = fn(&Store);
    let table: [(Meanwhile, Reason); 3] = [
        (|store| store.decide("udc1", Decision::Quarantine { wipe: false }), Reason::CutOff),
        (|store| store.reallow("udc1", None).unwrap(), Reason::NotInvited),
        (
            |store| {
                store.reallow("udc1", Some("udc1-001")).unwrap();
                store.invite("udc1", 2, NOW).unwrap();
            },
            Reason::WrongToken,
        ),
    ];
    for (meanwhile, reason) in table {
        let bench = Bench::new();
        let request = bench.request();
        let pending = bench.begin(&request, NOW).unwrap();
        let proof = prove(&bench.tpm, &request, &pending);
        let cmd = accept(pending, &proof, NOW).unwrap();
        meanwhile(&bench.store);
        let before = bench.host();
        assert_eq!(bench.complete(cmd, NOW).unwrap_err(), reason);
        assert_eq!(bench.host(), before);
    }
}

#[test]
fn reallowing_makes_old_tokens_worthless() {
    let bench = Bench::new();
    bench.store.reallow("udc1", Some("udc1-001")).unwrap();
    assert_eq!(bench.begin(&bench.request(), NOW).unwrap_err(), Reason::NotInvited);
    let bundle = bench.store.invite("udc1", 2, NOW).unwrap();
    assert_eq!(bench.begin(&bench.request(), NOW).unwrap_err(), Reason::WrongToken);
    let fresh = *bundle.hosts[0].token.0.expose();
    bench.enrol(&request(&bench.tpm, 60, Some(fresh)), NOW).unwrap();
}

#[test]
fn a_sealed_central_is_unavailable_and_says_nothing_else() {
    let bench = Bench::new();
    let reason = Stop::from(Refusal::Sealed).into_reason();
    assert_eq!(reason.code(), RefusalCode::Unavailable);
    let empty = Store::empty();
    let seeds = Seeds::draw(&Counting::default());
    let request = bench.request();
    let refused = begin(&request, &codec::encode(&request), &empty.rows(), &[], seeds, NOW).unwrap_err();
    assert_eq!(refused.answer(), EnrolAnswer::Refused(RefusalCode::Unavailable));
}

#[test]
fn what_waits_for_a_proof_shows_no_secret() {
    let bench = Bench::new();
    let shown = format!("{:?}", bench.begin(&bench.request(), NOW).unwrap());
    let bytes = |secret: &[u8]| format!("{secret:?}");
    assert!(!shown.contains(&bytes(&bench.token)[1..20]) && !shown.contains(&bytes(&[70; 32])[1..20]), "{shown}");
}
