//! The seal keeper as the generic machine shell drives it.

use std::time::Duration;

use holdfast_protocol::secret::Secret;

use crate::ports::Now;
use crate::seal_keeper::{Effect, Event, SealKeeper};
use crate::shell::Machine;

impl Machine for SealKeeper {
    type Event = Event;
    type Effect = Effect;

    fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        Self::step(self, event, now)
    }

    fn next_deadline(&self) -> Option<Duration> {
        Self::next_deadline(self)
    }

    fn time_passed(_: Secret<32>) -> Event {
        Event::Tick
    }
}
