//! The TPM: one thread owns it, everybody else asks that thread.
//!
//! Calls into the TPM libraries block for milliseconds on a software TPM and up to seconds on a chip, so they stay off
//! the runtime's threads. Each job opens its own connection and closes it: other programs reach the TPM in between,
//! and closing flushes every object and session that a job loaded, also after an error. At most two objects are
//! loaded at once, of the three slots that every TPM has.
//!
//! The libraries write to stderr whatever the TPM refuses. Whoever starts the agent sets `TSS2_LOG=all+none`; refusals
//! that belong to normal operation are found out beforehand, by asking what exists.
//!
//! They also open their sockets and devices without close-on-exec: a program started while a job runs inherits the
//! connection, and holds up a software TPM for as long as it lives. The agent starts no programs.

mod chip;
mod keys;
mod quote;
mod raw;
mod remote;
mod seal;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_actors::shell::{Bounded, Load};
use holdfast_protocol::crypto::sign::PublicKey;
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_protocol::tpm::{Counters, Credential, Evidence};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use chip::Chip;
pub use raw::Address;
pub use remote::Leave;

/// Jobs that may wait; more callers wait in front of the mailbox.
const MAILBOX: usize = 16;

/// How long the end of the process waits for the job that is under way.
const HALT_LIMIT: Duration = Duration::from_secs(1);

/// Longest wait for a job, those before it included. A slow chip derives an RSA key in half of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// Most bytes that fit into one TPM-sealed object (`MAX_SYM_DATA` of the TPM 2.0 Library, part 2, section 11.1.14).
pub const SEALED_BYTES_MAX: usize = 128;

/// Where the TPM is and what in it is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmConfig {
    /// The device or the software TPM.
    pub address: Address,
    /// The NV index that holds the authorisation value of the host secret; one for each agent that shares a TPM.
    pub host_secret_index: u32,
}

impl TpmConfig {
    /// An index from the range that TPM 2.0 leaves to the owner (0x01800000 to 0x01bfffff).
    pub const HOST_SECRET_INDEX: u32 = 0x0180_4846;
}

/// Which of a TPM's endorsement keys speaks for it. Chosen once, at enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EkKind {
    /// RSA-2048 (TCG EK Credential Profile, template L-1).
    Rsa2048,
    /// ECC NIST P-256 (template L-2).
    P256,
}

/// Who this TPM is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The kind of `ek_public`.
    pub ek_kind: EkKind,
    /// The endorsement key: a `TPMT_PUBLIC`, without size prefix.
    pub ek_public: Vec<u8>,
    /// The maker's certificate for it, DER; not every TPM carries one.
    pub ek_certificate: Option<Vec<u8>>,
}

/// An attestation key, wrapped by the TPM: useless elsewhere, and not secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AkBlob {
    /// The endorsement key above it.
    pub ek_kind: EkKind,
    /// `TPMT_PUBLIC`: what a verifier is given.
    pub public: Vec<u8>,
    /// The contents of the `TPM2B_PRIVATE`.
    pub private: Vec<u8>,
}

/// Data that only this TPM opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedBlob {
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// The contents of the `TPM2B_PRIVATE`.
    pub private: Vec<u8>,
}

/// An attestation (`TPMS_ATTEST`) and the signature over it (`TPMT_SIGNATURE`).
pub type Vouched = (Vec<u8>, Vec<u8>);

/// The TPM's own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmClock {
    /// Clock, and the counters that tell whether it ran through.
    pub counters: Counters,
    /// False while the clock may be behind a value that was shown before a loss of power.
    pub safe: bool,
}

