//! Typed rows: what ledgers see of the store, and what they return.
//!
//! A row has a kind, a realm and a path of names; the store shows neither names nor content of it (see
//! [`crate::barrier`]). Deleting leaves a tombstone, so that the version counter of a name never goes back.

use holdfast_protocol::codec::{self, DecodeError};
use holdfast_protocol::ids::{Realm, Revision};
use holdfast_protocol::limits::{PATH_LEVELS_MAX, RECORD_BYTES_MAX, SEGMENT_BYTES_MAX};
use holdfast_protocol::secret::{Secret, SecretBytes};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::audit_log::Line;
use crate::store::Fault;

mod expected;

pub use expected::Expected;

/// What a row is. The numbers are on disk: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Kind {
    // The node's realm.
    /// A tenant.
    Tenant = 0x10,
    /// A site.
    Site = 0x11,
    /// A host of a site.
    Host = 0x12,
    /// A certificate authority or another signing key of central.
    Authority = 0x13,
    /// The deployment: its term and incarnation.
    Deployment = 0x14,
    /// What has been cut for one (tenant, site).
    Cut = 0x15,
    /// What a site has been sent.
    Holding = 0x16,
    /// That this store is an older copy, and how far it has been taken back into service.
    Restored = 0x17,
    /// What a host showed of what an older copy has lost.
    Shown = 0x18,
    /// What a host needs to start without central.
    Unsealing = 0x19,
    /// That there was a site of this name, and which numbers its hosts had.
    Departed = 0x1a,
    /// Which cuts a host has been sent.
    HostHolding = 0x1c,
    /// Why and when a site got new keys.
    Rotations = 0x1d,
    /// A host's receipts for new keys.
    Receipts = 0x1e,
    /// When a secret was last read at a site.
    LastReads = 0x1f,
    // A tenant's realm.
    /// A person or program that logs in: its password hash.
    Login = 0x20,
    /// Groups of a principal.
    Principal = 0x21,
    /// An issued token, by its id.
    Token = 0x22,
    /// The keys that sign a tenant's tokens.
    TokenKey = 0x23,
    /// The public halves of [`Kind::TokenKey`], as sites get them.
    TokenVerifier = 0x24,
    /// Tokens that no longer hold.
    Revocation = 0x25,
    /// A role of programs.
    Approle = 0x2a,
    /// What proves a program of such a role; at a host in the node's realm.
    SecretId = 0x2b,
    /// Which paths clients of KES may call.
    Policy = 0x2c,
    /// Which policy a client of KES has.
    Identity = 0x2d,
    /// How a tenant's clients of KES are served.
    Serving = 0x2e,
    /// A safe deposit box, which is a vault.
    Box = 0x30,
    /// From a box's id to its slug.
    BoxId = 0x31,
    /// A secret's current version.
    Secret = 0x32,
    /// An earlier version of a secret.
    SecretVersion = 0x33,
    /// A category of boxes.
    Category = 0x34,
    /// Which earlier versions of a secret are kept.
    SecretHistory = 0x35,
    /// A key that encrypts for clients, with its versions.
    TransitKey = 0x38,
    /// How many rows of a kind a tenant has.
    Tally = 0x39,
    // A site host's node realm.
    /// A tenant's content at this host: position and local realms.
    Copy = 0x40,
    /// The key that signs the tokens which this host issues.
    HostTokenKey = 0x4a,
    // The node's realm again.
    /// Of which tenants central's configuration has made rows.
    Served = 0x50,
}

