//! Secrets: read, listed, written, deleted. Reads are served whole out of one snapshot.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::Caller;
use holdfast_actors::rows::Refusal;
use holdfast_actors::secret_store::reading::box_at;
use holdfast_actors::secret_store::secrets::SECRET_BYTES_MAX;
use holdfast_actors::secret_store::{
    CheckedData, DeleteSecret, Role, SecretPath, SecretView, VersionAction, WriteSecret, delete_secret, list_secrets,
    read_secret, read_version, write_secret,
};
use holdfast_protocol::secret::SecretBytes;
use schemars::JsonSchema;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::body;
use crate::cerberus::answers::{Token, done, invalid, nothing_there, problem, problem_for};
use crate::cerberus::target::Target;
use crate::cerberus::{Cerberus, MEMBERS};
use crate::front::RequestId;
use crate::node::{Deed, View};
use crate::openapi::operation::{self as on, Operations, Query, Work};
use crate::openapi::schemas::Anything;
use crate::problem::Problem;
use crate::time::rfc3339_ms;
use crate::uri::query_member;

/// What can be done with secrets.
pub(super) fn operations() -> Operations<Cerberus> {
    let writes = || Work::new(write, MEMBERS, Query::None).action("secret.write");
    read_operations().and(
        Operations::under("/v1/secret")
            .with(on::post("/{*path}", writes(), "Writes a secret").takes::<BTreeMap<String, Anything>>().done())
            .with(on::put("/{*path}", writes(), "The same").takes::<BTreeMap<String, Anything>>().done())
            .with(
                on::delete(
                    "/{*path}",
                    Work::new(delete, MEMBERS, Query::None).action("secret.delete"),
                    "Removes a secret",
                )
                .done()
                .may(&[400]),
            ),
    )
}

/// What can be read of them at both nodes.
pub(super) fn read_operations() -> Operations<Cerberus> {
    let own = &[("list", "true: the names below the path instead."), ("versionId", "An earlier version, or CURRENT.")];
    let reads = Work::new(read, MEMBERS, Query::None).action("secret.read").own(own).gives::<Envelope>();
    Operations::under("/v1/secret").with(on::get("/{*path}", reads, "Reads a secret, or lists names"))
}

/// What a read answers, as [`envelope`] writes it.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is written without being parsed")]
struct Envelope {
    request_id: String,
    lease_id: String,
    renewable: bool,
    lease_duration: u32,
    /// The secret, or the member `keys` with the names.
    data: BTreeMap<String, Anything>,
    wrap_info: (),
    warnings: (),
    auth: (),
    /// Who wrote it, and when.
    metadata: BTreeMap<String, String>,
}

async fn read(
    State(cerberus): State<Cerberus>,
    token: Token,
    Extension(request_id): Extension<RequestId>,
    uri: Uri,
) -> Result<Response, Problem> {
    let lists = query_member(uri.query(), "list").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let version = query_member(uri.query(), "versionId");
    let action = if lists { "secret.list" } else { "secret.read" };
    let deed = Deed::read(action, named(&uri));
    let answer = cerberus.node.consult(token.get(), &deed, |view| {
        let target = Target::of(uri.path())?;
        match version.as_deref() {
            _ if lists => list(view, &target),
            None => plain(view, &target),
            Some(CURRENT) => current(view, &target),
            Some(id) => earlier(view, &target, id),
        }
    });
    match answer {
        Ok(Found { data, metadata }) => Ok(envelope(&request_id.0, data.expose(), &metadata)),
        Err(Refusal::NotFound(_)) => Ok(nothing_there()),
        Err(refusal) => Err(problem_for(refusal, named(&uri))),
    }
}

/// What goes into the envelope: JSON, and JSON about it.
struct Found {
    data: SecretBytes,
    metadata: Value,
}

fn list(view: &View<'_>, target: &Target) -> Result<Found, Refusal> {
    let keys = list_secrets(view.rows, view.caller, view.gate, target.at(), target.path.as_ref())?;
    Ok(Found { data: SecretBytes::from(json!({ "keys": keys }).to_string()), metadata: json!({}) })
}

fn plain(view: &View<'_>, target: &Target) -> Result<Found, Refusal> {
    let SecretView { data, created, updated, .. } = secret(view, target)?;
    let metadata = json!({
        "created_by": created.by,
        "created_ts": rfc3339_ms(created.at_us),
        "last_updated_by": updated.by,
        "last_updated_ts": rfc3339_ms(updated.at_us),
    });
    Ok(Found { data, metadata })
}

fn secret(view: &View<'_>, target: &Target) -> Result<SecretView, Refusal> {
    read_secret(view.rows, view.caller, view.gate, target.at(), secret_path(view, target)?)
}

