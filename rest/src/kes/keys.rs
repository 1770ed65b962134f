//! Keys: made, rotated, described, distributed, deleted, and versions of them erased.
//!
//! KES knows neither versions nor sites, and ignores a body where a key is made: so our members of bodies and answers are
//! such that its clients need not know them.

use axum::body::Body;
use axum::response::Response;
use holdfast_actors::access_control::policies::Origin;
use holdfast_actors::key_store::{
    CreateKey, EraseVersions, FreshKey, KeyVersion, RotateKey, SetDistribute, TransitKey, VersionState, Why,
    create_key, delete_key, erase_versions, rotate_key, set_distribute,
};
use holdfast_actors::rows::Refusal;
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::kes::KeyName;
use schemars::JsonSchema;
use serde::Serialize;

use super::Kes;
use super::api::{KEY_CREATE, KEY_DELETE, KEY_DESCRIBE, KEY_DISTRIBUTE, KEY_ERASE, KEY_ROTATE, bare, routes};
use super::bodies::{Renewal, ToErase, ToMake, own, placement};
use super::call::{Call, done, op, reply};
use super::fault::{Fault, Named};
use crate::distribute::DistributeBody;
use crate::openapi::operation::Operations;
use crate::time::rfc3339_us;

/// What new keys encrypt with, unless something else is asked for.
pub(super) const CIPHER: Cipher = Cipher::Aes256Gcm;

/// What can be done with them.
pub(super) fn operations() -> Operations<Kes> {
    let changes = |operation| bare(operation).may(&[409]);
    routes(
        &KEY_CREATE,
        || op(&KEY_CREATE, create),
        |operation| bare(operation).takes::<ToMake>().may(&[406, 409]),
        "Makes a key",
    )
    .and(routes(
        &KEY_ROTATE,
        || op(&KEY_ROTATE, rotate).gives::<Rotated>(),
        |operation| operation.takes::<Renewal>().may(&[406, 409]),
        "Has a new version of a key encrypt from here on; those before decrypt",
    ))
    .and(routes(
        &KEY_DESCRIBE,
        || op(&KEY_DESCRIBE, describe).gives::<Described>(),
        |operation| operation,
        "Tells of a key",
    ))
    .and(routes(
        &KEY_DISTRIBUTE,
        || op(&KEY_DISTRIBUTE, distribute),
        |operation| changes(operation).takes::<DistributeBody>(),
        "Says at which sites a key works",
    ))
    .and(routes(
        &KEY_ERASE,
        || op(&KEY_ERASE, erase),
        |operation| changes(operation).takes::<ToErase>(),
        "Erases versions of a key: what they have encrypted is lost",
    ))
    .and(routes(&KEY_DELETE, || op(&KEY_DELETE, delete), changes, "Deletes a key: what it has encrypted is lost"))
}

/// Of a key, what is no secret. What KES tells comes first.
#[derive(Serialize, JsonSchema)]
struct Described {
    name: String,
    /// `AES256` or `ChaCha20`.
    algorithm: &'static str,
    /// Of the version that encrypts.
    created_at: String,
    /// An identity, or the node's own part; of an imported key whom the import names.
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
    /// Number of the newest version.
    version: u32,
    /// All that decrypt, oldest first.
    versions: Vec<DescribedVersion>,
    /// The sites where it works.
    distribute: DistributeBody,
    /// `config`: the configuration of central wants it there; otherwise `api`.
    origin: &'static str,
}

