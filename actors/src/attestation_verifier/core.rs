//! The schedule of appraisal: who is asked for a quote when, and what follows from the answer.
//!
//! One entry per connection. Only one connection of a host is *active*: the one whose quote and continuity token were
//! taken last. Nothing is released before a commit has recorded the pass, and that commit refuses a host that was cut
//! off meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_protocol::crypto::hash::{ct_eq, hmac, sha256};
use holdfast_protocol::crypto::kem;
use holdfast_protocol::ids::{DeploymentId, HostGeneration, HostId, SealEpoch, SiteName};
use holdfast_protocol::secret::Secret;
use holdfast_protocol::tpm::binding::QuoteBinding;
use holdfast_protocol::tpm::{Attest, Counters, Evidence, Public};
use holdfast_protocol::wire::{Challenge, CloseCode, Hello, QuoteAnswer, VERSION_MAX, VERSION_MIN};

use crate::attestation_verifier::appraisal::{Expected, Policy, Reason, ReferenceValues, Verdict, appraise};
use crate::ports::Now;

/// A challenge that is not answered by then is void.
pub const CHALLENGE_TTL: Duration = Duration::from_secs(30);
/// Challenges without an answer, besides the current one, after which a connection is given up.
const UNANSWERED_MAX: usize = 15;
/// A host that connects again and again without a pass holds at most this many connections.
const CONNECTIONS_PER_HOST_MAX: usize = 4;

/// Names a connection for as long as the process runs.
pub type ConnId = u64;

/// What the rows say of a host, read right before the event that carries it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Generation of the host's identity.
    pub generation: HostGeneration,
    /// Its attestation key.
    pub ak: Public,
    /// How it is judged.
    pub policy: Policy,
    /// What is expected of it.
    pub reference: ReferenceValues,
    /// Its TPM's counters in the last quote that passed.
    pub counters: Option<Counters>,
    /// `Some` with the reset counter of the failed quote, if nothing but a reboot and a pass lead back.
    pub untrusted_at_reset: Option<u32>,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A connection whose client certificate is good said hello. `seed`: 32 fresh random bytes.
    HelloReceived {
        /// The connection.
        conn: ConnId,
        /// Who its certificate says it is.
        host: HostId,
        /// TLS exporter of the connection.
        exporter: [u8; 32],
        /// What it said.
        hello: Box<Hello>,
        /// What is known of it.
        facts: Box<Facts>,
        /// For the nonce.
        seed: Secret<32>,
    },
    /// A quote arrived. `seed`: 32 fresh random bytes.
    QuoteReceived {
        /// The connection.
        conn: ConnId,
        /// The quote.
        answer: Box<QuoteAnswer>,
        /// What is known of the host now.
        facts: Box<Facts>,
        /// For the session key.
        seed: Secret<32>,
    },
    /// A [`Effect::RecordPass`] was committed.
    PassRecorded {
        /// The connection.
        conn: ConnId,
        /// The verdict holds from now for this long.
        ttl: Duration,
    },
    /// A [`Effect::RecordPass`] was refused: cut off meanwhile, or a clone.
    PassRefused {
        /// The connection.
        conn: ConnId,
        /// What to close it with.
        code: CloseCode,
    },
    /// The deadline of [`Verifier::next_deadline`] came. `seed`: 32 fresh random bytes.
    TimePassed {
        /// For nonces.
        seed: Secret<32>,
    },
    /// A site, or one host of it, was cut off; the fence is committed.
    CutOff {
        /// The site.
        site: SiteName,
        /// The host; `None`: all of them.
        host: Option<holdfast_protocol::ids::HostName>,
        /// What to close with.
        code: CloseCode,
    },
    /// A connection is gone.
    Gone {
        /// The connection.
        conn: ConnId,
    },
    /// A site's seal key has a newer epoch; the commit is done.
    EpochAdvanced {
        /// The site.
        site: SiteName,
    },
    /// A site's policy has a newer version; the commit is done.
    PolicyChanged {
        /// The site.
        site: SiteName,
        /// The policy.
        policy: Box<Policy>,
    },
    /// Central was sealed.
    Sealed,
}

