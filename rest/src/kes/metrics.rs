//! What is counted of KES' requests, under the names that its clients read at `/v1/metrics`. They read them exactly, so
//! nothing is put before or behind a name. Refusals are counted, too, which KES does not.
//!
//! How many objects there are on the heap (`kes_system_mem_heap_objects`) is known to Go, and to nobody here.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::Instant;

use super::process::Process;

/// Upper ends of the ranges of response times, microseconds, each as it is written in seconds.
const RANGES: [(u64, &str); 10] = [
    (10_000, "0.01"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (1_500_000, "1.5"),
    (3_000_000, "3"),
    (5_000_000, "5"),
    (10_000_000, "10"),
];
/// The first status there is.
const STATUS_MIN: u16 = 100;
/// One more than the last.
const STATUS_END: u16 = 600;
const STATUSES: usize = (STATUS_END - STATUS_MIN) as usize;

/// The counters. Counting takes a few additions and no lock.
pub(crate) struct Counted {
    since: Instant,
    active: AtomicI64,
    statuses: [AtomicU64; STATUSES],
    /// By range; the last is of those beyond all.
    times: [AtomicU64; RANGES.len() + 1],
    total_us: AtomicU64,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            active: AtomicI64::new(0),
            statuses: std::array::from_fn(|_| AtomicU64::new(0)),
            times: Default::default(),
            total_us: AtomicU64::new(0),
        }
    }
}

/// How the text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// Prometheus' own, version 0.0.4, which KES' clients read.
    Prometheus,
    /// OpenMetrics, where a counter may not be called as KES calls its own: they are of no known kind there.
    OpenMetrics,
}

/// A request in work.
pub(crate) struct Active<'a>(&'a Counted);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counted {
    /// Until it is dropped, one more is in work.
    pub(crate) fn enter(&self) -> Active<'_> {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(self)
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, status: StatusCode, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let range = RANGES.iter().position(|(end, _)| us <= *end).unwrap_or(RANGES.len());
        let at = usize::from(status.as_u16().saturating_sub(STATUS_MIN));
        for counter in self.statuses.get(at).into_iter().chain(self.times.get(range)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.total_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Writes all of it.
    pub(crate) fn write(&self, text: &mut String, notation: Notation) -> fmt::Result {
        let counter = if notation == Notation::Prometheus { "counter" } else { "unknown" };
        let (mut all, mut failed) = (0, 0);
        for (name, says, range) in CLASSES {
            head(text, name, counter, says)?;
            for (status, count) in self.of(range) {
                writeln!(text, "{name}{{code=\"{status}\"}} {count}")?;
                all += count;
                failed += if name == FAILURES { count } else { 0 };
            }
        }
        one(text, "kes_http_request_active", ("gauge", "Requests in work"), self.active.load(Ordering::Relaxed))?;
        self.write_times(text)?;
        one(text, "kes_log_audit_events", (counter, "Events of the audit log"), all)?;
        one(text, "kes_log_error_events", (counter, "Events of the error log"), failed)?;
        self.write_process(text)
    }

    /// Those of a class that there were; one at least, so that it is seen to be counted.
    fn of(&self, (first, end): (u16, u16)) -> Vec<(u16, u64)> {
        let count = |status: u16| {
            let counter = self.statuses.get(usize::from(status - STATUS_MIN));
            (status, counter.map_or(0, |counter| counter.load(Ordering::Relaxed)))
        };
        (first..end).map(count).filter(|(status, count)| *status == first || *count > 0).collect()
    }

    fn write_times(&self, text: &mut String) -> fmt::Result {
        let name = "kes_http_response_time";
        head(text, name, "histogram", "Seconds from a request's head to the answer's")?;
        let mut so_far = 0;
        for (count, end) in self.times.iter().zip(RANGES.iter().map(|(_, end)| *end).chain(["+Inf"])) {
            so_far += count.load(Ordering::Relaxed);
            writeln!(text, "{name}_bucket{{le=\"{end}\"}} {so_far}")?;
        }
        let total = Duration::from_micros(self.total_us.load(Ordering::Relaxed)).as_secs_f64();
        writeln!(text, "{name}_sum {total}")?;
        writeln!(text, "{name}_count {so_far}")
    }

    fn write_process(&self, text: &mut String) -> fmt::Result {
        let (cpus, process) = (available_parallelism().map_or(1, usize::from), Process::now());
        let cpus = u64::try_from(cpus).unwrap_or(u64::MAX);
        for (name, says, value) in [
            ("kes_system_up_time", "Seconds since the start", self.since.elapsed().as_secs()),
            ("kes_system_num_cpu", "Processors there are", cpus),
            ("kes_system_num_cpu_used", "Processors that may be used", cpus),
            ("kes_system_num_threads", "Threads", process.threads),
            ("kes_system_mem_heap_used", "Bytes of memory in use", process.heap),
            ("kes_system_mem_stack_used", "Bytes of the first thread's stack", process.stack),
        ] {
            one(text, name, ("gauge", says), value)?;
        }
        Ok(())
    }
}

const FAILURES: &str = "kes_http_request_failure";

/// Names and ranges of statuses.
const CLASSES: [(&str, &str, (u16, u16)); 3] = [
    ("kes_http_request_success", "Requests that were served", (200, 400)),
    ("kes_http_request_error", "Requests that were refused (4xx)", (400, 500)),
    (FAILURES, "Requests that failed here (5xx)", (500, STATUS_END)),
];

fn head(text: &mut String, name: &str, kind: &str, says: &str) -> fmt::Result {
    writeln!(text, "# HELP {name} {says}.")?;
    writeln!(text, "# TYPE {name} {kind}")
}

fn one(text: &mut String, name: &str, (kind, says): (&str, &str), value: impl fmt::Display) -> fmt::Result {
    head(text, name, kind, says)?;
    writeln!(text, "{name} {value}")
}

/// The same in Prometheus' own notation: a counter's name ends there as its samples' do, and no mark ends the text.
pub(crate) fn as_prometheus(text: &str) -> String {
    let counters: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut written = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        written.push_str(&renamed(line, &counters).unwrap_or_else(|| line.to_owned()));
        written.push('\n');
    }
    written
}

