//! Around everything that clients call: who calls, for which tenant, whether a policy lets it; then what is called; and
//! the audit line of a refusal before the reply. What is done is noted where it is done: a change with its commit, a read
//! with the snapshot that it was served from.
//!
//! A caller is judged before a body of his is read, and once more by the very snapshot or transaction that serves him. Of
//! one whose last request on the same connection was in order the body is read without that, and judged he is by the
//! snapshot only, before anything of the body is looked at. Most calls are such, and each look costs.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_actors::access_control::authority::Authority;
use holdfast_actors::barrier::Snapshot;
use holdfast_actors::distribute::Gate;
use holdfast_actors::key_store::HotRealm;
use holdfast_actors::ports::{Entropy, Now};
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_protocol::ids::Realm;
use holdfast_protocol::kes::Identity;
use serde::Serialize;
use zeroize::Zeroizing;

use super::Kes;
use super::api::{self, Api, Auth, Does, KEY_IMPORT, KNOWN, PERMITTED};
use super::events::{Heard, Whose};
use super::fault::{Fault, Named};
use super::judging::{Client, as_unknown, judge};
use super::profile::Profile;
use super::section::Section;
use super::streams::Streams;
use super::tenancy::{Asked, Tenant};
use crate::bite::{Pending, to_the_end};
use crate::body;
use crate::deadline::within;
use crate::front::Slot;
use crate::lasting::{Lasting, One};
use crate::node::{By, Deed, NOBODY, Unserved};
use crate::openapi::operation::{Query, Work};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::reply::Format;
use crate::uri::decoded;

/// A call of one who may, or who did last.
pub(super) struct Call {
    pub(super) kes: Kes,
    pub(super) api: &'static Api,
    pub(super) profile: Profile,
    pub(super) section: Arc<Section>,
    /// The tenant that it names, and who calls: nobody where the configuration lets anybody.
    asked: Asked,
    /// `None`: of one who has not been judged yet.
    realm: Option<Realm>,
    /// As policies see it.
    path: Arc<str>,
    client: Client,
    lasting: Lasting,
    /// Whether it waits for a body.
    reads_body: Arc<AtomicBool>,
}

/// A call of one who may not, or that can't be served.
pub(super) struct Refused {
    /// Where that is noted, and who is said to have called, and from where.
    pub(super) realm: Realm,
    pub(super) who: Option<Identity>,
    pub(super) from: Option<IpAddr>,
    pub(super) section: Arc<Section>,
    pub(super) fault: Box<Fault>,
}

/// What a read looks at.
pub(super) struct At<'a> {
    pub(super) rows: &'a Snapshot,
    pub(super) hot: &'a HotRealm<'a>,
    pub(super) gate: &'a Gate<'a>,
    pub(super) realm: Realm,
    /// The tenant's number at central.
    pub(super) number: u32,
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
        match request.extensions().get::<Peer>().cloned() {
            Some(peer) => called(kes, api, work, peer, request).await,
            None => Problem::internal().into_response(),
        }
    };
    let who = if api.auth == Auth::Known { KNOWN } else { PERMITTED };
    Work::new(handler, who, Query::None).action(api.action).own(&[("enclave", "Whose keys: a tenant.")])
}

