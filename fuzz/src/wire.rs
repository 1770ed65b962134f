//! Messages between a host and central, both ways and on both protocols, and their parts.

use holdfast_protocol::ids::{HostId, HostName, SiteName, TenantName};
use holdfast_protocol::limits::{ENROL_FRAME_BYTES_MAX, FRAME_BYTES_MAX, NAME_BYTES_MAX};
use holdfast_protocol::signed::SIGNED_BYTES_MAX;
use holdfast_protocol::wire::{
    EnrolAnswer, EnrolRequest, FromCentral, FromHost, Head, Hello, Lease, LocalShare, Notice,
    REMOTE_SEAL_KEYS_BYTES_MAX, RemoteSealKey, RemoteSealKeys, RotationReceipt, SIBLING_FRAME_BYTES_MAX, Sealed,
    SiblingAnswer, SiblingAsk, Signed, UNSEAL_CHALLENGE_BYTES_MAX, UnsealChallenge, UnsealPermit, WipeReceipt,
};

use crate::reread::reread;
use crate::{Memory, choose, chosen, corpus};

/// A list of short texts takes the most for its length: one byte on the wire is 24 in memory, twice while a list grows,
/// and all of it is read a few times over.
pub const MEMORY: Memory = Memory { fixed: 16 << 10, each: 256 };

/// Reads `data` as the message that its first byte says.
pub fn target(data: &[u8]) {
    let Some((which, bytes)) = choose(data) else { return };
    match which % 22 {
        0 => enrol_request(bytes),
        1 => drop(reread::<EnrolAnswer>(bytes, ENROL_FRAME_BYTES_MAX)),
        2 => from_host(bytes),
        3 => from_central(bytes),
        4 => drop(reread::<Sealed>(bytes, FRAME_BYTES_MAX)),
        5 => drop(reread::<Signed>(bytes, FRAME_BYTES_MAX)),
        6 => drop(reread::<Head>(bytes, SIGNED_BYTES_MAX)),
        7 => drop(reread::<Notice>(bytes, SIGNED_BYTES_MAX)),
        8 => drop(reread::<Lease>(bytes, SIGNED_BYTES_MAX)),
        9 => drop(reread::<WipeReceipt>(bytes, SIGNED_BYTES_MAX)),
        10 => drop(reread::<Hello>(bytes, FRAME_BYTES_MAX)),
        11 => name::<TenantName>(bytes),
        12 => name::<SiteName>(bytes),
        13 => name::<HostName>(bytes),
        14 => drop(reread::<UnsealPermit>(bytes, SIGNED_BYTES_MAX)),
        15 => drop(reread::<RemoteSealKey>(bytes, SIGNED_BYTES_MAX)),
        16 => drop(reread::<RemoteSealKeys>(bytes, REMOTE_SEAL_KEYS_BYTES_MAX)),
        17 => drop(reread::<UnsealChallenge>(bytes, UNSEAL_CHALLENGE_BYTES_MAX)),
        18 => drop(reread::<SiblingAsk>(bytes, SIBLING_FRAME_BYTES_MAX)),
        19 => drop(reread::<SiblingAnswer>(bytes, SIBLING_FRAME_BYTES_MAX)),
        20 => drop(reread::<RotationReceipt>(bytes, SIGNED_BYTES_MAX)),
        _ => drop(reread::<LocalShare>(bytes, SIGNED_BYTES_MAX)),
    }
}

fn enrol_request(bytes: &[u8]) {
    match reread::<EnrolRequest>(bytes, ENROL_FRAME_BYTES_MAX) {
        Some(EnrolRequest::Enrol(enrol)) => host_is_sound(&enrol.host),
        Some(EnrolRequest::Notice { host, .. }) => host_is_sound(&host),
        _ => {}
    }
}

fn from_host(bytes: &[u8]) {
    match reread::<FromHost>(bytes, FRAME_BYTES_MAX) {
        Some(FromHost::Applied(held) | FromHost::OutOfStep(held)) => is_sound(held.tenant.as_str()),
        Some(FromHost::Hello(hello)) => hello.positions.iter().for_each(|held| is_sound(held.tenant.as_str())),
        _ => {}
    }
}

/// What is printed of a message shows no byte of what must stay secret; here it must at least be printable.
fn from_central(bytes: &[u8]) {
    if let Some(message) = reread::<FromCentral>(bytes, FRAME_BYTES_MAX) {
        let _ = format!("{message:?}");
    }
}

fn host_is_sound(host: &HostId) {
    is_sound(host.site.as_str());
    is_sound(host.host.as_str());
    assert_eq!(host.to_string().split('/').count(), 2, "a host's address has one slash");
}

/// What every name must be: it stands in paths, certificates and logs.
pub(crate) fn is_sound(name: &str) {
    assert!((1..=NAME_BYTES_MAX).contains(&name.len()));
    assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name:?}");
    assert!(!name.starts_with('-') && !name.ends_with('-'), "{name:?}");
}

/// A name by its text and by its encoding: both take the same, and print it as it came.
fn name<T>(bytes: &[u8])
where
    T: std::str::FromStr + std::fmt::Display + Into<String> + serde::Serialize + serde::de::DeserializeOwned + Clone,
{
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let encoded = holdfast_protocol::codec::encode(&text);
    let decoded = reread::<T>(&encoded, FRAME_BYTES_MAX);
    let parsed = text.parse::<T>().ok();
    assert_eq!(parsed.is_some(), decoded.is_some(), "{text:?}");
    for name in parsed.into_iter().chain(decoded) {
        assert_eq!(name.to_string(), text);
        is_sound(&Into::<String>::into(name));
    }
}

/// The golden files, each as what it is.
pub fn seeds() -> Vec<Vec<u8>> {
    let kinds = [
        ("enrol-request.", 0),
        ("enrol-answer.", 1),
        ("from-host.", 2),
        ("from-central.", 3),
        ("sealed.", 4),
        ("signed.", 5),
        ("head.", 6),
        ("notice.", 7),
        ("lease.", 8),
        ("wipe-receipt.", 9),
        ("hello.", 10),
        ("unseal-permit.", 14),
        ("remote-seal-key.", 15),
        ("remote-seal-keys.", 16),
        ("unseal-challenge.", 17),
        ("sibling-ask.", 18),
        ("sibling-answer.", 19),
        ("rotation-receipt.", 20),
        ("local-share.", 21),
    ];
    let mut seeds = Vec::new();
    for (name, bytes) in corpus::golden() {
        let kind = kinds.iter().find(|(prefix, _)| name.starts_with(prefix));
        seeds.extend(kind.map(|(_, which)| chosen(*which, &bytes)));
    }
    for (which, name) in [(11, "acme"), (12, "udc1"), (13, "udc1-001")] {
        seeds.push(chosen(which, name.as_bytes()));
    }
    seeds
}
