//! The keys of an unsealed node: the root key, and the realms' keys opened when first needed.
//!
//! A keyring is immutable but for its cache. Sealing swaps it out; the last reader's drop erases every key.
//! The cache serves only a view that holds the very row it was opened from: keys of a realm that was erased, or of one
//! whose making was never committed, are not used.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use holdfast_protocol::codec::{self, length_prefixed};
use holdfast_protocol::crypto::aead::{NONCE_BYTES, halves};
use holdfast_protocol::crypto::hash::{hkdf, hmac};
use holdfast_protocol::envelope::{self, Sealer};
use holdfast_protocol::ids::{DeploymentId, Realm, Revision};
use holdfast_protocol::secret::{Secret, sealed};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::distribution::placed::Placed;
use crate::key_store::hot::Hot;
use crate::rows::Refusal;
use crate::store::{Fault, View};

/// First byte of the store keys that hold realms' keys.
pub(crate) const REALM_KEYS: u8 = 0x01;
/// Longest stored set of realm keys: far more versions than rotation will make in a lifetime.
const REALM_KEYS_BYTES_MAX: usize = 64 << 10;
/// Lines of one series, whose nonces differ in 96 random bits only: that two of them have the same has a chance of 2^-57.
const LINES_OF_SERIES: u32 = 1 << 20;

/// The keys of one realm.
pub struct RealmKeys {
    base: Secret<32>,
    index: Secret<32>,
    current: u32,
    versions: BTreeMap<u32, Secret<32>>,
    /// What was decrypted with them and is used again and again: it goes when they go.
    hot: Hot,
    /// Where its content goes, likewise.
    placed: Placed,
    /// What seals lines of the journal.
    lines: Mutex<Option<Sealer>>,
    /// How far the chain of changes had come in a committed state: each line of the journal says it.
    position: Mutex<Option<(Revision, u64)>>,
}

impl RealmKeys {
    /// Takes fresh keys for a new realm.
    pub fn new(base: Secret<32>, key: Secret<32>) -> Self {
        Self::assemble(base, 1, BTreeMap::from([(1, key)]))
    }

    fn assemble(base: Secret<32>, current: u32, versions: BTreeMap<u32, Secret<32>>) -> Self {
        let index = hkdf(base.expose(), "holdfast/realm/index/v1", b"");
        let (hot, placed) = (Hot::default(), Placed::default());
        let (lines, position) = (Mutex::default(), Mutex::default());
        Self { base, index, current, versions, hot, placed, lines, position }
    }

    /// What is kept decrypted of the realm.
    pub(crate) fn hot(&self) -> &Hot {
        &self.hot
    }

    /// What is kept of where its content goes.
    pub(crate) fn placed(&self) -> &Placed {
        &self.placed
    }

