//! Formats of KES that strangers send: ciphertexts, files with keys, patterns, lists, API keys, names and identities.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::access_control::globs::Globbing;
use holdfast_actors::access_control::policies::Origin;
use holdfast_actors::distribute::Distribute;
use holdfast_actors::key_store::{
    FreshKey, KeyVersion, Listed, Listing, Material, TransitKey, Unusable, VersionState, decrypt, encrypt,
};
use holdfast_actors::secret_store::Stamp;
use holdfast_protocol::crypto::transit::{Cipher, Salt, TAG_BYTES};
use holdfast_protocol::kes::ciphertext::to_json;
use holdfast_protocol::kes::key_file::{CREATED_BY_BYTES_MAX, KEY_FILE_BYTES_MAX};
use holdfast_protocol::kes::{ApiKey, Ciphertext, Form, Identity, KeyFile, KeyName};
use holdfast_protocol::secret::Secret;

use crate::{Memory, choose, chosen};

/// A ciphertext is decoded and decrypted; a list holds names.
pub const MEMORY: Memory = Memory { fixed: 64 << 10, each: 64 };

/// Reads `data` as what its first byte says.
pub fn target(data: &[u8]) {
    let Some((which, bytes)) = choose(data) else { return };
    match which % 6 {
        0 => return ciphertext(bytes),
        1 => return key_file(bytes),
        2 => return plaintext(bytes),
        _ => {}
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match which % 6 {
        3 => pattern(text),
        4 => listing(text),
        _ => spelling(text),
    }
}

/// Two versions; nothing was ever encrypted with them but here.
fn key() -> TransitKey {
    let version = |number: u8, cipher, state| KeyVersion {
        number: number.into(),
        hint: [number; 4],
        state,
        created: Stamp { by: "ann".to_owned(), at_us: 0 },
        material: Material::fresh(cipher, &FreshKey { key: secret(number), hmac_key: secret(9) }),
    };
    let retired = VersionState::DecryptOnly { since_us: 0, why: holdfast_actors::key_store::Why::Rotated };
    let versions =
        vec![version(1, Cipher::ChaCha20Poly1305, retired), version(2, Cipher::Aes256Gcm, VersionState::Active)];
    TransitKey { distribute: Distribute::default(), origin: Origin::Api, next: 3, versions }
}

fn secret(byte: u8) -> Secret<32> {
    Secret::fill_with(|into| into.fill(byte))
}

/// What is taken has all its parts, means the same in another form, and opens with no key that did not make it.
fn ciphertext(bytes: &[u8]) {
    let taken = match Ciphertext::parse(bytes) {
        Ok(taken) => taken,
        Err(why) => {
            assert!(bytes.len() < 44 || bytes.starts_with(b"{") || bytes.starts_with(&[0x95]), "{why}");
            return assert!(matches!(decrypt(&key(), b"", bytes), Err(Unusable::NotAuthentic(Some(_)))));
        }
    };
    assert!(TAG_BYTES <= taken.sealed.len());
    assert_eq!(taken.cipher.is_none(), taken.form == Form::Raw);
    if taken.form == Form::Raw {
        assert_eq!([&taken.sealed[..], &taken.salt.vector, &taken.salt.nonce].concat(), bytes);
    }
    let cipher = taken.cipher.unwrap_or(Cipher::Aes256Gcm);
    let json = to_json(cipher, &taken.salt, &taken.sealed);
    let again = Ciphertext::parse(&json).expect("what we write is read");
    assert_eq!((again.form, again.cipher, again.salt), (Form::Json, Some(cipher), taken.salt));
    assert_eq!(again.sealed, taken.sealed);
    assert!(decrypt(&key(), b"another", bytes).is_err(), "nobody has made this");
}

/// Whatever is encrypted comes back, and in each form only with its context.
fn plaintext(bytes: &[u8]) {
    let key = key();
    for form in [Form::Raw, Form::Json] {
        let salt = Salt { vector: [bytes.len() as u8; 16], nonce: [7; 12] };
        let (text, _) = encrypt(&key, salt, bytes, bytes, form).expect("its last version encrypts");
        let (opened, version) = decrypt(&key, bytes, &text).expect("it was just made");
        assert!(opened.ct_eq(bytes) && version == 2);
        assert!(decrypt(&key, &[bytes, &[0]].concat(), &text).is_err());
    }
}

fn key_file(bytes: &[u8]) {
    let Ok(file) = KeyFile::parse(bytes) else { return };
    assert!(bytes.len() <= KEY_FILE_BYTES_MAX);
    assert!(file.created_us.is_none_or(|us| 0 < us));
    assert!(file.created_by.as_ref().is_none_or(|by| by.len() <= CREATED_BY_BYTES_MAX && !by.contains('\n')));
    assert!(format!("{file:?}").contains("key: [redacted]"));
}

/// A pattern, 0x1f, and what it is tried on.
fn pattern(text: &str) {
    let (pattern, text) = text.split_once('\u{1f}').unwrap_or((text, text));
    let is_pattern = Globbing::Segments.check(pattern).is_ok();
    let takes = Globbing::Segments.matches(pattern, text);
    assert!(is_pattern || !takes);
    let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
    assert!(text.is_empty() || !text.is_ascii() || Globbing::Segments.matches(&escaped, text), "{text:?}");
    // A star takes no separator, so as many as are in the text are in whatever takes it, if only in a class.
    if !pattern.contains(['/', '[']) {
        assert!(!takes || !text.contains('/'), "{pattern:?} {text:?}");
    }
    let prefix = format!("{text}*");
    assert!(Globbing::Prefixes.matches(&prefix, &format!("{text}{pattern}")));
    assert!(pattern.ends_with('*') || Globbing::Prefixes.matches(pattern, text) == (pattern == text));
}

/// However a list is begun, its pages are complete.
fn listing(text: &str) {
    if let Ok(listing) = Listing::segments(text) {
        assert_eq!(listing.page(&names(), 1).continue_at, None);
    }
    let Ok(listing) = Listing::prefix(text) else { return };
    let whole = listing.page(&names(), NAMES.len());
    assert_eq!(whole.continue_at, None);
    let (mut found, mut next) = (Vec::new(), Some(text.to_owned()));
    while let Some(text) = next {
        let page = Listing::prefix(&text).expect("we said so").page(&names(), 2);
        found.extend(page.found);
        next = page.continue_at;
    }
    assert_eq!(found, whole.found);
}

/// In their order.
const NAMES: [&str; 7] = ["A", "_a", "a", "a-b", "ab", "b", "key"];

fn names() -> Vec<Listed<()>> {
    NAMES.iter().map(|name| Listed { name: (*name).to_owned(), of: () }).collect()
}

/// Keys, names and identities have one spelling each.
fn spelling(text: &str) {
    if let Some(key) = ApiKey::parse(text) {
        assert_eq!(*key.expose_text(), text);
    }
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string(), text);
    }
    if let Ok(name) = text.parse::<KeyName>() {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= 80 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
        assert!(Listing::prefix(text).is_ok(), "every name begins some list");
    }
}

