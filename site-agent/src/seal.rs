//! The seal of a host: two halves open its store, the site's seal key, which central releases after a passed appraisal,
//! and the host secret, which only this TPM gives out and a wipe destroys.
//!
//! Nothing here decides whether a key may be had; it says what becomes of the store with one, and without.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use holdfast_actors::audit_log::Line;
use holdfast_actors::barrier::Barrier;
use holdfast_actors::keyring::{Keyring, RealmKeys};
use holdfast_actors::ports::{Clock, draw, draw_secret};
use holdfast_actors::rows::{Batch, Refusal};
use holdfast_actors::seal_keeper::ladder::NoLadder;
use holdfast_actors::seal_keeper::wrap::{HostBoot, HostKeys};
use holdfast_actors::store::Fault;
use holdfast_protocol::ids::{DeploymentId, HostId, Realm, SealEpoch, StandingGeneration};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::Counters;
use holdfast_protocol::wire::SealKey;
use tokio::sync::{Mutex, watch};

use crate::boot::Boot;
use crate::chip::SecretChip;
use crate::lease::{Leases, Reading};
use crate::state::{StateError, StateFile};
use crate::tpm::TpmError;
use crate::unseal::{GivenLine, LadderLine};

/// Seal keys that are kept for siblings: the current one and a few before it.
const KEYS_KEPT_MAX: usize = 4;

/// Why the seal was not moved. The store is as it was, or begins anew at the next release.
#[derive(Debug, thiserror::Error)]
pub enum SealFault {
    /// The TPM can't be asked now.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Fault),
    /// The state file failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Something was said against it meanwhile.
    #[error(transparent)]
    NoLadder(#[from] NoLadder),
}

/// Whether this host may be opened without central, as things are now.
pub type MayOpen<'a> = &'a (dyn Fn() -> Result<Result<SealEpoch, NoLadder>, Fault> + Sync);

/// What a release made of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It was open already.
    Already,
    /// It was opened as it is.
    Unsealed,
    /// There was none, or none that could be opened: it begins empty.
    Begun,
}

/// What the seal is made of.
pub struct SealParts {
    /// The store.
    pub barrier: Barrier,
    /// Where the host secret's blob is kept.
    pub file: StateFile,
    /// The TPM.
    pub chip: Arc<dyn SecretChip>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Leases, which count from the moment of unsealing.
    pub leases: Arc<Leases>,
}

/// The seal.
pub struct HostSeal {
    parts: SealParts,
    boot: Boot,
    deployment: DeploymentId,
    host: HostId,
    /// Whoever moves the seal holds this.
    turn: Mutex<()>,
    sealed: watch::Sender<bool>,
    /// The seal keys that this host was given since it was opened, the newest last: a sibling may need one.
    keys: StdMutex<Vec<SealKey>>,
}

impl HostSeal {
    /// The seal of a store that is closed.
    pub fn new(parts: SealParts) -> Self {
        let state = parts.file.get();
        let boot = Boot::new(parts.barrier.clone());
        let (deployment, host) = (state.deployment, state.host.clone());
        let sealed = watch::Sender::new(true);
        Self { parts, boot, deployment, host, turn: Mutex::new(()), sealed, keys: StdMutex::default() }
    }

