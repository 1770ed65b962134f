//! The journal on real files: crashes at every byte, full disks, and everything that verification has to name.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::ids::DeploymentId;
use holdfast_protocol::secret::Secret;
use tempfile::TempDir;

use super::*;
use crate::audit_log::verify::verify_store;
use crate::barrier::Barrier;
use crate::keyring::{Keyring, RealmKeys};
use crate::rows::Batch;
use crate::store::Engine;
use crate::store::memory::MemoryEngine;

const REALMS: [Realm; 2] = [Realm(1), Realm(2)];
const SMALL: Limits = Limits { segment_bytes: 600, total_bytes: 1 << 20, reserve_bytes: 0 };
const WIDE: Limits = Limits { segment_bytes: 1 << 20, total_bytes: 1 << 20, reserve_bytes: 0 };

#[derive(Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, into: &mut [u8]) {
        let drawn = sha256(&[&self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes()]);
        into.iter_mut().zip(drawn).for_each(|(into, byte)| *into = byte);
    }
}

fn secret(fill: u8) -> Secret<32> {
    Secret::fill_with(|bytes| bytes.fill(fill))
}

/// A node's store and journal.
struct Node {
    folder: TempDir,
    engine: Arc<MemoryEngine>,
    barrier: Barrier,
    journal: Arc<Journal>,
}

impl Node {
    fn new(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Arc::new(MemoryEngine::new());
        let journal = Arc::new(Journal::open(folder.path(), limits, Arc::new(Counting::default())).unwrap());
        let barrier = Barrier::new(engine.clone(), Arc::new(Counting::default()), journal.clone());
        let ring = Keyring::new(DeploymentId([7; 16]), secret(1));
        let keys = barrier.first_realm(&ring, RealmKeys::new(secret(2), secret(3)));
        barrier.submit_begin(keys, Vec::new(), |outcome| outcome.unwrap());
        barrier.unseal(ring);
        for realm in REALMS {
            let mut batch = Some(Batch::housekeeping());
            batch.as_mut().unwrap().create_realm(realm, secret(4), secret(5));
            barrier.submit(move |_| Ok((batch.take().unwrap(), ())), |outcome| assert!(outcome.is_ok()));
        }
        Self { folder, engine, barrier, journal }
    }

    /// Opens the store and the journal as a new process does.
    fn reopen(&mut self, limits: Limits) -> io::Result<()> {
        self.engine = Arc::new(self.engine.restarted());
        let journal = Arc::new(Journal::open(self.folder.path(), limits, Arc::new(Counting::default()))?);
        self.barrier = Barrier::new(self.engine.clone(), Arc::new(Counting::default()), journal.clone());
        self.barrier.unseal(Keyring::new(DeploymentId([7; 16]), secret(1)));
        self.journal = journal;
        Ok(())
    }

    fn read(&self, realm: Realm, object: &str) -> Result<(), Refusal> {
        let snapshot = self.barrier.snapshot().unwrap();
        self.journal.append(&snapshot, realm, &Line::done(1, "canary-actor", "secret.read", object))
    }

    fn reads(&self, count: usize) {
        (0..count).for_each(|index| self.read(REALMS[index % 2], &format!("canary-object-{index}")).unwrap());
    }

    /// Waits until all lines are on disk, then has a commit name them.
    fn commit(&self) {
        let all_durable = || {
            let state = self.journal.shared.lock();
            state.dirty.is_empty() && state.durable == state.heads
        };
        while !all_durable() {
            std::thread::yield_now();
        }
        self.barrier.submit_boot(vec![("x", Some(vec![1]))], |outcome| outcome.unwrap());
    }

    fn report(&self) -> Report {
        self.report_of(self.folder.path())
    }

    fn report_of(&self, folder: &Path) -> Report {
        let mut report = verify_store(&*self.engine.snapshot().unwrap()).unwrap();
        assert_eq!(report.first_break, None);
        verify_journal(folder, &mut report).unwrap();
        report
    }

