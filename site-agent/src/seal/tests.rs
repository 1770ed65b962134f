//! The seal over the memory engine, with a chip that keeps its one secret in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex as StdMutex, MutexGuard};
use std::time::Duration;

use holdfast_actors::audit_log::verify::verify_store;
use holdfast_actors::barrier::NoReads;
use holdfast_actors::distribution::Copy;
use holdfast_actors::ports::{Entropy, Now};
use holdfast_actors::rows::{ReadRows, Rows};
use holdfast_actors::shell::OsEntropy;
use holdfast_actors::store::Engine;
use holdfast_actors::store::memory::MemoryEngine;
use holdfast_protocol::ids::HostName;
use holdfast_protocol::tpm::Counters;
use holdfast_protocol::wire::Position;
use tempfile::TempDir;

use super::*;
use crate::chip::BoxFuture;
use crate::state::tests::state;
use crate::tpm::SealedBlob;

/// Seals by number: the blob names the secret, and only the last one opens.
#[derive(Default)]
pub(crate) struct Chip {
    secrets: StdMutex<(u8, Option<Secret<32>>)>,
    is_down: AtomicBool,
    /// It takes a job and gives no answer.
    hangs: AtomicBool,
    /// How often it was asked for something.
    pub(crate) jobs: AtomicU64,
}

impl Chip {
    fn ask(&self) -> Result<MutexGuard<'_, (u8, Option<Secret<32>>)>, TpmError> {
        self.jobs.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) {
            return Err(TpmError::Unavailable("it is down".to_owned()));
        }
        Ok(self.secrets.lock().unwrap())
    }
}

impl SecretChip for Chip {
    fn create<'a>(&'a self, secret: &'a Secret<32>) -> BoxFuture<'a, Result<SealedBlob, TpmError>> {
        Box::pin(async {
            let mut secrets = self.ask()?;
            *secrets = (secrets.0 + 1, Some(secret.duplicate()));
            Ok(SealedBlob { public: vec![secrets.0], private: vec![] })
        })
    }
    fn open<'a>(&'a self, blob: &'a SealedBlob) -> BoxFuture<'a, Result<Secret<32>, TpmError>> {
        Box::pin(async {
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            match &*self.ask()? {
                (number, Some(secret)) if blob.public == [*number] => Ok(secret.duplicate()),
                _ => Err(TpmError::Destroyed),
            }
        })
    }
    fn destroy(&self) -> BoxFuture<'_, Result<(), TpmError>> {
        Box::pin(async {
            self.ask()?.1 = None;
            Ok(())
        })
    }
    fn counters(&self) -> BoxFuture<'_, Result<Counters, TpmError>> {
        Box::pin(async { self.ask().map(|_| Counters { reset_count: 1, restart_count: 0, clock: 5000 }) })
    }
}

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Now {
        Now { mono: Duration::from_secs(60), wall_us: 0 }
    }
}

struct Bench {
    engine: Arc<MemoryEngine>,
    chip: Arc<Chip>,
    folder: TempDir,
    seal: HostSeal,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        StateFile::begin(folder.path(), state()).unwrap();
        Self::over(Arc::new(MemoryEngine::new()), Arc::default(), folder)
    }

    fn over(engine: Arc<MemoryEngine>, chip: Arc<Chip>, folder: TempDir) -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let seal = HostSeal::new(SealParts {
            barrier: Barrier::new(engine.clone(), entropy, Arc::new(NoReads)),
            file: StateFile::open(folder.path()).unwrap().unwrap(),
            chip: chip.clone(),
            clock: Arc::new(Noon),
            leases: Arc::default(),
        });
        Self { engine, chip, folder, seal }
    }

    /// The process ends and another one begins.
    fn restarted(self) -> Self {
        Self::over(Arc::new(self.engine.restarted()), self.chip, self.folder)
    }

    async fn put(&self) {
        let copy = Copy { tenant_number: 2, realm: None, position: Position::default(), shadow: None };
        let decide = move |_: &dyn Rows| {
            let mut batch = Batch::housekeeping();
            batch.put(Realm::NODE, &["acme"], &copy);
            Ok((batch, ()))
        };
        self.seal.parts.barrier.run(decide).await.unwrap();
    }

    fn has_content(&self) -> bool {
        let rows = self.seal.parts.barrier.snapshot().unwrap();
        rows.read::<Copy>(Realm::NODE, &["acme"]).unwrap().is_some()
    }

    /// Lines of the audit log so far.
    fn lines(&self) -> u64 {
        let report = verify_store(&*self.engine.snapshot().unwrap()).unwrap();
        assert_eq!(report.first_break, None);
        report.realms.get(&Realm::NODE).map_or(0, |lines| lines.changes)
    }

    fn epoch(&self) -> Option<u64> {
        self.seal.epoch().unwrap().map(|epoch| epoch.0)
    }
}

