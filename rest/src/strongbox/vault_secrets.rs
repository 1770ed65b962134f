//! Secrets in vaults: maps from names to texts and binary data, with versions.
//!
//! | here | in the safe deposit box |
//! |---|---|
//! | `data` | members of the JSON object that are texts |
//! | `base64-data` | members that are texts, too, and marked; of a name in both this one wins |
//! | `name` | the last and only part of the path; deeper paths of Cerberus are not seen here |
//!
//! Of an object that Cerberus wrote, other values than texts are shown as their JSON. A `PUT` of what was read so makes
//! texts of them; a `PATCH` leaves all alone that it does not name.
//!
//! Versions are numbers, shown as `version` and as `ETag`. They grow with each change of a name, deletions too, and never
//! come back. `cas: N` in a body expects version N, `cas: 0` that there is none; `If-Match` and `If-None-Match: *` say
//! the same. What does not hold is a 412.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::access_control::Caller;
use holdfast_actors::distribute::Gate;
use holdfast_actors::rows::{Expected, ReadRows, Refusal, Rows};
use holdfast_actors::secret_store::{
    Content, DepositBox, Marks, Members, PutSecret, RemoveSecret, Role, SecretHistory, SecretPatch, SecretPath,
    SecretView, Stamp, Terms, list_secrets, open_box, put_secret, read_secret, remove_secret,
};
use holdfast_protocol::ids::ItemName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AtCentral;
use super::call::{Call, Right, op};
use super::conventions::etag;
use super::look::{Asked, Seen, look, secret};
use super::vaults::{READERS, named};
use crate::access::Access;
use crate::node::View;
use crate::openapi::operation::{self as on, Operations};
use crate::openapi::schemas::Time;
use crate::problem::Problem;
use crate::secret::{Reveal, SecretText};
use crate::time::rfc3339_us;

/// What can be done with secrets at central.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1/config/strongbox/vaults/{vault}/secrets")
        .with(on::get("", look(secret("secret.list"), READERS, list), "Lists the names of a vault's secrets"))
        .with(
            on::post("", op("secret.write", Right::Editor, create), "Makes a secret")
                .takes::<SecretAsked>()
                .ends(StatusCode::CREATED)
                .tagged()
                .conditional()
                .may(&[409]),
        )
        .with(
            on::get(
                "/{secret}",
                look(secret("secret.read"), READERS, read_config),
                "Shows a secret, as it may be sent back",
            )
            .tagged(),
        )
        .with(
            on::put(
                "/{secret}",
                op("secret.write", Right::Editor, replace),
                "Makes a secret, or gives it all members anew",
            )
            .takes::<SecretAsked>()
            .ends(StatusCode::CREATED)
            .done()
            .tagged()
            .conditional(),
        )
        .with(
            on::patch("/{secret}", op("secret.write", Right::Editor, patch), "Changes the members that the body names")
                .takes::<SecretAsked>()
                .done()
                .tagged()
                .conditional(),
        )
        .with(
            on::delete("/{secret}", op("secret.delete", Right::Editor, remove), "Removes a secret")
                .done()
                .conditional(),
        )
}

/// What can be read of them at both nodes.
pub(super) fn read_operations<S>() -> Operations<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Access>: FromRef<S>,
{
    Operations::under("/v1/state/strongbox/vaults/{vault}/secrets")
        .with(on::get("", look(secret("secret.list"), READERS, list), "Lists the names of a vault's secrets"))
        .with(on::get("/{secret}", look(secret("secret.read"), READERS, read_state), "Shows a secret").tagged())
}