    /// How far the chain of changes has come in the committed state of that revision; `read` finds it where it is not the
    /// one that was asked about last.
    ///
    /// # Errors
    /// What `read` says.
    pub(crate) fn position(&self, at: Revision, read: impl FnOnce() -> Result<u64, Fault>) -> Result<u64, Fault> {
        let mut kept = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, position)) = *kept
            && of == at
        {
            return Ok(position);
        }
        let position = read()?;
        *kept = Some((at, position));
        Ok(position)
    }

    /// The key for what is written now, and its id.
    pub fn current(&self) -> (u32, &Secret<32>) {
        (self.current, &self.versions[&self.current])
    }

    /// Appends a line of the journal to `out`, sealed by the key for what is written now. Of the nonce, which is fresh and
    /// random, the second half is used always, the first only where a series of lines begins.
    pub(crate) fn seal_line(&self, out: &mut Vec<u8>, nonce: &[u8; NONCE_BYTES], aad: &[u8], line: &[u8]) {
        self.seal_line_of(LINES_OF_SERIES, out, nonce, aad, line);
    }

    fn seal_line_of(&self, lines: u32, out: &mut Vec<u8>, nonce: &[u8; NONCE_BYTES], aad: &[u8], line: &[u8]) {
        let (first, second) = halves(nonce);
        let mut sealer = self.lines.lock().expect("no holder of this lock panics");
        let sealed = sealer.as_mut().map(|sealer| sealer.seal_into(out, second, aad, line));
        if sealed != Some(Ok(())) {
            let (id, key) = self.current();
            let fresh = sealer.insert(Sealer::new(key, id, first, lines));
            fresh.seal_into(out, second, aad, line).expect("a series has at least one line");
        }
    }

    /// A key by its id; older ones decrypt only.
    pub fn version(&self, id: u32) -> Option<&Secret<32>> {
        self.versions.get(&id)
    }

    /// A key for a purpose of its own within this realm.
    pub fn derive(&self, label: &str) -> Secret<32> {
        hkdf(self.base.expose(), label, b"")
    }

    /// The 16 bytes that stand for `segment` below `parent` in a store key.
    pub fn hide(&self, parent: &[u8; 16], segment: &str) -> [u8; 16] {
        let mac = hmac(self.index.expose(), &[parent, segment.as_bytes()]);
        let mut hidden = [0; 16];
        hidden.copy_from_slice(&mac[..16]);
        hidden
    }
}