fn key(epoch: u64) -> SealKey {
    let byte = u8::try_from(epoch).unwrap();
    SealKey { epoch: SealEpoch(epoch), key: Secret::fill_with(|into| into.fill(byte)) }
}

#[tokio::test]
async fn the_first_release_begins_a_store_and_later_ones_open_it() {
    let bench = Bench::new();
    assert_eq!(bench.seal.open(None, &key(1)).await.unwrap(), Opened::Begun);
    bench.put().await;
    let bench = bench.restarted();
    assert!(bench.seal.is_sealed());
    assert_eq!(bench.seal.open(Some(&key(1)), &key(1)).await.unwrap(), Opened::Unsealed);
    assert!(bench.has_content());
    let bench = bench.restarted();
    assert_eq!(bench.seal.open(None, &key(1)).await.unwrap(), Opened::Unsealed, "the current key is the held one");
    assert!(bench.has_content());
    assert_eq!(bench.seal.open(None, &key(1)).await.unwrap(), Opened::Already);
}

#[tokio::test]
async fn a_newer_seal_key_takes_the_place_of_the_held_one() {
    let bench = Bench::new();
    bench.seal.open(None, &key(1)).await.unwrap();
    bench.put().await;
    let bench = bench.restarted();
    assert_eq!(bench.seal.open(Some(&key(1)), &key(3)).await.unwrap(), Opened::Unsealed);
    assert_eq!((bench.epoch(), bench.has_content()), (Some(3), true));
    let mut rewrapped = Vec::new();
    for epoch in [4, 4, 2] {
        rewrapped.push(bench.seal.rewrap(&key(epoch)).await.unwrap());
    }
    assert_eq!(rewrapped, [true, false, false], "only what is new is told to central");
    assert_eq!(bench.epoch(), Some(4), "never back");
    let bench = bench.restarted();
    assert_eq!(bench.seal.open(None, &key(4)).await.unwrap(), Opened::Unsealed);
    assert!(bench.has_content());
}

#[tokio::test]
async fn without_the_held_key_or_the_host_secret_the_store_begins_anew() {
    for lost in ["the held key", "a wrong key", "the host secret", "the blob"] {
        let bench = Bench::new();
        bench.seal.open(None, &key(1)).await.unwrap();
        bench.put().await;
        bench.seal.boot.put_continuity([7; 32]).await.unwrap();
        let bench = bench.restarted();
        let held = match lost {
            "the held key" => None,
            "a wrong key" => Some(SealKey { key: key(9).key, ..key(1) }),
            _ => Some(key(1)),
        };
        match lost {
            "the host secret" => bench.chip.destroy().await.unwrap(),
            "the blob" => bench.seal.parts.file.update(|state| state.host_secret = None).unwrap(),
            _ => {}
        }
        assert_eq!(bench.seal.open(held.as_ref(), &key(2)).await.unwrap(), Opened::Begun, "{lost}");
        assert!(!bench.has_content(), "{lost}");
        assert_eq!(bench.epoch(), Some(2), "{lost}");
        assert_eq!(bench.seal.boot.continuity().unwrap(), Some([7; 32]), "{lost}: rows outside the barrier stay");
    }
}

