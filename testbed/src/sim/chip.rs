//! A host's TPM: the software TPM of the protocol's tests, with the host secret and a clock beside it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::soft::SoftTpm;
use holdfast_protocol::tpm::{Counters, Evidence};
use holdfast_site_agent::chip::{BoxFuture, SecretChip};
use holdfast_site_agent::tpm::{AkBlob, SealedBlob, TpmError};
use holdfast_site_agent::uplink::dialogue::Quoter;

use crate::sim::clock::WorldTime;

/// The register that shows what was booted.
const MEASURED: u8 = 4;

/// The chip; it stays when its machine's processes end.
pub struct SimTpm {
    world: WorldTime,
    inner: Mutex<Inner>,
}

struct Inner {
    tpm: SoftTpm,
    wrong: bool,
    restart: u32,
    reset: u32,
    /// The one host secret that opens, and the number of its blob.
    secret: Option<(u64, Secret<32>)>,
    blobs: u64,
    fails: bool,
    /// When it quoted, with the reset counter then and whether the registers were right.
    last_quote: Option<Quoted>,
}

/// A quote that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// Microseconds since the world began.
    pub at_us: u64,
    /// The reset counter.
    pub reset: u32,
    /// Whether the machine ran what it should.
    pub right: bool,
}

impl SimTpm {
    /// A machine's TPM, which has booted what it should.
    pub fn new(seed: &Secret<32>, world: WorldTime) -> Arc<Self> {
        let tpm = SoftTpm::from_seed(seed);
        let inner =
            Inner { tpm, wrong: false, restart: 0, reset: 1, secret: None, blobs: 0, fails: false, last_quote: None };
        let chip = Arc::new(Self { world, inner: Mutex::new(inner) });
        chip.lock().measure();
        chip
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics with it")
    }

    /// The machine boots, and measures what it boots.
    pub fn reboot(&self) {
        let mut inner = self.lock();
        inner.reset += 1;
        inner.measure();
    }

    /// Something else will be booted from now on, or the right thing again; the registers show it at once, as where a
    /// running system was tampered with.
    pub fn set_wrong(&self, wrong: bool) {
        let mut inner = self.lock();
        inner.wrong = wrong;
        inner.measure();
    }

    /// Whether it shows something else than it should.
    pub fn is_wrong(&self) -> bool {
        self.lock().wrong
    }

    /// It does not answer, or answers again.
    pub fn set_fails(&self, fails: bool) {
        self.lock().fails = fails;
    }

    /// Whether it does not answer.
    pub fn fails(&self) -> bool {
        self.lock().fails
    }

    /// The last quote it made.
    pub fn last_quote(&self) -> Option<Quoted> {
        self.lock().last_quote
    }

    /// The reset counter.
    pub fn resets(&self) -> u32 {
        self.lock().reset
    }

    /// Does something with the TPM proper.
    pub fn with<T>(&self, work: impl FnOnce(&SoftTpm) -> T) -> T {
        let mut inner = self.lock();
        inner.tell_time(&self.world);
        work(&inner.tpm)
    }
}

impl Inner {
    fn measure(&mut self) {
        self.tpm.pcrs = BTreeMap::new();
        for pcr in 0..8 {
            self.tpm.extend(pcr, &[pcr + 1; 32]);
        }
        if self.wrong {
            self.tpm.extend(MEASURED, &[0xEE; 32]);
        }
    }

    fn tell_time(&mut self, world: &WorldTime) {
        self.tpm.counters =
            Counters { clock: 1_000 + world.us() / 1_000, reset_count: self.reset, restart_count: self.restart };
    }
}

fn unavailable() -> TpmError {
    TpmError::Unavailable("simulated".to_owned())
}

impl SecretChip for SimTpm {
    fn create<'a>(&'a self, secret: &'a Secret<32>) -> BoxFuture<'a, Result<SealedBlob, TpmError>> {
        let mut inner = self.lock();
        let made = if inner.fails {
            Err(unavailable())
        } else {
            inner.blobs += 1;
            let number = inner.blobs;
            inner.secret = Some((number, secret.duplicate()));
            Ok(SealedBlob { public: number.to_be_bytes().to_vec(), private: vec![1; 32] })
        };
        Box::pin(std::future::ready(made))
    }

    fn open<'a>(&'a self, blob: &'a SealedBlob) -> BoxFuture<'a, Result<Secret<32>, TpmError>> {
        let inner = self.lock();
        let opened = match &inner.secret {
            _ if inner.fails => Err(unavailable()),
            Some((number, secret)) if blob.public == number.to_be_bytes() => Ok(secret.duplicate()),
            _ => Err(TpmError::Destroyed),
        };
        Box::pin(std::future::ready(opened))
    }

    fn destroy(&self) -> BoxFuture<'_, Result<(), TpmError>> {
        let mut inner = self.lock();
        if inner.fails {
            return Box::pin(std::future::ready(Err(unavailable())));
        }
        inner.secret = None;
        let destroyed = Ok(());
        Box::pin(std::future::ready(destroyed))
    }

    fn counters(&self) -> BoxFuture<'_, Result<Counters, TpmError>> {
        let mut inner = self.lock();
        inner.tell_time(&self.world);
        let told = if inner.fails { Err(unavailable()) } else { Ok(inner.tpm.counters) };
        Box::pin(std::future::ready(told))
    }
}

impl Quoter for SimTpm {
    fn quote<'a>(
        &'a self,
        _: &'a AkBlob,
        qualifying: [u8; 32],
        pcrs: &'a [u8],
    ) -> BoxFuture<'a, Result<Evidence, TpmError>> {
        let mut inner = self.lock();
        inner.tell_time(&self.world);
        inner.last_quote = Some(Quoted { at_us: self.world.us(), reset: inner.reset, right: !inner.wrong });
        let quoted = if inner.fails { Err(unavailable()) } else { Ok(inner.tpm.quote(&qualifying, pcrs)) };
        Box::pin(std::future::ready(quoted))
    }
}
