//! What the dialects ask of the node they stand on: who calls, what the rows of one snapshot say, a change; with the
//! audit line of each read and refusal written before anybody hears the answer.

use std::cell::RefCell;
use std::sync::Arc;

use holdfast_actors::access_control::approle_logins::Issuer;
use holdfast_actors::access_control::{Caller, TokenId, VerifiedTokens, verify};
use holdfast_actors::audit_log::Line;
use holdfast_actors::audit_log::journal::Journal;
use holdfast_actors::barrier::{Barrier, Snapshot};
use holdfast_actors::distribute::Gate;
use holdfast_actors::ports::{Clock, Now, draw};
use holdfast_actors::rows::{Batch, Refusal, Rows};
use holdfast_actors::site_registry::restored::refuse_while_stopped;
use holdfast_protocol::ids::{Realm, SiteName};

use crate::bite::{Bite, NoHosts, Pending, goes_to_the_end};
use crate::kes::Streams;

pub mod passwords;

use passwords::Passwords;

/// Where the node stands.
pub trait Place: Send + Sync {
    /// The site of this host; `None` at central.
    fn site(&self) -> Option<&SiteName>;

    /// The key space, at this node, of the tenant that has realm `tenant` at central.
    fn locate(&self, rows: &dyn Rows, tenant: u32) -> Option<Realm>;

    /// Whether content of `realm` with this bound (`None`: without end) may still be served.
    fn lease_ok(&self, realm: Realm, offline_s: Option<u64>) -> bool;

    /// A version of a secret of tenant `tenant` was read here, and has its audit line. Must not wait.
    fn note_read(&self, _tenant: u32, _path: Vec<String>, _version: String) {}
}

/// Central: every tenant is here, nothing expires.
pub struct Central;

impl Place for Central {
    fn site(&self) -> Option<&SiteName> {
        None
    }

    fn locate(&self, _: &dyn Rows, tenant: u32) -> Option<Realm> {
        Some(Realm(tenant))
    }

    fn lease_ok(&self, _: Realm, _: Option<u64>) -> bool {
        true
    }
}

/// A node, as its fronts see it.
pub struct Node {
    barrier: Barrier,
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    place: Arc<dyn Place>,
    verified: VerifiedTokens,
    passwords: Arc<Passwords>,
    bite: Arc<dyn Bite>,
    streams: Arc<Streams>,
}

/// What a request wants to do, for the audit log.
#[derive(Debug, Clone)]
pub struct Deed {
    /// A constant such as `secret.read`.
    pub action: &'static str,
    /// Names of what it is done to; from the request, so it may be anything.
    pub object: String,
    /// Whether doing it gets a line here. A change gets its line with its commit.
    pub noted: Noted,
}

/// When a deed gets a line in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// Done or refused.
    Always,
    /// Only refused.
    Refused,
}

impl Deed {
    /// A read of something secret.
    pub fn read(action: &'static str, object: impl Into<String>) -> Self {
        Self { action, object: object.into(), noted: Noted::Always }
    }

    /// A change, or a read of what is not secret.
    pub fn of(action: &'static str, object: impl Into<String>) -> Self {
        Self { action, object: object.into(), noted: Noted::Refused }
    }
}

/// For whom something is served.
pub(crate) struct By<'a> {
    /// The tenant's key space at this node.
    pub(crate) realm: Realm,
    /// The tenant's number at central.
    pub(crate) tenant: u32,
    /// For the audit log.
    pub(crate) actor: &'a str,
}

/// Why something was not served.
pub(crate) enum Unserved<E> {
    /// What was to be done says no; that is yet to be noted.
    Refused(E),
    /// It was done, and has no audit line.
    Unnoted(Refusal),
}

/// One snapshot, and who looks at it.
pub struct View<'a> {
    /// The rows.
    pub rows: &'a Snapshot,
    /// Whose token it was.
    pub caller: &'a Caller,
    /// What may be served here.
    pub gate: &'a Gate<'a>,
    /// When.
    pub now: Now,
}

impl Node {
    /// A node above its barrier.
    pub fn new(barrier: Barrier, journal: Arc<Journal>, clock: Arc<dyn Clock>, place: Arc<dyn Place>) -> Self {
        let (verified, passwords) = (VerifiedTokens::default(), Arc::default());
        let (bite, streams) = (Arc::new(NoHosts), Arc::default());
        Self { barrier, journal, clock, place, verified, passwords, bite, streams }
    }

