//! Why a request brought no good answer, in words that say what to do next.

use std::path::{Path, PathBuf};

use hyper::StatusCode;
use serde_json::Value;

/// Why a request brought no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Not `https://host[:port]`.
    #[error("{url} is no address of the form https://host:port")]
    Url {
        /// What was given.
        url: String,
    },
    /// A certificate or key file does not serve.
    #[error("{}: {reason}", path.display())]
    Credentials {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody listens there.
    #[error("can't reach {url}: {reason}; is it running?")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// Somebody listens, but the TLS handshake fails: not the node that is meant, or we are not its client.
    #[error("no secure connection to {url}: {reason}")]
    Handshake {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// The connection broke, or the answer is no HTTP, too long or late.
    #[error("{request}: no answer: {reason}")]
    Broken {
        /// What was asked.
        request: String,
        /// Why.
        reason: String,
    },
    /// The node said no.
    #[error("{request}: {status}: {message}{}", hint(*status, message, *retry_after_s))]
    Refused {
        /// What was asked.
        request: String,
        /// The status code.
        status: StatusCode,
        /// The node's own words.
        message: String,
        /// After how many seconds it is worth another try, if the node said so.
        retry_after_s: Option<u32>,
    },
    /// An answer without what it should contain.
    #[error("{request}: the answer {what}")]
    Answer {
        /// What was asked.
        request: String,
        /// What is wrong with the answer.
        what: String,
    },
}

impl ClientError {
    /// The status of a refusal.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether nothing was decided: the node was not reached, is sealed, or can't at the moment.
    pub(crate) fn is_unavailable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Handshake { .. } | Self::Broken { .. } => true,
            other => other.status() == Some(StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// The node's own words, from the envelopes of its dialects: Strongbox, Cerberus, KES and plain text.
pub(super) fn refusal(bytes: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else {
        let text = String::from_utf8_lossy(bytes).chars().take(500).collect::<String>();
        return if text.trim().is_empty() { "no reason given".to_owned() } else { text.trim().to_owned() };
    };
    let errors = body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let said: Vec<String> = errors.iter().filter_map(one_error).collect();
    match (said.is_empty(), body["message"].as_str()) {
        (false, _) => said.join("; "),
        (true, Some(message)) => message.to_owned(),
        (true, None) => body.to_string(),
    }
}

/// `error-message (error-info)`.
fn one_error(error: &Value) -> Option<String> {
    let message = [&error["error-message"], &error["message"]].into_iter().find_map(Value::as_str)?;
    Some(match &error["error-info"] {
        Value::Null => message.to_owned(),
        info => format!("{message} ({info})"),
    })
}

/// What to do about a refusal, where that is plain from it.
fn hint(status: StatusCode, message: &str, retry_after_s: Option<u32>) -> String {
    let said = match (status, message) {
        (StatusCode::SERVICE_UNAVAILABLE, "sealed") => {
            "; unseal central first: holdfast operator unseal (a site host opens by itself once it reaches central, or \
             by holdfast site remote-sealkey)"
        }
        (StatusCode::SERVICE_UNAVAILABLE, _) => {
            return retry_after_s.map(|seconds| format!("; try again in {seconds} s")).unwrap_or_default();
        }
        (StatusCode::UNAUTHORIZED, _) => {
            "; the token is missing, unknown or has run out, or name and password are wrong (which token was sent: \
             holdfast config show; a new one: holdfast operator login)"
        }
        (StatusCode::BAD_REQUEST, "tls: client certificate is required") => {
            "; say who asks: --api-key-file FILE, HOLDFAST_API_KEY, or --client-cert with --client-key"
        }
        (StatusCode::FORBIDDEN, NOT_PERMITTED | "prohibited by policy") => {
            "; which identity that was: holdfast identity of FILE; what it may do: holdfast identity info"
        }
        (StatusCode::FORBIDDEN, "permission denied") => "; whose token that was: holdfast operator token show",
        (StatusCode::NOT_FOUND, "no such path" | "404 page not found") => {
            "; this node does not offer that (is it a site host?)"
        }
        (StatusCode::CONFLICT, message) if message.contains("reallow-site-unwrap") => "; that is holdfast site reallow",
        (StatusCode::PRECONDITION_FAILED, _) => "; read it again, and say which version you mean by --cas",
        _ => "",
    };
    said.to_owned()
}

/// In the words of KES' last versions.
const NOT_PERMITTED: &str = "not authorized: insufficient permissions";

/// The path of a PEM file for messages about it.
pub(super) fn credentials(path: &Path, reason: impl ToString) -> ClientError {
    ClientError::Credentials { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_speaks_in_the_nodes_words() {
        assert_eq!(refusal(br#"{"errors":[{"error-message":"sealed"}]}"#), "sealed");
        assert_eq!(
            refusal(br#"{"errors":[{"error-message":"wrong share: 2","error-info":{"wrong-shares":[2]}}]}"#),
            r#"wrong share: 2 ({"wrong-shares":[2]})"#
        );
        assert_eq!(refusal(br#"{"error_id":"x","errors":[{"code":99,"message":"no"}]}"#), "no");
        assert_eq!(refusal(br#"{"errors":[{"message":"a"},{"message":"b"}]}"#), "a; b");
        assert_eq!(refusal(br#"{"message":"kes says no"}"#), "kes says no");
        assert_eq!(refusal(b""), "no reason given");
    }

    #[test]
    fn every_refusal_that_has_a_way_out_names_it() {
        for (status, message, retry, way) in [
            (503, "sealed", None, "holdfast operator unseal"),
            (503, "overloaded", Some(1), "try again in 1 s"),
            (401, "not authenticated", None, "holdfast operator login"),
            (403, "permission denied", None, "holdfast operator token show"),
            (400, "tls: client certificate is required", None, "--api-key-file"),
            (403, "prohibited by policy", None, "holdfast identity info"),
            (403, NOT_PERMITTED, None, "holdfast identity info"),
            (404, "no such path", None, "a site host"),
            (404, "404 page not found", None, "a site host"),
            (409, "reallow-site-unwrap permits one more", None, "holdfast site reallow"),
            (412, "changed", None, "--cas"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(hint(status, message, retry).contains(way), "{status} {message}");
        }
        assert_eq!(hint(StatusCode::BAD_REQUEST, "missing field `name`", None), "");
    }
}
