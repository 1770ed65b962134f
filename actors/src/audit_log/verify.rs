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
    for (key, entry) in view.range(&[CHANGE_HEADS], &[CHANGE_HEADS + 1], usize::MAX)? {
        let (Some(realm), Some(head)) = (realm_of(&key), Head::from_bytes(&entry.value)) else {
            return damaged(Chain::Changes);
        };
        let mut prefix = vec![CHANGE_LINES];
        prefix.extend_from_slice(&realm.0.to_be_bytes());
        match follow(view, Chain::Changes, realm, &prefix, head, |_| ())? {
            Ok(lines) => report.changes += lines,
            Err(found) => return Ok(Err(found)),
        }
    }
    let stored = view.get(&[COMMIT_HEAD])?;
    let Some(head) = stored.map_or(Some(Head::default()), |entry| Head::from_bytes(&entry.value)) else {
        return damaged(Chain::Commits);
    };
    let named = &mut report.named_reads;
    let followed = follow(view, Chain::Commits, Realm::NODE, &[COMMIT_LINES], head, |body| {
        if let Ok(line) = codec::decode::<CommitLine>(body, VALUE_BYTES_MAX) {
            named.extend(line.reads);
        }
    })?;
    Ok(followed.map(|lines| report.commits = lines))
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
            let expected = at.seq + 1;
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
