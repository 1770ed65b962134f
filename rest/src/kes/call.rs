//! Around everything that clients call: who calls, for which tenant, whether a policy lets it; then what is called; and
//! the audit line of a refusal before the reply. What is done is noted where it is done: a change with its commit, a read
//! with the snapshot that it was served from.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::approle_logins::Issuer;
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
use super::events::{Heard, Whose};
use super::fault::{Fault, Named};
use super::profile::Profile;
use super::proxy::Behind;
use super::streams::Streams;
use crate::bite::{Pending, to_the_end};
use crate::body;
use crate::front::Slot;
use crate::lasting::{Lasting, One};
use crate::node::{Deed, NOBODY};
use crate::openapi::operation::{Query, Work};
use crate::peer::{ClientCertificate, Peer};
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
    /// What it was called by.
    certificate: Option<Arc<ClientCertificate>>,
    lasting: Lasting,
    /// Whether it waits for a body.
    reads_body: Arc<AtomicBool>,
}

/// Who calls.
struct Client {
    certificate: Option<Arc<ClientCertificate>>,
    /// From where, if a proxy says.
    from: Option<IpAddr>,
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
    let handler = async move |State(kes): State<Kes>, request: Request| {
        // What is for GET takes it, too, which KES does not.
        if request.method() == Method::HEAD {
            return wrong_method(State(kes), request).await;
        }
        let heard = Heard::of(&kes.0.node, api, &request);
        let mut response = run(kes, api, work, request).await;
        if let Some(heard) = heard {
            heard.tell(&mut response);
        }
        response
    };
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
    let Some(peer) = parts.extensions.get::<Peer>() else { return Problem::internal().into_response() };
    let client = match kes.client(peer, &parts.headers) {
        Ok(client) => client,
        _ if skips => Client { certificate: None, from: None },
        Err(fault) => return kes.refuse(api, (Realm::NODE, &itself(peer)), &deed, fault).answer(profile, api),
    };
    let who = match kes.identity(client.certificate.as_deref()) {
        Ok(who) => Some(who),
        _ if skips => None,
        Err(fault) => return kes.refuse(api, (Realm::NODE, NOBODY), &deed, fault).answer(profile, api),
    };
    let whose = |realm, response| whose(&kes, Whose { realm, who, from: client.from }, response);
    let admitted = match (skips, enclave) {
        // Nobody learns by what all may call which tenants there are, nor writes into their logs.
        (true, _) => kes.admit(api, None, None, &path),
        (false, Ok(enclave)) => kes.admit(api, who, enclave.as_deref(), &path),
        (false, Err(fault)) => Err((Realm::NODE, fault)),
    };
    let realm = match admitted {
        Ok(realm) => realm,
        Err((realm, fault)) => {
            return whose(realm, kes.refuse(api, (realm, &named(who)), &deed, fault).answer(profile, api));
        }
    };
    let timeout = kes.0.section.timeout(api);
    let (lasting, reads_body) = (peer.lasting.clone(), Arc::new(AtomicBool::new(false)));
    let certificate = client.certificate.clone();
    let call =
        Call { kes: kes.clone(), api, profile, realm, who, path, certificate, lasting, reads_body: reads_body.clone() };
    let work = work(call, body);
    let done = match api.bites {
        true => tokio::time::timeout(timeout, to_the_end(parts.extensions.get::<Slot>().cloned(), work)).await,
        false => tokio::time::timeout(timeout, work).await,
    };
    let response = match done.unwrap_or_else(|_| Err(late(reads_body.load(Ordering::Relaxed)))) {
        Ok(response) => response,
        Err(fault) => kes.refuse(api, (realm, &named(who)), &deed, fault).answer(profile, api),
    };
    whose(realm, response)
}

/// Marks an answer for those who listen, if anybody may.
fn whose(kes: &Kes, whose: Whose, mut response: Response) -> Response {
    if kes.0.node.streams().are_heard() {
        response.extensions_mut().insert(whose);
    }
    response
}

/// The tenant that a request names. One that can't be read is none that there is, and no other is taken instead.
fn enclave_of(parts: &Parts) -> Result<Option<String>, Fault> {
    let named = query_values(parts.uri.query(), "enclave").next();
    let header = || Some(parts.headers.get("kes-enclave")?.to_str().ok().map(str::to_owned));
    named.or_else(header).map(|name| name.ok_or(Fault::NotPermitted)).transpose()
}

/// Whose fault it is that time is over.
fn late(reads_body: bool) -> Fault {
    Fault::Problem(match reads_body {
        true => Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
        false => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no answer in time").retry_after(1),
    })
}

