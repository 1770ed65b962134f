//! Changes that must bite: a revocation, a block, a right taken away. The call that makes one returns when every host
//! that is connected has it, or after two seconds; those that are late are disconnected by then, get it when they come
//! back, and are counted in the header `Holdfast-Pending`.
//!
//! Commit first, then [`crate::node::Node::bite`], then reply; all of it in a task that goes on [`to_the_end`], so that
//! neither a deadline nor a client that goes away comes between. Operations that are said to bite run in one.

use std::panic::resume_unwind;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use holdfast_protocol::ids::Realm;

use crate::access::BoxFuture;
use crate::front::Slot;

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

tokio::task_local! {
    static TO_THE_END: ();
}

/// Does something in a task of its own, which goes on when nobody waits for it any more. As long as it does it counts as
/// the request that it belongs to.
pub(crate) async fn to_the_end<T: Send + 'static>(
    slot: Option<Slot>,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    let work = TO_THE_END.scope((), work);
    let task = tokio::spawn(async move {
        let _slot = slot;
        work.await
    });
    match task.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // Only the end of the process cancels it.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// The same for a whole request.
pub(crate) async fn all_to_the_end(request: Request, next: Next) -> Response {
    let slot = request.extensions().get::<Slot>().cloned();
    to_the_end(slot, next.run(request)).await
}

/// Whether nothing can come between what is being done and its end.
pub(crate) fn goes_to_the_end() -> bool {
    TO_THE_END.try_with(|()| ()).is_ok()
}

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