/// A secret in a request. What is absent is empty in a `POST` or `PUT` and stays in a `PATCH`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct SecretAsked {
    /// Its name; in a path it need not stand in the body too.
    #[schemars(with = "Option<ItemName>")]
    name: Option<String>,
    /// Texts by their names.
    data: Option<BTreeMap<String, SecretText>>,
    /// Binary data by its names, in base64 with padding.
    base64_data: Option<BTreeMap<String, SecretText>>,
    /// Patterns of images of containers that may be given the secret: kept, distributed and shown; whoever starts
    /// containers goes by them.
    allow_image_access: Option<Vec<String>>,
    /// The version that is to be replaced; 0: there must be none.
    cas: Option<u64>,
}

/// A secret as it is configured; may be sent back as it is.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct SecretShown {
    /// Its name.
    name: String,
    /// Texts by their names.
    data: BTreeMap<String, Reveal>,
    /// Binary data by its names, in base64.
    base64_data: BTreeMap<String, Reveal>,
    /// Patterns of images.
    allow_image_access: Vec<String>,
}

/// A secret as applications read it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct SecretState {
    /// Its name.
    name: String,
    /// Everything in it by its names; binary data in base64.
    dict: BTreeMap<String, Reveal>,
    /// Names of what in `dict` is the base64 of binary data.
    base64_keys: Vec<String>,
    /// Patterns of images.
    allow_image_access: Vec<String>,
    /// Number of this version.
    version: u64,
    /// When there first was something of this name, since it was last deleted.
    #[schemars(with = "Time")]
    creation_time: String,
    /// Who made it.
    created_by: String,
    /// When this version was written.
    #[schemars(with = "Time")]
    update_time: String,
    /// Who wrote it.
    updated_by: String,
    /// Earlier versions that are kept; at central only, and only where the vault has a bound on them.
    earlier_versions: Vec<EarlierVersion>,
}

/// An earlier version of a secret.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct EarlierVersion {
    /// Its number.
    version: u64,
    /// When it was written.
    #[schemars(with = "Time")]
    creation_time: String,
    /// Who wrote it.
    created_by: String,
    /// When it was replaced or deleted.
    #[schemars(with = "Time")]
    end_time: String,
    /// By whom.
    ended_by: String,
}

/// A secret in a list: what is known about it, and nothing of what is in it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct SecretListed {
    /// Its name.
    name: String,
}

impl SecretAsked {
    fn check_name(&self, name: &ItemName) -> Result<(), Refusal> {
        match &self.name {
            Some(said) if said != name.as_str() => Err(invalid("name: a secret can't be renamed")),
            Some(_) | None => Ok(()),
        }
    }

    /// All of a secret.
    fn whole(&self) -> Result<Content, Refusal> {
        let (data, marks) = self.patch()?.over(None)?;
        Ok(Content::Whole(data, marks))
    }

    fn patch(&self) -> Result<SecretPatch, Refusal> {
        let mut patch = SecretPatch { image_access: self.allow_image_access.clone(), ..SecretPatch::default() };
        for (name, text) in self.data.iter().flatten() {
            patch.texts.set_text(name, text.expose());
        }
        for (name, text) in self.base64_data.iter().flatten() {
            STANDARD
                .decode(text.expose())
                .map(zeroize::Zeroizing::new)
                .map_err(|_| invalid("base64-data has a value that is not base64 with padding"))?;
            patch.binary.set_text(name, text.expose());
        }
        Ok(patch)
    }

    /// What the body and the headers expect; both hold where both are given.
    fn expected(&self, headers: Expected) -> Result<Expected, Refusal> {
        let by_body = match self.cas {
            None => return Ok(headers),
            Some(0) => Expected::Absent,
            Some(version) => Expected::Versions(vec![version]),
        };
        match headers {
            Expected::Anything => Ok(by_body),
            same if same == by_body => Ok(same),
            _ => Err(invalid("cas and If-Match or If-None-Match contradict each other")),
        }
    }
}

fn invalid(why: &'static str) -> Refusal {
    Refusal::Invalid(why.to_owned())
}

/// Where a secret lies.
#[derive(Clone)]
struct Spot {
    vault: ItemName,
    name: ItemName,
}

