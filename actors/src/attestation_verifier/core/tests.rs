//! The machine with quotes of software TPMs.

mod grid;
mod quotes;
mod random;
mod timing;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::ids::PolicyVersion;
use holdfast_protocol::tpm::soft::SoftTpm;
use proptest::prelude::*;

use super::*;

const PCRS: [u8; 3] = [0, 4, 7];
const EXPORTER: [u8; 32] = [3; 32];
const HOST: &str = "udc1/a";
const SIBLING: &str = "udc1/b";
const AFAR: &str = "udc2/c";

fn at(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), wall_us: 0 }
}

fn host(text: &str) -> HostId {
    let (site, host) = text.split_once('/').unwrap();
    HostId { site: site.parse().unwrap(), host: host.parse().unwrap() }
}

fn seed(fill: u64) -> Secret<32> {
    Secret::fill_with(|bytes| *bytes = sha256(&[&fill.to_be_bytes()]))
}

fn policy() -> Policy {
    Policy {
        version: PolicyVersion(1),
        pcrs: PCRS.into(),
        interval_ms: 2_000,
        verdict_ttl_ms: 10_000,
        quarantine_on_failure: false,
        learn: true,
    }
}

/// One host's machine.
struct Machine {
    id: HostId,
    tpm: SoftTpm,
    hpke_public: [u8; 32],
    continuity: Option<[u8; 32]>,
}

impl Machine {
    fn new(name: &str) -> Self {
        let number = sha256(&[name.as_bytes()])[0];
        let mut tpm = SoftTpm::from_seed(&Secret::fill_with(|bytes| bytes.fill(number)));
        PCRS.iter().for_each(|pcr| tpm.extend(*pcr, &[pcr + 1; 32]));
        let key = kem::KemSecret::from_seed(&Secret::fill_with(|bytes| bytes.fill(number)));
        Self { id: host(name), tpm, hpke_public: *key.public(), continuity: Some([number; 32]) }
    }

    fn facts(&self) -> Facts {
        Facts {
            deployment: DeploymentId([1; 16]),
            generation: HostGeneration(1),
            ak: self.tpm.ak_public(),
            policy: policy(),
            reference: ReferenceValues::default(),
            counters: None,
            untrusted_at_reset: None,
        }
    }

    fn binding<'a>(&'a self, challenge: &'a Challenge) -> QuoteBinding<'a> {
        QuoteBinding {
            deployment: DeploymentId([1; 16]),
            site: &self.id.site,
            host: &self.id.host,
            host_generation: HostGeneration(1),
            nonce: &challenge.nonce,
            exporter: &EXPORTER,
            hpke_suite: kem::SUITE,
            hpke_public: &self.hpke_public,
            policy_version: challenge.policy,
            ima_offset: 0,
            ima_count: 0,
        }
    }

    fn answer_over(&self, qualifying_data: &[u8]) -> Box<QuoteAnswer> {
        let Evidence { attest, signature, pcrs } = self.tpm.quote(qualifying_data, &PCRS);
        let (hpke_public, continuity) = (self.hpke_public, self.continuity);
        Box::new(QuoteAnswer { attest, signature, pcrs, hpke_public, continuity })
    }

    fn answer(&self, challenge: &Challenge) -> Box<QuoteAnswer> {
        self.answer_over(&self.binding(challenge).qualifying_data().1)
    }
}

fn hello() -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        generation: HostGeneration(1),
        seal_epoch: Some(SealEpoch(1)),
        needs_seal_key: true,
        positions: Vec::new(),
        head: None,
        notice: None,
        audit_head: (0, [0; 32]),
    }
}

/// Effects as short texts, and the last challenge among them.
fn told(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Welcome { conn, .. } => format!("welcome {conn}"),
            Effect::Challenge { conn, .. } => format!("challenge {conn}"),
            Effect::RecordPass(pass) => {
                format!("pass {}{}", pass.conn, if pass.first.is_some() { " first" } else { "" })
            }
            Effect::RecordFailure(failure) => {
                format!("failure {}{}", failure.conn, if failure.quarantine { " quarantine" } else { "" })
            }
            Effect::Trusted { host, conn, first, .. } => {
                format!("trusted {host} {conn}{}", if *first { " first" } else { "" })
            }
            Effect::Rewrap { conn, .. } => format!("rewrap {conn}"),
            Effect::Stale { host, conn } => format!("stale {host} {conn}"),
            Effect::Close { conn, code } => format!("close {conn} {code:?}"),
        })
        .collect()
}