/// Answers a call, and tells of it whoever listens.
pub(super) async fn called<W, F>(kes: Kes, api: &'static Api, work: W, peer: Peer, request: Request) -> Response
where
    W: Fn(Call, Body) -> F,
    F: Future<Output = Result<Response, Fault>> + Send + 'static,
{
    let heard = Heard::of(&kes.0.node, api, &peer, &request);
    let mut response = run(kes, api, work, &peer, request).await;
    if let Some(heard) = heard {
        heard.tell(&mut response);
    }
    response
}

async fn run<W, F>(kes: Kes, api: &'static Api, work: W, peer: &Peer, request: Request) -> Response
where
    W: Fn(Call, Body) -> F,
    F: Future<Output = Result<Response, Fault>> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    let path = path_of(api, parts.uri.path());
    let call = match kes.admit(api, &parts, peer, &path) {
        Ok(call) => call,
        Err(refused) => return kes.refuse(api, (&parts.method, &path), refused),
    };
    let Call { asked, section, realm, reads_body, .. } = &call;
    let (timeout, reads_body, who, is_peer) = (section.timeout(api), reads_body.clone(), asked.1, call.client.is_peer);
    let (asked, section, realm, from) = (asked.clone(), section.clone(), *realm, call.client.from);
    let told = Told { kes, api, method: parts.method.clone(), path, asked, section, realm, from };
    let done = match api.does {
        Does::Change if told.kes.0.node.is_at_site() => Some(Err(Fault::AtCentralOnly)),
        Does::Change => {
            let slot = parts.extensions.get::<Slot>().cloned();
            let told = told.clone();
            // Whatever has begun goes on to its end, and a refusal to its line, also when nobody waits for it any more.
            // What nobody waits for any more does not wait for a client either.
            let all = async {
                let body = call.gathered(body).await?;
                let work = work(call, body);
                Ok::<_, Fault>(to_the_end(slot, async move { work.await.map_err(|fault| told.refused(fault)) }).await)
            };
            within(timeout, all).await
        }
        Does::Tell | Does::Use => within(timeout, work(call, body)).await.map(|done| done.map(Ok)),
    };
    let served = done.unwrap_or_else(|| Err(late(reads_body.load(Ordering::Relaxed))));
    peer.vouch(matches!(served, Ok(Ok(_))) && is_peer && who.is_some());
    match served {
        Ok(Ok(response)) => told.kes.marked(|| told.whose(), response),
        Ok(Err(refused)) => refused,
        Err(fault) => told.refused(fault),
    }
}

/// A call whose end is yet to be told.
#[derive(Clone)]
struct Told {
    kes: Kes,
    api: &'static Api,
    method: Method,
    path: Arc<str>,
    asked: Asked,
    section: Arc<Section>,
    realm: Option<Realm>,
    from: Option<IpAddr>,
}

impl Told {
    /// Of nobody, and of one whom the tenant does not know, nothing is told to the tenant.
    fn whose(&self) -> Whose {
        let realm = match (self.asked.1, self.realm) {
            (None, _) => Realm::NODE,
            (Some(_), Some(realm)) => realm,
            (Some(_), None) => self.kes.noted_in(&self.asked),
        };
        Whose { realm, who: self.asked.1, from: self.from }
    }

    /// Notes a refusal; gives the answer.
    fn refused(&self, fault: Fault) -> Response {
        let Whose { realm, who, from } = self.whose();
        let refused = Refused { realm, who, from, section: self.section.clone(), fault: fault.into() };
        self.kes.refuse(self.api, (&self.method, &self.path), refused)
    }
}

/// Whose fault it is that time is over.
fn late(reads_body: bool) -> Fault {
    Fault::Problem(match reads_body {
        true => Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
        false => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no answer in time").retry_after(1),
    })
}

/// Undone of its percent-encoding, as policies are written. One that can't be undone is no path that a name could be in.
fn path_of(api: &Api, path: &str) -> Arc<str> {
    let mut path = decoded(path, false).unwrap_or_else(|| path.to_owned());
    if api.lists_all_at(&path) {
        path.push('/');
    }
    path.into()
}

fn named(who: Option<Identity>) -> String {
    who.map_or_else(|| NOBODY.to_owned(), |who| who.to_string())
}

/// Another method than those of a path. Noted as well, of whoever has a certificate.
pub(super) async fn wrong_method(State(kes): State<Kes>, request: Request) -> Response {
    let Some(peer) = request.extensions().get::<Peer>() else { return Problem::internal().into_response() };
    let Some(api) = api::of_path(request.uri().path()) else { return Problem::internal().into_response() };
    let (heard, method) = (Heard::of(&kes.0.node, api, peer, &request), request.method().clone());
    let (path, expected) = (path_of(api, request.uri().path()), api.methods[0]);
    let client = kes.client(peer, request.headers()).ok();
    let who = client.as_ref().and_then(|client| client.identity().ok());
    let refused = Refused {
        realm: Realm::NODE,
        who,
        from: client.and_then(|client| client.from),
        section: kes.0.tenancy.usual().clone(),
        fault: Fault::WrongMethod(method.to_string(), expected).into(),
    };
    let mut response = kes.refuse(api, (&method, &path), refused);
    // As KES has it.
    response.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(expected));
    if let Some(heard) = heard {
        heard.tell(&mut response);
    }
    response
}