    /// A copy of the folder, bent.
    fn bent(&self, bend: impl FnOnce(&Path)) -> (TempDir, Report) {
        let copy = tempfile::tempdir().unwrap();
        for (_, path) in segments(self.folder.path()).unwrap() {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        bend(copy.path());
        let report = self.report_of(copy.path());
        (copy, report)
    }

    fn paths(&self) -> Vec<PathBuf> {
        segments(self.folder.path()).unwrap().into_iter().map(|(_, path)| path).collect()
    }
}

/// Where lines begin and end in a segment, with whose they are.
fn spans(bytes: &[u8]) -> Vec<(std::ops::Range<usize>, Realm, u64)> {
    let mut rest = bytes;
    parse_header(&mut rest).unwrap();
    let mut found = Vec::new();
    loop {
        let start = bytes.len() - rest.len();
        let Some(line) = parse_line(&mut rest) else { return found };
        found.push((start..bytes.len() - rest.len(), line.realm, line.seq));
    }
}

fn place(report: &Report) -> Option<(Realm, u64)> {
    report.first_break.as_ref().map(|found| (found.realm, found.seq))
}

#[test]
fn lines_survive_reopening_and_go_on_counting() {
    let mut node = Node::new(WIDE);
    node.reads(5);
    for round in 1..=3 {
        node.reopen(WIDE).unwrap();
        assert!(!node.journal.was_torn());
        node.reads(4);
        let report = node.report();
        assert_eq!((report.reads, report.gaps, report.first_break), (5 + 4 * round, 0, None));
    }
    for path in node.paths() {
        let bytes = fs::read(path).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "lines are encrypted");
    }
}

#[test]
fn segments_follow_each_other_and_old_ones_may_be_moved_away() {
    let mut node = Node::new(SMALL);
    node.reads(30);
    let paths = node.paths();
    assert!(paths.len() > 5);
    node.commit();
    assert_eq!(node.report().first_break, None);
    let (_, report) = node.bent(|folder| fs::remove_file(segments(folder).unwrap()[0].1.clone()).unwrap());
    assert_eq!((report.gaps, report.first_break), (0, None), "the oldest");
    let middle = |folder: &Path| fs::remove_file(segments(folder).unwrap()[2].1.clone()).unwrap();
    assert_eq!(node.bent(middle).1.first_break.unwrap().what, "segment does not follow from the one before");
    let last = |folder: &Path| fs::remove_file(segments(folder).unwrap().pop().unwrap().1).unwrap();
    assert_eq!(node.bent(last).1.first_break.unwrap().what, "lines that a commit names are missing");
    let all = |folder: &Path| segments(folder).unwrap().iter().for_each(|(_, path)| fs::remove_file(path).unwrap());
    assert_eq!(place(&node.bent(all).1), Some((REALMS[0], 1)));
    fs::remove_file(&paths[0]).unwrap();
    node.reopen(SMALL).unwrap();
    node.reads(5);
    assert_eq!(node.report().first_break, None);
}

#[test]
fn a_crash_within_the_last_line_loses_that_line_only() {
    let node = Node::new(WIDE);
    node.reads(6);
    let path = node.paths().pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let (last, _, _) = spans(&bytes).pop().unwrap();
    for len in last.clone() {
        let torn = len != last.start;
        let (folder, report) = node.bent(|folder| {
            let file = OpenOptions::new().write(true).open(folder.join(path.file_name().unwrap())).unwrap();
            file.set_len(len as u64).unwrap();
        });
        assert_eq!((report.reads, report.gaps, report.first_break), (5, u64::from(torn), None), "cut to {len}");
        let journal = Journal::open(folder.path(), WIDE, Arc::new(Counting::default())).unwrap();
        assert_eq!(journal.was_torn(), torn);
        let snapshot = node.barrier.snapshot().unwrap();
        journal.append(&snapshot, REALMS[1], &Line::done(1, "a", "b", "c")).unwrap();
        let report = node.report_of(folder.path());
        assert_eq!((report.reads, report.gaps, report.first_break), (6, u64::from(torn), None), "cut to {len}");
        assert_eq!(folder.path().join("reads-0000000001.cut").exists(), torn);
    }
}

#[test]
fn a_crash_while_a_segment_begins_is_no_obstacle() {
    let mut node = Node::new(WIDE);
    node.reads(3);
    fs::write(node.folder.path().join("next-segment"), b"HFREA").unwrap();
    node.reopen(WIDE).unwrap();
    node.reads(3);
    let report = node.report();
    assert_eq!((report.reads, report.gaps, report.first_break), (6, 0, None));
}

