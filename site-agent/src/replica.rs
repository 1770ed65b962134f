//! The hands of the replica: bundles as they come in are verified, decrypted and applied, and central hears how that
//! ended. What a bundle may do is decided by [`holdfast_actors::distribution::replica`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_actors::barrier::Barrier;
use holdfast_actors::distribution::Copy;
use holdfast_actors::distribution::replica::{Apply, CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, Outcome, apply, judge, orphans};
use holdfast_actors::ports::{Clock, draw_secret};
use holdfast_actors::rows::{ReadRows, Refusal};
use holdfast_protocol::bundle::{BundleKind, Header, Item};
use holdfast_protocol::ids::{DistEpoch, Realm, TenantName};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::wire::{FromHost, Head, HeldPosition, Position};

use crate::trust::Trust;

/// Distribution keys kept of one tenant: the current one, and the one before for what is on its way.
const KEYS_PER_TENANT: usize = 2;

/// The replica of all tenants at this host.
pub struct Replica {
    barrier: Barrier,
    clock: Arc<dyn Clock>,
    trust: Arc<Trust>,
    keys: Mutex<BTreeMap<TenantName, BTreeMap<DistEpoch, Secret<32>>>>,
}

impl Replica {
    /// Without any distribution key yet.
    pub fn new(barrier: Barrier, clock: Arc<dyn Clock>, trust: Arc<Trust>) -> Self {
        Self { barrier, clock, trust, keys: Mutex::default() }
    }

