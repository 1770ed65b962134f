//! The node's own chain: one line closes each commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use holdfast_protocol::codec;
use holdfast_protocol::ids::Realm;

use crate::audit_log::{Chain, CommitLine, Head};
use crate::barrier::DurableReads;
use crate::barrier::layout::{COMMIT_HEAD, COMMIT_LINES, change_head_key, head_at};
use crate::store::{CommitEnd, Op, View};

/// Heads of read chains that one commit names at most; the rest waits for the next.
const READS_NAMED_MAX: usize = 2048;

/// Closes each commit with a line of the node's own chain, which names the heads of all chains that moved.
pub(super) struct CommitAudit {
    touched: Arc<Mutex<BTreeSet<Realm>>>,
    reads: Arc<dyn DurableReads>,
    unnamed: Mutex<Unnamed>,
}

/// Heads of read chains on their way into a commit.
#[derive(Default)]
struct Unnamed {
    /// Waiting for one.
    waiting: BTreeMap<Realm, Head>,
    /// In the line of this number, which may not have been committed.
    naming: (u64, Vec<(Realm, Head)>),
}

impl Unnamed {
    /// What the line after `last` names.
    fn take(&mut self, last: Head, durable: Vec<(Realm, Head)>) -> Vec<(Realm, Head)> {
        let (seq, naming) = std::mem::take(&mut self.naming);
        if last.seq < seq {
            // That commit failed: nothing has named these yet.
            self.waiting.extend(naming);
        }
        self.waiting.extend(durable);
        let mut reads = Vec::new();
        while reads.len() < READS_NAMED_MAX
            && let Some(head) = self.waiting.pop_first()
        {
            reads.push(head);
        }
        self.naming = (last.next_seq(), reads.clone());
        reads
    }
}

impl CommitAudit {
    pub(super) fn new(touched: Arc<Mutex<BTreeSet<Realm>>>, reads: Arc<dyn DurableReads>) -> Self {
        Self { touched, reads, unnamed: Mutex::default() }
    }
}

impl CommitEnd for CommitAudit {
    fn ops(&self, view: &dyn View) -> Vec<Op> {
        let Ok(last) = head_at(view, &[COMMIT_HEAD]) else { return Vec::new() };
        let touched = std::mem::take(&mut *self.touched.lock().expect("no holder of this lock panics"));
        let reads = self.unnamed.lock().expect("no holder of this lock panics").take(last, self.reads.drain_durable());
        if touched.is_empty() && reads.is_empty() {
            return Vec::new();
        }
        let changes = touched
            .into_iter()
            .filter_map(|realm| Some((realm, head_at(view, &change_head_key(realm)).ok()?)))
            .collect();
        let body = codec::encode(&CommitLine { revision: view.revision().0, changes, reads });
        let head = last.after(Chain::Commits, Realm::NODE, &body);
        let mut key = vec![COMMIT_LINES];
        key.extend_from_slice(&head.seq.to_be_bytes());
        let mut value = head.hash.to_vec();
        value.extend_from_slice(&body);
        vec![Op::Put { key, value }, Op::Put { key: vec![COMMIT_HEAD], value: head.to_bytes().to_vec() }]
    }
}
