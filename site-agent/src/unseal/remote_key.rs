//! The rung of an operator: a seal key that central has encrypted to this host's TPM, carried here by hand.
//!
//! Three failures an hour for each class of caller, counted durably before anything is judged. What is no remote seal
//! key at all is none of them, and neither is a try that could not be judged.

use holdfast_actors::ports::Clock;
use holdfast_actors::seal_keeper::ladder::{NoLadder, RemoteCase, RemoteRefusal, Rung, check_remote};
use holdfast_actors::seal_keeper::{Attempts, Class};
use holdfast_actors::store::Fault;
use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::ids::SealEpoch;
use holdfast_protocol::tpm::remote::RemoteError;
use holdfast_protocol::tpm::{Public, remote};
use holdfast_protocol::wire::{RemoteSealKey, RemoteSealKeys, SealKey};

use crate::local::Local;
use crate::seal::SealFault;
use crate::tpm::{Leave, TpmError};
use crate::uplink::dialogue::Quoter;

/// Why a carried key did not open this host.
#[derive(Debug, thiserror::Error)]
pub enum RemoteFault {
    /// Central decides.
    #[error("this host is connected with central, which decides")]
    Connected,
    /// No key would.
    #[error(transparent)]
    NoLadder(#[from] NoLadder),
    /// Too many failures of this class of caller.
    #[error("too many attempts, try again in {retry_after_s} s")]
    TooManyAttempts {
        /// Seconds until the next try counts.
        retry_after_s: u64,
    },
    /// Nobody of central signed one for this host.
    #[error("there is none in it for this host that central has signed")]
    NoneForUs,
    /// Signed, but not for here and now.
    #[error(transparent)]
    Refused(#[from] RemoteRefusal),
    /// This host has no remote key, or another by now.
    #[error("it was made for a remote key that this host does not have")]
    OtherKey,
    /// The TPM did not.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// What came out of it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The root key is under another.
    #[error("the seal key in it does not open this host")]
    WrongKey,
    /// The store could not be opened.
    #[error(transparent)]
    Seal(#[from] SealFault),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Fault),
}

impl RemoteFault {
    /// Whether the key was judged and found wanting.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::NoneForUs | Self::Refused(_) | Self::OtherKey | Self::Remote(_) | Self::WrongKey => true,
            Self::Tpm(error) => !matches!(error, TpmError::Unavailable(_) | TpmError::Stopped),
            Self::Connected | Self::NoLadder(_) | Self::TooManyAttempts { .. } | Self::Seal(_) | Self::Store(_) => {
                false
            }
        }
    }
}

impl Local {
    /// Opens this host with a carried key.
    ///
    /// # Errors
    /// It stays sealed, and why.
    pub async fn unseal_remote(
        &self,
        class: Class,
        carried: &RemoteSealKeys,
        quoter: &dyn Quoter,
    ) -> Result<(), RemoteFault> {
        let _turn = self.ladder.turn.lock().await;
        if !self.seal.is_sealed() {
            return Ok(());
        }
        let outcome = self.counted(class, carried, quoter).await;
        let told = match &outcome {
            Ok(()) => Ok(format!("by a remote seal key, caller {}", class.as_str())),
            Err(fault) => Err(fault.to_string()),
        };
        self.attempted(Rung::RemoteSealkey, class.as_str(), told).await;
        outcome
    }

    async fn counted(&self, class: Class, carried: &RemoteSealKeys, quoter: &dyn Quoter) -> Result<(), RemoteFault> {
        if self.status.get().connected {
            return Err(RemoteFault::Connected);
        }
        let epoch = self.may_climb()??;
        let now = self.clock.now();
        let mut attempts: Attempts = self.boot.attempts()?;
        attempts.admit(class, now).map_err(|retry_after_s| RemoteFault::TooManyAttempts { retry_after_s })?;
        attempts.count(class, now);
        self.boot.put_attempts(&attempts).await?;
        let outcome = self.opened_by(class, epoch, carried, quoter).await;
        if outcome.as_ref().err().is_none_or(|fault| !fault.is_failure()) {
            attempts.uncount(class);
            self.boot.put_attempts(&attempts).await?;
        }
        outcome
    }

    async fn opened_by(
        &self,
        class: Class,
        epoch: SealEpoch,
        carried: &RemoteSealKeys,
        quoter: &dyn Quoter,
    ) -> Result<(), RemoteFault> {
        let host = self.id();
        let signed = carried.0.iter().filter_map(|signed| self.trust.remote_sealkey(signed));
        let ours = signed.into_iter().find(|remote| remote.terms.host == host).ok_or(RemoteFault::NoneForUs)?;
        let mut open = self.ladder.challenge.lock().await;
        let nonce = open.as_ref().map(|challenge| challenge.nonce);
        let reset_count = self.seal.counters().await?.reset_count;
        let deployment = self.file.get().deployment;
        let case = RemoteCase { deployment, host: &host, epoch, reset_count, challenge: nonce.as_ref() };
        check_remote(&ours.terms, &case)?;
        let key = self.key_in(&ours, epoch, quoter).await?;
        // Used up, whatever comes of it.
        *open = None;
        let by = format!("remote seal key, caller {}", class.as_str());
        if !self.seal.open_held(&key, &by, &|| self.may_climb()).await? {
            return Err(RemoteFault::WrongKey);
        }
        Ok(self.opened().await?)
    }

    async fn key_in(
        &self,
        ours: &RemoteSealKey,
        epoch: SealEpoch,
        quoter: &dyn Quoter,
    ) -> Result<SealKey, RemoteFault> {
        let stored = self.boot.remote_key()?.ok_or(RemoteFault::OtherKey)?;
        let authority = PublicKey::from_sec1(&stored.authority).ok_or(RemoteFault::OtherKey)?;
        let peer = PublicKey::from_sec1(&ours.ephemeral).ok_or(RemoteFault::OtherKey)?;
        let own = Public::parse(&stored.key.public).map_err(|_| RemoteFault::OtherKey)?;
        let reference = stored.reference(ours.terms.deployment, &ours.terms.host);
        let leave = Leave { authority, reference, pcrs: ours.pcrs.clone(), approved: ours.approved.clone() };
        let agreed = quoter.agree(&stored.key, &leave, &peer).await?;
        Ok(remote::open(ours, &agreed, &own, epoch)?)
    }
}