/// Why the TPM did not do it. Says nothing about what was sealed or activated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// The configuration is not an address.
    #[error("a TPM is `device:PATH` or `swtpm:host=HOST,port=PORT`")]
    Address,
    /// No connection, or it broke. Worth another try.
    #[error("the TPM can not be reached: {0}")]
    Unavailable(String),
    /// The TPM said no.
    #[error("the TPM refused to {operation} (code {code:#x})")]
    Refused {
        /// What it was asked for.
        operation: &'static str,
        /// The response code; `tpm2_rc_decode` explains it.
        code: u32,
    },
    /// The bytes are not what they should be, whatever the TPM.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The blob is of another TPM, or was changed.
    #[error("the blob does not belong to this TPM")]
    NotOurs,
    /// What the state of the join says of deployment, host and root was not written with this TPM's keys.
    #[error(
        "the record of the join (tpm/state) names another deployment, host or root certificate than the one that this \
         machine has joined: somebody has changed it. Restore it, or take it away and join anew"
    )]
    NotBound,
    /// The host secret's authorisation value is gone or replaced: no copy of the blob opens again.
    #[error("the host secret was destroyed")]
    Destroyed,
    /// The registers hold values that nobody has approved for what was asked.
    #[error("the TPM does not let the key be used: its registers hold no values that central has approved")]
    NotApproved,
    /// This TPM is none that can do it; a stand-in of tests.
    #[error("this TPM has no remote key")]
    NoRemoteKey,
    /// Somebody else's data is at the configured NV index.
    #[error("the NV index {0:#x} is in use for something else")]
    IndexTaken(u32),
    /// Registers were extended faster than they can be quoted.
    #[error("the PCRs did not keep still")]
    Unsteady,
    /// The thread ended, or the job crashed.
    #[error("the TPM's thread is gone")]
    Stopped,
}

enum Job {
    /// To be done with the TPM.
    Do(Box<dyn FnOnce(&Chip) + Send>),
    /// To rest from here on; to be answered.
    Halt(oneshot::Sender<()>),
}

/// The way to the TPM's thread. The thread works until the last clone is gone.
///
/// A call may be dropped while it waits; a job that nobody waits for any more is not started. Callers put their own
/// deadlines around the call; a TPM that answers nothing at all is given up here, for whoever waits keeps others waiting.
#[derive(Debug, Clone)]
pub struct TpmHandle {
    jobs: mpsc::Sender<Job>,
    /// Closed by the end of the thread's work.
    alive: watch::Receiver<()>,
    refused: Arc<AtomicU64>,
}