    /// Tells of every change: `true` is sealed.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.sealed.subscribe()
    }

    /// Whether it is sealed now.
    pub fn is_sealed(&self) -> bool {
        self.parts.barrier.is_sealed()
    }

    /// The epoch that the store is wrapped with; `None` without a store.
    ///
    /// # Errors
    /// The store's fault.
    pub fn epoch(&self) -> Result<Option<SealEpoch>, Fault> {
        Ok(self.boot.root()?.map(|boot| boot.seal_epoch))
    }

    /// Takes released keys: opens the store with whichever fits and wraps it with the current one from then on. A store
    /// that none of them opens is lost; a new one begins, to be filled by full copies.
    ///
    /// # Errors
    /// To be tried again with the next release.
    pub async fn open(&self, held: Option<&SealKey>, current: &SealKey) -> Result<Opened, SealFault> {
        let _turn = self.turn.lock().await;
        if !self.is_sealed() {
            self.wrap_with(current).await?;
            self.keep([current]);
            return Ok(Opened::Already);
        }
        let opened = match self.unwrap(held, current).await? {
            Some(root) => {
                let ring = Keyring::new(self.deployment, root);
                self.parts.barrier.unseal(ring);
                Opened::Unsealed
            }
            None => {
                self.begin(current).await?;
                Opened::Begun
            }
        };
        if let Err(fault) = self.opened(current, "central").await {
            self.parts.barrier.seal_and_erase().await;
            return Err(fault);
        }
        self.keep(held.into_iter().chain([current]));
        self.sealed.send_replace(false);
        Ok(opened)
    }

    /// Opens the store as it is with the key that it is wrapped with, which did not come from central; says whether it
    /// fits. `by` is for the audit log. Getting the key took its time: `may` is asked once more, when nobody can seal any
    /// more without closing what is opened here.
    ///
    /// # Errors
    /// It could not be tried, or may not be any more.
    pub async fn open_held(&self, key: &SealKey, by: &str, may: MayOpen<'_>) -> Result<bool, SealFault> {
        let _turn = self.turn.lock().await;
        if !self.is_sealed() {
            return Ok(true);
        }
        may()??;
        let Some(root) = self.unwrap(None, key).await? else { return Ok(false) };
        self.parts.barrier.unseal(Keyring::new(self.deployment, root));
        if let Err(fault) = self.opened(key, by).await {
            self.parts.barrier.seal_and_erase().await;
            return Err(fault);
        }
        self.keep([key]);
        self.sealed.send_replace(false);
        Ok(true)
    }

    /// The TPM's clock and counters.
    ///
    /// # Errors
    /// The TPM did not say.
    pub async fn counters(&self) -> Result<Counters, TpmError> {
        self.parts.chip.counters().await
    }

    /// The seal key of that epoch, if this host has it and is open.
    pub fn key_of(&self, epoch: SealEpoch) -> Option<SealKey> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let held = keys.iter().find(|key| key.epoch == epoch)?;
        Some(SealKey { epoch, key: held.key.duplicate() })
    }

    /// The epochs whose keys it has.
    pub fn epochs_held(&self) -> Vec<SealEpoch> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|key| key.epoch).collect()
    }

    fn keep<'k>(&self, given: impl IntoIterator<Item = &'k SealKey>) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for key in given {
            if keys.iter().all(|held| held.epoch != key.epoch) {
                keys.push(SealKey { epoch: key.epoch, key: key.key.duplicate() });
            }
        }
        keys.sort_by_key(|key| key.epoch);
        let surplus = keys.len().saturating_sub(KEYS_KEPT_MAX);
        keys.drain(..surplus);
    }

    async fn erase(&self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.parts.barrier.seal_and_erase().await;
    }

    async fn opened(&self, current: &SealKey, by: &str) -> Result<(), SealFault> {
        self.wrap_with(current).await?;
        let counters = self.parts.chip.counters().await?;
        self.parts.leases.read(Reading { counters, mono: self.parts.clock.now().mono });
        self.note("host.unsealed", by).await
    }

    /// Wraps with a newer key; does nothing if it is wrapped with that one already. Says whether it did.
    ///
    /// # Errors
    /// To be tried again; the old wrapping holds.
    pub async fn rewrap(&self, current: &SealKey) -> Result<bool, SealFault> {
        let _turn = self.turn.lock().await;
        let wrapped = self.wrap_with(current).await?;
        self.keep([current]);
        Ok(wrapped)
    }

    /// Closes the store; returns when the keys are erased. `by` is for the audit log.
    pub async fn seal(&self, by: &str) {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                // Whoever has the turn may wait for a TPM that does not answer. Reads end now; what the other opens in
                // the end is closed again.
                self.erase().await;
                self.sealed.send_replace(true);
                self.turn.lock().await
            }
        };
        self.close(by).await;
    }

    async fn close(&self, by: &str) {
        if self.is_sealed() {
            return;
        }
        if let Err(error) = self.note("host.sealed", by).await {
            tracing::warn!(%error, "sealing goes on without its audit line");
        }
        self.erase().await;
        self.sealed.send_replace(true);
    }

    /// Destroys what opens the store, and the store, so that no copy of either opens again. May be repeated. A step that
    /// fails, for want of a TPM perhaps, keeps none of the others from being done.
    ///
    /// # Errors
    /// To be tried again: it does not count as carried out.
    pub async fn wipe(&self, order: StandingGeneration) -> Result<(), SealFault> {
        let _turn = self.turn.lock().await;
        self.close("central").await;
        let destroyed = self.parts.chip.destroy().await;
        let unwrapped = self.boot.put_root(None).await;
        let forgotten = self.parts.file.update(|state| state.host_secret = None);
        let unremembered = self.boot.forget_remote_key().await;
        let erased = self.parts.barrier.erase_content().await;
        destroyed?;
        unwrapped?;
        forgotten?;
        unremembered?;
        erased?;
        self.boot.put_wiped(order).await?;
        Ok(())
    }

    /// The root key; `None` if nothing that is here opens it.
    async fn unwrap(&self, held: Option<&SealKey>, current: &SealKey) -> Result<Option<Secret<32>>, SealFault> {
        let Some(boot) = self.boot.root()? else { return Ok(None) };
        let Some(key) = held.into_iter().chain([current]).find(|key| key.epoch == boot.seal_epoch) else {
            return Ok(None);
        };
        let Some(host_secret) = self.host_secret().await? else { return Ok(None) };
        Ok(boot.unwrap(HostKeys { host_secret: &host_secret, site_seal_key: &key.key }).ok())
    }

    /// The host secret; `None` if it is gone for good.
    async fn host_secret(&self) -> Result<Option<Secret<32>>, TpmError> {
        let Some(blob) = self.parts.file.get().host_secret.clone() else { return Ok(None) };
        match self.parts.chip.open(&blob).await {
            Ok(secret) => Ok(Some(secret)),
            Err(TpmError::Destroyed | TpmError::NotOurs | TpmError::Malformed(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn begin(&self, current: &SealKey) -> Result<(), SealFault> {
        let entropy = &**self.parts.barrier.entropy();
        // What was there opens no more. It goes before anything new is written, so that a crash in between leaves
        // nothing that looks like a store.
        self.boot.put_root(None).await?;
        self.parts.barrier.erase_content().await?;
        let (host_secret, root) = (draw_secret(entropy), draw_secret(entropy));
        let blob = self.parts.chip.create(&host_secret).await?;
        self.parts.file.update(|state| state.host_secret = Some(blob))?;
        let boot = self.wrapped(&root, &host_secret, current);
        let ring = Keyring::new(self.deployment, root);
        let keys = self.parts.barrier.first_realm(&ring, RealmKeys::new(draw_secret(entropy), draw_secret(entropy)));
        self.parts.barrier.begin(keys, vec![Boot::root_row(&boot)]).await?;
        self.parts.barrier.unseal(ring);
        Ok(())
    }

    /// For an open store: its root key is at hand, so no older seal key is needed.
    async fn wrap_with(&self, current: &SealKey) -> Result<bool, SealFault> {
        let wrapped_with = self.epoch()?;
        if wrapped_with.is_some_and(|epoch| current.epoch <= epoch) {
            return Ok(false);
        }
        let root = self.parts.barrier.ring()?.root();
        let host_secret = self.host_secret().await?.ok_or(TpmError::Destroyed)?;
        self.boot.put_root(Some(&self.wrapped(&root, &host_secret, current))).await?;
        Ok(true)
    }

    fn wrapped(&self, root: &Secret<32>, host_secret: &Secret<32>, current: &SealKey) -> HostBoot {
        let keys = HostKeys { host_secret, site_seal_key: &current.key };
        let nonce = draw(&**self.parts.barrier.entropy());
        HostBoot::wrap(root, keys, self.deployment, self.host.clone(), current.epoch, nonce)
    }

    /// Writes down that a share was given away: into the audit log, or where that is told once this host is open.
    ///
    /// # Errors
    /// It could not be written down: it is not to be given.
    pub async fn note_given(&self, given: GivenLine) -> Result<(), SealFault> {
        // While it is held nobody opens the store and takes what is remembered into the log.
        let _turn = self.turn.lock().await;
        let line = given.line();
        let barrier = &self.parts.barrier;
        match barrier.run(move |_| Ok((Batch::new(Realm::NODE, line.clone()).from_reserve(), ()))).await {
            Ok(_) => return Ok(()),
            Err(Refusal::Sealed) => {}
            Err(refusal) => return Err(refusal.into()),
        }
        // Damage keeps nobody out: it goes with the next opening, as below.
        let mut lines = self.boot.given_lines().unwrap_or_default();
        given.join(&mut lines);
        Ok(self.boot.put_given_lines(&lines).await?)
    }

    async fn note(&self, action: &'static str, by: &str) -> Result<(), SealFault> {
        let line = Line::done(self.parts.clock.now().wall_us, by, action, self.host.to_string());
        // What was remembered may be damaged: that keeps nobody from opening the store, and goes with the rest.
        let (failed, given) = (self.boot.ladder_lines(), self.boot.given_lines());
        let had_lines = failed.as_ref().map_or(true, |lines| !lines.is_empty())
            || given.as_ref().map_or(true, |lines| !lines.is_empty());
        let (failed, given) = (failed.unwrap_or_default(), given.unwrap_or_default());
        let host = self.host.to_string();
        // A full disk keeps nobody from sealing, nor from unsealing what is there to be read.
        let batch = move || {
            let mut batch = Batch::new(Realm::NODE, line.clone()).from_reserve();
            for LadderLine { at_us, rung, by, why } in &failed {
                let action = "host.unseal";
                batch.audit(Realm::NODE, Line::refused(*at_us, by, action, &host, format!("by {rung}: {why}")));
            }
            given.iter().for_each(|given| batch.audit(Realm::NODE, given.line()));
            if had_lines {
                Boot::told(&mut batch);
            }
            batch
        };
        self.parts.barrier.run(move |_| Ok((batch(), ()))).await?;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
