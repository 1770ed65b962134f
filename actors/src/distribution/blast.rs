//! The blast radius of a site or a host: every secret version that it was ever sent, and whether what it knows of each is
//! still of use.
//!
//! An entry is open while the secret has the very value that was sent. It closes by itself once another value is written
//! or the secret is deleted, wherever that is done, and opens again should somebody write the old value back.
//!
//! An approle has entries too: hosts of the site know its role-id, and what they have issued to programs is good there
//! for as long as the approle's instance lasts. Revoking it closes them, but for one whose role-id alone logs in.
//!
//! A key's entry is open while it encrypts with the version that was sent. Versions before that were sent along; what they
//! have encrypted whoever has them can read, until it is encrypted anew and they are erased.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::ids::{HostName, Realm, SiteName, TenantName};
use holdfast_protocol::kes::KeyName;
use serde::Serialize;

use crate::barrier::Snapshot;
use crate::distribution::holdings::{HeldVersion, Holding, HostHolding, SecretFacts, is_secret, secret_facts};
use crate::distribution::reads::LastReads;
use crate::rows::{Kind, ReadRows, Record, Refusal, RowKey, Rows, decode_body};

/// Entries on a page, unless fewer are asked for. One secret's versions are never parted.
pub const PAGE_ENTRIES_MAX: usize = 1000;
/// Rows read at once.
const ROWS_AT_ONCE: usize = 512;

/// Whose holdings are looked at, and for whom.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The site.
    pub site: SiteName,
    /// Only what this host of it was sent.
    pub host: Option<HostName>,
    /// Only what is this tenant's.
    pub tenant: Option<(TenantName, Realm)>,
    /// Only entries that are open. Counts are of all.
    pub open_only: bool,
}

/// Where a page ends and the next begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The tenant of the last item.
    pub tenant: TenantName,
    /// The last item.
    pub item: String,
}

/// Whether a version that was sent is still of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is what the secret is now.
    Open,
    /// The secret has another value now.
    Rotated,
    /// There is no such secret any more.
    Deleted,
}

/// One version at the site or host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub tenant: TenantName,
    /// The tenant's realm.
    pub realm: Realm,
    /// What it is a version of.
    pub kind: Kind,
    /// Names the secret in every report about every site, and tells nothing of it.
    pub item: String,
    /// The secret's names: box, and path in it; or the approle's, or the key's.
    pub path: Vec<String>,
    /// The version.
    pub held: HeldVersion,
    /// Whether it is of use.
    pub status: Status,
    /// When what the secret is now was written, microseconds since the Unix epoch.
    pub changed_us: Option<i64>,
    /// When this version was last read there, as far as central was told.
    pub last_read_us: Option<i64>,
}

/// Some entries, and where to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In no order that tells anything; the same with each call.
    pub entries: Vec<Entry>,
    /// `None`: there are no more.
    pub next: Option<Cursor>,
}

/// How much of one tenant, or of all, was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Vaults of which something was sent.
    pub vaults: u64,
    /// Secrets.
    pub secrets: u64,
    /// Approles by which programs log in there.
    pub approles: u64,
    /// Keys that encrypt there.
    pub keys: u64,
    /// Versions of secrets, approles and keys.
    pub versions: u64,
    /// Versions still of use.
    pub open: u64,
    /// Versions that are not what their secret is now.
    pub rotated: u64,
    /// Versions whose secret is deleted.
    pub deleted: u64,
    /// Versions so old that they are only counted here: each was replaced by at least as many newer ones as are listed.
    pub unlisted: u64,
}

impl Counts {
    /// Versions that are no longer of use.
    pub fn closed(&self) -> u64 {
        self.rotated + self.deleted
    }

    fn add(&mut self, other: &Self) {
        self.vaults += other.vaults;
        self.secrets += other.secrets;
        self.approles += other.approles;
        self.keys += other.keys;
        self.versions += other.versions;
        self.open += other.open;
        self.rotated += other.rotated;
        self.deleted += other.deleted;
        self.unlisted += other.unlisted;
    }
}

/// The counts of everything in scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// All tenants together.
    pub total: Counts,
    /// Each tenant by name. One that was deleted and made again counts once more.
    pub tenants: BTreeMap<(TenantName, Realm), Counts>,
}

/// A page of entries.
///
/// # Errors
/// A cursor from elsewhere, or the store's fault.
pub fn page(rows: &Snapshot, scope: &Scope, after: Option<&Cursor>, limit: usize) -> Result<Page, Refusal> {
    let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
    let mut walk = Walk::new(rows, scope, after);
    let mut page = Page::default();
    while let Some(item) = walk.next()? {
        let reads = last_reads(rows, scope, &item)?;
        let entries = item.entries(&reads, scope.host.as_ref());
        let entries: Vec<Entry> = entries.filter(|entry| !scope.open_only || entry.status == Status::Open).collect();
        if !page.entries.is_empty() && limit < page.entries.len() + entries.len() {
            let last = page.entries.last();
            page.next = last.map(|entry| Cursor { tenant: entry.tenant.clone(), item: entry.item.clone() });
            break;
        }
        page.entries.extend(entries);
    }
    Ok(page)
}

