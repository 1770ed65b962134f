//! Tokens in, refusals out, in Cerberus' words.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_actors::rows::Refusal;
use holdfast_actors::secret_store::Invalid;
use zeroize::Zeroizing;

use crate::problem::Problem;
use crate::reply::Format;
use crate::shape::CerberusErrors;

/// The token of a request: of `X-Cerberus-Token`, without that `X-Vault-Token`, without both `Authorization: Bearer`.
/// A bad one in the first is not rescued by a good one in the next. As an extractor it never fails.
pub(super) struct Token(Option<Zeroizing<String>>);

impl Token {
    pub(super) fn get(&self) -> Option<&str> {
        self.0.as_ref().map(|text| text.as_str())
    }

    fn of(headers: &HeaderMap) -> Option<&str> {
        for name in ["x-cerberus-token", "x-vault-token"] {
            if let Some(value) = headers.get(name) {
                return value.to_str().ok();
            }
        }
        let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Token {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(Self::of(&parts.headers).map(|text| Zeroizing::new(text.to_owned()))))
    }
}

/// A refusal under Cerberus' codes and with its texts where clients know them.
pub(super) fn problem(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Unauthenticated => Problem::unauthorized(TOKEN_INVALID).code(99105),
        Refusal::Denied => Problem::forbidden(DENIED).code(99994),
        Refusal::NotFound(_) => Problem::not_found("Not found").code(99996),
        other => Problem::from(other),
    }
}

/// The same where it is known who may not do what.
pub(super) fn problem_for(refusal: Refusal, path: &str) -> Problem {
    match refusal {
        Refusal::Denied => {
            Problem::forbidden(format!("{DENIED} Permission was not granted for path: {path}")).code(99994)
        }
        other => problem(other),
    }
}

/// All faults of a request at once.
pub(super) fn invalid(invalid: &Invalid) -> Problem {
    let (first, more) = invalid.faults().split_first().expect("an invalid request has a fault");
    let problem = Problem::bad_request(first.message).code(first.code);
    more.iter().fold(problem, |problem, fault| problem.and(fault.code, fault.message))
}

/// How Vault, whose API this part of Cerberus takes over, says that nothing stands at a path.
pub(super) fn nothing_there() -> Response {
    Format::Json.reply(StatusCode::NOT_FOUND, &CerberusErrors::default())
}

/// 204.
pub(super) fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// 200 with JSON.
pub(super) fn json<T: serde::Serialize>(value: &T) -> Response {
    Format::Json.reply(StatusCode::OK, value)
}

const TOKEN_INVALID: &str = "X-Vault-Token or X-Cerberus-Token header is malformed or invalid.";
const DENIED: &str = "Access to the requested resource was denied.";
