//! How often a child may fail before its supervisor gives up. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// Doublings of the back-off after which it no longer grows, whatever its greatest value.
const DOUBLINGS_MAX: u32 = 16;

/// What to do about a failed child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start it again after this time.
    RestartAfter(Duration),
    /// Fail too.
    Escalate,
}

/// So many failures within a sliding window, each answered by a longer wait.
#[derive(Debug)]
pub struct RestartBudget {
    failures: VecDeque<Duration>,
    failures_max: usize,
    window: Duration,
    backoff_min: Duration,
    backoff_max: Duration,
}

impl RestartBudget {
    /// A budget of `failures_max` failures within `window`.
    pub fn new(failures_max: usize, window: Duration, backoff_min: Duration, backoff_max: Duration) -> Self {
        Self { failures: VecDeque::with_capacity(failures_max + 1), failures_max, window, backoff_min, backoff_max }
    }

    /// No failure is forgiven.
    pub fn none() -> Self {
        Self::new(0, Duration::ZERO, Duration::ZERO, Duration::ZERO)
    }

    /// Five failures a minute, waiting 0.1 s to 5 s.
    pub fn usual() -> Self {
        Self::new(5, Duration::from_secs(60), Duration::from_millis(100), Duration::from_secs(5))
    }

    /// How long a child waits that failed for no fault of its own.
    pub fn shortest_wait(&self) -> Duration {
        self.backoff_min
    }

    /// Counts a failure at `now` on a clock that never goes back.
    pub fn on_failure(&mut self, now: Duration) -> Decision {
        while self.failures.front().is_some_and(|at| at.saturating_add(self.window) <= now) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        let doublings = match self.failures.len().checked_sub(1) {
            Some(earlier) if earlier < self.failures_max => u32::try_from(earlier).unwrap_or(u32::MAX),
            _ => return Decision::Escalate,
        };
        let backoff = self.backoff_min.saturating_mul(2u32.pow(doublings.min(DOUBLINGS_MAX)));
        Decision::RestartAfter(backoff.min(self.backoff_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_double_up_to_their_greatest_until_the_budget_is_spent() {
        let mut budget = RestartBudget::new(4, s(60), s(1), s(5));
        let decisions: Vec<Decision> = (0..5).map(|t| budget.on_failure(s(t))).collect();
        let waits = [1, 2, 4, 5].map(|wait| Decision::RestartAfter(s(wait)));
        assert_eq!(decisions[..4], waits);
        assert_eq!(decisions[4], Decision::Escalate);
    }

    #[test]
    fn what_lies_outside_the_window_is_forgiven() {
        let mut budget = RestartBudget::new(1, s(60), s(1), s(5));
        assert_eq!(budget.on_failure(s(0)), Decision::RestartAfter(s(1)));
        assert_eq!(budget.on_failure(s(60)), Decision::RestartAfter(s(1)));
        assert_eq!(budget.on_failure(s(119)), Decision::Escalate);
        assert_eq!(RestartBudget::none().on_failure(s(0)), Decision::Escalate);
    }
}
