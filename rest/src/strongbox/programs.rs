//! Programs at either node: their secret-ids made, they themselves logged in, their tokens renewed. And what a site host
//! says to a password.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{FromRef, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::approle_logins::{
    ApproleLogin, MintSecretId, Minted, check_minter, log_in_approle, mint_secret_id, renew_approle_token,
    secret_id_text, token_text,
};
use holdfast_actors::access_control::{Caller, Claims};
use holdfast_actors::ports::{Now, draw, draw_secret};
use holdfast_actors::rows::{Refusal, Rows};
use holdfast_actors::site_registry::restored::refuse_while_stopped;
use holdfast_protocol::ids::{ItemName, Realm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::AtSite;
use super::approles::{MINTERS, seconds};
use super::call::{Nothing, note, params};
use super::conventions::{Parameters, Wanted};
use super::login::TokenShown;
use crate::access::{Access, bearer};
use crate::body;
use crate::failures::{Failure, Failures};
use crate::node::{Deed, NOBODY};
use crate::openapi::operation::{self as on, ANYBODY, KnownBy, Operations, Query, Who, Work};
use crate::openapi::schemas::{DurationText, Time};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::reply::Format;
use crate::secret::{Reveal, SecretText};
use crate::time::rfc3339_us;

/// Role-id and secret-id, with room to spare.
const LOGIN_BYTES_MAX: usize = 4 << 10;
const LOGIN: &str = "approle.login";
const MINT: &str = "approle.secret-id";
const REFRESH: &str = "token.refresh";

/// What can be done by and for programs at both nodes.
pub(super) fn operations<S>() -> Operations<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Door>: FromRef<S>,
{
    let minters = Who { says: MINTERS, known_by: KnownBy::Token };
    Operations::under("/v1")
        .with(
            on::post(
                "/approle-login",
                Work::new(login, ANYBODY, Query::Cut).action(LOGIN).gives::<TokenShown>(),
                "Exchanges a program's role-id and secret-id for a token",
            )
            .takes::<ApproleLoginAsked>()
            .may(&[401, 403]),
        )
        .with(
            on::post(
                "/state/strongbox/authentication/approles/{approle}/generate-secret-id",
                Work::new(mint, minters, Query::Tried).action(MINT).gives::<SecretIdShown>(),
                "Makes a secret-id, good at this node only",
            )
            .takes::<MintAsked>()
            .may(&[409]),
        )
}

/// What a site host does beside that.
pub(super) fn site_operations() -> Operations<AtSite> {
    let programs = Who { says: "a program, with its token", known_by: KnownBy::Token };
    let nobody = Who { says: "nobody: passwords are known at central only", known_by: KnownBy::Nothing };
    Operations::under("/v1")
        .with(
            on::post(
                "/state/strongbox/token/refresh",
                Work::new(refresh, programs, Query::Tried).action(REFRESH).gives::<TokenShown>(),
                "Exchanges a program's token for a new one",
            )
            .takes::<Nothing>(),
        )
        .with(
            on::post("/login", Work::new(login_elsewhere, nobody, Query::None), "Is refused at a site host")
                .may(&[403]),
        )
}

/// Where programs come in.
pub(super) struct Door {
    access: Arc<Access>,
    failures: Failures,
}

impl Door {
    pub(super) fn new(access: Arc<Access>) -> Arc<Self> {
        Arc::new(Self { access, failures: Failures::default() })
    }

    /// What a failed login is told: why, nobody is. The first of a minute are noted one by one.
    fn failed(&self, peer: &Peer) -> Problem {
        let note = |why: &str| self.access.note_refusal(Realm::NODE, NOBODY, &Deed::of(LOGIN, ""), why);
        let (noted, problem) = match self.failures.failed(peer.addr.ip(), self.access.now().mono) {
            Failure::Noted => (note("wrong role-id or secret-id"), Problem::unauthorized("not authenticated")),
            Failure::LastNoted(left_s) => {
                let why = "wrong role-id or secret-id; further failures from there are not noted for a while";
                (note(why), too_many(left_s))
            }
            Failure::Unnoted(left_s) => (Ok(()), too_many(left_s)),
        };
        noted.map_or_else(Problem::from, |()| problem)
    }
}

/// Strongbox has no 429.
fn too_many(left_s: u32) -> Problem {
    Problem::forbidden("not authenticated, as many times before from this address").retry_after(left_s)
}

/// What a program shows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ApproleLoginAsked {
    /// What it says it is; with a weak secret-id it is left out, or the secret-id itself.
    role_id: Option<SecretText>,
    /// What proves it, unless the approle asks for none.
    secret_id: Option<SecretText>,
}

