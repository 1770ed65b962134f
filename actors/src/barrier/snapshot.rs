//! Reading: a decrypted view of one committed state.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::ids::{Realm, Revision};

use crate::audit_log::Head;
use crate::barrier::layout::{
    COMMIT_HEAD, COMMIT_LINES, SCAN_PAGE, after_prefix, change_head_key, head_at, highest_realm, load, open_row, scan,
    scan_entries, split_store_key, store_key,
};
use crate::keyring::{Keyring, REALM_KEYS, RealmKeys};
use crate::rows::{Kind, RawRow, Refusal, RowKey, Rows};
use crate::store::{ChangesError, Entry, Fault, View};

/// A decrypted view of one committed state.
pub struct Snapshot {
    pub(super) view: Box<dyn View + Send>,
    /// The keys used last: nearly all rows that a request reads are of one realm. Dropped before `ring`, since whoever
    /// seals takes the keys for gone once nobody else holds that.
    pub(super) last: RefCell<Option<(Realm, Arc<RealmKeys>)>>,
    pub(super) ring: Arc<Keyring>,
}

/// One row changed after some revision, as distribution needs it.
#[derive(Debug)]
pub struct ChangedRow {
    /// Where it is, for people.
    pub key: RowKey,
    /// Where it is, for the store.
    pub store_key: Vec<u8>,
    /// SHA-256 of the stored envelope.
    pub ciphertext_hash: [u8; 32],
    /// The row.
    pub row: RawRow,
}

impl Snapshot {
    /// The keys it reads with.
    pub fn ring(&self) -> &Arc<Keyring> {
        &self.ring
    }

