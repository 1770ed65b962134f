//! What becomes of a host's share of its site's seal key, over the memory engine, with notices as central signs them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_actors::barrier::NoReads;
use holdfast_actors::ports::Now;
use holdfast_actors::seal_keeper::ladder::NoLadder;
use holdfast_actors::shell::OsEntropy;
use holdfast_actors::store::memory::{Injected, MemoryEngine};
use holdfast_protocol::crypto::sign::SigningKey;
use holdfast_protocol::ids::{HostGeneration, PolicyVersion, SealEpoch};
use holdfast_protocol::pki::{Authority, Issuer, Leaf, Serial, Terms, Validity};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::signed;
use holdfast_protocol::tpm::Counters;
use holdfast_protocol::wire::{LocalShare, SealKey, ShareTerms, Signable, UnsealPermit};
use tempfile::TempDir;

use super::*;
use crate::seal::tests::Chip;
use crate::state::JoinState;
use crate::state::tests::state;

const NOW: Now = Now { mono: Duration::from_secs(60), wall_us: 1_800_000_000_000_000 };
const WIPE: NoticedStanding = NoticedStanding::Quarantined { wipe: true };

/// So much later than [`NOW`], in seconds.
#[derive(Default)]
struct Later(AtomicU64);

impl Clock for Later {
    fn now(&self) -> Now {
        let later_s = self.0.load(Ordering::SeqCst);
        let later_us = i64::try_from(later_s).unwrap() * 1_000_000;
        Now { mono: NOW.mono + Duration::from_secs(later_s), wall_us: NOW.wall_us + later_us }
    }
}

/// Central's end: a root, and a signer that it certified.
struct Central {
    root: Vec<u8>,
    signer: SigningKey,
    certificate: Vec<u8>,
}

impl Central {
    fn new() -> Self {
        let key = |byte| SigningKey::from_seed(&Secret::fill_with(|into| into.fill(byte)));
        let (root, signer) = (key(1), key(2));
        let terms = Terms { serial: Serial([1; 16]), validity: Validity::of_authority(NOW.wall_s()) };
        let issuer = Issuer::new(state().deployment, Authority::Root, &root);
        let certificate = issuer.certify(&Leaf::BundleSigner, signer.public(), &terms).unwrap();
        Self { root: issuer.root_certificate(&terms).unwrap(), signer, certificate }
    }

    fn sign<T: Signable>(&self, value: &T) -> Signed {
        signed::sign(value, &self.signer, self.certificate.clone())
    }

    fn notice(&self, standing: NoticedStanding) -> Signed {
        let JoinState { deployment, host, .. } = state();
        let generation = StandingGeneration(5);
        self.sign(&Notice { deployment, site: host.site, host: Some(host.host), generation, standing, at_us: 0 })
    }

    fn share(&self, epoch: u64) -> Signed {
        let JoinState { deployment, host, .. } = state();
        let (epoch, holders) = (SealEpoch(epoch), Vec::new());
        let terms = ShareTerms { deployment, host, epoch, set: [1; 32], threshold: 2, holders, issued_us: 0 };
        let (pcrs, approved, ephemeral, envelope) = Default::default();
        self.sign(&LocalShare { terms, pcrs, approved, ephemeral, envelope })
    }
}

pub(crate) struct Bench {
    central: Central,
    engine: Arc<MemoryEngine>,
    pub(crate) chip: Arc<Chip>,
    folder: TempDir,
    clock: Arc<Later>,
    pub(crate) local: Local,
}

impl Bench {
    /// A host that is open, wrapped with the key of epoch 3, and holds a share of that.
    pub(crate) async fn new() -> Self {
        let (central, folder) = (Central::new(), tempfile::tempdir().unwrap());
        StateFile::begin(folder.path(), JoinState { root: central.root.clone(), ..state() }).unwrap();
        let bench = Self::over(central, Arc::new(MemoryEngine::new()), Arc::default(), folder);
        bench.local.seal.open(None, &key(3)).await.unwrap();
        bench.local.shared(&bench.central.share(3)).await.unwrap();
        assert_eq!(bench.epochs(), [3]);
        bench
    }

    fn over(central: Central, engine: Arc<MemoryEngine>, chip: Arc<Chip>, folder: TempDir) -> Self {
        let clock = Arc::<Later>::default();
        let local = Local::assemble(LocalParts {
            file: StateFile::open(folder.path()).unwrap().unwrap(),
            chip: chip.clone(),
            barrier: Barrier::new(engine.clone(), Arc::new(OsEntropy), Arc::new(NoReads)),
            system: Box::new(clock.clone()),
            entropy: Arc::new(OsEntropy),
            dialled: String::new(),
        });
        Self { central, engine, chip, folder, clock, local: local.unwrap() }
    }

