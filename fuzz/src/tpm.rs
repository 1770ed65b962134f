//! What comes from a TPM, or says so: beside an independent parser. Whatever ours takes, that takes too, and writes it
//! back as the same bytes; what only the other takes is refused by us for one of a few reasons.

use std::sync::OnceLock;

use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::soft::{self, SoftTpm};
use holdfast_protocol::tpm::{
    Attest, Credential, Key, Public, TpmError, alg, ek_cert, make_credential, verify_signature,
};
use tpm2_protocol::data::{TpmsAttest, TpmtPublic, TpmtSignature, TpmuAttest};
use tpm2_protocol::{TpmMarshal, TpmUnmarshal, TpmWriter};

use crate::{Memory, choose, chosen};

/// The other parser has buffers of fixed sizes, and a certificate is read into a tree.
pub const MEMORY: Memory = Memory { fixed: 256 << 10, each: 128 };

/// Reads `data` as what its first byte says.
pub fn target(data: &[u8]) {
    let Some((which, bytes)) = choose(data) else { return };
    match which % 6 {
        0 => attest(bytes),
        1 => public(bytes),
        2 => signature(bytes),
        3 => credential(bytes),
        4 => certificate(bytes),
        _ => quote_of_its_key(bytes),
    }
}

/// What the other parser writes of a structure.
fn written(value: &impl TpmMarshal) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let mut writer = TpmWriter::new(&mut buffer);
    value.marshal(&mut writer).expect("what was read can be written");
    let length = writer.len();
    buffer.truncate(length);
    buffer
}