/// What is to be done, in order.
#[derive(Debug)]
pub enum Effect {
    /// Answer a hello.
    Welcome {
        /// The connection.
        conn: ConnId,
        /// The version to speak.
        version: u16,
    },
    /// Ask for a quote.
    Challenge {
        /// The connection.
        conn: ConnId,
        /// What to quote.
        challenge: Challenge,
    },
    /// Record a pass and, for the first of a connection, prepare the release; then report back.
    RecordPass(Box<Pass>),
    /// Record a failure, tell the host why, close.
    RecordFailure(Box<Failure>),
    /// From here on the host may be given things, until `until`.
    Trusted {
        /// The host.
        host: HostId,
        /// Its active connection.
        conn: ConnId,
        /// When the verdict ends.
        until: Duration,
        /// Whether this is the connection's first pass.
        first: bool,
    },
    /// Give a trusted host its site's current seal key.
    Rewrap {
        /// The host.
        host: HostId,
        /// Its active connection.
        conn: ConnId,
    },
    /// From here on it may not.
    Stale {
        /// The host.
        host: HostId,
        /// The connection that was active.
        conn: ConnId,
    },
    /// Close.
    Close {
        /// The connection.
        conn: ConnId,
        /// Why.
        code: CloseCode,
    },
}

/// A quote that passed.
#[derive(Debug)]
pub struct Pass {
    /// The connection.
    pub conn: ConnId,
    /// The host.
    pub host: HostId,
    /// Its generation in the transcript; the commit refuses if it has changed.
    pub generation: HostGeneration,
    /// The TPM's counters.
    pub counters: Counters,
    /// Values of the quoted registers, ascending.
    pub pcrs: Vec<(u8, [u8; 32])>,
    /// SHA-256 of the quote.
    pub quote_digest: [u8; 32],
    /// Values to remember, if the policy learns and nothing was known.
    pub learned: Option<ReferenceValues>,
    /// The token presented.
    pub continuity: Option<Secret<32>>,
    /// The first pass of its connection: what the release is made with.
    pub first: Option<FirstPass>,
    /// How long the verdict holds.
    pub ttl: Duration,
}

/// What a release needs.
#[derive(Debug)]
pub struct FirstPass {
    /// The session key.
    pub session_key: Secret<32>,
    /// The same, to the host's HPKE key.
    pub message: kem::Message,
    /// The epoch the host's root key is wrapped with; `None`: it has no store.
    pub seal_epoch: Option<SealEpoch>,
    /// Whether it needs that epoch's key.
    pub needs_seal_key: bool,
}

/// A quote that failed.
#[derive(Debug)]
pub struct Failure {
    /// The connection.
    pub conn: ConnId,
    /// The host.
    pub host: HostId,
    /// In plain words.
    pub reasons: Vec<String>,
    /// `resetCount` of the quote, or the last known one where the quote was not believed.
    pub reset_count: u32,
    /// To be quarantined at once: the policy says so, or the TPM's counters went back, which two machines do that share
    /// what is in one TPM.
    pub quarantine: bool,
}

#[derive(Debug)]
struct Connection {
    host: HostId,
    exporter: [u8; 32],
    phase: Phase,
    released: bool,
    seal_epoch: Option<SealEpoch>,
    needs_seal_key: bool,
    /// Its site has newer epochs than the host may have been given. It gets them with its next verdict.
    outdated: bool,
    policy: Policy,
    /// When the next challenge goes out.
    poll_at: Duration,
    /// The nonces before the current one that were not answered in time: a late answer to one of them is no failure.
    /// They may all lie before a host that reads a large copy over a thin line. `None`: it came, and counts no more; its
    /// place stays, for the question was not answered in time.
    unanswered: Vec<Option<[u8; 32]>>,
}

