//! The machine with quotes of software TPMs.

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

const PHASES: [&str; 6] = ["none", "challenged", "recording", "resting", "challenged again", "recording again"];

/// One line per event: what follows from it in each of [`PHASES`].
#[test]
fn each_event_has_its_effects_in_each_phase() {
    type Act = fn(&mut Bench) -> Vec<String>;
    let close = "close 1 Protocol";
    let stale = "stale udc1/a 1, close 1 Protocol";
    let rows: [(&str, Act, [&str; 6]); 12] = [
        ("hello", |b| b.hello(1, HOST, hello()), ["welcome 1, challenge 1", close, close, stale, stale, stale]),
        (
            "quote",
            |b| {
                let challenge = b.challenges.get(&1).cloned();
                let challenge = challenge.unwrap_or(Challenge {
                    nonce: [0; 32],
                    policy: PolicyVersion(1),
                    pcrs: PCRS.into(),
                    ima_offset: 0,
                    ima_count: 0,
                });
                let (answer, facts) = (b.machine.answer(&challenge), b.machine.facts());
                b.quote_with(1, answer, facts)
            },
            ["", "pass 1 first", close, stale, "pass 1", stale],
        ),
        (
            "bad quote",
            |b| {
                let (answer, facts) = (b.machine.answer_over(&[0; 32]), b.machine.facts());
                b.quote_with(1, answer, facts)
            },
            ["", "failure 1, close 1 Untrusted", close, stale, "failure 1, stale udc1/a 1, close 1 Untrusted", stale],
        ),
        ("pass recorded", |b| b.recorded(1), ["", "", "trusted udc1/a 1 first", "", "", "trusted udc1/a 1"]),
        (
            "pass refused",
            |b| b.step(Event::PassRefused { conn: 1, code: CloseCode::Clone }),
            [
                "close 1 Clone",
                "close 1 Clone",
                "close 1 Clone",
                "stale udc1/a 1, close 1 Clone",
                "stale udc1/a 1, close 1 Clone",
                "stale udc1/a 1, close 1 Clone",
            ],
        ),
        ("tick, early", Bench::tick, ["", "", "", "", "", ""]),
        (
            "tick after half a minute",
            |b| {
                b.now += 30_000;
                b.tick()
            },
            ["", "close 1 Stale", "", "stale udc1/a 1, challenge 1", "stale udc1/a 1, challenge 1", "stale udc1/a 1"],
        ),
        (
            "cut off",
            |b| b.cut_off(HOST, false),
            [
                "",
                "close 1 Quarantined",
                "close 1 Quarantined",
                "stale udc1/a 1, close 1 Quarantined",
                "stale udc1/a 1, close 1 Quarantined",
                "stale udc1/a 1, close 1 Quarantined",
            ],
        ),
        ("sibling cut off", |b| b.cut_off(SIBLING, false), [""; 6]),
        (
            "gone",
            |b| b.step(Event::Gone { conn: 1 }),
            ["", "", "", "stale udc1/a 1", "stale udc1/a 1", "stale udc1/a 1"],
        ),
        (
            "epoch advanced",
            |b| b.step(Event::EpochAdvanced { site: host(HOST).site }),
            ["", "", "", "rewrap 1", "rewrap 1", "rewrap 1"],
        ),
        (
            "sealed",
            |b| b.step(Event::Sealed),
            [
                "",
                "close 1 CentralSealed",
                "close 1 CentralSealed",
                "stale udc1/a 1, close 1 CentralSealed",
                "stale udc1/a 1, close 1 CentralSealed",
                "stale udc1/a 1, close 1 CentralSealed",
            ],
        ),
    ];
    for (event, act, expected) in rows {
        for (phase, expected) in PHASES.into_iter().zip(expected) {
            let mut bench = Bench::in_phase(phase);
            assert_eq!(act(&mut bench).join(", "), expected, "{event} when {phase}");
        }
    }
}

#[test]
fn a_hello_is_answered_only_where_it_fits() {
    let cases = [
        ("generation", Hello { generation: HostGeneration(2), ..hello() }),
        ("too new", Hello { version_min: VERSION_MAX + 1, version_max: VERSION_MAX + 1, ..hello() }),
        ("too old", Hello { version_min: 0, version_max: VERSION_MIN - 1, ..hello() }),
    ];
    for (what, hello) in cases {
        let mut bench = Bench::new();
        assert_eq!(bench.hello(1, HOST, hello), ["close 1 Protocol"], "{what}");
        assert_eq!(bench.verifier.next_deadline(), None, "{what}");
    }
    let mut bench = Bench::new();
    assert_eq!(bench.hello(1, HOST, Hello { version_min: 0, version_max: u16::MAX, ..hello() })[0], "welcome 1");
}