/// The path of the secret asked for. Where it is none the box is asked first, so that strangers learn nothing by it.
fn secret_path<'a>(view: &View<'_>, target: &'a Target) -> Result<&'a SecretPath, Refusal> {
    let path = target.secret();
    if path.is_err() {
        box_at(view.rows, view.caller, view.gate, target.at(), Role::Read)?;
    }
    path
}

fn current(view: &View<'_>, target: &Target) -> Result<Found, Refusal> {
    let SecretView { data, created, updated, .. } = secret(view, target)?;
    let action = if created == updated { "CREATE" } else { "UPDATE" };
    let metadata = json!({
        "version_id": CURRENT,
        "action": action,
        "action_ts": rfc3339_ms(updated.at_us),
        "action_principal": updated.by,
        "version_created_by": updated.by,
        "version_created_ts": rfc3339_ms(updated.at_us),
    });
    Ok(Found { data, metadata })
}

fn earlier(view: &View<'_>, target: &Target, id: &str) -> Result<Found, Refusal> {
    let path = secret_path(view, target)?;
    let version = read_version(view.rows, view.caller, view.gate, target.at(), path, id)?;
    let action = match version.action {
        VersionAction::Update => "UPDATE",
        VersionAction::Delete => "DELETE",
    };
    let metadata = json!({
        "version_id": id,
        "action": action,
        "action_ts": rfc3339_ms(version.ended.at_us),
        "action_principal": version.ended.by,
        "version_created_by": version.written.by,
        "version_created_ts": rfc3339_ms(version.written.at_us),
    });
    Ok(Found { data: version.data, metadata })
}

/// Vault's envelope around `data`, which is JSON already and is neither parsed nor copied more than once.
fn envelope(request_id: &str, data: &[u8], metadata: &Value) -> Response {
    let before =
        format!(r#"{{"request_id":"{request_id}","lease_id":"","renewable":false,"lease_duration":3600,"data":"#);
    let after = format!(r#","wrap_info":null,"warnings":null,"auth":null,"metadata":{metadata}}}"#);
    let mut bytes = Zeroizing::new(Vec::with_capacity(before.len() + data.len() + after.len()));
    for part in [before.as_bytes(), data, after.as_bytes()] {
        bytes.extend_from_slice(part);
    }
    let body = Body::from(Bytes::from_owner(bytes));
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn write(State(cerberus): State<Cerberus>, token: Token, uri: Uri, body: Body) -> Result<Response, Problem> {
    let node = &cerberus.node;
    let deed = Deed::of("secret.write", named(&uri));
    let (caller, target, path) = authorise(&cerberus, &token, &deed, &uri)?;
    let mut bytes = body::read(body, SECRET_BYTES_MAX).await?;
    let data = match CheckedData::new(SecretBytes::new(std::mem::take(&mut *bytes))) {
        Ok(data) => data,
        Err(faults) => {
            let refusal = node.refuse(caller.realm, caller.actor(), &deed, faults.clone().into());
            return Err(if matches!(refusal, Refusal::Invalid(_)) { invalid(&faults) } else { problem(refusal) });
        }
    };
    let version_id = node.fresh_uuid();
    let cmd = WriteSecret { caller: caller.clone(), at: target.owned_at(), path, data, version_id };
    let written = node.change(&caller, &deed, move |rows, now| write_secret(&cmd, rows, now)).await;
    written.map_err(|refusal| problem_for(refusal, named(&uri)))?;
    Ok(done())
}

async fn delete(State(cerberus): State<Cerberus>, token: Token, uri: Uri) -> Result<Response, Problem> {
    let deed = Deed::of("secret.delete", named(&uri));
    let (caller, target, path) = authorise(&cerberus, &token, &deed, &uri)?;
    let cmd = DeleteSecret { caller: caller.clone(), at: target.owned_at(), path };
    let deleted = cerberus.node.change(&caller, &deed, move |rows, now| delete_secret(&cmd, rows, now)).await;
    deleted.map_err(|refusal| problem_for(refusal, named(&uri)))?;
    Ok(done())
}

/// Whether the caller may write there, before anything of the body is looked at.
fn authorise(
    cerberus: &Cerberus,
    token: &Token,
    deed: &Deed,
    uri: &Uri,
) -> Result<(Caller, Target, SecretPath), Problem> {
    let authorised = cerberus.node.consult(token.get(), deed, |view| {
        let target = Target::of(uri.path())?;
        box_at(view.rows, view.caller, view.gate, target.at(), Role::Write)?;
        let path = target.secret()?.clone();
        Ok((view.caller.clone(), target, path))
    });
    authorised.map_err(|refusal| problem_for(refusal, named(uri)))
}

/// How a request names what it is about: `category/box/path`.
fn named(uri: &Uri) -> &str {
    uri.path().strip_prefix("/v1/secret/").unwrap_or(uri.path())
}

const CURRENT: &str = "CURRENT";