#[derive(Debug)]
enum Phase {
    /// A quote over this nonce is awaited until then.
    Challenged { nonce: [u8; 32], until: Duration },
    /// A pass is being committed.
    Recording,
    /// Between quotes.
    Resting,
}

#[derive(Debug)]
struct Active {
    conn: ConnId,
    until: Duration,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Verifier {
    connections: BTreeMap<ConnId, Connection>,
    active: BTreeMap<HostId, Active>,
}

impl Verifier {
    /// Takes an event; the effects are to be carried out in order.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        match event {
            Event::HelloReceived { conn, host, exporter, hello, facts, seed } => {
                self.hello(conn, host, exporter, &hello, &facts, &seed, now)
            }
            Event::QuoteReceived { conn, answer, facts, seed } => self.quote(conn, &answer, &facts, &seed, now),
            Event::PassRecorded { conn, ttl } => self.recorded(conn, ttl, now),
            Event::PassRefused { conn, code } => self.close(conn, code),
            Event::TimePassed { seed } => self.tick(&seed, now),
            Event::CutOff { site, host, code } => {
                let matching = |id: &HostId| id.site == site && host.as_ref().is_none_or(|host| *host == id.host);
                self.close_where(|connection| matching(&connection.host), code)
            }
            Event::Gone { conn } => self.forget(conn),
            Event::EpochAdvanced { site } => self.rewrap(&site, now),
            Event::PolicyChanged { site, policy } => {
                self.policy_changed(&site, &policy, now);
                Vec::new()
            }
            Event::Sealed => self.close_where(|_| true, CloseCode::CentralSealed),
        }
    }

    /// When [`Event::TimePassed`] is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        let polls = self.connections.values().filter_map(|connection| match connection.phase {
            Phase::Challenged { until, .. } => Some(until),
            Phase::Resting => Some(connection.poll_at),
            Phase::Recording => None,
        });
        polls.chain(self.active.values().map(|active| active.until)).min()
    }

    /// Whether a host has a verdict that holds.
    pub fn is_trusted(&self, host: &HostId, now: Now) -> bool {
        self.active.get(host).is_some_and(|active| now.mono < active.until)
    }

    #[expect(clippy::too_many_arguments, reason = "the members of one event")]
    fn hello(
        &mut self,
        conn: ConnId,
        host: HostId,
        exporter: [u8; 32],
        hello: &Hello,
        facts: &Facts,
        seed: &Secret<32>,
        now: Now,
    ) -> Vec<Effect> {
        if self.connections.contains_key(&conn) {
            return self.close(conn, CloseCode::Protocol);
        }
        let version = VERSION_MAX.min(hello.version_max);
        let of_host = self.connections.values().filter(|connection| connection.host == host).count();
        let spoken = VERSION_MIN.max(hello.version_min) <= version;
        if !spoken || hello.generation != facts.generation || CONNECTIONS_PER_HOST_MAX <= of_host {
            return vec![Effect::Close { conn, code: CloseCode::Protocol }];
        }
        let connection = Connection {
            host,
            exporter,
            phase: Phase::Resting,
            released: false,
            seal_epoch: hello.seal_epoch,
            needs_seal_key: hello.needs_seal_key,
            outdated: false,
            policy: facts.policy.clone(),
            poll_at: now.mono,
            unanswered: Vec::new(),
        };
        self.connections.insert(conn, connection);
        let mut effects = vec![Effect::Welcome { conn, version }];
        effects.extend(self.challenge(conn, seed, now));
        effects
    }

    fn challenge(&mut self, conn: ConnId, seed: &Secret<32>, now: Now) -> Option<Effect> {
        let connection = self.connections.get_mut(&conn)?;
        let nonce = hmac(seed.expose(), &[b"holdfast/nonce/v1", &conn.to_be_bytes()]);
        let before =
            std::mem::replace(&mut connection.phase, Phase::Challenged { nonce, until: now.mono + CHALLENGE_TTL });
        match before {
            Phase::Challenged { nonce, .. } => connection.unanswered.push(Some(nonce)),
            Phase::Recording | Phase::Resting => connection.unanswered.clear(),
        }
        let challenge = Challenge {
            nonce,
            policy: connection.policy.version,
            pcrs: connection.policy.pcrs.iter().copied().collect(),
            ima_offset: 0,
            ima_count: 0,
        };
        Some(Effect::Challenge { conn, challenge })
    }

    fn quote(&mut self, conn: ConnId, answer: &QuoteAnswer, facts: &Facts, seed: &Secret<32>, now: Now) -> Vec<Effect> {
        let Some(connection) = self.connections.get_mut(&conn) else { return Vec::new() };
        let nonce = match connection.phase {
            Phase::Challenged { nonce, until } if now.mono < until => nonce,
            // Too late; what follows from that, the deadline tells.
            Phase::Challenged { .. } => return Vec::new(),
            Phase::Recording | Phase::Resting => return self.close(conn, CloseCode::Protocol),
        };
        let (transcript, verdict) = connection.appraise(&nonce, answer, facts);
        // Only what the host's own key has signed can be late, and nothing else is looked at for it.
        if verdict.reasons == [Reason::QualifyingData] && connection.take_late(answer, facts) {
            return Vec::new();
        }
        // From here on the nonce is spent, whatever comes of it.
        connection.phase = Phase::Recording;
        if facts.policy.version != connection.policy.version {
            // The policy has changed since the question, and the reference values with it.
            connection.policy = facts.policy.clone();
            return self.challenge(conn, seed, now).into_iter().collect();
        }
        let mut reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
        if let Some(reset_count) = facts.untrusted_at_reset
            && verdict.passed
            && verdict.counters.is_none_or(|counters| counters.reset_count <= reset_count)
        {
            reasons.push("failed before, and has not been rebooted since".to_owned());
        }
        let (true, [], Some(counters)) = (verdict.passed, reasons.as_slice(), verdict.counters) else {
            return self.failed(conn, &verdict, reasons, facts);
        };
        let host = connection.host.clone();
        let first = if connection.released {
            None
        } else {
            // What is released is read after this.
            connection.outdated = false;
            match first_pass(connection, answer, &transcript, seed) {
                Some(first) => Some(first),
                None => return self.close(conn, CloseCode::Protocol),
            }
        };
        vec![Effect::RecordPass(Box::new(Pass {
            conn,
            host,
            generation: facts.generation,
            counters,
            pcrs: answer.pcrs.clone(),
            quote_digest: verdict.quote_digest,
            learned: verdict.learned,
            continuity: answer.continuity.map(|shown| Secret::fill_with(|into| *into = shown)),
            first,
            ttl: connection.policy.verdict_ttl(),
        }))]
    }

    fn failed(&mut self, conn: ConnId, verdict: &Verdict, reasons: Vec<String>, facts: &Facts) -> Vec<Effect> {
        let Some(connection) = self.connections.get(&conn) else { return Vec::new() };
        let host = connection.host.clone();
        let went_back = verdict.reasons.iter().any(|reason| {
            matches!(reason, Reason::ResetCount { .. } | Reason::RestartCount { .. } | Reason::Clock { .. })
        });
        let recording = |other: &Connection| other.host == host && matches!(other.phase, Phase::Recording);
        if went_back && self.connections.iter().any(|(id, other)| *id != conn && recording(other)) {
            // A quote made before the one that is being recorded on another connection, and overtaken by it.
            return self.close(conn, CloseCode::Replaced);
        }
        let reset_count = verdict.counters.or(facts.counters).map_or(0, |counters| counters.reset_count);
        let quarantine = connection.policy.quarantine_on_failure || went_back;
        let code = if went_back { CloseCode::Clone } else { CloseCode::Untrusted };
        let failure = Failure { conn, host: host.clone(), reasons, reset_count, quarantine };
        let mut effects = vec![Effect::RecordFailure(Box::new(failure))];
        // The host has failed, not the connection: what an earlier one was granted ends with it.
        effects.extend(self.close_where(|connection| connection.host == host, code));
        effects
    }

    fn recorded(&mut self, conn: ConnId, ttl: Duration, now: Now) -> Vec<Effect> {
        let recording = |connection: &&mut Connection| matches!(connection.phase, Phase::Recording);
        let Some(connection) = self.connections.get_mut(&conn).filter(recording) else { return Vec::new() };
        let first = !connection.released;
        connection.released = true;
        connection.phase = Phase::Resting;
        connection.poll_at = now.mono + connection.policy.jittered_interval(conn);
        let outdated = std::mem::take(&mut connection.outdated);
        let host = connection.host.clone();
        let until = now.mono + ttl;
        let before = self.active.insert(host.clone(), Active { conn, until });
        let mut effects = Vec::new();
        if let Some(before) = before.filter(|before| before.conn != conn) {
            self.connections.remove(&before.conn);
            effects.push(Effect::Close { conn: before.conn, code: CloseCode::Replaced });
        }
        effects.push(Effect::Trusted { host: host.clone(), conn, until, first });
        if outdated {
            effects.push(Effect::Rewrap { host, conn });
        }
        effects
    }

    fn tick(&mut self, seed: &Secret<32>, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        let expired: Vec<HostId> =
            self.active.iter().filter(|(_, active)| active.until <= now.mono).map(|(host, _)| host.clone()).collect();
        for host in expired {
            if let Some(Active { conn, .. }) = self.active.remove(&host) {
                effects.push(Effect::Stale { host, conn });
            }
        }
        let mut due = Vec::new();
        let mut silent = Vec::new();
        for (conn, connection) in &self.connections {
            match connection.phase {
                Phase::Resting if connection.poll_at <= now.mono => due.push(*conn),
                // Who never passed has had its chance; who did is asked again, as its next good quote heals, though
                // not for ever.
                Phase::Challenged { until, .. }
                    if until <= now.mono && connection.released && connection.unanswered.len() < UNANSWERED_MAX =>
                {
                    due.push(*conn);
                }
                Phase::Challenged { until, .. } if until <= now.mono => silent.push(*conn),
                Phase::Challenged { .. } | Phase::Recording | Phase::Resting => {}
            }
        }
        for conn in due {
            effects.extend(self.challenge(conn, seed, now));
        }
        for conn in silent {
            effects.extend(self.close(conn, CloseCode::Stale));
        }
        effects
    }

    /// Who has no verdict now may have one that is just being committed, and a key that was read before it: all of them
    /// are remembered.
    fn rewrap(&mut self, site: &SiteName, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (conn, connection) in self.connections.iter_mut().filter(|(_, connection)| connection.host.site == *site) {
            let active = self.active.get(&connection.host).filter(|active| active.conn == *conn);
            if active.is_some_and(|active| now.mono < active.until) {
                effects.push(Effect::Rewrap { host: connection.host.clone(), conn: *conn });
            } else {
                connection.outdated = true;
            }
        }
        effects
    }

    /// Who rests is asked anew at once. Who was asked under the earlier version is so when his answer has come.
    fn policy_changed(&mut self, site: &SiteName, policy: &Policy, now: Now) {
        for connection in self.connections.values_mut().filter(|connection| connection.host.site == *site) {
            if matches!(connection.phase, Phase::Resting) {
                connection.policy = policy.clone();
                connection.poll_at = now.mono;
            }
        }
    }

    fn forget(&mut self, conn: ConnId) -> Vec<Effect> {
        let Some(connection) = self.connections.remove(&conn) else { return Vec::new() };
        match self.active.get(&connection.host) {
            Some(active) if active.conn == conn => {
                self.active.remove(&connection.host);
                vec![Effect::Stale { host: connection.host, conn }]
            }
            _ => Vec::new(),
        }
    }

    fn close(&mut self, conn: ConnId, code: CloseCode) -> Vec<Effect> {
        let mut effects = self.forget(conn);
        effects.push(Effect::Close { conn, code });
        effects
    }

    fn close_where(&mut self, matches: impl Fn(&Connection) -> bool, code: CloseCode) -> Vec<Effect> {
        let matching: Vec<ConnId> =
            self.connections.iter().filter(|(_, c)| matches(c)).map(|(conn, _)| *conn).collect();
        matching.into_iter().flat_map(|conn| self.close(conn, code)).collect()
    }
}

