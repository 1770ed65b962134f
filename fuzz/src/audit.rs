//! Audit chains as they lie on a disk: segments of the read journal, and the lines and heads in a store. Following them
//! needs no key, so whoever can write the disk writes what is followed; what was recorded can't be altered unseen.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use holdfast_actors::audit_log::Head;
use holdfast_actors::audit_log::journal::{Journal, Limits, verify_journal};
use holdfast_actors::audit_log::verify::{Report, verify_store};
use holdfast_actors::store::{Change, ChangesError, Entry, Fault, View};
use holdfast_protocol::ids::{Realm, Revision};

use crate::world::{Counted, World, folder};
use crate::{Memory, choose, chosen};

/// A segment is read whole, twice; a head of a chain is 45 bytes in memory for 42 on disk.
pub const MEMORY: Memory = Memory { fixed: 256 << 10, each: 64 };

/// Reads `data` as what its first byte says.
pub fn target(data: &[u8]) {
    let Some((which, bytes)) = choose(data) else { return };
    match which % 3 {
        0 => segment(bytes),
        1 => recovery(bytes),
        _ => store(bytes),
    }
}

/// What was recorded here: a segment with some lines, its heads, and the rows of the chains of changes and commits.
struct Recorded {
    segment: Vec<u8>,
    heads: BTreeMap<Realm, Head>,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
}

fn recorded() -> &'static Recorded {
    static KEPT: OnceLock<Recorded> = OnceLock::new();
    KEPT.get_or_init(|| {
        let world = World::new();
        let segment = fs::read(world.journal_path()).expect("a journal has a segment");
        let view = world.barrier.engine().snapshot().expect("memory does not fail");
        let found = view.range(&[2], &[6], usize::MAX).expect("memory does not fail");
        let rows = found.into_iter().map(|(key, entry)| (key, entry.value)).collect();
        let mut report = Report::default();
        verify_journal(world.journal_folder(), &mut report).expect("a journal can be read");
        assert!(report.first_break.is_none() && report.reads > 2, "{report:?}");
        let heads = heads_of(&segment);
        Recorded { segment, heads, rows }
    })
}

/// The last head of each chain in a segment that holds.
fn heads_of(segment: &[u8]) -> BTreeMap<Realm, Head> {
    let number = |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
    let mut at = 12 + number(8) as usize;
    let mut heads = BTreeMap::new();
    while at < segment.len() {
        let end = at + 4 + number(at) as usize;
        let line = [&segment[at + 8..at + 16], &segment[end - 32..end]].concat();
        heads.extend(Head::from_bytes(&line).map(|head| (Realm(number(at + 4)), head)));
        at = end;
    }
    heads
}

/// A journal with this one segment is verified against commits that name the recorded heads. If it begins as the recorded
/// one does and all is well, all that was recorded is in it.
fn segment(bytes: &[u8]) {
    let recorded = recorded();
    let folder = folder();
    fs::write(folder.path().join("reads-0000000001.log"), bytes).expect("a file can be written");
    let mut report = Report { named_reads: recorded.heads.clone(), ..Report::default() };
    verify_journal(folder.path(), &mut report).expect("a segment can be read");
    let header = &recorded.segment[..12 + 2];
    if report.first_break.is_none() && bytes.starts_with(header) {
        assert!(bytes.starts_with(&recorded.segment), "altered, and not noticed");
    }
}

/// A node that starts on this segment goes on behind the last line that holds, or says that it can't: it keeps what it
/// cuts off, and what is left verifies.
fn recovery(bytes: &[u8]) {
    let folder = folder();
    let path = folder.path().join("reads-0000000001.log");
    fs::write(&path, bytes).expect("a file can be written");
    let opened = Journal::open(folder.path(), Limits::default(), Arc::new(Counted::default()));
    let Ok(journal) = opened else {
        return assert_eq!(fs::read(&path).expect("it is still there"), bytes, "refused, and changed");
    };
    drop(journal);
    let mut left = fs::read(&path).expect("it is still there");
    left.extend(fs::read(path.with_extension("cut")).unwrap_or_default());
    assert_eq!(left, bytes, "something is gone");
    let mut report = Report::default();
    verify_journal(folder.path(), &mut report).expect("a segment can be read");
    assert_eq!(report.first_break, None, "what was recovered does not verify");
}

/// `key length u8 | value length u16 | key | value`, repeated: rows of a store.
fn store(bytes: &[u8]) {
    let rows = rows(bytes);
    let report = verify_store(&Rows(&rows)).expect("memory does not fail");
    let recorded = recorded();
    if report.first_break.is_none() {
        // The head of the chain of commits stands for all of it.
        let head = |rows: &BTreeMap<Vec<u8>, Vec<u8>>| rows.get(&[5][..]).cloned();
        let known: BTreeMap<_, _> = recorded.rows.iter().cloned().collect();
        let same = head(&rows).is_some() && head(&rows) == head(&known);
        assert!(!same || known.iter().all(|(key, value)| rows.get(key) == Some(value)), "altered, and not noticed");
    }
}

fn rows(mut bytes: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    while let Some(([key, high, low], rest)) = bytes.split_first_chunk::<3>() {
        let Some((key, rest)) = rest.split_at_checked(usize::from(*key)) else { break };
        let Some((value, rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))) else { break };
        rows.insert(key.to_vec(), value.to_vec());
        bytes = rest;
    }
    rows
}

/// Rows as a store shows them.
struct Rows<'a>(&'a BTreeMap<Vec<u8>, Vec<u8>>);

impl Rows<'_> {
    fn entry(value: &[u8]) -> Entry {
        Entry { value: value.to_vec(), created: Revision(1), modified: Revision(1), version: 1 }
    }
}

impl View for Rows<'_> {
    fn revision(&self) -> Revision {
        Revision(1)
    }
    fn get(&self, key: &[u8]) -> Result<Option<Entry>, Fault> {
        Ok(self.0.get(key).map(|value| Self::entry(value)))
    }
    fn range(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, Fault> {
        if until <= from {
            return Ok(Vec::new());
        }
        let found = self.0.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until)));
        Ok(found.take(limit).map(|(key, value)| (key.clone(), Self::entry(value))).collect())
    }
    fn changes(&self, _: Revision, _: usize) -> Result<Vec<Change>, ChangesError> {
        Ok(Vec::new())
    }
}

/// What was recorded.
pub fn seeds() -> Vec<Vec<u8>> {
    let Recorded { segment, rows, .. } = recorded();
    let mut stored = Vec::new();
    for (key, value) in rows {
        let (Ok(key_length), Ok(length)) = (u8::try_from(key.len()), u16::try_from(value.len())) else { continue };
        stored.push(key_length);
        stored.extend_from_slice(&length.to_be_bytes());
        stored.extend_from_slice(key);
        stored.extend_from_slice(value);
    }
    vec![chosen(0, segment), chosen(1, segment), chosen(2, &stored)]
}