    /// The same node, whose changes `bite` makes hold at hosts.
    #[must_use]
    pub fn biting(self, bite: Arc<dyn Bite>) -> Self {
        Self { bite, ..self }
    }

    /// Has what was committed in the tenant's `realm` hold at every connected host before the caller is answered. Only of
    /// operations that are said to bite.
    pub async fn bite(&self, realm: Realm) -> Pending {
        debug_assert!(goes_to_the_end(), "a client that goes away would come between the change and its bite");
        self.bite.bite(realm).await
    }

    /// The store.
    pub fn barrier(&self) -> &Barrier {
        &self.barrier
    }

    /// Where KES' logs are followed.
    pub fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    /// Where passwords are hashed.
    pub fn passwords(&self) -> &Arc<Passwords> {
        &self.passwords
    }

    /// The key space, at this node, of the tenant that has realm `tenant` at central.
    pub fn locate(&self, rows: &dyn Rows, tenant: u32) -> Option<Realm> {
        self.place.locate(rows, tenant)
    }

    /// Whether this is a site host.
    pub fn is_at_site(&self) -> bool {
        self.place.site().is_some()
    }

    /// Where what is issued here is good.
    pub fn issuer(&self) -> Issuer {
        if self.is_at_site() { Issuer::Host } else { Issuer::Central }
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// A fresh UUID.
    pub fn fresh_uuid(&self) -> String {
        uuid::Builder::from_random_bytes(draw(&**self.barrier.entropy())).into_uuid().to_string()
    }

    /// A fresh name of a token.
    pub fn fresh_token_id(&self) -> TokenId {
        TokenId(draw(&**self.barrier.entropy()))
    }

    /// Resolves a token and does `work`, all in one snapshot, and writes the audit line before it returns. Nothing of
    /// it waits for a mailbox; it must not be called with a lock held, for it writes to a file.
    ///
    /// # Errors
    /// What `work` refuses; [`Refusal::Unauthenticated`]: no good token; a full journal.
    pub fn consult<T>(
        &self,
        token: Option<&str>,
        deed: &Deed,
        work: impl FnOnce(&View<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let rows = self.barrier.snapshot()?;
        let now = self.now();
        let caller = match self.caller(token, &rows, now) {
            Ok(caller) => caller,
            Err(refusal) => return Err(self.note_refusal(&rows, Realm::NODE, NOBODY, deed, refusal)),
        };
        let by = By { realm: caller.realm, tenant: caller.tenant, actor: caller.actor() };
        let served = self.serve(&rows, &by, deed, |gate| work(&View { rows: &rows, caller: &caller, gate, now }));
        served.map_err(|refusal| match refusal {
            Unserved::Unnoted(refusal) => refusal,
            Unserved::Refused(refusal) => self.note_refusal(&rows, caller.realm, caller.actor(), deed, refusal),
        })
    }

    /// Does `work` with what says what may be served here, for one whose right was found in the same snapshot; writes the
    /// audit line of what was done, and notes what was read.
    ///
    /// # Errors
    /// What `work` says; the journal is full or failed.
    pub(crate) fn serve<T, E>(
        &self,
        rows: &Snapshot,
        by: &By<'_>,
        deed: &Deed,
        work: impl FnOnce(&Gate<'_>) -> Result<T, E>,
    ) -> Result<T, Unserved<E>> {
        let lease_ok = |offline_s| self.place.lease_ok(by.realm, offline_s);
        let at_site = self.is_at_site();
        let reads = RefCell::new(Vec::new());
        let read = |path: &[&str], version: &str| {
            if at_site {
                let path: Vec<String> = path.iter().map(|segment| (*segment).to_owned()).collect();
                reads.borrow_mut().push((path, version.to_owned()));
            }
        };
        let gate = Gate { site: self.place.site(), lease_ok: &lease_ok, read: &read };
        let done = work(&gate).map_err(Unserved::Refused)?;
        if deed.noted == Noted::Always {
            let line = Line::done(self.now().wall_us, clip(by.actor), deed.action, clip(&deed.object));
            self.journal.append(rows, by.realm, &line).map_err(Unserved::Unnoted)?;
        }
        for (path, version) in reads.take() {
            self.place.note_read(by.tenant, path, version);
        }
        Ok(done)
    }

    /// Decides and commits for one who is known by something else than a token, in whose right the decision looks
    /// itself; a refusal is the caller's to note.
    ///
    /// # Errors
    /// What the decision refuses; [`Refusal::Restored`].
    pub async fn decide<T: Send + 'static>(
        self: &Arc<Self>,
        mut decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let node = self.clone();
        let fenced = move |rows: &dyn Rows| {
            refuse_while_stopped(rows)?;
            decide(rows, node.now())
        };
        self.barrier.run(fenced).await.map(|(done, _)| done)
    }

    /// Whose token it is, noted nowhere: for a look that decides nothing about what is answered.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`], or the store's refusals.
    pub fn whose(&self, token: &str) -> Result<Caller, Refusal> {
        self.caller(Some(token), &self.barrier.snapshot()?, self.now())
    }

    fn caller(&self, token: Option<&str>, rows: &Snapshot, now: Now) -> Result<Caller, Refusal> {
        let locate = |tenant| self.place.locate(rows, tenant);
        verify(token.ok_or(Refusal::Unauthenticated)?, &locate, rows, now, &self.verified)
    }

    /// Decides and commits for a caller who has been authorised; the decision looks again, since things may have
    /// changed meanwhile. Who is there to look changes nothing, whatever permissions say.
    ///
    /// # Errors
    /// What the decision refuses, noted; [`Refusal::Denied`]; [`Refusal::Restored`].
    pub async fn change<T: Send + 'static>(
        &self,
        caller: &Caller,
        deed: &Deed,
        mut decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let by = caller.clone();
        let as_one_who_may = move |rows: &dyn Rows, now| match by.renewed(rows, now)?.is_reader() {
            true => Err(Refusal::Denied),
            false => decide(rows, now),
        };
        self.change_of_own(caller, deed, as_one_who_may).await
    }

    /// The same for what is the caller's own, such as its token.
    ///
    /// # Errors
    /// What the decision refuses, noted; [`Refusal::Restored`].
    pub async fn change_of_own<T: Send + 'static>(
        &self,
        caller: &Caller,
        deed: &Deed,
        mut decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let fenced = move |rows: &dyn Rows, now| {
            refuse_while_stopped(rows)?;
            decide(rows, now)
        };
        self.change_even_stopped(caller, deed, fenced).await
    }

