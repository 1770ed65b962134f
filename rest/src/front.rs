//! What happens to every request around the handler: a request id, the sealed gate, the bound on requests at once, the
//! deadline, the shape of errors, counting and one debug line.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use holdfast_actors::shell::{Bounded, Load, caught};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tower::ServiceExt;
use uuid::Uuid;

use crate::deadline::within;
use crate::dispatch::{Dialect, is_open_while_sealed, is_under};
use crate::health::{NodeState, SealState};
use crate::metrics::{Metrics, Refused, bounds};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::reply::Format;
use crate::routes::{Answering, Routes};
use crate::shape;

/// Names a request in the log and in its answer (`x-request-id`); handlers take it as `Extension<RequestId>`. It is
/// always ours: a name that the client chose would let it write into the log.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

/// Marks an error answer that a handler has shaped itself although it has no body or is plain text; the front leaves
/// it alone. Answers in any other content type need no mark.
#[derive(Debug, Clone, Copy)]
pub struct Shaped;

/// How a front behaves.
#[derive(Debug, Clone)]
pub struct FrontOptions {
    /// All paths speak this dialect (Keylime's listeners); `None` goes by the table.
    pub dialect: Option<Dialect>,
    /// Path prefixes that answer while sealed, beside the table's; `/` opens all.
    pub open_while_sealed: Vec<&'static str>,
    /// From when a request has to wait for something to the response's head. A streamed body may go on longer.
    pub deadline: Duration,
    /// Requests at once.
    pub requests_max: usize,
}

impl Default for FrontOptions {
    fn default() -> Self {
        Self { dialect: None, open_while_sealed: Vec::new(), deadline: Duration::from_secs(30), requests_max: 1024 }
    }
}

/// A node's router with all that surrounds it. One may serve several listeners.
pub struct Front {
    routes: Routes,
    state: Arc<dyn NodeState>,
    metrics: Arc<Metrics>,
    options: FrontOptions,
    slots: Arc<Slots>,
}

/// A place among the requests in work. Whatever goes on with a request when nobody waits for it keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Slot(#[expect(dead_code, reason = "it is held")] Arc<OwnedSemaphorePermit>);

/// Requests in work.
struct Slots {
    free: Arc<Semaphore>,
    limit: usize,
    refused: AtomicU64,
}

impl Bounded for Slots {
    fn load(&self) -> Load {
        Load::of(self.limit - self.free.available_permits(), self.limit, self.refused.load(Ordering::Relaxed))
    }
}

/// Lists the routes.
impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Front").field(&self.routes).finish()
    }
}

impl Front {
    /// Surrounds `routes`. Extractors that read bodies are bound to 1 MiB unless a route sets its own
    /// `DefaultBodyLimit`.
    pub fn new(
        routes: impl Into<Routes>,
        state: Arc<dyn NodeState>,
        metrics: Arc<Metrics>,
        options: FrontOptions,
    ) -> Arc<Self> {
        let routes = routes.into().bounded();
        let limit = options.requests_max;
        let slots = Arc::new(Slots { free: Arc::new(Semaphore::new(limit)), limit, refused: AtomicU64::new(0) });
        metrics.bound(bounds::REQUESTS, &slots);
        Arc::new(Self { routes, state, metrics, options, slots })
    }

