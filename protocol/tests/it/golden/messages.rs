//! A value of every variant of every message. All are made of constants; options come both full and empty.

use std::fmt::Debug;
use std::str::FromStr;

use holdfast_protocol::crypto::kem;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{
    DeploymentId, DistEpoch, HostGeneration, HostId, PolicyVersion, Revision, SealEpoch, Seq, StandingGeneration, Term,
};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::signed::sign;
use holdfast_protocol::wire::v1::{
    CertificateStep, CertificateUse, Challenge, Enrol, EnrolAnswer, EnrolProof, EnrolRequest, Enrolled, FromCentral,
    FromHost, Head, HeldPosition, Hello, Lease, Notice, NoticedStanding, Position, QuoteAnswer, ReadItem, RefusalCode,
    Release, RotationReceipt, SealKey, Sealed, Signable, Signed, VerdictNotice, WipeReceipt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Golden, codec};

/// A time that takes several bytes, microseconds since the Unix epoch.
pub(super) const TIME_US: i64 = 1_767_225_600_000_000;
pub(super) const DEPLOYMENT: DeploymentId = DeploymentId([0xd0; 16]);

pub(super) fn all() -> Vec<Golden> {
    [enrol_requests(), enrol_answers(), from_host(), from_central(), sealed(), signables(), signed(), parts()]
        .into_iter()
        .flatten()
        .collect()
}

pub(super) fn golden<T: Serialize + DeserializeOwned>(name: &str, value: &T) -> Golden {
    Golden {
        name: format!("{name}.hex"),
        bytes: codec::encode(value),
        reread: |bytes| codec::decode::<T>(bytes, bytes.len()).ok().map(|value| codec::encode(&value)),
        bounded: Some(|bytes, max| codec::decode::<T>(bytes, max).map(drop)),
    }
}

pub(super) fn parsed<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(super) fn secret(byte: u8) -> Secret<32> {
    Secret::fill_with(|into| into.fill(byte))
}

pub(super) fn signer() -> SigningKey {
    SigningKey::from_seed(&secret(0x51))
}

pub(super) fn host() -> HostId {
    HostId { site: parsed("udc1"), host: parsed("udc1-001") }
}

pub(super) fn position(seq: u64) -> Position {
    Position { term: Term(2), dist_epoch: DistEpoch(300), seq: Seq(seq), digest: [0xd1; 32] }
}

fn held() -> HeldPosition {
    HeldPosition { tenant: parsed("acme"), position: position(70_000) }
}

fn head() -> Head {
    Head {
        deployment: DEPLOYMENT,
        term: Term(2),
        incarnation: [0x1c; 16],
        revision: Revision(70_001),
        standing_digest: [0x5d; 32],
        audit_head: (70_002, [0xad; 32]),
    }
}

pub(super) fn notice(standing: NoticedStanding) -> Notice {
    let generation = StandingGeneration(4);
    Notice { deployment: DEPLOYMENT, site: host().site, host: Some(host().host), generation, standing, at_us: TIME_US }
}

fn site_notice() -> Notice {
    Notice { host: None, ..notice(NoticedStanding::Quarantined { wipe: true }) }
}

fn lease() -> Lease {
    Lease { host: host(), clock_ms: 86_400_000, reset_count: 300, seal_epoch: SealEpoch(3) }
}

fn rotated() -> RotationReceipt {
    RotationReceipt {
        deployment: DEPLOYMENT,
        host: host(),
        generation: HostGeneration(2),
        seal_epoch: SealEpoch(300),
        dist_epoch: Some(DistEpoch(7)),
        at_us: TIME_US,
    }
}

fn read_item() -> ReadItem {
    let path = vec!["web".to_owned(), "db".to_owned(), "password".to_owned()];
    ReadItem { tenant_number: 300, path, version: "2c8f2b1e".to_owned(), at_us: TIME_US }
}

fn receipt() -> WipeReceipt {
    WipeReceipt { host: host(), generation: StandingGeneration(5) }
}

pub(super) fn by_signer<T: Signable>(value: &T) -> Signed {
    sign(value, &signer(), b"certificate".to_vec())
}

