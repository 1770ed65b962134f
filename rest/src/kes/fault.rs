//! How refusals read: clients compare status and words with those that they know, so they are KES' own, byte for byte,
//! in either profile.

use std::borrow::Cow;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_actors::key_store::Unusable;
use holdfast_actors::rows::Refusal;
use holdfast_protocol::kes::FormError;

use super::api::Api;
use super::profile::Profile;
use crate::problem::Problem;

/// What a name in a path is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Key,
    Policy,
    Identity,
    Pattern,
}

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum Fault {
    NoCertificate,
    SeveralCertificates,
    ExpiredCertificate,
    /// What a proxy says of its client: nothing.
    ProxySentNone,
    /// More than one certificate.
    ProxySentSeveral,
    /// What is no certificate.
    ProxySentBad,
    NotPermitted,
    AssignsToItself,
    /// Of what changes something, at a site host.
    AtCentralOnly,
    /// What it is of, and what was given.
    BadName(Named, String),
    BadBody,
    BadImport,
    /// What an imported key was said to be for.
    UnknownCipher(String),
    /// The same, where the key is too long or short for it.
    KeySize(String),
    TooManyCiphertexts,
    /// As many follow the logs as may.
    TooManyReaders,
    Unusable(Unusable),
    /// The method that came, and the one that is expected.
    WrongMethod(String, &'static str),
    Refused(Refusal),
    /// Refused below the dialect.
    Problem(Problem),
    /// In the words of another profile than the request's.
    Of(Profile, Box<Fault>),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied => Self::NotPermitted,
            other => Self::Refused(other),
        }
    }
}