/// One of each, and some that only look like one.
pub fn seeds() -> Vec<Vec<u8>> {
    let salt = Salt { vector: [1; 16], nonce: [2; 12] };
    let of_key = |form| encrypt(&key(), salt, b"", &[3; 32], form).expect("its last version encrypts").0;
    let mut packed = b"\x95\xb1AES256-GCM_SHA256\xa20f\xc4\x10".to_vec();
    packed.extend_from_slice(&[1; 16]);
    packed.extend_from_slice(b"\xc4\x0c");
    packed.extend_from_slice(&[2; 12]);
    packed.extend_from_slice(b"\xc4\x10");
    packed.extend_from_slice(&[3; 16]);
    let api_key = ApiKey::from_seed(secret(5)).expose_text().to_string();
    let identity = Identity([0xa4; 32]).to_string();
    [
        (0, of_key(Form::Raw)),
        (0, of_key(Form::Json)),
        (0, packed),
        (0, vec![0x95; 60]),
        (0, vec![b'{'; 60]),
        (1, STANDARD.encode([&b"\x0a\x24\x0a\x20"[..], &[1; 32], b"\x10\x01"].concat()).into_bytes()),
        (
            1,
            br#"{"bytes":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","created_at":"2022-11-05T04:03:02Z"}"#.to_vec(),
        ),
        (2, b"plaintext".to_vec()),
        (3, b"/v1/key/*/my-[a-z]?\\*\x1f/v1/key/create/my-key*".to_vec()),
        (3, "*[^b]*\u{e4}\u{1f}a/\u{e4}".as_bytes().to_vec()),
        (4, b"a*".to_vec()),
        (4, b"a*ab".to_vec()),
        (4, b"[a-b]*".to_vec()),
        (5, api_key.into_bytes()),
        (5, identity.into_bytes()),
        (5, b"my-key_1".to_vec()),
    ]
    .map(|(which, bytes)| chosen(which, &bytes))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_what_they_are_meant_to_be() {
        let of = |which: u8| seeds().into_iter().filter(move |seed| seed[0] == which).map(|seed| seed[1..].to_vec());
        let forms: Vec<Form> = of(0).map(|seed| Ciphertext::parse(&seed).unwrap().form).collect();
        assert_eq!(forms, [Form::Raw, Form::Json, Form::MessagePack, Form::Raw, Form::Raw]);
        assert!(of(1).all(|seed| KeyFile::parse(&seed).is_ok()));
    }
}
