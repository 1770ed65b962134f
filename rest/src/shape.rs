//! How each dialect says that something went wrong.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::dispatch::Dialect;
use crate::openapi::schemas::Anything;
use crate::problem::Problem;
use crate::reply::Format;

const ERROR_UID: HeaderName = HeaderName::from_static("error_uid");

/// Puts `problem` in the words of `dialect`. `request_id` doubles as Cerberus' error id, so that it leads to the log.
pub fn render(problem: &Problem, dialect: Dialect, format: Format, request_id: &str) -> Response {
    let mut response = match dialect {
        Dialect::Strongbox => format.reply(problem.status, &strongbox(problem)),
        Dialect::Cerberus => cerberus(problem, request_id),
        Dialect::Kes => kes(problem),
        Dialect::MarbleRun => marblerun(problem),
        Dialect::Keylime => Format::Json.reply(problem.status, &keylime(problem)),
        Dialect::Node => {
            let message = problem.message.clone().into_owned();
            Format::Json.reply(problem.status, &NodeError { message })
        }
    };
    if let Some(seconds) = problem.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// How Strongbox refuses.
#[derive(Serialize, JsonSchema)]
pub(crate) struct StrongboxErrors {
    errors: [StrongboxError; 1],
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct StrongboxError {
    /// In plain words.
    error_message: String,
    /// Details for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Anything")]
    error_info: Option<Value>,
}

fn strongbox(problem: &Problem) -> StrongboxErrors {
    let error_message = problem.message.clone().into_owned();
    StrongboxErrors { errors: [StrongboxError { error_message, error_info: problem.info.clone() }] }
}

/// How Cerberus refuses.
#[derive(Default, Serialize, JsonSchema)]
pub(crate) struct CerberusErrors {
    /// Leads to the log; absent where nothing stands at the path of a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_id: Option<String>,
    errors: Vec<CerberusError>,
}

#[derive(Serialize, JsonSchema)]
struct CerberusError {
    /// Cerberus' own number of what is wrong.
    code: u32,
    /// In plain words.
    message: String,
}

/// How the node itself refuses.
#[derive(Serialize, JsonSchema)]
pub(crate) struct NodeError {
    message: String,
}

fn cerberus(problem: &Problem, request_id: &str) -> Response {
    let first = (cerberus_code(problem), &problem.message);
    let errors = std::iter::once(first).chain(problem.more.iter().map(|(code, message)| (*code, message)));
    let errors = errors.map(|(code, message)| CerberusError { code, message: message.clone().into_owned() });
    let body = CerberusErrors { error_id: Some(request_id.to_owned()), errors: errors.collect() };
    let mut response = Format::Json.reply(problem.status, &body);
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(ERROR_UID, id);
    }
    response
}

/// The code that Cerberus gives a status when nothing more is known.
fn cerberus_code(problem: &Problem) -> u32 {
    match (problem.code, problem.status) {
        (Some(code), _) => code,
        (None, StatusCode::NOT_FOUND) if problem.no_route => 110,
        (None, StatusCode::NOT_FOUND) => 99996,
        (None, StatusCode::UNAUTHORIZED) => 99105,
        (None, StatusCode::FORBIDDEN) => 99994,
        (None, StatusCode::METHOD_NOT_ALLOWED) => 120,
        (None, StatusCode::NOT_ACCEPTABLE) => 130,
        (None, StatusCode::UNSUPPORTED_MEDIA_TYPE) => 140,
        (None, StatusCode::TOO_MANY_REQUESTS) => 150,
        (None, StatusCode::SERVICE_UNAVAILABLE) => 20,
        (None, status) if status.is_server_error() => 99998,
        (None, _) => 99999,
    }
}

/// The line break before the closing brace is what KES' own encoder writes.
fn kes(problem: &Problem) -> Response {
    if problem.no_route {
        return with_nosniff((problem.status, [TEXT], "404 page not found\n").into_response());
    }
    let message = Value::from(problem.message.as_ref());
    with_nosniff((problem.status, [JSON], format!("{{\"message\":{message}\n}}")).into_response())
}

/// JSend. An unknown path is 405 like a wrong method: clients fall back from one API version to the other on that.
/// Of a client's fault it speaks as `fail`, in JSON; of all others as `error`, labelled text as Go's `http.Error` does.
fn marblerun(problem: &Problem) -> Response {
    if problem.no_route || problem.status == StatusCode::METHOD_NOT_ALLOWED {
        let body = json!({ "status": "error", "data": null });
        return with_nosniff((StatusCode::METHOD_NOT_ALLOWED, [TEXT], body.to_string()).into_response());
    }
    let data = problem.info.clone().unwrap_or(Value::Null);
    let is_fail = matches!(problem.status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED);
    let body = json!({ "status": if is_fail { "fail" } else { "error" }, "data": data, "message": problem.message });
    let label = if is_fail { JSON } else { TEXT };
    with_nosniff((problem.status, [label], body.to_string()).into_response())
}

fn keylime(problem: &Problem) -> Value {
    json!({ "code": problem.status.as_u16(), "status": problem.message, "results": {} })
}

const JSON: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
const TEXT: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));

fn with_nosniff(mut response: Response) -> Response {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
