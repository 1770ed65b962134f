//! What a host knows of itself and does when it is told where it stands: all of it that needs neither the network nor
//! the TPM's thread, so that simulations run the very same.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_actors::barrier::Barrier;
use holdfast_actors::ports::{Clock, Entropy};
use holdfast_actors::rows::Refusal;
use holdfast_actors::store::Fault;
use holdfast_protocol::ids::{HostId, StandingGeneration};
use holdfast_protocol::wire::{FromHost, Notice, NoticedStanding, Signed, VerdictNotice};

use crate::boot::{Boot, Contact};
use crate::chip::SecretChip;
use crate::debug::Dumps;
use crate::join;
use crate::lease::Leases;
use crate::reads::Reads;
use crate::replica::Replica;
use crate::seal::{HostSeal, SealFault, SealParts};
use crate::state::StateFile;
use crate::status::Status;
use crate::time::AgentClock;
use crate::trust::{Course, HeadOrder, Trust, TrustError, is_quarantine, order_heads, weigh};
use crate::unseal::Ladder;
use crate::uplink::core::Attempt;

/// The parts.
pub struct Local {
    /// The state of the join.
    pub file: StateFile,
    /// The store.
    pub barrier: Barrier,
    /// Its rows outside the barrier.
    pub boot: Boot,
    /// The seal.
    pub seal: HostSeal,
    /// Whom to believe.
    pub trust: Arc<Trust>,
    /// The content.
    pub replica: Replica,
    /// For how long it may be served.
    pub leases: Arc<Leases>,
    /// What of it was read, for central.
    pub reads: Arc<Reads>,
    /// The time.
    pub clock: Arc<AgentClock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// For people and gauges.
    pub status: Arc<Status>,
    /// What the last verdict brought, as it is stored.
    pub contact: Mutex<Contact>,
    /// Starting without central.
    pub ladder: Ladder,
    /// What it says about itself to strangers.
    pub dumps: Dumps,
}

/// What the parts are made of.
pub struct LocalParts {
    /// The state of the join.
    pub file: StateFile,
    /// What keeps the host secret.
    pub chip: Arc<dyn SecretChip>,
    /// The store.
    pub barrier: Barrier,
    /// The machine's clocks.
    pub system: Box<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where central is dialled, for people.
    pub dialled: String,
}

/// A notice could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum NoticeFault {
    /// It is not to be believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Fault),
    /// What it orders could not be done.
    #[error(transparent)]
    Seal(#[from] SealFault),
}

/// What came of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heeded {
    /// What it asked for.
    pub course: Course,
    /// The order to wipe that is carried out now, to be acknowledged.
    pub wiped: Option<StandingGeneration>,
}

/// A verdict says what can't be.
#[derive(Debug, thiserror::Error)]
pub enum VerdictFault {
    /// Something in it is not to be believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Its head is lower than one that this host has seen.
    #[error("central shows a lower head than before: it was restored from an older copy, or it is not central")]
    LowerHead,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Fault),
}

impl Local {
    /// Begins sealed, with what is remembered outside the barrier.
    ///
    /// # Errors
    /// The store's fault.
    pub fn assemble(parts: LocalParts) -> Result<Self, Fault> {
        let LocalParts { file, chip, barrier, system, entropy, dialled } = parts;
        let state = file.get();
        let boot = Boot::new(barrier.clone());
        let contact = boot.contact()?;
        let last_us = Some(contact.time_us).filter(|time_us| *time_us != 0);
        let clock = Arc::new(AgentClock::new(system, last_us));
        let trust = Arc::new(Trust::new(state.deployment, state.host.clone(), state.root.clone()));
        let leases = Arc::new(Leases::default());
        if let Some(lease) = contact.lease.as_ref().and_then(|lease| trust.remembered_lease(lease)) {
            leases.renew(lease);
        }
        let seal = HostSeal::new(SealParts {
            barrier: barrier.clone(),
            file: file.clone(),
            chip,
            clock: clock.clone(),
            leases: leases.clone(),
        });
        let replica = Replica::new(barrier.clone(), clock.clone(), trust.clone());
        let status = Arc::new(Status::new(dialled));
        let contact = Mutex::new(contact);
        let (ladder, reads, dumps) = (Ladder::default(), Arc::default(), Dumps::default());
        let local = Self {
            file,
            barrier,
            boot,
            seal,
            trust,
            replica,
            leases,
            reads,
            clock,
            entropy,
            status,
            contact,
            ladder,
            dumps,
        };
        local.status.noticed(local.notice()?.as_ref());
        let sealed_by_operator = local.boot.is_operators_seal()?;
        local.status.change(|standing| standing.sealed_by_operator = sealed_by_operator);
        Ok(local)
    }

