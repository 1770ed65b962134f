//! What to try next, and when. The host always dials out; whatever goes wrong, it tries again, more and more slowly,
//! and never all hosts at the same moment.

use std::time::Duration;

use holdfast_actors::ports::Now;
use holdfast_protocol::crypto::hash::hkdf;
use holdfast_protocol::secret::Secret;

/// The first wait after a failure, doubled by each further one.
pub const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// A session: quotes, keys, content.
    Session,
    /// Fetching the newest notice.
    Notice,
    /// Enrolling again.
    Enrol,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// No connection, or it broke, or central closed it for a reason that is not about this host's standing.
    Lost,
    /// A session: this host could not do what central asked of it. It would hardly do better at once.
    Failed,
    /// A session: central says that this host is cut off or not trusted.
    CutOff,
    /// A session: this host's certificate is of no use any more.
    Unenrolled,
    /// A notice was fetched: nothing keeps this host from trying a session.
    Free,
    /// A notice was fetched: this host is quarantined.
    Barred,
    /// A notice was fetched: a quarantine was lifted.
    Readmitted,
    /// A session: this host has a newer certificate to come with.
    Certified,
    /// Enrolled again.
    Enrolled,
    /// Central does not accept the enrolment.
    NotAccepted,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The deadline of [`Uplink::next_deadline`] came.
    TimePassed,
    /// Central has welcomed this host.
    Welcomed,
    /// A quote of this host has passed.
    Passed,
    /// The attempt has ended. `seed`: fresh randomness for the jitter.
    Ended {
        /// Its number.
        attempt: u64,
        /// How.
        end: End,
        /// For the jitter.
        seed: Secret<32>,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Begin this; its end comes back with the number.
    Try {
        /// Its number.
        number: u64,
        /// What.
        attempt: Attempt,
    },
}

/// Where the uplink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waits until then.
    Idle {
        /// On the monotonic clock.
        until: Duration,
        /// What comes next.
        next: Attempt,
    },
    /// An attempt is at work.
    Trying {
        /// Which.
        attempt: Attempt,
    },
    /// Central has welcomed this host.
    Session,
}

/// The machine.
#[derive(Debug)]
pub struct Uplink {
    state: State,
    number: u64,
    failures: u32,
    /// A quote has passed in this session.
    passed: bool,
}

impl Uplink {
    /// Tries `first` at once.
    pub fn new(first: Attempt, now: Now) -> Self {
        Self { state: State::Idle { until: now.mono, next: first }, number: 0, failures: 0, passed: false }
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// When [`Event::TimePassed`] is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        match self.state {
            State::Idle { until, .. } => Some(until),
            State::Trying { .. } | State::Session => None,
        }
    }

    /// Takes an event.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        match (event, self.state) {
            (Event::TimePassed, State::Idle { until, next }) if until <= now.mono => {
                self.number += 1;
                self.state = State::Trying { attempt: next };
                return vec![Effect::Try { number: self.number, attempt: next }];
            }
            (Event::Welcomed, State::Trying { attempt: Attempt::Session }) => {
                self.state = State::Session;
            }
            // Not the welcome: who is welcomed and then found untrusted must not come back ever so quickly.
            (Event::Passed, State::Session) => self.passed = true,
            (Event::Ended { attempt, end, seed }, State::Trying { .. } | State::Session) if attempt == self.number => {
                self.ended(&end, &seed, now);
            }
            // A timer that was late, or the end of an attempt that was given up.
            (Event::TimePassed | Event::Welcomed | Event::Passed | Event::Ended { .. }, _) => {}
        }
        Vec::new()
    }

    fn ended(&mut self, end: &End, seed: &Secret<32>, now: Now) {
        let attempt = match self.state {
            State::Trying { attempt } => attempt,
            State::Session | State::Idle { .. } => Attempt::Session,
        };
        // Nor who passes and then fails each time over what follows.
        if std::mem::take(&mut self.passed) && *end != End::Failed {
            self.failures = 0;
        }
        let (next, at_once) = match end {
            End::Lost | End::Failed => (attempt, false),
            // The notice says more; but who is told the same again and again waits longer each time.
            End::CutOff => (Attempt::Notice, self.failures == 0),
            End::Unenrolled => (Attempt::Enrol, self.failures == 0),
            End::Certified => (Attempt::Session, self.failures == 0),
            End::Free => (Attempt::Session, false),
            End::Barred | End::NotAccepted => (Attempt::Notice, false),
            End::Readmitted => (Attempt::Enrol, true),
            End::Enrolled => (Attempt::Session, true),
        };
        let wait = if at_once { Duration::ZERO } else { backoff(self.failures, seed) };
        self.failures = match end {
            End::Readmitted => 0,
            // No success before a quote has passed by it: who is sent to enrol again each time waits longer.
            End::Enrolled => self.failures.max(1),
            _ => self.failures.saturating_add(1),
        };
        self.state = State::Idle { until: now.mono + wait, next };
    }
}

