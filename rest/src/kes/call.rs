//! Around everything that clients call: who calls, for which tenant, whether a policy lets it; then what is called; and
//! the audit line of a refusal before the reply. What is done is noted where it is done: a change with its commit, a read
//! with the snapshot that it was served from.

use std::future::Future;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::authority::Authority;
use holdfast_actors::access_control::identities;
use holdfast_actors::access_control::tenants::is_blocked;
use holdfast_actors::barrier::Snapshot;
use holdfast_actors::distribute::Gate;
use holdfast_actors::key_store::HotRealm;
use holdfast_actors::ports::{Entropy, Now};
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::{Identity, PeerError};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Kes;
use super::api::{self, Api, Auth, KNOWN, PERMITTED};
use super::fault::{Fault, Named};
use super::profile::Profile;
use crate::bite::{Pending, to_the_end};
use crate::body;
use crate::front::Slot;
use crate::node::{Deed, NOBODY};
use crate::openapi::operation::{Query, Work};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::reply::Format;
use crate::uri::{decoded, query_values};

/// A call of one who may.
pub(super) struct Call {
    pub(super) kes: Kes,
    pub(super) api: &'static Api,
    pub(super) profile: Profile,
    realm: Realm,
    /// `None`: the configuration lets anybody call it.
    who: Option<Identity>,
    /// As policies see it.
    path: String,
}

/// What a read looks at.
pub(super) struct At<'a> {
    pub(super) rows: &'a Snapshot,
    pub(super) hot: &'a HotRealm<'a>,
    pub(super) gate: &'a Gate<'a>,
    pub(super) realm: Realm,
}

/// Makes a handler.
pub(super) fn op<W, F>(api: &'static Api, work: W) -> Work<Kes>
where
    W: Fn(Call, Body) -> F + Copy + Send + Sync + 'static,
    F: Future<Output = Result<Response, Fault>> + Send + 'static,
{
    let handler = async move |State(kes): State<Kes>, request: Request| run(kes, api, work, request).await;
    let who = if api.auth == Auth::Known { KNOWN } else { PERMITTED };
    Work::new(handler, who, Query::None).action(api.action).own(&[("enclave", "Whose keys: a tenant.")])
}

async fn run<W, F>(kes: Kes, api: &'static Api, work: W, request: Request) -> Response
where
    W: Fn(Call, Body) -> F,
    F: Future<Output = Result<Response, Fault>> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    let profile = kes.0.section.profile.of(api, &parts.method);
    let path = path_of(parts.uri.path());
    let deed = Deed::of(api.action, path.strip_prefix(api.path).unwrap_or_default());
    let skips = kes.0.section.skips_auth(api);
    let enclave = enclave_of(&parts);
    let who = match parts.extensions.get::<Peer>().map(|peer| kes.identity(peer)) {
        Some(Ok(who)) => Some(who),
        _ if skips => None,
        Some(Err(fault)) => return kes.refuse(api, (Realm::NODE, NOBODY), &deed, fault).answer(profile, api),
        None => return Problem::internal().into_response(),
    };
    let admitted = match (skips, enclave) {
        // Nobody learns by what all may call which tenants there are, nor writes into their logs.
        (true, _) => kes.admit(api, None, None, &path),
        (false, Ok(enclave)) => kes.admit(api, who, enclave.as_deref(), &path),
        (false, Err(fault)) => Err((Realm::NODE, fault)),
    };
    let realm = match admitted {
        Ok(realm) => realm,
        Err((realm, fault)) => return kes.refuse(api, (realm, &named(who)), &deed, fault).answer(profile, api),
    };
    let timeout = kes.0.section.timeout(api);
    let call = Call { kes: kes.clone(), api, profile, realm, who, path };
    let work = work(call, body);
    let done = match api.bites {
        true => tokio::time::timeout(timeout, to_the_end(parts.extensions.get::<Slot>().cloned(), work)).await,
        false => tokio::time::timeout(timeout, work).await,
    };
    match done.unwrap_or_else(|_| Err(late())) {
        Ok(response) => response,
        Err(fault) => kes.refuse(api, (realm, &named(who)), &deed, fault).answer(profile, api),
    }
}

/// The tenant that a request names. One that can't be read is none that there is, and no other is taken instead.
fn enclave_of(parts: &Parts) -> Result<Option<String>, Fault> {
    let named = query_values(parts.uri.query(), "enclave").next();
    let header = || Some(parts.headers.get("kes-enclave")?.to_str().ok().map(str::to_owned));
    named.or_else(header).map(|name| name.ok_or(Fault::NotPermitted)).transpose()
}

fn late() -> Fault {
    Fault::Problem(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no answer in time").retry_after(1))
}

/// Undone of its percent-encoding, as policies are written. One that can't be undone is no path that a name could be in.
fn path_of(path: &str) -> String {
    let path = decoded(path, false).unwrap_or_else(|| path.to_owned());
    api::judged_path(&path).into_owned()
}

fn named(who: Option<Identity>) -> String {
    who.map_or_else(|| NOBODY.to_owned(), |who| who.to_string())
}

/// Another method than those of a path. Noted as well, of whoever has a certificate.
pub(super) async fn wrong_method(
    State(kes): State<Kes>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    method: Method,
) -> Response {
    let path = path_of(uri.path());
    let Some(api) = api::of_path(&path) else { return Problem::internal().into_response() };
    let expected = api.methods[0];
    let fault = Fault::WrongMethod(method.to_string(), expected);
    let deed = Deed::of(api.action, path.strip_prefix(api.path).unwrap_or_default());
    let actor = named(kes.identity(&peer).ok());
    let mut response =
        kes.refuse(api, (Realm::NODE, &actor), &deed, fault).answer(kes.0.section.profile.of(api, &method), api);
    // As KES has it.
    response.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(expected));
    response
}

impl Kes {
    fn identity(&self, peer: &Peer) -> Result<Identity, Fault> {
        let certificate = peer.certificate.as_ref().ok_or(Fault::NoCertificate)?;
        let who = certificate.client.map_err(|error| match error {
            PeerError::Several => Fault::SeveralCertificates,
            PeerError::None | PeerError::Malformed => Fault::NoCertificate,
        })?;
        let now_s = self.0.node.now().wall_us.div_euclid(1_000_000);
        let has_ended = certificate.not_after < now_s;
        if has_ended && !self.0.section.accept_expired_certificates { Err(Fault::ExpiredCertificate) } else { Ok(who) }
    }

    /// Whether the call may be made: the tenant's realm, or in which realm the refusal is noted.
    fn admit(
        &self,
        api: &Api,
        who: Option<Identity>,
        enclave: Option<&str>,
        path: &str,
    ) -> Result<Realm, (Realm, Fault)> {
        let of_node = |refusal: Refusal| (Realm::NODE, as_unknown(refusal));
        let rows = self.0.node.barrier().snapshot().map_err(of_node)?;
        let realm = self.realm(&rows, enclave).map_err(of_node)?;
        let Some(who) = who else { return Ok(realm) };
        let hot = HotRealm::new(&rows, realm).map_err(of_node)?;
        match judged(api, who, path, &rows, (realm, &hot)) {
            Ok(()) => Ok(realm),
            // Of whom the tenant does not know nothing is written in its chain.
            Err(fault) => {
                let is_known = identities::identity(&rows, realm, who).is_ok();
                Err((if is_known { realm } else { Realm::NODE }, fault))
            }
        }
    }

    /// Notes a refusal; what failed on our side is none. Gives what is to be answered.
    fn refuse(&self, api: &Api, (realm, actor): (Realm, &str), deed: &Deed, fault: Fault) -> Fault {
        let Some(why) = fault.why(api) else { return fault };
        match self.0.node.refuse(realm, actor, deed, Refusal::Invalid(why)) {
            Refusal::Invalid(_) => fault,
            unnoted => Fault::Refused(unnoted),
        }
    }
}

/// Nobody learns by it that there is a tenant.
fn as_unknown(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::NotFound(_) => Fault::NotPermitted,
        other => other.into(),
    }
}

