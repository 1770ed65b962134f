//! Keys: made, imported, rotated, described, deleted.

use axum::body::Body;
use axum::response::Response;
use holdfast_actors::distribute::Distribute;
use holdfast_actors::key_store::{
    CreateKey, FreshKey, ImportKey, Material, RotateKey, create_key, delete_key, import_key, rotate_key,
};
use holdfast_actors::rows::Refusal;
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::kes::KeyName;
use holdfast_protocol::secret::Secret;
use schemars::JsonSchema;
use serde::Serialize;

use super::Kes;
use super::api::{KEY_CREATE, KEY_DELETE, KEY_DESCRIBE, KEY_IMPORT, KEY_ROTATE, bare, routes};
use super::bodies::{KeyBytes, Texts};
use super::call::{Call, done, op, reply};
use super::fault::{Fault, Named};
use super::profile::Profile;
use crate::openapi::operation::Operations;
use crate::time::rfc3339_us;

/// What new keys encrypt with.
const CIPHER: Cipher = Cipher::Aes256Gcm;

/// What can be done with them.
pub(super) fn operations() -> Operations<Kes> {
    let changes = |operation| bare(operation).may(&[409]);
    routes(&KEY_CREATE, || op(&KEY_CREATE, create), changes, "Makes a key")
        .and(routes(
            &KEY_IMPORT,
            || op(&KEY_IMPORT, import),
            |operation| bare(operation).takes::<KeyBytes>().may(&[406]),
            "Takes over a key",
        ))
        .and(routes(
            &KEY_ROTATE,
            || op(&KEY_ROTATE, rotate).gives::<Rotated>(),
            |operation| operation.may(&[409]),
            "Has a new version of a key encrypt from here on; those before decrypt",
        ))
        .and(routes(
            &KEY_DESCRIBE,
            || op(&KEY_DESCRIBE, describe).gives::<Described>(),
            |operation| operation,
            "Tells of a key",
        ))
        .and(routes(
            &KEY_DELETE,
            || op(&KEY_DELETE, delete),
            |operation| bare(operation).may(&[409]).bites(),
            "Deletes a key: what it has encrypted is lost",
        ))
}

/// Of a key, what is no secret.
#[derive(Serialize, JsonSchema)]
struct Described {
    name: String,
    /// `AES256` or `ChaCha20`.
    algorithm: &'static str,
    /// Of the version that encrypts.
    created_at: String,
    /// An identity, or the node's own part.
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
}

/// A new version.
#[derive(Serialize, JsonSchema)]
struct Rotated {
    /// Its number.
    version: u32,
}

async fn create(call: Call, _: Body) -> Result<Response, Fault> {
    let (by, name) = (call.authority()?, call.name(Named::Key)?);
    let (fresh, distribute) = (FreshKey::draw(&**call.entropy()), Distribute::default());
    let cmd = CreateKey { by, name, cipher: CIPHER, fresh, distribute };
    call.change(move |rows, now| create_key(&cmd, rows, now)).await?;
    Ok(done())
}

async fn import(call: Call, body: Body) -> Result<Response, Fault> {
    let (by, name) = (call.authority()?, call.name(Named::Key)?);
    let body = call.body(body).await.map_err(as_import)?;
    let (cipher, key) = imported(&body, call.profile)?;
    let hmac_key = FreshKey::draw(&**call.entropy()).hmac_key;
    let material = Material::fresh(cipher, &FreshKey { key, hmac_key });
    let cmd = ImportKey { by, name, material, created: None, distribute: Distribute::default() };
    call.change(move |rows, now| import_key(&cmd, rows, now)).await?;
    Ok(done())
}

fn as_import(fault: Fault) -> Fault {
    match fault {
        Fault::BadBody => Fault::BadImport,
        other => other,
    }
}

/// Each profile's body has members of its own; what is wrong with them is said in that profile's words.
fn imported(body: &[u8], profile: Profile) -> Result<(Cipher, Secret<32>), Fault> {
    let texts = Texts::of(body, ["key", "cipher", "bytes"]).map_err(as_import)?;
    let meant = match (texts.has(0) || texts.has(1), texts.has(2)) {
        (true, _) => Profile::Current,
        (false, true) => Profile::Seed,
        (false, false) => profile,
    };
    let read = match meant {
        Profile::Seed => key_of(&texts, 2, String::new()).map(|key| (CIPHER, key)),
        Profile::Current => key_and_cipher(&texts),
    };
    read.map_err(|fault| Fault::Of(meant, Box::new(fault)))
}

fn key_and_cipher(texts: &Texts<3>) -> Result<(Cipher, Secret<32>), Fault> {
    let named: String = texts.text(1).chars().take(CIPHER_CHARS_SHOWN).collect();
    // Members that can't be read come before those that are not known.
    texts.bytes(0).map_err(as_import)?;
    let cipher = Cipher::of_kes_name(texts.text(1)).ok_or_else(|| Fault::UnknownCipher(named.clone()))?;
    Ok((cipher, key_of(texts, 0, named)?))
}

fn key_of(texts: &Texts<3>, at: usize, named: String) -> Result<Secret<32>, Fault> {
    let bytes = texts.bytes(at).map_err(as_import)?;
    Secret::from_slice(bytes.expose()).ok_or(Fault::KeySize(named))
}

/// Of a cipher that nobody knows.
const CIPHER_CHARS_SHOWN: usize = 64;

async fn rotate(call: Call, _: Body) -> Result<Response, Fault> {
    let (by, name) = (call.authority()?, call.name(Named::Key)?);
    let cmd = RotateKey { by, name, cipher: None, fresh: FreshKey::draw(&**call.entropy()), renew_hmac: false };
    let version = call.change(move |rows, now| rotate_key(&cmd, rows, now)).await?;
    Ok(reply(&Rotated { version }))
}

async fn describe(call: Call, _: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let described = call.read(|at| {
        let key = at.hot.lookup(at.gate, &name)?;
        let newest = key.newest().ok_or(Refusal::Corrupt)?;
        Ok(Described {
            name: name.to_string(),
            algorithm: newest.material.cipher.kes_name(),
            created_at: rfc3339_us(newest.created.at_us),
            created_by: newest.created.by.clone(),
        })
    })?;
    Ok(reply(&described))
}

async fn delete(call: Call, _: Body) -> Result<Response, Fault> {
    let (by, name): (_, KeyName) = (call.authority()?, call.name(Named::Key)?);
    call.change(move |rows, now| delete_key(&by, &name, rows, now)).await?;
    Ok(call.bite().await.told_in(done()))
}
