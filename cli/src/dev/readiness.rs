//! When a deployment is ready, judged from what central says about its hosts.

use std::collections::BTreeMap;

use serde_json::Value;

/// What is known of one host.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Seen {
    state: String,
    standing: String,
    lag: Option<u64>,
    agent_id: Option<String>,
}

impl Seen {
    fn of(site: &Value, host: &Value) -> Self {
        let text = |member: &str| host[member].as_str().unwrap_or_default().to_owned();
        // A host of a site that is cut off is cut off, whatever its own standing.
        let standing = match site["standing"].as_str() {
            Some(standing) if standing.starts_with("quarantined") => standing.to_owned(),
            _ => text("standing"),
        };
        let agent_id = host["agent-id"].as_str().map(str::to_owned);
        Self { state: text("state"), standing, lag: host["lag"].as_u64(), agent_id }
    }

    fn cut_off(&self) -> bool {
        self.standing.starts_with("quarantined")
    }

    fn in_sync(&self) -> bool {
        self.state == "unsealed" && self.standing == "trusted" && self.lag == Some(0)
    }
}

/// The hosts of the plan as central last described them.
pub(super) struct Readiness {
    hosts: BTreeMap<String, Seen>,
}

impl Readiness {
    /// Nothing is known yet of these hosts.
    pub(super) fn new(hosts: impl Iterator<Item = String>) -> Self {
        Self { hosts: hosts.map(|host| (host, Seen::default())).collect() }
    }

    /// Takes central's list of sites; gives a line (step, text) for every change.
    pub(super) fn seen(&mut self, sites: &[Value]) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        for site in sites {
            for host in site["hosts"].as_array().map(Vec::as_slice).unwrap_or_default() {
                let Some((name, known)) = host["name"].as_str().and_then(|name| self.hosts.get_key_value(name)) else {
                    continue;
                };
                let now = Seen::of(site, host);
                lines.extend(changes(known, &now).into_iter().map(|(step, what)| (step, format!("{name}  {what}"))));
                let name = name.clone();
                self.hosts.insert(name, now);
            }
        }
        lines
    }

    /// Whether every host is unsealed, trusted and in sync, or cut off on purpose.
    pub(super) fn ready(&self) -> bool {
        self.hosts.values().all(|host| host.in_sync() || host.cut_off())
    }

    /// The hosts that are not ready, and how they are.
    pub(super) fn missing(&self) -> String {
        let missing = self.hosts.iter().filter(|(_, host)| !host.in_sync() && !host.cut_off());
        let told =
            missing.map(|(name, host)| format!("{name} ({}, {})", or_dash(&host.state), or_dash(&host.standing)));
        told.collect::<Vec<_>>().join(", ")
    }

    /// The ids central gave out so far.
    pub(super) fn agent_ids(&self) -> impl Iterator<Item = (&str, &str)> {
        self.hosts.iter().filter_map(|(name, host)| Some((name.as_str(), host.agent_id.as_deref()?)))
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn changes(before: &Seen, now: &Seen) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if now.standing != before.standing && !now.standing.is_empty() {
        lines.push(("attestation", now.standing.clone()));
    }
    if now.state != before.state && !now.state.is_empty() {
        lines.push(("state", now.state.clone()));
    }
    if now.in_sync() && !before.in_sync() {
        lines.push(("sync", "in sync".to_owned()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sites(state: &str, standing: &str, lag: Value) -> Vec<Value> {
        let host = json!({"name": "udc1-001", "state": state, "standing": standing, "lag": lag, "agent-id": "i"});
        vec![json!({"name": "udc1", "standing": "trusted", "hosts": [host, {"name": "stranger"}]})]
    }

    fn one() -> Readiness {
        Readiness::new(["udc1-001".to_owned()].into_iter())
    }

    #[test]
    fn a_host_is_ready_when_unsealed_trusted_and_in_sync() {
        for (state, standing, lag, ready) in [
            ("unsealed", "trusted", json!(0), true),
            ("unsealed", "trusted", json!(3), false),
            ("unsealed", "trusted", Value::Null, false),
            ("unsealed", "stale", json!(0), false),
            ("sealed", "trusted", json!(0), false),
            ("sealed", "quarantined (wiped)", Value::Null, true),
        ] {
            let mut readiness = one();
            readiness.seen(&sites(state, standing, lag));
            assert_eq!(readiness.ready(), ready, "{state} {standing}");
        }
        assert!(!one().ready());
        assert_eq!(one().missing(), "udc1-001 (-, -)");
        assert!(Readiness::new(std::iter::empty()).ready());
    }

    #[test]
    fn every_change_is_told_once() {
        let mut readiness = one();
        let first = readiness.seen(&sites("sealed", "trusted", Value::Null));
        assert_eq!(first.iter().map(|(step, _)| *step).collect::<Vec<_>>(), ["attestation", "state"]);
        let second = readiness.seen(&sites("unsealed", "trusted", json!(0)));
        assert_eq!(second, [("state", "udc1-001  unsealed".to_owned()), ("sync", "udc1-001  in sync".to_owned())]);
        assert!(readiness.seen(&sites("unsealed", "trusted", json!(0))).is_empty());
        assert_eq!(readiness.agent_ids().collect::<Vec<_>>(), [("udc1-001", "i")]);
    }
}