#[test]
fn a_start_keeps_what_it_cuts_off() {
    let mut node = Node::new(WIDE);
    node.reads(6);
    let path = node.paths().pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let (third, _, _) = spans(&bytes)[2].clone();
    bytes[third.start + 40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    node.reopen(WIDE).unwrap();
    assert!(node.journal.was_torn());
    assert_eq!(fs::read(path.with_extension("cut")).unwrap(), bytes[third.start..]);
    let report = node.report();
    assert_eq!((report.reads, report.gaps), (2, 1), "and says so");
}

#[test]
fn every_bent_byte_is_named() {
    let node = Node::new(SMALL);
    node.reads(8);
    node.commit();
    let stored = verify_store(&*node.engine.snapshot().unwrap()).unwrap();
    for (index, path) in node.paths().into_iter().enumerate() {
        let bytes = fs::read(&path).unwrap();
        let spans = spans(&bytes);
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << (at % 8);
            fs::write(&path, bent).unwrap();
            let mut report = stored.clone();
            verify_journal(node.folder.path(), &mut report).unwrap();
            let line = spans.iter().find(|(span, ..)| span.contains(&at));
            match line {
                // Length and realm say where and whose a line is: bent, that is told by what follows.
                Some((span, ..)) if at < span.start + 8 => {
                    assert!(place(&report).is_some(), "segment {index}, byte {at}");
                }
                Some((_, realm, seq)) => assert_eq!(place(&report), Some((*realm, *seq)), "segment {index}, byte {at}"),
                None => assert!(report.first_break.is_some() || report.gaps > 0, "segment {index}, byte {at}"),
            }
        }
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn lines_gone_or_exchanged_are_named() {
    let node = Node::new(WIDE);
    node.reads(10);
    node.commit();
    let path = node.paths().pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let spans = spans(&bytes);
    let write =
        |bytes: Vec<u8>| node.bent(|folder| fs::write(folder.join(path.file_name().unwrap()), bytes).unwrap()).1;
    for (index, (span, realm, seq)) in spans.iter().enumerate() {
        let without = [&bytes[..span.start], &bytes[span.end..]].concat();
        assert_eq!(place(&write(without)), Some((*realm, *seq)), "line {index} gone");
        let cut = bytes[..span.start].to_vec();
        let found = place(&write(cut)).unwrap();
        assert!(spans[index..].iter().any(|(_, realm, seq)| (*realm, *seq) == found), "cut before line {index}");
        // The next line of the same chain is the second next.
        if let Some((other, _, _)) = spans.get(index + 2) {
            let between = &bytes[span.end..other.start];
            let exchanged =
                [&bytes[..span.start], &bytes[other.clone()], between, &bytes[span.clone()], &bytes[other.end..]]
                    .concat();
            assert_eq!(place(&write(exchanged)), Some((*realm, *seq)), "line {index} exchanged");
        }
    }
}

#[test]
fn a_chain_written_anew_below_a_named_head_is_noticed() {
    let node = Node::new(WIDE);
    node.reads(6);
    node.commit();
    node.reads(6);
    let path = node.paths().pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let mut rest = bytes.as_slice();
    let (mut heads, _) = parse_header(&mut rest).unwrap();
    let mut forged = bytes[..bytes.len() - rest.len()].to_vec();
    let mut index = 0;
    while let Some(line) = parse_line(&mut rest) {
        let body = if index == 1 { b"forged, and as long as it pleases" } else { line.body };
        let head = heads.get(&line.realm).copied().unwrap_or_default().after(Chain::Reads, line.realm, body);
        heads.insert(line.realm, head);
        forged.extend_from_slice(&u32::try_from(body.len() + 44).unwrap().to_be_bytes());
        forged.extend_from_slice(&line.realm.0.to_be_bytes());
        forged.extend_from_slice(&head.seq.to_be_bytes());
        forged.extend_from_slice(body);
        forged.extend_from_slice(&head.hash);
        index += 1;
    }
    let (_folder, report) = node.bent(|folder| fs::write(folder.join(path.file_name().unwrap()), forged).unwrap());
    let found = report.first_break.unwrap();
    assert_eq!((found.realm, found.what), (REALMS[1], "not what a commit names"));
}

#[test]
fn commits_name_what_is_on_disk() {
    let node = Node::new(WIDE);
    node.reads(7);
    assert!(node.report().named_reads.is_empty());
    node.commit();
    let stored = verify_store(&*node.engine.snapshot().unwrap()).unwrap();
    assert_eq!(stored.named_reads, node.journal.shared.lock().heads);
    assert!(node.journal.drain_durable().is_empty(), "each head is named once");
}

#[test]
fn a_full_journal_refuses_until_there_is_room() {
    let node = Node::new(Limits { total_bytes: 2_000, ..SMALL });
    let written = (0..100).take_while(|_| node.read(REALMS[0], "x").is_ok()).count();
    assert!((5..20).contains(&written), "{written}");
    assert!(node.journal.is_full());
    for _ in 0..3 {
        assert!(matches!(node.read(REALMS[0], "x"), Err(Refusal::Fault(Fault::Full))));
    }
    let paths = node.paths();
    paths[..2].iter().for_each(|path| fs::remove_file(path).unwrap());
    // The journal's own thread finds that there is room again.
    while node.journal.is_full() {
        std::thread::yield_now();
    }
    node.read(REALMS[0], "x").unwrap();
    assert_eq!(node.report().first_break, None);
}

#[test]
fn what_strangers_can_fill_leaves_room_for_the_reads_of_tenants() {
    let node = Node::new(Limits { total_bytes: 16 << 10, ..SMALL });
    assert!((0..1000).any(|_| node.read(Realm::NODE, "canary-object").is_err()));
    node.read(REALMS[0], "canary-object").unwrap();
    assert!(matches!(node.read(Realm::NODE, "canary-object"), Err(Refusal::Fault(Fault::Full))));
}

#[test]
fn below_the_reserve_of_the_disk_reads_are_refused() {
    let node = Node::new(Limits { reserve_bytes: u64::MAX, ..WIDE });
    node.read(REALMS[0], "the first shows how it is").unwrap();
    while !node.journal.is_full() {
        std::thread::yield_now();
    }
    assert!(matches!(node.read(REALMS[0], "x"), Err(Refusal::Fault(Fault::Full))));
}

#[test]
fn an_endless_line_is_cut_and_kept() {
    let mut node = Node::new(WIDE);
    node.read(REALMS[0], &"x".repeat(1 << 20)).unwrap();
    node.reads(2);
    node.reopen(WIDE).unwrap();
    assert_eq!((node.journal.was_torn(), node.report().reads), (false, 3));
}

/// No chain is that long: such a head comes from a damaged disk.
#[test]
fn a_head_at_the_last_number_is_no_end_of_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let head = Head { seq: u64::MAX, hash: [0; 32] };
    let checkpoint = Checkpoint { heads: vec![(Realm(1), head)], after_gap: false };
    let header = [&MAGIC[..], &length_prefixed(&[&codec::encode(&checkpoint)])].concat();
    let line = length_prefixed(&[&[0; 4 + 8 + 8 + 46 + 32]]);
    fs::write(segment_path(folder.path(), 1), [header, line].concat()).unwrap();
    let mut report = Report::default();
    verify_journal(folder.path(), &mut report).unwrap();
    assert!(report.first_break.is_some());
    let journal = Journal::open(folder.path(), WIDE, Arc::new(Counting::default())).unwrap();
    assert!(journal.was_torn());
}

#[test]
fn many_readers_at_once_keep_the_chains() {
    let node = Node::new(Limits { segment_bytes: 4_000, ..WIDE });
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| node.reads(40));
        }
    });
    node.commit();
    let report = node.report();
    assert_eq!((report.reads, report.gaps, report.first_break), (320, 0, None));
    let lines: BTreeSet<_> = node
        .paths()
        .iter()
        .flat_map(|path| spans(&fs::read(path).unwrap()))
        .map(|(_, realm, seq)| (realm, seq))
        .collect();
    assert_eq!(lines.len(), 320);
}

