//! The Cerberus dialect: safe deposit boxes and the secrets in them, as Nike's management service serves them to its
//! clients. Central serves all of it, a site host only reads of secrets.
//!
//! Every path but the login wants a token before anything else, unknown paths too. Logins belong to a tenant, of
//! which Cerberus knows nothing: it is the one before a `/` in the user name, else the one of the header
//! `X-Holdfast-Tenant`, else `system`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use holdfast_actors::access_control::tokens::USER_TTL_S;

use crate::dispatch::Dialect;
use crate::node::{Deed, Node};
use crate::openapi::operation::{KnownBy, Operations, Who};
use crate::problem::Problem;

mod answers;
mod boxes;
mod lists;
mod login;
mod secrets;
mod target;

use answers::Token;

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a user's token lives, seconds.
    pub token_ttl_s: u64,
    /// How often a user's token may be renewed.
    pub token_refreshes_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { token_ttl_s: USER_TTL_S, token_refreshes_max: 0 }
    }
}

/// Whoever has a token.
const HOLDERS: Who = Who { says: "whoever has a token", known_by: KnownBy::Token };
/// Those, where the thing decides.
const MEMBERS: Who = Who { says: "whoever has a token, if the box lets it", known_by: KnownBy::Token };

/// What handlers need.
#[derive(Clone)]
pub(crate) struct Cerberus {
    node: Arc<Node>,
    settings: Settings,
}

/// The routes of central.
pub fn central_routes(node: Arc<Node>, settings: Settings) -> Router {
    finish(central_operations(), node, settings)
}

/// The routes of a site host.
pub fn site_routes(node: Arc<Node>) -> Router {
    finish(site_operations(), node, Settings::default())
}

/// All that central can do in this dialect.
pub(crate) fn central_operations() -> Operations<Cerberus> {
    login::operations().and(lists::operations()).and(boxes::operations()).and(secrets::operations())
}

/// All that a site host can do in this dialect.
pub(crate) fn site_operations() -> Operations<Cerberus> {
    secrets::read_operations()
}

/// Other methods want a token too, and are then refused.
fn only(methods: MethodRouter<Cerberus>) -> MethodRouter<Cerberus> {
    methods.fallback(wrong_method)
}

/// The fallback answers unknown paths of this dialect, and leaves those of others to the front.
fn finish(operations: Operations<Cerberus>, node: Arc<Node>, settings: Settings) -> Router {
    let router = operations.router_of(only);
    router.route_layer(map_response(with_headers)).fallback(no_route).with_state(Cerberus { node, settings })
}

async fn wrong_method(State(cerberus): State<Cerberus>, uri: Uri, token: Token) -> Problem {
    refuse(&cerberus, &uri, &token, Problem::of_status(StatusCode::METHOD_NOT_ALLOWED))
}

async fn no_route(State(cerberus): State<Cerberus>, uri: Uri, token: Token) -> Response {
    let problem = Problem::of_status(StatusCode::NOT_FOUND);
    if Dialect::of(uri.path()) != Dialect::Cerberus {
        return problem.into_response();
    }
    with_headers(refuse(&cerberus, &uri, &token, problem).into_response()).await
}

/// `problem` for callers with a token, 401 for others.
fn refuse(cerberus: &Cerberus, uri: &Uri, token: &Token, problem: Problem) -> Problem {
    match cerberus.node.consult(token.get(), &Deed::of("cerberus.unknown", uri.path()), |_| Ok(())) {
        Ok(()) => problem,
        Err(refusal) => answers::problem(refusal),
    }
}

/// What the real service sends with every answer. `X-Refresh-Token` tells old clients to renew their token after a
/// change of boxes; with groups and boxes looked up at each request there is never a need to.
async fn with_headers(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

const HEADERS: [(&str, &str); 6] = [
    ("cache-control", "no-cache, no-store, max-age=0, must-revalidate"),
    ("expires", "0"),
    ("pragma", "no-cache"),
    ("x-frame-options", "DENY"),
    ("x-refresh-token", "false"),
    ("x-xss-protection", "1; mode=block"),
];