impl Kind {
    pub(crate) const ALL: [Self; 37] = [
        Self::Tenant,
        Self::Site,
        Self::Host,
        Self::Authority,
        Self::Deployment,
        Self::Cut,
        Self::Holding,
        Self::Restored,
        Self::Shown,
        Self::Unsealing,
        Self::Departed,
        Self::HostHolding,
        Self::Rotations,
        Self::Receipts,
        Self::LastReads,
        Self::Login,
        Self::Principal,
        Self::Token,
        Self::TokenKey,
        Self::TokenVerifier,
        Self::Revocation,
        Self::Approle,
        Self::SecretId,
        Self::Policy,
        Self::Identity,
        Self::Serving,
        Self::Box,
        Self::BoxId,
        Self::Secret,
        Self::SecretVersion,
        Self::Category,
        Self::SecretHistory,
        Self::TransitKey,
        Self::Tally,
        Self::Copy,
        Self::HostTokenKey,
        Self::Served,
    ];

    /// The kind behind a stored number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A value that is stored as a row. Its encoding starts with [`Record::VERSION`]; an older one is migrated by whoever
/// raises it.
pub trait Record: Serialize + DeserializeOwned {
    /// Which kind.
    const KIND: Kind;
    /// Version of the encoding.
    const VERSION: u8 = 1;
}

/// Where a row lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// What it is.
    pub kind: Kind,
    /// Whose.
    pub realm: Realm,
    /// Its names, outermost first.
    pub path: Vec<String>,
}

impl RowKey {
    /// The key of a `T`.
    pub fn of<T: Record>(realm: Realm, path: &[&str]) -> Self {
        Self { kind: T::KIND, realm, path: path.iter().map(|s| (*s).to_owned()).collect() }
    }

    /// Whether the store takes it: 1 to 16 levels of 1 to 255 bytes.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] says which rule is broken.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.path.is_empty() || PATH_LEVELS_MAX < self.path.len() {
            return Err(Refusal::Invalid(format!("a path has 1 to {PATH_LEVELS_MAX} levels")));
        }
        if self.path.iter().any(|s| s.is_empty() || SEGMENT_BYTES_MAX < s.len()) {
            return Err(Refusal::Invalid(format!("a part of a path has 1 to {SEGMENT_BYTES_MAX} bytes")));
        }
        Ok(())
    }
}

/// A decrypted row.
#[derive(Debug)]
pub struct RawRow {
    /// Its names.
    pub path: Vec<String>,
    /// Version byte and encoding; `None` for a tombstone.
    pub body: Option<SecretBytes>,
    /// Writes of this name so far, tombstones included, from 1.
    pub version: u64,
    /// When it was last written.
    pub modified: Revision,
}

/// A decoded row.
#[derive(Debug)]
pub struct Row<T> {
    /// Its names.
    pub path: Vec<String>,
    /// The value.
    pub value: T,
    /// Writes of this name so far, from 1.
    pub version: u64,
    /// When it was last written.
    pub modified: Revision,
}

impl<T> Row<T> {
    /// The last part of its path.
    pub fn name(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }
}

/// A consistent, decrypted view of the store.
pub trait Rows {
    /// The state's revision.
    fn revision(&self) -> Revision;

    /// One row, tombstones included.
    ///
    /// # Errors
    /// Faults, a realm that does not exist, or a record that does not open.
    fn load(&self, key: &RowKey) -> Result<Option<RawRow>, Refusal>;

    /// The highest realm that has keys, or had them in this store's life.
    ///
    /// # Errors
    /// As [`Rows::load`].
    fn highest_realm(&self) -> Result<Realm, Refusal>;

    /// All rows of `kind` below `path` (of the whole realm, if it is empty), tombstones included, in no useful order.
    ///
    /// # Errors
    /// As [`Rows::load`].
    fn scan(&self, kind: Kind, realm: Realm, path: &[String]) -> Result<Vec<RawRow>, Refusal>;
}

/// Typed reading on top of [`Rows`].
pub trait ReadRows: Rows {
    /// One row; `None` if absent or deleted.
    ///
    /// # Errors
    /// As [`Rows::load`].
    fn read<T: Record>(&self, realm: Realm, path: &[&str]) -> Result<Option<Row<T>>, Refusal> {
        self.load(&RowKey::of::<T>(realm, path))?.map_or(Ok(None), decode)
    }

