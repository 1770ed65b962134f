//! Around every operation that takes a token: authorise, do it, and journal its refusal before the reply.

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::Caller;
use holdfast_actors::barrier::Snapshot;
use holdfast_actors::ports::Now;
use holdfast_actors::rows::{Batch, Expected, Refusal, Rows};
use holdfast_actors::site_registry::restored::refuse_while_stopped;
use holdfast_protocol::ids::Realm;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::conventions::{self, Parameters, Wanted};
use super::{AtCentral, StrongboxNode};
use crate::access::{Access, bearer};
use crate::bite::Pending;
use crate::body;
use crate::node::Deed;
use crate::openapi::operation::{KnownBy, Own, Query, Who, Work};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::reply::Format;

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// Admins of the tenant `system`.
    SystemAdmin,
    /// Those, and who only looks there.
    SystemReader,
    /// Admins, of whatever tenant.
    TenantAdmin,
    /// Those, and who only looks in a tenant.
    TenantReader,
    /// Whoever has a token and is there for more than to look: what he may do depends on the thing, and the decision
    /// says it.
    Editor,
    /// Whoever has a token.
    Anyone,
}

impl Right {
    pub(super) fn check(self, caller: &Caller) -> Result<(), Refusal> {
        let looks = caller.is_admin() || caller.is_reader();
        let has = match self {
            Self::SystemAdmin => caller.is_admin() && caller.is_system(),
            Self::SystemReader => looks && caller.is_system(),
            Self::TenantAdmin => caller.is_admin(),
            Self::TenantReader => looks,
            Self::Editor => !caller.is_reader(),
            Self::Anyone => true,
        };
        if has { Ok(()) } else { Err(Refusal::Denied) }
    }

    /// The same in words.
    pub(super) const fn who(self) -> Who {
        let says = match self {
            Self::SystemAdmin => "an admin of the tenant system",
            Self::SystemReader => "an admin or reader of the tenant system",
            Self::TenantAdmin => "an admin of the tenant",
            Self::TenantReader => "an admin or reader of the tenant",
            Self::Editor => "whoever has a token and is no reader, if the thing lets it",
            Self::Anyone => "whoever has a token",
        };
        Who { says, known_by: KnownBy::Token }
    }
}

/// A body without members.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// An authorised call.
pub(super) struct Call {
    pub(super) node: Arc<StrongboxNode>,
    pub(super) caller: Caller,
    pub(super) peer: Peer,
    /// In what form the answer is wanted.
    pub(super) format: Wanted,
    right: Right,
    /// Only to be tried, see [`Call::change`] and [`Call::acts`].
    validate: bool,
    own: Vec<(String, String)>,
    headers: HeaderMap,
    /// Behind a lock only because a body can't be shared otherwise.
    body: Mutex<Body>,
    params: Vec<(String, String)>,
    about: About,
}

/// What a call is about, once that is known: the object of its audit line.
#[derive(Clone, Default)]
struct About(Arc<OnceLock<String>>);

/// Makes a handler of an operation. `action` names it in the audit line of a refusal.
pub(super) fn op<W, F>(action: &'static str, right: Right, work: W) -> Work<AtCentral>
where
    W: Fn(Call) -> F + Copy + Send + Sync + 'static,
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    op_with(action, right, &[], work)
}

/// The same for an operation that takes parameters in its query beside those of [`conventions`]: names, and what they
/// are for.
pub(super) fn op_with<W, F>(action: &'static str, right: Right, own: &'static [Own], work: W) -> Work<AtCentral>
where
    W: Fn(Call) -> F + Copy + Send + Sync + 'static,
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    let handler = async move |State(node): State<Arc<StrongboxNode>>, request: Request| {
        run(&node, (action, right, own), work, request).await
    };
    Work::new(handler, right.who(), Query::Tried).action(action).own(own)
}

