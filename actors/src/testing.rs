//! Rows in a map, for tests of ledgers: no keys, no engine, the same meaning.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::ids::{Realm, Revision};
use holdfast_protocol::secret::{Secret, SecretBytes};

use crate::audit_log::Line;
use crate::ports::Now;
use crate::rows::{Batch, Kind, RawRow, Refusal, RowKey, Rows, Write};

/// A store without encryption.
#[derive(Default)]
pub(crate) struct MapRows {
    revision: u64,
    realms: BTreeSet<Realm>,
    rows: BTreeMap<RowKey, Stored>,
    /// Every audit line so far.
    pub(crate) lines: Vec<(Realm, Line)>,
}

struct Stored {
    body: Option<Vec<u8>>,
    version: u64,
    modified: Revision,
}

impl MapRows {
    /// A store with the node's realm.
    pub(crate) fn new() -> Self {
        Self { realms: BTreeSet::from([Realm::NODE]), ..Self::default() }
    }

    /// Decides and, unless refused, writes.
    pub(crate) fn run<T>(
        &mut self,
        decide: impl FnOnce(&dyn Rows) -> Result<(Batch, T), Refusal>,
    ) -> Result<T, Refusal> {
        let (batch, reply) = decide(self)?;
        self.apply(batch);
        Ok(reply)
    }

    fn apply(&mut self, batch: Batch) {
        assert!(batch.housekeeping || batch.lines.len() == 1, "a change has one line");
        self.revision += 1;
        for write in batch.writes {
            match write {
                Write::CreateRealm { realm, .. } => assert!(self.realms.insert(realm), "{realm:?} is made once"),
                Write::Put { key, body } => self.write(key, Some(body.expose().to_vec())),
                Write::Delete { key } => self.write(key, None),
                Write::Forget { key } => drop(self.rows.remove(&key)),
                Write::Boot { .. } => {} // Outside the barrier: no ledger reads it.
            }
        }
        self.lines.extend(batch.lines);
    }

    fn write(&mut self, key: RowKey, body: Option<Vec<u8>>) {
        key.check().unwrap();
        assert!(self.realms.contains(&key.realm), "{:?} exists", key.realm);
        let version = self.rows.get(&key).map_or(0, |stored| stored.version) + 1;
        self.rows.insert(key, Stored { body, version, modified: Revision(self.revision) });
    }

    /// Copies rows of some kinds into a realm of another store, as distribution does.
    pub(crate) fn copy_to(&self, kinds: &[Kind], from: Realm, other: &mut Self, to: Realm) {
        other.realms.insert(to);
        for (key, stored) in self.rows.iter().filter(|(key, _)| key.realm == from && kinds.contains(&key.kind)) {
            other.write(RowKey { realm: to, ..key.clone() }, stored.body.clone());
        }
    }
}

impl Rows for MapRows {
    fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    fn load(&self, key: &RowKey) -> Result<Option<RawRow>, Refusal> {
        key.check()?;
        if !self.realms.contains(&key.realm) {
            return Err(Refusal::NotFound("realm"));
        }
        Ok(self.rows.get(key).map(|stored| raw(key, stored)))
    }

    fn highest_realm(&self) -> Result<Realm, Refusal> {
        Ok(self.realms.last().copied().unwrap_or(Realm::NODE))
    }

    fn scan(&self, kind: Kind, realm: Realm, path: &[String]) -> Result<Vec<RawRow>, Refusal> {
        if !self.realms.contains(&realm) {
            return Err(Refusal::NotFound("realm"));
        }
        let below = |key: &RowKey| {
            key.kind == kind && key.realm == realm && path.len() < key.path.len() && key.path.starts_with(path)
        };
        Ok(self.rows.iter().filter(|(key, _)| below(key)).map(|(key, stored)| raw(key, stored)).collect())
    }
}

fn raw(key: &RowKey, stored: &Stored) -> RawRow {
    RawRow {
        path: key.path.clone(),
        body: stored.body.clone().map(SecretBytes::new),
        version: stored.version,
        modified: stored.modified,
    }
}

/// A moment, in seconds since the Unix epoch.
pub(crate) fn at(wall_s: i64) -> Now {
    Now { mono: std::time::Duration::ZERO, wall_us: wall_s * 1_000_000 }
}

/// A secret that tests can tell from others.
pub(crate) fn secret(fill: u8) -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(fill))
}
