//! Around every read that is served whole out of one snapshot, at central and at a site host alike: who reads, the line
//! in the audit log before the answer, the form in which it is wanted.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use holdfast_actors::rows::Refusal;
use serde::Serialize;

use super::call::params;
use super::conventions::{Parameters, etag};
use crate::access::{Access, BoxFuture, bearer};
use crate::node::{Deed, Noted, View};
use crate::problem::Problem;
use crate::reply::Format;

/// What a read is of, for the audit log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// A constant such as `secret.read`.
    pub(super) action: &'static str,
    /// Whether it has a line also when nothing is refused.
    pub(super) noted: Noted,
}

/// A read of something secret.
pub(super) const fn secret(action: &'static str) -> Kind {
    Kind { action, noted: Noted::Always }
}

/// A read of what is not.
pub(super) const fn open(action: &'static str) -> Kind {
    Kind { action, noted: Noted::Refused }
}

/// What is read.
pub(super) struct Asked {
    params: Vec<(String, String)>,
}

impl Asked {
    /// A name from the path; what can't be a name is not there.
    pub(super) fn name<T: std::str::FromStr>(&self, param: &str, what: &'static str) -> Result<T, Refusal> {
        let found = self.params.iter().find(|(name, _)| name == param);
        found.and_then(|(_, value)| value.parse().ok()).ok_or(Refusal::NotFound(what))
    }
}

/// What is answered.
pub(super) struct Seen<T> {
    /// The body.
    pub(super) body: T,
    /// Of what may be changed, the version for `ETag`.
    pub(super) version: Option<u64>,
}

/// Makes a handler of a read.
pub(super) fn look<T, W>(
    access: &Arc<Access>,
    kind: Kind,
    work: W,
) -> impl Fn(Request) -> BoxFuture<'static, Response> + Clone + Send + Sync + 'static
where
    W: Fn(&View<'_>, &Asked) -> Result<Seen<T>, Refusal> + Copy + Send + Sync + 'static,
    T: Serialize + Send + 'static,
{
    let access = access.clone();
    move |request| {
        let access = access.clone();
        Box::pin(async move {
            let (mut parts, _) = request.into_parts();
            let asked = Asked { params: params(&mut parts).await };
            let query = (&parts.method, &parts.uri, &parts.headers);
            run(&access, kind, work, &asked, query).await.unwrap_or_else(IntoResponse::into_response)
        })
    }
}

async fn run<T: Serialize>(
    access: &Access,
    kind: Kind,
    work: impl Fn(&View<'_>, &Asked) -> Result<Seen<T>, Refusal>,
    asked: &Asked,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
) -> Result<Response, Problem> {
    let names: Vec<&str> = asked.params.iter().map(|(_, value)| value.as_str()).collect();
    let deed = Deed { action: kind.action, object: names.join("/"), noted: kind.noted };
    let (wanted, seen) = access
        .consult(bearer(headers), &deed, |view| {
            let query = Parameters::of(method, uri, Format::accepted(headers), &[]);
            let query = query.map_err(|problem| Refusal::Invalid(problem.message.into_owned()))?;
            Ok((query.wanted, work(view, asked)?))
        })
        .await?;
    let mut response = wanted.reply(StatusCode::OK, &seen.body);
    if let Some(version) = seen.version {
        let (name, value) = etag(version);
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}
