//! Performs the seal keeper's effects.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holdfast_actors::audit_log::Line;
use holdfast_actors::barrier::Barrier;
use holdfast_actors::keyring::Keyring;
use holdfast_actors::rows::{Batch, Refusal};
use holdfast_actors::seal_keeper::{BootRecord, Effect, RequestId, SealKeeper};
use holdfast_actors::shell::{Failed, Perform};
use holdfast_actors::store::Fault;
use holdfast_protocol::codec::DecodeError;
use holdfast_protocol::ids::Realm;
use holdfast_rest::health::{NodeState, SealState};

use super::opening::{Opening, RootToken};
use super::pending::{self, Pending};
use super::{Lines, Reply};
use crate::node::Node;
use crate::quic::Fleet;

/// The keeper's row outside the barrier.
const ROW: &str = "seal";
/// How long the fleet may take to close; whoever is late is cut off by the keys' erasing.
const FLEET_STOP: Duration = Duration::from_secs(5);

/// The keeper's state on disk can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Damaged, or of a later version.
    #[error("the seal's record: {0}")]
    Record(#[from] DecodeError),
}

/// What the keeper acts with.
pub struct Hands {
    node: Node,
    fleet: Arc<Fleet>,
    opening: Opening,
    lines: Lines,
    pending: Mutex<Pending>,
    /// Root tokens made for a reveal, until its reply.
    made: Mutex<BTreeMap<RequestId, RootToken>>,
}

