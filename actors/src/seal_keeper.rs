//! Who holds the root key, and who may get it back: revealing, sealing, unsealing by seal key or shares, rotation, and
//! the limit on failed attempts.
//!
//! [`core`] is central's machine. What it keeps lies in a [`record::BootRecord`] outside the barrier, because a sealed
//! node needs it. A site host's root key is wrapped by [`wrap::HostBoot`].

#[cfg(feature = "shell")]
pub mod actor;
pub mod attempts;
pub mod core;
pub mod ladder;
pub mod local;
pub mod record;
pub mod rehearsal;
pub mod wrap;

pub use attempts::{Attempts, Class};
pub use core::{Answer, Effect, Event, SealKeeper, SealRefusal, Status};
pub use record::BootRecord;

use std::fmt;

use holdfast_protocol::ids::DeploymentId;
use holdfast_protocol::secret::Secret;
use serde::{Deserialize, Serialize};

use crate::ports::{Entropy, draw, draw_secret};
use crate::shamir::{Share, decode_key};

/// Shares made of each seal key.
pub const SHARES: u8 = 5;
/// Shares that give it back.
pub const THRESHOLD: u8 = 3;

/// Names a request until it is answered; the shell knows which caller waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// By what right somebody has the first secrets revealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Revealer {
    /// A connection from this machine itself.
    Loopback,
    /// The secret that the start of an uninitialised central prints; the shell compares it in constant time.
    BootstrapSecret,
}

/// Fresh randomness for one seal key, drawn by the shell.
pub struct FreshSeal {
    /// The seal key.
    pub sealkey: Secret<32>,
    /// For splitting it.
    pub coefficients: [Secret<32>; THRESHOLD as usize - 1],
    /// Salt of the shares' digests.
    pub salt: [u8; 32],
    /// Nonce of the envelope around the root key.
    pub nonce: [u8; 24],
}

impl FreshSeal {
    /// Draws it all.
    pub fn draw(entropy: &dyn Entropy) -> Self {
        Self {
            sealkey: draw_secret(entropy),
            coefficients: std::array::from_fn(|_| draw_secret(entropy)),
            salt: draw(entropy),
            nonce: draw(entropy),
        }
    }
}

impl fmt::Debug for FreshSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Fresh randomness for a new deployment, drawn by the shell.
#[derive(Debug)]
pub struct FreshStart {
    /// Its id.
    pub deployment: DeploymentId,
    /// Its root key.
    pub root: Secret<32>,
    /// Its first seal key.
    pub seal: FreshSeal,
}

impl FreshStart {
    /// Draws it all.
    pub fn draw(entropy: &dyn Entropy) -> Self {
        Self { deployment: new_deployment(entropy), root: draw_secret(entropy), seal: FreshSeal::draw(entropy) }
    }
}

/// Its first digit is a letter: the id is the last label of central's name in certificates, and a label of decimal
/// digits alone would make the name no name (RFC 1123, section 2.1).
fn new_deployment(entropy: &dyn Entropy) -> DeploymentId {
    let mut bytes: [u8; 16] = draw(entropy);
    bytes[0] |= 0xa0;
    DeploymentId(bytes)
}

/// What a caller brings to prove that it holds the seal key.
#[derive(Debug)]
pub enum Proof {
    /// The seal key.
    SealKey(Secret<32>),
    /// Some of its shares.
    Shares(Vec<Share>),
}

impl Proof {
    /// Reads a request's members: exactly one of a base64 seal key and a list of `x:base64` shares.
    ///
    /// # Errors
    /// [`SealRefusal::Invalid`]; such a request is no attempt.
    pub fn parse(sealkey: Option<&str>, shares: Option<&[String]>) -> Result<Self, SealRefusal> {
        match (sealkey, shares) {
            (Some(text), None) => {
                decode_key(text).map(Self::SealKey).ok_or(SealRefusal::Invalid("sealkey must be base64 of 32 bytes"))
            }
            (None, Some(texts)) => {
                if texts.len() > usize::from(u8::MAX) {
                    return Err(SealRefusal::Invalid("too many shares"));
                }
                let shares: Result<Vec<Share>, _> = texts.iter().map(|text| text.parse()).collect();
                shares.map(Self::Shares).map_err(|_| SealRefusal::Invalid("a share must be x:base64 of 32 bytes"))
            }
            _ => Err(SealRefusal::Invalid("give either sealkey or shares")),
        }
    }
}
