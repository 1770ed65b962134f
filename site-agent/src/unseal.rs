//! Starting without central: what a host remembers for it, how it prepares for it while central is there, and the rungs
//! that lead to its seal key. The rules are [`holdfast_actors::seal_keeper::ladder`]'s.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_actors::ports::{Clock, draw};
use holdfast_actors::seal_keeper::ladder::{NoLadder, Rung, may_climb};
use holdfast_actors::seal_keeper::local::Gathered;
use holdfast_actors::store::Fault;
use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::ids::{DeploymentId, HostGeneration, HostId, SealEpoch};
use holdfast_protocol::tpm::binding::challenge_data;
use holdfast_protocol::tpm::{policy, remote};
use holdfast_protocol::wire::{LocalShare, RemoteKeyProof, Signed, UnsealChallenge, UnsealPermit, UnsealReport};
use serde::{Deserialize, Serialize};

use crate::local::Local;
use crate::tpm::{SealedBlob, TpmError};
use crate::trust::TrustError;
use crate::uplink::dialogue::Quoter;

pub mod asked;
pub mod climb;
pub mod doors;
pub mod gather;
pub mod peer;
pub mod rehearsal;
pub mod remote_key;
pub mod shares;

pub use remote_key::RemoteFault;
pub use shares::{GivenLine, ShareFault};

/// Failed attempts that are remembered for the audit log until the store is open.
pub const LINES_MAX: usize = 16;

/// The remote key, and which approvals its policy names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteKey {
    /// Point of the approving key.
    pub authority: Vec<u8>,
    /// The key, wrapped by the TPM.
    pub key: SealedBlob,
    /// The identity of the host that they are for.
    pub generation: HostGeneration,
    /// Since when they are given, microseconds since the Unix epoch.
    pub approved_since_us: i64,
}

impl RemoteKey {
    /// Whether what central approves now lets it be used.
    fn is_of(&self, permit: &UnsealPermit) -> bool {
        (&self.authority, self.generation, self.approved_since_us)
            == (&permit.authority, permit.generation, permit.approved_since_us)
    }

    /// What approvals for it name.
    pub fn reference(&self, deployment: DeploymentId, host: &HostId) -> [u8; 32] {
        policy::reference(deployment, host, self.generation, self.approved_since_us)
    }
}

/// An attempt that failed before there was a log to write it to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LadderLine {
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
    /// By which rung.
    pub rung: Rung,
    /// Who tried.
    pub by: String,
    /// In plain words.
    pub why: String,
}

/// The last attempt of a rung, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
    /// Whether it opened this host.
    pub opened: bool,
    /// Why not, or by whom.
    pub words: String,
}

/// What the rungs share while the agent runs.
#[derive(Default)]
pub struct Ladder {
    attempts: Mutex<BTreeMap<Rung, Attempted>>,
    /// The one challenge that is open: it is shown to everybody who asks, so nobody can make the TPM work, nor take
    /// away the challenge that an operator is about to answer.
    challenge: tokio::sync::Mutex<Option<UnsealChallenge>>,
    /// Whoever tries a carried key holds this: attempts are counted one by one.
    turn: tokio::sync::Mutex<()>,
    /// Shares of other hosts that are in hand while more are asked for.
    gathered: tokio::sync::Mutex<Option<Gathered>>,
    permit: Believed<Signed, UnsealPermit>,
    shares: Believed<Vec<Signed>, Vec<LocalShare>>,
    listening: Mutex<Option<SocketAddr>>,
    address: Mutex<Option<String>>,
}

impl Ladder {
    /// The last attempt of each rung that was tried.
    pub fn attempts(&self) -> BTreeMap<Rung, Attempted> {
        lock(&self.attempts).clone()
    }

    /// Where this host answers siblings.
    pub fn listening(&self, at: SocketAddr) {
        *lock(&self.listening) = Some(at);
    }

    /// Siblings reach this host where it listens, or, if that is everywhere, at the address that leads to central.
    pub fn reached_by(&self, local: Option<IpAddr>) {
        let at = *lock(&self.listening);
        let reached = at.and_then(|at| match at.ip().is_unspecified() {
            false => Some(at),
            true => local.filter(|local| !local.is_unspecified()).map(|local| (local.to_canonical(), at.port()).into()),
        });
        *lock(&self.address) = reached.map(|at: SocketAddr| at.to_string());
    }