    /// Who it is.
    pub fn id(&self) -> HostId {
        self.file.get().host.clone()
    }

    /// The newest notice.
    ///
    /// # Errors
    /// The store's fault.
    pub fn notice(&self) -> Result<Option<Notice>, Fault> {
        Ok(self.boot.notice()?.and_then(|stored| self.trust.remembered_notice(&stored)))
    }

    /// Whether nothing but a higher notice may unseal this host.
    ///
    /// # Errors
    /// The store's fault.
    pub fn is_barred(&self) -> Result<bool, Fault> {
        Ok(self.notice()?.as_ref().is_some_and(is_quarantine))
    }

    /// What a start, or a new uplink, tries first.
    ///
    /// # Errors
    /// The store's fault.
    pub fn first_attempt(&self) -> Result<Attempt, Fault> {
        if self.is_barred()? { Ok(Attempt::Notice) } else { Ok(self.usual_attempt()) }
    }

    /// A session, unless the certificate for it is ending or an enrolment was begun and not completed.
    pub fn usual_attempt(&self) -> Attempt {
        let state = self.file.get();
        let ending = state.membership.as_ref().is_none_or(|member| join::is_expiring(member, self.clock.now()));
        if ending || state.renewal.is_some() { Attempt::Enrol } else { Attempt::Session }
    }

    /// Follows a notice: it is remembered before it is acted upon, so that a crash in between forgets nothing. A host
    /// that can't remember it seals all the same.
    ///
    /// # Errors
    /// What it asks for is to be tried again.
    pub async fn heed(&self, signed: &Signed) -> Result<Heeded, NoticeFault> {
        let notice = self.trust.notice(signed, self.clock.now().wall_s())?;
        let held = self.notice()?;
        let course = weigh(held.as_ref(), &notice);
        let mut remembered = Ok(());
        if course.store {
            tracing::warn!(standing = ?notice.standing, generation = %notice.generation, "central's notice");
            remembered = match course.seal {
                // Nor is it to help open any other.
                true => self.boot.put_barring_notice(signed).await,
                false => self.boot.put_notice(signed).await,
            };
            self.status.noticed(Some(&notice));
        }
        let mut forgotten = Ok(());
        if course.seal {
            self.shut("central").await;
            // Those in memory too, and those on disk where the notice is known already.
            forgotten = self.forget_shares().await;
        }
        remembered?;
        forgotten?;
        if course.wipe {
            self.wipe(notice.generation).await?;
        }
        Ok(Heeded { course, wiped: course.wipe.then_some(notice.generation) })
    }

