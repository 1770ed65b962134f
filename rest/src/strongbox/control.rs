//! What only the node itself can do, as the dialect asks for it.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use holdfast_actors::attestation_verifier::appraisal::Policy;
use holdfast_actors::rows::Refusal;
use holdfast_actors::seal_keeper::rehearsal::{HostRehearsal, Outcome};
use holdfast_actors::seal_keeper::{Class, Proof, RequestId, Revealer, SealRefusal, Status};
use holdfast_actors::shamir::Share;
use holdfast_actors::site_registry::restored::Report;
use holdfast_actors::site_registry::sites::state::Live;
use holdfast_actors::site_registry::standing::Decide;
use holdfast_protocol::debug::DebugDump;
use holdfast_protocol::ids::{HostId, HostName, SiteName};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::wire::{RemoteSealKeys, UnsealChallenge};
use schemars::JsonSchema;
use serde::Serialize;

use crate::access::BoxFuture;
use crate::bite::Pending;
use crate::problem::Problem;
use crate::secret::SecretText;

/// Central's seal. Its keeper writes the audit lines of what it does and refuses.
pub trait SealControl: Send + Sync {
    /// Now; must not wait.
    fn status(&self) -> Status;

    /// Initialises, and hands out the first secrets. `by` is `None` for who has no right to it.
    fn reveal(&self, by: Option<Revealer>) -> BoxFuture<'_, Result<Revealed, SealError>>;

    /// Takes a seal key or shares.
    fn unseal(&self, class: Class, proof: Proof) -> BoxFuture<'_, Result<Unsealing, SealError>>;

    /// Whether `proof` is the seal key, or enough shares of it, of this unsealed central; counted like an attempt at
    /// unsealing.
    fn prove(&self, class: Class, proof: Proof) -> BoxFuture<'_, Result<(), SealError>>;

    /// Seals; returns when the keys are erased.
    fn seal(&self, by: Operator) -> BoxFuture<'_, Result<(), SealError>>;

    /// Makes a new seal key. The old one's record goes with [`SealControl::reply_sent`].
    fn rotate_seal(&self, by: Operator) -> BoxFuture<'_, Result<Rotated, SealError>>;

    /// The kernel has taken the reply to a rotation. Must not wait. Never called for a reply that was not taken.
    fn reply_sent(&self, rotation: RequestId);
}

/// A site host's seal.
pub trait SiteSealControl: Send + Sync {
    /// Whether the host has joined, and whether its barrier is closed; must not wait.
    fn status(&self) -> SiteSealStatus;

    /// Seals; returns when the keys are erased.
    fn seal(&self, by: Operator) -> BoxFuture<'_, Result<(), Refusal>>;

    /// The challenge that a remote seal key for this very boot answers. A node without a TPM has none.
    fn unseal_challenge(&self) -> BoxFuture<'_, Result<UnsealChallenge, SiteUnsealError>> {
        Box::pin(async { Err(SiteUnsealError::Unavailable("this node has no TPM".to_owned())) })
    }

    /// Whether it would come back after a power cut while the WAN is down, by what it knows itself.
    fn rehearse(&self) -> BoxFuture<'_, Result<OwnRehearsal, SiteUnsealError>> {
        Box::pin(async { Err(SiteUnsealError::Unavailable("this node has no TPM".to_owned())) })
    }

    /// What the host says about itself, encrypted to its debug key; also while it is sealed.
    fn debug_dump(&self) -> BoxFuture<'_, Result<DebugDump, SiteUnsealError>> {
        Box::pin(async { Err(SiteUnsealError::Unavailable("this node has no debug key".to_owned())) })
    }

    /// Opens the host with a remote seal key; it counts failures and writes its own audit lines.
    fn unseal_remote(&self, _class: Class, _carried: RemoteSealKeys) -> BoxFuture<'_, Result<(), SiteUnsealError>> {
        Box::pin(async { Err(SiteUnsealError::Unavailable("this node has no TPM".to_owned())) })
    }
}

/// Why a host was not opened by hand, or does not say what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteUnsealError {
    /// Too many failures of this class of caller.
    TooManyAttempts {
        /// Seconds until the next try counts.
        retry_after_s: u64,
    },
    /// No: the words are for the caller.
    Denied(String),
    /// Not in this state.
    Conflict(String),
    /// Something that is needed can't be had now.
    Unavailable(String),
}

impl From<SiteUnsealError> for Problem {
    fn from(error: SiteUnsealError) -> Self {
        match error {
            SiteUnsealError::TooManyAttempts { retry_after_s } => Refusal::TooManyAttempts { retry_after_s }.into(),
            SiteUnsealError::Denied(why) => Self::forbidden(why),
            SiteUnsealError::Conflict(why) => Self::conflict(why),
            SiteUnsealError::Unavailable(why) => Self::new(StatusCode::SERVICE_UNAVAILABLE, why).retry_after(5),
        }
    }
}

