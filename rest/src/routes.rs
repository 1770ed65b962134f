//! What a front serves: a router, and what is called so often that it is found without one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Request};
use axum::response::Response;

use crate::body::BODY_BYTES_MAX;
use crate::peer::Peer;

/// An answer that is being made.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Calls that are found without the router, which would cost as much as what they do. They are on the router as well.
pub(crate) trait Direct: Send + Sync {
    /// Whether such a call is one of them.
    fn takes(&self, method: &Method, path: &str) -> bool;

    /// Answers one, as the router would. The request has no extensions.
    fn answer(&self, peer: Peer, request: Request<Body>) -> Answering;
}

/// Routes of one dialect or of more.
#[derive(Clone)]
pub struct Routes {
    router: Router,
    direct: Option<Arc<dyn Direct>>,
}

impl Routes {
    pub(crate) fn new(router: Router, direct: Arc<dyn Direct>) -> Self {
        Self { router, direct: Some(direct) }
    }

    /// These and others, of which at most one has what is found without a router.
    #[must_use]
    pub fn merge(self, others: impl Into<Self>) -> Self {
        let Self { router, direct } = others.into();
        Self { router: self.router.merge(router), direct: self.direct.or(direct) }
    }

    /// The router, on which all calls are.
    pub fn router(self) -> Router {
        self.router
    }

    /// Binds bodies that extractors read to 1 MiB unless a route sets its own `DefaultBodyLimit`.
    pub(crate) fn bounded(self) -> Self {
        Self { router: self.router.layer(DefaultBodyLimit::max(BODY_BYTES_MAX)), ..self }
    }

    /// A handle on the router, and who answers this call without it.
    pub(crate) fn of(&self, method: &Method, path: &str) -> (&Router, Option<&dyn Direct>) {
        (&self.router, self.direct.as_deref().filter(|direct| direct.takes(method, path)))
    }
}

impl From<Router> for Routes {
    fn from(router: Router) -> Self {
        Self { router, direct: None }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.router.fmt(f)
    }
}
