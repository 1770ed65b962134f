//! Who calls, for every dialect that takes tokens: tokens judged on the rows of one snapshot, passwords turned into
//! tokens, and the audit lines of what was refused.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use holdfast_actors::access_control::{Caller, VerifiedTokens, tokens};
use holdfast_actors::audit_log::Line;
use holdfast_actors::audit_log::journal::Journal;
use holdfast_actors::barrier::{Barrier, Snapshot};
use holdfast_actors::ports::{Clock, Now};
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_protocol::ids::Realm;

mod login;

pub use login::{Credentials, Issued, Passwords};

/// A future in a box, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Finds the key space of a tenant, named by its realm at central, at this node.
pub type Locate = fn(&dyn Rows, u32) -> Option<Realm>;

/// At central a tenant's number is its realm.
pub fn locate_at_central(_: &dyn Rows, tenant: u32) -> Option<Realm> {
    Some(Realm(tenant))
}

/// Hears of the use of a root token of the tenant `system`: the first one ends the repeating of reveal-sealkey.
pub trait RootTokenWatch: Send + Sync {
    /// The caller is answered after this has returned. Called at every use: it must be cheap once it has been noted.
    fn root_token_used(&self) -> BoxFuture<'_, Result<(), Refusal>>;
}

/// A node that reveals nothing.
pub struct NoWatch;

impl RootTokenWatch for NoWatch {
    fn root_token_used(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }
}

/// What judging callers takes; one per node, shared by its dialects.
pub struct Access {
    /// The store.
    pub barrier: Barrier,
    /// Where lines about reads and refusals go.
    pub journal: Arc<Journal>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tokens whose signatures were found good.
    pub verified: VerifiedTokens,
    /// Where tenants are at this node.
    pub locate: Locate,
    /// Who hears of root tokens.
    pub root_tokens: Arc<dyn RootTokenWatch>,
    /// Password hashing, bounded.
    pub passwords: Passwords,
}

impl Access {
    /// Central's, with nothing verified yet.
    pub fn at_central(
        barrier: Barrier,
        journal: Arc<Journal>,
        clock: Arc<dyn Clock>,
        root_tokens: Arc<dyn RootTokenWatch>,
    ) -> Self {
        Self::new((barrier, journal, clock), locate_at_central, root_tokens)
    }

    /// A site host's. Nobody logs in there and nothing is revealed.
    pub fn at_site(barrier: Barrier, journal: Arc<Journal>, clock: Arc<dyn Clock>, locate: Locate) -> Self {
        Self::new((barrier, journal, clock), locate, Arc::new(NoWatch))
    }

    fn new(
        (barrier, journal, clock): (Barrier, Arc<Journal>, Arc<dyn Clock>),
        locate: Locate,
        root_tokens: Arc<dyn RootTokenWatch>,
    ) -> Self {
        let (verified, passwords) = (VerifiedTokens::default(), Passwords::default());
        Self { barrier, journal, clock, verified, locate, root_tokens, passwords }
    }

    /// Now.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Who holds `token`, judged on `rows`. For reads that stay in one snapshot; [`Self::caller`] does the rest too.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`], or the store's refusals.
    pub fn judge(&self, token: &str, rows: &dyn Rows) -> Result<Caller, Refusal> {
        tokens::verify(token, &|tenant| (self.locate)(rows, tenant), rows, self.now(), &self.verified)
    }

    /// To be awaited before a caller with a root token of the tenant `system` is answered.
    ///
    /// # Errors
    /// It could not be noted.
    pub async fn note_use(&self, caller: &Caller) -> Result<(), Refusal> {
        if caller.is_root() && caller.is_system() {
            self.root_tokens.root_token_used().await?;
        }
        Ok(())
    }

    /// Who holds `token` now.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] also without a token, or the store's refusals.
    pub async fn caller(&self, token: Option<&str>) -> Result<Caller, Refusal> {
        let caller = {
            let snapshot = self.barrier.snapshot()?;
            self.judge(token.ok_or(Refusal::Unauthenticated)?, &snapshot)?
        };
        self.note_use(&caller).await?;
        Ok(caller)
    }

    /// The newest state.
    ///
    /// # Errors
    /// Sealed, or the engine failed.
    pub fn snapshot(&self) -> Result<Snapshot, Refusal> {
        self.barrier.snapshot()
    }

    /// Runs a decision in the writer's transaction.
    ///
    /// # Errors
    /// The decision's refusal, or the store's.
    pub async fn change<T: Send + 'static>(
        &self,
        mut decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let clock = self.clock.clone();
        let (reply, _) = self.barrier.run(move |rows| decide(rows, clock.now())).await?;
        Ok(reply)
    }

    /// Journals that something was refused, before the reply. On a sealed node there is no journal to write to.
    ///
    /// # Errors
    /// The journal is full or failed.
    pub fn note_refusal(&self, realm: Realm, refused: &Refused<'_>) -> Result<(), Refusal> {
        let snapshot = match self.barrier.snapshot() {
            Ok(snapshot) => snapshot,
            Err(Refusal::Sealed) => return Ok(()),
            Err(refusal) => return Err(refusal),
        };
        let Refused { actor, action, object, why } = *refused;
        self.journal.append(&snapshot, realm, &Line::refused(self.now().wall_us, actor, action, object, why))
    }
}

/// What an audit line says about a refusal.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// Who: a principal, or an address where nobody is known.
    pub actor: &'a str,
    /// A constant such as `site.create`.
    pub action: &'a str,
    /// Names only.
    pub object: &'a str,
    /// As the caller is told.
    pub why: &'a str,
}

/// The token of `Authorization: Bearer ...`; the scheme's case does not matter.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