impl From<Unusable> for Fault {
    fn from(unusable: Unusable) -> Self {
        Self::Unusable(unusable)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// A status, and words.
type Said = (StatusCode, Cow<'static, str>);

fn bad(words: impl Into<Cow<'static, str>>) -> Said {
    (StatusCode::BAD_REQUEST, words.into())
}

impl Fault {
    /// What is answered to a client of that profile that has called that; `None`: what all dialects say alike.
    fn said(&self, profile: Profile, api: &Api) -> Option<Said> {
        use Profile::{Current, Seed};
        Some(match (self, profile) {
            (Self::Of(profile, fault), _) => return fault.said(*profile, api),
            (Self::NoCertificate, _) => bad("tls: client certificate is required"),
            (Self::SeveralCertificates, _) => bad("tls: received more than one client certificate"),
            (Self::ExpiredCertificate, _) => (StatusCode::FORBIDDEN, "tls: client certificate has expired".into()),
            (Self::ProxySentNone, _) => bad("no client certificate is present"),
            (Self::ProxySentSeveral, _) => bad("too many client certificates are present"),
            (Self::ProxySentBad, _) => bad("invalid client certificate"),
            (Self::NotPermitted, Current) => (StatusCode::FORBIDDEN, "not authorized: insufficient permissions".into()),
            (Self::NotPermitted, Seed) => (StatusCode::FORBIDDEN, "prohibited by policy".into()),
            (Self::AtCentralOnly, _) => (StatusCode::FORBIDDEN, AT_CENTRAL_ONLY.into()),
            (Self::AssignsToItself, _) => (StatusCode::FORBIDDEN, "identity cannot assign policy to itself".into()),
            (Self::BadName(named, text), Current) => bad(bad_name(*named, text)),
            (Self::BadName(named, text), Seed) => bad(bad_name_then(*named, text, api)),
            (Self::BadBody, Current) => bad("invalid request body"),
            (Self::BadImport, Current) => bad("invalid import key request body"),
            (Self::BadBody | Self::BadImport, Seed) => bad("invalid json"),
            (Self::UnknownCipher(cipher), _) => {
                (StatusCode::NOT_ACCEPTABLE, format!("algorithm '{cipher}' is not supported").into())
            }
            (Self::KeySize(cipher), Current) => {
                (StatusCode::NOT_ACCEPTABLE, format!("invalid key size for '{cipher}'").into())
            }
            (Self::KeySize(_), Seed) => bad("invalid key"),
            (Self::TooManyCiphertexts, _) => bad("too many ciphertexts"),
            (Self::Unusable(unusable), profile) => unusable_said(unusable, profile),
            (Self::WrongMethod(got, expected), Current) => {
                (StatusCode::METHOD_NOT_ALLOWED, format!("received method '{got}' expected '{expected}'").into())
            }
            (Self::WrongMethod(..), Seed) => (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".into()),
            (Self::Refused(refusal), profile) => return refused_said(refusal, profile),
            (Self::TooManyReaders | Self::Problem(_), _) => return None,
        })
    }

    /// The answer.
    pub(super) fn answer(self, profile: Profile, api: &Api) -> Response {
        let profile = if let Self::Of(profile, _) = &self { *profile } else { profile };
        match self.said(profile, api) {
            Some((status, words)) => shaped(status, &words, profile),
            None => self.into_problem().into_response(),
        }
    }

    fn into_problem(self) -> Problem {
        match self {
            Self::Refused(refusal) => refusal.into(),
            Self::TooManyReaders => Problem::overloaded(),
            Self::Problem(problem) => problem,
            Self::Of(_, fault) => fault.into_problem(),
            _ => Problem::internal(),
        }
    }

    /// For its audit line; `None`: it is none of the client's doing, and has none.
    pub(super) fn why(&self, api: &Api) -> Option<String> {
        match self {
            Self::Of(_, fault) => fault.why(api),
            Self::Refused(Refusal::Sealed | Refusal::Corrupt | Refusal::Fault(_)) => None,
            Self::Refused(refusal) => Some(refusal.to_string()),
            Self::TooManyReaders => Some("as many follow the logs as may".to_owned()),
            Self::Problem(problem) => problem.status.is_client_error().then(|| problem.message.to_string()),
            other => other.said(Profile::Current, api).map(|(_, words)| words.into_owned()),
        }
    }
}

fn bad_name(named: Named, text: &str) -> String {
    let (what, rest) = match named {
        Named::Key => ("key name", "contains invalid characters"),
        Named::Policy => ("policy name", "contains invalid characters"),
        Named::Identity => ("identity", "contains invalid characters"),
        Named::Pattern => ("listing pattern", "is invalid"),
    };
    format!("{what} '{text}' is empty, too long or {rest}")
}

fn bad_name_then(named: Named, text: &str, api: &Api) -> String {
    let no_segment = text.is_empty() || text.contains('/');
    match named {
        _ if no_segment => format!("request URL path does not match API pattern: {}*", api.path),
        Named::Key => "invalid key name".to_owned(),
        Named::Policy => "invalid policy name".to_owned(),
        Named::Identity => "identity is unknown".to_owned(),
        Named::Pattern => "syntax error in pattern".to_owned(),
    }
}

fn unusable_said(unusable: &Unusable, profile: Profile) -> Said {
    match (unusable, profile) {
        (Unusable::NotAuthentic(_), Profile::Current) => bad("decryption failed: ciphertext is not authentic"),
        (Unusable::NotAuthentic(Some(FormError::Cipher(cipher))), Profile::Seed) => {
            bad(format!("invalid algorithm: {cipher}"))
        }
        (Unusable::NotAuthentic(Some(FormError::Vector(len))), Profile::Seed) => bad(format!("invalid iv size {len}")),
        (Unusable::NotAuthentic(Some(FormError::Nonce(len))), Profile::Seed) => {
            bad(format!("invalid nonce size {len}"))
        }
        (Unusable::NotAuthentic(_), Profile::Seed) => bad("ciphertext is not authentic"),
        (Unusable::NoHmac, _) => (StatusCode::CONFLICT, "key does not support HMAC".into()),
        (Unusable::NoneEncrypts | Unusable::NoSuchVersion, _) => (StatusCode::CONFLICT, unusable.to_string().into()),
    }
}

fn refused_said(refusal: &Refusal, profile: Profile) -> Option<Said> {
    Some(match (refusal, profile) {
        (Refusal::NotFound(what), _) => (StatusCode::NOT_FOUND, format!("{what} does not exist").into()),
        (Refusal::Exists(what), Profile::Current) => bad(format!("{what} already exists")),
        (Refusal::Exists(what), Profile::Seed) => bad(format!("{what} does already exist")),
        (Refusal::Invalid(why), _) => bad(why.clone()),
        (Refusal::Conflict(why), _) => (StatusCode::CONFLICT, why.clone().into()),
        _ => return None,
    })
}

/// The older profile says its letters; the newer one ends its only line before the brace.
fn shaped(status: StatusCode, words: &str, profile: Profile) -> Response {
    let words = serde_json::Value::from(words).to_string();
    let words = words.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let (media, body) = match profile {
        Profile::Current => (JSON, format!("{{\"message\":{words}\n}}")),
        Profile::Seed => (JSON_UTF8, format!("{{\"message\":{words}}}")),
    };
    let nosniff: (HeaderName, HeaderValue) = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static(media)), nosniff], body).into_response()
}

const AT_CENTRAL_ONLY: &str = "keys, policies and identities are changed at central, not at a site host";
const JSON: &str = "application/json";
const JSON_UTF8: &str = "application/json; charset=utf-8";