    /// What each start begins with: one that ended between remembering a notice and following it did not come to sealing
    /// this host for it, nor to erasing its shares.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn begin(&self) -> Result<(), Fault> {
        if self.is_barred()? {
            self.shut("central").await;
        }
        // On a disk that is full they stay, and are not given: whoever is barred gives nothing.
        if let Err(error) = self.forget_barred_shares().await {
            tracing::error!(%error, "shares of a host that something is held against could not be erased");
        }
        Ok(())
    }

    /// Carries out an order to wipe that is remembered and was cut short, by a loss of power perhaps. Central, which may
    /// not be there any more, has said all that is needed.
    ///
    /// # Errors
    /// To be tried again.
    pub async fn resume_wipe(&self) -> Result<(), NoticeFault> {
        match self.notice()? {
            Some(Notice { standing: NoticedStanding::Quarantined { wipe: true }, generation, .. }) => {
                self.wipe(generation).await
            }
            _ => Ok(()),
        }
    }

    async fn wipe(&self, order: StandingGeneration) -> Result<(), NoticeFault> {
        if self.boot.wiped()? < order {
            self.seal.wipe(order).await?;
            tracing::warn!(generation = %order, "wiped by order of central");
        }
        Ok(())
    }

    /// Seals and forgets every key that came from central.
    pub async fn shut(&self, by: &str) {
        self.seal.seal(by).await;
        self.ladder.forget_gathered().await;
        self.replica.forget_keys();
        self.reads.forget();
    }

    /// Shuts this host for somebody who stands before it: until central opens it, or a key that is carried to it, nothing does,
    /// over a loss of power too.
    pub async fn shut_by_operator(&self, name: &str) {
        self.status.change(|standing| standing.sealed_by_operator = true);
        // What can't be remembered holds while the agent runs.
        if let Err(error) = self.boot.put_operators_seal(true).await {
            tracing::error!(%error, "that an operator has sealed this host could not be remembered");
        }
        self.shut(name).await;
        tracing::info!("sealed by an operator");
    }

    /// This host was opened by central, or by a carried key.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn opened(&self) -> Result<(), Fault> {
        self.ladder.forget_gathered().await;
        self.status.change(|standing| standing.sealed_by_operator = false);
        if self.boot.is_operators_seal()? { self.boot.put_operators_seal(false).await } else { Ok(()) }
    }

    /// Takes what a passing verdict brings: time, head, lease.
    ///
    /// # Errors
    /// Something in it can't be; the session must end.
    pub async fn passed(&self, verdict: &VerdictNotice) -> Result<(), VerdictFault> {
        self.clock.set(verdict.time_us);
        let now = self.clock.now();
        let offered = self.trust.head(&verdict.head, now.wall_s())?;
        let lease = match &verdict.lease {
            Some(signed) => Some(self.trust.lease(signed, now.wall_s())?),
            None => None,
        };
        let mut contact = self.contact();
        let held = contact.head.as_ref().and_then(|head| self.trust.remembered_head(head));
        match order_heads(held.as_ref(), &offered) {
            HeadOrder::Newer => contact.head = Some(verdict.head.clone()),
            HeadOrder::Same => {}
            HeadOrder::Lower => return Err(VerdictFault::LowerHead),
        }
        contact.time_us = verdict.time_us;
        if verdict.lease.is_some() {
            contact.lease.clone_from(&verdict.lease);
        }
        self.keep(contact).await?;
        if let Some(lease) = lease {
            self.leases.renew(lease);
        }
        Ok(())
    }

    /// Takes a head that comes ahead of something newer than the last verdict. One that is not newer than what a verdict
    /// has brought since it was signed says nothing new.
    ///
    /// # Errors
    /// It is not central's, or can't be kept; the session must end.
    pub async fn saw_head(&self, signed: &Signed) -> Result<(), VerdictFault> {
        let offered = self.trust.head(signed, self.clock.now().wall_s())?;
        let mut contact = self.contact();
        let held = contact.head.as_ref().and_then(|head| self.trust.remembered_head(head));
        if order_heads(held.as_ref(), &offered) == HeadOrder::Newer {
            contact.head = Some(signed.clone());
            self.keep(contact).await?;
        }
        Ok(())
    }

    /// Takes a bundle; see [`Replica::take`].
    ///
    /// # Errors
    /// The store's fault.
    pub async fn take_bundle(&self, bytes: &[u8]) -> Result<Option<FromHost>, Refusal> {
        let head = self.contact().head.as_ref().and_then(|head| self.trust.remembered_head(head));
        self.replica.take(bytes, head.as_ref()).await
    }

    async fn keep(&self, contact: Contact) -> Result<(), VerdictFault> {
        self.boot.put_contact(&contact).await?;
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = contact;
        Ok(())
    }

    /// What the last verdict brought.
    pub fn contact(&self) -> Contact {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
pub(crate) mod tests;