    /// Shares of other hosts are in hand no longer than they are of use.
    pub async fn forget_gathered(&self) {
        self.gathered.lock().await.take();
    }

    fn address(&self) -> Option<String> {
        lock(&self.address).clone()
    }

    fn note(&self, rung: Rung, attempted: Attempted) -> bool {
        let before = lock(&self.attempts).insert(rung, attempted.clone());
        before.is_none_or(|before| (before.opened, before.words) != (attempted.opened, attempted.words))
    }
}

/// What stored words were found to say. To believe them again would cost signatures, and anybody may ask for the status.
struct Believed<W, T>(Mutex<Option<(W, T)>>);

impl<W, T> Default for Believed<W, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<W: PartialEq, T: Clone> Believed<W, T> {
    fn of(&self, stored: W, believe: impl FnOnce(&W) -> Option<T>) -> Option<T> {
        let mut known = lock(&self.0);
        if let Some((_, found)) = known.as_ref().filter(|(words, _)| *words == stored) {
            return Some(found.clone());
        }
        let found = believe(&stored)?;
        *known = Some((stored, found.clone()));
        Some(found)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// There is no challenge to give.
#[derive(Debug, thiserror::Error)]
pub enum NoChallenge {
    /// It is open.
    #[error("this host is unsealed")]
    Unsealed,
    /// No key would open it.
    #[error(transparent)]
    NoLadder(#[from] NoLadder),
    /// Central has not said what is to be quoted.
    #[error("this host was never given an unseal permit; it is at its next connection with central")]
    NoPermit,
    /// The TPM did not.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Fault),
}

/// A permit or a notice of a sibling was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LeaveFault {
    /// It is not to be believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Fault),
}

impl Local {
    /// This host's own permit.
    ///
    /// # Errors
    /// The store's fault.
    pub fn permit(&self) -> Result<Option<UnsealPermit>, Fault> {
        let Some(stored) = self.boot.permit()? else { return Ok(None) };
        let permit = self.ladder.permit.of(stored, |stored| self.trust.remembered_permit(stored));
        Ok(permit.filter(|permit| permit.host == self.id()))
    }

    /// The epoch whose key would open this host without central.
    ///
    /// # Errors
    /// Why no rung is tried, or the store's fault.
    pub fn may_climb(&self) -> Result<Result<SealEpoch, NoLadder>, Fault> {
        let standing = self.notice()?.map(|notice| notice.standing);
        Ok(may_climb(standing, self.seal.epoch()?))
    }

    /// The same for a host that climbs by itself, which none does that an operator has sealed.
    ///
    /// # Errors
    /// Why no rung is tried, or the store's fault.
    pub fn may_climb_alone(&self) -> Result<Result<SealEpoch, NoLadder>, Fault> {
        if self.status.get().sealed_by_operator {
            return Ok(Err(NoLadder::SealedByOperator));
        }
        self.may_climb()
    }

    /// Takes a permit; says what central does not know yet.
    ///
    /// # Errors
    /// It is not to be believed, or the store's fault.
    pub async fn permitted(&self, signed: &Signed, quoter: &dyn Quoter) -> Result<Option<UnsealReport>, LeaveFault> {
        let permit = self.trust.permit(signed, self.clock.now().wall_s())?;
        self.boot.put_permit(signed, permit.local_unseal).await?;
        if !permit.local_unseal {
            self.ladder.forget_gathered().await;
        }
        let remote_key = match self.remote_key_for(&permit, quoter).await {
            Ok(proof) => proof,
            Err(error) => {
                // A host without one can still be opened by central and by siblings.
                tracing::warn!(%error, "no remote key could be made");
                None
            }
        };
        let address = self.ladder.address().filter(|own| permit.address.as_ref() != Some(own));
        let report = UnsealReport { remote_key, address };
        Ok((report.remote_key.is_some() || report.address.is_some()).then_some(report))
    }

    /// The proof of the remote key, if central does not know it.
    async fn remote_key_for(
        &self,
        permit: &UnsealPermit,
        quoter: &dyn Quoter,
    ) -> Result<Option<RemoteKeyProof>, Box<dyn std::error::Error + Send + Sync>> {
        let stored = self.boot.remote_key()?.filter(|stored| stored.is_of(permit));
        let key = match stored {
            Some(stored) => stored.key,
            None => {
                let authority = PublicKey::from_sec1(&permit.authority).ok_or("the approving key is none")?;
                let (generation, approved_since_us) = (permit.generation, permit.approved_since_us);
                let reference = policy::reference(permit.deployment, &permit.host, generation, approved_since_us);
                let key = quoter.create_remote_key(policy::authorize_digest(&authority, &reference)?).await?;
                let authority = permit.authority.clone();
                let remote = RemoteKey { authority, key: key.clone(), generation, approved_since_us };
                self.boot.put_remote_key(&remote).await?;
                key
            }
        };
        if permit.remote_key == Some(sha256(&[&key.public])) {
            return Ok(None);
        }
        let data = remote::certify_data(permit.deployment, &permit.host, permit.generation, &key.public);
        let (attest, signature) = quoter.certify_remote_key(&self.file.get().ak, &key, data).await?;
        Ok(Some(RemoteKeyProof { public: key.public, attest, signature }))
    }

    /// Remembers what central holds against a sibling, or no more.
    ///
    /// # Errors
    /// It is not to be believed, or the store's fault.
    pub async fn sibling_noticed(&self, signed: &Signed) -> Result<(), LeaveFault> {
        let notice = self.trust.sibling_notice(signed)?;
        let Some(name) = &notice.host else { return Ok(()) };
        let held = self.boot.sibling_notice(name)?;
        let held = held.as_ref().and_then(|held| self.trust.sibling_notice(held).ok());
        if held.is_none_or(|held| held.generation <= notice.generation && held != notice) {
            tracing::info!(sibling = %name, standing = ?notice.standing, "central's notice about a sibling");
            self.boot.put_sibling_notice(name, signed).await?;
        }
        Ok(())
    }

    /// The challenge that a remote seal key for this very boot answers.
    ///
    /// # Errors
    /// There is none to give.
    pub async fn unseal_challenge(&self, quoter: &dyn Quoter) -> Result<UnsealChallenge, NoChallenge> {
        let mut open = self.ladder.challenge.lock().await;
        if !self.seal.is_sealed() {
            return Err(NoChallenge::Unsealed);
        }
        let seal_epoch = self.may_climb()??;
        if let Some(challenge) = &*open
            && challenge.seal_epoch == seal_epoch
        {
            return Ok(challenge.clone());
        }
        let permit = self.permit()?.ok_or(NoChallenge::NoPermit)?;
        let nonce = draw(&*self.entropy);
        let (host, generation) = (permit.host, permit.generation);
        let qualifying = challenge_data(permit.deployment, &host, generation, &nonce, seal_epoch);
        let evidence = quoter.quote(&self.file.get().ak, qualifying, &permit.pcrs).await?;
        let (attest, signature, pcrs) = (evidence.attest, evidence.signature, evidence.pcrs);
        let challenge = UnsealChallenge { host, generation, nonce, seal_epoch, attest, signature, pcrs };
        *open = Some(challenge.clone());
        Ok(challenge)
    }

    /// Shows and logs how an attempt ended; one that failed is remembered for the audit log too.
    pub(crate) async fn attempted(&self, rung: Rung, by: &str, outcome: Result<String, String>) {
        let at_us = self.clock.now().wall_us;
        let opened = outcome.is_ok();
        let words = outcome.unwrap_or_else(|why| why);
        let is_news = self.ladder.note(rung, Attempted { at_us, opened, words: words.clone() });
        if opened {
            tracing::info!(%rung, by, "unsealed without central: {words}");
        } else if is_news || rung == Rung::RemoteSealkey {
            tracing::warn!(%rung, by, "not unsealed: {words}");
            let line = LadderLine { at_us, rung, by: by.to_owned(), why: words };
            if let Err(error) = self.boot.add_ladder_line(line).await {
                tracing::error!(%error, "a failed attempt can't be remembered for the audit log");
            }
        }
    }
}
