//! What a verifier without a TPM does, as far as these tests need it: make a credential, check a quote.

use aes::Aes128;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents};
use cfb_mode::cipher::KeyIvInit;
use holdfast_protocol::crypto::hash::{hmac, sha256};
use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_site_agent::tpm::{EkKind, Identity, Quote};
use p256::SecretKey;

/// `TPM2_MakeCredential`: the contents of `TPM2B_ID_OBJECT` and `TPM2B_ENCRYPTED_SECRET`.
pub(crate) fn make_credential(identity: &Identity, ak_public: &[u8], secret: &[u8; 32]) -> (Vec<u8>, Vec<u8>) {
    let name = [&0x000b_u16.to_be_bytes()[..], &sha256(&[ak_public])].concat();
    let (seed, encrypted) = match identity.ek_kind {
        EkKind::Rsa2048 => rsa_seed(&identity.ek_public),
        EkKind::P256 => ecc_seed(&identity.ek_public),
    };
    let storage_key = &kdfa(&seed, b"STORAGE", &name, 128)[..16];
    let mut wrapped = [&32_u16.to_be_bytes()[..], secret].concat();
    cfb_mode::Encryptor::<Aes128>::new_from_slices(storage_key, &[0; 16]).unwrap().encrypt(&mut wrapped);
    let mac = hmac(&kdfa(&seed, b"INTEGRITY", &[], 256), &[&wrapped, &name]);
    ([&32_u16.to_be_bytes()[..], &mac, &wrapped].concat(), encrypted)
}

/// Signature, qualifying data and register digest, each at its place in the bytes.
pub(crate) fn quote_holds(ak_public: &[u8], quote: &Quote, qualifying: &[u8; 32]) -> bool {
    let mut point = [4; 65];
    point[1..].copy_from_slice(&coordinates(ak_public).concat());
    // TPMT_SIGNATURE: ECDSA, SHA-256, then both halves, each with its length.
    let [0x00, 0x18, 0x00, 0x0b, halves @ ..] = quote.signature.as_slice() else { return false };
    let (r, s) = halves[2..].split_at(usize::from(u16::from_be_bytes([halves[0], halves[1]])));
    let signature = [vec![0; 32 - r.len()], r.to_vec(), vec![0; 34 - s.len()], s[2..].to_vec()].concat();
    let values: Vec<&[u8]> = quote.pcrs.iter().map(|(_, value)| value.as_slice()).collect();
    let contains = |part: &[u8]| quote.attest.windows(part.len()).any(|window| window == part);
    PublicKey(point).verify(&quote.attest, &signature)
        && quote.attest.starts_with(&[0xff, 0x54, 0x43, 0x47, 0x80, 0x18])
        && contains(qualifying)
        && quote.attest.ends_with(&sha256(&values))
}

fn rsa_seed(ek_public: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (n, e) = (&ek_public[ek_public.len() - 256..], [1, 0, 1].as_slice());
    let key: PublicEncryptingKey = PublicKeyComponents { n, e }.try_into().unwrap();
    let mut encrypted = vec![0; 256];
    let key = OaepPublicEncryptingKey::new(key).unwrap();
    key.encrypt(&OAEP_SHA256_MGF1SHA256, &[5; 32], &mut encrypted, Some(b"IDENTITY\0")).unwrap();
    (vec![5; 32], encrypted)
}

fn ecc_seed(ek_public: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let [x, y] = coordinates(ek_public);
    let peer = p256::PublicKey::from_sec1_bytes(&[&[4], x, y].concat()).unwrap();
    let ours = SecretKey::from_slice(&[9; 32]).unwrap();
    let point = ours.public_key().to_sec1_bytes();
    let (our_x, our_y) = point[1..].split_at(32);
    let shared = p256::ecdh::diffie_hellman(ours.to_nonzero_scalar(), peer.as_affine());
    let seed = sha256(&[&1_u32.to_be_bytes(), shared.raw_secret_bytes(), b"IDENTITY\0", our_x, x]);
    let length = 32_u16.to_be_bytes();
    (seed.to_vec(), [&length[..], our_x, &length, our_y].concat())
}

/// A P-256 `TPMT_PUBLIC` ends with both coordinates, each after its length.
fn coordinates(public: &[u8]) -> [&[u8]; 2] {
    let tail = &public[public.len() - 68..];
    [&tail[2..34], &tail[36..]]
}

/// KDFa with one block (TPM 2.0 Library, part 1, section 11.4.10.2).
fn kdfa(key: &[u8], label: &[u8], context: &[u8], bits: u32) -> [u8; 32] {
    hmac(key, &[&1_u32.to_be_bytes(), label, &[0], context, &bits.to_be_bytes()])
}