#[test]
fn a_realm_that_is_gone_reads_nothing() {
    let node = Node::new(WIDE);
    assert!(matches!(node.read(Realm(9), "x"), Err(Refusal::NotFound("realm"))));
    assert_eq!(node.report().reads, 0);
}

#[test]
fn a_journal_that_can_not_be_written_says_so_once_and_takes_nothing_more() {
    let node = Node::new(WIDE);
    let told = Arc::<Mutex<Vec<String>>>::default();
    let hook = |told: &Arc<Mutex<Vec<String>>>| {
        let told = told.clone();
        Box::new(move |why: &str| told.lock().unwrap().push(why.to_owned()))
    };
    node.journal.on_failure(hook(&told));
    node.reads(2);
    // Neither written nor cut back to what it was.
    node.journal.shared.lock().file = Arc::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert!(matches!(node.read(REALMS[0], "x"), Err(Refusal::Fault(Fault::Io(_)))));
    for _ in 0..3 {
        assert!(matches!(node.read(REALMS[0], "x"), Err(Refusal::Fault(Fault::Stopped))));
    }
    assert_eq!(told.lock().unwrap().len(), 1, "{told:?}");
    assert_eq!(node.journal.load().refused, 4);
    node.journal.on_failure(hook(&told));
    assert_eq!(told.lock().unwrap().len(), 2, "who asks later is told too");
}

#[test]
fn a_syncing_thread_that_panics_is_heard_of() {
    let node = Node::new(WIDE);
    let (tell, told) = std::sync::mpsc::channel();
    node.journal.on_failure(Box::new(move |why| tell.send(why.to_owned()).unwrap()));
    // A lock that somebody else left poisoned is what its thread does not survive.
    let shared = node.journal.shared.clone();
    let _ = std::thread::spawn(move || {
        let mut state = shared.lock();
        state.dirty.insert(REALMS[0], Head::default());
        shared.changed.notify_all();
        panic!("with the lock in its hands");
    })
    .join();
    assert_eq!(told.recv().unwrap(), "its thread panicked");
}