    /// All rows of a type below `path`, in order of their names.
    ///
    /// # Errors
    /// As [`Rows::load`].
    fn list<T: Record>(&self, realm: Realm, path: &[&str]) -> Result<Vec<Row<T>>, Refusal> {
        let path: Vec<String> = path.iter().map(|s| (*s).to_owned()).collect();
        let mut rows = Vec::new();
        for raw in self.scan(T::KIND, realm, &path)? {
            rows.extend(decode(raw)?);
        }
        rows.sort_by(|a: &Row<T>, b| a.path.cmp(&b.path));
        Ok(rows)
    }
}

impl<R: Rows + ?Sized> ReadRows for R {}

fn decode<T: Record>(raw: RawRow) -> Result<Option<Row<T>>, Refusal> {
    let Some(body) = raw.body else { return Ok(None) };
    let value = decode_body(body.expose())?;
    Ok(Some(Row { path: raw.path, value, version: raw.version, modified: raw.modified }))
}

/// Reads a row's body: a version byte, then the encoding.
///
/// # Errors
/// [`Refusal::Corrupt`]: of another version, or not an encoding of a `T`.
pub fn decode_body<T: Record>(body: &[u8]) -> Result<T, Refusal> {
    match body.split_first() {
        Some((version, bytes)) if *version == T::VERSION => Ok(codec::decode(bytes, RECORD_BYTES_MAX)?),
        Some((version, _)) => Err(DecodeError::Version(*version).into()),
        None => Err(DecodeError::Malformed.into()),
    }
}

/// The first members of a row's body, and nothing of what follows: of what is secret, say, nothing is decoded.
///
/// # Errors
/// As [`decode_body`].
pub fn decode_beginning<T: Record, B: DeserializeOwned>(body: &[u8]) -> Result<B, Refusal> {
    match body.split_first() {
        Some((version, bytes)) if *version == T::VERSION => Ok(codec::decode_beginning(bytes, RECORD_BYTES_MAX)?),
        Some((version, _)) => Err(DecodeError::Version(*version).into()),
        None => Err(DecodeError::Malformed.into()),
    }
}

/// Encodes a value as a row's body.
pub fn encode_body<T: Record>(value: &T) -> SecretBytes {
    let mut body = vec![T::VERSION];
    let encoded = Zeroizing::new(codec::encode(value));
    body.extend_from_slice(&encoded);
    SecretBytes::new(body)
}

/// One write of a [`Batch`].
#[derive(Debug)]
pub(crate) enum Write {
    Put { key: RowKey, body: SecretBytes },
    Delete { key: RowKey },
    Forget { key: RowKey },
    CreateRealm { realm: Realm, base: Secret<32>, key: Secret<32> },
    Boot { name: &'static str, value: Option<Vec<u8>> },
}

/// What a decision wants written: all of it or nothing.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) writes: Vec<Write>,
    pub(crate) lines: Vec<(Realm, Line)>,
    pub(crate) housekeeping: bool,
    /// Whether it may be written when the disk is down to its reserve.
    pub(crate) reserve: bool,
}

impl Batch {
    /// A change that people ask about: it says in `line` who did what, in the chain of `realm`.
    pub fn new(realm: Realm, line: Line) -> Self {
        Self { writes: Vec::new(), lines: vec![(realm, line)], ..Self::default() }
    }

    /// Bookkeeping without a line of its own: cursors, counters, the time last seen.
    pub fn housekeeping() -> Self {
        Self { housekeeping: true, ..Self::default() }
    }

    /// Has it written even when the disk is down to its reserve: for what cuts somebody off, stops a restored copy or
    /// seals and unseals a node, and the little that this takes, the login of a system administrator included. Nothing
    /// that strangers, hosts, tenants or other users of `system` can have written at will.
    #[must_use]
    pub fn from_reserve(mut self) -> Self {
        self.reserve = true;
        self
    }

