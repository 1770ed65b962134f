//! The operating system's clock and randomness: the one place that asks for either.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::ports::{Clock, Entropy, Now};

/// Random bytes of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, into: &mut [u8]) {
        // Without randomness no key and no nonce can be made; going on would be worse than ending.
        getrandom::fill(into).expect("the operating system gives randomness once it has booted");
    }
}

/// The boot-time clock, which goes on while the machine sleeps, and the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct OsClock {
    began: Duration,
}

impl OsClock {
    /// A clock whose monotonic time begins now.
    pub fn start() -> Self {
        Self { began: since_boot() }
    }
}

impl Clock for OsClock {
    fn now(&self) -> Now {
        Now { mono: since_boot().saturating_sub(self.began), wall_us: wall_us() }
    }
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[expect(clippy::disallowed_methods, reason = "this is the adapter that hands the time to all others")]
fn wall_us() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_randomness_differs() {
        let clock = OsClock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(first.mono <= second.mono);
        assert!(first.wall_s() > 1_700_000_000);
        let (a, b): ([u8; 32], [u8; 32]) = (crate::ports::draw(&OsEntropy), crate::ports::draw(&OsEntropy));
        assert_ne!(a, b);
    }
}
