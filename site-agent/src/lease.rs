//! For how long content with a finite `offline` may be served: measured by the TPM's clock from the last lease that
//! central signed. The TPM is asked once, at unseal; from then on the boot-time clock counts.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_protocol::tpm::Counters;
use holdfast_protocol::wire::Lease;

/// The newest lease, and what the TPM's clock is.
#[derive(Debug, Default)]
pub struct Leases {
    inner: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    lease: Option<Lease>,
    reading: Option<Reading>,
}

/// The TPM's clock, read when the boot-time clock stood at `mono`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What the TPM said.
    pub counters: Counters,
    /// The boot-time clock then.
    pub mono: Duration,
}

impl Leases {
    /// Central has renewed the lease, or it was found in the store.
    pub fn renew(&self, lease: Lease) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).lease = Some(lease);
    }

    /// The TPM's clock was read.
    pub fn read(&self, reading: Reading) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).reading = Some(reading);
    }

    /// What the TPM's clock was when it was read last.
    pub fn reading(&self) -> Option<Reading> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).reading
    }

    /// Whether content with this bound may be served at `mono`; `None` has no bound.
    pub fn holds(&self, offline_s: Option<u64>, mono: Duration) -> bool {
        let Some(offline_s) = offline_s else { return true };
        let held = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match (&held.lease, &held.reading) {
            (Some(lease), Some(reading)) => covers(lease, reading, offline_s, mono),
            _ => false,
        }
    }
}

/// A restarted TPM ends every finite lease: how long the machine was off, nobody can say.
fn covers(lease: &Lease, reading: &Reading, offline_s: u64, mono: Duration) -> bool {
    let since = u64::try_from(mono.saturating_sub(reading.mono).as_millis()).unwrap_or(u64::MAX);
    let age_ms = reading.counters.clock.saturating_add(since).saturating_sub(lease.clock_ms);
    lease.reset_count == reading.counters.reset_count && age_ms < offline_s.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::ids::{HostId, SealEpoch};

    use super::*;

    fn lease(clock_ms: u64, reset_count: u32) -> Lease {
        let host = HostId { site: "udc1".parse().unwrap(), host: "udc1-001".parse().unwrap() };
        Lease { host, clock_ms, reset_count, seal_epoch: SealEpoch(1) }
    }

    fn reading(clock: u64, reset_count: u32) -> Reading {
        Reading { counters: Counters { clock, reset_count, restart_count: 0 }, mono: Duration::from_secs(100) }
    }

    #[test]
    fn a_lease_runs_from_the_quote_it_was_given_for() {
        for (lease, reading, at_s, holds) in [
            (lease(1_000, 1), reading(1_000, 1), 100, true),
            (lease(1_000, 1), reading(1_000, 1), 159, true),
            (lease(1_000, 1), reading(1_000, 1), 160, false),
            (lease(1_000, 1), reading(60_999, 1), 100, true),
            (lease(1_000, 1), reading(61_000, 1), 100, false),
            // Renewed since the reading.
            (lease(51_000, 1), reading(1_000, 1), 205, true),
            (lease(1_000, 1), reading(1_000, 2), 100, false),
        ] {
            assert_eq!(covers(&lease, &reading, 60, Duration::from_secs(at_s)), holds, "{lease:?} {reading:?} {at_s}");
        }
    }

    #[test]
    fn without_lease_or_clock_only_unbounded_content_is_served() {
        let leases = Leases::default();
        assert!(leases.holds(None, Duration::ZERO));
        assert!(!leases.holds(Some(60), Duration::ZERO));
        leases.renew(lease(1_000, 1));
        assert!(!leases.holds(Some(60), Duration::ZERO));
        leases.read(reading(1_000, 1));
        assert!(leases.holds(Some(60), Duration::from_secs(100)));
    }
}
