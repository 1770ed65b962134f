//! A child that is nothing but a loop: it accepts, watches or renews for as long as its node is at work. That it ends,
//! by a panic or by itself, is a failure like any other actor's; alone, a task that ends does so in silence.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::task::{AbortHandle, JoinHandle};

#[cfg(debug_assertions)]
use crate::shell::strike::Fault;

/// The work of a loop.
pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts an actor around `work`, linked to `supervisor`.
pub(super) async fn spawn(work: Work, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
    let (actor, _) = Actor::spawn_linked(None, Loop, work, supervisor).await?;
    Ok(actor.get_cell())
}

/// The future's output, or `None` if it panicked.
pub async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}

struct Loop;

/// What a loop can be told: by tests only.
#[cfg(debug_assertions)]
pub type Told = Fault;
#[cfg(not(debug_assertions))]
type Told = ();

/// The running work, which ends with this.
struct Running {
    work: AbortHandle,
    end: JoinHandle<()>,
    #[cfg(debug_assertions)]
    strikes: tokio::sync::mpsc::Sender<Fault>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Actor for Loop {
    type Msg = Told;
    type State = Option<Running>;
    type Arguments = Work;

    async fn pre_start(&self, me: ActorRef<Told>, work: Work) -> Result<Self::State, ActorProcessingErr> {
        #[cfg(debug_assertions)]
        let (strikes, work) = with_strikes(work);
        let work = tokio::spawn(work);
        let abort = work.abort_handle();
        let end = tokio::spawn(async move {
            let why = match work.await {
                Ok(()) => "it came to an end",
                Err(error) if error.is_panic() => "it panicked",
                Err(_) => return,
            };
            me.stop(Some(why.to_owned()));
        });
        Ok(Some(Running {
            work: abort,
            end,
            #[cfg(debug_assertions)]
            strikes,
        }))
    }

    #[cfg(debug_assertions)]
    async fn handle(
        &self,
        _: ActorRef<Told>,
        fault: Told,
        running: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(running) = running {
            let _ = running.strikes.try_send(fault);
        }
        Ok(())
    }

    /// Until the work has really ended it holds what it works on.
    async fn post_stop(&self, _: ActorRef<Told>, running: &mut Self::State) -> Result<(), ActorProcessingErr> {
        if let Some(mut running) = running.take() {
            running.work.abort();
            let _ = (&mut running.end).await;
        }
        Ok(())
    }
}

/// The work, in whose middle it panics or ends when it is told to.
#[cfg(debug_assertions)]
fn with_strikes(work: Work) -> (tokio::sync::mpsc::Sender<Fault>, Work) {
    let (strikes, mut struck) = tokio::sync::mpsc::channel::<Fault>(1);
    let both = async move {
        tokio::select! {
            () = work => {}
            Some(fault) = struck.recv() => drop(fault.happen()),
        }
    };
    (strikes, Box::pin(both))
}
