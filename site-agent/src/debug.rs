//! What this host says about itself when it is to be found out what ails it: also while it is sealed, and to whoever stands
//! before it, so encrypted to the debug key that only central knows. No secret and no name of a tenant's things is in it.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_actors::ports::{Clock, draw_secret};
use holdfast_actors::store::Fault;
use holdfast_protocol::debug::DebugDump;
use holdfast_protocol::wire::UnsealPermit;
use holdfast_rest::recent::recent;
use holdfast_rest::time::rfc3339_us;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::config::Config;
use crate::fronts::VERSION;
use crate::host::Host;
use crate::lease::Reading;
use crate::local::Local;
use crate::unseal::LadderLine;

/// A dump is handed to everybody who asks for so long; then another is made.
const MADE_EVERY: Duration = Duration::from_secs(10);

/// There is no dump to give.
#[derive(Debug, thiserror::Error)]
pub enum NoDump {
    /// It comes with the unseal permit.
    #[error("this host was never given a debug key; it is after its first appraisal that passes")]
    NoKey,
    /// What was given is none.
    #[error("the debug key that this host was given is none")]
    BadKey,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Fault),
}

/// The dump that was made last, and when on the monotonic clock.
#[derive(Default)]
pub struct Dumps(Mutex<Option<(Duration, DebugDump)>>);

impl Host {
    /// A dump, encrypted.
    ///
    /// # Errors
    /// There is none to give.
    pub async fn debug_dump(&self) -> Result<DebugDump, NoDump> {
        self.local.debug_dump(&self.config, &self.central().addresses).await
    }
}

impl Local {
    /// Whoever asks soon after another is given what that one was: anybody may ask, and as often as he likes.
    async fn debug_dump(&self, config: &Config, central: &[String]) -> Result<DebugDump, NoDump> {
        let mut last = self.dumps.0.lock().await;
        let now = self.clock.now().mono;
        if let Some((made, dump)) = &*last
            && now.saturating_sub(*made) < MADE_EVERY
        {
            return Ok(dump.clone());
        }
        let permit = self.permit()?.ok_or(NoDump::NoKey)?;
        let plain = self.said(&permit, config, central).to_string();
        let seed = draw_secret(&*self.entropy);
        let dump = DebugDump::seal(&permit.debug_key, permit.deployment, permit.host, plain.as_bytes(), &seed)
            .map_err(|_| NoDump::BadKey)?;
        *last = Some((now, dump.clone()));
        Ok(dump)
    }

    /// A part that can't be read says so, and keeps none of the others from being told. The TPM is not asked.
    fn said(&self, permit: &UnsealPermit, of: &Config, central: &[String]) -> Value {
        let now = self.clock.now();
        let standing = self.status.get();
        let since = |contact: std::time::Duration| now.mono.saturating_sub(contact).as_secs();
        json!({
            "host": self.id().to_string(),
            "made-at": rfc3339_us(now.wall_us),
            "agent-version": VERSION,
            "seconds-since-boot": now.mono.as_secs(),
            "sealed": self.seal.is_sealed(),
            "reason": self.seal.is_sealed().then(|| self.status.why_sealed()),
            "seal-epoch": told(self.seal.epoch().map(|epoch| epoch.map(|epoch| epoch.0))),
            "connected": standing.connected,
            "trusted": standing.trusted,
            "seconds-since-central": standing.contact.map(since),
            "last-error": standing.error,
            "appraisal": standing.reasons,
            "standing": told(self.notice().map(|notice| notice.map(|notice| {
                json!({ "generation": notice.generation.0, "standing": format!("{:?}", notice.standing) })
            }))),
            "tpm": self.tpm_said(permit),
            "ladder": self.ladder_said(),
            "permit": {
                "generation": permit.generation.0, "policy": permit.policy.0, "registers": permit.pcrs,
                "issued": rfc3339_us(permit.issued_us), "expires": rfc3339_us(permit.expires_us),
                "allow-local-unseal": permit.local_unseal, "own-address": permit.address,
                "siblings": permit.siblings.iter().map(|of| (of.name.to_string(), of.address.clone()))
                    .collect::<BTreeMap<_, _>>(),
            },
            "shares": told(self.shares().map(|shares| shares.iter().map(|share| json!({
                "seal-epoch": share.terms.epoch.0, "needed": share.terms.threshold,
                "holders": share.terms.holders.iter().map(|holder| holder.name.to_string()).collect::<Vec<_>>(),
                "issued": rfc3339_us(share.terms.issued_us),
            })).collect::<Vec<_>>())),
            "failed-attempts-unlogged": told(self.boot.ladder_lines().map(|lines| lines.iter().map(line).collect::<Vec<_>>())),
            "config": config(of),
            "central": central,
            "warnings": recent(),
        })
    }

    /// What its counters were when this host was opened last since its agent began, or else when its permit was given.
    fn tpm_said(&self, permit: &UnsealPermit) -> Value {
        let (counters, read_at) = match self.leases.reading() {
            Some(Reading { counters, mono }) => (counters, json!({ "seconds-since-boot": mono.as_secs() })),
            None => (permit.counters, json!({ "permit": rfc3339_us(permit.issued_us) })),
        };
        let (resets, restarts) = (counters.reset_count, counters.restart_count);
        json!({ "clock-ms": counters.clock, "resets": resets, "restarts": restarts, "read-at": read_at })
    }

    fn ladder_said(&self) -> Vec<Value> {
        let attempts = self.ladder.attempts();
        let said = |(rung, of): (_, crate::unseal::Attempted)| {
            let rung: holdfast_actors::seal_keeper::ladder::Rung = rung;
            json!({ "rung": rung.as_str(), "at": rfc3339_us(of.at_us), "opened": of.opened, "reason": of.words })
        };
        attempts.into_iter().map(said).collect()
    }
}

fn line(of: &LadderLine) -> Value {
    json!({ "at": rfc3339_us(of.at_us), "rung": of.rung.as_str(), "by": of.by, "why": of.why })
}

/// What was read, or why it was not.
fn told<T: Serialize, E: std::fmt::Display>(read: Result<T, E>) -> Value {
    match read {
        Ok(value) => serde_json::to_value(value).unwrap_or(Value::Null),
        Err(error) => json!({ "not-read": error.to_string() }),
    }
}

/// The configuration holds no secret: paths, addresses, bounds, and the fingerprints of operators' keys.
fn config(of: &Config) -> Value {
    json!({
        "data-dir": of.data_dir, "rest": of.rest.to_string(), "siblings": of.siblings.map(|at| at.to_string()),
        "central": of.central, "admin-identities": of.admin_identities, "tpm": of.tpm.address.to_string(),
        "host-secret-index": format!("{:#x}", of.tpm.host_secret_index), "store": format!("{:?}", of.store),
        "audit": format!("{:?}", of.audit), "log": format!("{:?}", of.log), "tls": format!("{:?}", of.tls),
    })
}

#[cfg(test)]
mod tests;
