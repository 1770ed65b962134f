//! The agent's time. After a session: central's time, carried on by the boot-time clock. Before the first one of a
//! boot: the wall clock, but never earlier than the last time that central told, nor than this program is old.
//!
//! A wall clock far ahead makes central's certificate look expired. Then the handshake is tried once more by the last
//! time that central told ([`OtherTime`]), and only where that succeeds it counts from there on: anybody on the way can
//! show an expired certificate, so a failed handshake must change nothing here.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// The wall clock was found to be wrong: `floor_us` when the boot-time clock read `mono`.
    Floor { floor_us: i64, mono: Duration },
    /// Central told that this moment was `wall_us` when the boot-time clock read `mono`.
    Told { mono: Duration, wall_us: i64 },
}

impl Basis {
    fn wall_us(self, now: Now) -> i64 {
        match self {
            Self::Wall { floor_us } => now.wall_us.max(floor_us),
            Self::Floor { floor_us: then_us, mono } | Self::Told { mono, wall_us: then_us } => {
                let since = now.mono.saturating_sub(mono).as_micros();
                then_us.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
            }
        }
    }

    /// The other one of the two that are no more than a guess.
    fn other(self, now: Now) -> Option<Self> {
        match self {
            Self::Wall { floor_us } => Some(Self::Floor { floor_us, mono: now.mono }),
            Self::Floor { floor_us, .. } => Some(Self::Wall { floor_us }),
            Self::Told { .. } => None,
        }
    }
}

/// Another guess at the time, for one handshake.
pub struct OtherTime {
    clock: Arc<AgentClock>,
    basis: Basis,
}

impl OtherTime {
    /// The handshake succeeded by it: it is the time from now on, unless central has told the time meanwhile.
    pub fn proved(&self) {
        let mut basis = self.clock.basis();
        if !matches!(*basis, Basis::Told { .. }) {
            *basis = self.basis;
        }
    }
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
        if !matches!(*basis, Basis::Told { .. }) {
            let off_us = now.wall_us.abs_diff(central_us);
            if STEP_US < off_us {
                tracing::warn!(off_s = off_us / 1_000_000, "this machine's clock is wrong; central's time is used");
            }
        }
        *basis = Basis::Told { mono: now.mono, wall_us: central_us };
    }

    /// Whether central has told the time since this machine was started.
    pub fn is_told(&self) -> bool {
        matches!(*self.basis(), Basis::Told { .. })
    }

    /// What the time may be instead, if what it is by now is a guess.
    pub fn other(self: &Arc<Self>) -> Option<OtherTime> {
        let basis = self.basis().other(self.system.now())?;
        Some(OtherTime { clock: self.clone(), basis })
    }

    fn basis(&self) -> MutexGuard<'_, Basis> {
        self.basis.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for AgentClock {
    fn now(&self) -> Now {
        let now = self.system.now();
        let wall_us = self.basis().wall_us(now);
        Now { mono: now.mono, wall_us }
    }
}

impl fmt::Debug for AgentClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentClock")
    }
}

impl fmt::Debug for OtherTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OtherTime")
    }
}

/// For the judging of central's certificate.
impl TimeProvider for AgentClock {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time(self.now())
    }
}

impl TimeProvider for OtherTime {
    fn current_time(&self) -> Option<UnixTime> {
        let now = self.clock.system.now();
        unix_time(Now { mono: now.mono, wall_us: self.basis.wall_us(now) })
    }
}

fn unix_time(now: Now) -> Option<UnixTime> {
    let seconds = u64::try_from(now.wall_s()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
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
        let clock = Arc::new(AgentClock::new(Box::new(hands.clone()), None));
        clock.set(BUILT_US + 1_000_000);
        *hands.0.lock().unwrap() = Now { mono: Duration::from_secs(7), wall_us: 0 };
        assert_eq!(clock.now().wall_us, BUILT_US + 3_000_000);
        assert!(clock.other().is_none(), "central's time stays");
    }

    #[test]
    fn a_clock_far_ahead_is_given_up_once_central_was_found_without_it() {
        let clock = Arc::new(AgentClock::new(Box::new(hands(BUILT_US + 1_000)), Some(BUILT_US + 10)));
        clock.other().unwrap().proved();
        assert_eq!(clock.now().wall_us, BUILT_US + 10);
        clock.other().unwrap().proved();
        assert_eq!(clock.now().wall_us, BUILT_US + 1_000, "the wall clock was set right meanwhile");
    }

    #[test]
    fn a_handshake_that_fails_leaves_the_time_alone() {
        let clock = Arc::new(AgentClock::new(Box::new(hands(BUILT_US + 9_000_000)), Some(BUILT_US + 2_000_000)));
        let other = clock.other().unwrap();
        let second = |time: &dyn TimeProvider| time.current_time().unwrap().as_secs() - (BUILT_US / 1_000_000) as u64;
        assert_eq!((second(&other), second(&*clock)), (2, 9));
        clock.set(BUILT_US + 1_000_000);
        other.proved();
        assert_eq!(second(&*clock), 1, "what central told counts more");
    }
}