#[test]
fn a_host_without_a_pass_holds_a_few_connections_only() {
    let mut bench = Bench::new();
    for conn in 1..=4 {
        assert_eq!(bench.hello(conn, HOST, hello()).len(), 2);
    }
    assert_eq!(bench.hello(5, HOST, hello()), ["close 5 Protocol"]);
    assert_eq!(bench.hello(6, SIBLING, hello()).len(), 2);
    bench.step(Event::Gone { conn: 2 });
    assert_eq!(bench.hello(7, HOST, hello()).len(), 2);
}

#[test]
fn only_a_quote_bound_to_all_of_its_session_passes() {
    let mut bench = Bench::in_phase("challenged");
    let (machine, challenge) = (Machine::new(HOST), bench.challenges[&1].clone());
    let good = machine.binding(&challenge);
    let (site, name) = (host(AFAR).site, host(SIBLING).host);
    let other_key = *kem::KemSecret::from_seed(&seed(99)).public();
    let wrong = [
        ("bare nonce", challenge.nonce.to_vec()),
        ("nothing", Vec::new()),
        ("deployment", QuoteBinding { deployment: DeploymentId([2; 16]), ..good }.qualifying_data().1.to_vec()),
        ("site", QuoteBinding { site: &site, ..good }.qualifying_data().1.to_vec()),
        ("host", QuoteBinding { host: &name, ..good }.qualifying_data().1.to_vec()),
        ("generation", QuoteBinding { host_generation: HostGeneration(2), ..good }.qualifying_data().1.to_vec()),
        ("nonce", QuoteBinding { nonce: &[9; 32], ..good }.qualifying_data().1.to_vec()),
        ("connection", QuoteBinding { exporter: &[9; 32], ..good }.qualifying_data().1.to_vec()),
        ("key", QuoteBinding { hpke_public: &other_key, ..good }.qualifying_data().1.to_vec()),
        ("suite", QuoteBinding { hpke_suite: 0, ..good }.qualifying_data().1.to_vec()),
        ("policy", QuoteBinding { policy_version: PolicyVersion(2), ..good }.qualifying_data().1.to_vec()),
    ];
    for (what, qualifying_data) in wrong {
        let mut bench = Bench::in_phase("challenged");
        let (answer, facts) = (machine.answer_over(&qualifying_data), machine.facts());
        assert_eq!(bench.quote_with(1, answer, facts), ["failure 1", "close 1 Untrusted"], "{what}");
        assert_eq!(bench.recorded(1), [""; 0], "{what}");
        assert!(!bench.is_trusted());
    }
    let (answer, facts) = (Machine::new(SIBLING).answer(&challenge), machine.facts());
    assert_eq!(bench.quote_with(1, answer, facts), ["failure 1", "close 1 Untrusted"], "another TPM");
    let mut bench = Bench::in_phase("challenged");
    let mut answer = machine.answer(&bench.challenges[&1]);
    answer.hpke_public = other_key;
    assert_eq!(bench.quote_with(1, answer, machine.facts()), ["failure 1", "close 1 Untrusted"], "key exchanged");
}

#[test]
fn a_quote_of_another_connection_does_not_pass() {
    let mut bench = Bench::in_phase("challenged");
    bench.hello(2, HOST, hello());
    assert_ne!(bench.challenges[&1].nonce, bench.challenges[&2].nonce);
    let (answer, facts) = (bench.machine.answer(&bench.challenges[&2]), bench.machine.facts());
    assert_eq!(bench.quote_with(1, answer, facts)[0], "failure 1");
}

#[test]
fn an_unusable_session_key_is_no_pass() {
    let mut bench = Bench::in_phase("challenged");
    bench.machine.hpke_public = [0; 32];
    assert_eq!(bench.quote(1), ["close 1 Protocol"], "a point of low order agrees on nothing");
}

