//! How each dialect says that something went wrong.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::dispatch::Dialect;
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
        Dialect::Node => Format::Json.reply(problem.status, &json!({ "message": problem.message })),
    };
    if let Some(seconds) = problem.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn strongbox(problem: &Problem) -> Value {
    let mut error = json!({ "error-message": problem.message });
    if let Some(info) = &problem.info {
        error["error-info"] = info.clone();
    }
    json!({ "errors": [error] })
}

fn cerberus(problem: &Problem, request_id: &str) -> Response {
    let mut errors = vec![json!({ "code": cerberus_code(problem), "message": problem.message })];
    errors.extend(problem.more.iter().map(|(code, message)| json!({ "code": code, "message": message })));
    let mut response = Format::Json.reply(problem.status, &json!({ "error_id": request_id, "errors": errors }));
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
