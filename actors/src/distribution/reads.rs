//! When secrets were last read at sites: a host gathers it, central keeps it with what the site holds.
//!
//! It is what a host has told while it was connected: what was read since, nobody knows.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use holdfast_protocol::ids::{HostId, HostName, Realm};
use holdfast_protocol::limits::{PATH_LEVELS_MAX, SEGMENT_BYTES_MAX};
use holdfast_protocol::wire::{READS_TOLD_MAX, ReadItem};
use serde::{Deserialize, Serialize};

use crate::access_control::tenants::tenants;
use crate::barrier::Snapshot;
use crate::distribution::Holding;
use crate::distribution::build::holding_key_of;
use crate::ports::Now;
use crate::rows::{Batch, Kind, ReadRows, Record, Refusal, RowKey, Rows};

/// Reads kept of one secret at one site: the last ones of as many hosts and versions.
pub const READS_KEPT: usize = 128;
/// Longest id of a version.
const VERSION_BYTES_MAX: usize = 64;

/// When a secret was last read at a site; row `[site, tenant, item]` as its [`Holding`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReads {
    /// In no order.
    pub kept: Vec<LastRead>,
}

impl Record for LastReads {
    const KIND: Kind = Kind::LastReads;
}

/// The last read of a version at a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRead {
    /// The host.
    pub host: HostName,
    /// The version, as its tenant knows it.
    pub version: String,
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
}

impl LastReads {
    /// When a version was last read, at one host or any.
    pub fn of(&self, version: &str, host: Option<&HostName>) -> Option<i64> {
        let of = |read: &&LastRead| read.version == version && host.is_none_or(|host| *host == read.host);
        self.kept.iter().filter(of).map(|read| read.at_us).max()
    }

    /// Takes a read; says whether it is news.
    fn take(&mut self, read: LastRead) -> bool {
        match self.kept.iter_mut().find(|known| (&known.host, &known.version) == (&read.host, &read.version)) {
            Some(known) if read.at_us <= known.at_us => return false,
            Some(known) => known.at_us = read.at_us,
            None => self.kept.push(read),
        }
        if READS_KEPT < self.kept.len() {
            self.drop_one();
        }
        true
    }

    /// The oldest of the host of which most is kept goes: so the words of one host push out no other's.
    fn drop_one(&mut self) {
        let of = |host: &HostName| self.kept.iter().filter(|read| read.host == *host).count();
        let most = |(_, read): &(usize, &LastRead)| (of(&read.host), Reverse(read.at_us));
        let gone = self.kept.iter().enumerate().max_by_key(most).map(|(at, _)| at);
        gone.map(|at| self.kept.swap_remove(at));
    }
}

/// What a host told, as rows: its item and its tenant's name are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    path: [String; 3],
    read: LastRead,
}

/// Finds what a host's words are about. What its site never held is passed over, versions too: a host has no
/// business with it.
///
/// # Errors
/// The store's fault.
pub fn find(rows: &Snapshot, host: &HostId, items: Vec<ReadItem>, now: Now) -> Result<Vec<Told>, Refusal> {
    let names: BTreeMap<u32, String> =
        tenants(rows)?.into_iter().map(|tenant| (tenant.realm.0, tenant.name.to_string())).collect();
    let mut told = Vec::new();
    for item in items.into_iter().take(READS_TOLD_MAX).filter(is_sane) {
        let Some(tenant) = names.get(&item.tenant_number) else { continue };
        let key = RowKey { kind: Kind::Secret, realm: Realm(item.tenant_number), path: item.path };
        let item_key = holding_key_of(rows, &key)?;
        let path = [host.site.as_str(), tenant.as_str(), &item_key];
        let held = rows.read::<Holding>(Realm::NODE, &path)?.map(|row| row.value.versions).unwrap_or_default();
        if !held.iter().any(|held| held.id == item.version) {
            continue;
        }
        let at_us = item.at_us.min(now.wall_us);
        told.push(Told {
            path: path.map(str::to_owned),
            read: LastRead { host: host.host.clone(), version: item.version, at_us },
        });
    }
    Ok(told)
}