impl Connection {
    /// The transcript with this nonce, and how the answer is judged against it.
    fn appraise(&self, nonce: &[u8; 32], answer: &QuoteAnswer, facts: &Facts) -> (Vec<u8>, Verdict) {
        let (transcript, qualifying_data) = self.binding(nonce, answer, facts);
        let evidence =
            Evidence { attest: answer.attest.clone(), signature: answer.signature.clone(), pcrs: answer.pcrs.clone() };
        let expected = Expected { ak: &facts.ak, qualifying_data };
        (transcript, appraise(&evidence, &self.policy, &facts.reference, facts.counters.as_ref(), &expected))
    }

    /// Whether this quote, whose signature is good, answers one of the questions that were not answered in time. That
    /// one is spent by it: each answer costs a signature to be checked, so a question has but one that is let pass.
    fn take_late(&mut self, answer: &QuoteAnswer, facts: &Facts) -> bool {
        let Ok(attest) = Attest::parse(&answer.attest) else { return false };
        let is_for = |nonce: &[u8; 32]| ct_eq(&attest.extra_data, &self.binding(nonce, answer, facts).1);
        let found = self.unanswered.iter().position(|nonce| nonce.as_ref().is_some_and(is_for));
        found.and_then(|place| self.unanswered.get_mut(place)?.take()).is_some()
    }

