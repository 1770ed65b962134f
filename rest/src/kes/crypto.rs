//! What is done with keys: encrypting, decrypting, data keys, message authentication. All of it by one snapshot, and no
//! key leaves.

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::key_store;
use holdfast_actors::ports::{draw, draw_secret};
use holdfast_protocol::crypto::transit::Salt;
use holdfast_protocol::kes::{Form, KeyName};
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
    fn salt(&self) -> Salt {
        Salt { vector: draw(&**self.entropy()), nonce: draw(&**self.entropy()) }
    }

    fn encrypted(&self, at: &At<'_>, name: &KeyName, context: &[u8], plaintext: &[u8]) -> Result<String, Fault> {
        let key = at.hot.lookup(at.gate, name)?;
        let (ciphertext, _) = key_store::encrypt(&key, self.salt(), context, plaintext, form(self.profile))?;
        Ok(STANDARD.encode(ciphertext))
    }
}

async fn generate(call: Call, body: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let body = call.body(body).await?;
    // Clients of today may send nothing.
    let body = if body.is_empty() && call.profile == Profile::Current { b"{}" } else { body.as_slice() };
    let context = Texts::of(body, ["context"])?.bytes(0)?;
    let data_key = draw_secret::<{ key_store::operations::DATA_KEY_BYTES }>(&**call.entropy());
    let ciphertext = call.read(|at| call.encrypted(at, &name, context.expose(), data_key.expose()))?;
    Ok(reply(&DataKey { plaintext: revealed(data_key.expose()), ciphertext }))
}

async fn encrypt(call: Call, body: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let texts = Texts::of(&call.body(body).await?, ["plaintext", "context"])?;
    let (plaintext, context) = (texts.bytes(0)?, texts.bytes(1)?);
    let ciphertext = call.read(|at| call.encrypted(at, &name, context.expose(), plaintext.expose()))?;
    Ok(reply(&Encrypted { ciphertext }))
}

const DECRYPTS: [&str; 2] = ["ciphertext", "context"];

fn decrypted(key: &key_store::TransitKey, texts: &Texts<2>) -> Result<Decrypted, Fault> {
    let (ciphertext, context) = (texts.bytes(0)?, texts.bytes(1)?);
    let (plaintext, _) = key_store::decrypt(key, context.expose(), ciphertext.expose())?;
    Ok(Decrypted { plaintext: revealed(plaintext.expose()) })
}

async fn decrypt(call: Call, body: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let texts = Texts::of(&call.body(body).await?, DECRYPTS)?;
    let decrypted = call.read(|at| decrypted(&*at.hot.lookup(at.gate, &name)?, &texts))?;
    Ok(reply(&decrypted))
}

async fn bulk_decrypt(call: Call, body: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let all = Texts::list_of(&call.body(body).await?, DECRYPTS, BULK_MAX)?;
    let decrypted: Vec<Decrypted> = call.read(|at| {
        let key = at.hot.lookup(at.gate, &name)?;
        all.iter().map(|texts| decrypted(&key, texts)).collect()
    })?;
    Ok(reply(&decrypted))
}

async fn hmac(call: Call, body: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let body = call.body(body).await?;
    let message = Texts::of(&body, ["message"])?.bytes(0)?;
    let version = own::<OfVersion>(&body)?.version.filter(|version| *version != 0);
    let hmac = call.read(|at| {
        let key = at.hot.lookup(at.gate, &name)?;
        let mut mac = key_store::hmac(&key, version, message.expose())?;
        let hmac = revealed(&mac);
        mac.zeroize();
        Ok(hmac)
    })?;
    Ok(reply(&Authenticated { hmac }))
}