fn enrol_requests() -> Vec<Golden> {
    let enrol = Enrol {
        deployment: DEPLOYMENT,
        host: host(),
        token: Some([0x70; 32]),
        ek_public: b"ek".to_vec(),
        ek_certificate: Some(b"ek certificate".to_vec()),
        ak_public: b"ak".to_vec(),
        dist_request: b"dist request".to_vec(),
        api_request: b"api request".to_vec(),
    };
    let again = Enrol { token: None, ek_certificate: None, ..enrol.clone() };
    let proof = EnrolProof { mac: [0x3a; 32], attest: b"attest".to_vec(), signature: b"signature".to_vec() };
    vec![
        golden("enrol-request.enrol", &EnrolRequest::Enrol(enrol)),
        golden("enrol-request.enrol-again", &EnrolRequest::Enrol(again)),
        golden("enrol-request.proof", &EnrolRequest::Proof(proof)),
        golden(
            "enrol-request.notice",
            &EnrolRequest::Notice { host: host(), head: Some(by_signer(&head())), notice: None },
        ),
        golden("enrol-request.wiped", &EnrolRequest::Wiped(by_signer(&receipt()))),
    ]
}

fn enrol_answers() -> Vec<Golden> {
    let enrolled = Enrolled {
        deployment: DEPLOYMENT,
        host: host(),
        generation: HostGeneration(2),
        agent_id: "8f14e45f-ceea-467f-a0f5-9b1a2c3d4e5f".into(),
        root: b"root".to_vec(),
        dist_chain: vec![b"dist leaf".to_vec(), b"dist issuer".to_vec()],
        api_chain: vec![b"api leaf".to_vec(), b"api issuer".to_vec()],
        time_us: TIME_US,
    };
    let challenge = EnrolAnswer::Challenge { credential: b"credential".to_vec(), secret: b"secret".to_vec() };
    vec![
        golden("enrol-answer.challenge", &challenge),
        golden("enrol-answer.enrolled", &EnrolAnswer::Enrolled(Box::new(enrolled))),
        golden("enrol-answer.refused-not-accepted", &EnrolAnswer::Refused(RefusalCode::NotAccepted)),
        golden("enrol-answer.refused-malformed", &EnrolAnswer::Refused(RefusalCode::Malformed)),
        golden("enrol-answer.refused-unavailable", &EnrolAnswer::Refused(RefusalCode::Unavailable)),
        golden("enrol-answer.refused-version", &EnrolAnswer::Refused(RefusalCode::Version)),
        golden("enrol-answer.notice", &EnrolAnswer::Notice(Some(by_signer(&site_notice())))),
        golden("enrol-answer.notice-none", &EnrolAnswer::Notice(None)),
    ]
}

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 300,
        generation: HostGeneration(2),
        seal_epoch: Some(SealEpoch(3)),
        needs_seal_key: false,
        positions: vec![held()],
        head: Some(by_signer(&head())),
        notice: Some(by_signer(&notice(NoticedStanding::Clear))),
        audit_head: (300, [0xad; 32]),
    }
}

/// Of a host that has nothing yet.
fn first_hello() -> Hello {
    let (seal_epoch, head, notice) = (None, None, None);
    Hello { seal_epoch, needs_seal_key: true, positions: Vec::new(), head, notice, ..hello() }
}

fn certificate(which: CertificateUse, step: CertificateStep) -> FromHost {
    FromHost::Certificate { which, fingerprint: [0xcf; 32], step }
}

fn from_host() -> Vec<Golden> {
    let quote = QuoteAnswer {
        attest: b"attest".to_vec(),
        signature: b"signature".to_vec(),
        pcrs: vec![(0, [0xc0; 32]), (7, [0xc7; 32])],
        hpke_public: [0x4b; 32],
        continuity: Some([0xc1; 32]),
    };
    let first_quote = QuoteAnswer { continuity: None, ..quote.clone() };
    vec![
        golden("from-host.hello", &FromHost::Hello(Box::new(hello()))),
        golden("from-host.hello-first", &FromHost::Hello(Box::new(first_hello()))),
        golden("from-host.quote", &FromHost::Quote(Box::new(quote))),
        golden("from-host.quote-first", &FromHost::Quote(Box::new(first_quote))),
        golden("from-host.continuity-stored", &FromHost::ContinuityStored([0xc5; 32])),
        golden("from-host.seal-confirmed", &FromHost::SealConfirmed(SealEpoch(3))),
        golden("from-host.applied", &FromHost::Applied(held())),
        golden("from-host.out-of-step", &FromHost::OutOfStep(held())),
        golden("from-host.alarm", &FromHost::Alarm { what: "a bundle was forged".into() }),
        golden("from-host.wiped", &FromHost::Wiped(StandingGeneration(5))),
        golden("from-host.sealed", &FromHost::Sealed(true)),
        golden("from-host.certificate-stored", &certificate(CertificateUse::Api, CertificateStep::Stored)),
        golden("from-host.certificate-shown", &certificate(CertificateUse::Dist, CertificateStep::Shown)),
        golden("from-host.rotated", &FromHost::Rotated { receipt: by_signer(&rotated()), issuer: b"issuer".to_vec() }),
        golden("from-host.reads", &FromHost::Reads(vec![read_item()])),
    ]
}

