//! How the host stands, for people and for the gauges.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_protocol::wire::{Notice, NoticedStanding};

/// What is known.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// In a session that central has welcomed.
    pub connected: bool,
    /// The last verdict of this session was a pass.
    pub trusted: bool,
    /// When central was last heard of, on the boot-time clock.
    pub contact: Option<Duration>,
    /// Why the last attempt to reach central failed.
    pub error: Option<String>,
    /// Why the last appraisal failed.
    pub reasons: Vec<String>,
    /// What the newest notice says.
    pub notice: Option<NoticedStanding>,
    /// An operator sealed this host.
    pub sealed_by_operator: bool,
}

/// Shared by whoever learns something and whoever shows it.
#[derive(Debug)]
pub struct Status {
    central: String,
    standing: Mutex<Standing>,
}

impl Status {
    /// Nothing is known yet; `central` is where it is dialled.
    pub fn new(central: String) -> Self {
        Self { central, standing: Mutex::default() }
    }

    /// What is known now.
    pub fn get(&self) -> Standing {
        self.lock().clone()
    }

    /// Learns something.
    pub fn change(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.lock());
    }

    /// The newest notice.
    pub fn noticed(&self, notice: Option<&Notice>) {
        self.lock().notice = notice.map(|notice| notice.standing);
    }

    /// Why a sealed host is sealed, in plain words.
    pub fn why_sealed(&self) -> String {
        let standing = self.get();
        match standing.notice {
            Some(NoticedStanding::Quarantined { .. }) => {
                return "sealed: this host is quarantined; only an operator of central can take it back".to_owned();
            }
            Some(NoticedStanding::Untrusted) => {
                let reasons = match standing.reasons.as_slice() {
                    [] => String::new(),
                    reasons => format!(" ({})", reasons.join("; ")),
                };
                return format!("sealed: the appraisal of this host failed{reasons}; it is not trusted by central");
            }
            Some(NoticedStanding::Clear) | None => {}
        }
        if standing.sealed_by_operator {
            return "sealed: an operator sealed this host; central unseals it at the next connection".to_owned();
        }
        if standing.connected {
            return format!("sealed: connected to central at {}, waiting for its seal key", self.central);
        }
        let error = standing.error.as_deref().unwrap_or("none yet");
        format!("sealed: waiting for central at {} (last error: {error})", self.central)
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_host_says_what_it_waits_for() {
        let status = Status::new("central.example:7443".to_owned());
        assert_eq!(status.why_sealed(), "sealed: waiting for central at central.example:7443 (last error: none yet)");
        status.change(|standing| standing.error = Some("no answer".to_owned()));
        assert!(status.why_sealed().ends_with("(last error: no answer)"));
        status.change(|standing| standing.connected = true);
        assert!(status.why_sealed().contains("waiting for its seal key"));
        status.change(|standing| standing.notice = Some(NoticedStanding::Untrusted));
        status.change(|standing| standing.reasons = vec!["register 0".to_owned()]);
        assert!(status.why_sealed().contains("failed (register 0)"));
        status.change(|standing| standing.notice = Some(NoticedStanding::Quarantined { wipe: false }));
        assert!(status.why_sealed().contains("quarantined"));
    }
}
