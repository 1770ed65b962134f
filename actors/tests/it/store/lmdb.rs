//! The LMDB engine: files, faults, and processes that die at the worst moment.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::{env, fs, process};

use holdfast_actors::store::lmdb::{LmdbEngine, LmdbReader, OpenError, Settings};
use holdfast_actors::store::{CommitEnd, Decide, Engine, Fault, Op, View};
use holdfast_protocol::ids::Revision;
use tempfile::TempDir;

use super::{Outcome, conformance, put, soon, submit, value, write};

fn open(folder: &Path) -> LmdbEngine {
    open_with(folder, Settings::default())
}

fn open_with(folder: &Path, settings: Settings) -> LmdbEngine {
    LmdbEngine::open(folder, settings, Box::new(|why| panic!("the store gave up: {why}"))).unwrap()
}

#[test]
fn it_conforms() {
    let folders = RefCell::new(Vec::new());
    conformance::suite(&|| {
        let folder = TempDir::new().unwrap();
        let engine = open(folder.path());
        folders.borrow_mut().push(folder);
        Arc::new(engine)
    });
}

#[test]
fn a_reopened_store_goes_on_where_it_was() {
    let folder = TempDir::new().unwrap();
    let engine = open(folder.path());
    write(&engine, vec![put("a", "1"), put("b", "1")]).unwrap();
    write(&engine, vec![put("a", "2")]).unwrap();
    engine.compact(Revision(1)).unwrap();
    drop(engine);

    let engine = open(folder.path());
    let view = engine.snapshot().unwrap();
    assert_eq!(view.revision(), Revision(2));
    assert_eq!(view.get(b"a").unwrap().unwrap().version, 2);
    assert_eq!(view.changes(Revision(1), 9).unwrap().len(), 1);
    assert!(view.changes(Revision(0), 9).is_err());
    assert_eq!(write(&engine, vec![put("a", "3")]), Ok(Revision(3)));
}

#[test]
fn dropping_decides_what_waits() {
    let folder = TempDir::new().unwrap();
    let engine = open(folder.path());
    let answers: Vec<_> = (0_u64..50).map(|n| submit(&engine, move |_| Some(vec![put(n.to_be_bytes(), "")]))).collect();
    drop(engine);
    assert!(answers.iter().all(|answer| soon(answer).is_ok()));
    assert_eq!(open(folder.path()).snapshot().unwrap().revision(), Revision(50));
}

#[test]
fn the_files_are_private_and_have_one_owner() {
    let folder = TempDir::new().unwrap();
    let inner = folder.path().join("new/data");
    let engine = open(&inner);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    for file in fs::read_dir(&inner).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    let second = LmdbEngine::open(&inner, Settings::default(), Box::new(|_| {}));
    assert!(matches!(second, Err(OpenError::InUse(_))));
    drop(engine);
    open(&inner);
}

#[test]
fn a_reader_opens_only_what_is_a_store() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(LmdbReader::open(folder.path()), Err(OpenError::NoStore(_))));
    assert!(!folder.path().join("data.mdb").exists());
    let engine = open(folder.path());
    write(&engine, vec![put("a", "1")]).unwrap();
    drop(engine);
    let view = LmdbReader::open(folder.path()).unwrap().snapshot().unwrap();
    assert_eq!(view.get(b"a").unwrap().unwrap().value, b"1");
}

/// Holds the writer inside a decision until the sender sends or goes.
fn hold(engine: &dyn Engine) -> (Sender<()>, Receiver<Outcome>) {
    let (release, gate) = mpsc::channel();
    let (entered, inside) = mpsc::channel();
    let gate = Mutex::new(gate);
    let answer = submit(engine, move |_| {
        entered.send(()).unwrap();
        let _ = gate.lock().unwrap().recv();
        Some(vec![put("held", "")])
    });
    soon(&inside);
    (release, answer)
}

struct Counting(Arc<AtomicUsize>);

impl CommitEnd for Counting {
    fn ops(&self, _: &dyn View) -> Vec<Op> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    }
}

#[test]
fn what_waits_together_commits_together() {
    let folder = TempDir::new().unwrap();
    let engine = open(folder.path());
    let commits = Arc::new(AtomicUsize::new(0));
    engine.close_commits_with(Box::new(Counting(commits.clone())));
    let (release, held) = hold(&engine);
    let answers = ["a", "b", "c"].map(|key| submit(&engine, move |_| Some(vec![put(key, "")])));
    release.send(()).unwrap();
    assert_eq!(soon(&held), Ok(Revision(1)));
    assert_eq!(answers.map(|it| soon(&it)), [2, 3, 4].map(|n| Ok(Revision(n))));
    assert_eq!(commits.load(Ordering::SeqCst), 1);
}

