//! Encrypting and decrypting with keys of several versions.

use holdfast_protocol::crypto::transit::Salt;
use holdfast_protocol::kes::{Form, FormError};
use serde_json::Value;

use super::*;
use crate::key_store::operations::{decrypt, encrypt, hmac};

const FORMS: [Form; 2] = [Form::Raw, Form::Json];

fn salt(fill: u8) -> Salt {
    Salt { vector: [fill; 16], nonce: [fill; 12] }
}

/// A key with so many versions, of both ciphers in turn.
fn key(versions: u8) -> TransitKey {
    let origin = Origin::Api;
    let mut key = TransitKey { distribute: Distribute::default(), origin, next: 1, versions: Vec::new() };
    for fill in 1..=versions {
        let cipher = if fill % 2 == 0 { Cipher::ChaCha20Poly1305 } else { Cipher::Aes256Gcm };
        let created = Stamp { by: "ann".to_owned(), at_us: 0 };
        key.push(Material::fresh(cipher, &fresh(fill)), created, (1, Why::Rotated));
    }
    key
}

fn opened(key: &TransitKey, context: &[u8], text: &[u8]) -> Result<(Vec<u8>, u32), Unusable> {
    decrypt(key, context, text).map(|(plaintext, version)| (plaintext.expose().to_vec(), version))
}

proptest! {
    #[test]
    fn what_was_encrypted_decrypts_also_after_rotations_and_only_with_its_context(
        plaintext in prop::collection::vec(any::<u8>(), 0..200),
        context in prop::collection::vec(any::<u8>(), 0..40),
        (before, after) in (1..4u8, 0..4u8),
        fill in any::<u8>(),
    ) {
        let earlier = key(before);
        let now = key(before + after);
        for form in FORMS {
            let (text, version) = encrypt(&earlier, salt(fill), &context, &plaintext, form).unwrap();
            prop_assert_eq!(version, u32::from(before));
            prop_assert_eq!(opened(&now, &context, &text), Ok((plaintext.clone(), version)));
            let other = [&context[..], &[0]].concat();
            prop_assert!(matches!(decrypt(&now, &other, &text), Err(Unusable::NotAuthentic(_))));
        }
    }

    #[test]
    fn no_altered_ciphertext_decrypts(at in any::<prop::sample::Index>(), bit in 0..8u8, fill in any::<u8>()) {
        let key = key(3);
        for form in FORMS {
            let (text, _) = encrypt(&key, salt(fill), b"context", b"plaintext", form).unwrap();
            let mut bent = text.clone();
            bent[at.index(text.len())] ^= 1 << bit;
            // Of JSON, other bytes may mean the same: a name in other letters is another name, but base64 is strict.
            prop_assert!(decrypt(&key, b"context", &bent).is_err());
            prop_assert!(decrypt(&key, b"context", &text[..at.index(text.len())]).is_err());
        }
    }
}

#[test]
fn the_version_of_our_own_is_found_at_once() {
    let many = key(60);
    let text = encrypt(&key(7), salt(9), b"", b"x", Form::Raw).unwrap().0;
    let parsed = holdfast_protocol::kes::Ciphertext::parse(&text).unwrap();
    let hinted: Vec<u32> = many
        .versions
        .iter()
        .filter(|version| parsed.salt.vector.ends_with(&version.hint))
        .map(|version| version.number)
        .collect();
    assert_eq!(hinted, [7]);
    assert_eq!(parsed.salt.vector[..12], [9; 12], "the rest is as it was drawn");
    assert_eq!(opened(&many, b"", &text), Ok((b"x".to_vec(), 7)));
}

#[test]
fn what_another_has_encrypted_is_found_among_all_versions() {
    use holdfast_protocol::crypto::transit::seal_in_place;
    let key = key(5);
    for version in &key.versions {
        let mut text = b"from elsewhere".to_vec();
        let tag = seal_in_place((version.material.cipher, &version.material.key), &salt(3), b"aad", &mut text);
        let raw = [&text[..], &tag, &salt(3).vector, &salt(3).nonce].concat();
        assert_eq!(opened(&key, b"aad", &raw), Ok((b"from elsewhere".to_vec(), version.number)));
    }
    // By chance its vector may end like the hint of another version.
    let (of, like) = (&key.versions[1], &key.versions[3]);
    let mut misleading = salt(3);
    misleading.vector[12..].copy_from_slice(&like.hint);
    let mut text = b"x".to_vec();
    let tag = seal_in_place((of.material.cipher, &of.material.key), &misleading, b"", &mut text);
    let raw = [&text[..], &tag, &misleading.vector, &misleading.nonce].concat();
    assert_eq!(opened(&key, b"", &raw), Ok((b"x".to_vec(), of.number)));
}

