//! The in-memory engine: for simulation, tests and throw-away nodes. Deterministic, and it fails where told to.
//!
//! It decides on the thread that submits, or, when stepped, on the one that calls [`MemoryEngine::run_pending`]. "Durable"
//! means here: still there in the engine that [`MemoryEngine::restarted`] returns.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use holdfast_protocol::ids::Revision;

use super::{
    Change, ChangesError, CommitEnd, Decide, Engine, Entry, Fault, GROUP_MAX, Op, View, Wake, checked_bytes,
    whole_revisions,
};

/// What happens to one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Injected {
    /// Nothing unusual.
    Pass,
    /// Decided, but not written: every decision of the group gets this fault.
    Refuse(Fault),
    /// The process dies before the commit is durable: no decision hears of it, what waits is lost.
    CrashBefore,
    /// The process dies after the commit is durable: no decision hears of it, what waits is lost.
    CrashAfter,
}

/// Judges each commit by its number, from 1, counting groups that turn out to write nothing too.
pub type Faults = Box<dyn FnMut(u64) -> Injected + Send>;

/// The engine.
pub struct MemoryEngine {
    inner: Mutex<Inner>,
    stepped: bool,
}

struct Inner {
    /// Shared with the snapshots: cloned on the first write after one was taken and still lives.
    state: Arc<State>,
    waiting: VecDeque<Box<dyn Decide>>,
    /// Some thread is in [`MemoryEngine::run_pending`]; others only queue.
    running: bool,
    stopped: bool,
    commits: u64,
    faults: Faults,
    end: Option<Box<dyn CommitEnd>>,
    watchers: Vec<Arc<Wake>>,
}

/// Decisions with their outcomes, and the newest revision where the commit wrote.
struct Settled {
    outcomes: Vec<(Box<dyn Decide>, Result<Revision, Fault>)>,
    woken: Option<(Revision, Vec<Arc<Wake>>)>,
}

impl MemoryEngine {
    /// An empty store that decides at once, on the thread that submits.
    pub fn new() -> Self {
        Self::with(State::default().into(), false)
    }

    /// An empty store that decides only in [`Self::run_pending`].
    pub fn stepped() -> Self {
        Self::with(State::default().into(), true)
    }

    fn with(state: Arc<State>, stepped: bool) -> Self {
        let inner = Inner {
            state,
            waiting: VecDeque::new(),
            running: false,
            stopped: false,
            commits: 0,
            faults: Box::new(|_| Injected::Pass),
            end: None,
            watchers: Vec::new(),
        };
        Self { inner: Mutex::new(inner), stepped }
    }

    /// Replaces what judges the commits.
    pub fn inject(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// The process dies now: what waits is lost unheard, and this engine refuses everything.
    pub fn crash(&self) {
        self.lock().crash();
    }

    /// Whether it has crashed.
    pub fn has_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// How many decisions wait for [`Self::run_pending`].
    pub fn pending(&self) -> usize {
        self.lock().waiting.len()
    }

    /// The store as a new process finds it: all that was durable, no watcher, no commit end, no faults.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self::with(self.lock().state.clone(), self.stepped)
    }