impl Hands {
    /// Reads what waits outside the barrier.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) fn new(node: Node, fleet: Arc<Fleet>, opening: Opening, lines: Lines) -> Result<Self, LoadError> {
        let pending = Pending::decode(node.barrier.boot_row(pending::ROW)?.as_deref());
        Ok(Self { node, fleet, opening, lines, pending: Mutex::new(pending), made: Mutex::default() })
    }

    /// The keeper from its row. Started again within a process that is open it stays open, and otherwise everything is
    /// closed: no restart unseals.
    ///
    /// # Errors
    /// The store failed, or the row is damaged.
    pub fn load(&self) -> Result<SealKeeper, LoadError> {
        let boot = read_boot(&self.node.barrier)?;
        let open = boot.is_some() && !self.node.gate.is_closed() && !self.node.barrier.is_sealed();
        if open {
            self.reach_hosts();
        } else {
            drop(self.node.barrier.seal());
            self.close_gate(boot.is_some());
        }
        self.lines.used.send_replace(boot.as_ref().is_some_and(|boot| boot.used));
        Ok(SealKeeper::load(boot, open))
    }

    /// The keeper before may have ended between the opening of the gate and that of the listener.
    fn reach_hosts(&self) {
        let (fleet, node) = (self.fleet.clone(), self.node.clone());
        tokio::spawn(async move { fleet.start(node).await });
    }

    /// Leaves a line about this start for the chain, where there is one.
    pub(crate) async fn note_start(&self, was_torn: bool) -> Result<(), Failed> {
        if self.node.gate.seal_state() == SealState::Uninitialized {
            return Ok(());
        }
        let at_us = self.node.now().wall_us;
        self.audit(match was_torn {
            false => Line::done(at_us, "central", "node.start", ""),
            true => Line::refused(at_us, "central", "node.start", "", "the read journal ended inside a line"),
        })
        .await
    }

    fn close_gate(&self, initialised: bool) {
        self.node.gate.set(if initialised { SealState::Sealed } else { SealState::Uninitialized });
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().expect("no holder of this lock panics")
    }

    async fn persist(&self, boot: Option<&BootRecord>) -> Result<(), Failed> {
        self.node.barrier.write_boot(vec![(ROW, boot.map(BootRecord::encode))]).await?;
        self.lines.used.send_replace(boot.is_some_and(|boot| boot.used));
        Ok(())
    }

    /// Done deeds go into the chain of changes, refusals into the journal, and while sealed either waits outside the
    /// barrier. A full disk must not keep anybody from sealing, so a line that can't be written waits in memory.
    async fn audit(&self, line: Line) -> Result<(), Failed> {
        match self.write_line(&line).await {
            Ok(()) => Ok(()),
            Err(Refusal::Fault(fault @ Fault::Stopped)) => Err(Failed::because(fault)),
            Err(refusal) => {
                tracing::error!(error = %refusal, "an audit line of the seal can't be written yet");
                self.pending().push(line);
                Ok(())
            }
        }
    }

    async fn write_line(&self, line: &Line) -> Result<(), Refusal> {
        if self.node.barrier.is_sealed() {
            return self.write_pending(line).await;
        }
        if line.outcome == "ok" {
            let line = line.clone();
            let batch = move || Batch::new(Realm::NODE, line.clone()).from_reserve();
            self.node.barrier.run(move |_| Ok((batch(), ()))).await?;
            return Ok(());
        }
        let snapshot = self.node.barrier.snapshot()?;
        self.node.journal.append(&snapshot, Realm::NODE, line)
    }

    async fn write_pending(&self, line: &Line) -> Result<(), Refusal> {
        let row = {
            let mut pending = self.pending();
            if !pending.push(line.clone()) {
                return Ok(());
            }
            pending.encode()
        };
        if let Err(fault) = self.node.barrier.write_boot(vec![(pending::ROW, Some(row))]).await {
            // It has its place in memory already.
            tracing::error!(error = %fault, "an audit line of the sealed node is in memory only");
        }
        Ok(())
    }

    /// Moves the lines that waited into the chain, in one transaction with the end of their waiting. Where there is no
    /// room for them they wait on.
    async fn flush_pending(&self) -> Result<(), Failed> {
        let at_us = self.node.now().wall_us;
        let bytes = match &*self.pending() {
            none if none.is_empty() => return Ok(()),
            some => some.encode(),
        };
        let flushed = self.node.barrier.run(move |_| Ok((Pending::decode(Some(&bytes)).batch(at_us), ()))).await;
        match flushed {
            Ok(_) => *self.pending() = Pending::default(),
            Err(Refusal::Fault(Fault::Full)) => tracing::error!("the disk is full: audit lines of the seal wait"),
            Err(refusal) => return Err(refusal.into()),
        }
        Ok(())
    }

    /// What follows once the barrier is open, and then the gate.
    async fn open(&self) -> Result<(), Failed> {
        self.flush_pending().await?;
        match self.opening.settle().await {
            // What it would have written can wait for room; what is there can't wait to be served.
            Err(error) if error.is_for_want_of_room() => tracing::error!(%error, "unsealed with a full disk"),
            settled => settled?,
        }
        self.node.gate.set(SealState::Unsealed);
        tracing::info!("unsealed");
        if let Err(error) = self.fleet.start(self.node.clone()).await {
            tracing::error!(error, "hosts can't connect");
        }
        Ok(())
    }

    async fn initialise(&self, request: RequestId, keyring: Keyring, boot: BootRecord) -> Result<(), Failed> {
        let token = self.opening.begin(keyring, vec![(ROW, boot.encode())]).await?;
        self.lines.used.send_replace(boot.used);
        self.made.lock().expect("no holder of this lock panics").insert(request, token);
        self.open().await
    }

    async fn swap_out(&self) {
        self.close_gate(true);
        if tokio::time::timeout(FLEET_STOP, self.fleet.stop()).await.is_err() {
            tracing::warn!("connections of hosts were not closed in time");
        }
        self.node.barrier.seal_and_erase().await;
        tracing::info!("sealed");
    }

    fn reply(&self, request: RequestId, reply: Reply) {
        self.lines.replies.answer(request.0, reply);
    }
}

impl Perform<SealKeeper> for Hands {
    async fn perform(&self, effect: Effect) -> Result<(), Failed> {
        match effect {
            Effect::PersistBoot(boot) => self.persist(Some(&boot)).await?,
            Effect::ForgetBoot => {
                self.persist(None).await?;
                self.close_gate(false);
            }
            Effect::Initialise { request, root, boot } => {
                self.initialise(request, Keyring::new(boot.deployment, root), boot).await?;
            }
            Effect::InstallRoot { deployment, root } => {
                self.node.barrier.unseal(Keyring::new(deployment, root));
                self.open().await?;
            }
            Effect::SwapOut => self.swap_out().await,
            Effect::Audit(line) => self.audit(line).await?,
            Effect::Reply(request, outcome) => {
                let token = self.made.lock().expect("no holder of this lock panics").remove(&request);
                self.reply(request, outcome.map(|answer| (answer, token)));
            }
        }
        Ok(())
    }

    fn stepped(&self, keeper: &SealKeeper) {
        self.lines.status.store(Arc::new(keeper.status()));
    }

    fn ended(&self) {
        self.lines.replies.abandon();
    }
}

/// The keeper's record, if there is one.
pub(crate) fn read_boot(barrier: &Barrier) -> Result<Option<BootRecord>, LoadError> {
    Ok(barrier.boot_row(ROW)?.map(|bytes| BootRecord::decode(&bytes)).transpose()?)
}