    /// Other routes in the same surroundings: with the same bound on requests at once, and the same counters. All their
    /// paths speak `dialect`.
    pub fn beside(&self, routes: impl Into<Routes>, dialect: Dialect) -> Arc<Self> {
        let routes = routes.into().bounded();
        let Self { state, metrics, options, slots, .. } = self;
        let options = FrontOptions { dialect: Some(dialect), ..options.clone() };
        Arc::new(Self { routes, state: state.clone(), metrics: metrics.clone(), options, slots: slots.clone() })
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers one request of `peer`; never fails.
    pub async fn answer(&self, peer: Peer, mut request: Request<Body>) -> Response {
        let began = Instant::now();
        let dialect = self.fold_path(&mut request);
        let method = request.method().clone();
        let asked = Asked { dialect, format: Format::accepted(request.headers()), id: RequestId::next() };
        let _active = (dialect == Dialect::Kes).then(|| self.metrics.kes().enter());
        let response = self.admit(peer, request, &asked).await.unwrap_or_else(Problem::into_response);
        let response = asked.finish(if asks_what_may_be_done(dialect, &method) { offered(response) } else { response });
        self.record(&asked, &method, response.status(), began.elapsed());
        response
    }

    /// The dialect of the path. Cerberus' old clients write `//`, which that dialect takes as `/`.
    fn fold_path(&self, request: &mut Request<Body>) -> Dialect {
        let path = request.uri().path();
        let of = |path: &str| self.options.dialect.unwrap_or_else(|| Dialect::of(path));
        if !path.contains("//") {
            return of(path);
        }
        let folded = folded(path);
        if of(&folded) != Dialect::Cerberus {
            return of(path);
        }
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        if let Ok(uri) = format!("{folded}{query}").parse::<Uri>() {
            *request.uri_mut() = uri;
        }
        Dialect::Cerberus
    }

    async fn admit(&self, peer: Peer, request: Request<Body>, asked: &Asked) -> Result<Response, Problem> {
        let Ok(slot) = self.slots.free.clone().try_acquire_owned().map(|permit| Slot(Arc::new(permit))) else {
            self.slots.refused.fetch_add(1, Ordering::Relaxed);
            self.metrics.refused(Refused::Requests);
            return Err(Problem::overloaded());
        };
        if self.state.seal_state() != SealState::Unsealed && !self.is_open(request.uri().path()) {
            self.metrics.refused(Refused::Sealed);
            return Err(Problem::sealed());
        }
        // One bad request must not take its connection along.
        let answered = caught(async { self.answering((peer, asked.id.clone(), &slot), request).await });
        match within(self.options.deadline, answered).await {
            Some(Some(response)) => Ok(response),
            Some(None) => {
                self.metrics.refused(Refused::Panic);
                tracing::error!(request_id = %asked.id.0, dialect = asked.dialect.name(), "a handler panicked");
                Err(Problem::internal())
            }
            None => {
                self.metrics.refused(Refused::Deadline);
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no answer in time").retry_after(1))
            }
        }
    }

    fn answering(&self, (peer, id, slot): (Peer, RequestId, &Slot), mut request: Request<Body>) -> Answering {
        match self.routes.of(request.method(), request.uri().path()) {
            (_, Some(direct)) => direct.answer(peer, request),
            (router, None) => {
                let extensions = request.extensions_mut();
                extensions.insert(peer);
                extensions.insert(id);
                extensions.insert(slot.clone());
                let answering = router.clone().oneshot(request);
                Box::pin(async { answering.await.unwrap_or_else(|never| match never {}) })
            }
        }
    }

    fn is_open(&self, path: &str) -> bool {
        is_open_while_sealed(path) || self.options.open_while_sealed.iter().any(|prefix| is_under(path, prefix))
    }

    /// The path stays out of the log: it holds names of users' things.
    fn record(&self, asked: &Asked, method: &Method, status: StatusCode, took: Duration) {
        self.metrics.answered(asked.dialect, method, status, took);
        tracing::debug!(
            request_id = %asked.id.0,
            dialect = asked.dialect.name(),
            status = status.as_u16(),
            took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "request answered"
        );
    }
}

impl RequestId {
    /// Another than any before it, and nobody who has seen some can tell how many there were in between. It is drawn of
    /// no random source of the system's: each request would pay for that, and nothing rests on it.
    fn next() -> Self {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
        let halves = [false, true].map(|half| HASHER.hash_one((half, number)));
        let id =
            uuid::Builder::from_random_bytes(((u128::from(halves[0]) << 64) | u128::from(halves[1])).to_be_bytes());
        Self((&*id.into_uuid().hyphenated().encode_lower(&mut Uuid::encode_buffer())).into())
    }
}

/// What shapes the answer, taken from the request before the handler consumes it.
struct Asked {
    dialect: Dialect,
    format: Format,
    id: RequestId,
}

impl Asked {
    fn finish(&self, response: Response) -> Response {
        let mut response = self.shape(response);
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&self.id.0) {
            headers.insert(X_REQUEST_ID, id);
        }
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
        response
    }

    /// Puts problems, and what axum refused by itself, in the dialect's shape. Headers set beside them are kept.
    fn shape(&self, mut response: Response) -> Response {
        let problem = match response.extensions_mut().remove::<Problem>() {
            Some(problem) => problem,
            None if is_bare_refusal(&response) => Problem::of_status(response.status()),
            None => return response,
        };
        let mut shaped = shape::render(&problem, self.dialect, self.format, &self.id.0);
        for (name, value) in response.headers() {
            if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
                shaped.headers_mut().insert(name, value.clone());
            }
        }
        shaped
    }
}

/// Whether axum itself, not a handler, refused: it does so in plain text or without a body, with one of few statuses.
fn is_bare_refusal(response: &Response) -> bool {
    let of_axum = matches!(response.status().as_u16(), 400 | 404 | 405 | 408 | 413 | 415 | 422 | 500);
    let is_text = match response.headers().get(header::CONTENT_TYPE) {
        Some(value) => value.as_bytes().starts_with(b"text/plain"),
        None => true,
    };
    of_axum && is_text && response.extensions().get::<Shaped>().is_none()
}

/// Strongbox answers OPTIONS on every path that there is.
fn asks_what_may_be_done(dialect: Dialect, method: &Method) -> bool {
    dialect == Dialect::Strongbox && *method == Method::OPTIONS
}

/// The router has named the methods of the path beside its refusal.
fn offered(mut response: Response) -> Response {
    if response.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Some(methods) = response.headers().get(header::ALLOW).and_then(|methods| methods.to_str().ok())
        && let Ok(methods) = HeaderValue::from_str(&format!("{methods},OPTIONS"))
    {
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(header::ALLOW, methods);
    }
    response
}

fn folded(path: &str) -> String {
    let mut folded = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter != '/' || !folded.ends_with('/') {
            folded.push(letter);
        }
    }
    folded
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
