//! Changes that must bite: a revocation, a block, a right taken away. The call that makes one returns when every host
//! that is connected has it, or after two seconds; those that are late are disconnected by then, get it when they come
//! back, and are counted in the header `Holdfast-Pending`.
//!
//! Commit first, then [`crate::node::Node::bite`], then reply.

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use holdfast_protocol::ids::Realm;

use crate::access::BoxFuture;

/// What is left to do when a call returns: hosts that have not confirmed, keys not yet replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending(pub u64);

impl Pending {
    /// Says so in an answer, if anything is left.
    #[must_use]
    pub fn told_in(self, mut response: Response) -> Response {
        if self.0 > 0 {
            response.headers_mut().insert(HOLDFAST_PENDING, HeaderValue::from(self.0));
        }
        response
    }
}

/// Says in an answer how much is left to do.
const HOLDFAST_PENDING: HeaderName = HeaderName::from_static("holdfast-pending");

/// Who sees to it that a change that has been committed holds at hosts.
pub trait Bite: Send + Sync {
    /// Returns when what is committed in the tenant's `realm` holds at every connected host, or after a bounded time
    /// with the number of those where it does not.
    fn bite(&self, realm: Realm) -> BoxFuture<'_, Pending>;
}

/// A node that nobody copies from.
pub struct NoHosts;

impl Bite for NoHosts {
    fn bite(&self, _: Realm) -> BoxFuture<'_, Pending> {
        Box::pin(async { Pending(0) })
    }
}