impl Spot {
    fn of(call: &Call) -> Result<Self, Problem> {
        Ok(Self { vault: call.name("vault", "vault")?, name: call.name("secret", "secret")? })
    }

    fn path(&self) -> Result<SecretPath, Refusal> {
        SecretPath::new(vec![self.name.to_string()])
    }
}

/// Refuses whoever may not write in the vault before anything of the body is read.
fn authorise(call: &Call, vault: &ItemName) -> Result<(), Refusal> {
    open_box(&call.snapshot()?, &call.caller, &Gate::CENTRAL, vault.as_str(), Role::Write).map(drop).map_err(named)
}

async fn put(call: &Call, spot: Spot, content: Content, terms: Terms) -> Result<(u64, bool), Problem> {
    let (caller, path) = (call.caller.clone(), spot.path()?);
    let version_id = call.node.access.node().fresh_uuid();
    let mut cmd = PutSecret { caller, at: (String::new(), spot.vault.to_string()), path, content, terms, version_id };
    let written = call
        .change(move |rows, now| {
            cmd.at.0 = category_of(rows, &cmd.caller, &cmd.at.1)?;
            put_secret(&cmd, rows, now).map_err(named)
        })
        .await?;
    Ok((written.version, written.created))
}

/// Paths of boxes begin with their category, of which vaults know nothing.
fn category_of(rows: &dyn Rows, caller: &Caller, slug: &str) -> Result<String, Refusal> {
    let row = rows.read::<DepositBox>(caller.realm, &[slug])?.ok_or(Refusal::NotFound("vault"))?;
    Ok(row.value.category_path)
}

fn written(status: StatusCode, version: u64) -> Response {
    (status, [etag(version)]).into_response()
}

pub(super) async fn create(call: Call) -> Result<Response, Problem> {
    let vault: ItemName = call.name("vault", "vault")?;
    authorise(&call, &vault)?;
    let asked: SecretAsked = call.body().await?;
    let name = asked.name.as_deref().ok_or_else(|| Problem::bad_request("missing field `name`"))?;
    let name: ItemName = name.parse().map_err(|error| Problem::bad_request(format!("name: {error}")))?;
    let expected = asked.expected(call.expected()?)?;
    let terms = Terms { expected, must_be_new: true, ..Terms::default() };
    let (version, _) = put(&call, Spot { vault, name }, asked.whole()?, terms).await?;
    Ok(written(StatusCode::CREATED, version))
}

/// Replaces a secret, or makes it. 201 or 204.
pub(super) async fn replace(call: Call) -> Result<Response, Problem> {
    let spot = Spot::of(&call)?;
    authorise(&call, &spot.vault)?;
    let asked: SecretAsked = call.body().await?;
    asked.check_name(&spot.name)?;
    let terms = Terms { expected: asked.expected(call.expected()?)?, ..Terms::default() };
    let (version, created) = put(&call, spot, asked.whole()?, terms).await?;
    Ok(written(if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT }, version))
}

/// Changes the members that the body names.
pub(super) async fn patch(call: Call) -> Result<Response, Problem> {
    let spot = Spot::of(&call)?;
    authorise(&call, &spot.vault)?;
    let asked: SecretAsked = call.body().await?;
    asked.check_name(&spot.name)?;
    let terms = Terms { expected: asked.expected(call.expected()?)?, must_exist: true, ..Terms::default() };
    let (version, _) = put(&call, spot, Content::Merged(asked.patch()?), terms).await?;
    Ok(written(StatusCode::NO_CONTENT, version))
}

