//! Cutting and building at central: from the store's state to signed, encrypted bundles.
//!
//! Runs on a thread that may block, one at a time per (tenant, site). The snapshot stays open while the cut is
//! committed, so that a bundle is of exactly the cut's state; if the state has moved on, the next cut follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};

use holdfast_protocol::bundle::{self, Body, BundleKind, Header, Item};
use holdfast_protocol::codec::length_prefixed;
use holdfast_protocol::crypto::hash::{hmac, sha256};
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{HostName, Realm, Revision, Seq, SiteName, TenantName};
use holdfast_protocol::secret::{Secret, SecretBytes};
use holdfast_protocol::wire::{Position, Signed};

use crate::access_control::Tenant;
use crate::barrier::{Barrier, ChangedRow, Snapshot};
use crate::distribution::core::{BuildOutcome, Push};
use crate::distribution::holdings::{Sending, secret_facts};
use crate::distribution::placed::{note_quiet, quiet_until};
use crate::distribution::placement::SitePlacement;
use crate::distribution::{
    CUTS_KEPT, Cut, Cuts, DELTA_BYTES_MAX, DELTA_ROWS_MAX, Holding, HostHolding, PART_BYTES_MAX,
};
use crate::ports::{Now, draw};
use crate::rows::{Batch, Kind, ReadRows, Refusal, RowKey, Rows};
use crate::site_registry::restored::refuse_while_stopped;
use crate::site_registry::{Held, Site, deployment, site};
use crate::store::Fault;

/// Holdings written by one transaction.
const HOLDINGS_PER_COMMIT: usize = 80;

/// Whose content, and where it lies at central.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenantRef {
    /// Its name.
    pub name: TenantName,
    /// Its realm, whose number its tokens carry.
    pub realm: Realm,
}

/// What a build gives.
#[derive(Debug)]
pub enum Built {
    /// Nothing of the tenant is or ever was at the site.
    Nothing,
    /// The base is the newest state.
    UpToDate,
    /// Bundles that lead from the base to `target`, to be applied in order.
    Bundles {
        /// Where they lead.
        target: Position,
        /// The key they are encrypted with.
        key: Secret<32>,
        /// Encoded bundles.
        bundles: Vec<Vec<u8>>,
    },
}

impl Built {
    /// What distribution is told; `head` signs one of the state after the build, which was for these `hosts`.
    ///
    /// # Errors
    /// Those of `head`.
    pub fn outcome(
        self,
        tenant: TenantName,
        hosts: BTreeSet<HostName>,
        head: impl FnOnce() -> Result<Signed, Refusal>,
    ) -> Result<BuildOutcome, Refusal> {
        Ok(match self {
            Self::Nothing => BuildOutcome::Nothing,
            Self::UpToDate => BuildOutcome::UpToDate,
            Self::Bundles { target, key, bundles } => {
                let bundles = bundles.into_iter().map(Arc::from).collect();
                BuildOutcome::Bundles(Arc::new(Push { tenant, target, key, bundles, head: head()?, hosts }))
            }
        })
    }
}

/// For whom to build.
#[derive(Debug)]
pub struct Order<'a> {
    /// Whose content.
    pub tenant: &'a TenantRef,
    /// For which site.
    pub site: &'a SiteName,
    /// Where the hosts stand.
    pub base: Option<&'a Position>,
    /// Hosts of the site that will be sent it; nobody else may be, since it is written down beforehand.
    pub hosts: &'a BTreeSet<HostName>,
}

