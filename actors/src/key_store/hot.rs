//! Keys and clients that are used again and again, kept decrypted for as long as nothing about them has changed.
//!
//! Not a second truth: each use is of one snapshot, and says the same as reading its rows would. What is kept is of one
//! revision; a snapshot of a later one asks the store what has changed in between, and forgets what did. It lies beside the
//! realm's own keys ([`crate::keyring::RealmKeys`]), so it is erased where they are: when the node is sealed, and when the
//! realm is erased. What is handed out can't outlive the snapshot, for whose end whoever seals waits.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use holdfast_protocol::ids::{Realm, Revision};
use holdfast_protocol::kes::{Identity, KeyName, PolicyName};

use crate::access_control::identities::{Known, identities, known_of, permitted};
use crate::access_control::policies::policy_names;
use crate::access_control::tenants::is_blocked;
use crate::barrier::Snapshot;
use crate::distribute::{Distribute, Gate};
use crate::key_store::listing::Listed;
use crate::key_store::reading::{NO_KEY, key_names, served};
use crate::key_store::records::TransitKey;
use crate::keyring::RealmKeys;
use crate::rows::{Kind, ReadRows, Refusal, Rows};

/// Keys kept of one realm, and as many clients. At the bound all are forgotten.
pub const KEPT_MAX: usize = 1024;

/// What is kept of one realm.
#[derive(Default)]
pub struct Hot(RwLock<Kept>);

#[derive(Default)]
struct Kept {
    /// Of which revision all of it is.
    at: Revision,
    blocked: Option<bool>,
    clients: HashMap<Identity, Arc<Known>>,
    keys: HashMap<KeyName, Arc<TransitKey>>,
    /// Lists, so that their pages are not each made of all rows.
    key_names: Option<Arc<Vec<Listed<Distribute>>>>,
    policy_names: Option<Arc<Vec<Listed<()>>>>,
    identities: Option<Arc<Vec<Listed<Option<PolicyName>>>>>,
}

impl Kept {
    /// Forgets what may have changed; `None`: all of it.
    fn forget(&mut self, changed: Option<BTreeSet<Kind>>) {
        let has =
            |kinds: &[Kind]| changed.as_ref().is_none_or(|changed| kinds.iter().any(|kind| changed.contains(kind)));
        if has(&[Kind::TransitKey]) {
            self.keys.clear();
            self.key_names = None;
        }
        if has(&[Kind::Policy]) {
            self.policy_names = None;
        }
        if has(&[Kind::Policy, Kind::Identity]) {
            self.clients.clear();
            self.identities = None;
        }
        if has(&[Kind::Revocation]) {
            self.blocked = None;
        }
    }
}

impl Hot {
    fn read(&self) -> RwLockReadGuard<'_, Kept> {
        self.0.read().expect("no holder of this lock panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Kept> {
        self.0.write().expect("no holder of this lock panics")
    }
}

/// A realm as one snapshot has it.
pub struct HotRealm<'s> {
    rows: &'s Snapshot,
    realm: Realm,
    keys: Arc<RealmKeys>,
}