pub(super) async fn remove(call: Call) -> Result<Response, Problem> {
    let spot = Spot::of(&call)?;
    let (caller, path, expected) = (call.caller.clone(), spot.path()?, call.expected()?);
    let mut cmd = RemoveSecret { caller, at: (String::new(), spot.vault.to_string()), path, expected };
    call.change(move |rows, now| {
        cmd.at.0 = category_of(rows, &cmd.caller, &cmd.at.1)?;
        remove_secret(&cmd, rows, now).map_err(named)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The vault and the secret's name, with the caller's right and the lease looked at.
fn view_of(view: &View<'_>, asked: &Asked) -> Result<(ItemName, SecretPath, String, SecretView), Refusal> {
    let vault: ItemName = asked.name("vault", "vault")?;
    let of = open_box(view.rows, view.caller, view.gate, vault.as_str(), Role::Read).map_err(named)?;
    let name: ItemName = asked.name("secret", "secret")?;
    let path = SecretPath::new(vec![name.to_string()])?;
    let found = read_secret(view.rows, view.caller, view.gate, (&of.category_path, vault.as_str()), &path)?;
    Ok((vault, path, name.to_string(), found))
}

/// All members by their names, and whether each is binary.
fn members(data: &SecretView) -> Result<Vec<(String, bool, Reveal)>, Refusal> {
    let members = Members::parse(data.data.expose()).ok_or(Refusal::Corrupt)?;
    let Marks { binary, .. } = &data.marks;
    members
        .names()
        .map(|name| {
            let text = members.text(name).ok_or(Refusal::Corrupt)?;
            Ok((name.to_owned(), binary.contains(name), Reveal(SecretText::from(text))))
        })
        .collect()
}

pub(super) fn read_config(view: &View<'_>, asked: &Asked) -> Result<Seen<SecretShown>, Refusal> {
    let (_, _, name, found) = view_of(view, asked)?;
    let (mut data, mut base64_data) = (BTreeMap::new(), BTreeMap::new());
    for (name, is_binary, value) in members(&found)? {
        if is_binary { &mut base64_data } else { &mut data }.insert(name, value);
    }
    let body = SecretShown { name, data, base64_data, allow_image_access: found.marks.image_access };
    Ok(Seen { body, version: Some(found.version) })
}

pub(super) fn read_state(view: &View<'_>, asked: &Asked) -> Result<Seen<SecretState>, Refusal> {
    let (vault, path, name, found) = view_of(view, asked)?;
    let dict = members(&found)?.into_iter().map(|(name, _, value)| (name, value)).collect();
    let history = view.rows.read::<SecretHistory>(view.caller.realm, &path.below(vault.as_str()))?;
    let stamp = |stamp: &Stamp| (rfc3339_us(stamp.at_us), stamp.by.clone());
    let earlier = history.map(|row| row.value.kept).unwrap_or_default();
    let earlier_versions = earlier
        .iter()
        .map(|kept| {
            let ((creation_time, created_by), (end_time, ended_by)) = (stamp(&kept.written), stamp(&kept.ended));
            EarlierVersion { version: kept.version, creation_time, created_by, end_time, ended_by }
        })
        .collect();
    let ((creation_time, created_by), (update_time, updated_by)) = (stamp(&found.created), stamp(&found.updated));
    let body = SecretState {
        name,
        dict,
        base64_keys: found.marks.binary.into_iter().collect(),
        allow_image_access: found.marks.image_access,
        version: found.version,
        creation_time,
        created_by,
        update_time,
        updated_by,
        earlier_versions,
    };
    Ok(Seen { body, version: Some(found.version) })
}

/// The names of a vault's secrets.
pub(super) fn list(view: &View<'_>, asked: &Asked) -> Result<Seen<Vec<SecretListed>>, Refusal> {
    let vault: ItemName = asked.name("vault", "vault")?;
    let of = open_box(view.rows, view.caller, view.gate, vault.as_str(), Role::Read).map_err(named)?;
    let at = (of.category_path.as_str(), vault.as_str());
    let names = list_secrets(view.rows, view.caller, view.gate, at, None)?;
    let names = names.into_iter().filter(|name| name.parse::<ItemName>().is_ok());
    Ok(Seen { body: names.map(|name| SecretListed { name }).collect(), version: None })
}