pub(super) async fn login(
    State(door): State<Arc<Door>>,
    wanted: Wanted,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let asked: ApproleLoginAsked = body::decode_up_to(&headers, body, LOGIN_BYTES_MAX).await?;
    let (access, node) = (&door.access, door.access.node().clone());
    let bytes = |text: Option<SecretText>| text.filter(|text| !text.expose().is_empty()).map(|text| text.to_bytes());
    let command = ApproleLogin {
        role_id: bytes(asked.role_id),
        secret_id: bytes(asked.secret_id),
        token_id: node.fresh_token_id(),
        host_key: draw_secret(&*access.entropy()),
        issuer: node.issuer(),
    };
    let decide = move |rows: &dyn Rows| log_in_approle(&command, &|tenant| node.locate(rows, tenant), rows, node.now());
    // Strangers get no turn at the writer.
    if let Err(Refusal::Unauthenticated) = decide(&access.snapshot()?) {
        return Err(door.failed(&peer));
    }
    match access.node().barrier().run(decide).await {
        Ok((claims, _)) => Ok(wanted.reply(StatusCode::OK, &shown(access, &claims)?)),
        Err(Refusal::Unauthenticated) => Err(door.failed(&peer)),
        Err(refusal) => Err(refusal.into()),
    }
}

fn shown(access: &Access, claims: &Claims) -> Result<TokenShown, Refusal> {
    Ok(TokenShown::new(token_text(&access.snapshot()?, claims)?.into(), claims))
}

/// Passwords and their hashes stay at central.
pub(super) async fn login_elsewhere(State(door): State<Arc<Door>>, Extension(peer): Extension<Peer>) -> Problem {
    let _ = door.failures.failed(peer.addr.ip(), door.access.now().mono);
    Problem::forbidden("passwords are known at central only: log in there, or here with an approle")
}

/// What a secret-id shall be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct MintAsked {
    /// A shorter life than the approle gives.
    #[schemars(with = "Option<DurationText>")]
    ttl: Option<String>,
    /// Fewer logins than the approle gives.
    num_uses: Option<u32>,
}

/// A secret-id. It is good at this node only, and is shown this once.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct SecretIdShown {
    /// The secret-id.
    secret_id: Reveal,
    /// By which audit lines name it.
    accessor: String,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    expires: Option<String>,
    /// Logins with it; absent: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    num_uses: Option<u32>,
}

/// Makes a secret-id, for admins and whom the approle names.
pub(super) async fn mint(State(door): State<Arc<Door>>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let text = params(&mut parts).await.into_iter().next().map(|(_, value)| value).unwrap_or_default();
    let deed = Deed::of(MINT, &text);
    let who = door.access.consult(bearer(&parts.headers), &deed, |view| {
        let name: ItemName = text.parse().map_err(|_| Refusal::NotFound("approle"))?;
        check_minter(view.rows, view.caller, &name)?;
        Ok((view.caller.clone(), name))
    });
    let (caller, name) = who.await?;
    let (realm, actor) = (caller.realm, caller.actor().to_owned());
    let query = Parameters::of(&parts.method, &parts.uri, Format::accepted(&parts.headers), &[]);
    let minted = minted(&door, (caller, name), query, &parts.headers, body).await;
    refused(&door.access, (realm, &actor), (MINT, &text), minted)
}

