//! Answers with a body: YAML unless the client prefers JSON.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_protocol::secret::SecretBytes;
use serde::Serialize;

use crate::erasing::Erasing;
use crate::problem::Problem;

/// Most answers have room in it.
const ROOM_BYTES: usize = 512;

/// In what a client reads answers of the Strongbox dialect. As an extractor it never fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `application/yaml`.
    #[default]
    Yaml,
    /// `application/json`.
    Json,
}

impl Format {
    /// JSON if `Accept` names it before any YAML type; `*/*` and nothing mean YAML. Weights are not compared.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let types = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        types.flat_map(|line| line.split(',')).find_map(Self::of_type).unwrap_or_default()
    }

    /// The format that a media type names; parameters are ignored.
    pub(crate) fn of_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Some(Self::Yaml),
            "application/json" | "text/json" => Some(Self::Json),
            other if other.starts_with("application/") && other.ends_with("+json") => Some(Self::Json),
            _ => None,
        }
    }

    /// An answer with `value` as its body. The buffer may hold revealed secrets and erases itself once sent.
    pub fn reply<T: Serialize + ?Sized>(self, status: StatusCode, value: &T) -> Response {
        let Some(bytes) = self.encode(value) else { return Problem::internal().into_response() };
        let body = Body::from(Bytes::from_owner(Sent(bytes)));
        let mut response = (status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, self.content_type());
        response
    }

    fn encode<T: Serialize + ?Sized>(self, value: &T) -> Option<SecretBytes> {
        let mut written = Erasing::with_capacity(ROOM_BYTES);
        match self {
            Self::Json => serde_json::to_writer(&mut written, value).ok()?,
            Self::Yaml => serde_saphyr::to_fmt_writer(&mut written, &value).ok()?,
        }
        Some(SecretBytes::new(std::mem::take(&mut *written.into_bytes())))
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Yaml => "application/yaml",
            Self::Json => "application/json",
        })
    }
}

/// A body that is being sent. All of its memory is erased in one sweep, which byte by byte would take longer than most
/// answers take to be made.
struct Sent(SecretBytes);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Format {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::accepted(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_spoken_only_when_asked_for() {
        let cases = [
            ("application/json", Format::Json),
            ("application/json; q=0.9, */*", Format::Json),
            ("text/html, application/vnd.x+json", Format::Json),
            ("application/yaml, application/json", Format::Yaml),
            ("*/*", Format::Yaml),
            ("", Format::Yaml),
        ];
        for (accept, format) in cases {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(Format::accepted(&headers), format, "{accept}");
        }
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Yaml);
    }

    #[test]
    fn an_answer_that_outgrows_its_room_is_whole() {
        let long = "x".repeat(5 * ROOM_BYTES);
        let json = Format::Json.encode(&serde_json::json!({ "a": long })).unwrap();
        assert_eq!(json.expose(), format!("{{\"a\":\"{long}\"}}").into_bytes());
        assert_eq!(Format::Yaml.encode(&long).unwrap().expose(), serde_saphyr::to_string(&long).unwrap().into_bytes());
    }

    #[test]
    fn yaml_quotes_what_would_read_as_another_type() {
        let text = Format::Yaml.encode(&serde_json::json!({ "a": "12", "b": "true", "c": "x: y", "d": [] })).unwrap();
        let back: serde_json::Value = serde_saphyr::from_slice(text.expose()).unwrap();
        assert_eq!(back, serde_json::json!({ "a": "12", "b": "true", "c": "x: y", "d": [] }));
    }
}
