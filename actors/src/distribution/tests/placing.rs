//! What a build reads: what has changed, and not what there is.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::distribution::placed::{has_content, note_quiet, quiet_until};
use crate::store::{Change, ChangesError, CommitEnd, Decide, Entry, View, Wake};

/// A store that counts what is read of its snapshots.
struct Counted {
    engine: Arc<MemoryEngine>,
    entries: Arc<AtomicUsize>,
}

struct CountedView(Box<dyn View + Send>, Arc<AtomicUsize>);

impl Engine for Counted {
    fn snapshot(&self) -> Result<Box<dyn View + Send>, Fault> {
        Ok(Box::new(CountedView(self.engine.snapshot()?, self.entries.clone())))
    }
    fn submit(&self, decide: Box<dyn Decide>) {
        self.engine.submit(decide);
    }
    fn watch(&self, wake: Wake) {
        self.engine.watch(wake);
    }
    fn close_commits_with(&self, end: Box<dyn CommitEnd>) {
        self.engine.close_commits_with(end);
    }
    fn compact(&self, before: Revision) -> Result<(), Fault> {
        self.engine.compact(before)
    }
}

impl View for CountedView {
    fn revision(&self) -> Revision {
        self.0.revision()
    }
    fn get(&self, key: &[u8]) -> Result<Option<Entry>, Fault> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.get(key)
    }
    fn range(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, Fault> {
        let found = self.0.range(from, until, limit)?;
        self.1.fetch_add(found.len(), Ordering::Relaxed);
        Ok(found)
    }
    fn changes(&self, after: Revision, limit: usize) -> Result<Vec<Change>, ChangesError> {
        let found = self.0.changes(after, limit)?;
        self.1.fetch_add(found.len(), Ordering::Relaxed);
        Ok(found)
    }
}

/// Central over a store that counts, with `keys` keys at the first site, one at the second and as many as at the first
/// nowhere; both sites are in step.
struct Filled {
    node: Node,
    entries: Arc<AtomicUsize>,
    bases: [Option<Position>; 2],
}

impl Filled {
    fn with(keys: usize) -> Self {
        let before = central();
        let put = |name: &str, to: u8| {
            let key = transit_key(super::world::placement(to), 1);
            before.write(|batch| batch.put(TENANTS[0].1, &[name], &key));
        };
        put("second", 3);
        for number in 0..keys {
            put(&format!("first-{number}"), 2);
            put(&format!("nowhere-{number}"), 0);
        }
        let entries = Arc::<AtomicUsize>::default();
        let engine = Arc::new(before.engine.restarted());
        let counted = Counted { engine: engine.clone(), entries: entries.clone() };
        let barrier = Barrier::new(Arc::new(counted), Arc::new(Counting), Arc::new(NoReads));
        barrier.unseal(Keyring::new(DEPLOYMENT, secret(1)));
        let mut filled = Self { node: Node { engine, barrier }, entries, bases: [None, None] };
        // What the first builds have written themselves, the next come past.
        for number in 0..3 {
            filled.build(0);
            filled.build(1);
            filled.put(&format!("settled-{number}"), 2);
        }
        filled.build(0);
        filled.build(1);
        filled
    }

    /// How many entries a build reads; and whether it gave anything.
    fn build(&mut self, site: usize) -> (usize, bool) {
        let before = self.entries.load(Ordering::Relaxed);
        let built = self.node.build(0, site, self.bases[site].as_ref()).unwrap();
        if let Some((target, _)) = &built {
            self.bases[site] = Some(*target);
        }
        (self.entries.load(Ordering::Relaxed) - before, built.is_some())
    }

    fn put(&self, name: &str, to: u8) {
        let key = transit_key(super::world::placement(to), 2);
        self.node.write(|batch| batch.put(TENANTS[0].1, &[name], &key));
    }
}

#[test]
fn a_build_reads_what_has_changed_and_not_what_there_is() {
    let costs = [4, 400].map(|keys| {
        let mut filled = Filled::with(keys);
        ["another", "first-0"].map(|name| {
            filled.put(name, 2);
            [filled.build(0), filled.build(1)]
        })
    });
    assert_eq!(costs[0], costs[1]);
    let given = costs[0].map(|of_sites| of_sites.map(|(_, is_given)| is_given));
    assert_eq!(given, [[true, false]; 2], "only what concerns a site goes there");
}

#[test]
fn what_does_not_concern_a_site_is_looked_at_once() {
    let mut filled = Filled::with(4);
    let mut costs = Vec::new();
    for number in 0..40 {
        filled.put(&format!("more-{number}"), 2);
        costs.push(filled.build(1));
    }
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
    filled.put("more-7", 1);
    assert!(filled.build(1).1, "what is placed there later goes there");
}

#[test]
fn what_is_remembered_says_the_same_of_every_state() {
    let node = central();
    let realm = TENANTS[0].1;
    let put = |name: &str, to: u8| {
        let key = transit_key(super::world::placement(to), 1);
        node.write(|batch| batch.put(realm, &[name], &key));
    };
    let said = |rows: &crate::barrier::Snapshot| [0, 1].map(|site| has_content(rows, realm, &site_name(site)).unwrap());
    let mut states = Vec::new();
    let mut state = |expected: [bool; 2]| {
        let rows = node.barrier.snapshot().unwrap();
        assert_eq!(said(&rows), expected);
        states.push((rows, expected));
    };
    state([false, false]);
    put("a", 2);
    put("b", 2);
    state([true, false]);
    put("a", 3);
    state([true, true]);
    node.write(|batch| batch.delete::<TransitKey>(realm, &["b"]));
    state([false, true]);
    node.write(|batch| batch.put(realm, &["box"], &boxed("box", Placement::All)));
    put("a", 0);
    state([true, true]);
    node.engine.compact(node.engine.snapshot().unwrap().revision()).unwrap();
    node.write(|batch| batch.delete::<DepositBox>(realm, &["box"]));
    node.engine.compact(node.engine.snapshot().unwrap().revision()).unwrap();
    state([false, false]);
    for (rows, expected) in states.iter().rev() {
        assert_eq!(said(rows), *expected, "also of an older one");
    }
}

#[test]
fn quiet_is_of_one_cut() {
    let node = central();
    let (realm, site) = (TENANTS[0].1, site_name(0));
    let rows = node.barrier.snapshot().unwrap();
    let cut = |seq| Cut {
        position: Position { seq: Seq(seq), ..Position::default() },
        revision: Revision(1),
        has_content: true,
    };
    note_quiet(&rows, realm, &site, &cut(1)).unwrap();
    let until = [cut(1), cut(2)].map(|cut| quiet_until(&rows, realm, &site, &cut).unwrap());
    assert_eq!(until, [rows.revision(), Revision(1)]);
}