#[test]
fn the_session_key_opens_for_the_quoted_key_and_transcript_only() {
    let mut bench = Bench::in_phase("challenged");
    let challenge = bench.challenges[&1].clone();
    let answer = bench.machine.answer(&challenge);
    let (transcript, _) = bench.machine.binding(&challenge).qualifying_data();
    let info = session_info(&transcript, &answer.attest);
    let facts = bench.machine.facts();
    let event = bench.quote_event(1, answer, facts);
    let effects = bench.effects(event);
    let [Effect::RecordPass(pass)] = effects.as_slice() else { panic!("{effects:?}") };
    let first = pass.first.as_ref().unwrap();
    let number = sha256(&[HOST.as_bytes()])[0];
    let key = kem::KemSecret::from_seed(&Secret::fill_with(|bytes| bytes.fill(number)));
    let opened = key.open(&info, b"", &first.message).unwrap();
    assert_eq!(opened.expose(), first.session_key.expose());
    assert!(key.open(&session_info(&transcript, b"other"), b"", &first.message).is_err());
    assert!(!format!("{pass:?}").contains(&format!("{:?}", first.session_key.expose())));
}

#[test]
fn a_late_answer_is_no_failure_and_no_pass() {
    let mut bench = Bench::in_phase("challenged again");
    let late = bench.machine.answer(&bench.challenges[&1]);
    bench.now += 30_000;
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, late.clone(), facts), [""; 0], "at the deadline, before anybody looked");
    assert_eq!(bench.tick(), ["stale udc1/a 1", "challenge 1"]);
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, late.clone(), facts), [""; 0], "after the next question");
    assert!(!bench.is_trusted());
    assert_eq!(bench.quote(1), ["pass 1"]);
    assert_eq!(bench.recorded(1), ["trusted udc1/a 1"]);
    assert_eq!(bench.wait(), ["challenge 1"]);
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, late, facts)[0], "failure 1", "an old quote played again");
}

#[test]
fn answers_that_come_late_by_several_questions_are_no_failures() {
    let mut bench = Bench::in_phase("challenged again");
    let mut late = vec![bench.machine.answer(&bench.challenges[&1])];
    bench.now += 30_000;
    assert_eq!(bench.tick(), ["stale udc1/a 1", "challenge 1"]);
    for _ in 0..4 {
        late.push(bench.machine.answer(&bench.challenges[&1]));
        bench.now += 30_000;
        assert_eq!(bench.tick(), ["challenge 1"]);
    }
    for answer in late {
        let facts = bench.machine.facts();
        assert_eq!(bench.quote_with(1, answer, facts), [""; 0]);
    }
    assert!(!bench.is_trusted());
    assert_eq!(bench.quote(1), ["pass 1"], "the newest one heals");
}

#[test]
fn a_connection_that_answers_nothing_is_given_up_some_time() {
    let mut bench = Bench::in_phase("challenged again");
    let mut asked = 0;
    loop {
        bench.now += 30_000;
        let effects = bench.tick();
        asked += 1;
        assert!(asked <= UNANSWERED_MAX + 1, "{effects:?}");
        if effects.last().is_some_and(|effect| effect == "close 1 Stale") {
            break;
        }
    }
    assert_eq!(asked, UNANSWERED_MAX + 1);
}

#[test]
fn a_nonce_passes_once() {
    let mut bench = Bench::in_phase("challenged");
    let answer = bench.machine.answer(&bench.challenges[&1]);
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, answer.clone(), facts), ["pass 1 first"]);
    bench.recorded(1);
    bench.wait();
    let facts = bench.machine.facts();
    assert_eq!(bench.quote_with(1, answer, facts)[0], "failure 1");
}

#[test]
fn a_second_connection_takes_over_only_after_its_own_pass() {
    let mut bench = Bench::in_phase("resting");
    bench.hello(2, HOST, hello());
    assert!(bench.is_trusted());
    assert_eq!(bench.quote(2), ["pass 2 first"]);
    assert_eq!(bench.recorded(2), ["close 1 Replaced", "trusted udc1/a 2 first"]);
    assert_eq!(bench.step(Event::Gone { conn: 1 }), [""; 0]);
    assert!(bench.is_trusted());

    let mut bench = Bench::in_phase("recording again");
    bench.hello(2, HOST, hello());
    bench.quote(2);
    bench.recorded(2);
    assert_eq!(bench.recorded(1), [""; 0], "the first's pass came too late");
    assert!(bench.is_trusted());

    let mut bench = Bench::in_phase("resting");
    bench.hello(2, HOST, hello());
    bench.now += 30_000;
    assert_eq!(bench.tick(), ["stale udc1/a 1", "challenge 1", "close 2 Stale"], "silence takes nothing over");
}

