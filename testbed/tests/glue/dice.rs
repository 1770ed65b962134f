//! Randomness and time of a simulated world: both come from the seed.

use std::sync::Mutex;
use std::time::Duration;

use holdfast_actors::ports::{Clock, Entropy, Now};
use holdfast_protocol::crypto::hash::sha256;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// When every world begins, microseconds since the Unix epoch.
pub(crate) const EPOCH_US: i64 = 1_800_000_000_000_000;

/// A stream of bytes that a seed and a name stand for.
pub(crate) struct Dice {
    key: [u8; 32],
    drawn: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self { key: sha256(&[&seed.to_be_bytes(), name.as_bytes()]), drawn: 0 }
    }

    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        self.drawn += 1;
        sha256(&[&self.key, &self.drawn.to_be_bytes()])
    }

    /// Evenly between 0 and `below`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        let [a, b, c, d, ..] = self.bytes();
        u64::from(u32::from_be_bytes([a, b, c, d])) % below
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        0.0 < share && (self.below(1_000_000) as f64) < share * 1e6
    }
}

/// A node's randomness. It goes on where it was when the node's process is started again.
pub(crate) struct SimEntropy(Mutex<Dice>);

impl SimEntropy {
    pub(crate) fn new(seed: u64, node: &str) -> Self {
        Self(Mutex::new(Dice::new(seed, node)))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, into: &mut [u8]) {
        let mut dice = self.0.lock().unwrap();
        for chunk in into.chunks_mut(32) {
            let bytes = dice.bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// A process's clock: simulated time since it began, and the world's wall clock. Asked from outside of the simulated
/// hosts it says what it said last.
pub(crate) struct SimClock {
    began: Instant,
    wall_us: i64,
    last: Mutex<Duration>,
}

impl SimClock {
    /// Begins now; to be called on a simulated host.
    pub(crate) fn start() -> Self {
        let world = turmoil::sim_elapsed().expect("a simulated host");
        let wall_us = EPOCH_US + i64::try_from(world.as_micros()).unwrap();
        Self { began: Instant::now(), wall_us, last: Mutex::default() }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        let mut last = self.last.lock().unwrap();
        if Handle::try_current().is_ok() {
            *last = self.began.elapsed();
        }
        Now { mono: *last, wall_us: self.wall_us + i64::try_from(last.as_micros()).unwrap() }
    }
}