impl fmt::Debug for RealmKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[derive(Serialize, Deserialize)]
struct StoredKey(u32, #[serde(with = "sealed")] Secret<32>);

#[derive(Serialize, Deserialize)]
struct StoredRealmKeys {
    #[serde(with = "sealed")]
    base: Secret<32>,
    current: u32,
    versions: Vec<StoredKey>,
}

/// All keys of an unsealed node.
pub struct Keyring {
    deployment: DeploymentId,
    root: Secret<32>,
    realms: RwLock<HashMap<Realm, Opened>>,
}

/// A realm's keys, and the stored row they came from.
struct Opened {
    wrapped: Vec<u8>,
    keys: Arc<RealmKeys>,
    /// A committed state that was seen to have that row: its revision, or [`NEVER`].
    seen: AtomicU64,
}

/// A revision that no state ever has.
const NEVER: u64 = u64::MAX;

impl Keyring {
    /// The keyring under a root key.
    pub fn new(deployment: DeploymentId, root: Secret<32>) -> Self {
        Self { deployment, root, realms: RwLock::default() }
    }

    /// Whose keys these are.
    pub fn deployment(&self) -> DeploymentId {
        self.deployment
    }

    /// A copy of the root key, for wrapping it anew.
    pub fn root(&self) -> Secret<32> {
        self.root.duplicate()
    }

    /// A realm's keys in a committed state. Of the state that was asked about last not even their row is read: a revision
    /// is reached by one commit only. Inside a transaction it may yet be another's.
    ///
    /// # Errors
    /// As [`Keyring::realm`].
    pub(crate) fn realm_committed(&self, realm: Realm, view: &dyn View) -> Result<Arc<RealmKeys>, Refusal> {
        let Revision(at) = view.revision();
        if let Some(opened) = self.realms.read().expect("no holder of this lock panics").get(&realm)
            && opened.seen.load(Ordering::Relaxed) == at
        {
            return Ok(opened.keys.clone());
        }
        let keys = self.realm(realm, view)?;
        if let Some(opened) = self.realms.read().expect("no holder of this lock panics").get(&realm)
            && Arc::ptr_eq(&opened.keys, &keys)
        {
            opened.seen.store(at, Ordering::Relaxed);
        }
        Ok(keys)
    }

    /// A realm's keys.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]: no such realm; [`Refusal::Corrupt`]: its keys do not open.
    pub fn realm(&self, realm: Realm, view: &dyn View) -> Result<Arc<RealmKeys>, Refusal> {
        let entry = view.get(&realm_store_key(realm))?.ok_or(Refusal::NotFound("realm"))?;
        if let Some(opened) = self.realms.read().expect("no holder of this lock panics").get(&realm)
            && opened.wrapped == entry.value
        {
            return Ok(opened.keys.clone());
        }
        let wrapping = self.wrapping_key();
        let plain =
            envelope::open(|_| Some(&wrapping), &self.realm_aad(realm), &entry.value).map_err(|_| Refusal::Corrupt)?;
        let stored: StoredRealmKeys = codec::decode(plain.expose(), REALM_KEYS_BYTES_MAX)?;
        let versions: BTreeMap<u32, _> = stored.versions.into_iter().map(|StoredKey(id, key)| (id, key)).collect();
        if !versions.contains_key(&stored.current) {
            return Err(Refusal::Corrupt);
        }
        let keys = Arc::new(RealmKeys::assemble(stored.base, stored.current, versions));
        let opened = Opened { wrapped: entry.value, keys: keys.clone(), seen: AtomicU64::new(NEVER) };
        self.realms.write().expect("no holder of this lock panics").insert(realm, opened);
        Ok(keys)
    }

    /// The store row that holds a realm's keys, wrapped by the root key.
    pub fn wrap_realm(&self, realm: Realm, keys: &RealmKeys, nonce: [u8; 24]) -> (Vec<u8>, Vec<u8>) {
        let stored = StoredRealmKeys {
            base: keys.base.duplicate(),
            current: keys.current,
            versions: keys.versions.iter().map(|(id, key)| StoredKey(*id, key.duplicate())).collect(),
        };
        let plain = Zeroizing::new(codec::encode(&stored));
        let value = envelope::seal(&self.wrapping_key(), 1, nonce, &self.realm_aad(realm), &plain);
        (realm_store_key(realm), value)
    }

    /// Forgets a realm whose keys have been removed from the store.
    pub fn forget(&self, realm: Realm) {
        self.realms.write().expect("no holder of this lock panics").remove(&realm);
    }

    fn wrapping_key(&self) -> Secret<32> {
        hkdf(self.root.expose(), "holdfast/root/realm-keys/v1", b"")
    }

    fn realm_aad(&self, realm: Realm) -> Vec<u8> {
        length_prefixed(&[b"holdfast/realm-keys/v1", &self.deployment.0, &realm.0.to_be_bytes()])
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where a realm's keys are stored.
pub fn realm_store_key(realm: Realm) -> Vec<u8> {
    let mut key = vec![REALM_KEYS];
    key.extend_from_slice(&realm.0.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::envelope::HEADER_BYTES;

    use super::*;

    fn fresh() -> RealmKeys {
        let key = |byte: u8| Secret::fill_with(|into| into.fill(byte));
        RealmKeys::new(key(1), key(2))
    }

    #[test]
    fn lines_share_the_first_half_of_a_nonce_for_so_long_and_never_the_second() {
        let all = [fresh(), fresh()];
        let nonce = |number: u8| [[number; 12], [100 + number; 12]].concat().try_into().unwrap();
        let lines: Vec<Vec<u8>> = (0..10)
            .map(|number: u8| {
                let (keys, mut out) = (&all[usize::from(number % 2)], b"before".to_vec());
                keys.seal_line_of(3, &mut out, &nonce(number), b"aad", b"line");
                let line = out.split_off(b"before".len());
                assert_eq!(out, b"before");
                assert_eq!(envelope::open(|id| keys.version(id), b"aad", &line).unwrap().expose(), b"line");
                line
            })
            .collect();
        let half = |line: &Vec<u8>, at: usize| line[HEADER_BYTES - 24 + at];
        // By turns of either key's; each has a new first half with its fourth line.
        let firsts: Vec<u8> = lines.iter().map(|line| half(line, 0)).collect();
        assert_eq!(firsts, [0, 1, 0, 1, 0, 1, 6, 7, 6, 7]);
        let seconds: Vec<u8> = lines.iter().map(|line| half(line, 12)).collect();
        assert_eq!(seconds, (100..110).collect::<Vec<u8>>());
    }
}
