//! How often a host's failures are written down that change nothing: who fails again and again is to fill neither the
//! audit log nor the disk.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_protocol::ids::HostId;

use crate::ports::Now;

/// A host gets one line in this time.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// For so long it is remembered how many failures got none.
const KEPT_FOR: Duration = Duration::from_secs(3_600);

/// When each host that failed lately got its last line; in memory only, as all that a restart costs is one more line.
#[derive(Debug, Default)]
pub struct FailureLines {
    last: BTreeMap<HostId, Last>,
    swept_at: Duration,
}

#[derive(Debug)]
struct Last {
    at: Duration,
    unwritten: u64,
}

impl FailureLines {
    /// A host has failed: `Some` if this gets a line though it changes nothing, with how many got none since the last.
    pub fn take(&mut self, host: &HostId, now: Now) -> Option<u64> {
        self.sweep(now.mono);
        match self.last.get_mut(host) {
            Some(last) if now.mono < last.at + LINE_EVERY => {
                last.unwritten += 1;
                None
            }
            Some(last) => {
                last.at = now.mono;
                Some(std::mem::take(&mut last.unwritten))
            }
            None => {
                self.last.insert(host.clone(), Last { at: now.mono, unwritten: 0 });
                Some(0)
            }
        }
    }

    fn sweep(&mut self, now: Duration) {
        if self.swept_at + LINE_EVERY <= now {
            self.swept_at = now;
            self.last.retain(|_, last| now < last.at + KEPT_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site_registry::fixtures::id;

    fn at(seconds: u64) -> Now {
        Now { mono: Duration::from_secs(seconds), wall_us: 0 }
    }

    #[test]
    fn a_host_gets_a_line_a_minute_that_tells_how_many_got_none() {
        let mut lines = FailureLines::default();
        let mut take = |host, seconds| lines.take(&id(host), at(seconds));
        assert_eq!(take("udc1/a", 100), Some(0));
        assert_eq!(take("udc1/b", 101), Some(0), "each for itself");
        assert_eq!([take("udc1/a", 101), take("udc1/a", 159)], [None, None]);
        assert_eq!(take("udc1/a", 160), Some(2));
        assert_eq!(take("udc1/a", 161), None, "the next minute");
    }

    #[test]
    fn who_no_longer_fails_is_forgotten() {
        let mut lines = FailureLines::default();
        for host in ["udc1/a", "udc1/b"] {
            assert_eq!(lines.take(&id(host), at(1)), Some(0));
        }
        assert_eq!(lines.take(&id("udc1/c"), at(3_601)), Some(0));
        assert_eq!(lines.last.len(), 1);
    }
}