impl TpmHandle {
    /// Starts the thread; the TPM is not touched before the first job.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(config: TpmConfig) -> Result<Self, TpmError> {
        let (jobs, mailbox) = mpsc::channel(MAILBOX);
        let (living, alive) = watch::channel(());
        let chip = Chip::new(config);
        std::thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(move || {
                if serve(&chip, mailbox) == Why::LetGo {
                    drop(living);
                }
                rest();
            })
            .map_err(|error| TpmError::Unavailable(error.to_string()))?;
        Ok(Self { jobs, alive, refused: Arc::default() })
    }

    /// Waits until the thread works no more. While there are handles it must not: a host without it would look alive and
    /// never quote again.
    pub async fn ended(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }

    /// Lets no further job begin, and waits until none is under way, but no longer than a second. To be called before the
    /// process exits: the C libraries below take themselves down then, and not under a job's feet.
    pub async fn halt(&self) {
        let (rests, rested) = oneshot::channel();
        let halted = async {
            if self.jobs.send(Job::Halt(rests)).await.is_ok() {
                let _ = rested.await;
            }
        };
        let _ = tokio::time::timeout(HALT_LIMIT, halted).await;
    }

    /// The endorsement key of `kind` with its certificate. `None` chooses: P-256 where the maker certified it, else
    /// RSA-2048 where certified, else P-256, which is quicker to derive.
    pub async fn identity(&self, kind: Option<EkKind>) -> Result<Identity, TpmError> {
        self.ask(move |chip| keys::identity(chip, kind)).await
    }

    /// A new attestation key, ECDSA P-256 with SHA-256, that signs nothing but what the TPM itself states.
    pub async fn create_ak(&self, ek_kind: EkKind) -> Result<AkBlob, TpmError> {
        self.ask(move |chip| keys::create_ak(chip, ek_kind)).await
    }

    /// Opens a credential that was made for this attestation key and the endorsement key above it.
    pub async fn activate(&self, ak: &AkBlob, credential: &Credential) -> Result<Secret<32>, TpmError> {
        let (ak, credential) = (ak.clone(), credential.clone());
        self.ask(move |chip| keys::activate(chip, &ak, &credential)).await
    }

    /// A quote over the SHA-256 registers `pcrs` (0 to 23, at least one), with the values that it covers.
    pub async fn quote(&self, ak: &AkBlob, qualifying: [u8; 32], pcrs: &[u8]) -> Result<Evidence, TpmError> {
        let (ak, pcrs) = (ak.clone(), pcrs.to_vec());
        self.ask(move |chip| quote::quote(chip, &ak, &qualifying, &pcrs)).await
    }

    /// The TPM's time; not signed, so it convinces only ourselves.
    pub async fn clock(&self) -> Result<TpmClock, TpmError> {
        self.ask(quote::clock).await
    }

    /// TPM-seals up to [`SEALED_BYTES_MAX`] bytes. No register gates it: whoever holds the blob and this TPM opens it.
    pub async fn seal(&self, data: SecretBytes) -> Result<SealedBlob, TpmError> {
        self.ask(move |chip| seal::seal(chip, &data)).await
    }

    /// Opens what [`Self::seal`] made.
    pub async fn unseal(&self, blob: &SealedBlob) -> Result<SecretBytes, TpmError> {
        let blob = blob.clone();
        self.ask(move |chip| seal::unseal(chip, &blob)).await
    }

    /// TPM-seals the host secret under a fresh authorisation value, kept in NV. Any earlier host secret is destroyed
    /// by that: store the returned blob before relying on it.
    pub async fn create_host_secret(&self, secret: Secret<32>) -> Result<SealedBlob, TpmError> {
        self.ask(move |chip| seal::create_host_secret(chip, &secret)).await
    }

    /// Opens what [`Self::create_host_secret`] made.
    pub async fn unseal_host_secret(&self, blob: &SealedBlob) -> Result<Secret<32>, TpmError> {
        let blob = blob.clone();
        self.ask(move |chip| seal::unseal_host_secret(chip, &blob)).await
    }

    /// Erases the authorisation value, so that no copy of the blob ever opens again. May be repeated.
    pub async fn destroy_host_secret(&self) -> Result<(), TpmError> {
        self.ask(seal::destroy_host_secret).await
    }

    /// For tests: its thread ends, as by a panic that can't be caught.
    #[cfg(debug_assertions)]
    pub fn strike(&self) {
        // With jobs that wait, or without a thread, there is nothing to do: whoever strikes does it again and again.
        let _ = self.jobs.try_send(Job::Do(Box::new(|_| std::panic::panic_any(Bomb))));
    }

    /// A new remote key under this policy.
    pub async fn create_remote_key(&self, policy: [u8; 32]) -> Result<SealedBlob, TpmError> {
        self.ask(move |chip| remote::create(chip, &policy)).await
    }

    /// The attestation key's word that this TPM holds `key`: attestation and signature.
    pub async fn certify_remote_key(
        &self,
        ak: &AkBlob,
        key: &SealedBlob,
        qualifying: [u8; 32],
    ) -> Result<Vouched, TpmError> {
        let (ak, key) = (ak.clone(), key.clone());
        self.ask(move |chip| remote::certify(chip, &ak, &key, &qualifying)).await
    }

    /// Agrees with `peer` by the remote key, if the registers hold approved values.
    pub async fn agree(&self, key: &SealedBlob, leave: &Leave, peer: &PublicKey) -> Result<Secret<32>, TpmError> {
        let (key, leave, peer) = (key.clone(), leave.clone(), peer.clone());
        self.ask(move |chip| remote::agree(chip, &key, &leave, &peer)).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Chip) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (answer, answered) = oneshot::channel();
        let job = move |chip: &Chip| {
            if !answer.is_closed() {
                // The caller may have gone meanwhile; then the result is dropped, and secrets in it erase themselves.
                let _ = answer.send(job(chip));
            }
        };
        let answer = async {
            self.jobs.send(Job::Do(Box::new(job))).await.map_err(|_| TpmError::Stopped)?;
            answered.await.map_err(|_| TpmError::Stopped)?
        };
        let late = |_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            TpmError::Unavailable("no answer in time".to_owned())
        };
        tokio::time::timeout(ANSWER_LIMIT, answer).await.map_err(late)?
    }
}

