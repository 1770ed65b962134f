//! Reading request bodies. Handlers call this after they have authorised the caller: a body is work for the node, and
//! strangers get none. Nothing of a body's values ever appears in a message.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use serde_saphyr::Error as YamlError;
use zeroize::Zeroizing;

use crate::erasing::Erasing;
use crate::problem::Problem;
use crate::reply::Format;

/// Longest body unless a route says otherwise.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Reads and decodes a body of at most [`BODY_BYTES_MAX`] bytes, by `Content-Type` as JSON or YAML.
/// Types must carry `#[serde(deny_unknown_fields)]`, so that a misspelt member is a 400 that names it.
pub async fn decode<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    decode_up_to(headers, body, BODY_BYTES_MAX).await
}

/// The same with another bound.
pub async fn decode_up_to<T: DeserializeOwned>(headers: &HeaderMap, body: Body, limit: usize) -> Result<T, Problem> {
    let notation = Notation::of(headers)?;
    let bytes = read(body, limit).await?;
    notation.parse(&bytes)
}

/// Reads and decodes a JSON body whatever its `Content-Type`, as Cerberus and KES do.
pub async fn decode_json<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, Problem> {
    parse_json(&read(body, limit).await?)
}

/// Reads a whole body. 413 above `limit` bytes, 408 when it does not arrive in time.
pub async fn read(body: Body, limit: usize) -> Result<Zeroizing<Vec<u8>>, Problem> {
    tokio::time::timeout(READ_TIMEOUT, collect(body, limit))
        .await
        .unwrap_or_else(|_| Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")))
}

/// The same for those who look at the time themselves.
pub(crate) async fn collect(mut body: Body, limit: usize) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(Problem::too_large(limit));
    }
    let mut bytes = Erasing::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body broke off"))?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > limit - bytes.len() {
            return Err(Problem::too_large(limit));
        }
        bytes.extend(data);
    }
    Ok(bytes.into_bytes())
}

/// What `Content-Type` says a body is written in.
enum Notation {
    Json,
    Yaml,
    Unsaid,
}

impl Notation {
    /// Missing, and what `curl -d` writes by itself, is unsaid. Any other type that is neither YAML nor JSON is a 415.
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Self::Unsaid) };
        let text = value.to_str().unwrap_or("?");
        match Format::of_type(text) {
            Some(Format::Json) => Ok(Self::Json),
            Some(Format::Yaml) => Ok(Self::Yaml),
            None if text.starts_with("application/x-www-form-urlencoded") => Ok(Self::Unsaid),
            None => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send YAML or JSON")),
        }
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Problem> {
        let text = std::str::from_utf8(bytes).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
        // An operation without members may be called without a body.
        let text = if text.trim().is_empty() { "{}" } else { text };
        match self {
            Self::Json => parse_json(text.as_bytes()),
            Self::Yaml => parse_yaml(text),
            // YAML contains JSON in all but corner cases (escaped surrogates), so JSON is tried first where it may be.
            Self::Unsaid if text.trim_start().starts_with('{') => match serde_json::from_str(text) {
                Ok(value) => Ok(value),
                Err(error) if error.is_data() => Err(refused(&error.to_string())),
                Err(_) => parse_yaml(text),
            },
            Self::Unsaid => parse_yaml(text),
        }
    }
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| match error.is_data() {
        true => refused(&error.to_string()),
        false => Problem::bad_request(format!("malformed JSON at line {} column {}", error.line(), error.column()))
            .code(MALFORMED),
    })
}

/// Anchors and aliases are refused altogether: no request needs them, and they are how a short text becomes huge.
fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_anchors: 0,
            max_aliases: 0,
            max_merge_keys: 0,
            max_documents: 1,
            max_depth: 32,
            max_events: 100_000,
            max_nodes: 50_000,
        },
        with_snippet: false,
        strict_booleans: true,
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| match error.without_snippet() {
        YamlError::SerdeUnknownField { field, .. } => named("unknown field", field),
        YamlError::SerdeMissingField { field, .. } => named("missing field", field),
        YamlError::DuplicateMappingKey { key: Some(key), .. } => named("duplicate field", key),
        YamlError::SerdeInvalidType { expected, .. } | YamlError::SerdeInvalidValue { expected, .. } => wrong(expected),
        YamlError::InvalidScalar { ty, .. } => wrong(ty),
        _ => malformed(),
    })
}

/// Says what the JSON decoder objects to without repeating any value: its text is used only for the names of members
/// that it found unknown, missing or twice, and for what it expected instead (our own words).
fn refused(text: &str) -> Problem {
    for what in NAMING {
        if let Some((name, _)) = text.strip_prefix(what).and_then(|rest| rest.strip_prefix(" `")?.split_once('`')) {
            return named(what, name);
        }
    }
    match text.rsplit_once(", expected ") {
        Some((_, expected)) => wrong(expected),
        None => malformed(),
    }
}

fn named(what: &str, name: &str) -> Problem {
    let name: String = name.chars().take(64).filter(|letter| !letter.is_control()).collect();
    Problem::bad_request(format!("{what} `{name}`")).code(MALFORMED)
}

fn wrong(expected: &str) -> Problem {
    Problem::bad_request(format!("a member has the wrong type or value, expected {expected}")).code(MALFORMED)
}

fn malformed() -> Problem {
    Problem::bad_request("the body is malformed or not what this operation takes").code(MALFORMED)
}

const NAMING: &[&str] = &["unknown field", "missing field", "duplicate field"];
const MALFORMED: u32 = 99001;
const READ_TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests;
