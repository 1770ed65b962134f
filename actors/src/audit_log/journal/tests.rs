//! Tests of the read journal on a folder of its own.

use std::sync::atomic::AtomicU64;
use std::time::Instant;

use holdfast_protocol::crypto::hash::sha256;
use holdfast_protocol::ids::DeploymentId;
use tempfile::TempDir;

use super::*;
use crate::barrier::{Barrier, NoReads};
use crate::keyring::{Keyring, RealmKeys};
use crate::store::memory::MemoryEngine;
use crate::testing::secret;

const TENANT: Realm = Realm(1);

#[derive(Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, into: &mut [u8]) {
        let drawn = sha256(&[&self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes()]);
        into.iter_mut().zip(drawn).for_each(|(into, byte)| *into = byte);
    }
}

fn barrier() -> Barrier {
    let barrier = Barrier::new(Arc::new(MemoryEngine::new()), Arc::new(Counting::default()), Arc::new(NoReads));
    let ring = Keyring::new(DeploymentId([7; 16]), secret(1));
    let keys = barrier.first_realm(&ring, RealmKeys::new(secret(2), secret(3)));
    barrier.submit_begin(keys, Vec::new(), |outcome| outcome.unwrap());
    barrier.unseal(ring);
    let create = |_: &dyn crate::rows::Rows| {
        let mut batch = crate::rows::Batch::housekeeping();
        batch.create_realm(TENANT, secret(4), secret(5));
        Ok((batch, ()))
    };
    barrier.submit(create, |outcome: Result<_, Refusal>| assert!(outcome.is_ok()));
    barrier
}

fn open(folder: &TempDir, total_bytes: u64) -> io::Result<Journal> {
    let limits = Limits { segment_bytes: 4096, total_bytes, reserve_bytes: 0 };
    Journal::open(folder.path(), limits, Arc::new(Counting::default()))
}

fn append(journal: &Journal, barrier: &Barrier, realm: Realm) -> Result<(), Refusal> {
    journal.append(&barrier.snapshot().unwrap(), realm, &Line::done(1, "alice", "secret.read", "app/box/x"))
}

fn newest(folder: &TempDir) -> PathBuf {
    segments(folder.path()).unwrap().pop().unwrap().1
}

/// Tries until it holds; the journal's own thread takes a moment.
fn soon(mut holds: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        if holds() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn strangers_refusals_leave_room_for_the_reads_of_tenants() {
    let (folder, barrier) = (TempDir::new().unwrap(), barrier());
    let journal = open(&folder, 16 << 10).unwrap();
    assert!((0..1000).any(|_| append(&journal, &barrier, Realm::NODE).is_err()));
    assert!(append(&journal, &barrier, TENANT).is_ok());
    assert!(matches!(append(&journal, &barrier, Realm::NODE), Err(Refusal::Fault(Fault::Full))));
}

#[test]
fn a_full_journal_goes_on_once_segments_were_moved_away() {
    let (folder, barrier) = (TempDir::new().unwrap(), barrier());
    let journal = open(&folder, 16 << 10).unwrap();
    assert!(soon(|| append(&journal, &barrier, TENANT).is_err()));
    assert!(journal.is_full());
    let kept = newest(&folder);
    for (_, path) in segments(folder.path()).unwrap().into_iter().filter(|(_, path)| *path != kept) {
        fs::remove_file(path).unwrap();
    }
    assert!(soon(|| append(&journal, &barrier, TENANT).is_ok()));
}

#[test]
fn a_crash_while_a_segment_began_keeps_nobody_from_starting() {
    let (folder, barrier) = (TempDir::new().unwrap(), barrier());
    let journal = open(&folder, 1 << 20).unwrap();
    append(&journal, &barrier, TENANT).unwrap();
    drop(journal);
    let whole = fs::read(newest(&folder)).unwrap();
    let header = whole.len() - parse_beginning(&whole);
    for left in (0..header).map(|length| whole[..length].to_vec()).chain([vec![0; header], vec![0; 4096]]) {
        let (last, _) = segments(folder.path()).unwrap().pop().unwrap();
        fs::write(folder.path().join(format!("reads-{:010}.log", last + 1)), &left).unwrap();
        let mut report = Report::default();
        verify_journal(folder.path(), &mut report).unwrap();
        assert_eq!((report.first_break, report.reads), (None, 1), "{} bytes", left.len());
        drop(open(&folder, 1 << 20).unwrap_or_else(|error| panic!("{} bytes: {error}", left.len())));
        assert_eq!(segments(folder.path()).unwrap().pop().unwrap().0, last + 2);
    }
    fs::write(newest(&folder), b"something else").unwrap();
    assert!(open(&folder, 1 << 20).is_err(), "what is no segment is not removed");
}

fn parse_beginning(mut bytes: &[u8]) -> usize {
    parse_header(&mut bytes).unwrap();
    bytes.len()
}
