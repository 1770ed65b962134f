//! When secrets were last read here, gathered for central: should this host be stolen, people want to know which of its
//! secrets were in use.
//!
//! Only in memory, and bounded. What was told is told again only when it is read again and some time has passed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use holdfast_protocol::wire::ReadItem;

/// Versions of secrets of which the last read is remembered.
const REMEMBERED_MAX: usize = 8192;
/// The last read of a version is told again after so long, microseconds.
const TOLD_AGAIN_US: i64 = 600_000_000;

/// A tenant's number at central, a secret's names, and its version.
type Key = (u32, Vec<String>, String);

/// The reads.
#[derive(Default)]
pub struct Reads {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    reads: BTreeMap<Key, Read>,
    /// The last that was told: others come first then.
    cursor: Option<Key>,
}

struct Read {
    at_us: i64,
    /// The read that was told last.
    told_us: Option<i64>,
}

impl Read {
    fn is_due(&self, now_us: i64) -> bool {
        self.told_us.is_none_or(|told| told < self.at_us && TOLD_AGAIN_US <= now_us.saturating_sub(told))
    }
}

impl Reads {
    /// Notes a read. Where there is no room and nothing that was told makes some, it is left out.
    pub fn note(&self, tenant_number: u32, path: Vec<String>, version: String, at_us: i64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant_number, path, version);
        if let Some(read) = known.reads.get_mut(&key) {
            read.at_us = at_us;
            return;
        }
        if REMEMBERED_MAX <= known.reads.len() {
            known.reads.retain(|_, read| read.told_us != Some(read.at_us));
        }
        if known.reads.len() < REMEMBERED_MAX {
            known.reads.insert(key, Read { at_us, told_us: None });
        }
    }

    /// What is to be told now, at most `most`; it counts as told.
    pub fn take(&self, most: usize, now_us: i64) -> Vec<ReadItem> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { reads, cursor } = &mut *known;
        let after = cursor.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let up_to = cursor.clone().map_or(Bound::Unbounded, Bound::Included);
        let mut items = take_from(reads.range_mut((after, Bound::Unbounded)), most, now_us);
        if cursor.is_some() {
            let left = most - items.len();
            items.extend(take_from(reads.range_mut((Bound::Unbounded, up_to)), left, now_us));
        }
        if let Some(last) = items.last() {
            *cursor = Some((last.tenant_number, last.path.clone(), last.version.clone()));
        }
        items
    }

    /// Forgets all: names stay nowhere in a sealed host.
    pub fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }
}

fn take_from<'k>(reads: impl Iterator<Item = (&'k Key, &'k mut Read)>, most: usize, now_us: i64) -> Vec<ReadItem> {
    let due = reads.filter(|(_, read)| read.is_due(now_us)).take(most);
    let told = due.map(|((tenant_number, path, version), read)| {
        read.told_us = Some(read.at_us);
        ReadItem { tenant_number: *tenant_number, path: path.clone(), version: version.clone(), at_us: read.at_us }
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Vec<String> {
        vec!["box".to_owned(), name.to_owned()]
    }

    fn told(reads: &Reads, most: usize, now_us: i64) -> Vec<(String, i64)> {
        reads.take(most, now_us).into_iter().map(|item| (item.path[1].clone(), item.at_us)).collect()
    }

    #[test]
    fn a_read_is_told_once_and_again_only_after_a_while() {
        let reads = Reads::default();
        reads.note(1, path("a"), "v1".to_owned(), 10);
        assert_eq!(told(&reads, 9, 11), [("a".to_owned(), 10)]);
        assert_eq!(told(&reads, 9, 10 + 2 * TOLD_AGAIN_US), [], "not read since");
        reads.note(1, path("a"), "v1".to_owned(), 20);
        assert_eq!(told(&reads, 9, 21), []);
        assert_eq!(told(&reads, 9, 10 + TOLD_AGAIN_US), [("a".to_owned(), 20)]);
        reads.note(1, path("a"), "v2".to_owned(), 30);
        assert_eq!(told(&reads, 9, 31), [("a".to_owned(), 30)], "another version");
    }

    #[test]
    fn all_have_their_turn_however_often_the_first_are_read() {
        let reads = Reads::default();
        let (mut now, mut seen) = (0, std::collections::BTreeSet::new());
        for _ in 0..4 {
            now += TOLD_AGAIN_US + 1;
            ["a", "b", "c", "d"].into_iter().for_each(|name| reads.note(1, path(name), "v".to_owned(), now));
            let two = told(&reads, 2, now);
            assert_eq!(two.len(), 2);
            seen.extend(two.into_iter().map(|(name, _)| name));
        }
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn there_is_a_bound_and_what_was_told_makes_room() {
        let reads = Reads::default();
        (0..REMEMBERED_MAX + 5).for_each(|n| reads.note(1, path(&n.to_string()), "v".to_owned(), 1));
        let first = reads.take(100, 2).len();
        assert_eq!(first, 100);
        (0..150).for_each(|n| reads.note(2, path(&n.to_string()), "v".to_owned(), 1));
        assert_eq!(reads.known.lock().unwrap().reads.len(), REMEMBERED_MAX);
        reads.forget();
        assert!(reads.take(1, 3).is_empty());
    }
}
