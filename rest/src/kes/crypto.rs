//! What is done with keys: encrypting, decrypting, data keys, message authentication. All of it by one snapshot, and no
//! key leaves.

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::key_store;
use holdfast_actors::key_store::operations::DATA_KEY_BYTES;
use holdfast_actors::ports::Entropy;
use holdfast_protocol::crypto::transit::{NONCE_BYTES, Salt, VECTOR_BYTES};
use holdfast_protocol::kes::{Form, KeyName};
use holdfast_protocol::secret::Secret;
use schemars::JsonSchema;
use serde::Serialize;
use zeroize::{Zeroize, Zeroizing};

use super::Kes;
use super::api::{KEY_BULK_DECRYPT, KEY_DECRYPT, KEY_ENCRYPT, KEY_GENERATE, KEY_HMAC, routes};
use super::bodies::{DataKeyWanted, OfVersion, Texts, ToAuthenticate, ToDecrypt, ToEncrypt, own};
use super::call::{At, Call, op, reply};
use super::fault::{Fault, Named};
use super::profile::Profile;
use crate::openapi::operation::Operations;
use crate::secret::{Reveal, SecretText};

/// Ciphertexts that are decrypted by one call.
const BULK_MAX: usize = 1000;

/// What can be done.
pub(super) fn operations() -> Operations<Kes> {
    routes(
        &KEY_GENERATE,
        || op(&KEY_GENERATE, generate).gives::<DataKey>(),
        |operation| operation.takes::<DataKeyWanted>().may(&[409]),
        "Gives a data key, and the same encrypted",
    )
    .and(routes(
        &KEY_ENCRYPT,
        || op(&KEY_ENCRYPT, encrypt).gives::<Encrypted>(),
        |operation| operation.takes::<ToEncrypt>().may(&[409]),
        "Encrypts",
    ))
    .and(routes(
        &KEY_DECRYPT,
        || op(&KEY_DECRYPT, decrypt).gives::<Decrypted>(),
        |operation| operation.takes::<ToDecrypt>(),
        "Decrypts",
    ))
    .and(routes(
        &KEY_BULK_DECRYPT,
        || op(&KEY_BULK_DECRYPT, bulk_decrypt).gives::<Vec<Decrypted>>(),
        |operation| operation.takes::<Vec<ToDecrypt>>(),
        "Decrypts up to 1000 ciphertexts, or none",
    ))
    .and(routes(
        &KEY_HMAC,
        || op(&KEY_HMAC, hmac).gives::<Authenticated>(),
        |operation| operation.takes::<ToAuthenticate>().may(&[409]),
        "Authenticates a message by HMAC-SHA-256",
    ))
}

/// A data key; bytes in base64.
#[derive(Serialize, JsonSchema)]
struct DataKey {
    plaintext: Reveal,
    ciphertext: String,
}

/// What was encrypted, in base64.
#[derive(Serialize, JsonSchema)]
struct Encrypted {
    ciphertext: String,
}

/// What was decrypted, in base64.
#[derive(Serialize, JsonSchema)]
struct Decrypted {
    plaintext: Reveal,
}

/// What authenticates a message, in base64.
#[derive(Serialize, JsonSchema)]
struct Authenticated {
    hmac: Reveal,
}

/// In what form a client of that profile gets ciphertexts.
fn form(profile: Profile) -> Form {
    match profile {
        Profile::Seed => Form::Json,
        Profile::Current => Form::Raw,
    }
}

/// Into a buffer that is long enough from the beginning, so that nothing of it stays behind.
fn revealed(bytes: &[u8]) -> Reveal {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    STANDARD.encode_string(bytes, &mut text);
    Reveal(SecretText::from(text))
}

