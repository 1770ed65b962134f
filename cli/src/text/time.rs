//! Times as people read them: to the second, with how far they are from now.

use jiff::Timestamp;

/// Now, by this machine's clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// `2026-12-04T06:22:36Z (in 12 d)`; a text that is no time stays as it is.
pub(crate) fn moment(text: &str, now: Timestamp) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => format!("{} ({})", at.strftime("%Y-%m-%dT%H:%M:%SZ"), away(at, now)),
        Err(_) => text.to_owned(),
    }
}

/// Microseconds since the Unix epoch, as RFC 3339.
pub(crate) fn rfc3339_us(at_us: i64) -> Option<String> {
    Timestamp::from_microsecond(at_us).ok().map(|at| at.to_string())
}

/// A second since the Unix epoch, likewise.
pub(crate) fn moment_of_s(at_s: i64) -> String {
    Timestamp::from_second(at_s).map_or_else(|_| at_s.to_string(), |at| moment(&at.to_string(), now()))
}

/// Only how far a time is from now.
pub(crate) fn until(text: &str, now: Timestamp) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), |at| away(at, now))
}

fn away(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.as_second().saturating_sub(now.as_second());
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {}", roughly(seconds.unsigned_abs())),
        _ => format!("{} ago", roughly(seconds.unsigned_abs())),
    }
}

/// In the largest unit that leaves a number of two digits or so, rounded down: what is left is never overstated.
fn roughly(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_says_how_far_it_is() {
        let now = "2026-11-22T06:00:00Z".parse().unwrap();
        for (at, shown) in [
            ("2026-12-04T12:00:00.123456Z", "2026-12-04T12:00:00Z (in 12 d)"),
            ("2026-11-22T06:00:00.999999Z", "2026-11-22T06:00:00Z (now)"),
            ("2026-11-22T06:01:59Z", "2026-11-22T06:01:59Z (in 119 s)"),
            ("2026-11-22T07:59:59Z", "2026-11-22T07:59:59Z (in 119 min)"),
            ("2026-11-22T08:00:00Z", "2026-11-22T08:00:00Z (in 2 h)"),
            ("2026-11-22T05:59:30Z", "2026-11-22T05:59:30Z (30 s ago)"),
            ("2026-11-20T06:00:00Z", "2026-11-20T06:00:00Z (2 d ago)"),
            ("2026-11-22T08:00:30+02:00", "2026-11-22T06:00:30Z (in 30 s)"),
            ("soon", "soon"),
        ] {
            assert_eq!(moment(at, now), shown);
        }
        assert_eq!(until("2026-12-04T12:00:00Z", now), "in 12 d");
    }
}
