//! The seal: its state, revealing, unsealing, sealing, rotation.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_actors::seal_keeper::{Class, Proof, Revealer, Status};
use holdfast_actors::shamir::Share;
use holdfast_protocol::ids::Realm;
use holdfast_protocol::secret::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::call::{self, Call, Right, op};
use super::control::{LocalShareState, Operator, Revealed, RungState, SiteSealStatus, Unsealing};
use super::conventions::{Parameters, Wanted};
use super::handed::when_handed;
use super::{AtCentral, AtSite, StrongboxNode, StrongboxSite};
use crate::access::Access;
use crate::body;
use crate::openapi::operation::{self as on, ANYBODY, KnownBy, Operations, Query, Who, Work};
use crate::openapi::schemas::Time;
use crate::peer::Peer;
use crate::problem::Problem;
use crate::reply::Format;
use crate::secret::{Reveal, SecretText};
use crate::time::rfc3339_us;

/// Of a host, in the audit log.
const SEAL: &str = "seal.seal";
/// The header that carries the bootstrap secret.
const BOOTSTRAP_SECRET: &str = "holdfast-bootstrap-secret";

/// What central's seal can do.
pub(super) fn operations() -> Operations<AtCentral> {
    Operations::under("/v1/state/strongbox/system")
        .with(on::get(
            "/seal-status",
            Work::new(status, ANYBODY, Query::Cut).gives::<SealStatus>(),
            "How the seal stands",
        ))
        .with(
            on::post(
                "/reveal-sealkey",
                Work::new(reveal, REVEALERS, Query::Cut).action("seal.reveal").gives::<FirstSecrets>(),
                "Initialises central, and hands out its seal key, shares and first root token, once",
            )
            .takes::<RevealAsked>()
            .headers(&[("Holdfast-Bootstrap-Secret", "The bootstrap secret; may stand in the body instead.")])
            .may(&[403]),
        )
        .with(
            on::post(
                "/unseal",
                Work::new(unseal, HOLDERS, Query::Cut).action("seal.unseal").gives::<MoreShares>(),
                "Unseals with the seal key or with shares, over one call or several",
            )
            .takes::<UnsealAsked>()
            .done()
            .may(&[403]),
        )
        .with(on::post("/seal", op("seal.seal", Right::SystemAdmin, seal), "Seals: the keys are erased").done())
        .with(on::post(
            "/rotate-seal",
            op("seal.rotate", Right::SystemAdmin, rotate).gives::<NewSecrets>(),
            "Makes a new seal key and new shares",
        ))
}

/// What a site host's seal can do, beside being opened.
pub(super) fn site_operations() -> Operations<AtSite> {
    Operations::under("/v1/state/strongbox/system")
        .with(on::get(
            "/seal-status",
            Work::new(site_status, ANYBODY, Query::Cut).gives::<SiteStatus>(),
            "How the host's seal stands, and what was tried to open it",
        ))
        .with(on::post("/seal", Work::new(site_seal, OPERATORS, Query::Tried).action(SEAL), "Seals the host").done())
}

/// Who may seal a host.
pub(super) const OPERATORS: Who =
    Who { says: "an admin of the tenant system, or an operator's certificate", known_by: KnownBy::TokenOrCertificate };
const REVEALERS: Who =
    Who { says: "whoever is on the machine itself, or has the bootstrap secret", known_by: KnownBy::Nothing };
/// Who proves by the body that it may.
pub(super) const HOLDERS: Who =
    Who { says: "whoever has the seal key or enough shares of it", known_by: KnownBy::Nothing };

/// From where a call comes, for the limit on attempts. An admin's certificate goes first, so that a stranger on this
/// very machine can't lock out the operator beside it.
pub(super) fn class_of(peer: &Peer, admins: &BTreeSet<String>) -> Class {
    if peer.identity().is_some_and(|identity| admins.contains(identity)) {
        Class::Admin
    } else if peer.loopback {
        Class::Local
    } else {
        Class::Other
    }
}

/// `{"initialized", "sealed", "progress", "threshold", "shares"}`: `progress` of `threshold` shares are in hand.
#[derive(Serialize, JsonSchema)]
struct SealStatus {
    initialized: bool,
    sealed: bool,
    progress: usize,
    threshold: u8,
    shares: u8,
}