/// Notes a refusal; what was only tried is none.
fn refused(
    access: &Access,
    (realm, actor): (Realm, &str),
    deed: (&'static str, &str),
    outcome: Result<Response, Problem>,
) -> Result<Response, Problem> {
    match outcome {
        Err(problem) if problem.is_validated() => Ok(problem.status.into_response()),
        Err(problem) => {
            note(access, realm, actor, deed, &problem)?;
            Err(problem)
        }
        done => done,
    }
}

async fn minted(
    door: &Door,
    (caller, approle): (Caller, ItemName),
    query: Result<Parameters, Problem>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let query = query?;
    let asked: MintAsked = body::decode_up_to(headers, body, LOGIN_BYTES_MAX).await?;
    let (access, node) = (&door.access, door.access.node().clone());
    let entropy = access.entropy();
    let (tenant, issuer) = (caller.tenant, node.issuer());
    let (secret, accessor) = (draw_secret(&*entropy), draw(&*entropy));
    let text = secret_id_text(tenant, &secret);
    let ttl_s = asked.ttl.as_deref().map(|text| seconds(Some(text), 0)).transpose()?;
    let mut command = MintSecretId { caller, approle, secret, accessor, ttl_s, num_uses: asked.num_uses, issuer };
    let decide = move |rows: &dyn Rows, now: Now| {
        refuse_while_stopped(rows)?;
        // A full copy may have come since: the tenant's content lies elsewhere then.
        command.caller.realm = node.locate(rows, tenant).ok_or(Refusal::Unauthenticated)?;
        mint_secret_id(&command, rows, now)
    };
    if query.validate {
        return Err(access.rehearse(decide).await.map_or_else(Problem::from, |()| Problem::validated()));
    }
    let Minted { expires_us, num_uses } = access.change(decide).await?;
    let shown = SecretIdShown {
        secret_id: Reveal(SecretText::from(Zeroizing::clone(&text))),
        accessor: uuid::Uuid::from_bytes(accessor).to_string(),
        expires: (expires_us != 0).then(|| rfc3339_us(expires_us)),
        num_uses,
    };
    Ok(query.wanted.reply(StatusCode::OK, &shown))
}

/// Exchanges a program's token at a site host; the one before holds until its own end.
pub(super) async fn refresh(State(door): State<Arc<Door>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let deed = Deed::of(REFRESH, "");
    let caller = door.access.consult(bearer(&parts.headers), &deed, |view| match view.caller.is_approle() {
        true => Ok(view.caller.clone()),
        false => Err(Refusal::Denied),
    });
    let caller = caller.await?;
    let (realm, actor) = (caller.realm, caller.actor().to_owned());
    let outcome = renewed(&door.access, caller, (&parts, body)).await;
    refused(&door.access, (realm, &actor), (REFRESH, ""), outcome)
}

async fn renewed(access: &Access, caller: Caller, (parts, body): (&Parts, Body)) -> Result<Response, Problem> {
    let query = Parameters::of(&parts.method, &parts.uri, Format::accepted(&parts.headers), &[])?;
    let Nothing {} = body::decode_up_to(&parts.headers, body, LOGIN_BYTES_MAX).await?;
    if query.validate {
        return Err(Problem::validated());
    }
    Ok(query.wanted.reply(StatusCode::OK, &refreshed(access, caller).await?))
}

/// A new token for a program.
pub(super) async fn refreshed(access: &Access, mut caller: Caller) -> Result<TokenShown, Problem> {
    let node = access.node().clone();
    let (token_id, host_key, issuer) = (node.fresh_token_id(), draw_secret(&*access.entropy()), node.issuer());
    let decide = move |rows: &dyn Rows| {
        caller.realm = node.locate(rows, caller.tenant).ok_or(Refusal::Unauthenticated)?;
        renew_approle_token((&caller, token_id, issuer), &host_key, rows, node.now())
    };
    let (claims, _) = access.node().barrier().run(decide).await?;
    Ok(shown(access, &claims)?)
}
