//! A bounded way in to an actor: ractor's own mailboxes have no limit.
//!
//! A permit is taken before a message is sent and rides inside it, so a place is free again when its message has been
//! handled or dropped. The handle stays the same over restarts of the actor; while there is none, callers hear `Gone`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ractor::rpc::CallResult;
use ractor::{ActorRef, Message, RpcReplyPort};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rows::Refusal;
use crate::shell::bound::{Bounded, Load};
#[cfg(debug_assertions)]
use crate::shell::strike::Strike;

/// A message together with the place it holds in the queue. Dropping it frees the place.
pub struct Admitted<M> {
    /// What was sent; nothing but with a strike of a test.
    pub msg: Option<M>,
    pub(super) _place: Option<OwnedSemaphorePermit>,
    #[cfg(debug_assertions)]
    pub(super) strike: Option<Strike>,
}

impl<M> Admitted<M> {
    /// For timers and messages to oneself: never refused, so they must be few by construction.
    pub fn internal(msg: M) -> Self {
        Self::in_place(msg, None)
    }

    fn in_place(msg: M, _place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            msg: Some(msg),
            _place,
            #[cfg(debug_assertions)]
            strike: None,
        }
    }

    /// For tests, which alone have an actor's cell in their hands: it is to fail or panic.
    #[cfg(debug_assertions)]
    pub fn strike(strike: Strike) -> Self {
        Self { msg: None, _place: None, strike: Some(strike) }
    }
}

/// Between two tries of [`Mailbox::insist`].
const INSIST_EVERY: Duration = Duration::from_millis(50);

/// Why a message did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// As many wait as may.
    #[error("mailbox is full")]
    Overloaded,
    /// The caller gave up; the message may still be handled.
    #[error("no reply within the deadline")]
    Timeout,
    /// There is no such actor now, or it died with the call in its hands.
    #[error("actor is gone")]
    Gone,
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Self::Unavailable(match error {
            CallError::Overloaded => "a place in the queue",
            CallError::Timeout => "an answer in time",
            CallError::Gone => "this part of the node",
        })
    }
}

/// The way in.
pub struct Mailbox<M: Send + 'static> {
    actor: Arc<ArcSwapOption<ActorRef<Admitted<M>>>>,
    places: Arc<Semaphore>,
    places_max: usize,
    refused: Arc<AtomicU64>,
}

impl<M: Send + 'static> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self {
            actor: self.actor.clone(),
            places: self.places.clone(),
            places_max: self.places_max,
            refused: self.refused.clone(),
        }
    }
}

impl<M: Send + 'static> Bounded for Mailbox<M> {
    fn load(&self) -> Load {
        let used = self.places_max - self.places.available_permits();
        Load::of(used, self.places_max, self.refused.load(Ordering::Relaxed))
    }
}

impl<M: Send + 'static> Mailbox<M>
where
    Admitted<M>: Message,
{
    /// A way in to no actor yet, for at most `places_max` messages that wait or are being handled.
    pub fn new(places_max: usize) -> Self {
        Self {
            actor: Arc::default(),
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
            refused: Arc::default(),
        }
    }

    /// Leads to `actor` from now on.
    pub fn connect(&self, actor: ActorRef<Admitted<M>>) {
        self.actor.store(Some(Arc::new(actor)));
    }

    /// Messages that wait or are being handled.
    pub fn used(&self) -> usize {
        self.places_max - self.places.available_permits()
    }

    /// Sends a message that is not answered.
    ///
    /// # Errors
    /// [`CallError::Overloaded`] or [`CallError::Gone`].
    pub fn cast(&self, msg: M) -> Result<(), CallError> {
        let (actor, _place) = (self.actor()?, self.place()?);
        actor.cast(Admitted::in_place(msg, _place)).map_err(|_| CallError::Gone)
    }

    /// As [`Mailbox::cast`], but waits where too many wait already: for what must not get lost, said by few. `make` is
    /// asked for the message anew at each try.
    ///
    /// # Errors
    /// [`CallError::Gone`].
    pub async fn insist(&self, make: impl Fn() -> M) -> Result<(), CallError> {
        loop {
            match self.cast(make()) {
                Err(CallError::Overloaded) => tokio::time::sleep(INSIST_EVERY).await,
                done => return done,
            }
        }
    }

    /// Sends a message and waits for its answer.
    ///
    /// # Errors
    /// Not sent, or not answered before `deadline`.
    pub async fn call<R: Send + 'static>(
        &self,
        deadline: Duration,
        msg: impl FnOnce(RpcReplyPort<R>) -> M,
    ) -> Result<R, CallError> {
        let (actor, _place) = (self.actor()?, self.place()?);
        match actor.call(|reply| Admitted::in_place(msg(reply), _place), Some(deadline)).await {
            Ok(CallResult::Success(reply)) => Ok(reply),
            Ok(CallResult::Timeout) => Err(CallError::Timeout),
            Ok(CallResult::SenderError) | Err(_) => Err(CallError::Gone),
        }
    }

    fn actor(&self) -> Result<Arc<ActorRef<Admitted<M>>>, CallError> {
        self.actor.load_full().ok_or(CallError::Gone)
    }

    fn place(&self) -> Result<Option<OwnedSemaphorePermit>, CallError> {
        self.places.clone().try_acquire_owned().map(Some).map_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            CallError::Overloaded
        })
    }
}
