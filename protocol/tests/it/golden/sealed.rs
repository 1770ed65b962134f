//! What is encrypted or no postcard: bundles, messages of a session, and the site bundle. Keys and nonces are fixed.

use holdfast_protocol::bundle::{self, Body, BundleKind, Header, Item};
use holdfast_protocol::envelope::SUITE_XAES_256_GCM;
use holdfast_protocol::ids::Revision;
use holdfast_protocol::secret::SecretBytes;
use holdfast_protocol::session::{open_message, seal_message};
use holdfast_protocol::site_bundle::{Format, Invited, JoinToken, SiteBundle};
use holdfast_protocol::wire::Sealed;

use super::Golden;
use super::messages::{DEPLOYMENT, host, parsed, position, seal_key, secret, signer};

const NONCE: [u8; 24] = [0x24; 24];
const KEY: u8 = 0x4b;
/// Number of the message in its session.
const COUNTER: u64 = 300;

pub(super) fn all() -> [Golden; 4] {
    let golden = |name: &str, bytes, reread| Golden { name: name.into(), bytes, reread, bounded: None };
    [
        golden("bundle.delta.hex", bundle(BundleKind::Delta), reread_bundle),
        golden("bundle.full.hex", bundle(BundleKind::Full { part: 1, of: 300 }), reread_bundle),
        golden("session.rewrap.hex", session(&Sealed::Rewrap(seal_key(5))), reread_session),
        golden("site-bundle.json", site_bundle(), reread_site_bundle),
    ]
}

fn bundle(kind: BundleKind) -> Vec<u8> {
    let header = Header {
        deployment: DEPLOYMENT,
        signer: signer().public().key_id(),
        suite: SUITE_XAES_256_GCM,
        tenant: parsed("acme"),
        tenant_number: 300,
        site: host().site,
        kind,
        base: position(70_000),
        target: position(70_001),
        revision: Revision(80_000),
    };
    let items = [
        Item {
            kind: 0x32,
            path: vec!["db".into(), "7".into()],
            body: Some(Body(SecretBytes::new(b"record".to_vec()))),
        },
        Item { kind: 0x32, path: vec!["db".into(), "6".into()], body: None },
    ];
    bundle::encode(&header, &items, &secret(KEY), NONCE, &signer())
}

fn reread_bundle(bytes: &[u8]) -> Option<Vec<u8>> {
    let verified = bundle::verify(bytes, signer().public()).ok()?;
    let items = verified.open(&secret(KEY)).ok()?;
    Some(bundle::encode(&verified.header, &items, &secret(KEY), NONCE, &signer()))
}

fn session(message: &Sealed) -> Vec<u8> {
    seal_message(&secret(KEY), NONCE, &host(), COUNTER, message)
}

fn reread_session(bytes: &[u8]) -> Option<Vec<u8>> {
    open_message(&secret(KEY), &host(), COUNTER, COUNTER, bytes).ok().map(|message| session(&message))
}

fn site_bundle() -> Vec<u8> {
    let invited = |name, token, ek_sha256| Invited {
        name: parsed(name),
        token: JoinToken(secret(token)),
        expires: "2026-01-01T00:00:00Z".into(),
        ek_sha256,
    };
    to_json(&SiteBundle {
        format: Format::V1,
        deployment: DEPLOYMENT,
        central: vec!["central.example:7443".into(), "192.0.2.1:7443".into()],
        root_ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
        site: host().site,
        hosts: vec![invited("udc1-001", 0xa7, None), invited("udc1-002", 0xa8, Some("ab".repeat(32)))],
    })
}

fn reread_site_bundle(bytes: &[u8]) -> Option<Vec<u8>> {
    serde_json::from_slice(bytes).ok().map(|bundle: SiteBundle| to_json(&bundle))
}

fn to_json(bundle: &SiteBundle) -> Vec<u8> {
    serde_json::to_vec_pretty(bundle).unwrap()
}
