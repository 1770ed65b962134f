//! The agent's time. After a session: central's time, carried on by the boot-time clock. Before the first one of a
//! boot: the wall clock, but never earlier than the last time that central told, nor than this program is old.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_actors::ports::{Clock, Now};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// No copy of this program ran before this moment, microseconds since the Unix epoch (2026-01-01).
const BUILT_US: i64 = 1_767_225_600_000_000;
/// A greater difference between the wall clock and central's is worth a word.
const STEP_US: u64 = 60_000_000;

/// The clock.
pub struct AgentClock {
    system: Box<dyn Clock>,
    basis: Mutex<Basis>,
}

#[derive(Debug, Clone, Copy)]
enum Basis {
    /// The wall clock, not below `floor_us`.
    Wall { floor_us: i64 },
    /// This moment was `wall_us` when the boot-time clock read `mono`.
    Anchor { mono: Duration, wall_us: i64 },
}

impl AgentClock {
    /// Before the first session; `last_us` is what central told last, as far as it is remembered.
    pub fn new(system: Box<dyn Clock>, last_us: Option<i64>) -> Self {
        Self { system, basis: Mutex::new(Basis::Wall { floor_us: last_us.unwrap_or(i64::MIN).max(BUILT_US) }) }
    }

    /// Central has told the time.
    pub fn set(&self, central_us: i64) {
        let now = self.system.now();
        let mut basis = self.basis();
        if let Basis::Wall { .. } = *basis {
            let off_us = now.wall_us.abs_diff(central_us);
            if STEP_US < off_us {
                tracing::warn!(off_s = off_us / 1_000_000, "this machine's clock is wrong; central's time is used");
            }
        }
        *basis = Basis::Anchor { mono: now.mono, wall_us: central_us };
    }

    /// The wall clock leads nowhere: goes on from the last time that central told, so that a clock far ahead heals.
    /// Tells whether that changes anything.
    pub fn distrust_wall(&self) -> bool {
        let now = self.system.now();
        let mut basis = self.basis();
        let Basis::Wall { floor_us } = *basis else { return false };
        *basis = Basis::Anchor { mono: now.mono, wall_us: floor_us };
        floor_us < now.wall_us
    }

    fn basis(&self) -> MutexGuard<'_, Basis> {
        self.basis.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for AgentClock {
    fn now(&self) -> Now {
        let now = self.system.now();
        let wall_us = match *self.basis() {
            Basis::Wall { floor_us } => now.wall_us.max(floor_us),
            Basis::Anchor { mono, wall_us } => {
                let since = now.mono.saturating_sub(mono).as_micros();
                wall_us.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
            }
        };
        Now { mono: now.mono, wall_us }
    }
}

impl fmt::Debug for AgentClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentClock")
    }
}

/// For the judging of central's certificate.
impl TimeProvider for AgentClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.now().wall_s()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone)]
    struct Hands(Arc<Mutex<Now>>);

    impl Clock for Hands {
        fn now(&self) -> Now {
            *self.0.lock().unwrap()
        }
    }

    fn hands(wall_us: i64) -> Hands {
        Hands(Arc::new(Mutex::new(Now { mono: Duration::from_secs(5), wall_us })))
    }

    #[test]
    fn a_dead_wall_clock_does_not_lead_before_what_is_known() {
        assert_eq!(AgentClock::new(Box::new(hands(0)), None).now().wall_us, BUILT_US);
        assert_eq!(AgentClock::new(Box::new(hands(0)), Some(BUILT_US + 7)).now().wall_us, BUILT_US + 7);
        assert_eq!(AgentClock::new(Box::new(hands(BUILT_US + 9)), Some(BUILT_US + 7)).now().wall_us, BUILT_US + 9);
    }

    #[test]
    fn after_a_session_centrals_time_counts_whatever_the_wall_clock_does() {
        let hands = hands(BUILT_US + 9);
        let clock = AgentClock::new(Box::new(hands.clone()), None);
        clock.set(BUILT_US + 1_000_000);
        *hands.0.lock().unwrap() = Now { mono: Duration::from_secs(7), wall_us: 0 };
        assert_eq!(clock.now().wall_us, BUILT_US + 3_000_000);
        assert!(!clock.distrust_wall(), "central's time stays");
    }

    #[test]
    fn a_clock_far_ahead_is_given_up_once() {
        let clock = AgentClock::new(Box::new(hands(BUILT_US + 1_000)), Some(BUILT_US + 10));
        assert!(clock.distrust_wall());
        assert_eq!(clock.now().wall_us, BUILT_US + 10);
        assert!(!clock.distrust_wall());
    }
}