#[test]
fn a_failure_ends_what_other_connections_of_the_host_were_granted() {
    let mut bench = Bench::in_phase("resting");
    bench.hello(2, HOST, hello());
    bench.hello(3, SIBLING, hello());
    let (answer, facts) = (bench.machine.answer_over(&[0; 32]), bench.machine.facts());
    let effects = bench.quote_with(2, answer, facts);
    assert_eq!(effects, ["failure 2", "stale udc1/a 1", "close 1 Untrusted", "close 2 Untrusted"]);
    assert!(!bench.is_trusted());
}

#[test]
fn cut_off_between_quote_and_record_leads_to_nothing() {
    for (whom, whole_site) in [(HOST, false), (HOST, true), (SIBLING, true)] {
        let mut bench = Bench::in_phase("recording");
        bench.hello(2, AFAR, hello());
        assert_eq!(bench.cut_off(whom, whole_site), ["close 1 Quarantined"]);
        assert_eq!(bench.recorded(1), [""; 0]);
        assert!(!bench.is_trusted());
        assert_eq!(bench.verifier.connections.len(), 1, "another site's stay");
    }
    let mut bench = Bench::in_phase("recording");
    bench.step(Event::Sealed);
    assert_eq!(bench.recorded(1), [""; 0]);
}

#[test]
fn untrusted_leads_back_only_over_a_reboot() {
    for (reset, expected) in [(1, "failure 1"), (2, "failure 1"), (3, "pass 1 first")] {
        let mut bench = Bench::in_phase("challenged");
        bench.machine.tpm.counters.reset_count = reset;
        let answer = bench.machine.answer(&bench.challenges[&1]);
        let facts = Facts { untrusted_at_reset: Some(2), ..bench.machine.facts() };
        assert_eq!(bench.quote_with(1, answer, facts)[0], expected, "reset {reset}");
    }
}

#[test]
fn counters_that_go_back_are_a_clone() {
    let last = Counters { reset_count: 5, restart_count: 5, clock: 5_000 };
    let cases = [
        (Counters { reset_count: 4, ..last }, false),
        (Counters { restart_count: 4, ..last }, false),
        (Counters { clock: 4_999, ..last }, false),
        (last, true),
        (Counters { reset_count: 6, restart_count: 0, clock: 0 }, true),
        (Counters { restart_count: 6, clock: 0, ..last }, true),
    ];
    for (counters, passes) in cases {
        let mut bench = Bench::in_phase("challenged");
        bench.machine.tpm.counters = counters;
        let answer = bench.machine.answer(&bench.challenges[&1]);
        let facts = Facts { counters: Some(last), ..bench.machine.facts() };
        let effects = bench.quote_with(1, answer, facts);
        let expected: &[&str] = if passes { &["pass 1 first"] } else { &["failure 1 quarantine", "close 1 Clone"] };
        assert_eq!(effects, expected, "{counters:?}");
    }
}

#[test]
fn a_quote_overtaken_by_another_connections_pass_is_no_clone() {
    let mut bench = Bench::in_phase("challenged again");
    let earlier = bench.machine.answer(&bench.challenges[&1]);
    bench.hello(2, HOST, hello());
    bench.machine.tpm.counters.clock += 500;
    assert_eq!(bench.quote(2), ["pass 2 first"]);
    // Committed, but the machine has not heard of it yet.
    let facts = Facts { counters: Some(bench.machine.tpm.counters), ..bench.machine.facts() };
    assert_eq!(bench.quote_with(1, earlier, facts), ["stale udc1/a 1", "close 1 Replaced"]);
    assert_eq!(bench.recorded(2), ["trusted udc1/a 2 first"]);
}

#[test]
fn a_failure_tells_the_resets_of_a_quote_that_is_bound_and_else_the_last_known() {
    let failure_of = |bound: bool| {
        let mut bench = Bench::in_phase("challenged");
        bench.machine.tpm.counters.reset_count = 9;
        bench.machine.tpm.pcrs.insert(0, [0; 32]);
        let answer = if bound { bench.machine.answer(&bench.challenges[&1]) } else { bench.machine.answer_over(&[]) };
        let counters = Some(Counters { reset_count: 4, restart_count: 0, clock: 0 });
        let quarantine = Policy { quarantine_on_failure: true, ..policy() };
        bench.verifier.connections.get_mut(&1).unwrap().policy = quarantine.clone();
        let facts = Facts { counters, policy: quarantine, ..bench.machine.facts() };
        let event = bench.quote_event(1, answer, facts);
        match bench.effects(event).remove(0) {
            Effect::RecordFailure(failure) => *failure,
            other => panic!("{other:?}"),
        }
    };
    let (bound, unbound) = (failure_of(true), failure_of(false));
    assert_eq!((bound.reset_count, bound.quarantine), (9, true));
    assert_eq!(bound.reasons, ["PCR 0 is zero: boot was not measured"]);
    assert_eq!((unbound.reset_count, unbound.quarantine), (4, true));
}