/// Something of a snapshot, at most as long as that.
#[derive(Debug)]
pub struct Held<'s, T>(Arc<T>, PhantomData<&'s Snapshot>);

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'s> HotRealm<'s> {
    /// Brings what is kept up to the snapshot, unless it is of a later one: then what is asked for is read.
    ///
    /// # Errors
    /// No such realm; the store's refusals.
    pub fn new(rows: &'s Snapshot, realm: Realm) -> Result<Self, Refusal> {
        let keys = rows.realm_keys(realm)?;
        let at = keys.hot().read().at;
        if at < rows.revision() {
            let changed = rows.kinds_changed(realm, at)?;
            let mut kept = keys.hot().write();
            // Another may have brought it further meanwhile; what had changed up to here was forgotten then.
            if kept.at == at {
                kept.forget(changed);
                kept.at = rows.revision();
            }
        }
        Ok(Self { rows, realm, keys })
    }

    /// The snapshot.
    pub fn rows(&self) -> &'s Snapshot {
        self.rows
    }

    /// Whether an identity may call a path: as [`crate::access_control::identities::judge`].
    ///
    /// # Errors
    /// As that.
    pub fn judge(&self, who: Identity, path: &str) -> Result<Held<'s, Known>, Refusal> {
        if self.is_blocked()? {
            return Err(Refusal::Denied);
        }
        let read = || known_of(self.rows, self.realm, who);
        let known = self.kept(|kept| &mut kept.clients, |kept| &kept.clients, who, read)?.ok_or(Refusal::Denied)?;
        permitted(&known, path)?;
        Ok(Held(known, PhantomData))
    }

    /// The key of a name, for use at this node, which is noted there: as [`crate::key_store::lookup`].
    ///
    /// # Errors
    /// As that.
    pub fn lookup(&self, gate: &Gate<'_>, name: &KeyName) -> Result<Held<'s, TransitKey>, Refusal> {
        let read = || Ok(self.rows.read::<TransitKey>(self.realm, &[name.as_str()])?.map(|row| row.value));
        let key = self.kept(|kept| &mut kept.keys, |kept| &kept.keys, name.clone(), read)?.ok_or(NO_KEY)?;
        served(&key, gate)?;
        if let (Some(_), Some(newest)) = (gate.site, key.newest()) {
            (gate.read)(&[name.as_str()], &newest.number.to_string());
        }
        Ok(Held(key, PhantomData))
    }

    /// The names of all keys: as [`key_names`].
    ///
    /// # Errors
    /// As that.
    pub fn key_names(&self) -> Result<Held<'s, Vec<Listed<Distribute>>>, Refusal> {
        self.listed(|kept| &mut kept.key_names, |kept| &kept.key_names, || key_names(self.rows, self.realm))
    }

    /// The names of all policies: as [`policy_names`].
    ///
    /// # Errors
    /// As that.
    pub fn policy_names(&self) -> Result<Held<'s, Vec<Listed<()>>>, Refusal> {
        self.listed(|kept| &mut kept.policy_names, |kept| &kept.policy_names, || policy_names(self.rows, self.realm))
    }

    /// All identities that may do anything: as [`identities`].
    ///
    /// # Errors
    /// As that.
    pub fn identities(&self) -> Result<Held<'s, Vec<Listed<Option<PolicyName>>>>, Refusal> {
        self.listed(|kept| &mut kept.identities, |kept| &kept.identities, || identities(self.rows, self.realm))
    }

    /// What is kept of a list, if it is of this snapshot; otherwise what `read` finds, which is kept then.
    fn listed<T>(
        &self,
        place: impl Fn(&mut Kept) -> &mut Option<Arc<T>>,
        look: impl Fn(&Kept) -> &Option<Arc<T>>,
        read: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<Held<'s, T>, Refusal> {
        let at = self.rows.revision();
        {
            let kept = self.keys.hot().read();
            if kept.at == at
                && let Some(list) = look(&kept)
            {
                return Ok(Held(list.clone(), PhantomData));
            }
        }
        let list = Arc::new(read()?);
        let mut kept = self.keys.hot().write();
        if kept.at == at {
            *place(&mut kept) = Some(list.clone());
        }
        Ok(Held(list, PhantomData))
    }

    #[cfg(test)]
    pub(super) fn kept_keys(&self) -> usize {
        self.keys.hot().read().keys.len()
    }

    #[cfg(test)]
    pub(super) fn weak(&self, name: &KeyName) -> std::sync::Weak<TransitKey> {
        Arc::downgrade(&self.lookup(&Gate::CENTRAL, name).expect("it is there").0)
    }

    fn is_blocked(&self) -> Result<bool, Refusal> {
        {
            let kept = self.keys.hot().read();
            if let (true, Some(blocked)) = (kept.at == self.rows.revision(), kept.blocked) {
                return Ok(blocked);
            }
        }
        let blocked = is_blocked(self.rows, self.realm)?;
        let mut kept = self.keys.hot().write();
        if kept.at == self.rows.revision() {
            kept.blocked = Some(blocked);
        }
        Ok(blocked)
    }

    /// What is kept under a name, if it is of this snapshot; otherwise what `read` finds, which is kept then. What is not
    /// there is not kept: anybody can ask for that.
    fn kept<K: Hash + Eq, T>(
        &self,
        map: impl Fn(&mut Kept) -> &mut HashMap<K, Arc<T>>,
        look: impl Fn(&Kept) -> &HashMap<K, Arc<T>>,
        name: K,
        read: impl FnOnce() -> Result<Option<T>, Refusal>,
    ) -> Result<Option<Arc<T>>, Refusal> {
        let at = self.rows.revision();
        {
            let kept = self.keys.hot().read();
            if kept.at == at
                && let Some(found) = look(&kept).get(&name)
            {
                return Ok(Some(found.clone()));
            }
        }
        let Some(found) = read()?.map(Arc::new) else { return Ok(None) };
        let mut kept = self.keys.hot().write();
        if kept.at == at {
            let map = map(&mut kept);
            if KEPT_MAX <= map.len() {
                map.clear();
            }
            map.insert(name, found.clone());
        }
        Ok(Some(found))
    }
}