/// Cuts if the content has changed since the last cut, and builds what leads from the hosts' base to the newest cut. What
/// site and hosts will hold then is committed when this returns.
///
/// # Errors
/// The site is cut off, sealed, or the store's fault.
pub fn build(barrier: &Barrier, order: &Order<'_>, signer: &SigningKey, now: Now) -> Result<Built, Refusal> {
    let Order { tenant, site: site_name, base, hosts } = *order;
    let snapshot = barrier.snapshot()?;
    refuse_while_stopped(&snapshot)?;
    let place = site(&snapshot, site_name)?.value;
    if place.standing.held == Held::Quarantined {
        return Err(Refusal::Denied);
    }
    let record = snapshot.read::<Tenant>(Realm::NODE, &[tenant.name.as_str()])?;
    let is_deleted = record.is_some_and(|row| row.value.deleted_us.is_some());
    let mut job = Job {
        barrier,
        placement: match is_deleted {
            true => SitePlacement::nothing(tenant.realm, site_name),
            false => SitePlacement::read(&snapshot, tenant.realm, site_name)?,
        },
        is_deleted,
        deployment: deployment(&snapshot)?,
        snapshot,
        tenant,
        site_name,
        place,
        signer,
        hosts,
        now,
    };
    let Some((cuts, target)) = job.cut(base.is_some())? else { return Ok(Built::Nothing) };
    if base == Some(&target.position) {
        return Ok(Built::UpToDate);
    }
    job.record_hosts(target.position.seq)?;
    // What an earlier term has cut may be known here and is not built upon: an adoption orders full copies.
    let from = base.filter(|base| base.term == target.position.term).and_then(|base| cuts.at(base));
    let from = from.filter(|cut| cut.has_content && target.has_content);
    if let Some(from) = from
        && let Some(rows) = job.delta(from.revision)?
        && rows.len() <= DELTA_ROWS_MAX
        && bytes_of(&rows) <= DELTA_BYTES_MAX
    {
        let items = rows.into_iter().map(|row| row.item).collect();
        let bundles = vec![job.encode(BundleKind::Delta, from.position, target.position, items)?];
        return Ok(job.built(target.position, bundles));
    }
    let bundles = job.full_copy(&target)?;
    Ok(job.built(target.position, bundles))
}

struct Job<'a> {
    barrier: &'a Barrier,
    snapshot: Snapshot,
    tenant: &'a TenantRef,
    site_name: &'a SiteName,
    place: Site,
    placement: SitePlacement,
    /// Its keys are gone: what is left to send is that there is nothing.
    is_deleted: bool,
    deployment: crate::site_registry::Deployment,
    signer: &'a SigningKey,
    hosts: &'a BTreeSet<HostName>,
    now: Now,
}

/// A row on its way into a bundle.
struct Outgoing {
    item: Item,
    store_key: Vec<u8>,
    ciphertext_hash: [u8; 32],
    version: u64,
    modified: u64,
}

impl Outgoing {
    fn put_or_take(changed: ChangedRow, placed: bool) -> Self {
        let body = changed.row.body.filter(|_| placed).map(|body| Body(SecretBytes::new(body.expose().to_vec())));
        Self {
            item: Item { kind: changed.key.kind as u8, path: changed.key.path, body },
            store_key: changed.store_key,
            ciphertext_hash: changed.ciphertext_hash,
            version: changed.row.version,
            modified: changed.row.modified.0,
        }
    }

    /// Whether hosts take it away by themselves, so that nobody has to know whether they were sent it: a revocation of
    /// one token, see [`crate::access_control::expiry`].
    fn ends_by_itself(&self) -> bool {
        self.item.kind == Kind::Revocation as u8 && self.item.path.first().is_some_and(|first| first == "token")
    }

    fn bytes(&self) -> usize {
        let names: usize = self.item.path.iter().map(|segment| segment.len() + 2).sum();
        16 + names + self.item.body.as_ref().map_or(0, |body| body.0.expose().len())
    }
}

fn bytes_of(rows: &[Outgoing]) -> usize {
    rows.iter().map(Outgoing::bytes).sum()
}