#[test]
fn a_policy_changed_since_the_question_is_asked_about_anew() {
    let mut bench = Bench::in_phase("challenged");
    let newer = Policy { version: PolicyVersion(2), ..policy() };
    let (answer, facts) = (bench.machine.answer(&bench.challenges[&1]), bench.machine.facts());
    let facts = Facts { policy: newer, ..facts };
    assert_eq!(bench.quote_with(1, answer, facts.clone()), ["challenge 1"]);
    assert_eq!(bench.challenges[&1].policy, PolicyVersion(2));
    let answer = bench.machine.answer(&bench.challenges[&1]);
    assert_eq!(bench.quote_with(1, answer, facts), ["pass 1 first"]);
}

#[derive(Debug, Clone)]
enum Step {
    Hello { host: usize },
    Quote { pick: usize, kind: u8 },
    Recorded { pick: usize },
    Refused { pick: usize },
    Spurious { conn: ConnId },
    Wait { ms: u64 },
    CutOff { host: usize, whole_site: bool },
    Gone { pick: usize },
    Sealed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3usize).prop_map(|host| Step::Hello { host }),
        10 => (any::<usize>(), 0..8u8).prop_map(|(pick, kind)| Step::Quote { pick, kind }),
        6 => any::<usize>().prop_map(|pick| Step::Recorded { pick }),
        1 => any::<usize>().prop_map(|pick| Step::Refused { pick }),
        1 => (1..12u64).prop_map(|conn| Step::Spurious { conn }),
        5 => prop_oneof![1..3_000u64, 5_000..40_000u64].prop_map(|ms| Step::Wait { ms }),
        1 => (0..3usize, any::<bool>()).prop_map(|(host, whole_site)| Step::CutOff { host, whole_site }),
        1 => any::<usize>().prop_map(|pick| Step::Gone { pick }),
        1 => Just(Step::Sealed),
    ];
    prop::collection::vec(step, 1..60)
}

const NAMES: [&str; 3] = [HOST, SIBLING, AFAR];

/// What an observer of effects knows.
#[derive(Default)]
struct Watch {
    challenges: BTreeMap<ConnId, (usize, Challenge, u64)>,
    spent: BTreeSet<[u8; 32]>,
    recording: BTreeMap<ConnId, usize>,
    open: BTreeMap<ConnId, usize>,
    trusted: BTreeMap<usize, ConnId>,
    released: BTreeSet<ConnId>,
}

