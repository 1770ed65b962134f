//! The last warnings and errors of this process' log, as a debug dump shows them. What the log may say is the log's
//! matter: it names no secret.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;

/// Lines that are kept; of more the oldest go.
pub const LINES_MAX: usize = 64;
/// Bytes of one line; the rest of a longer one is left out.
const LINE_BYTES_MAX: usize = 512;

static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// What has been warned of last, oldest first.
pub fn recent() -> Vec<String> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Keeps them, as a layer of the log.
pub(crate) struct Recent;

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let mut line = Line(String::new());
        let _ = SystemTime.format_time(&mut Writer::new(&mut line.0));
        let _ = write!(line.0, " {} {}:", event.metadata().level(), event.metadata().target());
        event.record(&mut line);
        let mut end = line.0.len().min(LINE_BYTES_MAX);
        while !line.0.is_char_boundary(end) {
            end -= 1;
        }
        line.0.truncate(end);
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        if LINES_MAX <= lines.len() {
            lines.pop_front();
        }
        lines.push_back(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn the_last_warnings_and_errors_are_kept_and_nothing_else() {
        let _log = tracing::subscriber::set_default(tracing_subscriber::registry().with(Recent));
        tracing::info!("all is well");
        tracing::warn!(host = %"udc1-001", "a first warning");
        for number in 0..LINES_MAX {
            tracing::error!(number, "ä{}", "x".repeat(2 * LINE_BYTES_MAX));
        }
        let lines = recent();
        assert_eq!(lines.len(), LINES_MAX);
        assert!(lines.iter().all(|line| line.contains(" ERROR holdfast_rest::recent") && line.len() <= LINE_BYTES_MAX));
        tracing::warn!(host = %"udc1-001", "a last warning");
        assert!(recent().last().unwrap().ends_with(" a last warning host=udc1-001"), "{:?}", recent().last());
    }
}