/// Undone of its percent-encoding, as policies are written. One that can't be undone is no path that a name could be in.
fn path_of(path: &str) -> String {
    let path = decoded(path, false).unwrap_or_else(|| path.to_owned());
    api::judged_path(&path).into_owned()
}

/// A proxy, of which something else is wrong.
fn itself(peer: &Peer) -> String {
    named(peer.certificate.as_ref().and_then(|certificate| certificate.client.ok()))
}

fn named(who: Option<Identity>) -> String {
    who.map_or_else(|| NOBODY.to_owned(), |who| who.to_string())
}

/// Another method than those of a path. Noted as well, of whoever has a certificate.
pub(super) async fn wrong_method(State(kes): State<Kes>, request: Request) -> Response {
    let Some(peer) = request.extensions().get::<Peer>() else { return Problem::internal().into_response() };
    let path = path_of(request.uri().path());
    let Some(api) = api::of_path(&path) else { return Problem::internal().into_response() };
    let (heard, method) = (Heard::of(&kes.0.node, api, &request), request.method().clone());
    let expected = api.methods[0];
    let fault = Fault::WrongMethod(method.to_string(), expected);
    let deed = Deed::of(api.action, path.strip_prefix(api.path).unwrap_or_default());
    let (certificate, from) = match kes.client(peer, request.headers()) {
        Ok(Client { certificate, from }) => (certificate, from),
        Err(_) => (None, None),
    };
    let who = kes.identity(certificate.as_deref()).ok();
    let mut response =
        kes.refuse(api, (Realm::NODE, &named(who)), &deed, fault).answer(kes.0.section.profile.of(api, &method), api);
    // As KES has it.
    response.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(expected));
    if let Some(heard) = heard {
        response.extensions_mut().insert(Whose { realm: Realm::NODE, who, from });
        heard.tell(&mut response);
    }
    response
}

impl Kes {
    /// Who calls: the peer, or who is behind it.
    fn client(&self, peer: &Peer, headers: &HeaderMap) -> Result<Client, Fault> {
        let behind = self.0.section.proxy.as_ref().map(|proxy| proxy.behind(peer, headers)).transpose()?.flatten();
        Ok(match behind {
            Some(Behind { certificate, from }) => Client { certificate: Some(certificate), from },
            None => Client { certificate: peer.certificate.clone(), from: None },
        })
    }

    fn identity(&self, certificate: Option<&ClientCertificate>) -> Result<Identity, Fault> {
        let certificate = certificate.ok_or(Fault::NoCertificate)?;
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
        self.reads_body.store(true, Ordering::Relaxed);
        let read = body::read(body, self.api.body_max).await;
        self.reads_body.store(false, Ordering::Relaxed);
        read.map_err(|problem| match problem.status {
            StatusCode::PAYLOAD_TOO_LARGE => Fault::BadBody,
            _ => Fault::Problem(problem),
        })
    }

    /// Looks at one snapshot: at the caller's right once more, then at what `work` looks for; then writes the audit line.
    pub(super) fn read<T>(&self, work: impl FnOnce(&At<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.look_and(work, |rows| {
            let deed = Deed::read(self.api.action, self.rest());
            Ok(self.kes.0.node.note_done(rows, self.realm, &named(self.who), &deed)?)
        })
    }

    /// The same where nothing comes of it that anybody hears of: it is noted nowhere. Also at the certificate's end.
    pub(super) fn look<T>(&self, work: impl FnOnce(&At<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.kes.identity(self.certificate.as_deref())?;
        self.look_and(work, |_| Ok(()))
    }

    /// Where the logs are followed.
    pub(super) fn streams(&self) -> &Arc<Streams> {
        self.kes.0.node.streams()
    }

    /// Says that its answer goes on until what is given out is dropped.
    pub(super) fn lasts(&self) -> One {
        self.lasting.begin()
    }

    /// Whether this node is central.
    pub(super) fn is_at_central(&self) -> bool {
        self.kes.0.node.issuer() == Issuer::Central
    }

    fn look_and<T>(
        &self,
        work: impl FnOnce(&At<'_>) -> Result<T, Fault>,
        note: impl FnOnce(&Snapshot) -> Result<(), Fault>,
    ) -> Result<T, Fault> {
        let (node, realm) = (&self.kes.0.node, self.realm);
        let rows = node.barrier().snapshot()?;
        let hot = HotRealm::new(&rows, realm)?;
        if let Some(who) = self.who.filter(|_| !self.kes.0.section.skips_auth(self.api)) {
            judged(self.api, who, &self.path, &rows, (realm, &hot))?;
        }
        let done = node.gated(realm, |gate| work(&At { rows: &rows, hot: &hot, gate, realm }))?;
        note(&rows)?;
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
