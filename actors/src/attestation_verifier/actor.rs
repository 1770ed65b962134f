//! The verifier as a supervised actor's machine.

use std::time::Duration;

use holdfast_protocol::secret::Secret;

use crate::attestation_verifier::core::{Effect, Event, Verifier};
use crate::ports::Now;
use crate::shell::machine::Machine;

impl Machine for Verifier {
    type Event = Event;
    type Effect = Effect;

    fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        Self::step(self, event, now)
    }

    fn next_deadline(&self) -> Option<Duration> {
        Self::next_deadline(self)
    }

    fn time_passed(seed: Secret<32>) -> Event {
        Event::TimePassed { seed }
    }
}