    /// The transcript with this nonce, and its hash as a quote must carry it.
    fn binding(&self, nonce: &[u8; 32], answer: &QuoteAnswer, facts: &Facts) -> (Vec<u8>, [u8; 32]) {
        let binding = QuoteBinding {
            deployment: facts.deployment,
            site: &self.host.site,
            host: &self.host.host,
            host_generation: facts.generation,
            nonce,
            exporter: &self.exporter,
            hpke_suite: kem::SUITE,
            hpke_public: &answer.hpke_public,
            policy_version: self.policy.version,
            ima_offset: 0,
            ima_count: 0,
        };
        binding.qualifying_data()
    }
}

/// Makes the session key and encrypts it to the key that the quote vouches for. `None`: that key is no usable one.
fn first_pass(
    connection: &Connection,
    answer: &QuoteAnswer,
    transcript: &[u8],
    seed: &Secret<32>,
) -> Option<FirstPass> {
    let session_key = Secret::fill_with(|into| *into = hmac(seed.expose(), &[b"holdfast/session-key/v1"]));
    let ephemeral = Secret::fill_with(|into| *into = hmac(seed.expose(), &[b"holdfast/session-ephemeral/v1"]));
    let info = session_info(transcript, &answer.attest);
    let message = kem::seal(&answer.hpke_public, &info, b"", session_key.expose(), &ephemeral).ok()?;
    Some(FirstPass {
        session_key,
        message,
        seal_epoch: connection.seal_epoch,
        needs_seal_key: connection.needs_seal_key,
    })
}

/// The `info` of the HPKE message that carries the session key: SHA-256 of transcript and quote.
pub fn session_info(transcript: &[u8], attest: &[u8]) -> [u8; 32] {
    sha256(&[transcript, attest])
}

#[cfg(test)]
mod tests;