    /// Runs all waiting decisions, those submitted meanwhile included, in groups of at most [`GROUP_MAX`].
    pub fn run_pending(&self) {
        if std::mem::replace(&mut self.lock().running, true) {
            return;
        }
        loop {
            // A statement of its own, so that the lock is free while answers run: they may submit again.
            let group = self.lock().run_group();
            let Some(settled) = group else { return };
            for (decide, outcome) in settled.outcomes {
                decide.done(outcome);
            }
            if let Some((revision, watchers)) = settled.woken {
                watchers.iter().for_each(|wake| wake(revision));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("only a panicking decision poisons the store, and then its test has failed")
    }
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine for MemoryEngine {
    fn snapshot(&self) -> Result<Box<dyn View + Send>, Fault> {
        let inner = self.lock();
        if inner.stopped { Err(Fault::Stopped) } else { Ok(Box::new(inner.state.clone())) }
    }

    fn submit(&self, decide: Box<dyn Decide>) {
        let mut inner = self.lock();
        if inner.stopped {
            drop(inner);
            return decide.done(Err(Fault::Stopped));
        }
        inner.waiting.push_back(decide);
        drop(inner);
        if !self.stepped {
            self.run_pending();
        }
    }

    fn watch(&self, wake: Wake) {
        self.lock().watchers.push(Arc::new(wake));
    }

    fn close_commits_with(&self, end: Box<dyn CommitEnd>) {
        self.lock().end = Some(end);
    }

    fn compact(&self, before: Revision) -> Result<(), Fault> {
        let mut inner = self.lock();
        if inner.stopped {
            return Err(Fault::Stopped);
        }
        Arc::make_mut(&mut inner.state).compact(before);
        Ok(())
    }
}

impl Inner {
    /// One group; none if nothing waits, and then `running` ends under the same lock, so no submission is overlooked.
    fn run_group(&mut self) -> Option<Settled> {
        if self.waiting.is_empty() {
            self.running = false;
            return None;
        }
        self.commits += 1;
        let injected = (self.faults)(self.commits);
        // Kept only when it will be needed: a second owner makes the first write clone the whole state.
        let untouched = matches!(injected, Injected::Refuse(_) | Injected::CrashBefore).then(|| self.state.clone());
        let mut settled = self.decide_group();
        if let Some(untouched) = untouched {
            self.state = untouched;
            settled.woken = None;
        }
        match injected {
            Injected::Pass => {}
            Injected::Refuse(fault) => settled.outcomes.iter_mut().for_each(|(_, it)| *it = Err(fault.clone())),
            Injected::CrashBefore | Injected::CrashAfter => {
                self.crash();
                settled = Settled { outcomes: Vec::new(), woken: None };
            }
        }
        Some(settled)
    }

    fn decide_group(&mut self) -> Settled {
        let state = Arc::make_mut(&mut self.state);
        let before = state.revision;
        let mut outcomes = Vec::new();
        for mut decide in self.waiting.drain(..self.waiting.len().min(GROUP_MAX)) {
            let ops = decide.decide(state).unwrap_or_default();
            let outcome = checked_bytes(&ops).map(|_| state.apply(ops));
            outcomes.push((decide, outcome));
        }
        if state.revision == before {
            return Settled { outcomes, woken: None };
        }
        if let Some(end) = &self.end {
            let ops = end.ops(state);
            checked_bytes(&ops).expect("what closes a commit keeps to the limits of a transaction");
            state.apply(ops);
        }
        Settled { outcomes, woken: Some((state.revision, self.watchers.clone())) }
    }

    fn crash(&mut self) {
        self.stopped = true;
        self.waiting.clear();
    }
}

/// Shared between the maps and their clones.
type Key = Arc<[u8]>;

#[derive(Debug, Clone, Default)]
struct State {
    revision: Revision,
    compacted: Revision,
    data: BTreeMap<Key, Arc<Entry>>,
    /// The last change of each key that changed after `compacted`; whether it was a deletion.
    history: BTreeMap<(Revision, Key), bool>,
    /// Where in `history` the deletion of an absent key stands.
    gone: BTreeMap<Key, Revision>,
}

impl State {
    /// Under the next revision if anything changes. Returns the revision then reached.
    fn apply(&mut self, ops: Vec<Op>) -> Revision {
        let revision = self.revision.next();
        for op in ops {
            let changed = match op {
                Op::Put { key, value } => self.put(revision, key.into(), value),
                Op::Delete { key } => self.delete(revision, key.into()),
                Op::Erase { key } => self.erase(key.into()),
            };
            if changed {
                self.revision = revision;
            }
        }
        self.revision
    }

    fn put(&mut self, revision: Revision, key: Key, value: Vec<u8>) -> bool {
        let old = self.data.get(&key).map(|old| (old.created, old.modified, old.version));
        let (created, version) = old.map_or((revision, 1), |(created, _, version)| (created, version + 1));
        if let Some(last) = old.map(|(_, modified, _)| modified).or_else(|| self.gone.remove(&key)) {
            self.history.remove(&(last, key.clone()));
        }
        self.history.insert((revision, key.clone()), false);
        self.data.insert(key, Arc::new(Entry { value, created, modified: revision, version }));
        true
    }

    fn delete(&mut self, revision: Revision, key: Key) -> bool {
        let Some(old) = self.data.remove(&key) else { return false };
        self.history.remove(&(old.modified, key.clone()));
        self.history.insert((revision, key.clone()), true);
        self.gone.insert(key, revision);
        true
    }

    fn erase(&mut self, key: Key) -> bool {
        let Some(old) = self.data.remove(&key) else { return false };
        self.history.remove(&(old.modified, key));
        true
    }

    fn compact(&mut self, before: Revision) {
        let before = before.min(self.revision);
        if before <= self.compacted {
            return;
        }
        self.compacted = before;
        self.history = self.history.split_off(&(before.next(), Key::default()));
        self.gone.retain(|_, deleted| *deleted > before);
    }
}

impl View for State {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get(&self, key: &[u8]) -> Result<Option<Entry>, Fault> {
        Ok(self.data.get(key).map(|entry| entry.as_ref().clone()))
    }

    fn range(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, Fault> {
        if from >= until {
            return Ok(Vec::new());
        }
        let rows = self.data.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until)));
        Ok(rows.take(limit).map(|(key, entry)| (key.to_vec(), entry.as_ref().clone())).collect())
    }

    fn changes(&self, after: Revision, limit: usize) -> Result<Vec<Change>, ChangesError> {
        if after < self.compacted {
            return Err(ChangesError::Compacted(self.compacted));
        }
        if after >= self.revision {
            return Ok(Vec::new());
        }
        let rows = self.history.range((after.next(), Key::default())..);
        whole_revisions(
            rows.map(|((revision, key), deleted)| {
                Ok(Change { revision: *revision, key: key.to_vec(), deleted: *deleted })
            }),
            limit,
        )
    }
}

impl View for Arc<State> {
    fn revision(&self) -> Revision {
        (**self).revision()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Entry>, Fault> {
        (**self).get(key)
    }

    fn range(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, Fault> {
        (**self).range(from, until, limit)
    }

    fn changes(&self, after: Revision, limit: usize) -> Result<Vec<Change>, ChangesError> {
        (**self).changes(after, limit)
    }
}