impl From<Status> for SealStatus {
    fn from(status: Status) -> Self {
        Self {
            initialized: status.initialised,
            sealed: status.sealed,
            progress: status.held,
            threshold: status.threshold,
            shares: status.shares,
        }
    }
}

pub(super) async fn status(State(node): State<Arc<StrongboxNode>>, format: Wanted) -> Response {
    format.reply(StatusCode::OK, &SealStatus::from(node.seal.status()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RevealAsked {
    bootstrap_secret: Option<SecretText>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct FirstSecrets {
    sealkey: Reveal,
    accessor: String,
    token: Reveal,
    #[schemars(with = "Time")]
    creation_time: String,
    shares: Vec<Reveal>,
}

impl From<Revealed> for FirstSecrets {
    fn from(revealed: Revealed) -> Self {
        Self {
            sealkey: key_text(&revealed.sealkey),
            accessor: revealed.accessor,
            token: Reveal::from(revealed.root_token),
            creation_time: rfc3339_us(revealed.created_us),
            shares: share_texts(&revealed.shares),
        }
    }
}

/// The bootstrap secret may come in a header or in the body; the body is read only when there is a secret to compare.
pub(super) async fn reveal(
    State(node): State<Arc<StrongboxNode>>,
    Extension(peer): Extension<Peer>,
    format: Wanted,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let by = match peer.loopback {
        true => Some(Revealer::Loopback),
        false => by_secret(&node, &headers, body).await?,
    };
    let revealed = node.seal.reveal(by).await?;
    Ok(format.reply(StatusCode::OK, &FirstSecrets::from(revealed)))
}

async fn by_secret(node: &StrongboxNode, headers: &HeaderMap, body: Body) -> Result<Option<Revealer>, Problem> {
    let Some(secret) = (node.bootstrap_secret)() else { return Ok(None) };
    let shown = match headers.get(BOOTSTRAP_SECRET) {
        Some(value) => Zeroizing::new(value.as_bytes().to_vec()),
        None => {
            let asked: RevealAsked = body::decode_up_to(headers, body, 4096).await?;
            Zeroizing::new(asked.bootstrap_secret.unwrap_or_default().expose().as_bytes().to_vec())
        }
    };
    Ok(secret.ct_eq(&shown).then_some(Revealer::BootstrapSecret))
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct UnsealAsked {
    sealkey: Option<SecretText>,
    shares: Option<Vec<SecretText>>,
    remote_sealkey: Option<SecretText>,
}

impl UnsealAsked {
    pub(super) fn proof(self) -> Result<Proof, Problem> {
        if self.remote_sealkey.is_some() {
            return Err(Problem::bad_request("a remote seal key is for a site's host, not for central"));
        }
        let shares: Option<Zeroizing<Vec<String>>> =
            self.shares.map(|shares| Zeroizing::new(shares.iter().map(|share| share.expose().to_owned()).collect()));
        let sealkey = self.sealkey.as_ref().map(SecretText::expose);
        Ok(Proof::parse(sealkey, shares.as_ref().map(|shares| shares.as_slice()))?)
    }
}

/// What is said to good shares that are too few.
#[derive(Serialize, JsonSchema)]
struct MoreShares {
    sealed: bool,
    progress: usize,
    threshold: u8,
}

/// 204 once unsealed; 200 with the progress while more shares are needed.
pub(super) async fn unseal(
    State(node): State<Arc<StrongboxNode>>,
    Extension(peer): Extension<Peer>,
    format: Wanted,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let class = class_of(&peer, &node.admin_identities);
    let proof = match read_proof(&headers, body).await {
        Ok(proof) => proof,
        Err(problem) => {
            call::note(&node.access, Realm::NODE, class.as_str(), ("seal.unseal", ""), &problem)?;
            return Err(problem);
        }
    };
    match node.seal.unseal(class, proof).await? {
        Unsealing::Unsealed => Ok(StatusCode::NO_CONTENT.into_response()),
        Unsealing::MoreShares { held, threshold } => {
            Ok(format.reply(StatusCode::OK, &MoreShares { sealed: true, progress: held, threshold }))
        }
    }
}

pub(super) async fn read_proof(headers: &HeaderMap, body: Body) -> Result<Proof, Problem> {
    body::decode_up_to::<UnsealAsked>(headers, body, UNSEAL_BYTES_MAX).await?.proof()
}

pub(super) async fn seal(call: Call) -> Result<Response, Problem> {
    call.acts()?;
    call.node.seal.seal(operator(&call)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Serialize, JsonSchema)]
struct NewSecrets {
    sealkey: Reveal,
    shares: Vec<Reveal>,
}

/// The old seal key's record goes when the kernel has taken this reply, and stays if it never does: then a start finds
/// both and takes either.
pub(super) async fn rotate(call: Call) -> Result<Response, Problem> {
    call.acts()?;
    let rotated = call.node.seal.rotate_seal(operator(&call)).await?;
    let secrets = NewSecrets { sealkey: key_text(&rotated.sealkey), shares: share_texts(&rotated.shares) };
    let reply = call.format.reply(StatusCode::OK, &secrets);
    let seal = call.node.seal.clone();
    Ok(when_handed(reply, move || seal.reply_sent(rotated.rotation)))
}

fn operator(call: &Call) -> Operator {
    Operator { class: class_of(&call.peer, &call.node.admin_identities), name: call.by() }
}

fn key_text(key: &Secret<32>) -> Reveal {
    Reveal::from(STANDARD.encode(key.expose()))
}

fn share_texts(shares: &[Share]) -> Vec<Reveal> {
    shares.iter().map(|share| Reveal(SecretText::from(share.expose_text()))).collect()
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct SiteStatus {
    initialized: bool,
    sealed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    ladder: Vec<RungState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permit_until: Option<String>,
    allow_local_unseal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_share: Option<LocalShareState>,
}

pub(super) async fn site_status(State(node): State<Arc<StrongboxSite>>, format: Wanted) -> Response {
    let SiteSealStatus { initialised, sealed, reason, ladder, permit_until, allow_local_unseal, local_share } =
        node.seal.status();
    let initialized = initialised;
    let status = SiteStatus { initialized, sealed, reason, ladder, permit_until, allow_local_unseal, local_share };
    format.reply(StatusCode::OK, &status)
}

pub(super) async fn site_seal(
    State(node): State<Arc<StrongboxSite>>,
    Extension(peer): Extension<Peer>,
    (method, uri): (Method, Uri),
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (operator, query) = asked_by_operator(&node, &peer, (&method, &uri, &headers), SEAL).await?;
    if !query.validate {
        node.seal.seal(operator).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What an operator asks of a host without parameters of its own. Only what an operator asks in vain has a line.
pub(super) async fn asked_by_operator(
    node: &StrongboxSite,
    peer: &Peer,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    action: &'static str,
) -> Result<(Operator, Parameters), Problem> {
    let class = class_of(peer, &node.admin_identities);
    let name = operator_by(&node.access, headers, (peer, class), action).await?;
    let query = Parameters::of(method, uri, Format::accepted(headers), &[]);
    let query = query.or_else(|problem| {
        call::note(&node.access, Realm::NODE, &name, (action, ""), &problem)?;
        Err(problem)
    })?;
    Ok((Operator { class, name }, query))
}

/// An operator by name. An admin's certificate serves where no token need be known: the tenant `system` may have
/// nothing at a site, and sealing gives nothing away; a central that was restored may know no token that is left.
pub(super) async fn operator_by(
    access: &Access,
    headers: &HeaderMap,
    (peer, class): (&Peer, Class),
    action: &'static str,
) -> Result<String, Problem> {
    match (class, peer.identity()) {
        (Class::Admin, Some(identity)) => Ok(identity.to_owned()),
        _ => {
            let caller = call::authorise(access, headers, Right::SystemAdmin, (action, "")).await?;
            Ok(caller.actor().to_owned())
        }
    }
}

/// All shares of the largest split there can be.
const UNSEAL_BYTES_MAX: usize = 32 << 10;
