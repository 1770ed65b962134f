//! What prints itself: no type that holds a secret shows it, and no error repeats what it was given.
//!
//! A derived `Debug` shows its members by theirs. So it is enough that those written by hand show nothing, which is tried
//! with real values, and that no derived one has a secret among its members as plain text or bytes, which is read from
//! the sources.

use std::collections::BTreeSet;
use std::fmt::Debug;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::keyring::{Keyring, RealmKeys};
use holdfast_actors::ports::Entropy;
use holdfast_actors::seal_keeper::{FreshSeal, FreshStart, Proof};
use holdfast_actors::shamir::Share;
use holdfast_actors::site_registry::Continuity;
use holdfast_protocol::crypto::hash::hkdf;
use holdfast_protocol::crypto::kem::KemSecret;
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{DeploymentId, DistEpoch, HostId, SealEpoch};
use holdfast_protocol::pki::pem;
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_protocol::site_bundle::{JoinToken, SiteBundle};
use holdfast_protocol::wire::{Enrol, QuoteAnswer, Release, SealKey, Sealed};
use holdfast_rest::secret::{Reveal, SecretText};
use holdfast_testbed::figures::Figures;
use holdfast_testbed::procs::canary::Canaries;
use serde_json::json;

use super::tidy::{PRODUCT, root, sources};

/// 32 bytes, and a text.
const CANARY: &[u8; 32] = b"a canary in a coal mine of bytes";

/// Types whose `Debug` is written by hand and that hold a secret: each is tried below.
const SECRET: [&str; 14] = [
    "Continuity",
    "Enrol",
    "FreshSeal",
    "JoinToken",
    "KemSecret",
    "Keyring",
    "QuoteAnswer",
    "RealmKeys",
    "Release",
    "Secret<N>",
    "SecretBytes",
    "SecretText",
    "Share",
    "SigningKey",
];
/// Those that hold none.
const OPEN: [&str; 17] = [
    "$type",
    "AgentClock",
    "Bounds",
    "DeploymentId",
    "Front",
    "Gauges",
    "HostId",
    "HostVerifier",
    "Identity",
    "NodeTime",
    "OtherTime",
    "PublicKey",
    "Routes",
    "ServerIdentity",
    "SiblingAnswer",
    "Signature",
    "TokenId",
];
/// Members of types with a derived `Debug` that are called like secrets, and are none.
const HARMLESS: [(&str, &str); 29] = [
    ("Approle", "token_policies: BTreeSet<String>"),
    ("Approle", "secret_id_minters: BTreeSet<String>"),
    ("ApproleSpec", "token_policies: BTreeSet<String>"),
    ("ApproleSpec", "secret_id_minters: BTreeSet<String>"),
    ("ApproleAsked", "secret_id_ttl: Option<String>"),
    ("ApproleAsked", "token_ttl: Option<String>"),
    ("ApproleAsked", "token_policies: Option<BTreeSet<String>>"),
    ("ApproleAsked", "secret_id_minters: Option<BTreeSet<String>>"),
    ("ApproleShown", "secret_id_ttl: String"),
    ("ApproleShown", "token_ttl: String"),
    ("ApproleShown", "token_policies: BTreeSet<String>"),
    ("ApproleShown", "secret_id_minters: BTreeSet<String>"),
    ("Expected", "qualifying_data: [u8; 32]"),
    ("EnrolAnswer", "secret: Vec<u8>"),
    ("Credential", "encrypted_secret: Vec<u8>"),
    ("ChangedRow", "store_key: Vec<u8>"),
    ("Op", "key: Vec<u8>"),
    ("Change", "key: Vec<u8>"),
    ("Invitation", "token_hash: [u8; 32]"),
    ("Claim", "token_hash: Option<[u8; 32]>"),
    ("AkBlob", "private: Vec<u8>"),
    ("SealedBlob", "private: Vec<u8>"),
    ("ConfigError", "key: String"),
    ("Attest", "extra_data: Vec<u8>"),
    // Of public keys: a hash, and themselves.
    ("UnsealPermit", "debug_key: [u8; 32]"),
    ("UnsealPermit", "remote_key: Option<[u8; 32]>"),
    ("Unsealing", "remote_key: Option<Vec<u8>>"),
    ("BlastEntry", "secret: Option<String>"),
    ("BlastEntry", "key: Option<String>"),
];

fn canaries() -> Canaries {
    let mut canaries = Canaries::default();
    canaries.add("canary", CANARY);
    canaries.add("canary as text", STANDARD.encode(CANARY).as_bytes());
    canaries
}

fn secret() -> Secret<32> {
    Secret::from_slice(CANARY).unwrap()
}

fn text() -> String {
    String::from_utf8(CANARY.to_vec()).unwrap()
}