impl Job<'_> {
    /// The newest cut, after making one if content or epoch has moved; `None` if nothing was ever placed. A host that
    /// holds something all the same (`held`) has it from a life of this store that was lost: it is sent an empty copy.
    fn cut(&mut self, held: bool) -> Result<Option<(Cuts, Cut)>, Refusal> {
        let path = [self.tenant.name.as_str(), self.site_name.as_str()];
        let cuts = self.snapshot.read::<Cuts>(Realm::NODE, &path)?.map(|row| row.value).unwrap_or_default();
        let has_content = self.placement.has_content();
        let Some(last) = cuts.last() else {
            let wanted = has_content || held;
            return if wanted { self.make_whole_cut(cuts).map(Some) } else { Ok(None) };
        };
        let epochs_hold =
            last.position.dist_epoch == self.place.dist_epoch && last.position.term == self.deployment.term;
        let changed = match last.has_content == has_content {
            true if self.is_deleted => Some(Vec::new()),
            true => self.delta(quiet_until(&self.snapshot, self.tenant.realm, self.site_name, last)?)?,
            false => None,
        };
        match changed {
            Some(rows) if rows.is_empty() && epochs_hold => {
                if !self.is_deleted {
                    note_quiet(&self.snapshot, self.tenant.realm, self.site_name, last)?;
                }
                let last = last.clone();
                Ok(Some((cuts, last)))
            }
            Some(rows) => self.make_cut(cuts, rows, Vec::new()).map(Some),
            None => self.make_whole_cut(cuts).map(Some),
        }
    }

    /// A cut that is not told by what changed since another: what was there and is not any more has left.
    fn make_whole_cut(&self, cuts: Cuts) -> Result<(Cuts, Cut), Refusal> {
        let rows = self.everything()?;
        let here: BTreeSet<String> = rows.iter().map(|row| holding_key(&row.store_key)).collect();
        let path = [self.site_name.as_str(), self.tenant.name.as_str()];
        let held = self.snapshot.list::<Holding>(Realm::NODE, &path)?;
        let gone = held.into_iter().filter(|row| !row.value.left && !here.contains(row.name()));
        let left: Vec<(String, Sending)> = gone
            .filter_map(|row| Some((row.name().to_owned(), Sending::leaving(row.value)?)))
            .filter(|(_, sending)| sending.realm == self.tenant.realm)
            .collect();
        self.make_cut(cuts, rows, left)
    }

    fn make_cut(
        &self,
        mut cuts: Cuts,
        rows: Vec<Outgoing>,
        mut left: Vec<(String, Sending)>,
    ) -> Result<(Cuts, Cut), Refusal> {
        let before = cuts.last().map(|cut| cut.position).unwrap_or_default();
        for row in rows.iter().filter(|row| !row.ends_by_itself()) {
            left.push(self.sending(row)?);
        }
        self.record_holdings(left, before.seq.next())?;
        let revision = self.snapshot.revision();
        let mut placed = Vec::with_capacity(rows.len());
        for row in &rows {
            placed.push(length_prefixed(&[&row.store_key, &row.modified.to_be_bytes(), &row.ciphertext_hash]));
        }
        placed.sort();
        let hashes: Vec<&[u8]> = placed.iter().map(Vec::as_slice).collect();
        // Of a deleted tenant there is no key left; what is digested is of no size either.
        let of = if self.is_deleted { Realm::NODE } else { self.tenant.realm };
        let label = self.snapshot.realm_keys(of)?.derive("holdfast/cut-digest/v1");
        let seq = before.seq.next();
        let digest =
            hmac(label.expose(), &[&before.digest, &seq.0.to_be_bytes(), &revision.0.to_be_bytes(), &sha256(&hashes)]);
        let position = Position { term: self.deployment.term, dist_epoch: self.place.dist_epoch, seq, digest };
        let cut = Cut { position, revision, has_content: self.placement.has_content() };
        cuts.kept.push(cut.clone());
        let excess = cuts.kept.len().saturating_sub(CUTS_KEPT);
        cuts.kept.drain(..excess);
        self.commit_cut(&cuts, before)?;
        Ok((cuts, cut))
    }

    fn commit_cut(&self, cuts: &Cuts, before: Position) -> Result<(), Refusal> {
        let (tenant, name, cuts) = (self.tenant.name.clone(), self.site_name.clone(), cuts.clone());
        let epoch = self.place.dist_epoch;
        run(self.barrier, move |rows| {
            let path = [tenant.as_str(), name.as_str()];
            let place = site(rows, &name)?.value;
            let last = rows.read::<Cuts>(Realm::NODE, &path)?.and_then(|row| row.value.last().map(|cut| cut.position));
            refuse_while_stopped(rows)?;
            // The fence, and the promise of one cut at a time, hold at the commit or there is no cut.
            if place.standing.held == Held::Quarantined {
                return Err(Refusal::Denied);
            }
            if last.unwrap_or_default() != before || place.dist_epoch != epoch {
                return Err(Refusal::Conflict("the content was cut meanwhile".to_owned()));
            }
            let mut batch = Batch::housekeeping();
            batch.put(Realm::NODE, &path, &cuts);
            Ok((batch, ()))
        })
    }

    /// Page by page, each over what is committed: another build for the same site may be under way.
    fn record_holdings(&self, sent: Vec<(String, Sending)>, seq: Seq) -> Result<(), Refusal> {
        let at = (seq, self.now.wall_us);
        for page in sent.chunks(HOLDINGS_PER_COMMIT) {
            let page = page.to_vec();
            let (tenant, name) = (self.tenant.name.clone(), self.site_name.clone());
            run(self.barrier, move |rows| {
                let mut batch = Batch::housekeeping();
                for (key, sending) in &page {
                    let path = [name.as_str(), tenant.as_str(), key];
                    let before = rows.read::<Holding>(Realm::NODE, &path)?.map(|row| row.value);
                    batch.put(Realm::NODE, &path, &Holding::after(before, sending.clone(), at));
                }
                Ok((batch, ()))
            })?;
        }
        Ok(())
    }

    fn sending(&self, row: &Outgoing) -> Result<(String, Sending), Refusal> {
        let kind = Kind::from_byte(row.item.kind).ok_or(Refusal::Corrupt)?;
        let keys = self.snapshot.realm_keys(self.tenant.realm)?;
        let secret = match &row.item.body {
            Some(body) => secret_facts(&keys, kind, body.0.expose())?,
            None => None,
        };
        let sending = Sending {
            kind,
            path: row.item.path.clone(),
            realm: self.tenant.realm,
            version: row.version,
            secret,
            leaves: row.item.body.is_none(),
        };
        Ok((holding_key(&row.store_key), sending))
    }

    /// Notes that the hosts are sent a cut; nothing is written where that is known.
    fn record_hosts(&self, seq: Seq) -> Result<(), Refusal> {
        let (tenant, name, hosts) = (self.tenant.name.clone(), self.site_name.clone(), self.hosts.clone());
        let noted = move |rows: &dyn Rows| -> Result<Batch, Refusal> {
            let mut batch = Batch::housekeeping();
            for host in &hosts {
                let path = [name.as_str(), host.as_str(), tenant.as_str()];
                let mut held = rows.read::<HostHolding>(Realm::NODE, &path)?.map(|row| row.value).unwrap_or_default();
                if held.note(seq) {
                    batch.put(Realm::NODE, &path, &held);
                }
            }
            Ok(batch)
        };
        if noted(&self.snapshot)?.is_empty() {
            return Ok(());
        }
        run(self.barrier, move |rows| Ok((noted(rows)?, ())))
    }

    /// What changed after a revision, for this site; `None`: too long ago to tell.
    fn delta(&self, after: Revision) -> Result<Option<Vec<Outgoing>>, Refusal> {
        let realm = self.tenant.realm;
        let Some(changes) = self.snapshot.changes(realm, after)? else { return Ok(None) };
        let mut outgoing: BTreeMap<Vec<u8>, Outgoing> = BTreeMap::new();
        for changed in changes {
            let placed = self.placement.places(&self.snapshot, &changed)?;
            if changed.key.kind == Kind::Box {
                // Its placement may have changed, and with it where every secret in it belongs.
                for secret in self.snapshot.all(Kind::Secret, realm, &changed.key.path)? {
                    self.add(&mut outgoing, secret, placed)?;
                }
            }
            self.add(&mut outgoing, changed, placed)?;
        }
        Ok(Some(outgoing.into_values().collect()))
    }

    /// A row that belongs at the site goes there; one that does not is taken away if it was ever sent.
    fn add(&self, to: &mut BTreeMap<Vec<u8>, Outgoing>, changed: ChangedRow, placed: bool) -> Result<(), Refusal> {
        let gone = !placed || changed.row.body.is_none();
        if gone && !self.was_ever_sent(&changed)? {
            return Ok(());
        }
        to.insert(changed.store_key.clone(), Outgoing::put_or_take(changed, placed));
        Ok(())
    }

    fn was_ever_sent(&self, changed: &ChangedRow) -> Result<bool, Refusal> {
        let key = holding_key(&changed.store_key);
        let path = [self.site_name.as_str(), self.tenant.name.as_str(), &key];
        Ok(self.snapshot.read::<Holding>(Realm::NODE, &path)?.is_some())
    }

    /// Every row that belongs at the site.
    fn everything(&self) -> Result<Vec<Outgoing>, Refusal> {
        let rows = self.placement.everything(&self.snapshot)?;
        Ok(rows.into_iter().map(|changed| Outgoing::put_or_take(changed, true)).collect())
    }

    fn full_copy(&self, target: &Cut) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut parts: Vec<Vec<Item>> = vec![Vec::new()];
        let mut bytes = 0;
        for row in self.everything()? {
            if PART_BYTES_MAX < bytes + row.bytes() {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += row.bytes();
            parts.last_mut().expect("there is always a last part").push(row.item);
        }
        let of = u32::try_from(parts.len()).map_err(|_| Refusal::Fault(Fault::TooLarge))?;
        let encode =
            |(part, items)| self.encode(BundleKind::Full { part, of }, Position::default(), target.position, items);
        (0..of).zip(parts).map(encode).collect()
    }

    fn encode(&self, kind: BundleKind, base: Position, target: Position, items: Vec<Item>) -> Result<Vec<u8>, Refusal> {
        let header = Header {
            deployment: self.deployment.id,
            signer: self.signer.public().key_id(),
            suite: holdfast_protocol::envelope::SUITE_XAES_256_GCM,
            tenant: self.tenant.name.clone(),
            tenant_number: self.tenant.realm.0,
            site: self.site_name.clone(),
            kind,
            base,
            target,
            revision: self.barrier.snapshot()?.revision(),
        };
        let key = self.place.dist_key(&self.tenant.name);
        Ok(bundle::encode(&header, &items, &key, draw(&**self.barrier.entropy()), self.signer))
    }

    fn built(&self, target: Position, bundles: Vec<Vec<u8>>) -> Built {
        Built::Bundles { target, key: self.place.dist_key(&self.tenant.name), bundles }
    }
}

/// What names the holding of the row with this key at every site.
pub(super) fn holding_key_of(rows: &Snapshot, key: &RowKey) -> Result<String, Refusal> {
    Ok(holding_key(&rows.store_key(key)?))
}

/// What names a row among its site's holdings.
fn holding_key(store_key: &[u8]) -> String {
    hex::encode(&sha256(&[store_key])[..16])
}

/// Runs a decision and waits for it; for threads that may block.
fn run<T: Send + 'static>(
    barrier: &Barrier,
    decide: impl FnMut(&dyn Rows) -> Result<(Batch, T), Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let (tell, told) = mpsc::channel();
    barrier.submit(decide, move |outcome| drop(tell.send(outcome)));
    told.recv().unwrap_or(Err(Refusal::Fault(Fault::Stopped))).map(|(reply, _)| reply)
}
