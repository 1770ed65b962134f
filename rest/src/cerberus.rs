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
use axum::routing::{MethodRouter, delete, get, post};
use holdfast_actors::access_control::tokens::USER_TTL_S;

use crate::dispatch::Dialect;
use crate::node::{Deed, Node};
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

/// What handlers need.
#[derive(Clone)]
struct Cerberus {
    node: Arc<Node>,
    settings: Settings,
}

/// The routes of central.
pub fn central_routes(node: Arc<Node>, settings: Settings) -> Router {
    let boxes = get(boxes::list).post(boxes::create);
    let one_box = get(boxes::read);
    let router = Router::new()
        .route("/v2/auth/user", only(get(login::log_in)))
        .route("/v2/auth/user/refresh", only(get(login::refresh)))
        .route("/v1/auth", only(delete(login::log_out)))
        .route("/v1/category", only(get(lists::categories)))
        .route("/v1/category/{id}", only(get(lists::category)))
        .route("/v1/role", only(get(lists::roles)))
        .route("/v1/role/{id}", only(get(lists::role)))
        .route("/v2/safe-deposit-box", only(boxes.clone()))
        .route("/v2/safe-deposit-box/", only(boxes))
        .route("/v2/safe-deposit-box/{id}", only(one_box.clone()))
        .route("/v2/safe-deposit-box/{id}/", only(one_box))
        .route(
            "/v1/secret/{*path}",
            only(post(secrets::write).put(secrets::write).get(secrets::read).delete(secrets::delete)),
        );
    finish(router, node, settings)
}

/// The routes of a site host.
pub fn site_routes(node: Arc<Node>) -> Router {
    let router = Router::new().route("/v1/secret/{*path}", only(get(secrets::read)));
    finish(router, node, Settings::default())
}

/// Other methods want a token too, and are then refused.
fn only(methods: MethodRouter<Cerberus>) -> MethodRouter<Cerberus> {
    methods.fallback(wrong_method)
}

/// The fallback answers unknown paths of this dialect, and leaves those of others to the front.
fn finish(router: Router<Cerberus>, node: Arc<Node>, settings: Settings) -> Router {
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