impl Call {
    fn encrypted(
        &self,
        at: &At<'_>,
        (name, salt): (&KeyName, Salt),
        context: &[u8],
        plaintext: &[u8],
    ) -> Result<String, Fault> {
        let key = at.hot.lookup(at.gate, name)?;
        let (ciphertext, _) = key_store::encrypt(&key, salt, context, plaintext, form(self.profile))?;
        Ok(STANDARD.encode(ciphertext))
    }
}

/// What encrypting takes at random, and `N` bytes more, by one call of the source: each is one of the kernel.
fn salt_and<const N: usize>(entropy: &dyn Entropy) -> (Salt, Secret<N>) {
    let mut drawn = Zeroizing::new([0; VECTOR_BYTES + NONCE_BYTES + DATA_KEY_BYTES]);
    let drawn = &mut drawn[..VECTOR_BYTES + NONCE_BYTES + N];
    entropy.fill(drawn);
    let (vector, rest) = drawn.split_first_chunk().expect("it is longer");
    let (nonce, rest) = rest.split_first_chunk().expect("it is longer");
    (Salt { vector: *vector, nonce: *nonce }, Secret::from_slice(rest).expect("it is as long"))
}

pub(super) async fn generate(call: Call, body: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let body = call.body(body).await?;
    let (salt, data_key) = salt_and::<DATA_KEY_BYTES>(&**call.entropy());
    let ciphertext = call.read(|at| {
        // Clients of today may send nothing.
        let body = if body.is_empty() && call.profile == Profile::Current { b"{}" } else { body.as_slice() };
        let context = Texts::of(body, ["context"])?.bytes(0)?;
        call.encrypted(at, (&name, salt), context.expose(), data_key.expose())
    })?;
    Ok(reply(&DataKey { plaintext: revealed(data_key.expose()), ciphertext }))
}

pub(super) async fn encrypt(call: Call, body: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let body = call.body(body).await?;
    let (salt, _) = salt_and::<0>(&**call.entropy());
    let ciphertext = call.read(|at| {
        let texts = Texts::of(&body, ["plaintext", "context"])?;
        let (plaintext, context) = (texts.bytes(0)?, texts.bytes(1)?);
        call.encrypted(at, (&name, salt), context.expose(), plaintext.expose())
    })?;
    Ok(reply(&Encrypted { ciphertext }))
}

const DECRYPTS: [&str; 2] = ["ciphertext", "context"];

fn decrypted(key: &key_store::TransitKey, texts: &Texts<2>) -> Result<Decrypted, Fault> {
    let (ciphertext, context) = (texts.bytes(0)?, texts.bytes(1)?);
    let (plaintext, _) = key_store::decrypt(key, context.expose(), ciphertext.expose())?;
    Ok(Decrypted { plaintext: revealed(plaintext.expose()) })
}

pub(super) async fn decrypt(call: Call, body: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let body = call.body(body).await?;
    let decrypted = call.read(|at| {
        let texts = Texts::of(&body, DECRYPTS)?;
        decrypted(&*at.hot.lookup(at.gate, &name)?, &texts)
    })?;
    Ok(reply(&decrypted))
}

async fn bulk_decrypt(call: Call, body: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let body = call.body(body).await?;
    let decrypted: Vec<Decrypted> = call.read(|at| {
        let all = Texts::list_of(&body, DECRYPTS, BULK_MAX)?;
        let key = at.hot.lookup(at.gate, &name)?;
        all.iter().map(|texts| decrypted(&key, texts)).collect()
    })?;
    Ok(reply(&decrypted))
}

async fn hmac(call: Call, body: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let body = call.body(body).await?;
    let hmac = call.read(|at| {
        let message = Texts::of(&body, ["message"])?.bytes(0)?;
        let version = own::<OfVersion>(&body)?.version.filter(|version| *version != 0);
        let key = at.hot.lookup(at.gate, &name)?;
        let mut mac = key_store::hmac(&key, version, message.expose())?;
        let hmac = revealed(&mac);
        mac.zeroize();
        Ok(hmac)
    })?;
    Ok(reply(&Authenticated { hmac }))
}
