//! The figures of this suite, over all its worlds.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use holdfast_testbed::figures::Figures;

#[derive(Default)]
struct Counts {
    began: Option<Instant>,
    worlds: u64,
    simulated: Duration,
    dials: u64,
    sessions: usize,
    stories: Vec<&'static str>,
}

static COUNTS: Mutex<Option<Counts>> = Mutex::new(None);

/// A story was told once more.
#[expect(clippy::disallowed_methods, reason = "how long the suite takes is a matter of real time")]
pub(crate) fn story(name: &'static str) {
    let mut counts = COUNTS.lock().unwrap();
    let counts = counts.get_or_insert_default();
    counts.began.get_or_insert_with(Instant::now);
    if !counts.stories.contains(&name) {
        counts.stories.push(name);
    }
}

/// A world has ended.
pub(crate) fn world(simulated: Duration, dials: u64, sessions: usize) {
    let mut counts = COUNTS.lock().unwrap();
    let counts = counts.get_or_insert_default();
    counts.worlds += 1;
    counts.simulated += simulated;
    counts.dials += dials;
    counts.sessions += sessions;
    let wall = counts.began.map_or(Duration::ZERO, |began| began.elapsed());
    let figures = Figures::of("glue")
        .add("stories", counts.stories.len())
        .add("worlds, one for each story and seed", counts.worlds)
        .add("seconds simulated", counts.simulated.as_secs())
        .add("seconds it took", wall.as_secs())
        .add("connections tried", counts.dials)
        .add("sessions that central took", counts.sessions);
    if let Err(error) = figures.publish() {
        eprintln!("figures can't be written: {error}");
    }
}
