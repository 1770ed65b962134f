//! Who calls, for the Strongbox dialect: what it asks of its [`Node`] beyond what the other dialects ask, and the watch
//! over root tokens that all dialects of central stand under.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use holdfast_actors::access_control::Caller;
use holdfast_actors::audit_log::journal::Journal;
use holdfast_actors::barrier::{Barrier, Snapshot};
use holdfast_actors::ports::{Clock, Entropy, Now};
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_actors::site_registry::restored::refuse_while_stopped;
use holdfast_protocol::ids::Realm;

use crate::bite::Bite;
use crate::node::{Central, Deed, Node, View};
use crate::problem::Problem;

mod login;

pub use login::{Credentials, Issued};

/// A future in a box, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Hears of the use of a root token of the tenant `system`: the first one ends the repeating of reveal-sealkey.
pub trait RootTokenWatch: Send + Sync {
    /// The caller is answered after this has returned. Called at every use: it must be cheap once it has been noted.
    fn root_token_used(&self) -> BoxFuture<'_, Result<(), Refusal>>;

    /// Whether a use has been noted, so that no more has to be told. Must not wait.
    fn is_settled(&self) -> bool {
        false
    }
}

/// A node that reveals nothing.
pub struct NoWatch;

impl RootTokenWatch for NoWatch {
    fn root_token_used(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }
}

/// A node as the Strongbox dialect sees it.
pub struct Access {
    node: Arc<Node>,
    root_tokens: Arc<dyn RootTokenWatch>,
}

impl Access {
    /// Central's, with a [`Node`] of its own for the other dialects to share.
    pub fn at_central(
        barrier: Barrier,
        journal: Arc<Journal>,
        clock: Arc<dyn Clock>,
        root_tokens: Arc<dyn RootTokenWatch>,
        bite: Arc<dyn Bite>,
    ) -> Self {
        Self { node: Arc::new(Node::new(barrier, journal, clock, Arc::new(Central)).biting(bite)), root_tokens }
    }

    /// A site host's. Nobody logs in there and nothing is revealed.
    pub fn at_site(node: Arc<Node>) -> Self {
        Self { node, root_tokens: Arc::new(NoWatch) }
    }

    /// The node, for the other dialects.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Now.
    pub fn now(&self) -> Now {
        self.node.now()
    }

    /// The random source.
    pub fn entropy(&self) -> Arc<dyn Entropy> {
        self.node.barrier().entropy().clone()
    }

    /// Who holds `token` now, if `check` lets it do `deed`; refusals are journalled.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] also without a token; what `check` says; the store's refusals.
    pub async fn caller(
        &self,
        token: Option<&str>,
        deed: &Deed,
        check: impl FnOnce(&Caller) -> Result<(), Refusal>,
    ) -> Result<Caller, Refusal> {
        let caller = self.node.consult(token, deed, |view| check(view.caller).map(|()| view.caller.clone()))?;
        self.note_use(&caller).await?;
        Ok(caller)
    }

    /// A read, see [`Node::consult`].
    ///
    /// # Errors
    /// As there.
    pub async fn consult<T>(
        &self,
        token: Option<&str>,
        deed: &Deed,
        work: impl FnOnce(&View<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let (caller, done) = self.node.consult(token, deed, |view| Ok((view.caller.clone(), work(view)?)))?;
        self.note_use(&caller).await?;
        Ok(done)
    }

    async fn note_use(&self, caller: &Caller) -> Result<(), Refusal> {
        if caller.is_root() && caller.is_system() && !self.root_tokens.is_settled() {
            self.root_tokens.root_token_used().await?;
        }
        Ok(())
    }

    /// Another dialect's routes, under the same watch: nobody is answered who comes with a root token of the tenant
    /// `system` whose use has not been noted.
    pub fn watched(self: &Arc<Self>, router: Router) -> Router {
        router.layer(from_fn_with_state(self.clone(), watch))
    }

    /// The newest state.
    ///
    /// # Errors
    /// Sealed, or the engine failed.
    pub fn snapshot(&self) -> Result<Snapshot, Refusal> {
        self.node.barrier().snapshot()
    }

    /// Runs a decision in the writer's transaction.
    ///
    /// # Errors
    /// The decision's refusal, [`Refusal::Restored`], or the store's; not journalled.
    pub async fn change<T: Send + 'static>(
        &self,
        mut decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.change_even_stopped(move |rows, now| {
            refuse_while_stopped(rows)?;
            decide(rows, now)
        })
        .await
    }

    /// The same for what a restored copy of central still does: it hands out tokens, without which nobody could read.
    ///
    /// # Errors
    /// The decision's refusal, or the store's; not journalled.
    pub async fn change_even_stopped<T: Send + 'static>(
        &self,
        mut decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let node = self.node.clone();
        let (reply, _) = self.node.barrier().run(move |rows| decide(rows, node.now())).await?;
        Ok(reply)
    }

    /// Tries a decision in the writer's transaction and changes nothing.
    ///
    /// # Errors
    /// What the decision would be refused with.
    pub async fn rehearse<T: Send + 'static>(
        &self,
        mut decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let node = self.node.clone();
        self.node.barrier().rehearse(move |rows| decide(rows, node.now())).await
    }

    /// Journals, before the reply, that something was refused with these words. On a sealed node there is no journal
    /// to write to.
    ///
    /// # Errors
    /// The journal is full or failed.
    pub fn note_refusal(&self, realm: Realm, actor: &str, deed: &Deed, why: &str) -> Result<(), Refusal> {
        match self.node.refuse(realm, actor, deed, Refusal::Invalid(why.to_owned())) {
            Refusal::Invalid(_) | Refusal::Sealed => Ok(()),
            unnoted => Err(unnoted),
        }
    }
}

async fn watch(State(access): State<Arc<Access>>, request: Request, next: Next) -> Result<Response, Problem> {
    if !access.root_tokens.is_settled()
        && let Some(token) = any_token(request.headers())
        // A token that does not hold is the handler's to refuse, and to journal.
        && let Ok(caller) = access.node.whose(token)
    {
        access.note_use(&caller).await?;
    }
    Ok(next.run(request).await)
}

/// The token in whichever header a dialect takes it.
fn any_token(headers: &HeaderMap) -> Option<&str> {
    let plain = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    plain("x-cerberus-token").or_else(|| plain("x-vault-token")).or_else(|| bearer(headers))
}

/// The token of `Authorization: Bearer ...`; the scheme's case does not matter.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