/// In a line, over lines, and without what is between numbers over lines.
fn shows_nothing(what: &str, value: &dyn Debug) {
    let over_lines = format!("{value:#?}");
    let joined: String = over_lines.split_whitespace().collect();
    for shown in [format!("{value:?}"), over_lines, joined] {
        assert_eq!(canaries().find(shown.as_bytes()), Vec::<&str>::new(), "{what}: {shown}");
    }
}

/// Always the canary.
struct Canary;

impl Entropy for Canary {
    fn fill(&self, into: &mut [u8]) {
        into.iter_mut().zip(CANARY.iter().cycle()).for_each(|(into, byte)| *into = *byte);
    }
}

#[test]
fn no_type_that_holds_a_secret_prints_it() {
    let host = || HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() };
    let seal_key = || SealKey { epoch: SealEpoch(1), key: secret() };
    let release = || Release { held: Some(seal_key()), current: seal_key(), continuity_next: *CANARY };
    let enrol = Enrol {
        deployment: DeploymentId([1; 16]),
        host: host(),
        token: Some(*CANARY),
        ek_public: vec![],
        ek_certificate: None,
        ak_public: vec![],
        dist_request: vec![],
        api_request: vec![],
    };
    let (attest, signature, pcrs, hpke_public) = (vec![], vec![], vec![], [0; 32]);
    let quote = QuoteAnswer { attest, signature, pcrs, hpke_public, continuity: Some(*CANARY) };
    let bundle = json!({
        "format": 1, "deployment": "07".repeat(16), "central": [], "root-ca": "", "site": "udc1",
        "hosts": [{ "name": "udc1-001", "token": STANDARD.encode(CANARY), "expires": "2026-01-01T00:00:00Z" }],
    });
    let bundle: SiteBundle = serde_json::from_value(bundle).unwrap();
    let share = || Share::new(1, secret()).unwrap();
    let tried: Vec<(&str, Box<dyn Debug>)> = vec![
        ("Secret<N>", Box::new(secret())),
        ("SecretBytes", Box::new(SecretBytes::new(CANARY.to_vec()))),
        ("SecretText", Box::new(SecretText::from(text()))),
        ("Reveal", Box::new(Reveal(SecretText::from(text())))),
        ("JoinToken", Box::new(JoinToken(secret()))),
        ("SiteBundle", Box::new(bundle)),
        ("Enrol", Box::new(enrol)),
        ("QuoteAnswer", Box::new(quote)),
        ("Release", Box::new(release())),
        ("Sealed::Release", Box::new(Sealed::Release(release()))),
        ("Sealed::Rewrap", Box::new(Sealed::Rewrap(seal_key()))),
        (
            "Sealed::DistKey",
            Box::new(Sealed::DistKey { tenant: "a".parse().unwrap(), epoch: DistEpoch(1), key: secret() }),
        ),
        ("Continuity", Box::new(Continuity { current: Some(*CANARY), next: *CANARY })),
        ("Share", Box::new(share())),
        ("Proof::Shares", Box::new(Proof::Shares(vec![share()]))),
        ("Proof::SealKey", Box::new(Proof::SealKey(secret()))),
        ("FreshSeal", Box::new(FreshSeal::draw(&Canary))),
        (
            "FreshStart",
            Box::new(FreshStart { root: secret(), deployment: DeploymentId([1; 16]), seal: FreshSeal::draw(&Canary) }),
        ),
        ("RealmKeys", Box::new(RealmKeys::new(secret(), secret()))),
        ("Keyring", Box::new(Keyring::new(DeploymentId([1; 16]), secret()))),
    ];
    for (what, value) in &tried {
        shows_nothing(what, value);
    }
    // These hold what is made of their seed.
    let (signing, kem) = (SigningKey::from_seed(&secret()), KemSecret::from_seed(&secret()));
    let mut made = Canaries::default();
    made.add("scalar", hkdf(CANARY, "holdfast/signing-key/v1", &[0]).expose());
    for shown in [format!("{signing:#?}"), format!("{kem:#?}")] {
        assert!(made.find(shown.as_bytes()).is_empty() && shown == "[redacted]", "{shown}");
    }
    let names: BTreeSet<&str> = tried.iter().map(|(what, _)| *what).chain(["SigningKey", "KemSecret"]).collect();
    assert!(SECRET.iter().all(|name| names.contains(name)), "all that hold secrets are tried");
    Figures::of("printing")
        .add("types that hold secrets, formatted", names.len())
        .add("types with a derived Debug, read", derived().len())
        .publish()
        .unwrap();
}

