//! The limit on failed attempts: three an hour for each class of caller, so that strangers can't lock out an operator.
//! Kept durably, else a restart would give new ones.

use serde::{Deserialize, Serialize};

use crate::ports::Now;

/// Failures within [`WINDOW_US`] after which a class is refused unheard.
pub const FAILURES_MAX: usize = 3;
/// An hour, in microseconds.
pub const WINDOW_US: i64 = 3_600_000_000;

/// Who calls, as the shell has verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// From this machine itself.
    Local,
    /// With the certificate of an admin.
    Admin,
    /// Anybody else, all together.
    Other,
}

impl Class {
    /// As audit lines name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Admin => "admin",
            Self::Other => "other",
        }
    }
}

/// When each class last failed: microseconds since the Unix epoch, at most [`FAILURES_MAX`] for each, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    local: Vec<i64>,
    admin: Vec<i64>,
    other: Vec<i64>,
}

impl Attempts {
    /// Whether `class` may try.
    ///
    /// # Errors
    /// The seconds until it may.
    pub fn admit(&mut self, class: Class, now: Now) -> Result<(), u64> {
        let failures = self.recent(class, now);
        match failures.first() {
            Some(oldest) if failures.len() >= FAILURES_MAX => {
                let left_us = oldest.saturating_add(WINDOW_US).saturating_sub(now.wall_us).max(1);
                Err(left_us.unsigned_abs().div_ceil(1_000_000))
            }
            _ => Ok(()),
        }
    }

    /// Counts an attempt as failed. To be persisted before its outcome is told, so that no crash gives it back.
    pub fn count(&mut self, class: Class, now: Now) {
        let failures = self.recent(class, now);
        failures.push(now.wall_us);
        if failures.len() > FAILURES_MAX {
            failures.remove(0);
        }
    }

    /// Takes back what [`Self::count`] counted last: it was a success.
    pub fn uncount(&mut self, class: Class) {
        self.of(class).pop();
    }

    /// The failures that still count. Those from the future are taken as made now: the wall clock stepped back, and
    /// must not lock a class out for as long as the step.
    fn recent(&mut self, class: Class, now: Now) -> &mut Vec<i64> {
        let failures = self.of(class);
        failures.retain(|at| now.wall_us.saturating_sub(*at) < WINDOW_US);
        for at in failures.iter_mut() {
            *at = (*at).min(now.wall_us);
        }
        failures
    }

    fn of(&mut self, class: Class) -> &mut Vec<i64> {
        match class {
            Class::Local => &mut self.local,
            Class::Admin => &mut self.admin,
            Class::Other => &mut self.other,
        }
    }

    /// Whether a stored value is one that this code can have written.
    pub(crate) fn is_sound(&self) -> bool {
        [&self.local, &self.admin, &self.other].iter().all(|failures| failures.len() <= FAILURES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(wall_us: i64) -> Now {
        Now { mono: Duration::ZERO, wall_us }
    }

    #[test]
    fn three_failures_an_hour_and_no_more() {
        let mut attempts = Attempts::default();
        for t in [0, 1_000_000, 2_000_000] {
            assert_eq!(attempts.admit(Class::Other, at(t)), Ok(()));
            attempts.count(Class::Other, at(t));
        }
        assert_eq!(attempts.admit(Class::Other, at(3_000_000)), Err(3597));
        assert_eq!(attempts.admit(Class::Other, at(WINDOW_US - 1)), Err(1));
        assert_eq!(attempts.admit(Class::Admin, at(3_000_000)), Ok(()));
        assert_eq!(attempts.admit(Class::Local, at(3_000_000)), Ok(()));
        assert_eq!(attempts.admit(Class::Other, at(WINDOW_US)), Ok(()));
        attempts.count(Class::Other, at(WINDOW_US));
        assert_eq!(attempts.admit(Class::Other, at(WINDOW_US)), Err(1));
    }

    #[test]
    fn a_success_is_taken_back() {
        let mut attempts = Attempts::default();
        for _ in 0..10 {
            assert_eq!(attempts.admit(Class::Local, at(7)), Ok(()));
            attempts.count(Class::Local, at(7));
            attempts.uncount(Class::Local);
        }
        assert_eq!(attempts, Attempts::default());
    }

    #[test]
    fn a_clock_that_stepped_back_locks_out_for_an_hour_at_most() {
        let mut attempts = Attempts::default();
        for _ in 0..3 {
            attempts.count(Class::Local, at(1_000 * WINDOW_US));
        }
        assert_eq!(attempts.admit(Class::Local, at(0)), Err(3600));
        assert_eq!(attempts.admit(Class::Local, at(WINDOW_US)), Ok(()));
    }
}