/// The last attempt of one way to a host's seal key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RungState {
    /// `central`, `sibling` or `remote-sealkey`.
    pub rung: &'static str,
    /// When, RFC 3339.
    pub at: String,
    /// Whether it opened the host.
    pub opened: bool,
    /// Why not, or by whom.
    pub reason: String,
}

/// What anybody may know of a host's seal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteSealStatus {
    /// It has joined and been given its first seal key.
    pub initialised: bool,
    /// Its barrier is closed.
    pub sealed: bool,
    /// While sealed: what it waits for, in plain words.
    pub reason: Option<String>,
    /// The last attempt of each way to its seal key that was tried since the agent started.
    pub ladder: Vec<RungState>,
    /// Until when siblings may help it, RFC 3339.
    pub permit_until: Option<String>,
    /// Whether it may be opened by shares among the hosts of its site, as central said last.
    pub allow_local_unseal: bool,
    /// The share it would bring itself, if it has one that fits its store.
    pub local_share: Option<LocalShareState>,
}

/// Whether a host would come back, as it knows itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct OwnRehearsal {
    /// The site.
    pub site: SiteName,
    /// The host.
    pub host: HostName,
    /// After a power cut of the whole site.
    pub whole_site: Outcome,
    /// After a power cut of this host alone.
    #[serde(flatten)]
    pub alone: HostRehearsal,
}

/// A host's share of its site's seal key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LocalShareState {
    /// The epoch of that key.
    pub seal_epoch: u64,
    /// Shares that give it.
    pub needed: u8,
    /// Hosts that may hold one.
    pub hosts: usize,
}

/// Who wants the node sealed, or its seal key replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// From where.
    pub class: Class,
    /// By which name.
    pub name: String,
}

/// The first secrets.
#[derive(Debug)]
pub struct Revealed {
    /// The seal key.
    pub sealkey: Secret<32>,
    /// Its shares.
    pub shares: Vec<Share>,
    /// The root token of the tenant `system`.
    pub root_token: SecretText,
    /// Its name.
    pub accessor: String,
    /// When it was made, microseconds since the Unix epoch.
    pub created_us: i64,
}

/// How far unsealing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsealing {
    /// The node is unsealed.
    Unsealed,
    /// The shares were good; more are needed.
    MoreShares {
        /// Good ones in hand.
        held: usize,
        /// Needed.
        threshold: u8,
    },
}

/// A new seal key.
#[derive(Debug)]
pub struct Rotated {
    /// Names the rotation for [`SealControl::reply_sent`].
    pub rotation: RequestId,
    /// The seal key.
    pub sealkey: Secret<32>,
    /// Its shares.
    pub shares: Vec<Share>,
}

/// Why an operation of the seal was not done.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The keeper says no; it has written the audit line.
    #[error(transparent)]
    Refused(#[from] SealRefusal),
    /// It could not be done.
    #[error(transparent)]
    Failed(#[from] Refusal),
}

impl From<SealError> for Problem {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Refused(refusal) => refusal.into(),
            SealError::Failed(refusal) => refusal.into(),
        }
    }
}

/// What has been changed about a site, by a commit that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteChange {
    /// Its hosts are to have other certificates.
    Certificates,
    /// Its hosts are appraised by this from now on.
    Policy(Policy),
    /// They may unseal by each other's shares, and are to have them.
    LocalUnseal,
    /// It is gone.
    Removed,
}

/// The hosts and their connections.
pub trait FleetControl: Send + Sync {
    /// What is known of hosts beside the rows; must not wait.
    fn live(&self) -> BTreeMap<HostId, Live>;

    /// Commits the decision, with its audit line, and sees to it that it bites: closes connections and awaits that,
    /// orders a wipe, replaces what was held. Returns when all is done, or after a bounded time with what is left.
    fn decide(&self, decision: Decide) -> BoxFuture<'_, Result<Pending, Refusal>>;

    /// Sees to it that a change reaches the hosts that are connected; must not wait.
    fn site_changed(&self, site: &SiteName, change: SiteChange);

    /// Has a site's hosts take its newer seal key, and with it what they are given besides. Returns when all have
    /// confirmed, or after a bounded time with how many have not.
    fn rekeyed(&self, site: &SiteName) -> BoxFuture<'_, Pending>;

    /// Takes a restored copy back into service, for `by`; goes on where the caller does not wait for it.
    fn adopt(&self, by: String) -> BoxFuture<'_, Result<Report, Refusal>>;
}
