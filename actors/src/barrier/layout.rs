//! Where things stand in the store, and what stored bytes mean.

use std::sync::Arc;

use holdfast_protocol::codec::length_prefixed;
use holdfast_protocol::envelope;
use holdfast_protocol::ids::{DeploymentId, Realm, Revision};
use holdfast_protocol::secret::SecretBytes;
use zeroize::Zeroizing;

use crate::audit_log::Head;
use crate::keyring::{Keyring, RealmKeys};
use crate::rows::{Kind, RawRow, Refusal, RowKey, Rows};
use crate::store::{Entry, Fault, View};

/// First byte of keys outside the barrier.
pub(super) const BOOT: u8 = 0x00;
/// First bytes of the audit chains in the store; lines and heads.
pub(crate) const CHANGE_LINES: u8 = 0x02;
pub(crate) const CHANGE_HEADS: u8 = 0x03;
pub(crate) const COMMIT_LINES: u8 = 0x04;
pub(crate) const COMMIT_HEAD: u8 = 0x05;
/// The number of the last realm made; numbers are not used twice.
pub(super) const HIGHEST_REALM: u8 = 0x06;
/// Rows read at once by a scan.
pub(super) const SCAN_PAGE: usize = 1024;

pub(super) fn boot_key(name: &str) -> Vec<u8> {
    let mut key = vec![BOOT];
    key.extend_from_slice(name.as_bytes());
    key
}

pub(crate) fn change_head_key(realm: Realm) -> Vec<u8> {
    let mut key = vec![CHANGE_HEADS];
    key.extend_from_slice(&realm.0.to_be_bytes());
    key
}

pub(super) fn change_line_key(realm: Realm, seq: u64) -> Vec<u8> {
    let mut key = vec![CHANGE_LINES];
    key.extend_from_slice(&realm.0.to_be_bytes());
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

pub(super) fn head_at(view: &dyn View, key: &[u8]) -> Result<Head, Fault> {
    match view.get(key)? {
        Some(entry) => Head::from_bytes(&entry.value).ok_or_else(|| Fault::Io("an audit head is damaged".to_owned())),
        None => Ok(Head::default()),
    }
}

/// The same inside the writer's transaction.
pub(super) struct TransactionRows<'a> {
    pub(super) view: &'a dyn View,
    pub(super) ring: &'a Keyring,
}

impl Rows for TransactionRows<'_> {
    fn revision(&self) -> Revision {
        self.view.revision()
    }
    fn load(&self, key: &RowKey) -> Result<Option<RawRow>, Refusal> {
        load(self.view, self.ring.deployment(), |realm| self.ring.realm(realm, self.view), key)
    }
    fn scan(&self, kind: Kind, realm: Realm, path: &[String]) -> Result<Vec<RawRow>, Refusal> {
        scan(self.view, self.ring.deployment(), &*self.ring.realm(realm, self.view)?, (kind, realm, path))
    }
    fn highest_realm(&self) -> Result<Realm, Refusal> {
        highest_realm(self.view)
    }
}

/// From the row that [`Encryption`] keeps whenever a realm is made.
pub(super) fn highest_realm(view: &dyn View) -> Result<Realm, Refusal> {
    let Some(entry) = view.get(&[HIGHEST_REALM])? else { return Ok(Realm::NODE) };
    let bytes = entry.value.try_into().map_err(|_| Refusal::Corrupt)?;
    Ok(Realm(u32::from_be_bytes(bytes)))
}

pub(super) fn load(
    view: &dyn View,
    deployment: DeploymentId,
    keys_of: impl FnOnce(Realm) -> Result<Arc<RealmKeys>, Refusal>,
    key: &RowKey,
) -> Result<Option<RawRow>, Refusal> {
    key.check()?;
    let keys = keys_of(key.realm)?;
    let store_key = store_key(&keys, key.kind, key.realm, &key.path);
    match view.get(&store_key)? {
        Some(entry) => open_row(deployment, &keys, key.kind, key.realm, &store_key, &entry).map(Some),
        None => Ok(None),
    }
}