#[test]
fn no_refusal_repeats_what_it_was_given() {
    let (text, encoded) = (text(), STANDARD.encode(CANARY));
    let toml =
        |key: &str| format!("data_dir = \"x\"\n{key} = \"{text}\"\n[operator]\nadmin_identities = [\"{encoded}\"]\n");
    let bundle = json!({ "format": text, "hosts": [{ "name": text, "token": text }] });
    let wrong_type = json!({
        "format": 1, "deployment": "07".repeat(16), "central": [], "root-ca": "", "site": "udc1",
        "hosts": [{ "name": "udc1-001", "token": [text.clone()], "expires": "" }],
    });
    let key = format!("-----BEGIN PRIVATE KEY-----\n{encoded}\n-----END PRIVATE KEY-----\n");
    let refusals = [
        format!("{:?}", Proof::parse(Some(&text), None).unwrap_err()),
        Proof::parse(None, Some(std::slice::from_ref(&text))).unwrap_err().to_string(),
        Proof::parse(Some(&encoded), Some(std::slice::from_ref(&text))).unwrap_err().to_string(),
        format!("{:?}", format!("0:{encoded}").parse::<Share>().unwrap_err()),
        format!("1:{text}").parse::<Share>().unwrap_err().to_string(),
        serde_json::from_value::<SiteBundle>(json!({ "token": text })).unwrap_err().to_string().replace("token", ""),
        serde_json::from_value::<SiteBundle>(wrong_type).unwrap_err().to_string(),
        format!("{:?}", pem::decode_private_key(&key).unwrap_err()),
        pem::decode_private_key(&text).unwrap_err().to_string(),
        holdfast_site_agent::Config::parse(&toml("seal_key")).unwrap_err().to_string(),
        holdfast_site_agent::Config::parse(&format!("data_dir = {text}")).unwrap_err().to_string(),
        holdfast_site_agent::Config::parse(&format!("[log]\nlevel = \"{text}\"")).unwrap_err().to_string(),
    ];
    for refusal in &refusals {
        assert!(!refusal.is_empty());
        assert_eq!(canaries().find(refusal.as_bytes()), Vec::<&str>::new(), "{refusal}");
    }
    // A member that is no secret may be named; what the format of a bundle is, for one.
    assert!(serde_json::from_value::<SiteBundle>(bundle).is_err());
}

/// Each type with a derived `Debug`, with its body.
fn derived() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, source) in sources() {
        let of_product = PRODUCT.iter().any(|folder| path.starts_with(root().join(folder).join("src")));
        if !of_product || path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        for piece in source.split("#[derive(").skip(1) {
            let Some((derives, rest)) = piece.split_once(")]") else { continue };
            let head = rest.lines().find(|line| line.contains("struct ") || line.contains("enum "));
            let Some(head) = head.filter(|_| derives.contains("Debug")) else { continue };
            let named = head.split("struct ").nth(1).or(head.split("enum ").nth(1)).unwrap_or_default();
            let name = named.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
            let body = rest.split_once(head).map_or("", |(_, body)| body);
            let end = if head.trim_end().ends_with('{') { body.find("\n}").unwrap_or(body.len()) } else { 0 };
            found.push((name.to_owned(), format!("{head}\n{}", &body[..end])));
        }
    }
    found
}

#[test]
fn whatever_prints_itself_was_looked_at() {
    let mut by_hand = BTreeSet::new();
    for (path, source) in sources() {
        if PRODUCT.iter().any(|folder| path.starts_with(root().join(folder).join("src"))) && !path.ends_with("tests.rs")
        {
            let names =
                source.split("Debug for ").skip(1).map(|rest| rest.split([' ', '\n']).next().unwrap_or_default());
            by_hand.extend(names.map(str::to_owned));
        }
    }
    let known: BTreeSet<String> = SECRET.iter().chain(&OPEN).map(|name| (*name).to_owned()).collect();
    assert_eq!(by_hand, known, "a Debug that is written by hand stands in one of the two lists");

    let derived = derived();
    assert!(derived.len() > 150, "the sources are read: {}", derived.len());
    let mut shown = Vec::new();
    for (name, body) in &derived {
        for member in body.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with('#')) {
            let member =
                member.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").trim_start_matches("pub ");
            let called = member.split(':').next().unwrap_or_default();
            let plain = ["String", "Vec<u8>", "[u8;", "&str"].iter().any(|of| member.contains(of));
            let secret = ["secret", "token", "passw", "seed", "sealkey", "seal_key", "kek", "private", "continuity"];
            let secret = secret.iter().any(|word| called.contains(word)) || called == "key" || called.ends_with("_key");
            let harmless = HARMLESS.contains(&(name.as_str(), member.trim_end_matches(',')));
            if member.contains("Zeroizing<") || (plain && secret && !harmless) {
                shown.push(format!("{name}: {member}"));
            }
        }
    }
    let is_there =
        |(name, member): &&(&str, &str)| derived.iter().any(|(of, body)| of == name && body.contains(member));
    assert_eq!(HARMLESS.iter().find(|entry| !is_there(entry)), None, "an exception that is none any more");
    assert_eq!(shown, Vec::<String>::new(), "members that a derived Debug would show");
}