fn renamed(line: &str, counters: &[&str]) -> Option<String> {
    let (what, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    counters.contains(&name).then(|| format!("# {what} {name}_total {rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(counted: &Counted, notation: Notation) -> String {
        let mut text = String::new();
        counted.write(&mut text, notation).unwrap();
        text
    }

    #[tokio::test]
    async fn everything_is_counted_under_the_names_that_clients_read() {
        let counted = Counted::default();
        for (status, ms) in [(200, 0), (200, 10), (404, 11), (403, 2000), (503, 60_000)] {
            counted.answered(StatusCode::from_u16(status).unwrap(), Duration::from_millis(ms));
        }
        let active = counted.enter();
        let shown = text(&counted, Notation::Prometheus);
        drop(active);
        for line in [
            "# TYPE kes_http_request_success counter",
            "kes_http_request_success{code=\"200\"} 2",
            "kes_http_request_error{code=\"400\"} 0",
            "kes_http_request_error{code=\"403\"} 1",
            "kes_http_request_error{code=\"404\"} 1",
            "kes_http_request_failure{code=\"503\"} 1",
            "kes_http_request_active 1",
            "# TYPE kes_http_response_time histogram",
            "kes_http_response_time_bucket{le=\"0.01\"} 2",
            "kes_http_response_time_bucket{le=\"0.05\"} 3",
            "kes_http_response_time_bucket{le=\"1.5\"} 3",
            "kes_http_response_time_bucket{le=\"10\"} 4",
            "kes_http_response_time_bucket{le=\"+Inf\"} 5",
            "kes_http_response_time_sum 62.021",
            "kes_http_response_time_count 5",
            "kes_log_audit_events 5",
            "kes_log_error_events 1",
            "kes_system_up_time 0",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
        assert!(text(&counted, Notation::OpenMetrics).contains("# TYPE kes_http_request_success unknown\n"));
        assert!(text(&counted, Notation::OpenMetrics).contains("kes_http_request_active 0\n"));
    }

    #[test]
    fn a_counter_is_called_as_its_samples_are() {
        let text = "# HELP a_b Of b.\n# TYPE a_b counter\na_b_total 1\n# TYPE g gauge\ng 2\n# EOF\n";
        let expected = "# HELP a_b_total Of b.\n# TYPE a_b_total counter\na_b_total 1\n# TYPE g gauge\ng 2\n";
        assert_eq!(as_prometheus(text), expected);
    }
}
