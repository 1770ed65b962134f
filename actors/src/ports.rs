//! What cores are handed instead of a clock and a random source.

use std::sync::Arc;
use std::time::Duration;

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since the process (in simulation: the world) began; never goes back. All deadlines use it.
    pub mono: Duration,
    /// Microseconds since the Unix epoch; may step. For what people read and for certificates.
    pub wall_us: i64,
}

impl Now {
    /// Whole seconds since the Unix epoch.
    pub fn wall_s(self) -> i64 {
        self.wall_us.div_euclid(1_000_000)
    }
}

/// Random bytes: the operating system's, or a seed's in simulation.
pub trait Entropy: Send + Sync {
    /// Fills all of `into`.
    fn fill(&self, into: &mut [u8]);
}

/// `N` fresh bytes that are not secret (nonces, ids).
pub fn draw<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// `N` fresh secret bytes.
pub fn draw_secret<const N: usize>(entropy: &dyn Entropy) -> holdfast_protocol::secret::Secret<N> {
    holdfast_protocol::secret::Secret::fill_with(|into| entropy.fill(into))
}

/// Both clocks, behind a trait so that tests own time.
pub trait Clock: Send + Sync {
    /// Reads both.
    fn now(&self) -> Now;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Now {
        (**self).now()
    }
}