pub(super) fn scan(
    view: &dyn View,
    deployment: DeploymentId,
    keys: &RealmKeys,
    (kind, realm, path): (Kind, Realm, &[String]),
) -> Result<Vec<RawRow>, Refusal> {
    let mut rows = Vec::new();
    scan_entries(view, &store_key(keys, kind, realm, path), |store_key, entry| {
        rows.push(open_row(deployment, keys, kind, realm, &store_key, &entry)?);
        Ok(())
    })?;
    Ok(rows)
}

/// Calls `each` for every entry strictly below `prefix`.
pub(super) fn scan_entries(
    view: &dyn View,
    prefix: &[u8],
    mut each: impl FnMut(Vec<u8>, Entry) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let until = after_prefix(prefix);
    let mut from = prefix.to_vec();
    from.push(0);
    loop {
        let page = view.range(&from, &until, SCAN_PAGE)?;
        let full = page.len() == SCAN_PAGE;
        if let Some((last, _)) = page.last() {
            from.clone_from(last);
            from.push(0);
        }
        for (key, entry) in page {
            each(key, entry)?;
        }
        if !full {
            return Ok(());
        }
    }
}

/// The first key after all that start with `prefix`.
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut until = prefix.to_vec();
    while let Some(last) = until.pop() {
        if last < u8::MAX {
            until.push(last + 1);
            return until;
        }
    }
    vec![u8::MAX; holdfast_protocol::limits::KEY_BYTES_MAX]
}

pub(super) fn store_key(keys: &RealmKeys, kind: Kind, realm: Realm, path: &[String]) -> Vec<u8> {
    let mut key = Vec::with_capacity(5 + 16 * path.len());
    key.push(kind as u8);
    key.extend_from_slice(&realm.0.to_be_bytes());
    let mut parent = [0; 16];
    for segment in path {
        parent = keys.hide(&parent, segment);
        key.extend_from_slice(&parent);
    }
    key
}

pub(super) fn split_store_key(key: &[u8]) -> Option<(Kind, Realm)> {
    let (head, _) = key.split_first_chunk::<5>()?;
    let realm = Realm(u32::from_be_bytes([head[1], head[2], head[3], head[4]]));
    Some((Kind::from_byte(head[0])?, realm))
}

pub(super) fn record_aad(
    deployment: DeploymentId,
    kind: Kind,
    realm: Realm,
    store_key: &[u8],
    version: u64,
) -> Vec<u8> {
    let (realm, version) = (realm.0.to_be_bytes(), version.to_be_bytes());
    length_prefixed(&[b"holdfast/record/v1", &deployment.0, &realm, &[kind as u8], store_key, &version])
}

pub(super) fn open_row(
    deployment: DeploymentId,
    keys: &RealmKeys,
    kind: Kind,
    realm: Realm,
    store_key: &[u8],
    entry: &Entry,
) -> Result<RawRow, Refusal> {
    let aad = record_aad(deployment, kind, realm, store_key, entry.version);
    let plain = envelope::open(|id| keys.version(id), &aad, &entry.value).map_err(|_| Refusal::Corrupt)?;
    let (path, body) = parse_row(plain.expose()).ok_or(Refusal::Corrupt)?;
    Ok(RawRow { path, body, version: entry.version, modified: entry.modified })
}

pub(super) fn row_bytes(path: &[String], body: Option<&[u8]>) -> Zeroizing<Vec<u8>> {
    let names: usize = path.iter().map(|s| s.len() + 1).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(2 + names + body.map_or(0, <[u8]>::len)));
    out.push(u8::from(body.is_none()));
    out.push(u8::try_from(path.len()).expect("a checked path has at most 16 levels"));
    for segment in path {
        out.push(u8::try_from(segment.len()).expect("a checked segment has at most 255 bytes"));
        out.extend_from_slice(segment.as_bytes());
    }
    out.extend_from_slice(body.unwrap_or_default());
    out
}

pub(super) fn parse_row(bytes: &[u8]) -> Option<(Vec<String>, Option<SecretBytes>)> {
    let ([tombstone, levels], mut rest) = bytes.split_first_chunk::<2>()?;
    let mut path = Vec::with_capacity(usize::from(*levels));
    for _ in 0..*levels {
        let (len, after) = rest.split_first()?;
        let (segment, after) = after.split_at_checked(usize::from(*len))?;
        path.push(String::from_utf8(segment.to_vec()).ok()?);
        rest = after;
    }
    Some((path, (*tombstone == 0).then(|| SecretBytes::new(rest.to_vec()))))
}