/// Of one version.
#[derive(Serialize, JsonSchema)]
struct DescribedVersion {
    version: u32,
    algorithm: &'static str,
    created_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
    /// `active`: it encrypts; otherwise it only decrypts, since a newer one was made (`rotated`) or a site that had it was
    /// cut off (`quarantined`).
    state: &'static str,
    /// Since when it only decrypts.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

impl Described {
    fn of(name: &KeyName, key: &TransitKey) -> Result<Self, Refusal> {
        let newest = key.newest().ok_or(Refusal::Corrupt)?;
        Ok(Self {
            name: name.to_string(),
            algorithm: newest.material.cipher.kes_name(),
            created_at: rfc3339_us(newest.created.at_us),
            created_by: newest.created.by.clone(),
            version: newest.number,
            versions: key.versions.iter().map(DescribedVersion::of).collect(),
            distribute: DistributeBody::from(&key.distribute),
            origin: match key.origin {
                Origin::Api => "api",
                Origin::Config => "config",
            },
        })
    }
}

impl DescribedVersion {
    fn of(version: &KeyVersion) -> Self {
        let (state, until) = match version.state {
            VersionState::Active => ("active", None),
            VersionState::DecryptOnly { since_us, why: Why::Rotated } => ("rotated", Some(since_us)),
            VersionState::DecryptOnly { since_us, why: Why::Quarantined } => ("quarantined", Some(since_us)),
        };
        Self {
            version: version.number,
            algorithm: version.material.cipher.kes_name(),
            created_at: rfc3339_us(version.created.at_us),
            created_by: version.created.by.clone(),
            state,
            until: until.map(rfc3339_us),
        }
    }
}

/// A new version.
#[derive(Serialize, JsonSchema)]
struct Rotated {
    /// Its number.
    version: u32,
}

async fn create(call: Call, body: Body) -> Result<Response, Fault> {
    let (by, name) = (call.authority()?, call.name(Named::Key)?);
    let body = call.body(body).await?;
    // KES looks at no body here, so its clients may send anything; what is an object is read.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let wanted: ToMake = if is_object { own(&body)? } else { ToMake::default() };
    let cipher = wanted.cipher.map_or(Ok(CIPHER), named_cipher)?;
    let distribute = placement(wanted.distribute)?;
    let fresh = FreshKey::draw(&**call.entropy());
    let cmd = CreateKey { by, name, cipher, fresh, distribute };
    call.change(move |rows, now| create_key(&cmd, rows, now)).await?;
    Ok(done())
}

/// A cipher by one of KES' names.
pub(super) fn named_cipher(name: impl AsRef<str>) -> Result<Cipher, Fault> {
    let name = name.as_ref();
    let shown = || name.chars().take(CIPHER_CHARS_SHOWN).collect();
    Cipher::of_kes_name(name).ok_or_else(|| Fault::UnknownCipher(shown()))
}

/// Of a cipher that nobody knows.
const CIPHER_CHARS_SHOWN: usize = 64;

async fn rotate(call: Call, body: Body) -> Result<Response, Fault> {
    let (by, name) = (call.authority()?, call.name(Named::Key)?);
    let body = call.body(body).await?;
    let wanted: Option<Renewal> = if body.trim_ascii().is_empty() { None } else { own(&body)? };
    let wanted = wanted.unwrap_or_default();
    let cipher = wanted.cipher.map(named_cipher).transpose()?;
    let fresh = FreshKey::draw(&**call.entropy());
    let cmd = RotateKey { by, name, cipher, fresh, renew_hmac: wanted.renew_hmac.unwrap_or_default() };
    let version = call.change(move |rows, now| rotate_key(&cmd, rows, now)).await?;
    Ok(reply(&Rotated { version }))
}

async fn describe(call: Call, _: Body) -> Result<Response, Fault> {
    let name: KeyName = call.name(Named::Key)?;
    let described = call.read(|at| Ok(Described::of(&name, &*at.hot.lookup(at.gate, &name)?)?))?;
    Ok(reply(&described))
}

async fn distribute(call: Call, body: Body) -> Result<Response, Fault> {
    let (by, name) = (call.authority()?, call.name(Named::Key)?);
    let distribute = placement(own(&call.body(body).await?)?)?;
    let cmd = SetDistribute { by, name, distribute };
    call.change(move |rows, now| set_distribute(&cmd, rows, now)).await?;
    Ok(call.bite().await.told_in(done()))
}

async fn erase(call: Call, body: Body) -> Result<Response, Fault> {
    let (by, name) = (call.authority()?, call.name(Named::Key)?);
    let ToErase { versions } = own(&call.body(body).await?)?;
    let cmd = EraseVersions { by, name, numbers: versions };
    call.change(move |rows, now| erase_versions(&cmd, rows, now)).await?;
    Ok(call.bite().await.told_in(done()))
}

async fn delete(call: Call, _: Body) -> Result<Response, Fault> {
    let (by, name): (_, KeyName) = (call.authority()?, call.name(Named::Key)?);
    call.change(move |rows, now| delete_key(&by, &name, rows, now)).await?;
    Ok(call.bite().await.told_in(done()))
}
