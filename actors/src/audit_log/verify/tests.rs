//! Every way to bend the chains in a store is named.

use std::sync::{Arc, mpsc};

use holdfast_protocol::ids::{DeploymentId, Revision};
use holdfast_protocol::secret::Secret;

use super::*;
use crate::audit_log::Line;
use crate::barrier::{Barrier, NoReads};
use crate::keyring::{Keyring, RealmKeys};
use crate::ports::Entropy;
use crate::rows::Batch;
use crate::store::memory::MemoryEngine;
use crate::store::{Decide, Engine, Entry, Op};

struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, into: &mut [u8]) {
        into.fill(0);
    }
}

fn secret(fill: u8) -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(fill))
}

fn write(barrier: &Barrier, batch: Batch) {
    let (tell, told) = mpsc::channel();
    let mut batch = Some(batch);
    barrier.submit(move |_| Ok((batch.take().unwrap(), ())), move |outcome| tell.send(outcome).unwrap());
    told.recv().unwrap().unwrap();
}

fn line(text: &str) -> Line {
    Line::done(1, "alice", "secret.write", text)
}

/// Three chains of changes of several lines, some commits of which move two.
fn store() -> MemoryEngine {
    let engine = Arc::new(MemoryEngine::new());
    let barrier = Barrier::new(engine.clone(), Arc::new(Zeros), Arc::new(NoReads));
    let ring = Keyring::new(DeploymentId([7; 16]), secret(1));
    let keys = barrier.first_realm(&ring, RealmKeys::new(secret(2), secret(3)));
    barrier.submit_begin(keys, Vec::new(), |outcome| outcome.unwrap());
    barrier.unseal(ring);
    for realm in [1, 2] {
        let mut batch = Batch::new(Realm::NODE, line("tenant"));
        batch.create_realm(Realm(realm), secret(10), secret(11));
        write(&barrier, batch);
    }
    for round in 0..3 {
        write(&barrier, Batch::new(Realm(1), line(&format!("a{round}"))));
        let mut both = Batch::new(Realm(2), line(&format!("b{round}")));
        both.audit(Realm(1), line("c"));
        both.audit(Realm(2), line("d"));
        write(&barrier, both);
    }
    engine.restarted()
}

struct Raw(Option<Vec<Op>>);

impl Decide for Raw {
    fn decide(&mut self, _: &dyn View) -> Option<Vec<Op>> {
        self.0.take()
    }
    fn done(self: Box<Self>, outcome: Result<Revision, Fault>) {
        outcome.unwrap();
    }
}

/// What verification says after these operations on a copy.
fn bent(engine: &MemoryEngine, ops: Vec<Op>) -> Report {
    let copy = engine.restarted();
    copy.submit(Box::new(Raw(Some(ops))));
    verify_store(&*copy.snapshot().unwrap()).unwrap()
}

fn put(key: &[u8], value: &[u8]) -> Op {
    Op::Put { key: key.to_vec(), value: value.to_vec() }
}

fn delete(key: &[u8]) -> Op {
    Op::Delete { key: key.to_vec() }
}

fn audit_rows(engine: &MemoryEngine) -> Vec<(Vec<u8>, Entry)> {
    engine.snapshot().unwrap().range(&[CHANGE_LINES], &[COMMIT_HEAD + 1], usize::MAX).unwrap()
}

/// Which line a row is: chain, realm, number. Heads have none.
fn line_of(key: &[u8]) -> Option<(Chain, Realm, u64)> {
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    match key[0] {
        CHANGE_LINES => Some((Chain::Changes, realm_of(&key[..5]).unwrap(), number(&key[5..]))),
        COMMIT_LINES => Some((Chain::Commits, Realm::NODE, number(&key[1..]))),
        _ => None,
    }
}

fn place(report: &Report) -> Option<(Chain, Realm, u64)> {
    report.first_break.as_ref().map(|found| (found.chain, found.realm, found.seq))
}

#[test]
fn chains_as_they_were_written_hold() {
    let report = bent(&store(), vec![]);
    assert_eq!((report.changes, report.commits, report.first_break), (14, 8, None));
}

#[test]
fn a_flipped_bit_anywhere_is_named_by_its_line() {
    let store = store();
    for (key, entry) in audit_rows(&store) {
        for at in 0..entry.value.len() {
            let mut value = entry.value.clone();
            value[at] ^= 1 << (at % 8);
            let found = place(&bent(&store, vec![put(&key, &value)]));
            match line_of(&key) {
                Some(line) => assert_eq!(found, Some(line), "byte {at}"),
                None => assert!(found.is_some(), "byte {at} of head {key:?}"),
            }
        }
    }
}