impl Watch {
    /// `good`: the nonce of a good quote that is being answered now.
    fn see(&mut self, effects: &[Effect], now: u64, good: Option<[u8; 32]>, recorded: Option<ConnId>) {
        let index = |id: &HostId| NAMES.iter().position(|name| host(name) == *id).unwrap();
        for effect in effects {
            match effect {
                Effect::Welcome { .. } | Effect::Rewrap { .. } => {}
                Effect::Challenge { conn, challenge } => {
                    assert!(self.spent.insert(challenge.nonce), "nonces are new");
                    self.challenges.insert(*conn, (self.open[conn], challenge.clone(), now));
                }
                Effect::RecordPass(pass) => {
                    let (_, challenge, asked) = &self.challenges[&pass.conn];
                    assert_eq!(good, Some(challenge.nonce), "a pass rests on a quote over the newest nonce");
                    assert!(now < asked + 30_000);
                    assert_eq!(pass.first.is_some(), !self.released.contains(&pass.conn));
                    self.recording.insert(pass.conn, index(&pass.host));
                }
                Effect::RecordFailure(failure) => assert!(self.open.contains_key(&failure.conn)),
                Effect::Trusted { host, conn, first, .. } => {
                    assert_eq!(recorded, Some(*conn), "trust follows a record");
                    assert!(self.recording.remove(conn).is_some());
                    assert_eq!(*first, self.released.insert(*conn));
                    self.trusted.insert(index(host), *conn);
                }
                Effect::Stale { host, conn } => {
                    assert_eq!(self.trusted.remove(&index(host)), Some(*conn));
                }
                Effect::Close { conn, .. } => {
                    self.open.remove(conn);
                    self.recording.remove(conn);
                    self.challenges.remove(conn);
                    assert!(
                        self.trusted.values().all(|trusted| trusted != conn)
                            || effects.iter().any(|effect| {
                                matches!(effect, Effect::Trusted { conn: other, .. } if other != conn)
                            })
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn trust_rests_on_a_fresh_quote_that_was_recorded(steps in steps()) {
        let machines = NAMES.map(Machine::new);
        let (mut bench, mut watch, mut next) = (Bench::new(), Watch::default(), 0);
        for step in steps {
            let (mut good, mut recorded) = (None, None);
            let event = match step {
                Step::Hello { host } => {
                    next += 1;
                    watch.open.insert(next, host);
                    let (facts, hello, seed) = (Box::new(machines[host].facts()), Box::new(hello()), bench.seed());
                    let host = machines[host].id.clone();
                    Event::HelloReceived { conn: next, host, exporter: EXPORTER, hello, facts, seed }
                }
                Step::Quote { pick, kind } => {
                    let Some((conn, (host, challenge, _))) = watch.challenges.iter().nth(pick % 4) else { continue };
                    let (machine, conn) = (&machines[*host], *conn);
                    let answer = match kind {
                        0 => machine.answer_over(&[]),
                        1 => machine.answer(&Challenge { nonce: [0; 32], ..challenge.clone() }),
                        _ => {
                            good = Some(challenge.nonce);
                            machine.answer(challenge)
                        }
                    };
                    let facts = machine.facts();
                    bench.quote_event(conn, answer, facts)
                }
                Step::Recorded { pick } => {
                    let Some((conn, _)) = watch.recording.iter().nth(pick % 4) else { continue };
                    recorded = Some(*conn);
                    Event::PassRecorded { conn: *conn, ttl: Duration::from_secs(10) }
                }
                Step::Refused { pick } => {
                    let Some((conn, _)) = watch.recording.iter().nth(pick % 4) else { continue };
                    Event::PassRefused { conn: *conn, code: CloseCode::Quarantined }
                }
                Step::Spurious { conn } => {
                    recorded = Some(conn);
                    if watch.recording.contains_key(&conn) { continue }
                    Event::PassRecorded { conn, ttl: Duration::from_secs(10) }
                }
                Step::Wait { ms } => {
                    bench.now += ms;
                    Event::TimePassed { seed: bench.seed() }
                }
                Step::CutOff { host, whole_site } => {
                    let id = machines[host].id.clone();
                    let host = (!whole_site).then_some(id.host);
                    Event::CutOff { site: id.site, host, code: CloseCode::Quarantined }
                }
                Step::Gone { pick } => {
                    let Some((conn, _)) = watch.open.iter().nth(pick % 4) else { continue };
                    let conn = *conn;
                    watch.open.remove(&conn);
                    watch.recording.remove(&conn);
                    watch.challenges.remove(&conn);
                    Event::Gone { conn }
                }
                Step::Sealed => Event::Sealed,
            };
            let cut = match &event {
                Event::CutOff { site, host, .. } => Some((site.clone(), host.clone())),
                _ => None,
            };
            let effects = bench.effects(event);
            watch.see(&effects, bench.now, good, recorded);
            if let Some((site, name)) = cut {
                for (index, machine) in machines.iter().enumerate() {
                    if machine.id.site == site && name.as_ref().is_none_or(|name| *name == machine.id.host) {
                        prop_assert!(!watch.trusted.contains_key(&index));
                        prop_assert!(!watch.open.values().any(|open| *open == index));
                    }
                }
            }
            for (index, machine) in machines.iter().enumerate() {
                if bench.verifier.is_trusted(&machine.id, at(bench.now)) {
                    prop_assert!(watch.trusted.contains_key(&index));
                }
                let held = bench.verifier.connections.values().filter(|held| held.host == machine.id).count();
                prop_assert!(held <= CONNECTIONS_PER_HOST_MAX);
            }
            prop_assert!(bench.verifier.connections.keys().all(|conn| watch.open.contains_key(conn)));
        }
    }
}
