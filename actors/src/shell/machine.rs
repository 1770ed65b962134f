//! One shell for any machine: events in, one step each, effects performed in their order, one timer.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::secret::Secret;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::task::JoinHandle;

use crate::ports::{Clock, Entropy, Now, draw_secret};
use crate::rows::Refusal;
use crate::shell::mailbox::{Admitted, Mailbox};
#[cfg(debug_assertions)]
use crate::shell::strike::Armed;
use crate::store::Fault;

/// A pure machine, as the shell drives it.
pub trait Machine: Send + 'static {
    /// What can happen to it.
    type Event: Send + 'static;
    /// What it can want done.
    type Effect: Send + 'static;

    /// One event in, effects out.
    fn step(&mut self, event: Self::Event, now: Now) -> Vec<Self::Effect>;

    /// When it wants to hear that time passed, on the monotonic clock.
    fn next_deadline(&self) -> Option<Duration>;

    /// The event that tells so, with fresh randomness for those that need it.
    fn time_passed(seed: Secret<32>) -> Self::Event;
}

/// An effect could not be performed. The actor ends, and its successor starts from what is on disk.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Failed {
    why: String,
    /// Nothing is broken: the disk is full, or the writer has too much to do.
    is_passing: bool,
}

impl Failed {
    /// With the text of an error.
    pub fn because(error: impl std::fmt::Display) -> Self {
        Self { why: error.to_string(), is_passing: false }
    }

    /// Whether it is no sign of a crash loop, however often it comes.
    pub fn is_passing(&self) -> bool {
        self.is_passing
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        let is_passing = matches!(fault, Fault::Full | Fault::Overloaded);
        Self { is_passing, ..Self::because(fault) }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Fault(fault) => fault.into(),
            other => Self::because(other),
        }
    }
}

/// The hands of a machine: everything of an actor that touches the world.
pub trait Perform<M: Machine>: Send + Sync + 'static {
    /// Does one effect; the next begins when this has ended.
    fn perform(&self, effect: M::Effect) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Hears after each step, before its effects, for what is shown without asking the actor.
    fn stepped(&self, _machine: &M) {}

    /// The actor has ended; callers that still wait should hear of it.
    fn ended(&self) {}
}

/// What a machine's shell is made of; the supervisor makes an actor of it at each start.
pub struct MachineParts<M: Machine, P> {
    /// Its hands.
    pub performer: Arc<P>,
    /// The way in, which is connected to each new actor.
    pub mailbox: Mailbox<M::Event>,
    /// The node's clock.
    pub clock: Arc<dyn Clock>,
    /// The node's randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl<M: Machine, P> Clone for MachineParts<M, P> {
    fn clone(&self) -> Self {
        Self {
            performer: self.performer.clone(),
            mailbox: self.mailbox.clone(),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
        }
    }
}

impl<M: Machine + Sync, P: Perform<M>> MachineParts<M, P> {
    /// Starts an actor around `machine`, linked to `supervisor`.
    ///
    /// # Errors
    /// The supervisor is stopping.
    pub async fn spawn(self, machine: M, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
        let mailbox = self.mailbox.clone();
        let shell = Shell::<M, P>(PhantomData);
        let (actor, _) = Actor::spawn_linked(None, shell, (self, machine), supervisor).await?;
        mailbox.connect(actor.clone());
        Ok(actor.get_cell())
    }
}

struct Shell<M, P>(PhantomData<fn() -> (M, P)>);

/// Emptied when the actor stops, so that whoever waits for its end finds nothing held any more.
type State<M, P> = Option<Driven<M, P>>;

struct Driven<M: Machine, P: Perform<M>> {
    machine: M,
    parts: MachineParts<M, P>,
    timer: Option<Timer>,
    #[cfg(debug_assertions)]
    armed: Armed,
}

/// The one timer and what it waits for.
struct Timer {
    deadline: Duration,
    task: JoinHandle<()>,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// However the actor ended (ractor calls nobody after a failure or a kill), whoever waits is told.
impl<M: Machine, P: Perform<M>> Drop for Driven<M, P> {
    fn drop(&mut self) {
        self.parts.performer.ended();
    }
}

impl<M: Machine + Sync, P: Perform<M>> Actor for Shell<M, P> {
    type Msg = Admitted<M::Event>;
    type State = State<M, P>;
    type Arguments = (MachineParts<M, P>, M);

    async fn pre_start(
        &self,
        me: ActorRef<Self::Msg>,
        (parts, machine): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        parts.performer.stepped(&machine);
        let mut driven = Driven {
            machine,
            parts,
            timer: None,
            #[cfg(debug_assertions)]
            armed: Armed::default(),
        };
        driven.arm(&me);
        Ok(Some(driven))
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        admitted: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(driven) = state else { return Ok(()) };
        #[cfg(debug_assertions)]
        driven.armed.take(admitted.strike)?;
        let Some(msg) = admitted.msg else { return Ok(()) };
        let _place = admitted._place;
        let effects = driven.machine.step(msg, driven.parts.clock.now());
        driven.parts.performer.stepped(&driven.machine);
        for effect in effects {
            #[cfg(debug_assertions)]
            driven.armed.strike()?;
            driven.parts.performer.perform(effect).await?;
        }
        driven.arm(&me);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        *state = None;
        Ok(())
    }
}

impl<M: Machine, P: Perform<M>> Driven<M, P> {
    fn arm(&mut self, me: &ActorRef<Admitted<M::Event>>) {
        let Some(deadline) = self.machine.next_deadline() else {
            self.timer = None;
            return;
        };
        if self.timer.as_ref().is_some_and(|timer| timer.deadline == deadline && !timer.task.is_finished()) {
            return;
        }
        let wait = deadline.saturating_sub(self.parts.clock.now().mono);
        let (me, entropy) = (me.clone(), self.parts.entropy.clone());
        let task = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = me.cast(Admitted::internal(M::time_passed(draw_secret(&*entropy))));
        });
        self.timer = Some(Timer { deadline, task });
    }
}