#[tokio::test]
async fn a_tpm_that_can_not_be_asked_loses_nothing() {
    let bench = Bench::new();
    bench.seal.open(None, &key(1)).await.unwrap();
    bench.put().await;
    let bench = bench.restarted();
    bench.chip.is_down.store(true, Ordering::SeqCst);
    assert!(matches!(bench.seal.open(Some(&key(1)), &key(2)).await, Err(SealFault::Tpm(TpmError::Unavailable(_)))));
    assert!(bench.seal.is_sealed());
    bench.chip.is_down.store(false, Ordering::SeqCst);
    assert_eq!(bench.seal.open(Some(&key(1)), &key(2)).await.unwrap(), Opened::Unsealed);
    assert!(bench.has_content());
}

#[tokio::test]
async fn sealing_closes_the_store_and_is_told() {
    let bench = Bench::new();
    let mut told = bench.seal.watch();
    bench.seal.open(None, &key(1)).await.unwrap();
    assert!(!*told.borrow_and_update());
    bench.seal.seal("operator").await;
    assert!(*told.borrow_and_update());
    assert!(bench.seal.is_sealed());
    assert!(matches!(bench.seal.rewrap(&key(2)).await, Err(SealFault::Refused(Refusal::Sealed))));
    assert_eq!(bench.seal.open(None, &key(1)).await.unwrap(), Opened::Unsealed);
}

#[tokio::test]
async fn a_wipe_leaves_nothing_that_any_key_opens_and_remembers_that_it_was_done() {
    let bench = Bench::new();
    bench.seal.open(None, &key(1)).await.unwrap();
    bench.put().await;
    let blob = bench.seal.parts.file.get().host_secret.clone().unwrap();
    bench.seal.wipe(StandingGeneration(5)).await.unwrap();
    assert!(bench.seal.is_sealed());
    assert!(matches!(bench.chip.open(&blob).await, Err(TpmError::Destroyed)), "a copy of the blob");
    assert_eq!((bench.epoch(), bench.seal.parts.file.get().host_secret.clone()), (None, None));
    assert_eq!(bench.seal.boot.wiped().unwrap(), StandingGeneration(5));
    bench.seal.wipe(StandingGeneration(5)).await.unwrap();

    let bench = bench.restarted();
    assert_eq!(bench.seal.open(Some(&key(1)), &key(1)).await.unwrap(), Opened::Begun, "after a readmission");
    assert!(!bench.has_content());
    assert_eq!(bench.seal.boot.wiped().unwrap(), StandingGeneration(5));
}

#[tokio::test]
async fn a_begin_that_a_crash_cut_short_begins_again() {
    let bench = Bench::new();
    bench.seal.open(None, &key(1)).await.unwrap();
    bench.put().await;
    bench.seal.boot.put_root(None).await.unwrap();
    let bench = bench.restarted();
    assert_eq!(bench.epoch(), None);
    assert_eq!(bench.seal.open(Some(&key(1)), &key(1)).await.unwrap(), Opened::Begun);
    assert!(!bench.has_content());
    assert_eq!(bench.seal.host.host, "udc1-001".parse::<HostName>().unwrap());
}