fn is_sane(item: &ReadItem) -> bool {
    (1..=PATH_LEVELS_MAX).contains(&item.path.len())
        && item.path.iter().all(|segment| (1..=SEGMENT_BYTES_MAX).contains(&segment.len()))
        && item.version.len() <= VERSION_BYTES_MAX
}

/// Keeps what [`find`] found; what is known already writes nothing.
///
/// # Errors
/// The store's fault.
pub fn keep(told: &[Told], rows: &dyn Rows) -> Result<(Batch, ()), Refusal> {
    let mut known: BTreeMap<[&str; 3], (LastReads, bool)> = BTreeMap::new();
    for Told { path: [site, tenant, item], read } in told {
        let path = [site.as_str(), tenant.as_str(), item.as_str()];
        let (mut of_item, was_news) = match known.remove(&path) {
            Some(found) => found,
            None => {
                let row = rows.read::<LastReads>(Realm::NODE, &path)?;
                (row.map(|row| row.value).unwrap_or_default(), false)
            }
        };
        let is_news = of_item.take(read.clone());
        known.insert(path, (of_item, was_news || is_news));
    }
    let mut batch = Batch::housekeeping();
    for (path, (of_item, _)) in known.iter().filter(|(_, (_, is_news))| *is_news) {
        batch.put(Realm::NODE, path, of_item);
    }
    Ok((batch, ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(host: &str, version: &str, at_us: i64) -> LastRead {
        LastRead { host: host.parse().unwrap(), version: version.to_owned(), at_us }
    }

    #[test]
    fn the_last_read_of_each_version_at_each_host_is_kept() {
        let mut kept = LastReads::default();
        for (told, news) in [
            (read("a", "v1", 5), true),
            (read("a", "v1", 5), false),
            (read("a", "v1", 4), false),
            (read("b", "v1", 9), true),
            (read("a", "v2", 7), true),
            (read("a", "v1", 6), true),
        ] {
            assert_eq!(kept.take(told.clone()), news, "{told:?}");
        }
        let a = "a".parse().unwrap();
        assert_eq!((kept.of("v1", None), kept.of("v1", Some(&a))), (Some(9), Some(6)));
        assert_eq!((kept.of("v2", None), kept.of("v3", None)), (Some(7), None));
    }

    #[test]
    fn reads_are_bounded_and_the_oldest_go_first() {
        let mut kept = LastReads::default();
        for number in 0..READS_KEPT as i64 + 10 {
            assert!(kept.take(read("a", &format!("v{number}"), number)));
        }
        assert_eq!(kept.kept.len(), READS_KEPT);
        assert_eq!((kept.of("v9", None), kept.of("v10", None)), (None, Some(10)));
    }

    #[test]
    fn what_one_host_tells_pushes_out_no_other() {
        let mut kept = LastReads::default();
        assert!(kept.take(read("b", "v1", 1)));
        for number in 0..2 * READS_KEPT as i64 {
            assert!(kept.take(read("a", &format!("w{number}"), 10 + number)));
        }
        let b = "b".parse().unwrap();
        assert_eq!((kept.kept.len(), kept.of("v1", Some(&b))), (READS_KEPT, Some(1)));
    }

    #[test]
    fn what_can_be_no_name_is_passed_over() {
        let item = |path: Vec<String>, version: &str| ReadItem {
            tenant_number: 1,
            path,
            version: version.to_owned(),
            at_us: 1,
        };
        assert!(is_sane(&item(vec!["a".to_owned(), "b".to_owned()], "v")));
        for bad in [
            item(Vec::new(), "v"),
            item(vec![String::new()], "v"),
            item(vec!["x".repeat(256)], "v"),
            item(vec!["x".to_owned(); 17], "v"),
            item(vec!["x".to_owned()], &"v".repeat(65)),
        ] {
            assert!(!is_sane(&bad), "{bad:?}");
        }
    }
}