#[test]
fn too_many_waiting_decisions_are_refused_at_once() {
    let folder = TempDir::new().unwrap();
    let engine = open_with(folder.path(), Settings { waiting_max: 2, ..Settings::default() });
    let (release, held) = hold(&engine);
    let answers = ["a", "b", "c"].map(|key| submit(&engine, move |_| Some(vec![put(key, "")])));
    assert_eq!(soon(&answers[2]), Err(Fault::Overloaded));
    assert_eq!(engine.compact(Revision(0)), Err(Fault::Overloaded));
    release.send(()).unwrap();
    assert_eq!([&held, &answers[0], &answers[1]].map(soon), [1, 2, 3].map(|n| Ok(Revision(n))));
}

#[test]
fn a_disk_below_its_reserve_is_read_only() {
    let folder = TempDir::new().unwrap();
    write(&open(folder.path()), vec![put("a", "1")]).unwrap();
    let engine = open_with(folder.path(), Settings { reserve_bytes: u64::MAX, ..Settings::default() });
    assert_eq!(write(&engine, vec![put("b", "")]), Err(Fault::Full));
    assert_eq!(soon(&submit(&engine, |_| None)), Ok(Revision(1)), "what writes nothing needs no room");
    assert_eq!(value(&engine, "a"), Some(b"1".into()));
    assert_eq!(value(&engine, "b"), None);
}

/// What a node must remember, or what makes room.
struct Urgent(mpsc::Sender<Outcome>);

impl Decide for Urgent {
    fn decide(&mut self, _: &dyn View) -> Option<Vec<Op>> {
        Some(vec![Op::Delete { key: b"a".to_vec() }, put("b", "2")])
    }
    fn may_use_reserve(&self) -> bool {
        true
    }
    fn done(self: Box<Self>, outcome: Outcome) {
        self.0.send(outcome).unwrap();
    }
}

/// It is written to through a mapping: a page that a full disk can't give would end the process.
#[test]
fn the_table_of_readers_has_all_its_room_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let _engine = open_with(folder.path(), Settings::default());
    let table = std::fs::metadata(folder.path().join("lock.mdb")).unwrap();
    let held = std::os::unix::fs::MetadataExt::blocks(&table) * 512;
    assert!(table.len() <= held, "{held} of {} bytes have room on the disk", table.len());
}

#[test]
fn what_must_be_remembered_may_use_the_reserve() {
    let folder = TempDir::new().unwrap();
    write(&open(folder.path()), vec![put("a", "1")]).unwrap();
    let engine = open_with(folder.path(), Settings { reserve_bytes: u64::MAX, ..Settings::default() });
    let (tell, told) = mpsc::channel();
    engine.submit(Box::new(Urgent(tell)));
    assert_eq!(soon(&told), Ok(Revision(2)));
    assert_eq!((value(&engine, "a"), value(&engine, "b")), (None, Some(b"2".into())));
    assert_eq!(write(&engine, vec![put("c", "")]), Err(Fault::Full), "and nothing else may");
}

#[test]
fn a_full_map_refuses_the_group_and_harms_nothing() {
    let folder = TempDir::new().unwrap();
    let engine = open_with(folder.path(), Settings { map_bytes: 1 << 20, ..Settings::default() });
    let outcome = |n: u64| write(&engine, vec![put(n.to_be_bytes(), vec![7; 100_000])]);
    let full = (1_u64..20).find(|n| outcome(*n) == Err(Fault::Full)).unwrap();
    assert_eq!(engine.snapshot().unwrap().revision(), Revision(full - 1));
    assert_eq!(write(&engine, vec![put("small", "1")]), Ok(Revision(full)));
    drop(engine);
    // More address space is all it takes.
    assert_eq!(write(&open(folder.path()), vec![put("big", vec![7; 200_000])]), Ok(Revision(full + 1)));
}

#[test]
fn a_panicking_decision_stops_the_store_before_anything_is_written() {
    let folder = TempDir::new().unwrap();
    let (told, fatal) = mpsc::channel();
    let stop = Box::new(move |why: &str| told.send(why.to_owned()).unwrap());
    let engine = LmdbEngine::open(folder.path(), Settings::default(), stop).unwrap();
    write(&engine, vec![put("a", "1")]).unwrap();
    let (release, held) = hold(&engine);
    let bad = submit(&engine, |_| panic!("on purpose"));
    let late = submit(&engine, |_| Some(vec![put("late", "")]));
    release.send(()).unwrap();
    assert_eq!([held, bad, late].map(|it| soon(&it)), [const { Err(Fault::Stopped) }; 3]);
    assert_eq!(soon(&fatal), "a decision panicked");
    assert_eq!(write(&engine, vec![]), Err(Fault::Stopped));
    assert_eq!(engine.compact(Revision(1)), Err(Fault::Stopped));
    assert!(matches!(engine.snapshot(), Err(Fault::Stopped)));
    drop(engine);
    assert_eq!(open(folder.path()).snapshot().unwrap().revision(), Revision(1));
}

