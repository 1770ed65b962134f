//! Formats of KES against known answers that other libraries gave: `tests/vectors/kes/make.py` writes them anew.

use holdfast_protocol::crypto::hash::{hmac, sha256};
use holdfast_protocol::crypto::transit::{Cipher, Salt, TAG_BYTES, open, seal_in_place};
use holdfast_protocol::kes::ciphertext::to_json;
use holdfast_protocol::kes::{ApiKey, Ciphertext, Form, KeyFile};
use holdfast_protocol::secret::Secret;
use serde_json::Value;

const VECTORS: &str = include_str!("../vectors/kes/kes.json");

fn vectors(of: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(VECTORS).unwrap();
    let vectors = all[of].as_array().unwrap().clone();
    assert!(!vectors.is_empty());
    vectors
}

fn text<'v>(of: &'v Value, member: &str) -> &'v str {
    of[member].as_str().unwrap_or_else(|| panic!("{member}: {of}"))
}

fn bytes(of: &Value, member: &str) -> Vec<u8> {
    hex::decode(text(of, member)).unwrap()
}

fn secret(of: &Value, member: &str) -> Secret<32> {
    Secret::from_slice(&bytes(of, member)).unwrap()
}

fn cipher(of: &Value) -> Cipher {
    Cipher::of_kes_name(text(of, "cipher")).unwrap()
}

fn salt(of: &Value) -> Salt {
    Salt { vector: bytes(of, "vector").try_into().unwrap(), nonce: bytes(of, "nonce").try_into().unwrap() }
}

/// As the script draws what it does not write down.
fn drawn(name: &str, length: usize) -> Vec<u8> {
    let mut drawn: Vec<u8> =
        (0..=length / 32).flat_map(|block| sha256(&[format!("{name} {block}").as_bytes()])).collect();
    drawn.truncate(length);
    drawn
}

fn plaintext(of: &Value) -> Vec<u8> {
    match of["length"].as_u64() {
        Some(length) => drawn(text(of, "plaintext_of"), usize::try_from(length).unwrap()),
        None => bytes(of, "plaintext"),
    }
}

fn seal(of: &Value) -> Vec<u8> {
    let mut sealed = plaintext(of);
    let tag = seal_in_place((cipher(of), &secret(of, "key")), &salt(of), &bytes(of, "context"), &mut sealed);
    sealed.extend_from_slice(&tag);
    sealed
}

#[test]
fn ciphertexts_are_those_of_other_libraries() {
    let mut long = 0;
    for vector in vectors("ciphertexts") {
        let (sealed, salt) = (seal(&vector), salt(&vector));
        let raw = [&sealed[..], &salt.vector, &salt.nonce].concat();
        if vector["length"].is_u64() {
            assert_eq!(hex::encode(sha256(&[&raw])), text(&vector, "raw_sha256"));
            long += 1;
            continue;
        }
        assert_eq!(hex::encode(&raw), text(&vector, "raw"));
        assert_eq!(to_json(cipher(&vector), &salt, &sealed), text(&vector, "json").as_bytes());
    }
    assert_eq!(long, 2);
}

#[test]
fn every_form_of_other_libraries_decrypts() {
    for vector in vectors("ciphertexts").iter().filter(|vector| !vector["length"].is_u64()) {
        let json = |member| (Form::Json, text(vector, member).as_bytes().to_vec());
        let packed = (Form::MessagePack, bytes(vector, "message_pack"));
        for (form, bytes_of_form) in [(Form::Raw, bytes(vector, "raw")), json("json"), json("json_with_id"), packed] {
            let parsed = Ciphertext::parse(&bytes_of_form).unwrap();
            let named = (form != Form::Raw).then(|| cipher(vector));
            assert_eq!((parsed.form, parsed.cipher, parsed.salt), (form, named, salt(vector)));
            let mut opened = vec![0; parsed.sealed.len() - TAG_BYTES];
            let of = (cipher(vector), &secret(vector, "key"));
            open(of, &parsed.salt, &bytes(vector, "context"), &parsed.sealed, &mut opened).unwrap();
            assert_eq!(opened, plaintext(vector), "{form:?}");
        }
    }
}

#[test]
fn key_files_of_another_encoder_are_read() {
    for vector in vectors("key_files") {
        let file = KeyFile::parse(text(&vector, "file").as_bytes()).unwrap();
        assert_eq!(file.cipher, cipher(&vector));
        assert!(file.key.ct_eq(&secret(&vector, "key")));
        let hmac_key = file.hmac_key.map(|key| hex::encode(key.expose()));
        assert_eq!(hmac_key.as_deref(), vector["hmac_key"].as_str());
        assert_eq!(file.created_us, vector["created_us"].as_i64());
        assert_eq!(file.created_by.as_deref(), vector["created_by"].as_str());
    }
}

#[test]
fn api_keys_have_the_identities_that_other_libraries_give_them() {
    for vector in vectors("api_keys") {
        let key = ApiKey::parse(text(&vector, "text")).unwrap();
        assert_eq!(key.identity().to_string(), text(&vector, "identity"));
        assert_eq!(*key.expose_text(), text(&vector, "text"));
        assert_eq!(*ApiKey::from_seed(secret(&vector, "seed")).expose_text(), text(&vector, "text"));
    }
}

#[test]
fn macs_are_those_of_another_library() {
    for vector in vectors("macs") {
        let mac = hmac(&bytes(&vector, "key"), &[&bytes(&vector, "message")]);
        assert_eq!(hex::encode(mac), text(&vector, "mac"));
    }
}