impl Kes {
    pub(super) fn call(
        &self,
        api: &'static Api,
        (parts, peer, path): (&Parts, &Peer, &Arc<str>),
        client: Client,
        (asked, section, realm): (Asked, Arc<Section>, Option<Realm>),
    ) -> Call {
        let (profile, lasting) = (section.profile.of(api, &parts.method), peer.lasting.clone());
        let (kes, path, reads_body) = (self.clone(), path.clone(), Arc::default());
        Call { kes, api, profile, section, asked, realm, path, client, lasting, reads_body }
    }

    /// Notes a refusal, unless what failed is on our side. Gives the answer.
    fn refuse(&self, api: &Api, (method, path): (&Method, &str), refused: Refused) -> Response {
        let Refused { realm, who, from, section, fault } = refused;
        let deed = Deed::of(api.action, path.strip_prefix(api.path).unwrap_or_default());
        let noted = fault.why(api).map(|why| self.0.node.refuse(realm, &named(who), &deed, Refusal::Invalid(why)));
        let fault = match noted {
            None | Some(Refusal::Invalid(_)) => *fault,
            Some(unnoted) => Fault::Refused(unnoted),
        };
        let answer = fault.answer(section.profile.of(api, method), api);
        self.marked(|| Whose { realm, who, from }, answer)
    }

    /// Marks an answer for those who listen, if anybody does.
    fn marked(&self, whose: impl FnOnce() -> Whose, mut response: Response) -> Response {
        if self.0.node.streams().are_heard() {
            response.extensions_mut().insert(whose());
        }
        response
    }
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
        self.asked.1.ok_or(Fault::NoCertificate)
    }

    /// On whose authority something is changed.
    pub(super) fn authority(&self) -> Result<Authority, Fault> {
        Ok(Authority::Client { realm: self.realm()?, identity: self.who()?, path: self.path.to_string() })
    }

    /// Whose keys; of one who has been judged.
    fn realm(&self) -> Result<Realm, Fault> {
        self.realm.ok_or(Fault::NotPermitted)
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
        let read = body::collect(body, self.api.body_max).await;
        self.reads_body.store(false, Ordering::Relaxed);
        read.map_err(|problem| match problem.status {
            StatusCode::PAYLOAD_TOO_LARGE if self.api.path == KEY_IMPORT.path => Fault::BadImport,
            StatusCode::PAYLOAD_TOO_LARGE => Fault::BadBody,
            _ => Fault::Problem(problem),
        })
    }

    /// The same body, once all of it is there.
    async fn gathered(&self, body: Body) -> Result<Body, Fault> {
        if self.api.body_max == 0 {
            return Ok(body);
        }
        Ok(Body::from(Bytes::from_owner(self.body(body).await?)))
    }

    /// Looks at one snapshot: at the caller's right, then at what `work` looks for; then writes the audit line. What
    /// anybody may call tells of the node only, and has none: strangers would fill a log with it.
    pub(super) fn read<T>(&self, work: impl FnOnce(&At<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let (action, object) = (self.api.action, self.rest());
        let deed = if self.asked.1.is_some() { Deed::read(action, object) } else { Deed::of(action, object) };
        self.served(&deed, work)
    }

    /// The same where nothing comes of it that anybody hears of: it is noted nowhere. Also at the certificate's end.
    pub(super) fn look<T>(&self, work: impl FnOnce(&At<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.asked.1.is_some() && self.kes.has_ended(&self.client, &self.section) {
            return Err(Fault::ExpiredCertificate);
        }
        self.served(&Deed::of(self.api.action, self.rest()), work)
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
        !self.kes.0.node.is_at_site()
    }

    fn served<T>(&self, deed: &Deed, work: impl FnOnce(&At<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let node = &self.kes.0.node;
        let rows = node.barrier().snapshot()?;
        let Tenant { realm, number, .. } = self.kes.0.tenancy.find(&rows, &self.asked).map_err(as_unknown)?;
        let hot = HotRealm::new(&rows, realm).map_err(as_unknown)?;
        judge(self.api, self.asked.1, &self.path, (realm, &hot))?;
        let by = By { realm, tenant: number, actor: &named(self.asked.1) };
        let served = node.serve(&rows, &by, deed, |gate| work(&At { rows: &rows, hot: &hot, gate, realm, number }));
        served.map_err(|unserved| match unserved {
            Unserved::Refused(fault) => fault,
            Unserved::Unnoted(refusal) => refusal.into(),
        })
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
        match self.realm {
            Some(realm) => self.kes.0.node.bite(realm).await,
            None => Pending::default(),
        }
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