    /// The same for what a restored copy of central still does: it hands out tokens, without which nobody could read.
    ///
    /// # Errors
    /// What the decision refuses, noted.
    pub async fn change_even_stopped<T: Send + 'static>(
        &self,
        caller: &Caller,
        deed: &Deed,
        mut decide: impl FnMut(&dyn Rows, Now) -> Result<(Batch, T), Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let now = self.now();
        match self.barrier.run(move |rows| decide(rows, now)).await {
            Ok((done, _)) => Ok(done),
            Err(refusal) => Err(self.refuse(caller.realm, caller.actor(), deed, refusal)),
        }
    }

    /// Notes a refusal that was found outside of a snapshot, and gives what is to be answered: the refusal itself, or
    /// why it could not be noted.
    pub fn refuse(&self, realm: Realm, actor: &str, deed: &Deed, refusal: Refusal) -> Refusal {
        match self.barrier.snapshot() {
            Ok(rows) => self.note_refusal(&rows, realm, actor, deed, refusal),
            Err(unnoted) => unnoted,
        }
    }

    fn note_refusal(&self, rows: &Snapshot, realm: Realm, actor: &str, deed: &Deed, refusal: Refusal) -> Refusal {
        if matches!(refusal, Refusal::Sealed | Refusal::Fault(_)) {
            return refusal;
        }
        let why = refusal.to_string();
        let line = Line::refused(self.now().wall_us, clip(actor), deed.action, clip(&deed.object), clip(&why));
        match self.journal.append(rows, realm, &line) {
            Ok(()) => refusal,
            Err(unnoted) => unnoted,
        }
    }
}

/// The actor of a refusal without a good token.
pub const NOBODY: &str = "-";
/// Longest part of an audit line: strangers choose them, and the journal's lines have a bound.
const CLIP_BYTES: usize = 512;

fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(CLIP_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::clip;

    #[test]
    fn clipped_text_ends_between_letters() {
        assert_eq!(clip("short"), "short");
        let long = format!("{}é", "x".repeat(511));
        assert_eq!(clip(&long), &long[..511]);
    }
}