#[test]
fn known_answers_of_other_libraries_decrypt_in_every_form() {
    let all: Value = serde_json::from_str(include_str!("../../../../protocol/tests/vectors/kes/kes.json")).unwrap();
    let hex = |of: &Value, member: &str| hex::decode(of[member].as_str().unwrap()).unwrap();
    let mut seen = 0;
    for vector in all["ciphertexts"].as_array().unwrap().iter().filter(|vector| vector["raw"].is_string()) {
        let cipher = Cipher::of_kes_name(vector["cipher"].as_str().unwrap()).unwrap();
        let material = Material { cipher, key: secret_of(&hex(vector, "key")), hmac_key: None };
        let mut key = key(3);
        key.push(material, Stamp { by: "kes".to_owned(), at_us: 0 }, (1, Why::Rotated));
        // It was rotated since.
        key.push(Material::fresh(cipher, &fresh(99)), Stamp { by: "kes".to_owned(), at_us: 0 }, (1, Why::Rotated));
        let text = |member: &str| vector[member].as_str().unwrap().as_bytes().to_vec();
        for form in [hex(vector, "raw"), hex(vector, "message_pack"), text("json"), text("json_with_id")] {
            let expected = Ok((hex(vector, "plaintext"), 4));
            assert_eq!(opened(&key, &hex(vector, "context"), &form), expected);
            seen += 1;
        }
    }
    assert!(40 <= seen, "{seen}");
}

fn secret_of(bytes: &[u8]) -> holdfast_protocol::secret::Secret<32> {
    holdfast_protocol::secret::Secret::from_slice(bytes).unwrap()
}

#[test]
fn a_key_that_encrypts_no_more_still_decrypts() {
    let mut key = key(2);
    let (text, _) = encrypt(&key, salt(1), b"", secret(5).expose(), Form::Raw).unwrap();
    let mac = hmac(&key, None, b"x").unwrap();
    key.retire(9, Why::Quarantined);
    assert_eq!(encrypt(&key, salt(1), b"", b"x", Form::Raw), Err(Unusable::NoneEncrypts));
    assert_eq!(encrypt(&key, salt(1), b"", secret(5).expose(), Form::Raw), Err(Unusable::NoneEncrypts));
    assert_eq!(opened(&key, b"", &text), Ok((vec![5; 32], 2)));
    assert_eq!(hmac(&key, None, b"x"), Err(Unusable::NoneEncrypts), "a site that was cut off can compute it");
    assert_eq!(hmac(&key, Some(2), b"x"), Ok(mac), "for whoever says which version it was");
}

#[test]
fn an_erased_version_opens_nothing() {
    let mut key = key(3);
    let (text, _) = encrypt(&super::using::key(2), salt(1), b"", b"x", Form::Raw).unwrap();
    key.versions.retain(|version| version.number != 2);
    assert_eq!(opened(&key, b"", &text), Err(Unusable::NotAuthentic(None)));
}

#[test]
fn what_is_no_ciphertext_says_why_not() {
    let key = key(2);
    let marked = br#"{"aead":"AES-256-GCM","iv":"","nonce":"","bytes":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
    for (text, why) in [
        (&b""[..], Some(FormError::TooShort)),
        (&[0; 43], Some(FormError::TooShort)),
        (&[0; 44], None),
        (b"{", Some(FormError::Malformed)),
        (marked, Some(FormError::Cipher("AES-256-GCM".to_owned()))),
    ] {
        assert_eq!(opened(&key, b"", text), Err(Unusable::NotAuthentic(why)));
    }
}

#[test]
fn each_form_that_is_written_is_that_form() {
    let key = key(1);
    let raw = encrypt(&key, salt(1), b"", &[0; 32], Form::Raw).unwrap().0;
    assert_eq!(raw.len(), 76);
    let json = encrypt(&key, salt(1), b"", &[0; 32], Form::Json).unwrap().0;
    assert!(json.starts_with(br#"{"aead":"AES-256-GCM-HMAC-SHA-256","iv":"#));
    assert_eq!(encrypt(&key, salt(1), b"", &[0; 32], Form::MessagePack).unwrap().0, raw);
}