#[test]
fn a_long_history_is_compacted_in_slices() {
    let folder = TempDir::new().unwrap();
    let engine = open(folder.path());
    let key = |n: u64| n.to_be_bytes();
    let answers: Vec<_> = (0_u64..80)
        .map(|batch| submit(&engine, move |_| Some((0..128).map(|n| put(key(batch * 128 + n), "")).collect())))
        .collect();
    assert!(answers.iter().all(|answer| soon(answer).is_ok()));
    assert_eq!(engine.snapshot().unwrap().changes(Revision(0), usize::MAX).unwrap().len(), 80 * 128);
    engine.compact(Revision(79)).unwrap();
    assert_eq!(engine.snapshot().unwrap().changes(Revision(79), usize::MAX).unwrap().len(), 128);
}

/// Where [`writing_child`] writes. Unset in ordinary runs.
const CHILD_FOLDER: &str = "HOLDFAST_TEST_CHILD_FOLDER";

/// Tells the parent of each durable decision, one line each.
struct Told(u64, Sender<()>);

impl Decide for Told {
    fn decide(&mut self, _: &dyn View) -> Option<Vec<Op>> {
        let n = self.0.to_be_bytes();
        // Halves that belong together, some of them over several pages.
        let padding = vec![7; (self.0 % 7 * 3000) as usize];
        Some(vec![put([b"a", &n[..]].concat(), padding), put([b"b", &n[..]].concat(), n), put("last", n)])
    }

    fn done(self: Box<Self>, outcome: Outcome) {
        assert_eq!(outcome, Ok(Revision(self.0)));
        println!("ack {}", self.0);
        self.1.send(()).unwrap();
    }
}

/// The process that gets killed: nothing but a way for this program to start itself anew.
#[test]
fn writing_child() {
    let Some(folder) = env::var_os(CHILD_FOLDER) else { return };
    let end = |_: &str| process::exit(1);
    let engine = LmdbEngine::open(folder.as_ref(), Settings::default(), Box::new(end)).unwrap();
    let mut next = engine.snapshot().unwrap().revision().0 + 1;
    loop {
        let (answered, answers) = mpsc::channel();
        for n in next..next + 8 {
            engine.submit(Box::new(Told(n, answered.clone())));
        }
        (0..8).for_each(|_| soon(&answers));
        next += 8;
    }
}

fn spawn_child(folder: &Path) -> (Child, impl Iterator<Item = u64>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "store::lmdb::writing_child", "--nocapture"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.map_while(Result::ok).filter_map(|line| line.rsplit_once("ack ")?.1.parse().ok()))
}

#[test]
fn a_killed_writer_loses_nothing_acknowledged_and_leaves_nothing_half_done() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged = 0;
    for round in 0..10 {
        let (mut child, mut acks) = spawn_child(folder.path());
        acknowledged = acks.nth(1 + round * 37 % 60).expect("the child writes");
        if round == 0 {
            let view = LmdbReader::open(folder.path()).unwrap().snapshot().unwrap();
            assert!(view.revision() >= Revision(acknowledged), "a reader sees what a running writer committed");
        }
        child.kill().unwrap();
        acknowledged = acks.last().unwrap_or(acknowledged);
        child.wait().unwrap();
        verify(&*open(folder.path()).snapshot().unwrap(), acknowledged);
    }
    assert!(acknowledged > 100, "{acknowledged}");
}

fn verify(view: &dyn View, acknowledged: u64) {
    let last = view.revision().0;
    assert!(last >= acknowledged, "{last} < {acknowledged}");
    assert_eq!(view.get(b"last").unwrap().unwrap().value, last.to_be_bytes());
    for half in [b'a', b'b'] {
        let rows = view.range(&[half], &[half + 1], usize::MAX).unwrap();
        let numbers = rows.iter().map(|(key, entry)| (key[1..].to_vec(), entry.modified.0));
        assert!(numbers.eq((1..=last).map(|n| (n.to_be_bytes().to_vec(), n))));
    }
    assert_eq!(view.changes(Revision(0), usize::MAX).unwrap().len() as u64, 2 * last + 1);
}
