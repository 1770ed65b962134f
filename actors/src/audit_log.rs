//! The record of who did what: two hash chains per realm, one of changes and one of reads and refusals, and the
//! node's own chain over both.
//!
//! Lines are encrypted and the hashes run over ciphertext, so that verifying needs no key.

use holdfast_protocol::codec::{self, length_prefixed};
use holdfast_protocol::crypto::hash::sha256_prefixed;
use holdfast_protocol::ids::Realm;
use serde::{Deserialize, Serialize};

#[cfg(feature = "shell")]
pub mod journal;
pub mod verify;

/// One line: who did what to what, and how it ended. No secret ever belongs in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    /// The principal, host or part of the system that acted.
    pub actor: String,
    /// A constant such as `secret.write`.
    pub action: String,
    /// Names of what it was done to; never its content.
    pub object: String,
    /// `ok`, or why it was refused.
    pub outcome: String,
}

impl Line {
    /// A line about something that was done.
    pub fn done(at_us: i64, actor: impl Into<String>, action: &str, object: impl Into<String>) -> Self {
        Self { at_us, actor: actor.into(), action: action.to_owned(), object: object.into(), outcome: "ok".to_owned() }
    }

    /// A line about something that was refused.
    pub fn refused(
        at_us: i64,
        actor: impl Into<String>,
        action: &str,
        object: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self { outcome: why.into(), ..Self::done(at_us, actor, action, object) }
    }

    /// Its bytes before encryption. Texts are cut to [`TEXT_BYTES_MAX`]: a line has to fit wherever lines go, also the
    /// line about a request that was refused for its length.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        // As the derived encoding has it, without a copy of each text.
        codec::encode(&(self.at_us, cut(&self.actor), cut(&self.action), cut(&self.object), cut(&self.outcome)))
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// Longest text in a line: every path that can be stored fits.
const TEXT_BYTES_MAX: usize = 6 << 10;

/// Which chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Chain {
    /// Changes of one realm.
    Changes,
    /// Reads and refusals of one realm.
    Reads,
    /// The node's commits.
    Commits,
}

impl Chain {
    fn domain(self) -> &'static [u8] {
        match self {
            Self::Changes => b"holdfast/audit/changes/v1",
            Self::Reads => b"holdfast/audit/reads/v1",
            Self::Commits => b"holdfast/audit/commits/v1",
        }
    }
}

/// The end of a chain: the number of its last line (0: none yet) and the hash up to there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Lines so far.
    pub seq: u64,
    /// Hash over all of them.
    pub hash: [u8; 32],
}

impl Head {
    /// Bytes of a stored head.
    pub const BYTES: usize = 40;

    /// The number of the line that follows. No chain gets to the last number there is; only a head from a damaged disk is
    /// there, and nothing follows from it.
    pub fn next_seq(self) -> u64 {
        self.seq.wrapping_add(1)
    }

    /// The head after one more line with this stored body.
    #[must_use]
    pub fn after(self, chain: Chain, realm: Realm, body: &[u8]) -> Self {
        let seq = self.next_seq();
        let parts = [chain.domain(), &realm.0.to_be_bytes(), &seq.to_be_bytes(), &self.hash, body];
        Self { seq, hash: sha256_prefixed(&parts) }
    }

    /// As stored.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.seq.to_be_bytes());
        bytes[8..].copy_from_slice(&self.hash);
        bytes
    }

    /// The reverse.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (seq, hash) = bytes.split_first_chunk::<8>()?;
        Some(Self { seq: u64::from_be_bytes(*seq), hash: hash.try_into().ok()? })
    }
}

/// Associated data of an encrypted line.
pub fn line_aad(chain: Chain, deployment: holdfast_protocol::ids::DeploymentId, realm: Realm, seq: u64) -> Vec<u8> {
    length_prefixed(&[chain.domain(), &deployment.0, &realm.0.to_be_bytes(), &seq.to_be_bytes()])
}

/// Body of a line in the node's chain: what one commit did to the other chains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitLine {
    /// The last revision in this commit.
    pub revision: u64,
    /// Heads of the change chains that it moved.
    pub changes: Vec<(Realm, Head)>,
    /// Heads of the read chains that were on disk for certain.
    pub reads: Vec<(Realm, Head)>,
}