#[tokio::test]
async fn a_wipe_without_a_tpm_takes_away_what_it_can_and_does_not_count_as_done() {
    let bench = Bench::new();
    bench.seal.open(None, &key(1)).await.unwrap();
    bench.put().await;
    bench.chip.is_down.store(true, Ordering::SeqCst);
    assert!(matches!(bench.seal.wipe(StandingGeneration(5)).await, Err(SealFault::Tpm(TpmError::Unavailable(_)))));
    assert_eq!((bench.epoch(), bench.seal.parts.file.get().host_secret.clone()), (None, None));
    assert_eq!(bench.seal.boot.wiped().unwrap(), StandingGeneration(0), "the TPM still has its half");
    bench.chip.is_down.store(false, Ordering::SeqCst);
    bench.seal.wipe(StandingGeneration(5)).await.unwrap();
    assert!(bench.chip.ask().unwrap().1.is_none());
    assert_eq!(bench.seal.boot.wiped().unwrap(), StandingGeneration(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_does_not_wait_for_a_tpm_that_hangs() {
    let bench = Arc::new(Bench::new());
    bench.seal.open(None, &key(1)).await.unwrap();
    bench.chip.hangs.store(true, Ordering::SeqCst);
    let (newer, older) = (bench.clone(), bench.clone());
    let rewrapping = tokio::spawn(async move { newer.seal.rewrap(&key(2)).await });
    while bench.seal.turn.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    let mut told = bench.seal.watch();
    let sealing = tokio::spawn(async move { older.seal.seal("central").await });
    told.wait_for(|sealed| *sealed).await.unwrap();
    assert!(bench.seal.is_sealed());
    rewrapping.abort();
    sealing.await.unwrap();
    assert!(bench.seal.is_sealed());
}

#[tokio::test]
async fn shares_given_while_sealed_are_never_too_many_and_one_line_tells_of_each_sibling_once_open() {
    const SIBLINGS: u64 = 4;
    const EACH: u64 = 50;
    let bench = Bench::new();
    bench.seal.open(None, &key(1)).await.unwrap();
    let bench = bench.restarted();
    for at in 0..SIBLINGS * EACH {
        let to = format!("udc1/udc1-00{}", 2 + at % SIBLINGS);
        bench.seal.note_given(GivenLine::once(to, i64::try_from(at).unwrap() * 1_000_000)).await.unwrap();
    }
    let remembered = bench.seal.boot.given_lines().unwrap();
    let told: Vec<String> = remembered.iter().map(|given| given.line().object).collect();
    let expected = |of: u64| format!("udc1/udc1-00{} 50 times since 1970-01-01T00:00:0{of}.000000Z", 2 + of);
    assert_eq!(told, (0..SIBLINGS).map(expected).collect::<Vec<_>>());
    assert_eq!(remembered[0].line().at_us, 196_000_000, "the last time");

    let before = bench.lines();
    bench.seal.open(None, &key(1)).await.unwrap();
    assert_eq!(bench.lines() - before, 1 + SIBLINGS);
    assert_eq!(bench.seal.boot.given_lines().unwrap(), []);
    bench.seal.note_given(GivenLine::once("udc1/udc1-002".to_owned(), 0)).await.unwrap();
    assert_eq!(bench.lines() - before, 1 + SIBLINGS + 1, "open, each has its own");
}

#[tokio::test]
async fn what_can_not_be_read_of_what_was_given_goes_with_the_next_opening() {
    let bench = Bench::new();
    bench.seal.open(None, &key(1)).await.unwrap();
    let bench = bench.restarted();
    for row in ["given", "ladder"] {
        bench.seal.parts.barrier.write_boot(vec![(row, Some(vec![0xff; 9]))]).await.unwrap();
    }
    bench.seal.note_given(GivenLine::once("udc1/udc1-002".to_owned(), 0)).await.unwrap();
    bench.seal.parts.barrier.write_boot(vec![("given", Some(vec![0xff; 9]))]).await.unwrap();
    bench.seal.open(None, &key(1)).await.unwrap();
    assert_eq!(bench.seal.boot.given_lines().unwrap(), []);
    assert_eq!(bench.seal.boot.ladder_lines().unwrap(), []);
}

#[tokio::test]
async fn whether_a_host_may_still_be_opened_is_asked_when_nobody_else_moves_the_seal() {
    let bench = Arc::new(Bench::new());
    bench.seal.open(None, &key(1)).await.unwrap();
    bench.seal.seal("central").await;
    let barred = Arc::new(AtomicBool::new(false));
    let turn = bench.seal.turn.lock().await;
    let (opener, told) = (bench.clone(), barred.clone());
    let opening = tokio::spawn(async move {
        let may = || Ok(if told.load(Ordering::SeqCst) { Err(NoLadder::SealedByOperator) } else { Ok(SealEpoch(1)) });
        opener.seal.open_held(&key(1), "sibling", &may).await
    });
    tokio::task::yield_now().await;
    barred.store(true, Ordering::SeqCst);
    drop(turn);
    assert!(matches!(opening.await.unwrap(), Err(SealFault::NoLadder(NoLadder::SealedByOperator))));
    assert!(bench.seal.is_sealed());
}
