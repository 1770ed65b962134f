//! What is signed or encrypted: bundles, signed values, envelopes, messages of a session. Twice each: as bytes that
//! anybody may send, of which none may be taken that was not made; and as what the holder of a key may have sealed in,
//! which must be decoded as carefully as if it were not.

use std::sync::OnceLock;

use holdfast_protocol::bundle::{self, Header, Item};
use holdfast_protocol::codec::{self, length_prefixed};
use holdfast_protocol::crypto::kem::{self, KemSecret};
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::envelope;
use holdfast_protocol::ids::HostId;
use holdfast_protocol::secret::Secret;
use holdfast_protocol::session::{open_message, seal_message};
use holdfast_protocol::signed::{self, SIGNED_BYTES_MAX};
use holdfast_protocol::wire::{Head, Lease, Notice, Sealed, Signable, Signed, WipeReceipt};

use crate::reread::reread;
use crate::{Memory, choose, chosen, corpus};

/// Rows of a bundle are 56 bytes in memory for 3 on the wire.
pub const MEMORY: Memory = Memory { fixed: 64 << 10, each: 512 };

/// As in the golden files.
const KEY: u8 = 0x4b;
const NONCE: [u8; 24] = [0x24; 24];
const COUNTER: u64 = 300;

/// Reads `data` as the sealed thing that its first byte says.
pub fn target(data: &[u8]) {
    let Some((which, bytes)) = choose(data) else { return };
    match which % 8 {
        0 => bundle_from_anybody(bytes),
        1 => bundle_of_its_signer(bytes),
        2 => signed_from_anybody(bytes),
        3 => signed_by_its_signer(bytes),
        4 => envelope_from_anybody(bytes),
        5 => envelope_of_its_key(bytes),
        6 => session_of_its_key(bytes),
        _ => session_key_from_anybody(bytes),
    }
}

fn key() -> &'static Secret<32> {
    static KEPT: OnceLock<Secret<32>> = OnceLock::new();
    KEPT.get_or_init(|| secret(KEY))
}

/// The signer of the golden files.
fn signer() -> &'static SigningKey {
    static KEPT: OnceLock<SigningKey> = OnceLock::new();
    KEPT.get_or_init(|| SigningKey::from_seed(&secret(0x51)))
}

fn secret(byte: u8) -> Secret<32> {
    Secret::fill_with(|into| into.fill(byte))
}

fn host() -> HostId {
    let name = "these are names";
    HostId { site: "udc1".parse().expect(name), host: "udc1-001".parse().expect(name) }
}

/// A bundle that holds was made by us, bit for bit: nobody else has the key.
fn bundle_from_anybody(bytes: &[u8]) {
    let Ok(verified) = bundle::verify(bytes, signer().public()) else { return };
    let items = verified.open(key()).expect("whoever signs has encrypted under this key");
    assert_eq!(bundle::encode(&verified.header, &items, key(), NONCE, signer()), bytes, "taken, and never made");
    assert!(bundle::verify(&[bytes, &[0]].concat(), signer().public()).is_err(), "a byte followed");
}

/// The first two bytes are the header's length; header and rows are the signer's, whatever they are.
fn bundle_of_its_signer(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (header, rows) = rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()));
    let sealed = envelope::seal(key(), 1, NONCE, header, rows);
    let mut whole = length_prefixed(&[header, &sealed]);
    let signature = signer().sign(&length_prefixed(&[b"holdfast/bundle/v1", &whole]));
    whole.extend_from_slice(&signature);
    let Ok(verified) = bundle::verify(&whole, signer().public()) else {
        assert!(reread::<Header>(header, 1 << 10).is_none(), "a good header was refused");
        return;
    };
    reread::<Header>(header, 1 << 10).expect("what a bundle takes is a header");
    let opened = verified.open(key()).ok().map(|items| codec::encode(&items));
    let read = reread::<Vec<Item>>(rows, 1 << 20).map(|items| codec::encode(&items));
    assert_eq!(opened, read, "rows are read otherwise than alone");
}

fn signed_from_anybody(bytes: &[u8]) {
    let Ok(offered) = codec::decode::<Signed>(bytes, 1 << 20) else { return };
    none_but_made::<Head>(&offered);
    none_but_made::<Notice>(&offered);
    none_but_made::<Lease>(&offered);
    none_but_made::<WipeReceipt>(&offered);
}

fn none_but_made<T: Signable>(offered: &Signed) {
    if let Ok(value) = signed::open::<T>(offered, signer().public()) {
        let made = signed::sign(&value, signer(), offered.signer.clone());
        assert_eq!(made, *offered, "taken, and never made");
    }
}

fn signed_by_its_signer(body: &[u8]) {
    signed_body::<Head>(body);
    signed_body::<Notice>(body);
    signed_body::<Lease>(body);
    signed_body::<WipeReceipt>(body);
}