/// The counts. Looks at every row in scope.
///
/// # Errors
/// The store's fault.
pub fn summary(rows: &Snapshot, scope: &Scope) -> Result<Summary, Refusal> {
    let mut walk = Walk::new(rows, scope, None);
    let mut vaults: BTreeSet<(TenantName, Realm, String)> = BTreeSet::new();
    let mut summary = Summary::default();
    while let Some(item) = walk.next()? {
        let of = (item.tenant.clone(), item.holding.realm);
        let counts = summary.tenants.entry(of).or_default();
        match (item.kind, item.holding.path.first()) {
            (Kind::Approle, _) => counts.approles += 1,
            (Kind::TransitKey, _) => counts.keys += 1,
            (_, vault) => {
                let of_vault = |vault: &String| (item.tenant.clone(), item.holding.realm, vault.clone());
                counts.vaults += u64::from(vault.is_some_and(|vault| vaults.insert(of_vault(vault))));
                counts.secrets += 1;
            }
        }
        counts.unlisted += item.unlisted;
        for held in &item.versions {
            counts.versions += 1;
            match item.status_of(held) {
                Status::Open => counts.open += 1,
                Status::Rotated => counts.rotated += 1,
                Status::Deleted => counts.deleted += 1,
            }
        }
    }
    for counts in summary.tenants.values() {
        summary.total.add(counts);
    }
    Ok(summary)
}

/// A key that encrypts, or makes HMACs, with what a site or host was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenKey {
    /// The tenant's realm.
    pub realm: Realm,
    /// Which key.
    pub name: KeyName,
    /// The version that does.
    pub number: u32,
}

/// The keys of all tenants that encrypt, or make HMACs, with what a site, or a host of it, was sent.
///
/// # Errors
/// The store's fault.
pub fn open_keys(rows: &Snapshot, site: &SiteName, host: Option<&HostName>) -> Result<Vec<OpenKey>, Refusal> {
    let scope = Scope { site: site.clone(), host: host.cloned(), tenant: None, open_only: true };
    let mut walk = Walk { only: Some(Kind::TransitKey), ..Walk::new(rows, &scope, None) };
    let mut open = Vec::new();
    while let Some(item) = walk.next()? {
        if !item.versions.iter().any(|held| item.status_of(held) == Status::Open) {
            continue;
        }
        let ([name], Some(now)) = (item.holding.path.as_slice(), &item.now) else { return Err(Refusal::Corrupt) };
        let (name, number) = (name.parse().map_err(|_| Refusal::Corrupt)?, now.id.parse());
        open.push(OpenKey { realm: item.holding.realm, name, number: number.map_err(|_| Refusal::Corrupt)? });
    }
    Ok(open)
}

/// One secret, with the versions that are in scope: at least one.
struct Item {
    kind: Kind,
    tenant: TenantName,
    item: String,
    holding: Holding,
    versions: Vec<HeldVersion>,
    unlisted: u64,
    /// What the secret is now.
    now: Option<SecretFacts>,
}

impl Item {
    fn status_of(&self, held: &HeldVersion) -> Status {
        match &self.now {
            None => Status::Deleted,
            Some(now) if now.are_opened_by(held) => Status::Open,
            Some(_) => Status::Rotated,
        }
    }

    fn entries<'r>(&'r self, reads: &'r LastReads, host: Option<&'r HostName>) -> impl Iterator<Item = Entry> + 'r {
        self.versions.iter().map(move |held| Entry {
            tenant: self.tenant.clone(),
            realm: self.holding.realm,
            kind: self.kind,
            item: self.item.clone(),
            path: self.holding.path.clone(),
            held: held.clone(),
            status: self.status_of(held),
            changed_us: self.now.as_ref().map(|now| now.written_us),
            last_read_us: reads.of(&held.id, host),
        })
    }
}

fn last_reads(rows: &Snapshot, scope: &Scope, item: &Item) -> Result<LastReads, Refusal> {
    let path = [scope.site.as_str(), item.tenant.as_str(), &item.item];
    Ok(rows.read::<LastReads>(Realm::NODE, &path)?.map(|row| row.value).unwrap_or_default())
}

