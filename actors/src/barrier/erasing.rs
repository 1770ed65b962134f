//! Jobs beside the barrier: fixed operations, and the removing of rows page by page.

use holdfast_protocol::ids::{Realm, Revision};
use holdfast_protocol::limits::DECIDE_OPS_MAX;

use crate::barrier::layout::after_prefix;
use crate::keyring::realm_store_key;
use crate::rows::Kind;
use crate::store::{Decide, Fault, Op, View};

/// Fixed operations outside the barrier.
pub(super) struct RawJob<F> {
    pub(super) ops: Option<Vec<Op>>,
    pub(super) done: F,
}

impl<F: FnOnce(Result<(), Fault>) + Send> Decide for RawJob<F> {
    fn decide(&mut self, _: &dyn View) -> Option<Vec<Op>> {
        self.ops.clone()
    }
    /// Standing, seal and position in time must be remembered by a node whose disk is full, too.
    fn may_use_reserve(&self) -> bool {
        true
    }
    fn done(self: Box<Self>, outcome: Result<Revision, Fault>) {
        (self.done)(outcome.map(|_| ()));
    }
}

/// Removes a page of rows.
pub(super) struct EraseJob<F> {
    pub(super) from: Vec<u8>,
    pub(super) left: Result<bool, Fault>,
    pub(super) done: F,
}

impl<F: FnOnce(Result<bool, Fault>) + Send> Decide for EraseJob<F> {
    fn decide(&mut self, view: &dyn View) -> Option<Vec<Op>> {
        let page = view.range(&self.from, &after_prefix(&[u8::MAX]), DECIDE_OPS_MAX);
        self.left = page.as_ref().map(|page| page.len() == DECIDE_OPS_MAX).map_err(Clone::clone);
        Some(page.ok()?.into_iter().map(|(key, _)| Op::Delete { key }).collect())
    }
    fn may_use_reserve(&self) -> bool {
        true
    }
    fn done(self: Box<Self>, outcome: Result<Revision, Fault>) {
        (self.done)(outcome.and(self.left));
    }
}

/// Removes a realm's keys and a page of its rows.
pub(super) struct EraseRealmJob<F> {
    pub(super) realm: Realm,
    pub(super) left: Result<bool, Fault>,
    pub(super) done: F,
}

impl<F> EraseRealmJob<F> {
    fn ops(&self, view: &dyn View) -> Result<Vec<Op>, Fault> {
        let mut ops = vec![Op::Delete { key: realm_store_key(self.realm) }];
        for kind in Kind::ALL {
            let mut prefix = vec![kind as u8];
            prefix.extend_from_slice(&self.realm.0.to_be_bytes());
            let page = view.range(&prefix, &after_prefix(&prefix), DECIDE_OPS_MAX - ops.len())?;
            ops.extend(page.into_iter().map(|(key, _)| Op::Delete { key }));
        }
        Ok(ops)
    }
}

impl<F: FnOnce(Result<bool, Fault>) + Send> Decide for EraseRealmJob<F> {
    fn decide(&mut self, view: &dyn View) -> Option<Vec<Op>> {
        let ops = self.ops(view);
        self.left = ops.as_ref().map(|ops| ops.len() == DECIDE_OPS_MAX).map_err(Clone::clone);
        ops.ok()
    }
    fn may_use_reserve(&self) -> bool {
        true
    }
    fn done(self: Box<Self>, outcome: Result<Revision, Fault>) {
        (self.done)(outcome.and(self.left));
    }
}
