//! Follows the chains in a store and names the first break. Needs no key.

use std::collections::BTreeMap;

use holdfast_protocol::codec;
use holdfast_protocol::ids::Realm;

use crate::audit_log::{Chain, CommitLine, Head};
use crate::barrier::{CHANGE_HEADS, CHANGE_LINES, COMMIT_HEAD, COMMIT_LINES, after_prefix};
use crate::store::{Fault, VALUE_BYTES_MAX, View};

/// Lines read at once.
const PAGE: usize = 1024;

/// Where a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// Which chain.
    pub chain: Chain,
    /// Of which realm.
    pub realm: Realm,
    /// The first line that is missing or does not follow from the one before.
    pub seq: u64,
    /// What is wrong there.
    pub what: &'static str,
}

/// How many lines of one realm hold.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// Of changes.
    pub changes: u64,
    /// Of reads and refusals.
    pub reads: u64,
}

/// What a verification found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// Lines of changes that hold.
    pub changes: u64,
    /// Lines of commits that hold.
    pub commits: u64,
    /// Lines of reads and refusals that hold.
    pub reads: u64,
    /// Ends of the read journal that a power loss cut off; stated, and no break.
    pub gaps: u64,
    /// The first break, if any.
    pub first_break: Option<Break>,
    /// Lines of changes, reads and refusals by whose they are: the node's own, and each tenant's.
    pub realms: BTreeMap<Realm, Lines>,
    /// The newest head of each read chain that a commit names as on disk.
    pub named_reads: BTreeMap<Realm, Head>,
}

/// Verifies the chains of changes and commits of a store.
///
/// # Errors
/// The engine failed.
pub fn verify_store(view: &dyn View) -> Result<Report, Fault> {
    let mut report = Report::default();
    report.first_break = follow_all(view, &mut report)?.err();
    Ok(report)
}

fn follow_all(view: &dyn View, report: &mut Report) -> Result<Result<(), Break>, Fault> {
    let damaged = |chain| Ok(Err(Break { chain, realm: Realm::NODE, seq: 0, what: "head damaged" }));
    let mut heads = BTreeMap::new();
    for (key, entry) in view.range(&[CHANGE_HEADS], &[CHANGE_HEADS + 1], usize::MAX)? {
        let (Some(realm), Some(head)) = (realm_of(&key), Head::from_bytes(&entry.value)) else {
            return damaged(Chain::Changes);
        };
        heads.insert(realm, head);
    }
    // Lines whose head is gone are a chain too.
    let mut from = vec![CHANGE_LINES];
    while let Some((key, _)) = view.range(&from, &[CHANGE_LINES + 1], 1)?.pop() {
        let Some(realm) = key.get(..5).and_then(realm_of) else { return damaged(Chain::Changes) };
        heads.entry(realm).or_default();
        from = after_prefix(&key[..5]);
    }
    for (realm, head) in &heads {
        let (realm, head) = (*realm, *head);
        let mut prefix = vec![CHANGE_LINES];
        prefix.extend_from_slice(&realm.0.to_be_bytes());
        match follow(view, Chain::Changes, realm, &prefix, head, |_| ())? {
            Ok(lines) => {
                report.changes += lines;
                report.realms.entry(realm).or_default().changes = lines;
            }
            Err(found) => return Ok(Err(found)),
        }
    }
    let stored = view.get(&[COMMIT_HEAD])?;
    let Some(head) = stored.map_or(Some(Head::default()), |entry| Head::from_bytes(&entry.value)) else {
        return damaged(Chain::Commits);
    };
    let (named, mut named_changes) = (&mut report.named_reads, BTreeMap::new());
    let followed = follow(view, Chain::Commits, Realm::NODE, &[COMMIT_LINES], head, |body| {
        if let Ok(line) = codec::decode::<CommitLine>(body, VALUE_BYTES_MAX) {
            named.extend(line.reads);
            named_changes.extend(line.changes);
        }
    })?;
    match followed {
        Ok(lines) => report.commits = lines,
        Err(found) => return Ok(Err(found)),
    }
    Ok(compare(&heads, &named_changes))
}

/// Every chain of changes ends where the last commit that moved it says.
fn compare(heads: &BTreeMap<Realm, Head>, named: &BTreeMap<Realm, Head>) -> Result<(), Break> {
    for realm in heads.keys().chain(named.keys()) {
        let [held, named] = [heads, named].map(|of| of.get(realm).copied().unwrap_or_default());
        if held != named {
            let what = if held.seq < named.seq {
                "lines that a commit names are missing"
            } else {
                "not what the last commit names"
            };
            let seq = if held.seq == named.seq { held.seq } else { held.seq.min(named.seq) + 1 };
            return Err(Break { chain: Chain::Changes, realm: *realm, seq, what });
        }
    }
    Ok(())
}

/// Walks one chain from its first line to `head`; the number of lines, or the first break.
fn follow(
    view: &dyn View,
    chain: Chain,
    realm: Realm,
    prefix: &[u8],
    head: Head,
    mut each: impl FnMut(&[u8]),
) -> Result<Result<u64, Break>, Fault> {
    let broken = |seq, what| Ok(Err(Break { chain, realm, seq, what }));
    let (mut at, mut from, until) = (Head::default(), prefix.to_vec(), after_prefix(prefix));
    loop {
        let page = view.range(&from, &until, PAGE)?;
        if page.is_empty() {
            break;
        }
        for (key, entry) in page {
            let expected = at.next_seq();
            if key.get(prefix.len()..) != Some(expected.to_be_bytes().as_slice()) {
                return broken(expected, "line missing");
            }
            let Some((stored, body)) = entry.value.split_first_chunk::<32>() else {
                return broken(expected, "line damaged");
            };
            at = at.after(chain, realm, body);
            if at.hash != *stored {
                return broken(expected, "line does not follow from the one before");
            }
            each(body);
            from = key;
            from.push(0);
        }
    }
    if at == head { Ok(Ok(at.seq)) } else { broken(at.seq.min(head.seq) + 1, "chain does not end at its head") }
}

fn realm_of(key: &[u8]) -> Option<Realm> {
    Some(Realm(u32::from_be_bytes(key.get(1..)?.try_into().ok()?)))
}

#[cfg(test)]
mod tests;