    /// Time passes.
    pub(crate) fn later(&self, by: Duration) {
        self.clock.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    /// Central gives it a permit.
    pub(crate) async fn permit(&self, debug_key: [u8; 32]) {
        let JoinState { deployment, host, .. } = state();
        let permit = UnsealPermit {
            deployment,
            host,
            generation: HostGeneration(1),
            ak_public: Vec::new(),
            policy: PolicyVersion(1),
            pcrs: Vec::new(),
            reference: Vec::new(),
            counters: Counters { reset_count: 7, restart_count: 0, clock: 1_000 },
            issued_us: NOW.wall_us,
            expires_us: NOW.wall_us + 1_000_000,
            siblings: Vec::new(),
            authority: Vec::new(),
            remote_key: None,
            address: None,
            local_unseal: true,
            debug_key,
            approved_since_us: 0,
        };
        self.local.boot.put_permit(&self.central.sign(&permit), true).await.unwrap();
    }

    /// The process ends and another one begins.
    pub(crate) fn restarted(self) -> Self {
        Self::over(self.central, Arc::new(self.engine.restarted()), self.chip, self.folder)
    }

    /// The epochs of its shares.
    fn epochs(&self) -> Vec<u64> {
        self.local.shares().unwrap().iter().map(|share| share.terms.epoch.0).collect()
    }
}

fn key(epoch: u8) -> SealKey {
    SealKey { epoch: SealEpoch(epoch.into()), key: Secret::fill_with(|into| into.fill(epoch)) }
}

#[tokio::test]
async fn what_can_not_be_read_where_shares_are_keeps_no_wipe_from_being_carried_out_and_acknowledged() {
    let bench = Bench::new().await;
    bench.local.barrier.write_boot(vec![("shares", Some(vec![0xff; 9]))]).await.unwrap();
    let heeded = bench.local.heed(&bench.central.notice(WIPE)).await.unwrap();
    assert_eq!(heeded.wiped, Some(StandingGeneration(5)));
    assert_eq!(bench.local.boot.wiped().unwrap(), StandingGeneration(5));
    assert!(!bench.local.boot.has_shares().unwrap());
}

#[tokio::test]
async fn a_wipe_takes_the_shares_along() {
    let bench = Bench::new().await;
    bench.local.seal.wipe(StandingGeneration(5)).await.unwrap();
    assert!(!bench.local.boot.has_shares().unwrap());
}

#[tokio::test]
async fn a_host_that_stops_once_it_has_kept_a_notice_against_it_has_no_share() {
    for standing in [WIPE, NoticedStanding::Quarantined { wipe: false }, NoticedStanding::Untrusted] {
        let bench = Bench::new().await;
        bench.engine.inject(Box::new(|_| Injected::CrashAfter));
        assert!(bench.local.heed(&bench.central.notice(standing)).await.is_err());
        let bench = bench.restarted();
        assert_eq!(bench.local.notice().unwrap().map(|notice| notice.standing), Some(standing));
        assert!(!bench.local.boot.has_shares().unwrap(), "{standing:?}");
    }
}

#[tokio::test]
async fn a_start_erases_shares_of_a_host_that_something_is_held_against() {
    for (standing, left) in [(WIPE, false), (NoticedStanding::Untrusted, false), (NoticedStanding::Clear, true)] {
        let bench = Bench::new().await;
        bench.local.boot.put_notice(&bench.central.notice(standing)).await.unwrap();
        let bench = bench.restarted();
        bench.local.begin().await.unwrap();
        assert_eq!(bench.local.boot.has_shares().unwrap(), left, "{standing:?}");
    }
}

#[tokio::test]
async fn a_share_of_an_older_key_that_comes_late_is_not_kept() {
    let bench = Bench::new().await;
    for (epoch, kept) in [(2, vec![3]), (4, vec![3, 4]), (3, vec![3, 4])] {
        bench.local.shared(&bench.central.share(epoch)).await.unwrap();
        assert_eq!(bench.epochs(), kept, "after that of epoch {epoch}");
    }
}

#[tokio::test]
async fn a_host_that_an_operator_seals_is_opened_by_nothing_that_it_asked_for_before() {
    let bench = Bench::new().await.restarted();
    let may = || bench.local.may_climb_alone();
    bench.local.shut_by_operator("operator").await;
    let late = bench.local.seal.open_held(&key(3), "sibling udc1-002", &may).await;
    assert!(matches!(late, Err(SealFault::NoLadder(NoLadder::SealedByOperator))), "{late:?}");
    assert!(bench.local.seal.is_sealed());
    bench.local.opened().await.unwrap();
    assert!(bench.local.seal.open_held(&key(3), "sibling udc1-002", &may).await.unwrap());
    assert!(!bench.local.seal.is_sealed());
}

#[tokio::test]
async fn an_operators_seal_outlasts_a_loss_of_power_until_central_opens_the_host() {
    let bench = Bench::new().await;
    bench.local.shut_by_operator("operator").await;
    let bench = bench.restarted();
    assert_eq!(bench.local.may_climb_alone().unwrap(), Err(NoLadder::SealedByOperator));
    bench.local.opened().await.unwrap();
    let bench = bench.restarted();
    assert_eq!(bench.local.may_climb_alone().unwrap(), Ok(SealEpoch(3)));
}

#[tokio::test]
async fn a_permit_that_allows_no_shares_takes_them_along_in_one_write() {
    for (allowed, left) in [(true, true), (false, false)] {
        let bench = Bench::new().await;
        bench.engine.inject(Box::new(|_| Injected::CrashAfter));
        let permit = bench.central.notice(NoticedStanding::Clear);
        assert!(bench.local.boot.put_permit(&permit, allowed).await.is_err(), "the machine has lost its power");
        assert_eq!(bench.restarted().local.boot.has_shares().unwrap(), left);
    }
}