/// The machine with short ways to say what happened.
struct Bench {
    verifier: Verifier,
    machine: Machine,
    now: u64,
    seeds: u64,
    challenges: BTreeMap<ConnId, Challenge>,
}

impl Bench {
    fn new() -> Self {
        let machine = Machine::new(HOST);
        Self { verifier: Verifier::default(), machine, now: 0, seeds: 0, challenges: BTreeMap::new() }
    }

    fn effects(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.verifier.step(event, at(self.now));
        for effect in &effects {
            if let Effect::Challenge { conn, challenge } = effect {
                self.challenges.insert(*conn, challenge.clone());
            }
        }
        effects
    }

    fn step(&mut self, event: Event) -> Vec<String> {
        told(&self.effects(event))
    }

    fn seed(&mut self) -> Secret<32> {
        self.seeds += 1;
        seed(self.seeds)
    }

    fn hello(&mut self, conn: ConnId, name: &str, hello: Hello) -> Vec<String> {
        let (facts, seed) = (Box::new(Machine::new(name).facts()), self.seed());
        let hello = Box::new(hello);
        self.step(Event::HelloReceived { conn, host: host(name), exporter: EXPORTER, hello, facts, seed })
    }

    fn quote_event(&mut self, conn: ConnId, answer: Box<QuoteAnswer>, facts: Facts) -> Event {
        Event::QuoteReceived { conn, answer, facts: Box::new(facts), seed: self.seed() }
    }

    fn quote_with(&mut self, conn: ConnId, answer: Box<QuoteAnswer>, facts: Facts) -> Vec<String> {
        let event = self.quote_event(conn, answer, facts);
        self.step(event)
    }

    /// A good answer to the connection's last challenge.
    fn quote(&mut self, conn: ConnId) -> Vec<String> {
        let answer = self.machine.answer(&self.challenges[&conn]);
        let facts = self.machine.facts();
        self.quote_with(conn, answer, facts)
    }

    fn recorded(&mut self, conn: ConnId) -> Vec<String> {
        self.step(Event::PassRecorded { conn, ttl: Duration::from_secs(10) })
    }

    fn tick(&mut self) -> Vec<String> {
        let seed = self.seed();
        self.step(Event::TimePassed { seed })
    }

    fn cut_off(&mut self, name: &str, whole_site: bool) -> Vec<String> {
        let id = host(name);
        let host = (!whole_site).then_some(id.host);
        self.step(Event::CutOff { site: id.site, host, code: CloseCode::Quarantined })
    }

    /// The policy of a site has a second version.
    fn policy_changed(&mut self, name: &str) -> Vec<String> {
        let policy = Box::new(Policy { version: PolicyVersion(2), interval_ms: 60_000, ..policy() });
        self.step(Event::PolicyChanged { site: host(name).site, policy })
    }

    /// Goes on to the next deadline.
    fn wait(&mut self) -> Vec<String> {
        self.now = u64::try_from(self.verifier.next_deadline().unwrap().as_millis()).unwrap();
        self.tick()
    }

    fn is_trusted(&self) -> bool {
        self.verifier.is_trusted(&self.machine.id, at(self.now))
    }

    /// A connection in each phase.
    fn in_phase(phase: &str) -> Self {
        let mut bench = Self::new();
        if phase == "none" {
            return bench;
        }
        assert_eq!(bench.hello(1, HOST, hello()), ["welcome 1", "challenge 1"]);
        if phase == "challenged" {
            return bench;
        }
        assert_eq!(bench.quote(1), ["pass 1 first"]);
        if phase == "recording" {
            return bench;
        }
        assert_eq!(bench.recorded(1), ["trusted udc1/a 1 first"]);
        if phase == "resting" {
            return bench;
        }
        assert_eq!(bench.wait(), ["challenge 1"]);
        if phase == "challenged again" {
            return bench;
        }
        assert_eq!(bench.quote(1), ["pass 1"]);
        assert_eq!(phase, "recording again");
        bench
    }
}