fn signed_body<T: Signable>(body: &[u8]) {
    let signature = signer().sign(&length_prefixed(&[T::DOMAIN.as_bytes(), body])).to_vec();
    let offered = Signed { body: body.to_vec(), signer: Vec::new(), signature };
    let opened = signed::open::<T>(&offered, signer().public()).is_ok();
    assert_eq!(opened, reread::<T>(body, SIGNED_BYTES_MAX).is_some());
}

/// An envelope that opens is the one that was made of its contents.
fn envelope_from_anybody(bytes: &[u8]) {
    let Ok(opened) = envelope::open(|_| Some(key()), b"aad", bytes) else { return };
    let id = envelope::key_id(bytes).expect("it was opened");
    assert_eq!(envelope::seal(key(), id, NONCE, b"aad", opened.expose()), bytes, "opened, and never made");
}

/// The first four bytes say what is changed, the rest is the plaintext: unchanged it opens, changed it does not.
fn envelope_of_its_key(bytes: &[u8]) {
    let Some(([high, low, bit, id], plain)) = bytes.split_first_chunk::<4>() else { return };
    let made = envelope::seal(key(), (*id).into(), NONCE, b"aad", plain);
    let open = |bytes: &[u8], aad: &[u8]| envelope::open(|_| Some(key()), aad, bytes);
    assert_eq!(open(&made, b"aad").expect("what we make opens").expose(), plain);
    assert!(open(&made, b"aae").is_err(), "opened with other associated data");
    let at = usize::from(u16::from_be_bytes([*high, *low])) % made.len();
    let mut changed = made.clone();
    changed[at] ^= 1 << (bit % 8);
    assert!(open(&changed, b"aad").is_err(), "byte {at} was changed");
    assert!(open(&made[..at], b"aad").is_err(), "cut at {at}");
    assert!(open(&[&made[..], &[*bit]].concat(), b"aad").is_err(), "a byte followed");
}

fn session_of_its_key(plain: &[u8]) {
    let aad = length_prefixed(&[b"holdfast/session/v1", b"udc1", b"udc1-001", &COUNTER.to_be_bytes()]);
    let made = envelope::seal(key(), 1, NONCE, &aad, plain);
    let opened = open_message(key(), &host(), COUNTER, COUNTER, &made);
    assert_eq!(opened.is_ok(), reread::<Sealed>(plain, 2 << 20).is_some());
    assert!(open_message(key(), &host(), COUNTER + 1, COUNTER + 1, &made).is_err(), "opened as another message");
    if let Ok(message) = opened {
        let again = seal_message(key(), NONCE, &host(), COUNTER, &message);
        assert!(open_message(key(), &host(), COUNTER, COUNTER, &again).is_ok());
    }
}

/// A session key is for whoever made the key pair; of what anybody sends nothing opens but what was sent to it.
fn session_key_from_anybody(bytes: &[u8]) {
    static KEPT: OnceLock<(KemSecret, kem::Message)> = OnceLock::new();
    let (pair, made) = KEPT.get_or_init(|| {
        let pair = KemSecret::from_seed(&secret(1));
        let made = kem::seal(pair.public(), b"info", b"aad", b"session key", &secret(2)).expect("a usable key");
        (pair, made)
    });
    let Some(message) = reread::<kem::Message>(bytes, 1 << 10) else { return };
    assert_eq!(pair.open(b"info", b"aad", &message).is_ok(), message == *made, "opened, and never made");
}

/// The golden files, and the contents of some.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        chosen(4, &envelope::seal(key(), 7, NONCE, b"aad", b"plaintext")),
        chosen(5, b"\0\x21\x03\x07plaintext"),
        chosen(
            7,
            &codec::encode(
                &kem::seal(KemSecret::from_seed(&secret(1)).public(), b"info", b"aad", b"session key", &secret(2))
                    .expect("a usable key"),
            ),
        ),
    ];
    for (name, bytes) in corpus::golden() {
        if name.starts_with("bundle.") {
            seeds.extend(contents(&bytes).map(|contents| chosen(1, &contents)));
            seeds.push(chosen(0, &bytes));
        } else if name.starts_with("signed.") {
            seeds.push(chosen(2, &bytes));
        } else if ["head.", "notice.", "lease.", "wipe-receipt."].iter().any(|prefix| name.starts_with(prefix)) {
            seeds.push(chosen(3, &bytes));
        } else if name.starts_with("sealed.") {
            seeds.push(chosen(6, &bytes));
        }
    }
    seeds
}

/// Header and rows of a golden bundle, as [`bundle_of_its_signer`] takes them.
fn contents(bytes: &[u8]) -> Option<Vec<u8>> {
    let verified = bundle::verify(bytes, signer().public()).ok()?;
    let (header, rows) = (codec::encode(&verified.header), codec::encode(&verified.open(key()).ok()?));
    Some([&u16::try_from(header.len()).ok()?.to_be_bytes()[..], &header, &rows].concat())
}