fn judged(
    api: &Api,
    who: Identity,
    path: &str,
    rows: &Snapshot,
    (realm, hot): (Realm, &HotRealm<'_>),
) -> Result<(), Fault> {
    match api.auth {
        Auth::Policy => hot.judge(who, path).map(drop)?,
        Auth::Known if is_blocked(rows, realm)? => return Err(Fault::NotPermitted),
        Auth::Known => {
            identities::identity(rows, realm, who).map_err(as_unknown)?;
        }
    }
    Ok(())
}

impl Call {
    /// What stands behind the slash.
    pub(super) fn rest(&self) -> &str {
        self.path.strip_prefix(self.api.path).unwrap_or_default()
    }

    /// The same as a name.
    pub(super) fn name<T: std::str::FromStr>(&self, named: Named) -> Result<T, Fault> {
        self.rest().parse().map_err(|_| Fault::BadName(named, self.rest().to_owned()))
    }

    /// Who calls; where anybody may, nobody.
    pub(super) fn who(&self) -> Result<Identity, Fault> {
        self.who.ok_or(Fault::NoCertificate)
    }

    /// On whose authority something is changed.
    pub(super) fn authority(&self) -> Result<Authority, Fault> {
        Ok(Authority::Client { realm: self.realm, identity: self.who()?, path: self.path.clone() })
    }

    /// The random source.
    pub(super) fn entropy(&self) -> &Arc<dyn Entropy> {
        self.kes.0.node.barrier().entropy()
    }

    /// The time, microseconds since the Unix epoch.
    pub(super) fn now_us(&self) -> i64 {
        self.kes.0.node.now().wall_us
    }

    /// Reads a body, as long as it may be.
    pub(super) async fn body(&self, body: Body) -> Result<Zeroizing<Vec<u8>>, Fault> {
        body::read(body, self.api.body_max).await.map_err(|problem| match problem.status {
            StatusCode::PAYLOAD_TOO_LARGE => Fault::BadBody,
            _ => Fault::Problem(problem),
        })
    }

    /// Looks at one snapshot: at the caller's right once more, then at what `work` looks for; then writes the audit line.
    pub(super) fn read<T>(&self, work: impl FnOnce(&At<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let (node, realm) = (&self.kes.0.node, self.realm);
        let rows = node.barrier().snapshot()?;
        let hot = HotRealm::new(&rows, realm)?;
        if let Some(who) = self.who.filter(|_| !self.kes.0.section.skips_auth(self.api)) {
            judged(self.api, who, &self.path, &rows, (realm, &hot))?;
        }
        let done = node.gated(realm, |gate| work(&At { rows: &rows, hot: &hot, gate, realm }))?;
        node.note_done(&rows, realm, &named(self.who), &Deed::read(self.api.action, self.rest()))?;
        Ok(done)
    }

    /// Decides in the writer's transaction; what decides looks at the caller's right once more.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Fault> {
        Ok(self.kes.0.node.decide(decide).await?)
    }

    /// Has what was committed hold at every connected host.
    pub(super) async fn bite(&self) -> Pending {
        self.kes.0.node.bite(self.realm).await
    }
}

/// An answer in JSON.
pub(super) fn reply<T: Serialize + ?Sized>(value: &T) -> Response {
    Format::Json.reply(StatusCode::OK, value)
}

/// An answer without a body.
pub(super) fn done() -> Response {
    StatusCode::OK.into_response()
}