/// Between half of it and all of it, so that hosts which lost central together do not come back together.
fn backoff(failures: u32, seed: &Secret<32>) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
    let half = full / 2;
    let draw = hkdf(seed.expose(), "holdfast/uplink-jitter/v1", b"");
    let fraction = u32::from_be_bytes([draw.expose()[0], draw.expose()[1], draw.expose()[2], draw.expose()[3]]);
    let jitter_us = half.as_micros() * u128::from(fraction) / u128::from(u32::MAX);
    half + Duration::from_micros(u64::try_from(jitter_us).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono: Duration::from_millis(ms), wall_us: 0 }
    }

    fn seed(byte: u8) -> Secret<32> {
        Secret::fill_with(|into| into.fill(byte))
    }

    /// Lets the wait pass and gives what is tried then.
    fn begin(uplink: &mut Uplink) -> (u64, Attempt) {
        let due = uplink.next_deadline().unwrap();
        match uplink.step(Event::TimePassed, Now { mono: due, wall_us: 0 })[..] {
            [Effect::Try { number, attempt }] => (number, attempt),
            ref other => panic!("{other:?}"),
        }
    }

    fn end(uplink: &mut Uplink, number: u64, end: End, ms: u64) {
        assert!(uplink.step(Event::Ended { attempt: number, end, seed: seed(1) }, at(ms)).is_empty());
    }

    #[test]
    fn each_end_leads_to_its_next_attempt() {
        use Attempt::{Enrol, Notice, Session};
        for (first, ended, next, at_once) in [
            (Session, End::Lost, Session, false),
            (Session, End::Failed, Session, false),
            (Session, End::CutOff, Notice, true),
            (Session, End::Unenrolled, Enrol, true),
            (Session, End::Certified, Session, true),
            (Notice, End::Lost, Notice, false),
            (Notice, End::Free, Session, false),
            (Notice, End::Barred, Notice, false),
            (Notice, End::Readmitted, Enrol, true),
            (Enrol, End::Lost, Enrol, false),
            (Enrol, End::NotAccepted, Notice, false),
            (Enrol, End::Enrolled, Session, true),
        ] {
            let mut uplink = Uplink::new(first, at(0));
            assert_eq!(begin(&mut uplink), (1, first));
            end(&mut uplink, 1, ended.clone(), 10);
            let State::Idle { until, next: then } = uplink.state() else { panic!("{:?}", uplink.state()) };
            assert_eq!((then, until == Duration::from_millis(10)), (next, at_once), "{first:?} {ended:?}");
        }
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_pass() {
        let mut uplink = Uplink::new(Attempt::Session, at(0));
        let mut full = BACKOFF_MIN;
        for _ in 0..12 {
            let (number, _) = begin(&mut uplink);
            end(&mut uplink, number, End::Lost, 1000);
            let wait = uplink.next_deadline().unwrap() - Duration::from_secs(1);
            assert!(full / 2 <= wait && wait <= full, "{wait:?} for {full:?}");
            full = (full * 2).min(BACKOFF_MAX);
        }
        assert_eq!(full, BACKOFF_MAX);
        let (number, _) = begin(&mut uplink);
        assert!(uplink.step(Event::Welcomed, at(2000)).is_empty());
        assert_eq!((uplink.state(), uplink.next_deadline()), (State::Session, None));
        let mut unpassed = Uplink { ..uplink };
        end(&mut unpassed, number, End::Lost, 3000);
        assert!(Duration::from_secs(3) + BACKOFF_MAX / 2 <= unpassed.next_deadline().unwrap());
        assert!(uplink.step(Event::Passed, at(2500)).is_empty());
        end(&mut uplink, number, End::Lost, 3000);
        assert!(uplink.next_deadline().unwrap() <= Duration::from_secs(3) + BACKOFF_MIN);
    }

    #[test]
    fn a_host_that_is_told_the_same_again_and_again_slows_down() {
        let mut uplink = Uplink::new(Attempt::Session, at(0));
        let mut waits = Vec::new();
        for _ in 0..6 {
            let (number, attempt) = begin(&mut uplink);
            let ended = if attempt == Attempt::Session { End::CutOff } else { End::Free };
            end(&mut uplink, number, ended, 0);
            waits.push(uplink.next_deadline().unwrap());
        }
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits[1..].is_sorted() && BACKOFF_MIN < waits[5], "{waits:?}");
    }

    #[test]
    fn a_host_that_passes_and_then_fails_each_time_slows_down() {
        let mut uplink = Uplink::new(Attempt::Session, at(0));
        let mut wait = Duration::ZERO;
        for _ in 0..6 {
            let (number, _) = begin(&mut uplink);
            assert!(uplink.step(Event::Welcomed, at(0)).is_empty());
            assert!(uplink.step(Event::Passed, at(0)).is_empty());
            end(&mut uplink, number, End::Failed, 0);
            wait = uplink.next_deadline().unwrap();
        }
        assert!(8 * BACKOFF_MIN < wait, "{wait:?}");
        let (number, _) = begin(&mut uplink);
        assert!(uplink.step(Event::Welcomed, at(0)).is_empty());
        assert!(uplink.step(Event::Passed, at(0)).is_empty());
        end(&mut uplink, number, End::Lost, 0);
        assert!(uplink.next_deadline().unwrap() <= BACKOFF_MIN, "the next one was no failure of its own");
    }

    #[test]
    fn a_host_that_is_sent_to_enrol_again_and_again_slows_down() {
        let mut uplink = Uplink::new(Attempt::Session, at(0));
        let mut waits = Vec::new();
        for _ in 0..6 {
            let (number, _) = begin(&mut uplink);
            end(&mut uplink, number, End::Unenrolled, 0);
            waits.push(uplink.next_deadline().unwrap());
            let (number, attempt) = begin(&mut uplink);
            assert_eq!(attempt, Attempt::Enrol);
            end(&mut uplink, number, End::Enrolled, 0);
            assert_eq!(uplink.next_deadline(), Some(Duration::ZERO), "the new certificate is tried at once");
        }
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits[1..].is_sorted() && 8 * BACKOFF_MIN < waits[5], "{waits:?}");
        let (number, _) = begin(&mut uplink);
        assert!(uplink.step(Event::Welcomed, at(0)).is_empty());
        assert!(uplink.step(Event::Passed, at(0)).is_empty());
        end(&mut uplink, number, End::Unenrolled, 0);
        assert_eq!(uplink.next_deadline(), Some(Duration::ZERO), "the certificate before had served");
    }

    #[test]
    fn jitter_differs_by_seed_and_stays_in_bounds() {
        let waits: std::collections::BTreeSet<_> = (0..50).map(|byte| backoff(3, &seed(byte))).collect();
        assert!(40 < waits.len());
        assert!(waits.iter().all(|wait| Duration::from_secs(2) <= *wait && *wait <= Duration::from_secs(4)));
    }

    #[test]
    fn nothing_out_of_turn_moves_it() {
        let mut uplink = Uplink::new(Attempt::Session, at(100));
        assert!(uplink.step(Event::TimePassed, at(99)).is_empty(), "too early");
        assert!(uplink.step(Event::Welcomed, at(100)).is_empty());
        assert!(uplink.step(Event::Passed, at(100)).is_empty());
        assert!(matches!(uplink.state(), State::Idle { .. }));
        let (number, _) = begin(&mut uplink);
        assert!(uplink.step(Event::TimePassed, at(200)).is_empty());
        end(&mut uplink, number - 1, End::Lost, 300);
        assert_eq!(uplink.state(), State::Trying { attempt: Attempt::Session }, "another attempt's end");
        end(&mut uplink, number, End::Lost, 300);
        end(&mut uplink, number, End::Enrolled, 300);
        assert!(matches!(uplink.state(), State::Idle { next: Attempt::Session, .. }), "only once");

        let mut notice = Uplink::new(Attempt::Notice, at(0));
        begin(&mut notice);
        assert!(notice.step(Event::Welcomed, at(0)).is_empty());
        assert_eq!(notice.state(), State::Trying { attempt: Attempt::Notice });
    }
}
