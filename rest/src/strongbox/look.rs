//! Around every read that is served whole out of one snapshot, at central and at a site host alike: who reads, the line
//! in the audit log before the answer, the form in which it is wanted.

use std::sync::Arc;

use axum::extract::{FromRef, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use holdfast_actors::rows::Refusal;
use schemars::JsonSchema;
use serde::Serialize;

use super::call::params;
use super::conventions::{Parameters, etag};
use crate::access::{Access, bearer};
use crate::node::{Deed, Noted, View};
use crate::openapi::operation::{KnownBy, Query, Who, Work};
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

/// Makes a handler of a read; `who` may read it, `work` decides.
pub(super) fn look<S, T, W>(kind: Kind, who: &'static str, work: W) -> Work<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Access>: FromRef<S>,
    W: Fn(&View<'_>, &Asked) -> Result<Seen<T>, Refusal> + Copy + Send + Sync + 'static,
    T: Serialize + JsonSchema + Send + 'static,
{
    let handler = async move |State(access): State<Arc<Access>>, request: Request| {
        let (mut parts, _) = request.into_parts();
        let asked = Asked { params: params(&mut parts).await };
        run(&access, kind, work, &asked, (&parts.method, &parts.uri, &parts.headers)).await
    };
    Work::new(handler, Who { says: who, known_by: KnownBy::Token }, Query::Cut).action(kind.action).gives::<T>()
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