fn from_central() -> Vec<Golden> {
    let challenge = Challenge {
        nonce: [0x40; 32],
        policy: PolicyVersion(300),
        pcrs: vec![0, 7, 10],
        ima_offset: 70_000,
        ima_count: 300,
    };
    let (passed, lease, newest) = (true, Some(by_signer(&lease())), by_signer(&head()));
    let verdict = VerdictNotice { passed, reasons: Vec::new(), time_us: TIME_US, lease, head: newest };
    let failed = VerdictNotice { passed: false, reasons: vec!["register 7".into()], lease: None, ..verdict.clone() };
    let session = kem::Message { encapped: [0x4e; 32], ciphertext: b"ciphertext".to_vec() };
    let standing = by_signer(&notice(NoticedStanding::Untrusted));
    let chain = vec![b"dist leaf".to_vec(), b"dist issuer".to_vec()];
    vec![
        golden("from-central.welcome", &FromCentral::Welcome { version: 1, time_us: TIME_US }),
        golden("from-central.challenge", &FromCentral::Challenge(challenge)),
        golden("from-central.verdict", &FromCentral::Verdict(Box::new(verdict))),
        golden("from-central.verdict-failed", &FromCentral::Verdict(Box::new(failed))),
        golden("from-central.session", &FromCentral::Session(session)),
        golden("from-central.sealed", &FromCentral::Sealed { counter: 300, envelope: b"envelope".to_vec() }),
        golden("from-central.bundle", &FromCentral::Bundle(b"bundle".to_vec())),
        golden("from-central.standing", &FromCentral::Standing(standing)),
        golden("from-central.head", &FromCentral::Head(by_signer(&head()))),
        golden("from-central.certificate", &FromCentral::Certificate { which: CertificateUse::Dist, chain }),
    ]
}

pub(super) fn seal_key(epoch: u64) -> SealKey {
    SealKey { epoch: SealEpoch(epoch), key: secret(0x5e) }
}

fn sealed() -> Vec<Golden> {
    let release = |held| Sealed::Release(Release { held, current: seal_key(4), continuity_next: [0xc2; 32] });
    let dist_key = Sealed::DistKey { tenant: parsed("acme"), epoch: DistEpoch(300), key: secret(0xd2) };
    vec![
        golden("sealed.release", &release(Some(seal_key(3)))),
        golden("sealed.release-first", &release(None)),
        golden("sealed.rewrap", &Sealed::Rewrap(seal_key(5))),
        golden("sealed.dist-key", &dist_key),
    ]
}

fn signables() -> Vec<Golden> {
    vec![
        golden("head", &head()),
        golden("notice.clear", &notice(NoticedStanding::Clear)),
        golden("notice.untrusted", &notice(NoticedStanding::Untrusted)),
        golden("notice.quarantined", &notice(NoticedStanding::Quarantined { wipe: false })),
        golden("notice.site", &site_notice()),
        golden("lease", &lease()),
        golden("wipe-receipt", &receipt()),
        golden("rotation-receipt", &rotated()),
        golden("rotation-receipt.no-content", &RotationReceipt { dist_epoch: None, ..rotated() }),
    ]
}

/// The signature is deterministic, so these hold the domain strings too.
fn signed() -> Vec<Golden> {
    vec![
        golden("signed.head", &by_signer(&head())),
        golden("signed.notice", &by_signer(&site_notice())),
        golden("signed.lease", &by_signer(&lease())),
        golden("signed.wipe-receipt", &by_signer(&receipt())),
        golden("signed.rotation-receipt", &by_signer(&rotated())),
    ]
}

fn parts() -> Vec<Golden> {
    vec![golden("position", &position(70_000)), golden("hello", &hello()), golden("hello.first", &first_hello())]
}
