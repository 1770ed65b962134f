//! Times and durations as people and the dialects write them.

use std::time::Duration;

use jiff::Timestamp;

/// RFC 3339 in UTC with microseconds and `Z`: Strongbox times. Times outside years -9999 to 9999 give the epoch.
pub fn rfc3339_us(wall_us: i64) -> String {
    timestamp(wall_us).strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The same with milliseconds: Cerberus times.
pub fn rfc3339_ms(wall_us: i64) -> String {
    timestamp(wall_us).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// The same with whole seconds.
pub(crate) fn rfc3339_s(wall_us: i64) -> String {
    timestamp(wall_us).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// As Go's programs begin the lines of their logs.
pub(crate) fn log_time(wall_us: i64) -> String {
    timestamp(wall_us).strftime("%Y/%m/%d %H:%M:%S").to_string()
}

/// Microseconds since the Unix epoch of an RFC 3339 time with any offset.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// Durations like `1h30m`, `2s`, `500ms`, `180d`: whole numbers with `y` (365 d), `d`, `h`, `m`, `s`, `ms`, each unit
/// once and in this order.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total_ms, mut units) = (text, 0u64, UNITS);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest.get(..digits)?.parse().ok()?;
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = &rest[digits..digits + letters];
        let at = units.iter().position(|(name, _)| *name == unit)?;
        total_ms = total_ms.checked_add(count.checked_mul(units[at].1)?)?;
        units = &units[at + 1..];
        rest = &rest[digits + letters..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(total_ms))
}

/// The shortest text that [`parse_duration`] reads back; parts of a millisecond are dropped.
pub fn format_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, ms) in UNITS {
        let count = left / ms;
        left %= ms;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn timestamp(wall_us: i64) -> Timestamp {
    Timestamp::from_microsecond(wall_us).unwrap_or(Timestamp::UNIX_EPOCH)
}

const UNITS: &[(&str, u64)] =
    &[("y", 365 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_fixed_number_of_digits() {
        assert_eq!(rfc3339_us(1_700_000_000_000_000), "2023-11-14T22:13:20.000000Z");
        assert_eq!(rfc3339_us(1_700_000_000_123_456), "2023-11-14T22:13:20.123456Z");
        assert_eq!(rfc3339_ms(1_700_000_000_123_456), "2023-11-14T22:13:20.123Z");
        assert_eq!(parse_rfc3339("2023-11-14T23:13:20.123456+01:00"), Some(1_700_000_000_123_456));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn durations_are_units_in_falling_order() {
        let cases = [("2s", 2000), ("500ms", 500), ("1h30m", 5_400_000), ("1y1d", 366 * 86_400_000), ("0s", 0)];
        for (text, ms) in cases {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(ms), "{text}");
            assert_eq!(format_duration(duration), text);
        }
        for text in ["", "5", "s", "1.5h", "-1s", "1m1h", "1s1s", "1w", "1 s", "99999999999999999999s", "1é"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