#[test]
fn a_row_that_is_gone_or_cut_short_is_named() {
    let store = store();
    for (key, entry) in audit_rows(&store) {
        for ops in [vec![delete(&key)], vec![put(&key, &[])], vec![put(&key, &entry.value[..entry.value.len() - 1])]] {
            let found = place(&bent(&store, ops));
            match line_of(&key) {
                Some(line) => assert_eq!(found, Some(line)),
                None => assert!(found.is_some(), "head {key:?}"),
            }
        }
    }
}

#[test]
fn lines_that_changed_places_are_named_by_the_first() {
    let store = store();
    let rows = audit_rows(&store);
    let lines: Vec<_> = rows.iter().filter_map(|(key, entry)| Some((key, entry, line_of(key)?))).collect();
    for (index, (key, entry, line)) in lines.iter().enumerate() {
        for (other_key, other_entry, other) in &lines[index + 1..] {
            let found = place(&bent(&store, vec![put(key, &other_entry.value), put(other_key, &entry.value)]));
            assert_eq!(found, Some(*line), "exchanged with {other:?}");
        }
    }
}

#[test]
fn a_chain_cut_short_with_its_head_is_named_by_the_commits() {
    let store = store();
    let rows = audit_rows(&store);
    for (realm, lines) in [(Realm::NODE, 2), (Realm(1), 6), (Realm(2), 6)] {
        let of_realm: Vec<_> = rows
            .iter()
            .filter(|(key, _)| line_of(key).is_some_and(|(c, r, _)| (c, r) == (Chain::Changes, realm)))
            .collect();
        assert_eq!(of_realm.len(), lines);
        let mut head_key = vec![CHANGE_HEADS];
        head_key.extend_from_slice(&realm.0.to_be_bytes());
        for kept in 0..lines {
            let mut ops: Vec<_> = of_realm[kept..].iter().map(|(key, _)| delete(key)).collect();
            ops.push(match kept.checked_sub(1) {
                Some(last) => {
                    let hash = of_realm[last].1.value[..32].try_into().unwrap();
                    put(&head_key, &Head { seq: kept as u64, hash }.to_bytes())
                }
                None => delete(&head_key),
            });
            assert_eq!(place(&bent(&store, ops)), Some((Chain::Changes, realm, kept as u64 + 1)));
        }
    }
}

#[test]
fn a_chain_written_anew_from_some_line_on_is_noticed() {
    let store = store();
    let rows = audit_rows(&store);
    let of_realm: Vec<_> = rows
        .iter()
        .filter(|(key, _)| line_of(key).is_some_and(|(c, r, _)| (c, r) == (Chain::Changes, Realm(1))))
        .collect();
    for from in 0..of_realm.len() {
        let mut head = match from.checked_sub(1) {
            Some(last) => Head { seq: from as u64, hash: of_realm[last].1.value[..32].try_into().unwrap() },
            None => Head::default(),
        };
        let mut ops = Vec::new();
        for (index, (key, entry)) in of_realm.iter().enumerate().skip(from) {
            let body = if index == from { b"forged".as_slice() } else { &entry.value[32..] };
            head = head.after(Chain::Changes, Realm(1), body);
            ops.push(put(key, &[&head.hash[..], body].concat()));
        }
        ops.push(put(&[CHANGE_HEADS, 0, 0, 0, 1], &head.to_bytes()));
        let found = place(&bent(&store, ops));
        assert!(matches!(found, Some((Chain::Changes, Realm(1), _))), "{found:?}");
    }
}

#[test]
fn commits_that_are_gone_with_their_head_leave_changes_that_nothing_names() {
    let store = store();
    let rows = audit_rows(&store);
    let commits: Vec<_> = rows.iter().filter(|(key, _)| key[0] == COMMIT_LINES).collect();
    for kept in 0..commits.len() {
        let mut ops: Vec<_> = commits[kept..].iter().map(|(key, _)| delete(key)).collect();
        ops.push(match kept.checked_sub(1) {
            Some(last) => {
                let hash = commits[last].1.value[..32].try_into().unwrap();
                put(&[COMMIT_HEAD], &Head { seq: kept as u64, hash }.to_bytes())
            }
            None => delete(&[COMMIT_HEAD]),
        });
        let found = place(&bent(&store, ops));
        assert!(matches!(found, Some((Chain::Changes, _, _))), "{kept} kept: {found:?}");
    }
}

#[test]
fn a_chain_that_nobody_began_is_noticed() {
    let store = store();
    let body = b"forged";
    let head = Head::default().after(Chain::Changes, Realm(9), body);
    let key = [&[CHANGE_LINES][..], &9u32.to_be_bytes(), &1u64.to_be_bytes()].concat();
    let line = put(&key, &[&head.hash[..], body].concat());
    assert_eq!(place(&bent(&store, vec![line.clone()])), Some((Chain::Changes, Realm(9), 1)), "without a head");
    let with_head = vec![line, put(&[CHANGE_HEADS, 0, 0, 0, 9], &head.to_bytes())];
    assert_eq!(place(&bent(&store, with_head)), Some((Chain::Changes, Realm(9), 1)));
}
