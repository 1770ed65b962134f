//! What happened in a world, in order: every line the product logs, with the simulated time and the machine.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// What central says when one host is two machines; `quarantine.rs` shows that it does.
pub(crate) const CLONE: &str = "two machines claim to be this host";

/// The lines of one world.
#[derive(Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    /// Collects from here on, on this thread, until the guard is dropped.
    pub(crate) fn begin(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(Registry::default().with(self.clone()))
    }

    pub(crate) fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// How many lines say this.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.contains(what)).count()
    }
}

struct Machine(String);

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Trace {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut text = Text::default();
        attributes.record(&mut text);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Machine(text.0));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let of = event.metadata();
        if !of.target().starts_with("holdfast") || *of.level() > Level::DEBUG || !turmoil::in_simulation() {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let machine = context.event_scope(event).and_then(|scope| scope.from_root().next());
        let machine = machine.and_then(|span| Some(span.extensions().get::<Machine>()?.0.clone())).unwrap_or_default();
        let at = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        self.note(format!("{at} ms{machine} {} {}{}", of.level(), of.target(), text.0));
    }
}
