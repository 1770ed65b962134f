//! What is stored about keys.

use holdfast_protocol::crypto::hash::hmac;
use holdfast_protocol::crypto::transit::Cipher;
use holdfast_protocol::kes::KeyFile;
use holdfast_protocol::secret::{Secret, sealed};
use serde::{Deserialize, Serialize};

use crate::access_control::policies::Origin;
use crate::distribute::Distribute;
use crate::ports::{Entropy, draw_secret};
use crate::rows::{Kind, Record};
use crate::secret_store::Stamp;
use crate::tally::Bound;

/// Keys of a tenant.
pub const KEYS: Bound = Bound { what: "keys", max: 10_000 };
/// Versions of a key from which on an operator makes no further one before some are erased.
pub const VERSIONS_MAX: usize = 64;
/// Versions that quarantines may bring it to. Each may have to be tried for a ciphertext.
pub const VERSIONS_HELD_MAX: usize = 96;
/// Bytes of a hint.
pub const HINT_BYTES: usize = 4;

/// A key: `[name]`. Goes to the sites that it names, with all its versions.
#[derive(Debug, Serialize, Deserialize)]
pub struct TransitKey {
    /// Where it goes. First, so that a list of keys decodes nothing else.
    pub distribute: Distribute,
    /// Who says that there has to be such a key.
    pub origin: Origin,
    /// Number of the version that is made next; from 1. A number below that is not among the versions was erased.
    pub next: u32,
    /// Those that decrypt, oldest first. The last one encrypts, if it may; there is always a last one.
    pub versions: Vec<KeyVersion>,
}

impl Record for TransitKey {
    const KIND: Kind = Kind::TransitKey;
}

/// One version of a key.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyVersion {
    /// Its number.
    pub number: u32,
    /// Begins the vector's end of all that it encrypts, so that the version of a ciphertext is found at once.
    pub hint: [u8; HINT_BYTES],
    /// What it may be used for.
    pub state: VersionState,
    /// When it was made, and by whom. As the file said it was imported from, where that said so.
    pub created: Stamp,
    /// What it consists of.
    pub material: Material,
}

/// The keys of a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct Material {
    /// What encrypts.
    pub cipher: Cipher,
    /// Its key.
    #[serde(with = "sealed")]
    pub key: Secret<32>,
    /// For HMACs; keys from before KES had these have none.
    pub hmac_key: Option<HmacKey>,
}

/// A key for HMACs, of its own type so that it rides sealed.
#[derive(Debug, Serialize, Deserialize)]
pub struct HmacKey(#[serde(with = "sealed")] pub Secret<32>);

impl HmacKey {
    /// The same once more.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }
}

/// What a version may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionState {
    /// Everything. Only the last version is ever in this state.
    Active,
    /// Decrypting.
    DecryptOnly {
        /// Since when, microseconds since the Unix epoch.
        since_us: i64,
        /// What for.
        why: Why,
    },
}

impl VersionState {
    /// Whether a site that was cut off has the version.
    pub fn is_known_outside(self) -> bool {
        matches!(self, Self::DecryptOnly { why: Why::Quarantined, .. })
    }
}

/// Why a version does not encrypt any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// Somebody made a newer one.
    Rotated,
    /// A site that had it was cut off.
    Quarantined,
}

/// Fresh random bytes for a version.
#[derive(Debug)]
pub struct FreshKey {
    /// For what encrypts.
    pub key: Secret<32>,
    /// For HMACs.
    pub hmac_key: Secret<32>,
}

impl FreshKey {
    /// Draws them.
    pub fn draw(entropy: &dyn Entropy) -> Self {
        Self { key: draw_secret(entropy), hmac_key: draw_secret(entropy) }
    }

    /// The same once more, since a decision may run more than once.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { key: self.key.duplicate(), hmac_key: self.hmac_key.duplicate() }
    }
}

impl Material {
    /// Of fresh bytes.
    pub fn fresh(cipher: Cipher, fresh: &FreshKey) -> Self {
        let hmac_key = Some(HmacKey(fresh.hmac_key.duplicate()));
        Self { cipher, key: fresh.key.duplicate(), hmac_key }
    }

    /// Of a file.
    pub fn of_file(file: KeyFile) -> Self {
        Self { cipher: file.cipher, key: file.key, hmac_key: file.hmac_key.map(HmacKey) }
    }

    /// The same once more.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let hmac_key = self.hmac_key.as_ref().map(HmacKey::duplicate);
        Self { cipher: self.cipher, key: self.key.duplicate(), hmac_key }
    }

    /// What its ciphertexts are known by. A function of the key, so that one that was exported and imported again knows
    /// its own; no vector is as long as the label, so that no key of a ciphertext shows.
    pub(super) fn hint(&self) -> [u8; HINT_BYTES] {
        const LABEL: &[u8] = b"holdfast/transit-hint/v1";
        let mac = hmac(self.key.expose(), &[LABEL]);
        *mac.first_chunk().expect("a MAC has 32 bytes")
    }
}

impl TransitKey {
    /// The last version; what describes a key describes this one.
    pub fn newest(&self) -> Option<&KeyVersion> {
        self.versions.last()
    }

    /// The version that encrypts, if one may.
    pub fn encrypting(&self) -> Option<&KeyVersion> {
        self.newest().filter(|version| version.state == VersionState::Active)
    }

    /// A version by its number.
    pub fn version(&self, number: u32) -> Option<&KeyVersion> {
        self.versions.iter().find(|version| version.number == number)
    }

    /// Makes a version the one that encrypts; the one before decrypts only, and says why.
    pub(crate) fn push(&mut self, material: Material, created: Stamp, (since_us, why): (i64, Why)) -> u32 {
        self.retire(since_us, why);
        let number = self.next;
        self.next += 1;
        let (hint, state) = (material.hint(), VersionState::Active);
        self.versions.push(KeyVersion { number, hint, state, created, material });
        number
    }

    /// Has the last version decrypt only.
    pub(super) fn retire(&mut self, since_us: i64, why: Why) {
        if let Some(last) = self.versions.last_mut().filter(|last| last.state == VersionState::Active) {
            last.state = VersionState::DecryptOnly { since_us, why };
        }
    }
}