/// Goes through the holdings in scope, some rows at a time.
struct Walk<'a> {
    rows: &'a Snapshot,
    scope: &'a Scope,
    below: Vec<String>,
    after: Option<Vec<String>>,
    read: std::vec::IntoIter<crate::rows::RawRow>,
    ended: bool,
    /// `None`: everything that is secret.
    only: Option<Kind>,
    /// What the host was sent, tenant by tenant.
    hosts: BTreeMap<TenantName, HostHolding>,
}

impl<'a> Walk<'a> {
    fn new(rows: &'a Snapshot, scope: &'a Scope, after: Option<&Cursor>) -> Self {
        let site = scope.site.as_str().to_owned();
        let mut below = vec![site.clone()];
        below.extend(scope.tenant.as_ref().map(|(name, _)| name.as_str().to_owned()));
        let after = after.map(|cursor| vec![site, cursor.tenant.as_str().to_owned(), cursor.item.clone()]);
        let (read, hosts) = (Vec::new().into_iter(), BTreeMap::new());
        Self { rows, scope, below, after, read, ended: false, only: None, hosts }
    }

    fn next(&mut self) -> Result<Option<Item>, Refusal> {
        loop {
            let Some(row) = self.read.next() else {
                if self.ended {
                    return Ok(None);
                }
                self.read_on()?;
                continue;
            };
            let Some(body) = row.body else { continue };
            let holding: Holding = decode_body(body.expose())?;
            let Some(kind) = Kind::from_byte(holding.kind).filter(|kind| is_secret(*kind)) else { continue };
            if self.only.is_some_and(|only| only != kind) {
                continue;
            }
            let [_, tenant, item] = row.path.as_slice() else { return Err(Refusal::Corrupt) };
            let tenant: TenantName = tenant.parse().map_err(|_| Refusal::Corrupt)?;
            if let Some(found) = self.item(kind, (tenant, item.clone()), holding)? {
                return Ok(Some(found));
            }
        }
    }

    fn read_on(&mut self) -> Result<(), Refusal> {
        let found = self.rows.page((Holding::KIND, Realm::NODE), &self.below, self.after.as_deref(), ROWS_AT_ONCE)?;
        self.ended = found.len() < ROWS_AT_ONCE;
        self.after = found.last().map(|row| row.path.clone()).or(self.after.take());
        self.read = found.into_iter();
        Ok(())
    }

    fn item(
        &mut self,
        kind: Kind,
        (tenant, item): (TenantName, String),
        holding: Holding,
    ) -> Result<Option<Item>, Refusal> {
        if self.scope.tenant.as_ref().is_some_and(|(_, realm)| *realm != holding.realm) {
            return Ok(None);
        }
        let mut versions = holding.versions.clone();
        let mut unlisted = holding.unlisted;
        if let Some(host) = &self.scope.host {
            let sent = match self.hosts.get(&tenant) {
                Some(sent) => sent,
                None => {
                    let sent = self.sent_to(host, &tenant)?;
                    self.hosts.entry(tenant.clone()).or_insert(sent)
                }
            };
            versions.retain(|version| sent.has(version));
            // Which of them this host was sent is not known any more.
            unlisted = if sent.runs.is_empty() { 0 } else { unlisted };
        }
        if versions.is_empty() {
            return Ok(None);
        }
        let versions = joined(versions);
        let now = secret_now(self.rows, kind, &holding)?;
        Ok(Some(Item { kind, tenant, item, holding, versions, unlisted, now }))
    }

    fn sent_to(&self, host: &HostName, tenant: &TenantName) -> Result<HostHolding, Refusal> {
        let path = [self.scope.site.as_str(), host.as_str(), tenant.as_str()];
        Ok(self.rows.read::<HostHolding>(Realm::NODE, &path)?.map(|row| row.value).unwrap_or_default())
    }
}

/// A version that went and came again is one version.
fn joined(versions: Vec<HeldVersion>) -> Vec<HeldVersion> {
    let mut joined: Vec<HeldVersion> = Vec::with_capacity(versions.len());
    for version in versions {
        match joined.iter_mut().find(|known| known.is_same(&version)) {
            Some(known) => (known.version, known.until) = (version.version, version.until),
            None => joined.push(version),
        }
    }
    joined
}

/// What a secret is now; `None`: it is deleted, or its tenant is.
fn secret_now(rows: &Snapshot, kind: Kind, holding: &Holding) -> Result<Option<SecretFacts>, Refusal> {
    let key = RowKey { kind, realm: holding.realm, path: holding.path.clone() };
    let row = match rows.load(&key) {
        Ok(row) => row,
        Err(Refusal::NotFound(_)) => None,
        Err(refusal) => return Err(refusal),
    };
    let Some(body) = row.and_then(|row| row.body) else { return Ok(None) };
    secret_facts(&*rows.realm_keys(holding.realm)?, kind, body.expose())
}