    /// Writes a row.
    pub fn put<T: Record>(&mut self, realm: Realm, path: &[&str], value: &T) {
        self.writes.push(Write::Put { key: RowKey::of::<T>(realm, path), body: encode_body(value) });
    }

    /// Writes a row whose body came encoded from central.
    pub fn put_encoded(&mut self, key: RowKey, body: SecretBytes) {
        self.writes.push(Write::Put { key, body });
    }

    /// Leaves a tombstone.
    pub fn delete<T: Record>(&mut self, realm: Realm, path: &[&str]) {
        self.writes.push(Write::Delete { key: RowKey::of::<T>(realm, path) });
    }

    /// Leaves a tombstone under an explicit key.
    pub fn delete_key(&mut self, key: RowKey) {
        self.writes.push(Write::Delete { key });
    }

    /// Leaves nothing, not even a tombstone, and no bundle tells of it. Only for rows whose names are random and so are
    /// never used again.
    pub fn forget<T: Record>(&mut self, realm: Realm, path: &[&str]) {
        self.forget_key(RowKey::of::<T>(realm, path));
    }

    /// The same under an explicit key.
    pub fn forget_key(&mut self, key: RowKey) {
        self.writes.push(Write::Forget { key });
    }

    /// Makes a key space with its keys: `base` for names and labels, `key` for records. Both fresh and random.
    pub fn create_realm(&mut self, realm: Realm, base: Secret<32>, key: Secret<32>) {
        self.writes.push(Write::CreateRealm { realm, base, key });
    }

    /// Writes (or with `None` removes) a row outside the barrier along with the rest; it holds nothing secret in clear.
    pub fn put_boot(&mut self, name: &'static str, value: Option<Vec<u8>>) {
        self.writes.push(Write::Boot { name, value });
    }

    /// Adds a further line.
    pub fn audit(&mut self, realm: Realm, line: Line) {
        self.lines.push((realm, line));
    }

    /// Joins another batch into this one.
    pub fn append(&mut self, other: Self) {
        self.writes.extend(other.writes);
        self.lines.extend(other.lines);
        self.housekeeping &= other.housekeeping;
        self.reserve &= other.reserve;
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.lines.is_empty()
    }
}

/// Why something was not done. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The barrier is sealed.
    #[error("sealed")]
    Sealed,
    /// The request makes no sense; the text is for the caller.
    #[error("{0}")]
    Invalid(String),
    /// No valid credential.
    #[error("not authenticated")]
    Unauthenticated,
    /// A valid credential that may not do this.
    #[error("permission denied")]
    Denied,
    /// Not there, or not for this caller to know.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(&'static str),
    /// The state does not allow it now; the text is for the caller.
    #[error("{0}")]
    Conflict(String),
    /// It is not in the state that the caller said it had to be in, see [`Expected`].
    #[error("the precondition of the request does not hold: it has changed meanwhile")]
    Changed,
    /// Too many failures; wait.
    #[error("too many attempts, try again in {retry_after_s} s")]
    TooManyAttempts {
        /// Seconds until the next try counts.
        retry_after_s: u64,
    },
    /// Somebody needed for this is not there now.
    #[error("{0} is not available")]
    Unavailable(&'static str),
    /// The lease on content from central has ended.
    #[error("the lease has expired: this host has not heard from central for too long")]
    LeaseExpired,
    /// A host has shown that this store is an older copy: nothing changes until an operator adopts it.
    #[error(
        "this central was restored from an older copy: it changes nothing and gives hosts nothing until an operator has \
         run `holdfast central adopt-restored`"
    )]
    Restored,
    /// A record does not open or decode: damage, or another key.
    #[error("a stored record is damaged")]
    Corrupt,
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<DecodeError> for Refusal {
    fn from(_: DecodeError) -> Self {
        Self::Corrupt
    }
}
