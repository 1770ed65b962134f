//! Time: one for the world, and what each machine takes for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_actors::ports::{Clock, Now};

/// The wall clock's time at which worlds begin, microseconds since the Unix epoch.
const BEGUN_US: i64 = 1_800_000_000_000_000;

/// Microseconds since the world began.
#[derive(Debug, Clone, Default)]
pub struct WorldTime(Arc<AtomicU64>);

impl WorldTime {
    /// Now.
    pub fn us(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Time passes.
    pub fn advance_to(&self, us: u64) {
        self.0.store(us, Ordering::Relaxed);
    }
}

/// A machine's two clocks: one since its boot, and one on its wall, which may be wrong and jump.
#[derive(Debug, Clone)]
pub struct MachineClock {
    world: WorldTime,
    booted_us: Arc<AtomicU64>,
    off_us: Arc<AtomicI64>,
}

impl MachineClock {
    /// Of a machine that boots now, with its wall clock off by so much.
    pub fn new(world: WorldTime, off_us: i64) -> Self {
        let booted = world.us();
        Self { world, booted_us: Arc::new(AtomicU64::new(booted)), off_us: Arc::new(AtomicI64::new(off_us)) }
    }

    /// The machine boots.
    pub fn boot(&self) {
        self.booted_us.store(self.world.us(), Ordering::Relaxed);
    }

    /// Somebody sets the wall clock: off by so much from now on.
    pub fn set_off(&self, off_us: i64) {
        self.off_us.store(off_us, Ordering::Relaxed);
    }

    /// The world's time at which this machine's boot-time clock reads `mono`.
    pub fn world_us_at(&self, mono: Duration) -> u64 {
        self.booted_us.load(Ordering::Relaxed).saturating_add(u64::try_from(mono.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Now {
        let (world, booted) = (self.world.us(), self.booted_us.load(Ordering::Relaxed));
        let wall = BEGUN_US + i64::try_from(world).unwrap_or(i64::MAX / 2) + self.off_us.load(Ordering::Relaxed);
        Now { mono: Duration::from_micros(world - booted), wall_us: wall }
    }
}