/// Jobs that wait, and those whose callers gave up.
impl Bounded for TpmHandle {
    fn load(&self) -> Load {
        Load::of(MAILBOX - self.jobs.capacity(), MAILBOX, self.refused.load(Ordering::Relaxed))
    }
}

/// Why the thread works no more.
#[derive(PartialEq, Eq)]
enum Why {
    /// Nobody can ask it any more.
    LetGo,
    /// The process is about to exit.
    Halted,
}

/// Whoever still waits when it ends is answered by that.
fn serve(chip: &Chip, mut mailbox: mpsc::Receiver<Job>) -> Why {
    while let Some(job) = mailbox.blocking_recv() {
        let job = match job {
            Job::Do(job) => job,
            Job::Halt(rests) => {
                let _ = rests.send(());
                return Why::Halted;
            }
        };
        // A crashed job answers its caller by dropping the channel. Nothing outlives a job, so the next one is safe.
        if catch_unwind(AssertUnwindSafe(|| job(chip))).is_err() {
            tracing::error!("a job of the TPM's thread crashed");
        }
    }
    Why::LetGo
}

/// Keeps the thread, idle, until the process ends. A thread that has used the C libraries is not to end by itself: what
/// they keep for a thread is freed then, and that crashes where the process exits at the same moment.
fn rest() -> ! {
    loop {
        std::thread::park();
    }
}

/// What a panic may throw; its own end is another panic.
#[cfg(debug_assertions)]
struct Bomb;

#[cfg(debug_assertions)]
impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("while the last panic is put away");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> TpmHandle {
        let address = "swtpm:host=127.0.0.1,port=1".parse().unwrap();
        TpmHandle::start(TpmConfig { address, host_secret_index: TpmConfig::HOST_SECRET_INDEX }).unwrap()
    }

    #[tokio::test]
    async fn a_job_that_panics_is_an_error_to_its_caller_and_the_next_is_done() {
        let tpm = nowhere();
        assert_eq!(tpm.ask(|_| -> Result<(), _> { panic!("a job") }).await, Err(TpmError::Stopped));
        assert_eq!(tpm.ask(|_| Ok(7)).await, Ok(7));
        assert_eq!(tpm.load(), Load { used: 0, limit: 16, refused: 0 });
    }

    #[tokio::test]
    async fn who_asks_when_it_is_halted_is_told_at_once_and_it_counts_as_no_failure() {
        let tpm = nowhere();
        let (begun, begins) = oneshot::channel();
        let (go, may_end) = std::sync::mpsc::channel::<()>();
        let asked = tpm.clone();
        let first = tokio::spawn(async move {
            let job = move |_: &Chip| {
                begun.send(()).unwrap();
                may_end.recv().unwrap();
                Ok(1)
            };
            asked.ask(job).await
        });
        begins.await.unwrap();
        let halting = tpm.clone();
        let halted = tokio::spawn(async move { halting.halt().await });
        while tpm.load().used == 0 {
            tokio::task::yield_now().await;
        }
        let asked = tpm.clone();
        let second = tokio::spawn(async move { asked.ask(|_| Ok(2)).await });
        while tpm.load().used == 1 {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        halted.await.unwrap();
        assert_eq!(first.await.unwrap(), Ok(1), "what is under way is finished");
        assert_eq!(second.await.unwrap(), Err(TpmError::Stopped));
        assert!(tpm.alive.has_changed().is_ok(), "nobody takes it for a failure");
    }

    #[tokio::test]
    async fn the_end_of_the_thread_is_heard_of() {
        let tpm = nowhere();
        tpm.strike();
        tpm.ended().await;
        assert_eq!(tpm.ask(|_| Ok(7)).await, Err(TpmError::Stopped));
    }
}
