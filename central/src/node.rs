//! What all parts of central share: the store behind its barrier, the journal, time, and whether it is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use holdfast_actors::audit_log::journal::Journal;
use holdfast_actors::barrier::Barrier;
use holdfast_actors::ports::{Clock, Entropy, Now};
use holdfast_actors::rows::Refusal;
use holdfast_rest::health::{NodeState, SealState};
use holdfast_rest::metrics::Metrics;

use crate::config::Config;
use crate::quic::network::Network;

/// Does work that may block: on a thread of its own, but in a simulation, where a seed is to tell everything.
pub type Blocking = fn(Box<dyn FnOnce() + Send>);

/// On the runtime's threads for it.
pub fn on_threads(work: Box<dyn FnOnce() + Send>) {
    drop(tokio::task::spawn_blocking(work));
}

/// Central, as its parts see it. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    /// What it was told.
    pub config: Arc<Config>,
    /// The store.
    pub barrier: Barrier,
    /// Where lines about reads and refusals go.
    pub journal: Arc<Journal>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where hosts come from.
    pub network: Arc<dyn Network>,
    /// Where work is done that may block.
    pub blocking: Blocking,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Whether it is open.
    pub gate: Arc<Gate>,
}

impl Node {
    /// Now.
    pub fn now(&self) -> Now {
        self.clock.now()
    }
}

/// Whether central serves. It opens after the barrier, when all that follows an unsealing is done, and closes before.
#[derive(Debug, Default)]
pub struct Gate {
    seal: AtomicU8,
    /// Whether the rows say that this is a restored copy that nobody has adopted, as far as they could be read.
    restored: AtomicBool,
    /// Whether something of what the configuration says is not so yet.
    behind: AtomicBool,
}

impl Gate {
    /// From now on.
    pub fn set(&self, state: SealState) {
        let number = match state {
            SealState::Uninitialized => 0,
            SealState::Sealed => 1,
            SealState::Unsealed => 2,
        };
        self.seal.store(number, Ordering::SeqCst);
    }
}

impl Gate {
    /// Whether central does not serve.
    pub fn is_closed(&self) -> bool {
        self.seal_state() != SealState::Unsealed
    }

    /// Whether central is a restored copy that changes nothing until it is adopted.
    pub fn is_restored(&self) -> bool {
        self.restored.load(Ordering::SeqCst)
    }

    /// Says whether it is; gives what was said before. The rows say it first.
    pub(crate) fn set_restored(&self, restored: bool) -> bool {
        self.restored.swap(restored, Ordering::SeqCst)
    }

    /// Whether something of what the configuration says could not be done for want of room, and has yet to be.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind.load(Ordering::SeqCst)
    }

    /// Says whether it is.
    pub(crate) fn set_behind(&self, behind: bool) {
        self.behind.store(behind, Ordering::SeqCst);
    }
}

impl NodeState for Gate {
    fn seal_state(&self) -> SealState {
        match self.seal.load(Ordering::SeqCst) {
            0 => SealState::Uninitialized,
            1 => SealState::Sealed,
            _ => SealState::Unsealed,
        }
    }

    fn reason(&self) -> Option<String> {
        if self.is_restored() {
            return Some(Refusal::Restored.to_string());
        }
        (!self.is_closed() && self.is_behind()).then(|| BEHIND.to_owned())
    }
}

const BEHIND: &str = "the store takes no writes now, so not all is as the configuration says";