async fn run<W, F>(
    node: &Arc<StrongboxNode>,
    (action, right, own): (&'static str, Right, &[Own]),
    work: W,
    request: Request,
) -> Result<Response, Problem>
where
    W: Fn(Call) -> F,
    F: Future<Output = Result<Response, Problem>>,
{
    let (mut parts, body) = request.into_parts();
    let about = About::default();
    let params = params(&mut parts).await;
    if let Some((_, name)) = params.first() {
        about.is(name);
    }
    let peer = parts.extensions.get::<Peer>().cloned().ok_or_else(Problem::internal)?;
    let caller = authorise(&node.access, &parts.headers, right, (action, about.text())).await?;
    let (realm, actor) = (caller.realm, caller.actor().to_owned());
    let own: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
    let asked = Parameters::of(&parts.method, &parts.uri, Format::accepted(&parts.headers), &own);
    let headers = parts.headers;
    let (node, about_it) = (node.clone(), about.clone());
    let access = node.access.clone();
    let done = match asked {
        Err(problem) => Err(problem),
        Ok(Parameters { wanted: format, validate, own }) => {
            let (body, about) = (Mutex::new(body), about_it);
            work(Call { node, caller, peer, format, right, validate, own, headers, body, params, about }).await
        }
    };
    match done {
        Err(problem) if problem.is_validated() => Ok(problem.status.into_response()),
        Err(problem) => {
            note(&access, realm, &actor, (action, about.text()), &problem)?;
            Err(problem)
        }
        done => done,
    }
}

/// Who calls, if it may; a refusal is journalled: of strangers in the node's chain, of others in their tenant's.
pub(super) async fn authorise(
    access: &Access,
    headers: &HeaderMap,
    right: Right,
    (action, object): (&'static str, &str),
) -> Result<Caller, Problem> {
    let deed = Deed::of(action, object);
    Ok(access.caller(bearer(headers), &deed, |caller| right.check(caller)).await?)
}

/// Journals a refusal. What failed on our side is none.
pub(super) fn note(
    access: &Access,
    realm: Realm,
    actor: &str,
    (action, object): (&'static str, &str),
    problem: &Problem,
) -> Result<(), Problem> {
    if problem.status.is_client_error() {
        access.note_refusal(realm, actor, &Deed::of(action, object), &problem.message)?;
    }
    Ok(())
}

pub(super) async fn params(parts: &mut Parts) -> Vec<(String, String)> {
    match RawPathParams::from_request_parts(parts, &()).await {
        Ok(params) => params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        Err(_) => Vec::new(),
    }
}

impl Call {
    /// Reads the body, once; an empty one has no members.
    pub(super) async fn body<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let body = std::mem::take(&mut *self.body.lock().unwrap_or_else(PoisonError::into_inner));
        body::decode(&self.headers, body).await
    }

    /// Says what the call is about, for the audit line of its refusal; what the path says stays.
    pub(super) fn about(&self, object: impl AsRef<str>) {
        self.about.is(object.as_ref());
    }

    /// A name from the path. What can't be a name is not there.
    pub(super) fn name<T: std::str::FromStr>(&self, param: &str, what: &'static str) -> Result<T, Problem> {
        let found = self.params.iter().find(|(name, _)| name == param);
        let name = found.and_then(|(_, value)| value.parse().ok());
        name.ok_or_else(|| Refusal::NotFound(what).into())
    }

    /// The newest state.
    pub(super) fn snapshot(&self) -> Result<Snapshot, Refusal> {
        self.node.access.snapshot()
    }

    /// Now.
    pub(super) fn now(&self) -> Now {
        self.node.access.now()
    }

    /// The caller's name, for audit lines.
    pub(super) fn by(&self) -> String {
        self.caller.actor().to_owned()
    }

    /// Looks at the caller's right once more: it may have been taken away since.
    pub(super) fn renew(&self) -> Result<(), Refusal> {
        self.right.check(&self.caller.renewed(&self.snapshot()?, self.now())?)
    }

    /// Decides in the writer's transaction, where the caller's right is looked at once more: it may have been taken
    /// away since. With `validate=true` it decides all the same, nothing is written, and the call ends here.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        mut decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Problem> {
        self.change_even_stopped(move |rows, now| {
            refuse_while_stopped(rows)?;
            decide(rows, now)
        })
        .await
    }

    /// The same for what a restored copy of central still does.
    pub(super) async fn change_even_stopped<T: Send + 'static>(
        &self,
        mut decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Problem> {
        let (caller, right) = (self.caller.clone(), self.right);
        let decide = move |rows: &dyn Rows, now| {
            right.check(&caller.renewed(rows, now)?)?;
            decide(rows, now)
        };
        let access = &self.node.access;
        if self.validate {
            return Err(tried(access.rehearse(decide).await));
        }
        Ok(access.change_even_stopped(decide).await?)
    }

    /// Has what was committed in `realm` hold at every connected host; to be called between a change that must bite
    /// and its answer.
    pub(super) async fn bite(&self, realm: Realm) -> Pending {
        self.node.access.node().bite(realm).await
    }

    /// To be asked, after all checks, before anything is done that is not [`Call::change`]: with `validate=true` the
    /// call ends here.
    pub(super) fn acts(&self) -> Result<(), Problem> {
        if self.validate { Err(Problem::validated()) } else { Ok(()) }
    }

    /// The end of a call that is only to be tried and is decided elsewhere, also where a restored copy decides.
    pub(super) async fn tries<T: Send + 'static>(
        &self,
        decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Problem {
        tried(self.node.access.rehearse(decide).await)
    }

    /// Whether the call is only to be tried.
    pub(super) fn is_tried(&self) -> bool {
        self.validate
    }

    /// What the caller expects of the thing that it wants changed.
    pub(super) fn expected(&self) -> Result<Expected, Problem> {
        conventions::expected(&self.headers)
    }

    /// A parameter of the route's own; the last one, if it was given several times.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.own.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

fn tried(outcome: Result<(), Refusal>) -> Problem {
    outcome.map_or_else(Problem::from, |()| Problem::validated())
}

impl About {
    fn is(&self, object: &str) {
        let _ = self.0.set(object.chars().take(OBJECT_CHARS_MAX).collect());
    }

    fn text(&self) -> &str {
        self.0.get().map_or("", String::as_str)
    }
}

/// Of what a caller named, in an audit line.
const OBJECT_CHARS_MAX: usize = 128;
