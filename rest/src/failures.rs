//! Failed logins of programs: how many of one neighbourhood of addresses are noted one by one.
//!
//! What proves a program is random enough that guessing is hopeless, so nobody is locked out for the failures of others
//! behind the same address: the right ids are always let in. What has to be bounded is what strangers can make a node
//! write down.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::places::{Neighbourhood, neighbourhood};

/// Failures of a neighbourhood that are noted within a window.
pub const NOTED_MAX: u32 = 60;
/// The window.
const WINDOW: Duration = Duration::from_secs(60);
/// Neighbourhoods that are told apart; the rest share one.
const KNOWN_MAX: usize = 1024;

/// What is to be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It is noted.
    Noted,
    /// It is noted, and that no more will be for so many seconds.
    LastNoted(u32),
    /// It is not noted any more, for so many seconds.
    Unnoted(u32),
}

/// The counts.
#[derive(Default)]
pub struct Failures(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    known: HashMap<Neighbourhood, Count>,
    rest: Option<Count>,
}

#[derive(Clone, Copy)]
struct Count {
    began: Duration,
    failures: u32,
}

impl Failures {
    /// A login from `addr` has failed at `mono`.
    pub fn failed(&self, addr: IpAddr, mono: Duration) -> Failure {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.of(neighbourhood(addr), mono);
        count.failures = count.failures.saturating_add(1);
        let left = (count.began + WINDOW).saturating_sub(mono);
        let left_s = u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1);
        match count.failures {
            ..NOTED_MAX => Failure::Noted,
            NOTED_MAX => Failure::LastNoted(left_s),
            _ => Failure::Unnoted(left_s),
        }
    }
}

impl Counts {
    fn of(&mut self, from: Neighbourhood, mono: Duration) -> &mut Count {
        let fresh = Count { began: mono, failures: 0 };
        let is_over = |count: &Count| count.began + WINDOW <= mono;
        if KNOWN_MAX <= self.known.len() && !self.known.contains_key(&from) {
            self.known.retain(|_, count| !is_over(count));
        }
        let count = if KNOWN_MAX <= self.known.len() && !self.known.contains_key(&from) {
            self.rest.get_or_insert(fresh)
        } else {
            self.known.entry(from).or_insert(fresh)
        };
        if is_over(count) {
            *count = fresh;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(number: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from(number))
    }

    #[test]
    fn so_many_failures_of_an_address_are_noted_in_a_window() {
        let failures = Failures::default();
        let at = Duration::from_secs;
        for _ in 1..NOTED_MAX {
            assert_eq!(failures.failed(addr(1), at(10)), Failure::Noted);
        }
        assert_eq!(failures.failed(addr(1), at(15)), Failure::LastNoted(55));
        assert_eq!(failures.failed(addr(1), at(69)), Failure::Unnoted(1));
        assert_eq!(failures.failed(addr(2), at(69)), Failure::Noted, "others are counted apart");
        assert_eq!(failures.failed(addr(1), at(70)), Failure::Noted, "a new window");
    }

    #[test]
    fn only_so_many_addresses_are_remembered() {
        let failures = Failures::default();
        for number in 0..2 * u32::try_from(KNOWN_MAX).unwrap() {
            failures.failed(addr(number), Duration::ZERO);
        }
        assert_eq!(failures.0.lock().unwrap().known.len(), KNOWN_MAX);
        assert!(matches!(failures.failed(addr(9_999_999), Duration::ZERO), Failure::Unnoted(_)), "the rest share one");
        assert_eq!(failures.failed(addr(9_999_999), WINDOW), Failure::Noted);
        assert_eq!(failures.0.lock().unwrap().known.len(), 1, "what is over is forgotten");
    }
}