    /// A realm's keys.
    ///
    /// # Errors
    /// As [`Keyring::realm`].
    pub fn realm_keys(&self, realm: Realm) -> Result<Arc<RealmKeys>, Refusal> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some((of, keys)) if *of == realm => Ok(keys.clone()),
            _ => {
                let keys = self.ring.realm_committed(realm, &*self.view)?;
                *last = Some((realm, keys.clone()));
                Ok(keys)
            }
        }
    }

    /// Every realm with keys or rows, the node's own included. One that nothing refers to is to be erased: rows without
    /// keys are what an erasing left that was cut short.
    ///
    /// # Errors
    /// The engine failed.
    pub fn realms(&self) -> Result<BTreeSet<Realm>, Fault> {
        let mut found = BTreeSet::new();
        for first in std::iter::once(REALM_KEYS).chain(Kind::ALL.map(|kind| kind as u8)) {
            let (mut from, until) = (vec![first], [first + 1]);
            while let Some((key, _)) = self.view.range(&from, &until, 1)?.pop() {
                let Some(realm) = key.get(1..5).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes) else {
                    break;
                };
                found.insert(Realm(realm));
                from = after_prefix(&key[..5]);
            }
        }
        Ok(found)
    }

    /// The head of a realm's chain of changes.
    ///
    /// # Errors
    /// The engine failed.
    pub fn change_head(&self, realm: Realm) -> Result<Head, Fault> {
        head_at(&*self.view, &change_head_key(realm))
    }

    /// How far a realm's chain of changes has come; kept of the state that was asked about last.
    ///
    /// # Errors
    /// No such realm; the engine failed.
    pub fn change_position(&self, realm: Realm) -> Result<u64, Refusal> {
        let keys = self.realm_keys(realm)?;
        Ok(keys.position(self.view.revision(), || Ok(self.change_head(realm)?.seq))?)
    }

    /// The head of the node's chain of commits.
    ///
    /// # Errors
    /// The engine failed.
    pub fn commit_head(&self) -> Result<Head, Fault> {
        head_at(&*self.view, &[COMMIT_HEAD])
    }

    /// A line of the node's chain of commits: the hash up to it, and the revision that its commit ended at. `None`: there
    /// is no such line.
    ///
    /// # Errors
    /// The engine failed, or the line is damaged.
    pub fn commit_line(&self, seq: u64) -> Result<Option<(Head, Revision)>, Fault> {
        let mut key = vec![COMMIT_LINES];
        key.extend_from_slice(&seq.to_be_bytes());
        let Some(entry) = self.view.get(&key)? else { return Ok(None) };
        let hash = entry.value.first_chunk::<32>().copied();
        let hash = hash.ok_or_else(|| Fault::Io("an audit line is damaged".to_owned()))?;
        Ok(Some((Head { seq, hash }, entry.modified)))
    }

    /// The realms with rows of tenants changed after `after`, and the revision up to which that is told. `None` in
    /// place of the realms: too long ago to tell.
    ///
    /// # Errors
    /// The engine failed.
    pub fn realms_with_changed_content(&self, after: Revision) -> Result<(Revision, Option<BTreeSet<Realm>>), Refusal> {
        let mut realms = BTreeSet::new();
        let mut cursor = after;
        loop {
            let page = match self.view.changes(cursor, SCAN_PAGE) {
                Ok(page) => page,
                Err(ChangesError::Compacted(_)) => return Ok((self.view.revision(), None)),
                Err(ChangesError::Fault(fault)) => return Err(fault.into()),
            };
            let Some(last) = page.last() else { return Ok((self.view.revision(), Some(realms))) };
            cursor = last.revision;
            let split = page.iter().filter_map(|change| split_store_key(&change.key));
            realms.extend(split.map(|(_, realm)| realm).filter(|realm| *realm != Realm::NODE));
        }
    }

    /// Rows of a realm changed after `after`, each once, in order of their last change. `None`: too long ago to tell.
    ///
    /// # Errors
    /// Faults and damage.
    pub fn changes(&self, realm: Realm, after: Revision) -> Result<Option<Vec<ChangedRow>>, Refusal> {
        self.changes_of(|_| true, realm, after)
    }

    /// The same of some kinds only; rows of others are not even decrypted.
    ///
    /// # Errors
    /// As [`Snapshot::changes`].
    pub fn changes_of(
        &self,
        wanted: impl Fn(Kind) -> bool,
        realm: Realm,
        after: Revision,
    ) -> Result<Option<Vec<ChangedRow>>, Refusal> {
        let mut found = BTreeMap::new();
        let mut cursor = after;
        loop {
            let page = match self.view.changes(cursor, SCAN_PAGE) {
                Ok(page) => page,
                Err(ChangesError::Compacted(_)) => return Ok(None),
                Err(ChangesError::Fault(fault)) => return Err(fault.into()),
            };
            let Some(last) = page.last() else { break };
            cursor = last.revision;
            for change in page {
                if let Some((kind, of)) = split_store_key(&change.key)
                    && of == realm
                    && wanted(kind)
                {
                    found.insert(change.key, kind);
                }
            }
        }
        let mut rows = Vec::with_capacity(found.len());
        for (store_key, kind) in found {
            rows.extend(self.changed_row(kind, realm, store_key)?);
        }
        rows.sort_by_key(|changed| changed.row.modified);
        Ok(Some(rows))
    }

    /// Kinds of the rows of a realm that have changed after `after`. `None`: too long ago to tell, or too much has changed
    /// in the store to look at all of it now.
    ///
    /// # Errors
    /// The engine failed.
    pub fn kinds_changed(&self, realm: Realm, after: Revision) -> Result<Option<BTreeSet<Kind>>, Fault> {
        let page = match self.view.changes(after, SCAN_PAGE) {
            Ok(page) if page.len() < SCAN_PAGE => page,
            Ok(_) | Err(ChangesError::Compacted(_)) => return Ok(None),
            Err(ChangesError::Fault(fault)) => return Err(fault),
        };
        let split = page.iter().filter_map(|change| split_store_key(&change.key));
        Ok(Some(split.filter(|(_, of)| *of == realm).map(|(kind, _)| kind).collect()))
    }

    /// Every row of a kind in a realm, as [`Snapshot::changes`] gives them.
    ///
    /// # Errors
    /// Faults and damage.
    pub fn all(&self, kind: Kind, realm: Realm, path: &[String]) -> Result<Vec<ChangedRow>, Refusal> {
        let keys = self.realm_keys(realm)?;
        let mut rows = Vec::new();
        scan_entries(&*self.view, &store_key(&keys, kind, realm, path), |store_key, entry| {
            rows.push(self.open_changed(&keys, kind, realm, store_key, &entry)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// At most `limit` rows of a kind below `path`, tombstones included, that come after `after` in the store's own order,
    /// which tells nothing of the names. Fewer: there are no more.
    ///
    /// # Errors
    /// Faults and damage; [`Refusal::Invalid`]: `after` does not lie below `path`.
    pub fn page(
        &self,
        (kind, realm): (Kind, Realm),
        path: &[String],
        after: Option<&[String]>,
        limit: usize,
    ) -> Result<Vec<RawRow>, Refusal> {
        let keys = self.realm_keys(realm)?;
        let prefix = store_key(&keys, kind, realm, path);
        let mut from = match after {
            Some(after) if after.starts_with(path) => store_key(&keys, kind, realm, after),
            Some(_) => return Err(Refusal::Invalid("a page goes on from where another ended".to_owned())),
            None => prefix.clone(),
        };
        from.push(0);
        let found = self.view.range(&from, &after_prefix(&prefix), limit)?;
        let open = |(key, entry): (Vec<u8>, Entry)| open_row(self.ring.deployment(), &keys, kind, realm, &key, &entry);
        found.into_iter().map(open).collect()
    }

    /// Where a row is, or would be, for the store.
    ///
    /// # Errors
    /// [`Refusal::NotFound`]: no such realm; [`Refusal::Invalid`]: a path that no row can have.
    pub fn store_key(&self, key: &RowKey) -> Result<Vec<u8>, Refusal> {
        key.check()?;
        Ok(store_key(&*self.realm_keys(key.realm)?, key.kind, key.realm, &key.path))
    }

    /// One row, as [`Snapshot::changes`] gives it.
    ///
    /// # Errors
    /// Faults and damage.
    pub fn one(&self, key: &RowKey) -> Result<Option<ChangedRow>, Refusal> {
        let keys = self.realm_keys(key.realm)?;
        self.changed_row(key.kind, key.realm, store_key(&keys, key.kind, key.realm, &key.path))
    }

    fn changed_row(&self, kind: Kind, realm: Realm, store_key: Vec<u8>) -> Result<Option<ChangedRow>, Refusal> {
        let Some(entry) = self.view.get(&store_key)? else { return Ok(None) };
        let keys = self.realm_keys(realm)?;
        self.open_changed(&keys, kind, realm, store_key, &entry).map(Some)
    }

    fn open_changed(
        &self,
        keys: &RealmKeys,
        kind: Kind,
        realm: Realm,
        store_key: Vec<u8>,
        entry: &Entry,
    ) -> Result<ChangedRow, Refusal> {
        let row = open_row(self.ring.deployment(), keys, kind, realm, &store_key, entry)?;
        let key = RowKey { kind, realm, path: row.path.clone() };
        Ok(ChangedRow { key, store_key, ciphertext_hash: sha256(&[&entry.value]), row })
    }
}

impl Rows for Snapshot {
    fn revision(&self) -> Revision {
        self.view.revision()
    }
    fn load(&self, key: &RowKey) -> Result<Option<RawRow>, Refusal> {
        load(&*self.view, self.ring.deployment(), |realm| self.realm_keys(realm), key)
    }
    fn scan(&self, kind: Kind, realm: Realm, path: &[String]) -> Result<Vec<RawRow>, Refusal> {
        scan(&*self.view, self.ring.deployment(), &*self.realm_keys(realm)?, (kind, realm, path))
    }
    fn highest_realm(&self) -> Result<Realm, Refusal> {
        highest_realm(&*self.view)
    }
}