    /// Takes a distribution key; it is kept in memory only.
    pub fn take_key(&self, tenant: TenantName, epoch: DistEpoch, key: Secret<32>) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = keys.entry(tenant).or_default();
        of_tenant.insert(epoch, key);
        while KEYS_PER_TENANT < of_tenant.len() {
            // The numbers of a central that was restored from a copy may begin again below the ones known.
            let oldest = of_tenant.keys().copied().find(|known| *known != epoch);
            oldest.and_then(|oldest| of_tenant.remove(&oldest));
        }
    }

    /// What comes under another key than the content that is held would be refused: nobody needs it any more.
    fn forget_other_keys(&self, header: &Header) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_tenant) = keys.get_mut(&header.tenant) {
            of_tenant.retain(|epoch, _| *epoch == header.target.dist_epoch);
        }
    }

    /// The oldest epoch of the keys that content is held under; `None`: nothing is held. Keys before it are erased.
    ///
    /// # Errors
    /// The store's fault.
    pub fn installed(&self) -> Result<Option<DistEpoch>, Refusal> {
        Ok(self.positions()?.into_iter().map(|held| held.position.dist_epoch).min())
    }

    /// Erases all distribution keys.
    pub fn forget_keys(&self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What is held, tenant by tenant; nothing while sealed.
    ///
    /// # Errors
    /// The store's fault.
    pub fn positions(&self) -> Result<Vec<HeldPosition>, Refusal> {
        let rows = match self.barrier.snapshot() {
            Ok(rows) => rows,
            Err(Refusal::Sealed) => return Ok(Vec::new()),
            Err(refusal) => return Err(refusal),
        };
        let complete = rows.list::<Copy>(Realm::NODE, &[])?.into_iter().filter(|row| row.value.realm.is_some());
        complete
            .map(|row| {
                let tenant = row.name().parse().map_err(|_| Refusal::Corrupt)?;
                Ok(HeldPosition { tenant, position: row.value.position })
            })
            .collect()
    }

    /// Takes a bundle of a state of which `head` tells, the newest that was seen. `None`: more of it must follow, or the
    /// host was sealed meanwhile.
    ///
    /// # Errors
    /// The store's fault; the bundle may come again.
    pub async fn take(&self, bytes: &[u8], head: Option<&Head>) -> Result<Option<FromHost>, Refusal> {
        let verified = match self.trust.bundle(bytes, self.clock.now().wall_s()) {
            Ok(verified) => verified,
            Err(error) => return Ok(Some(alarm(format!("a bundle is not believed: {error}")))),
        };
        let header = verified.header.clone();
        if !head.is_some_and(|head| is_told_by(head, &header)) {
            return Ok(Some(alarm("a bundle came without a head that tells of it".to_owned())));
        }
        if let Some(outcome) = judge(&header, &self.barrier.snapshot()?)? {
            return Ok(self.told(&header, outcome));
        }
        let Some(key) = self.key(&header) else {
            return Ok(Some(alarm("a bundle came under a key that this host was not given".to_owned())));
        };
        let items = match verified.open(&key) {
            Ok(items) => items,
            Err(error) => return Ok(Some(alarm(format!("a bundle can't be read: {error}")))),
        };
        let outcome = match header.kind {
            BundleKind::Delta => self.apply(&header, items, true).await?,
            BundleKind::Full { .. } => self.apply_in_chunks(&header, items).await?,
        };
        if let Outcome::Applied { .. } = outcome {
            self.forget_other_keys(&header);
            self.sweep().await?;
        }
        Ok(self.told(&header, outcome))
    }

    /// Erases realms that no copy refers to: former contents, and full copies that never became one.
    ///
    /// # Errors
    /// The store's fault.
    pub async fn sweep(&self) -> Result<(), Refusal> {
        for realm in self.orphans()? {
            self.barrier.erase_realm(realm).await?;
        }
        Ok(())
    }

    fn orphans(&self) -> Result<BTreeSet<Realm>, Refusal> {
        orphans(&self.barrier.snapshot()?)
    }

    fn key(&self, header: &Header) -> Option<Secret<32>> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(&header.tenant)?.get(&header.target.dist_epoch).map(Secret::duplicate)
    }

    async fn apply_in_chunks(&self, header: &Header, items: Vec<Item>) -> Result<Outcome, Refusal> {
        let mut chunks = chunks(items).into_iter().peekable();
        let mut outcome = Outcome::Partly;
        while let Some(chunk) = chunks.next() {
            outcome = self.apply(header, chunk, chunks.peek().is_none()).await?;
            if outcome != Outcome::Partly {
                break;
            }
        }
        Ok(outcome)
    }

    async fn apply(&self, header: &Header, items: Vec<Item>, ends_part: bool) -> Result<Outcome, Refusal> {
        let entropy = &**self.barrier.entropy();
        let (realm_base, realm_key) = (draw_secret(entropy), draw_secret(entropy));
        let cmd = Apply { header: header.clone(), items, ends_part, realm_base, realm_key };
        let now = self.clock.now();
        let (outcome, _) = self.barrier.run(move |rows| apply(&cmd, rows, now)).await?;
        Ok(outcome)
    }

    fn told(&self, header: &Header, outcome: Outcome) -> Option<FromHost> {
        let held = |position: Position| HeldPosition { tenant: header.tenant.clone(), position };
        match outcome {
            Outcome::Applied { .. } | Outcome::AlreadyThere => Some(FromHost::Applied(held(header.target))),
            Outcome::Partly => None,
            Outcome::OutOfStep(position) => Some(FromHost::OutOfStep(held(position))),
            Outcome::Alarm(what) => Some(alarm(format!("{what}, of tenant {}", header.tenant))),
        }
    }
}

/// Whether the head is of the state that the bundle leads to, or a later one.
fn is_told_by(head: &Head, header: &Header) -> bool {
    (header.target.term, header.revision) <= (head.term, head.revision)
}

fn alarm(what: String) -> FromHost {
    tracing::error!(what, "alarm");
    FromHost::Alarm { what }
}

/// Cuts a part of a full copy into what one transaction takes; at least one chunk, for the last one ends the part.
fn chunks(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut chunks = vec![Vec::new()];
    let mut bytes = 0;
    for item in items {
        let size = bytes_of(&item);
        let last = chunks.last_mut().expect("there is always one");
        if CHUNK_ROWS_MAX <= last.len() || (!last.is_empty() && CHUNK_BYTES_MAX < bytes + size) {
            chunks.push(vec![item]);
            bytes = size;
        } else {
            last.push(item);
            bytes += size;
        }
    }
    chunks
}

fn bytes_of(item: &Item) -> usize {
    let names: usize = item.path.iter().map(|segment| segment.len() + 2).sum();
    16 + names + item.body.as_ref().map_or(0, |body| body.0.expose().len())
}

#[cfg(test)]
mod tests;
