//! What went wrong with a request, before it is put in a dialect's words.

use std::borrow::Cow;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// A refusal or failure that the client is told of. Handlers return it as the error of a `Result`; the front puts it
/// in the shape of the path's dialect. Nothing secret and nothing internal may stand in it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{status}: {message}")]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// What the client reads.
    pub message: Cow<'static, str>,
    /// Strongbox: `error-info`. MarbleRun: `data`.
    pub info: Option<serde_json::Value>,
    /// Cerberus: code of `message`. Without it the usual one of the status.
    pub code: Option<u32>,
    /// Cerberus: more faults of the same request, as (code, message).
    pub more: Vec<(u32, Cow<'static, str>)>,
    /// Seconds for the header `Retry-After`.
    pub retry_after_s: Option<u32>,
    /// No route has this path; some dialects answer that in their own way.
    pub no_route: bool,
}

impl Problem {
    /// A problem of any kind.
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            message: message.into(),
            info: None,
            code: None,
            more: Vec::new(),
            retry_after_s: None,
            no_route: false,
        }
    }

    /// 400.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401.
    pub fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 404 for a thing, not for a path.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 409.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// 413: the body is longer than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {limit} bytes"))
    }

    /// 503: the node is sealed.
    pub fn sealed() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "sealed").retry_after(5)
    }

    /// 503: more work than the node takes at once.
    pub fn overloaded() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded").retry_after(1)
    }

    /// 500. What happened is in the log under the request id, never in the answer.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
    }

    /// What the HTTP layer itself refused, in plain words; its 404 means that no route has the path.
    pub fn of_status(status: StatusCode) -> Self {
        let message = match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => "malformed request",
            StatusCode::NOT_FOUND => "no such path",
            StatusCode::METHOD_NOT_ALLOWED => "method not allowed",
            StatusCode::PAYLOAD_TOO_LARGE => "the body is too long",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported media type",
            StatusCode::INTERNAL_SERVER_ERROR => return Self::internal(),
            _ => "refused",
        };
        Self { no_route: status == StatusCode::NOT_FOUND, ..Self::new(status, message) }
    }

    /// No problem at all: with `validate=true` an operation ends, like one that is refused, where it would begin to
    /// change something. So nothing that follows the change can run by mistake.
    pub fn validated() -> Self {
        Self::new(StatusCode::NO_CONTENT, "valid")
    }

    /// Whether it is [`Problem::validated`].
    pub fn is_validated(&self) -> bool {
        self.status == StatusCode::NO_CONTENT
    }

    /// Gives the Cerberus code.
    #[must_use]
    pub fn code(mut self, code: u32) -> Self {
        self.code = Some(code);
        self
    }

    /// Adds details for programs.
    #[must_use]
    pub fn info(mut self, info: serde_json::Value) -> Self {
        self.info = Some(info);
        self
    }

    /// Adds a further fault of the same request.
    #[must_use]
    pub fn and(mut self, code: u32, message: impl Into<Cow<'static, str>>) -> Self {
        self.more.push((code, message.into()));
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

/// The dialect is not known here, so this is only an envelope for the front, which renders it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
