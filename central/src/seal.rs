//! The shell around the seal keeper: callers in front, hands behind.
//!
//! [`SealService`] is what the REST side calls; it turns calls into events and waits for the answers. `hands` performs
//! the keeper's effects; `opening` is what follows an unsealing. The keeper's state lies in one row outside the barrier.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use holdfast_actors::rows::Refusal;
use holdfast_actors::seal_keeper::{
    Answer, Class, Event, FreshSeal, FreshStart, Proof, RequestId, Revealer, SealKeeper, SealRefusal, Status,
};
use holdfast_actors::shell::{CallError, Mailbox, Replies};
use holdfast_rest::access::{BoxFuture, RootTokenWatch};
use holdfast_rest::strongbox::{Operator, Revealed, Rotated, SealControl, SealError, Unsealing};
use tokio::sync::watch;

use crate::node::Node;

mod hands;
mod opening;
mod pending;

pub(crate) use hands::read_boot;
pub use hands::{Hands, LoadError};
pub use opening::{Opening, RootToken, renew_certificate};

/// Calls that wait or are in work; more are refused as overload.
const PLACES: usize = 64;
/// A call's answer. Below the front's own deadline, so that the caller reads our words.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);

/// The keeper's answer, with what its hands made for the operator.
pub type Reply = Result<(Answer, Option<RootToken>), SealRefusal>;

/// Central's seal, as callers see it.
pub struct SealService {
    node: Node,
    mailbox: Mailbox<Event>,
    replies: Replies<Reply>,
    status: Arc<ArcSwap<Status>>,
    /// Whether the revealed secrets were used, as is on disk.
    used: watch::Receiver<bool>,
}

/// What the two sides of the seal share.
pub(crate) struct Lines {
    pub(crate) mailbox: Mailbox<Event>,
    pub(crate) replies: Replies<Reply>,
    pub(crate) status: Arc<ArcSwap<Status>>,
    pub(crate) used: watch::Sender<bool>,
}

impl SealService {
    /// The callers' side, and the lines for the hands' side.
    pub(crate) fn new(node: Node) -> (Self, Lines) {
        let (tell_used, used) = watch::channel(false);
        let lines = Lines {
            mailbox: Mailbox::new(PLACES),
            replies: Replies::default(),
            status: Arc::new(ArcSwap::from_pointee(SealKeeper::load(None, false).status())),
            used: tell_used,
        };
        let service = Self {
            node,
            mailbox: lines.mailbox.clone(),
            replies: lines.replies.clone(),
            status: lines.status.clone(),
            used,
        };
        (service, lines)
    }

    /// Calls that wait or are in work.
    pub fn calls(&self) -> &Mailbox<Event> {
        &self.mailbox
    }

    async fn ask(&self, event: impl FnOnce(RequestId) -> Event) -> Result<(RequestId, Answered), SealError> {
        let wait = self.replies.expect();
        let request = RequestId(wait.number());
        self.mailbox.cast(event(request)).map_err(failed)?;
        let (answer, token) = wait.within(ANSWER_WITHIN).await.map_err(failed)??;
        Ok((request, Answered { answer, token }))
    }
}

struct Answered {
    answer: Answer,
    token: Option<RootToken>,
}

impl Answered {
    /// The keeper answers each event with its own kind; another one would be a bug, which is told as a failure.
    fn unexpected(&self) -> SealError {
        tracing::error!("the seal keeper answered with another kind of answer");
        SealError::Failed(Refusal::Unavailable("this part of the node"))
    }
}

fn failed(error: CallError) -> SealError {
    SealError::Failed(error.into())
}

impl SealControl for SealService {
    fn status(&self) -> Status {
        // What the keeper thinks is ahead of what is done by the length of an effect.
        let sealed = self.node.gate.is_closed();
        Status { sealed, ..**self.status.load() }
    }

    fn reveal(&self, by: Option<Revealer>) -> BoxFuture<'_, Result<Revealed, SealError>> {
        Box::pin(async move {
            let fresh = Box::new(FreshStart::draw(&*self.node.entropy));
            let (_, answered) = self.ask(|request| Event::Reveal { request, by, fresh }).await?;
            match answered {
                Answered { answer: Answer::Revealed { sealkey, shares }, token: Some(token) } => {
                    let RootToken { text, accessor, created_us } = token;
                    Ok(Revealed { sealkey, shares, root_token: text, accessor, created_us })
                }
                other => Err(other.unexpected()),
            }
        })
    }

    fn unseal(&self, class: Class, proof: Proof) -> BoxFuture<'_, Result<Unsealing, SealError>> {
        Box::pin(async move {
            let (_, answered) = self.ask(|request| Event::Unseal { request, class, proof }).await?;
            match answered.answer {
                Answer::Unsealed => Ok(Unsealing::Unsealed),
                Answer::MoreShares { held, threshold } => Ok(Unsealing::MoreShares { held, threshold }),
                _ => Err(answered.unexpected()),
            }
        })
    }

    fn prove(&self, class: Class, proof: Proof) -> BoxFuture<'_, Result<(), SealError>> {
        Box::pin(async move {
            self.ask(|request| Event::ProveSealKey { request, class, proof }).await?;
            Ok(())
        })
    }

    fn seal(&self, by: Operator) -> BoxFuture<'_, Result<(), SealError>> {
        Box::pin(async move {
            self.ask(|request| Event::Seal { request, by: by.name }).await?;
            Ok(())
        })
    }

    fn rotate_seal(&self, by: Operator) -> BoxFuture<'_, Result<Rotated, SealError>> {
        Box::pin(async move {
            let fresh = FreshSeal::draw(&*self.node.entropy);
            let root = self.node.barrier.ring().ok().map(|ring| ring.root());
            let (rotation, answered) =
                self.ask(|request| Event::RotateSeal { request, by: by.name, root, fresh }).await?;
            match answered.answer {
                Answer::Rotated { sealkey, shares } => Ok(Rotated { rotation, sealkey, shares }),
                _ => Err(answered.unexpected()),
            }
        })
    }

    fn reply_sent(&self, rotation: RequestId) {
        // Without this event both records stay and either key is taken at the next start: no harm.
        if self.mailbox.cast(Event::ReplySent(rotation)).is_err() {
            tracing::warn!("the record of the old seal key stays until the next rotation");
        }
    }
}

impl RootTokenWatch for SealService {
    fn root_token_used(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            if *self.used.borrow() {
                return Ok(());
            }
            // Never answered, but told of the keeper's end.
            let end = self.replies.expect();
            let mut used = self.used.clone();
            self.mailbox.cast(Event::RootTokenUsed)?;
            tokio::select! {
                noted = used.wait_for(|used| *used) => noted.map(drop).map_err(|_| CallError::Gone.into()),
                ended = end.within(ANSWER_WITHIN) => Err(ended.err().unwrap_or(CallError::Gone).into()),
            }
        })
    }
}