/// The structure, if the other parser takes `bytes` as exactly one.
fn theirs<T: TpmUnmarshal>(bytes: &[u8]) -> Option<T> {
    T::unmarshal(bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
}

fn attest(bytes: &[u8]) {
    let theirs = theirs::<TpmsAttest>(bytes);
    let ours = match Attest::parse(bytes) {
        Ok(ours) => ours,
        Err(why) => return assert!(theirs.is_none_or(|theirs| is_stricter_on_quotes(&theirs, why)), "{why}"),
    };
    let theirs = theirs.expect("only we took it");
    assert_eq!(written(&theirs), bytes, "read otherwise than it stands there");
    assert_eq!(theirs.qualified_signer.as_ref(), &ours.qualified_signer[..]);
    assert_eq!(theirs.extra_data.as_ref(), &ours.extra_data[..]);
    let clock = theirs.clock_info;
    let counters = (clock.reset_count.value(), clock.restart_count.value(), clock.clock.value());
    assert_eq!(counters, (ours.counters.reset_count, ours.counters.restart_count, ours.counters.clock));
    assert_eq!((bool::from(clock.safe), theirs.firmware_version.value()), (ours.safe, ours.firmware));
    let TpmuAttest::Quote(quote) = theirs.attested else { panic!("only we read a quote") };
    assert_eq!(quote.pcr_digest.as_ref(), &ours.pcr_digest[..]);
    assert_eq!(quote.pcr_select.len(), ours.selections.len());
    for selection in &ours.selections {
        assert!(selection.pcrs.is_sorted() && selection.pcrs.iter().all(|pcr| *pcr < 32), "{selection:?}");
    }
}

/// Why we refuse attestations that are well formed: other kinds than quotes; more than any TPM says.
fn is_stricter_on_quotes(theirs: &TpmsAttest, why: TpmError) -> bool {
    match why {
        TpmError::Unaccepted { what: "kind of attestation", .. } => !matches!(theirs.attested, TpmuAttest::Quote(_)),
        TpmError::Unaccepted { what: "magic" | "hash" | "number of PCR banks" | "length of a PCR bitmap", .. } => true,
        TpmError::Length { what: "qualified signer" | "extra data" | "PCR digest", .. } => true,
        _ => false,
    }
}

fn public(bytes: &[u8]) {
    let theirs = theirs::<TpmtPublic>(bytes);
    let ours = match Public::parse(bytes) {
        Ok(ours) => ours,
        Err(why) => return assert!(theirs.is_none() || is_stricter_on_keys(why), "{why}"),
    };
    let theirs = theirs.expect("only we took it");
    assert_eq!(written(&theirs), bytes, "read otherwise than it stands there");
    assert_eq!(ours.raw(), bytes);
    assert_eq!(theirs.object_attributes.bits(), ours.attributes);
    assert_eq!(theirs.auth_policy.as_ref(), &ours.policy[..]);
    assert!(ours.check_ek().is_err() || ours.check_ak().is_err(), "both an endorsement and an attestation key");
    assert_eq!(ours.name()[..2], alg::SHA256.to_be_bytes());
    if ours.check_ek().is_ok() {
        let (sent, seed) = (secret(3), secret(4));
        // A modulus that no key has makes an error, never a panic.
        let made = make_credential(&ours, &ours.name(), &sent, &seed);
        assert!(matches!(made, Ok(_) | Err(TpmError::Unencryptable)));
        assert!(made.is_ok() || matches!(ours.key, Key::Rsa(_)), "nothing speaks against a point of the curve");
    }
}

/// Why we refuse keys that are well formed: kinds and parameters that no role here has, and points off the curve.
fn is_stricter_on_keys(why: TpmError) -> bool {
    const PARAMETERS: [&str; 12] = [
        "kind of key",
        "name algorithm",
        "hash",
        "symmetric cipher",
        "bits of an AES key",
        "cipher mode",
        "scheme",
        "bits of an RSA key",
        "RSA exponent",
        "curve",
        "key derivation scheme",
        "modulus",
    ];
    match why {
        TpmError::Unaccepted { what, .. } => PARAMETERS.contains(&what),
        TpmError::Length { what, .. } => ["policy", "modulus", "coordinate"].contains(&what),
        TpmError::OffCurve => true,
        // What the other reads as a symmetric or hashing key ends elsewhere than a key of ours.
        TpmError::Truncated { .. } | TpmError::Trailing { .. } => true,
        _ => false,
    }
}

/// The quote that the signatures are offered for.
const QUOTED: &[u8] = b"no TPM signs this as a quote";

/// No signature over this holds but the one that was made: the first byte says by which key.
fn signature(bytes: &[u8]) {
    let Known { tpm, ak, .. } = known();
    if verify_signature(ak, QUOTED, bytes).is_ok() {
        assert_eq!(bytes, tpm.sign(QUOTED), "taken, and never made");
        assert_eq!(theirs::<TpmtSignature>(bytes).map(|theirs| written(&theirs)).as_deref(), Some(bytes));
    }
}

/// No credential opens but one that was made for this TPM and key.
fn credential(bytes: &[u8]) {
    let tpm = &known().tpm;
    let Ok(offered) = holdfast_protocol::codec::decode::<Credential>(bytes, 1 << 10) else { return };
    if tpm.activate_credential(&offered).is_some() {
        assert_eq!(offered, made_credential(), "opened, and never made");
    }
}

fn made_credential() -> Credential {
    let Known { ek, ak, .. } = known();
    make_credential(ek, &ak.name(), &secret(3), &secret(4)).expect("a default key")
}

/// A certificate is taken as it is, padded or not; none is for a key that it does not name, and no other is signed by
/// an authority than the one that was.
fn certificate(bytes: &[u8]) {
    let Ok(trimmed) = ek_cert::trim(bytes) else { return };
    assert!(bytes.starts_with(trimmed));
    assert_eq!(ek_cert::trim(trimmed), Ok(trimmed), "trimming twice differs");
    let _ = ek_cert::chain_ok(bytes, &[bytes], 0);
    assert!(ek_cert::check_key(bytes, &known().ek).is_err(), "no certificate was made for this key");
}

/// What its own key signs is read as carefully: the signature holds, the contents are whatever they are.
fn quote_of_its_key(bytes: &[u8]) {
    let Known { tpm, ak, .. } = known();
    let signature = tpm.sign(bytes);
    assert_eq!(verify_signature(ak, bytes, &signature), Ok(()));
    attest(bytes);
    let mut changed = bytes.to_vec();
    if let Some(first) = changed.first_mut() {
        *first ^= 1;
        assert_eq!(verify_signature(ak, &changed, &signature), Err(TpmError::Signature));
    }
}

/// A software TPM with its keys, made once.
struct Known {
    tpm: SoftTpm,
    ek: Public,
    ak: Public,
}

fn known() -> &'static Known {
    static KEPT: OnceLock<Known> = OnceLock::new();
    KEPT.get_or_init(|| {
        let tpm = SoftTpm::from_seed(&secret(1));
        Known { ek: tpm.ek_public(), ak: tpm.ak_public(), tpm }
    })
}

fn secret(byte: u8) -> Secret<32> {
    Secret::fill_with(|into| into.fill(byte))
}

/// What a software TPM of our own makes; what real ones made is kept in the corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut tpm = SoftTpm::from_seed(&secret(1));
    tpm.extend(0, &[7; 32]);
    let quote = tpm.quote(&[9; 32], &[0, 4, 7]);
    let point = SigningKey::from_seed(&secret(9));
    vec![
        chosen(0, &quote.attest),
        chosen(1, &soft::ak_public(point.public())),
        chosen(1, &soft::ek_public(point.public())),
        chosen(2, &tpm.sign(QUOTED)),
        chosen(3, &holdfast_protocol::codec::encode(&made_credential())),
        chosen(5, &quote.attest),
    ]
}
