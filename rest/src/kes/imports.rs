//! Keys that somebody has already: taken over in the words of either profile, or whole, as a file of KES holds one.

use axum::body::Body;
use axum::response::Response;
use holdfast_actors::key_store::{FreshKey, ImportKey, Material, import_key};
use holdfast_actors::rows::Refusal;
use holdfast_actors::secret_store::Stamp;
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::kes::key_file::CREATED_BY_BYTES_MAX;
use holdfast_protocol::secret::Secret;

use super::Kes;
use super::api::{KEY_IMPORT, bare, routes};
use super::bodies::{KeyBytes, Placed, Texts, own, placement};
use super::call::{Call, done, op};
use super::fault::{Fault, Named};
use super::keys::{CIPHER, named_cipher};
use super::profile::Profile;
use crate::openapi::operation::Operations;
use crate::time::parse_rfc3339;

/// What can be done with them.
pub(super) fn operations() -> Operations<Kes> {
    routes(
        &KEY_IMPORT,
        || op(&KEY_IMPORT, import),
        |operation| bare(operation).takes::<KeyBytes>().may(&[406, 409]),
        "Takes over a key",
    )
}

/// The members of a body that are texts, and the place of each.
const MEMBERS: [&str; 6] = ["key", "cipher", "bytes", "hmac_key", "created_at", "created_by"];
const KEY: usize = 0;
const NAMED_CIPHER: usize = 1;
const BYTES: usize = 2;
const HMAC_KEY: usize = 3;
const CREATED_AT: usize = 4;
const CREATED_BY: usize = 5;

async fn import(call: Call, body: Body) -> Result<Response, Fault> {
    let (by, name) = (call.authority()?, call.name(Named::Key)?);
    let body = call.body(body).await.map_err(as_import)?;
    let texts = Texts::of(&body, MEMBERS).map_err(as_import)?;
    let (cipher, key) = imported(&texts, call.profile)?;
    let hmac_key = match texts.has(HMAC_KEY) {
        true => key_of(&texts, HMAC_KEY, "HMAC-SHA-256")?,
        false => FreshKey::draw(&**call.entropy()).hmac_key,
    };
    let material = Material::fresh(cipher, &FreshKey { key, hmac_key });
    let created = created(&texts, || Stamp { by: by.actor(), at_us: call.now_us() })?;
    let distribute = placement(own::<Placed>(&body).map_err(as_import)?.distribute)?;
    let cmd = ImportKey { by, name, material, created, distribute };
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
fn imported(texts: &Texts<6>, profile: Profile) -> Result<(Cipher, Secret<32>), Fault> {
    let meant = match (texts.has(KEY) || texts.has(NAMED_CIPHER), texts.has(BYTES)) {
        (true, _) => Profile::Current,
        (false, true) => Profile::Seed,
        (false, false) => profile,
    };
    let read = match meant {
        Profile::Seed => key_of(texts, BYTES, "").map(|key| (CIPHER, key)),
        Profile::Current => key_and_cipher(texts),
    };
    read.map_err(|fault| Fault::Of(meant, Box::new(fault)))
}

fn key_and_cipher(texts: &Texts<6>) -> Result<(Cipher, Secret<32>), Fault> {
    // Members that can't be read come before those that are not known.
    texts.bytes(KEY).map_err(as_import)?;
    let cipher = named_cipher(texts.text(NAMED_CIPHER))?;
    Ok((cipher, key_of(texts, KEY, texts.text(NAMED_CIPHER))?))
}

fn key_of(texts: &Texts<6>, at: usize, of: &str) -> Result<Secret<32>, Fault> {
    let bytes = texts.bytes(at).map_err(as_import)?;
    Secret::from_slice(bytes.expose()).ok_or_else(|| Fault::KeySize(of.to_owned()))
}

/// When the key was made, and by whom, as its file says. It is shown, and gives nobody a right.
fn created(texts: &Texts<6>, now: impl FnOnce() -> Stamp) -> Result<Option<Stamp>, Fault> {
    if !texts.has(CREATED_AT) && !texts.has(CREATED_BY) {
        return Ok(None);
    }
    let mut stamp = now();
    if texts.has(CREATED_AT) {
        let bad = || Refusal::Invalid("created_at is no time of RFC 3339".to_owned());
        stamp.at_us = parse_rfc3339(texts.text(CREATED_AT)).ok_or_else(bad)?;
    }
    if texts.has(CREATED_BY) {
        let by = texts.text(CREATED_BY);
        if CREATED_BY_BYTES_MAX < by.len() || by.contains(char::is_control) {
            let why = format!("created_by has at most {CREATED_BY_BYTES_MAX} bytes, and no control characters");
            return Err(Refusal::Invalid(why).into());
        }
        stamp.by = by.to_owned();
    }
    Ok(Some(stamp))
}
